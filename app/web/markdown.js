// Shows the Markdown that models write: headings, lists, quotes, code, emphasis, links. Each piece becomes an element
// with text nodes; markup in the text stays text. Pictures and tables are shown as they are written (decision 0075).

import { element } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const INLINE = /(?<code>`+)(?<coded>.+?)\k<code>(?!`)|\*\*(?<strong>\S(?:.*?\S)?)\*\*|(?<![\w*])\*(?<em>[^\s*](?:[^*]*[^\s*])?)\*(?!\w)|\[(?<label>[^\]]+)\]\((?<url>https?:\/\/[^\s)]+)\)/s;
const LONGEST_INLINE = 4_000; // characters of a paragraph; a longer one is shown as it is

/** Shows a growing text in `target`. Blocks that are complete are not made again. */
export class MarkdownText {
  constructor(target) {
    this.target = target;
    this.clear();
  }

  clear() {
    this.text = "";
    this.kept = 0; // characters whose nodes stay
    this.open = []; // nodes of the text behind them
    this.target.replaceChildren();
  }

  show(text) {
    if (!text.startsWith(this.text)) this.clear();
    if (text === this.text) return;
    this.text = text;
    for (const node of this.open) node.remove();
    const complete = lastBoundary(text, this.kept);
    if (complete > this.kept) {
      this.target.append(...blocks(text.slice(this.kept, complete)));
      this.kept = complete;
    }
    this.open = blocks(text.slice(this.kept));
    this.target.append(...this.open);
  }
}

/** Where the last block begins that may still grow: behind an empty line that is in no code and before no list item. */
function lastBoundary(text, from) {
  let fence = null, boundary = from, at = from, wasEmpty = false, isInList = false;
  for (const line of text.slice(from).split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    const isItem = ITEM.test(line) || /^\s/.test(line);
    if (wasEmpty && !fence && line && !(isInList && isItem)) boundary = at;
    if (line.trim() && !fence) isInList = isItem;
    if (mark && !fence) fence = mark;
    else if (mark && fence && mark.startsWith(fence)) fence = null;
    wasEmpty = !line.trim() && !fence;
    at += line.length + 1;
  }
  return boundary;
}

function blocks(text) {
  const lines = text.split("\n");
  const made = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else made.push(takeBlock(lines));
  }
  return made;
}

/** Remove the lines of the first block and return its element. */
function takeBlock(lines) {
  const fence = FENCE.exec(lines[0]);
  if (fence) return takeCode(lines, fence);
  const heading = HEADING.exec(lines[0]);
  if (heading) {
    lines.shift();
    return element("p", { class: `heading level-${heading[1].length}` }, ...inline(heading[2]));
  }
  if (RULE.test(lines[0])) {
    lines.shift();
    return element("hr");
  }
  if (ITEM.test(lines[0])) return takeList(lines);
  if (QUOTE.test(lines[0])) {
    return element("blockquote", {}, ...blocks(takeWhile(lines, (line) => QUOTE.test(line)).map((line) => QUOTE.exec(line)[1]).join("\n")));
  }
  return element("p", {}, ...inline(takeParagraph(lines).join("\n")));
}

function takeCode(lines, [, mark, language]) {
  lines.shift();
  const code = takeWhile(lines, (line) => !line.trim().startsWith(mark));
  lines.shift();
  return element("pre", { tabindex: "0", "aria-label": language ? `Code: ${language}` : "Code" }, element("code", {}, code.join("\n")));
}

function takeList(lines) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const isOrdered = /\d/.test(mark);
  const list = element(isOrdered ? "ol" : "ul", isOrdered ? { start: String(parseInt(mark, 10)) } : {});
  while (lines.length) {
    const item = ITEM.exec(lines[0]);
    if (!item || item[1].length !== indent.length || /\d/.test(item[2]) !== isOrdered) break;
    lines.shift();
    const more = takeWhile(lines, (line) => line.length - line.trimStart().length > indent.length || (!line.trim() && continuesList(lines, indent)));
    list.append(element("li", {}, ...inline(item[3]), ...blocks(dedent(more))));
  }
  return list;
}

/** Whether a line of the list, or below one of its items, follows the empty lines. */
function continuesList(lines, indent) {
  const next = lines.find((line) => line.trim());
  return next !== undefined && next.length - next.trimStart().length > indent.length;
}

function dedent(lines) {
  const widths = lines.filter((line) => line.trim()).map((line) => line.length - line.trimStart().length);
  return lines.map((line) => line.slice(Math.min(...widths))).join("\n");
}

function takeParagraph(lines) {
  return [lines.shift(), ...takeWhile(lines, (line) => line.trim() && ![FENCE, HEADING, QUOTE, RULE, ITEM].some((mark) => mark.test(line)))];
}

function takeWhile(lines, condition) {
  const taken = [];
  while (lines.length && condition(lines[0])) taken.push(lines.shift());
  return taken;
}

/** Nodes of a paragraph. */
function inline(text) {
  const nodes = [];
  let rest = text.length > LONGEST_INLINE ? "" : text;
  if (!rest) return [text];
  for (let match; (match = INLINE.exec(rest)); rest = rest.slice(match.index + match[0].length)) {
    nodes.push(rest.slice(0, match.index));
    const { coded, strong, em, label, url } = match.groups;
    if (coded) nodes.push(element("code", {}, coded));
    else if (strong) nodes.push(element("strong", {}, ...inline(strong)));
    else if (em) nodes.push(element("em", {}, ...inline(em)));
    else nodes.push(element("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, label));
  }
  return [...nodes, rest];
}
