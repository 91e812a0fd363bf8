// The view Keys, for an API key with the scope admin: make, list, replace and revoke API keys.

import { APIError, call, readJSON } from "./api.js";
import { announce, button, byId, element } from "./dom.js";
import { showNotice } from "./notice.js";

const form = () => byId("new-key");
let listed = [];

export function start() {
  form().addEventListener("submit", (event) => { event.preventDefault(); make(); });
  byId("more-keys").addEventListener("click", () => list(listed.at(-1).id));
}

export function hide() {
  byId("new-secret").hidden = true; // a secret is shown once
  byId("new-secret").replaceChildren();
}

export function show() {
  byId("keys-content").hidden = true; // until the service has shown that this key may see it
  list();
}

async function list(after = null) {
  await tryTo(async () => {
    const { data, has_more: hasMore } = await readJSON(`admin/keys?${new URLSearchParams(after ? { after } : {})}`);
    listed = after ? [...listed, ...data] : data;
    byId("key-rows").replaceChildren(...listed.map(rowOf));
    byId("more-keys").hidden = !hasMore;
    byId("keys-content").hidden = false;
  });
}

function rowOf(key) {
  const limits = Object.entries(key.limits).filter(([, value]) => value !== null).map(([name, value]) => `${name.replaceAll("_", " ")} ${value.toLocaleString()}`);
  const texts = [key.group ?? "", key.scopes.join(", "), key.weight, key.max_priority, limits.join(", ") || "none", time(key.expires_at) || "never", time(key.last_used_at)];
  const actions = key.source === "configuration" ? ["in the configuration"] : [
    button("Replace", () => rotate(key), { "aria-label": `Replace the secret of ${key.name}` }),
    button("Revoke", () => revoke(key), { "aria-label": `Revoke ${key.name}` }),
  ];
  return element("tr", {}, element("th", { scope: "row", title: key.id }, key.name), ...texts.map((text) => element("td", {}, String(text))), element("td", {}, ...actions));
}

const time = (text) => (text ? new Date(text).toLocaleString() : "");

async function make() {
  const error = byId("new-key-error");
  error.hidden = true;
  try {
    showSecret(await readJSON("admin/keys", { method: "POST", body: wanted() }), "made");
    form().reset();
    await list();
  } catch (failure) {
    if (!(failure instanceof APIError)) throw failure;
    error.textContent = failure.lines.join(" ");
    error.hidden = false;
  }
}

function wanted() {
  const data = new FormData(form());
  const numbers = [...form().querySelectorAll("fieldset [type=number]")].filter((field) => field.value !== "");
  const body = { name: data.get("name"), scopes: data.getAll("scopes"), max_priority: data.get("max_priority") };
  if (data.get("group")) body.group = data.get("group");
  if (data.get("weight")) body.weight = Number(data.get("weight"));
  if (data.get("expires_at")) body.expires_at = new Date(data.get("expires_at")).toISOString();
  if (numbers.length) body.limits = Object.fromEntries(numbers.map((field) => [field.name, field.valueAsNumber]));
  return body;
}

async function rotate(key) {
  if (!confirm(`Replace the secret of ${key.name}? Programs that use the old one are refused from now on.`)) return;
  await tryTo(async () => {
    showSecret(await readJSON(`admin/keys/${key.id}/rotate`, { method: "POST" }), "has a new secret");
    await list();
  });
}

async function revoke(key) {
  if (!confirm(`Revoke ${key.name}? This cannot be undone; its jobs continue.`)) return;
  await tryTo(async () => {
    await call(`admin/keys/${key.id}`, { method: "DELETE" });
    announce(`${key.name} is revoked.`);
    await list();
  });
}

function showSecret({ name, key }, what) {
  const secret = element("code", {}, key);
  byId("new-secret").replaceChildren(element("p", {}, `${name} ${what}. Copy the secret now: it is shown only here, and only once.`),
    element("div", { class: "row" }, secret, button("Copy", () => copy(secret))));
  byId("new-secret").hidden = false;
  byId("new-secret").scrollIntoView({ block: "nearest" });
}

/** Copy it, or select it: browsers let pages copy only where they come over HTTPS or from this machine. */
async function copy(secret) {
  try {
    await navigator.clipboard.writeText(secret.textContent);
    announce("The secret is copied.");
    secret.nextElementSibling.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(secret);
    announce("The secret is selected.");
    secret.nextElementSibling.textContent = "Selected: copy it with the keyboard";
  }
}

async function tryTo(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}
