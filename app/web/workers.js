// The view Workers and models: what each worker does now.

import { APIError, readJSON } from "./api.js";
import { byId, element } from "./dom.js";
import { LiveView } from "./live.js";
import { showNotice } from "./notice.js";
import { showRows } from "./rows.js";

const view = new LiveView("live/workers", showWorkers);

export const hide = () => view.hide();

export function show() {
  view.show();
  showModels();
}

function showWorkers({ workers = [] }) {
  showRows(byId("worker-cards"), workers.map(({ id }) => id), makeCard, (card, id) => fillCard(card, workers.find((worker) => worker.id === id)));
  if (!workers.length) byId("worker-cards").replaceChildren(element("li", {}, "No worker is known: start one (make run)."));
}

function makeCard(id) {
  const bar = (name, label) => element("label", { class: name, hidden: true }, element("span"), element("meter", { min: "0", "aria-label": `${label} of ${id}` }));
  return element("li", { class: "card" }, element("h4"), element("p", { class: "state" }), element("p", { class: "figures" }),
    element("progress", { "aria-label": `Download of ${id}`, max: "1", hidden: true }), bar("slots", "Slots"), bar("cells", "Cells"));
}

function fillCard(card, worker) {
  const [title, state, figures, progress, slots, cells] = card.children;
  title.textContent = worker.id;
  state.dataset.state = worker.state;
  state.textContent = [isLost(worker) ? "no connection to Redis" : worker.state, worker.detail].filter(Boolean).join(": ");
  figures.textContent = [
    `${worker.family} · ${worker.model}`, `${worker.speed.toFixed(1)} tokens/s`,
    worker.context_tokens && `context ${worker.context_tokens} tokens`, worker.device,
    worker.taken_over && `${worker.taken_over} jobs after a lost worker`,
  ].filter(Boolean).join(" · ");
  progress.hidden = worker.progress === null;
  progress.value = worker.progress ?? 0;
  fillBar(slots, worker.running, worker.slots, `${worker.running} of ${worker.slots} slots in use`);
  fillBar(cells, worker.used_cells, worker.cells, `${worker.used_cells} of ${worker.cells} cells in use`);
}

const isLost = ({ state, connected }) => !connected && state !== "failed"; // one that has failed has ended

function fillBar(label, value, most, text) {
  const [name, meter] = label.children;
  label.hidden = !most;
  meter.max = most || 1;
  meter.value = value;
  name.textContent = text;
}

async function showModels() {
  try {
    const { data } = await readJSON("v1/models");
    byId("model-list").replaceChildren(...data.map(({ id, state, parent, family }) => (
      element("li", {}, element("strong", {}, id), parent ? ` LoRA adapter of ${parent}` : ` ${family}, ${state}`)
    )));
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}
