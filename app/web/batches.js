// Batches, below the queue: a file of requests is sent, its progress shown, and its results are fetched.

import { APIError, call, readJSON } from "./api.js";
import { button, byId, element } from "./dom.js";
import { showRows } from "./rows.js";

const WINDOW = "24h";
const SHORT_ID = "batch_".length + 8;
const HAVE_ENDED = ["completed", "failed", "expired", "cancelled"];
const NAMES_READ = 100; // of the newest files
let shown = [];
const names = new Map(); // of files, by id; null: it is not among those that were read

export function startBatches() {
  byId("batch-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await tryTo(() => send(event.target.elements.file.files[0]));
    event.target.reset();
  });
}

export function showBatches(batches) {
  shown = batches;
  const unnamed = batches.map(({ input_file_id: file }) => file).filter((file) => !names.has(file));
  if (unnamed.length) tryTo(() => readNames(unnamed));
  showRows(byId("batches"), batches.map(({ id }) => id), makeCard, (card, id) => fillCard(card, batches.find((batch) => batch.id === id)));
}

async function readNames(unnamed) {
  for (const file of unnamed) names.set(file, null);
  const { data } = await readJSON(`v1/files?${new URLSearchParams({ purpose: "batch", limit: NAMES_READ })}`);
  for (const { id, filename } of data) names.set(id, filename);
  showBatches(shown);
}

async function send(file) {
  const body = new FormData();
  body.append("purpose", "batch");
  body.append("file", file);
  const { id } = await readJSON("v1/files", { method: "POST", body });
  const endpoint = endpointIn(await file.text());
  await readJSON("v1/batches", { method: "POST", body: { input_file_id: id, endpoint, completion_window: WINDOW } });
}

/** The endpoint that the first line names; the service checks the file. */
function endpointIn(text) {
  try {
    return JSON.parse(text.split("\n", 1)[0]).url;
  } catch {
    throw new APIError(0, "", "The first line of the file is no JSON. Each line is an object with custom_id, method, url and body.");
  }
}

function makeCard(id) {
  return element("li", { class: "card" },
    element("h4"), element("p", { class: "figures" }), element("progress", { "aria-label": `Progress of ${id}` }), element("p", { class: "figures" }),
    element("div", { class: "error", hidden: true }),
    element("div", { class: "row" }, button("Results", () => fetchFile(id, "output_file_id")),
      button("Errors", () => fetchFile(id, "error_file_id")), button("Cancel", () => cancel(id))));
}

function fillCard(card, batch) {
  const { total, completed, failed } = batch.request_counts;
  const [title, origin, progress, figures, error, { children: [results, errors, cancelButton] }] = card.children;
  title.textContent = [names.get(batch.input_file_id), `${batch.id.slice(0, SHORT_ID)}…`].filter(Boolean).join(" · ");
  title.title = batch.id;
  origin.textContent = `${batch.endpoint} · ${new Date(batch.created_at * 1000).toLocaleString()}`;
  progress.max = Math.max(1, total);
  progress.value = completed + failed;
  figures.textContent = `${batch.status} · ${completed + failed} of ${total} lines${failed ? `, ${failed} failed` : ""} · ${batch.usage.total_tokens} tokens${laterThan(batch)}`;
  error.hidden = !batch.errors;
  error.textContent = (batch.errors?.data ?? []).map(({ line, message }) => (line ? `line ${line}: ${message}` : message)).join(" ");
  results.hidden = !batch.output_file_id;
  errors.hidden = !batch.error_file_id;
  cancelButton.hidden = HAVE_ENDED.includes(batch.status);
}

const laterThan = ({ waits_until: start }) => (start ? ` · continues at ${new Date(start * 1000).toLocaleString()}` : "");

function cancel(id) {
  return tryTo(() => call(`v1/batches/${id}/cancel`, { method: "POST" }));
}

/** Save a file of the batch. A link cannot send the API key, so the page fetches it. */
async function fetchFile(id, kind) {
  await tryTo(async () => {
    const file = shown.find((batch) => batch.id === id)[kind];
    const url = URL.createObjectURL(await (await call(`v1/files/${file}/content`)).blob());
    element("a", { href: url, download: `${file}.jsonl` }).click();
    URL.revokeObjectURL(url);
  });
}

async function tryTo(action) {
  const error = byId("batch-error");
  error.hidden = true;
  try {
    await action();
  } catch (failure) {
    if (!(failure instanceof APIError)) throw failure;
    error.textContent = failure.lines.join(" ");
    error.hidden = false;
  }
}
