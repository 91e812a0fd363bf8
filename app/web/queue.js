// The view Queue: running and waiting jobs as they are now. Own jobs can be opened and canceled.

import { call } from "./api.js";
import { showBatches, startBatches } from "./batches.js";
import { button, byId, element } from "./dom.js";
import { followEnded, hideEndedJobs, showEndedJobs } from "./ended_jobs.js";
import { followJob, openJob, startJobDialog } from "./job_dialog.js";
import { LiveView } from "./live.js";
import { showNotice } from "./notice.js";
import { duration, showRows, writeCells } from "./rows.js";

const view = new LiveView("live/queue", showQueue);
const CELLS = 7; // before the actions

export function show() {
  view.show();
  showEndedJobs();
}

export function hide() {
  view.hide();
  hideEndedJobs();
}

export function start() {
  for (const id of ["queue-owner", "queue-filter"]) byId(id).addEventListener("input", () => showQueue(view.state));
  byId("open-job").addEventListener("submit", (event) => {
    event.preventDefault();
    openJob(event.target.elements.job.value.trim());
  });
  startJobDialog();
  startBatches();
}

function showQueue({ counts, running = [], waiting = [], rows, starts, batches = [] }) {
  if (!counts) return;
  const speed = running.reduce((sum, key) => sum + rows[key].speed, 0);
  const more = counts.waiting > waiting.length ? `; the first ${waiting.length} are shown` : "";
  const later = counts.scheduled ? ` · ${counts.scheduled} to start later` : "";
  byId("queue-counts").textContent = `${counts.running} running, ${speed.toFixed(1)} tokens/s · ${counts.waiting} waiting${more}${later}`;
  const now = Date.now() / 1000;
  showRows(byId("running-jobs"), running.filter((key) => isWanted(key, rows[key])), makeRow, (row, key) => fillRunning(row, key, rows[key], now));
  const places = new Map(waiting.map((key, index) => [key, index]));
  showRows(byId("waiting-jobs"), waiting.filter((key) => isWanted(key, rows[key])), makeRow,
    (row, key) => fillWaiting(row, key, rows[key], now, places.get(key), starts));
  showBatches(batches);
  followJob(rows);
  followEnded(rows);
}

function isWanted(key, row) {
  if (byId("queue-owner").value === "own" && !row.own) return false;
  const words = byId("queue-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${row.open ? key : ""} ${row.priority} ${row.tenant ?? "another"} ${row.kind}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function makeRow() {
  return element("tr", {}, ...Array.from({ length: CELLS }, () => element("td")), element("td", { class: "row" }));
}

function fillRunning(row, key, job, now) {
  writeCells(row, [nameOf(key, job), job.tenant ?? "another", job.priority, duration(now - job.started_at), job.tokens, job.speed.toFixed(1), job.attempt]);
  fillActions(row, key, job);
}

function fillWaiting(row, key, job, now, index, starts) {
  const start = starts[index];
  writeCells(row, [index + 1, nameOf(key, job), job.tenant ?? "another", job.priority, duration(now - job.created_at), start === null ? "" : duration(start), job.attempt || ""]);
  fillActions(row, key, job);
}

const nameOf = (key, job) => (job.open ? key.slice(0, 8) : "another’s");

function fillActions(row, key, job) {
  const cell = row.lastElementChild;
  row.classList.toggle("own", Boolean(job.own));
  if (!job.open) return;
  if (!cell.childElementCount) {
    const name = key.slice(0, 8);
    cell.append(button("Open", () => openJob(key), { "aria-label": `Open job ${name}` }),
      button("Cancel", () => cancel(key), { "aria-label": `Cancel job ${name}` }));
  }
  cell.lastElementChild.disabled = job.canceling;
}

async function cancel(key) {
  await call(`jobs/${key}/cancel`, { method: "POST" }).catch(showNotice);
}
