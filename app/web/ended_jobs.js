// The last ended jobs of one's own, below the live queue. They are read again when a job has left it.

import { APIError, readJSON } from "./api.js";
import { button, byId, element } from "./dom.js";
import { openJob } from "./job_dialog.js";
import { showNotice } from "./notice.js";
import { duration, showRows, writeCells } from "./rows.js";

const SHOWN = 10;
const PAGE = 20; // jobs of a request; the newest may not have ended yet
const MOST_PAGES = 5;
const PAUSE_MILLISECONDS = 2000; // between two readings, however many jobs end
const AGES_MILLISECONDS = 5000;
const CELLS = 4; // before the action

let ended = [];
let live = null; // keys of one's own jobs in the live queue; null: it has not been seen since the view was shown
let reading = null; // the timer of the next reading
let ages = null;

export function showEndedJobs() {
  clearInterval(ages);
  ages = setInterval(fillTable, AGES_MILLISECONDS);
}

export function hideEndedJobs() {
  clearInterval(ages);
  clearTimeout(reading);
  live = reading = null;
}

/** Read them again if one of one's own jobs is no longer among `rows`, those of the live queue. */
export function followEnded(rows) {
  const own = Object.keys(rows).filter((key) => rows[key].own);
  const hasLeft = live === null || live.some((key) => !rows[key]);
  if (hasLeft) reading ??= setTimeout(read, live === null ? 0 : PAUSE_MILLISECONDS);
  live = own;
}

async function read() {
  try {
    ended = await newestEnded();
    fillTable();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  } finally {
    reading = null;
  }
}

async function newestEnded() {
  const found = [];
  for (let page = 0, cursor = null; page < MOST_PAGES && found.length < SHOWN; page++) {
    const { data, next_cursor: next } = await readJSON(`jobs?${new URLSearchParams({ limit: PAGE, ...(cursor && { cursor }) })}`);
    found.push(...data.filter((job) => job.completed_at));
    if (!next) break;
    cursor = next;
  }
  return found.sort((one, other) => Date.parse(other.completed_at) - Date.parse(one.completed_at)).slice(0, SHOWN);
}

function fillTable() {
  const jobs = new Map(ended.map((job) => [job.id, job]));
  showRows(byId("ended-jobs"), [...jobs.keys()], makeRow, (row, id) => fillRow(row, jobs.get(id)));
}

function makeRow(id) {
  const name = id.slice(0, 8);
  return element("tr", {}, ...Array.from({ length: CELLS }, () => element("td")),
    element("td", { class: "row" }, button("Open", () => openJob(id), { "aria-label": `Open job ${name}` })));
}

function fillRow(row, { id, status, usage, completed_at: end }) {
  writeCells(row, [id.slice(0, 8), status, usage?.completion_tokens ?? "", `${duration((Date.now() - Date.parse(end)) / 1000)} ago`]);
}
