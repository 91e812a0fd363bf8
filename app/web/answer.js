// One text that the model writes: from its request to its end, across reloads, lost connections and lost workers.
//
// An answer is plain data, so that the tab can keep it. Its holder may call `write` at any time: it sends the
// request under an idempotency key, so that a request sent twice is one job, and follows the job after the last event
// that the answer has (`Last-Event-ID`).

import { APIError, call, errorIn, readJSON, serverSentEvents } from "./api.js";
import { model } from "./model.js";

const RETRY_SECONDS = [0.5, 1, 2, 5];
const PLACE_SECONDS = 2; // between two looks at the place in line

const UNFINISHED = ["length", "canceled", "timeout"];

/** request: {path, body}. With tools the path is OpenAI's, which finds the calls in the text. before: what it continues. */
export function newAnswer(request, before = { text: "", logprobs: [] }) {
  const { text, logprobs } = before;
  return {
    request, key: randomKey(), job: null, after: null, before: { text, logprobs },
    state: "sending", text, logprobs: [...logprobs], calls: [], isFull: false,
    place: null, attempt: 0, sentAt: Date.now(), firstAt: null,
    finish: null, usage: null, metrics: null, error: null,
  };
}

export const isWriting = (answer) => answer.state !== "ended";

/** Whether its text was cut off, and another request can continue it. A schema would begin anew. */
export function canContinue({ finish, isFull, text, calls, request: { body } }) {
  return UNFINISHED.includes(finish) && !isFull && text !== "" && !calls.length && !body.json_schema && !body.response_format;
}

/** Write the answer to its end; `changed` is called after each change. Aborting `signal` only leaves it. */
export async function write(answer, changed, signal) {
  let failures = 0;
  while (isWriting(answer)) {
    const before = answer.after;
    try {
      await (hasTools(answer) ? streamChunks(answer, changed, signal) : followJob(answer, changed, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof APIError)) throw error;
      if (!answer.job || !error.isPassing) return end(answer, changed, { error: shown(error) });
    }
    if (!isWriting(answer)) break;
    failures = answer.after === before ? failures + 1 : 0;
    answer.state = "reconnecting";
    changed();
    await pause(RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)], signal);
    if (signal.aborted) return;
  }
  await readFigures(answer);
  changed();
}

/** Let the job end; what it has written stays. */
export async function stop(answer) {
  if (answer.job) await call(`jobs/${answer.job}/cancel`, { method: "POST" });
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
  }
  const watch = answer.attempt ? null : watchPlace(answer, changed);
  try {
    const headers = answer.after ? { "Last-Event-ID": answer.after } : {};
    const response = await call(`jobs/${answer.job}/events`, { headers, signal });
    if (response.status === 204) return end(answer, changed, {}); // it ended with the last event that came
    for await (const event of serverSentEvents(response, signal)) {
      take(answer, event);
      changed();
      if (!isWriting(answer)) return;
    }
  } finally {
    clearInterval(watch);
  }
}

function take(answer, { event, id, data }) {
  const values = JSON.parse(data);
  if (event === "error") throw errorIn(values);
  answer.after = id;
  if (event === "started") Object.assign(answer, { state: "writing", attempt: values.attempt, place: null });
  if (event === "delta") addText(answer, values.text, values.logprobs);
  if (event === "end") {
    const error = values.error ? { lines: errorLines(values.error) } : null;
    const isStopped = ["canceled", "expired"].includes(values.status);
    Object.assign(answer, { state: "ended", usage: values.usage, error });
    answer.finish = values.finish_reason ?? (isStopped ? values.status : null);
  }
}

function addText(answer, text, logprobs = []) {
  answer.state = "writing";
  answer.firstAt ??= Date.now();
  answer.text += text;
  answer.logprobs.push(...logprobs);
}

/** Read the chunks of a conversation with tools. Sent again, the request gets the same job's stream from its start. */
async function streamChunks(answer, changed, signal) {
  const response = await submit(answer, signal);
  answer.job = response.headers.get("Location").split("/").pop();
  answer.state = "waiting";
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

/** Look at the place in line until the job starts. Return the timer. */
function watchPlace(answer, changed) {
  return setInterval(async () => {
    if (answer.state !== "waiting") return;
    const job = await readJSON(`jobs/${answer.job}`).catch(() => null);
    if (job && answer.state === "waiting") answer.place = placeOf(job);
    changed();
  }, PLACE_SECONDS * 1000);
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
