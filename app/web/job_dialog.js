// A job of one's own, opened: its request, its text and its figures.

import { APIError, call, readJSON } from "./api.js";
import { byId, element } from "./dom.js";
import { showNotice } from "./notice.js";

let opened = null;
let liveState = null; // of the opened job in the live queue: "waiting", "running"; null: it is not there

export function startJobDialog() {
  byId("job-close").addEventListener("click", closeJob);
  byId("job-cancel").addEventListener("click", async () => {
    await call(`jobs/${opened}/cancel`, { method: "POST" }).catch(showNotice);
    await openJob(opened);
  });
  byId("job-priority").addEventListener("submit", async (event) => {
    event.preventDefault();
    await changePriority(event.target.elements.priority.value);
  });
}

/** Change it, and show the job as it is then: it may have started before. */
async function changePriority(priority) {
  let report = `The priority is ${priority} now.`;
  try {
    await call(`jobs/${encodeURIComponent(opened)}`, { method: "PATCH", body: { priority } });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    report = error.lines.join(" ");
  }
  await openJob(opened);
  byId("job-report").textContent = report;
}

export const closeJob = () => byId("job-dialog").close();

/** Show how far the opened job is. rows: those of the live queue. */
export async function followJob(rows) {
  if (!byId("job-dialog").open) return;
  const job = rows[opened];
  const before = liveState;
  liveState = job ? ("tokens" in job ? "running" : "waiting") : null;
  byId("job-progress").textContent = liveState === "running" ? `Tokens so far: ${job.tokens}, ${job.speed.toFixed(1)} tokens/s` : "";
  if (before && before !== liveState) await openJob(opened); // it has started, or ended
}

export async function openJob(id) {
  if (id !== opened) liveState = null;
  opened = id;
  try {
    showJob(await readJSON(`live/jobs/${encodeURIComponent(id)}`));
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}

function showJob(job) {
  const isFinal = !["queued", "processing"].includes(job.status);
  byId("job-title").textContent = `Job ${job.id}`;
  byId("job-cancel").hidden = isFinal;
  byId("job-priority").hidden = job.status !== "queued";
  byId("job-priority").elements.priority.value = job.priority;
  byId("job-report").textContent = "";
  byId("job-content").replaceChildren(
    element("dl", {}, ...facts(job).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))])),
    ...texts(job).flatMap(([name, text]) => [
      element("h3", {}, name), element("pre", { tabindex: "0", "aria-label": name }, text),
    ]),
  );
  if (!byId("job-dialog").open) byId("job-dialog").showModal();
}

function facts({ status, priority, attempt, queue_position: place, created_at: created, error, usage, metrics, request, webhook }) {
  return [
    ["Status", status], ["Priority", priority], ["Place in line", place], ["Sent", new Date(created).toLocaleString()],
    ["Attempts", attempt || null], ["Error", error && `${error.message} (${error.code})`],
    ["Tokens", usage && `${usage.prompt_tokens} of the prompt (${usage.cached_tokens} cached), ${usage.completion_tokens} written`],
    ["Tokens/s", metrics?.tokens_per_second?.toFixed(1)], ["First token after", metrics?.time_to_first_token_seconds && `${metrics.time_to_first_token_seconds.toFixed(2)} s`],
    ["Webhook", webhookFact(status, request, webhook)],
  ].filter(([, value]) => value !== null && value !== undefined);
}

/** What has become of the webhook. It has no status before the job ends, and where this end is not reported. */
function webhookFact(status, request, webhook) {
  if (!webhook && !request?.webhook) return null;
  const to = request?.webhook ? `${request.webhook.url}: ` : "";
  if (!webhook) return ["queued", "processing"].includes(status) ? `${to}at the end of the job` : `${to}this end is not reported`;
  const tries = webhook.tries === 1 ? "1 try" : `${webhook.tries} tries`;
  const next = webhook.next_try_at ? `; the next at ${new Date(webhook.next_try_at).toLocaleString()}` : "";
  return `${to}${webhook.state.replace("_", " ")}, ${tries}${webhook.error ? `: ${webhook.error}` : ""}${next}`;
}

function texts({ request, output }) {
  return [
    ["Prompt", request ? promptOf(request) : "no longer kept: a long request goes with the end of its job"],
    ["Parameters", request && Object.keys(request.params).length ? JSON.stringify(request.params, null, 2) : ""],
    ["Output", output?.text],
  ].filter(([, text]) => text);
}

function promptOf({ prompt, prompt_tokens: tokens, chat, texts: embedded }) {
  if (chat) return chat.messages.map(({ role, content }) => `${role}: ${typeof content === "string" ? content : JSON.stringify(content)}`).join("\n\n");
  if (tokens) return `tokens ${tokens.join(" ")}`;
  return prompt || embedded.map((text) => (typeof text === "string" ? text : `tokens ${text.join(" ")}`)).join("\n");
}
