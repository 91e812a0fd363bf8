// One text that the model writes: from its request to its end, across reloads, lost connections and lost workers.
//
// An answer is plain data, so that the tab can keep it. Its holder may call `write` at any time: it sends the
// request under an idempotency key, so that a request sent twice is one job, and follows the job after the last event
// that the answer has (`Last-Event-ID`).

import { APIError, askForKey, call, errorIn, readJSON, readKey, serverSentEvents } from "./api.js";
import { model } from "./model.js";

const RETRY_SECONDS = [0.5, 1, 2, 5];
const WATCH_SECONDS = 2; // between two looks at the place in line, and at a job from which nothing comes
const SILENT_SECONDS = 5; // without an event, after which nothing comes from a running job

const UNFINISHED = ["length", "canceled", "timeout"];

/** request: {path, body}. With tools the path is OpenAI's, which finds the calls in the text. unfinished: the answer that it continues. */
export function newAnswer(request, unfinished = null) {
  const { text, logprobs } = unfinished ?? { text: "", logprobs: [] };
  return {
    request, key: randomKey(), hasAPIKey: Boolean(readKey()), job: null, after: null,
    before: { text, logprobs, tokens: unfinished ? writtenTokens(unfinished) : 0 },
    state: "sending", text, logprobs: [...logprobs], calls: [], isFull: false,
    place: null, attempt: 0, isSilent: false, isStopping: false, sentAt: Date.now(), firstAt: null, lastAt: null,
    finish: null, usage: null, metrics: null, error: null,
  };
}

export const isWriting = ({ state }) => state !== "ended" && state !== "locked";

/** Whether its job may go on, and the API key of this tab may not read it. With another key it is followed again. */
export const isLocked = ({ state }) => state === "locked";

/** Return an answer that the tab has kept. One that was locked is to be followed again: the key may be another now. */
export function takeUp(answer) {
  answer.isStopping = false; // where the request to stop did not get through, it can be sent again
  return isLocked(answer) ? Object.assign(answer, { state: "reconnecting", error: null }) : answer;
}

/** The tokens of its text, with those of the answers that it continues. */
export const writtenTokens = ({ usage, before }) => (before.tokens ?? 0) + (usage?.completion_tokens ?? 0);

/** Whether its text was cut off, and another request can continue it. A schema would begin anew. */
export function canContinue({ finish, isFull, text, calls, request: { body } }) {
  return UNFINISHED.includes(finish) && !isFull && text !== "" && !calls.length && !body.json_schema && !body.response_format;
}

/** Write the answer to its end; `changed` is called after each change. Aborting `signal` only leaves it. */
export async function write(answer, changed, signal) {
  const watch = setInterval(() => look(answer, changed), WATCH_SECONDS * 1000);
  try {
    await follow(answer, changed, signal);
  } finally {
    clearInterval(watch);
  }
  if (signal.aborted || isWriting(answer) || isLocked(answer)) return;
  await readFigures(answer);
  changed();
}

async function follow(answer, changed, signal) {
  let failures = 0;
  while (isWriting(answer)) {
    const before = answer.after;
    try {
      await (hasTools(answer) ? streamChunks(answer, changed, signal) : followJob(answer, changed, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof APIError)) throw error;
      if (answer.job && isRefusal(error)) return lock(answer, changed, error);
      if (!answer.job || !error.isPassing) return end(answer, changed, { error: shown(error) });
    }
    if (!isWriting(answer)) return;
    failures = answer.after === before ? failures + 1 : 0;
    answer.state = "reconnecting";
    changed();
    await pause(RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)], signal);
    if (signal.aborted) return;
  }
}

/** Let the job end, as soon as there is one; what it has written stays. */
export async function stop(answer) {
  answer.isStopping = true;
  if (answer.job) await cancel(answer);
}

async function cancel(answer) {
  try {
    await call(`jobs/${answer.job}/cancel`, { method: "POST" });
  } catch (error) {
    answer.isStopping = false; // it can be tried again
    throw error;
  }
}

const hasTools = (answer) => answer.request.path.startsWith("v1/");

async function submit(answer, signal) {
  return call(answer.request.path, {
    method: "POST", body: answer.request.body, headers: { "Idempotency-Key": answer.key }, signal,
  });
}

/** Follow the events of the job, which is made first where it is not known. */
async function followJob(answer, changed, signal) {
  if (!answer.job) {
    const job = await (await submit(answer, signal)).json();
    Object.assign(answer, { job: job.id, state: "waiting", place: placeOf(job) });
    changed();
    if (answer.isStopping) await cancel(answer);
  }
  const headers = answer.after ? { "Last-Event-ID": answer.after } : {};
  const response = await call(`jobs/${answer.job}/events`, { headers, signal });
  if (response.status === 204) return end(answer, changed, {}); // it ended with the last event that came
  arrived(answer, answer.attempt ? "writing" : "waiting");
  changed();
  for await (const event of serverSentEvents(response, signal)) {
    take(answer, event);
    changed();
    if (!isWriting(answer)) return;
  }
}

