// The form of parameters, which Chat and Completion share, and the requests that are made of it.

import { byId } from "./dom.js";
import { model } from "./model.js";
import { load, save } from "./storage.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed"];
const LOGPROBS = 5; // alternatives of each token
const AS_MANY_AS_FIT = -1;
const form = () => byId("parameters");

export function start() {
  for (const [name, value] of Object.entries(load("parameters", {}))) {
    const field = form().elements[name];
    if (field?.type === "checkbox") field.checked = value;
    else if (field) field.value = value;
  }
  form().addEventListener("input", keep);
  form().addEventListener("submit", (event) => event.preventDefault());
  if (matchMedia("(max-width: 800px)").matches) byId("parameters-details").open = false;
}

/** Show the fields of one view: `chat` or `completion`. */
export function showFor(view) {
  form().hidden = false;
  for (const label of form().querySelectorAll("[data-for]")) label.hidden = label.dataset.for !== view;
  showDefaults();
}

/** Show in the empty fields what a request has that leaves them out. */
export function showDefaults() {
  const fields = form().elements;
  const isChat = !fields.tools.closest("[hidden]");
  for (const name of NUMBERS) fields[name].placeholder = model.default_params[name] ?? "the model’s";
  if (!(model.default_params.seed >= 0)) fields.seed.placeholder = "random";
  if (isChat) fields.max_tokens.placeholder = "what fits";
  if (isChat && fields.tools.value.trim()) fields.repeat_penalty.placeholder = 1; // they go to OpenAI's endpoint
}

export function offerAdapters(names) {
  const select = form().elements.lora;
  select.append(...names.map((name) => new Option(name, name)));
  select.value = load("parameters", {}).lora ?? "";
  byId("lora-label").hidden = names.length === 0;
}

export const systemPrompt = () => form().elements.system.value.trim();

/** The request of a conversation; undefined if a field is wrong. isContinued: the answer continues the last message. */
export function chatRequest(messages, isContinued = false) {
  const values = read();
  if (!values) return undefined;
  const { schema, tools, tool_choice: choice, priority, lora, logprobs, ...params } = values;
  const hasCalls = messages.some((message) => message.tool_calls || message.role === "tool");
  const content = { messages, ...(isContinued && { continue_final_message: true }) };
  if (!tools && !hasCalls) return generateRequest(content, { max_tokens: AS_MANY_AS_FIT, ...values });
  const body = { ...content, stream: true, stream_options: { include_usage: true }, ...params };
  if (tools) Object.assign(body, { tools, ...(choice && { tool_choice: choice }) });
  if (schema) body.response_format = { type: "json_schema", json_schema: { name: "output", schema } };
  if (logprobs) Object.assign(body, { logprobs: true, top_logprobs: logprobs });
  return { path: "v1/chat/completions", body: { ...body, ...(priority && { priority }), ...(lora && { lora }) } };
}

/** The request of a completion; undefined as above. */
export function completionRequest(prompt) {
  const values = read();
  return values && generateRequest({ prompt }, values);
}

function generateRequest(content, { schema, tools, tool_choice: choice, priority, lora, ...params }) {
  if (schema) params.json_schema = schema;
  return { path: "agenerate", body: { ...content, params, stream: false, ...(priority && { priority }), ...(lora && { lora }) } };
}

/** The fields that are set, by name. */
function read() {
  const fields = form().elements;
  if (!checkJSON(fields.schema, isObject, "a JSON Schema, such as {\"type\": \"object\"}") ||
      !checkJSON(fields.tools, Array.isArray, "a JSON list of tools") || !isValid()) return undefined;
  const values = {};
  for (const name of NUMBERS) if (fields[name].value !== "") values[name] = fields[name].valueAsNumber;
  const stops = fields.stop.value.split("\n").filter(Boolean);
  if (stops.length) values.stop = stops;
  if (fields.logprobs.checked) values.logprobs = LOGPROBS;
  for (const name of ["priority", "lora", "tool_choice"]) if (fields[name].value) values[name] = fields[name].value;
  for (const name of ["schema", "tools"]) if (fields[name].value.trim() && !fields[name].closest("[hidden]")) values[name] = JSON.parse(fields[name].value);
  return values;
}

function isValid() {
  if (form().checkValidity()) return true;
  byId("parameters-details").open = true;
  return form().reportValidity();
}

function checkJSON(field, isRight, what) {
  field.setCustomValidity("");
  if (!field.value.trim() || field.closest("[hidden]")) return true;
  try {
    if (isRight(JSON.parse(field.value))) return true;
    field.setCustomValidity(`This must be ${what}.`);
  } catch (error) {
    field.setCustomValidity(`This is no JSON (${error.message}). It must be ${what}.`);
  }
  return isValid();
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function keep(event) {
  showDefaults();
  event.target.setCustomValidity("");
  const fields = [...form().elements].filter((field) => field.name);
  save("parameters", Object.fromEntries(fields.map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value])));
}
