// The view Usage: what ended jobs have used, by day, as a chart and as sums.

import { APIError, call, readJSON } from "./api.js";
import { stackedBars } from "./chart.js";
import { byId, element } from "./dom.js";
import { showNotice } from "./notice.js";

const MEASURES = {
  tokens: { name: "tokens", of: (row) => row.prompt_tokens + row.completion_tokens },
  requests: { name: "requests", of: (row) => row.requests },
  compute_seconds: { name: "seconds of computing", of: (row) => row.compute_seconds },
};
const SERIES = 7; // with a color of their own; the rest is one more
const RESIZED_MILLISECONDS = 300; // after the last step of a change of the width
let resizing = null;
const form = () => byId("usage-form").elements;

export function start() {
  byId("usage-form").addEventListener("submit", (event) => { event.preventDefault(); show(); });
  for (const name of ["days", "by", "measure"]) form()[name].addEventListener("change", show);
  byId("usage-csv").addEventListener("click", saveCSV);
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => { if (!byId("usage").hidden) show(); }, RESIZED_MILLISECONDS);
  });
}

export function hide() {}

export async function show() {
  const by = form().by.value;
  try {
    const report = await readJSON(`usage?${query(`day,${by}`)}`);
    showReport(report, by, MEASURES[form().measure.value]);
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}

/** The days are those of UTC, as the service counts them. */
function query(by) {
  const first = new Date(Date.now() - (Number(form().days.value) - 1) * 86_400_000).toISOString().slice(0, 10);
  return new URLSearchParams({ from: first, by });
}

function showReport(report, by, measure) {
  const sums = sumsBy(report.data, (row) => nameOf(row, by));
  const names = [...sums.keys()].sort((one, other) => measure.of(sums.get(other)) - measure.of(sums.get(one)));
  const series = names.length > SERIES + 1 ? [...names.slice(0, SERIES), "others"] : names;
  const seriesOf = (row) => (series.includes(nameOf(row, by)) ? nameOf(row, by) : "others");
  const days = daysOf(report).map((day) => {
    const rows = report.data.filter((row) => row.day === day);
    return { label: day, values: series.map((name) => rows.filter((row) => seriesOf(row) === name).reduce((sum, row) => sum + measure.of(row), 0)) };
  });
  const total = measure.of(report.total);
  byId("usage-caption").textContent = `${number(total)} ${measure.name} from ${report.from} to ${report.to} (UTC)`;
  byId("usage-legend").replaceChildren(...series.map((name, index) => element("li", { class: `series-${index}` }, name)));
  byId("usage-chart").replaceChildren(stackedBars(days, byId("usage-caption").textContent, Math.max(300, byId("usage-chart").clientWidth)));
  byId("usage-group").textContent = form().by.selectedOptions[0].textContent;
  byId("usage-rows").replaceChildren(...names.map((name) => sumRow(name, sums.get(name))));
}

const nameOf = (row, by) => (by === "key" && row.key_name) || row[by] || "none";

function sumsBy(rows, nameOfRow) {
  const sums = new Map();
  for (const row of rows) {
    const name = nameOfRow(row);
    const before = sums.get(name) ?? {};
    const numbers = Object.entries(row).filter(([, value]) => typeof value === "number");
    sums.set(name, { ...before, ...Object.fromEntries(numbers.map(([field, value]) => [field, (before[field] ?? 0) + value])) });
  }
  return sums;
}

function daysOf({ from, to }) {
  const days = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}

function sumRow(name, { requests, failed, prompt_tokens: prompt, cached_tokens: cached, completion_tokens: written, compute_seconds: seconds }) {
  return element("tr", {}, element("th", { scope: "row" }, name), ...[requests, failed, prompt, cached, written, seconds].map((value) => element("td", {}, number(value))));
}

const number = (value) => value.toLocaleString(undefined, { maximumFractionDigits: 1 });

async function saveCSV() {
  try {
    const response = await call(`usage?${query(`day,${form().by.value}`)}&format=csv`);
    const url = URL.createObjectURL(await response.blob());
    element("a", { href: url, download: "usage.csv" }).click();
    URL.revokeObjectURL(url);
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}