/** Note that something has come from the job, or the connection to it. */
function arrived(answer, state) {
  Object.assign(answer, { state, isSilent: false, lastAt: Date.now() });
}

function take(answer, { event, id, data }) {
  const values = JSON.parse(data);
  if (event === "error") throw errorIn(values);
  answer.after = id;
  if (event === "started") {
    arrived(answer, "writing");
    Object.assign(answer, { attempt: values.attempt, place: null });
  }
  if (event === "delta") addText(answer, values.text, values.logprobs);
  if (event === "end") {
    const error = values.error ? { lines: errorLines(values.error) } : null;
    const isStopped = ["canceled", "expired"].includes(values.status);
    Object.assign(answer, { state: "ended", usage: values.usage, error });
    answer.finish = values.finish_reason ?? (isStopped ? values.status : null);
  }
}

function addText(answer, text, logprobs = []) {
  arrived(answer, "writing");
  answer.firstAt ??= answer.lastAt;
  answer.text += text;
  answer.logprobs.push(...logprobs);
}

/** Read the chunks of a conversation with tools. Sent again, the request gets the same job's stream from its start. */
async function streamChunks(answer, changed, signal) {
  const response = await submit(answer, signal);
  answer.job = response.headers.get("Location").split("/").pop();
  if (answer.isStopping) await cancel(answer);
  arrived(answer, "waiting");
  Object.assign(answer, { text: answer.before.text, logprobs: [...answer.before.logprobs], calls: [] });
  for await (const { data } of serverSentEvents(response, signal)) {
    if (data === "[DONE]") return end(answer, changed, {});
    const chunk = JSON.parse(data);
    if (chunk.error) throw errorIn(chunk);
    for (const choice of chunk.choices) takeChoice(answer, choice);
    answer.usage = chunk.usage ?? answer.usage;
    changed();
  }
}

function takeChoice(answer, { delta, logprobs, finish_reason: finish }) {
  const tokens = logprobs?.content?.map(({ token, logprob, top_logprobs: top }) => (
    { token, logprob, top: Object.fromEntries(top.map((other) => [other.token, other.logprob])) }
  ));
  if (delta.content || delta.tool_calls || tokens) addText(answer, delta.content ?? "", tokens);
  for (const { index, id, function: called } of delta.tool_calls ?? []) {
    answer.calls[index] ??= { id, name: "", arguments: "" };
    answer.calls[index].name += called.name ?? "";
    answer.calls[index].arguments += called.arguments ?? "";
  }
  answer.finish = finish ?? answer.finish;
}

/** Whether the service refuses to show a job to the API key of this tab. A job that the key may not read is not found. */
const isRefusal = ({ status }) => status === 401 || status === 403 || (status === 404 && readKey() !== "");

function lock(answer, changed, { status }) {
  if (status === 403) askForKey("This answer needs an API key with the scope jobs, which yours does not have: paste another.");
  Object.assign(answer, { state: "locked", error: status === 404 ? { lines: [unreadable(answer)] } : null });
  changed();
}

function unreadable({ hasAPIKey }) {
  const reason = hasAPIKey ? "It was made with another one, or is no longer kept." : "It was made without a key.";
  return `This API key may not read the rest of this answer. ${reason} A key with the scope admin reads it.`;
}

function end(answer, changed, values) {
  Object.assign(answer, values, { state: "ended" });
  changed();
}

/** Read what the record of the job holds beside the text: tokens, speed, time to the first token. */
async function readFigures(answer) {
  if (!answer.job) return;
  try {
    const job = await readJSON(`jobs/${answer.job}`);
    Object.assign(answer, { usage: job.usage ?? answer.usage, metrics: job.metrics, attempt: job.attempt });
    answer.isFull = isFull(answer);
    if (job.status === "canceled") answer.finish = "canceled";
    if (job.status === "canceled") answer.error = null; // stopped here: no failure
  } catch (error) {
    if (!(error instanceof APIError)) throw error; // the figures are missing, the text is there
  }
}

const isFull = ({ usage }) => Boolean(usage && model.context_tokens && usage.prompt_tokens + usage.completion_tokens >= model.context_tokens);

/** Look how a job is of which nothing comes: its place in line, or how long it has been silent. */
async function look(answer, changed) {
  if (answer.state === "waiting") {
    const job = await readJSON(`jobs/${answer.job}`).catch(() => null);
    if (job && answer.state === "waiting") answer.place = placeOf(job);
  }
  answer.isSilent = answer.state === "writing" && Date.now() - answer.lastAt > SILENT_SECONDS * 1000;
  if (answer.state === "waiting" || answer.isSilent) changed();
}

function placeOf({ queue_position: position, estimated_start_at: start }) {
  return position && { position, start: start && Date.parse(start) };
}

const shown = (error) => ({ lines: error.lines });

function errorLines({ message, errors = {} }) {
  return new APIError(0, "", message, errors).lines;
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID is missing where the page comes over plain HTTP
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
  });
}
