// The view Completion: the model continues a prompt as it is. The last one is kept in this tab.

import { AnswerView, showStop } from "./answer_view.js";
import { canContinue, isLocked, isWriting, newAnswer, stop, takeUp, write } from "./answer.js";
import { announce, button, byId } from "./dom.js";
import { Keeper } from "./keeper.js";
import { showNotice } from "./notice.js";
import { completionRequest } from "./parameters.js";
import { load } from "./storage.js";

let kept = { prompt: "", answer: null };
let leaving = new AbortController();
const keeper = new Keeper("completion", () => ({ ...kept, prompt: byId("prompt").value }));

export function start() {
  kept = load("completion", kept);
  byId("prompt").value = kept.prompt;
  byId("prompt").addEventListener("input", () => keeper.keepSoon());
  byId("completion-form").addEventListener("submit", (event) => { event.preventDefault(); complete(); });
  byId("complete-stop").addEventListener("click", stopCompletion);
  if (kept.answer) show(takeUp(kept.answer));
}

function complete() {
  const request = completionRequest(byId("prompt").value);
  if (!request || isRunning()) return;
  leaving.abort();
  leaving = new AbortController();
  kept.answer = newAnswer(request);
  keeper.keepNow();
  show(kept.answer);
}

async function stopCompletion() {
  const stopped = stop(kept.answer);
  showButtons();
  await stopped.catch(showNotice);
  showButtons();
}

const isRunning = () => Boolean(kept.answer && isWriting(kept.answer));

async function show(answer) {
  const view = new AnswerView("Completion", { isPlain: true, actions: [button("Regenerate", complete)] });
  byId("completed").replaceChildren(view.element);
  view.show(answer);
  showButtons();
  if (!isWriting(answer)) return showNext(view, answer);
  await write(answer, () => { view.show(answer); keeper.keepSoon(); }, leaving.signal);
  showNext(view, answer);
  keeper.keepNow();
  showButtons();
  if (isLocked(answer)) return;
  announce(answer.error ? "The completion failed." : "The completion has ended.");
}

/** Offer to put the text behind its prompt, and to complete both. */
function showNext(view, answer) {
  if (canContinue(answer)) view.actions.append(button("Continue", () => {
    byId("prompt").value = answer.request.body.prompt + answer.text;
    complete();
  }));
}

function showButtons() {
  byId("complete").disabled = isRunning();
  showStop(byId("complete-stop"), isRunning() ? kept.answer : null);
}
