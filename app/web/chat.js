// The view Chat: a conversation, kept in this tab. Messages are {role: "user" | "tool", content} and
// {role: "assistant", answer}; an answer that is being written is taken up again after a reload.

import { AnswerView, showStop } from "./answer_view.js";
import { canContinue, isLocked, isWriting, newAnswer, stop, takeUp, write } from "./answer.js";
import { announce, button, byId, element } from "./dom.js";
import { showNotice } from "./notice.js";
import { chatRequest, systemPrompt } from "./parameters.js";
import { load } from "./storage.js";
import { Keeper } from "./keeper.js";

let messages = [];
let edited = null; // a message that is being edited: {index, draft: what was in the field before}
let leaving = new AbortController(); // ends the following of an answer, not its job
const keeper = new Keeper("chat", () => messages);

export function start() {
  messages = load("chat", []);
  for (const { answer } of messages) if (answer) takeUp(answer);
  byId("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  byId("draft").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  byId("stop").addEventListener("click", stopAnswer);
  byId("cancel-edit").addEventListener("click", cancelEdit);
  byId("composer").addEventListener("keydown", ({ key, isComposing }) => { if (key === "Escape" && !isComposing) cancelEdit(); });
  byId("new-chat").addEventListener("click", () => { replaceMessages([]); byId("draft").focus(); });
  for (const example of document.querySelectorAll("#welcome button")) example.addEventListener("click", () => offer(example.textContent));
  showMessages();
}

const running = () => messages.find(({ answer }) => answer && isWriting(answer))?.answer;

function offer(text) {
  byId("draft").value = text;
  byId("draft").focus();
}

function send() {
  const content = byId("draft").value.trim();
  if (!content || running()) return;
  const kept = edited ? messages.slice(0, edited.index) : messages;
  if (ask([...kept, { role: "user", content }])) byId("draft").value = "";
}

/** Let the model answer these messages. Return false if the parameters are wrong. unfinished: an answer to continue. */
function ask(asked, unfinished) {
  const last = unfinished ? [{ role: "assistant", answer: unfinished }] : [];
  const request = chatRequest(sentMessages([...asked, ...last]), Boolean(unfinished));
  if (!request) return false;
  replaceMessages([...asked, { role: "assistant", answer: newAnswer(request, unfinished) }]);
  return true;
}

function replaceMessages(next) {
  const answer = running();
  leaving.abort();
  leaving = new AbortController();
  if (answer) stop(answer).catch(showNotice);
  messages = next;
  edited = null;
  keeper.keepNow();
  showMessages();
}

/** The messages as the service reads them. An answer that failed is left out. */
function sentMessages(asked) {
  const system = systemPrompt();
  const sent = asked.filter(({ answer }) => !answer || answer.text || answer.calls.length).map(sentMessage);
  return system ? [{ role: "system", content: system }, ...sent] : sent;
}

function sentMessage({ role, content, callId, answer }) {
  if (role === "tool") return { role, content, tool_call_id: callId };
  if (!answer) return { role, content };
  const calls = answer.calls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text } }));
  return { role, content: answer.text, ...(calls.length && { tool_calls: calls }) };
}

function showMessages() {
  byId("welcome").hidden = messages.length > 0;
  byId("messages").replaceChildren(...messages.map((message, index) => (
    message.answer ? answerElement(message.answer, index) : messageElement(message, index)
  )));
  showButtons();
  showEdit();
  byId("messages").lastElementChild?.scrollIntoView({ block: "nearest" });
}

function messageElement({ role, content }, index) {
  const title = role === "tool" ? "Result of the tool" : "You";
  return element("article", { class: `message ${role}`, "aria-label": title }, element("h3", {}, title),
    element("div", { class: "text plain" }, content),
    element("div", { class: "row actions" }, role === "user" ? button("Edit", () => edit(index)) : null));
}

function answerElement(answer, index) {
  const view = new AnswerView("Answer", { actions: [button("Regenerate", () => regenerate(index))] });
  const changed = () => {
    const isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
    view.show(answer);
    keeper.keepSoon();
    if (isAtEnd) scrollTo({ top: document.documentElement.scrollHeight });
  };
  view.show(answer);
  if (isWriting(answer)) follow(answer, changed).then(() => showNext(view, answer, index));
  else showNext(view, answer, index);
  return view.element;
}

async function follow(answer, changed) {
  const { signal } = leaving;
  await write(answer, changed, signal);
  if (signal.aborted) return;
  keeper.keepNow();
  showButtons();
  if (isLocked(answer)) return; // the dialog for the key, or the error, says it
  announce(answer.error ? "The answer failed." : `Answer: ${answer.text}`);
}

function showButtons() {
  showStop(byId("stop"), running());
  byId("send").disabled = Boolean(running());
}

async function stopAnswer() {
  const stopped = stop(running());
  showButtons();
  await stopped.catch(showNotice);
  showButtons();
}

/** Put a message into the field. It and all that follows stay, dimmed, until it is sent again or the edit is canceled. */
function edit(index) {
  if (running()) return;
  edited ??= { draft: byId("draft").value };
  edited.index = index;
  showEdit();
  offer(messages[index].content);
  announce(byId("editing").textContent);
}

function cancelEdit() {
  if (!edited) return;
  const { index, draft } = edited;
  edited = null;
  showEdit();
  byId("draft").value = draft;
  byId("messages").children[index].querySelector(".actions button").focus();
}

function showEdit() {
  [...byId("messages").children].forEach((child, index) => { child.inert = edited !== null && index >= edited.index; });
  for (const id of ["editing", "cancel-edit"]) byId(id).hidden = !edited;
}

function regenerate(index) {
  if (!running()) ask(messages.slice(0, index));
}

/** Below the last answer, what can come next: more of a text that was cut off, or the result of each tool that it calls. */
function showNext(view, answer, index) {
  if (index !== messages.length - 1 || answer.state !== "ended") return;
  if (canContinue(answer)) view.actions.append(button("Continue", () => ask(messages.slice(0, index), answer)));
  if (answer.calls.length) showResultForms(view, answer);
}

function showResultForms(view, answer) {
  const fields = answer.calls.map((call) => element("label", {}, `Result of ${call.name}`, element("textarea", { rows: "2" })));
  const form = element("form", { class: "composer", onsubmit: (event) => {
    event.preventDefault();
    const results = fields.map((label, at) => ({ role: "tool", content: label.lastChild.value, callId: answer.calls[at].id }));
    ask([...messages, ...results]);
  } }, ...fields, element("button", { type: "submit" }, "Send the results"));
  view.element.append(form);
}
