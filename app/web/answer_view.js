// Shows an answer: its text as it grows, its tokens with their probabilities, its calls of tools, its figures, its error.

import { element } from "./dom.js";
import { MarkdownText } from "./markdown.js";
import { isWriting, writtenTokens } from "./answer.js";

const FINISH = {
  length: "ended at its limit of tokens", canceled: "stopped", expired: "its time in line was over", tool_calls: "calls a tool",
  timeout: "its time was over", content_filter: "ended by a content filter",
};
const FULL = "the context of the model is full: begin anew, or with a shorter text";
const STATES = {
  sending: "sending", waiting: "waiting", writing: "writing",
  reconnecting: "The connection is lost; the job continues. Connecting again", locked: "waits for an API key that may read it",
};
const BLOCKS = "p, ul, ol, li, pre, pre > code, blockquote"; // of Markdown; what is written next stands behind the last
const SHADES = [0.9, 0.6, 0.3, 0.1]; // probabilities above which a token has the shade 0, 1, 2, 3; else 4

export class AnswerView {
  /** actions: buttons below the answer. isPlain: the text is shown as it is, without Markdown. */
  constructor(title, { isPlain = false, actions = [] } = {}) {
    this.text = element("div", { class: isPlain ? "text plain" : "text" });
    this.markdown = isPlain ? null : new MarkdownText(this.text);
    this.shownTokens = 0;
    this.calls = element("div", { class: "calls" });
    this.error = element("div", { class: "error", role: "alert", hidden: true });
    this.figures = element("p", { class: "figures" });
    this.actions = element("div", { class: "row actions" }, ...actions);
    this.element = element("article", { class: "message assistant", "aria-label": title },
      element("h3", {}, title), this.text, this.calls, this.error, this.figures, this.actions);
  }

  show(answer) {
    this.element.setAttribute("aria-busy", String(isWriting(answer)));
    this.element.dataset.state = answer.state;
    if (answer.job) this.element.dataset.job = answer.job;
    if (answer.logprobs.length) this.#showTokens(answer.logprobs);
    else if (this.markdown) this.markdown.show(answer.text);
    else if (this.text.textContent !== answer.text) this.text.textContent = answer.text;
    this.#placeCaret();
    this.calls.replaceChildren(...answer.calls.filter(Boolean).map(callElement));
    this.error.hidden = !answer.error;
    this.error.replaceChildren(...(answer.error?.lines ?? []).map((line) => element("p", {}, line)));
    this.figures.textContent = figuresOf(answer);
    this.actions.hidden = isWriting(answer);
  }

  #placeCaret() {
    this.caret?.classList.remove("caret");
    this.caret = lastBlock(this.text);
    this.caret.classList.add("caret");
  }

  /** A span for each token, with its probability and the alternatives; the arrow keys go from one to the next. */
  #showTokens(tokens) {
    if (tokens.length < this.shownTokens) this.shownTokens = 0;
    if (this.shownTokens === 0) {
      this.text.replaceChildren();
      this.text.className = "text plain tokens";
      Object.entries({ role: "group", "aria-label": "Tokens with their probabilities; the arrow keys go from one to the next" })
        .forEach(([name, value]) => this.text.setAttribute(name, value));
      this.text.onkeydown = moveFocus;
    }
    for (const token of tokens.slice(this.shownTokens)) {
      const isFirst = this.text.childElementCount === 0;
      this.text.append(element("span", { class: `token shade-${shadeOf(token.logprob)}`, title: titleOf(token), tabindex: isFirst ? "0" : "-1" }, token.token));
    }
    this.shownTokens = tokens.length;
  }
}

/** Show the button that stops an answer; null: there is none to stop. */
export function showStop(button, answer) {
  button.hidden = !answer;
  button.disabled = Boolean(answer?.isStopping);
  button.textContent = button.disabled ? "Stopping" : "Stop";
}

function lastBlock(node) {
  const last = node.lastElementChild;
  return last?.matches(BLOCKS) ? lastBlock(last) : node;
}

function callElement({ name, arguments: text }) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch { /* not whole yet */ }
  return element("div", { class: "call" }, element("p", {}, "Calls ", element("strong", {}, name)),
    element("pre", { tabindex: "0", "aria-label": `Arguments of ${name}` }, element("code", {}, shown)));
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

function shadeOf(logprob) {
  const shade = logprob === null ? -1 : SHADES.findIndex((least) => Math.exp(logprob) >= least);
  return shade === -1 ? SHADES.length : shade;
}

function titleOf({ token, logprob, top }) {
  const likely = Object.entries(top).sort((one, other) => other[1] - one[1]);
  const lines = likely.map(([text, value]) => `${JSON.stringify(text)} ${percent(value)}`);
  return [`${JSON.stringify(token)} ${logprob === null ? "" : percent(logprob)}`, "", ...lines].join("\n");
}

function moveFocus(event) {
  const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  const next = step && document.activeElement[step];
  if (!next) return;
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  event.preventDefault();
}

function figuresOf(answer) {
  const { attempt, usage, metrics, finish, isFull, sentAt, firstAt } = answer;
  const firstSeconds = metrics?.time_to_first_token_seconds ?? (firstAt ? (firstAt - sentAt) / 1000 : null);
  return [
    stateOf(answer),
    finish === "length" && isFull ? FULL : FINISH[finish],
    usage && `${writtenTokens(answer)} tokens`,
    metrics?.tokens_per_second && `${metrics.tokens_per_second.toFixed(1)} tokens/s`,
    firstSeconds !== null && `first token after ${firstSeconds.toFixed(2)} s`,
    usage && promptFigure(usage),
    metrics?.source === "cached" && "from the response cache",
    attempt > 1 && `continued by another worker${attempt > 2 ? `, ${attempt - 1} times` : ""}`,
  ].filter(Boolean).join(" · ");
}

function stateOf({ state, text, before, place, isSilent, isStopping }) {
  if (isStopping && state !== "ended") return "stopping";
  if (state === "waiting" && place) return `place ${place.position} in line${startOf(place)}`;
  if (state === "writing" && isSilent) return text === before.text ? "waiting for the first token" : "waiting for the worker";
  return STATES[state];
}

const startOf = ({ start }) => (start ? `, starts in about ${Math.max(0, Math.round((start - Date.now()) / 1000))} s` : "");

function promptFigure(usage) {
  const cached = usage.cached_tokens ?? usage.prompt_tokens_details?.cached_tokens ?? 0;
  return `${cached} of ${usage.prompt_tokens} prompt tokens cached`;
}
