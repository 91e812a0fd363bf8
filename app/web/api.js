// Requests to the service that this page came from. Paths are relative, for a proxy that serves it under a path of its own.

const KEY = "llm-api.key";

/** An answer that is no success. status 0: there was no answer. fields: messages by the field that is wrong. */
export class APIError extends Error {
  constructor(status, code, message, fields = {}, retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, fields, retryAfter });
  }

  /** Whether the same request may succeed by itself: the server is away, is stopping, or is full. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || (this.status === 503 && this.code !== "no_worker");
  }

  /** The message, and those of the fields that it does not contain. */
  get lines() {
    const unsaid = Object.entries(this.fields).map(([name, messages]) => [name, [messages].flat().filter((text) => !this.message.includes(text))]);
    return [this.message, ...unsaid.filter(([, texts]) => texts.length).map(([name, texts]) => `${name}: ${texts.join(" ")}`)];
  }
}

export const readKey = () => sessionStorage.getItem(KEY) ?? "";

export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Send a request and return its response. body: sent as JSON. Throws APIError, and AbortError with `signal`. */
export async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (readKey()) sent.Authorization = `Bearer ${readKey()}`;
  if (body !== undefined && !(body instanceof FormData)) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, { method, body, headers: sent, signal, cache: "no-store" });
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.status !== 401) throw error;
  askForKey();
  throw new APIError(401, error.code, keyReason("under API key"));
}

/** Open the dialog for the API key. reason: what it says; by default, why a request was refused with 401. */
export function askForKey(reason = null) {
  document.dispatchEvent(new CustomEvent("key-wanted", { detail: reason }));
}

/** Why the service refuses a request with 401, for a person at the page; its own words are for programs. */
export function keyReason(where) {
  if (readKey()) return "This is not a key of this server, or it has expired or was revoked: check that it was pasted whole.";
  return `This server needs an API key: paste it ${where}. Its operator makes one with llm-api keys create.`;
}

export async function readJSON(path, options) {
  return (await call(path, options)).json();
}

/** The error of a failed response: a problem document, or OpenAI's error object. */
async function errorOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const body = await response.json().catch(() => ({}));
  return errorIn(body, response.status, retryAfter) ?? new APIError(response.status, "", withoutBody(response), {}, retryAfter);
}

/** The error that a parsed body holds; undefined: none. */
export function errorIn(body, status = body.status ?? 500, retryAfter = null) {
  if (body.error) return new APIError(status, body.error.code ?? "", body.error.message, {}, retryAfter);
  if (body.detail) return new APIError(status, body.code ?? "", body.detail, body.errors, retryAfter);
  return undefined;
}

function withoutBody(response) {
  return `The server answered with ${response.status} ${response.statusText}: its log, or the proxy's, says why.`;
}

function unreachable() {
  return new APIError(0, "unreachable", "The server does not answer. Check that it runs (make run), then try again.");
}

/** Yield the server-sent events of a body, as {event, id, data}. Throws APIError when the connection breaks. */
export async function* serverSentEvents(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    throw signal?.aborted || error instanceof APIError ? error : unreachable();
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** An event; undefined for a comment, which only keeps the connection. */
function parseEvent(block) {
  const event = { event: "message", id: null };
  const data = [];
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") data.push(value);
    else if (name) event[name] = value;
  }
  return data.length ? { ...event, data: data.join("\n") } : undefined;
}
