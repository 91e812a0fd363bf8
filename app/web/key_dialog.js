// The dialog for the API key. It opens by itself when the service asks for a key.

import { keepKey, keyReason, readKey } from "./api.js";
import { byId } from "./dom.js";
import { showNotice } from "./notice.js";

let wanted = ""; // why the service asks for a key, as the notice says it

export function start() {
  const dialog = byId("key-dialog");
  byId("key-button").addEventListener("click", () => open("Kept in this tab until it is closed."));
  byId("key-close").addEventListener("click", () => dialog.close());
  byId("key-forget").addEventListener("click", () => use(""));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use(byId("key-input").value.trim());
  });
  document.addEventListener("key-wanted", ({ detail: reason }) => {
    wanted = reason ?? keyReason("under API key");
    open(reason ?? keyReason("here"));
  });
  dialog.addEventListener("close", () => {
    if (wanted) showNotice(new Error(wanted));
    wanted = "";
  });
  showState();
}

function open(reason) {
  byId("key-reason").textContent = reason;
  if (byId("key-dialog").open) return; // a key is being typed
  byId("key-input").value = "";
  byId("key-dialog").showModal();
}

function use(key) {
  keepKey(key);
  location.reload(); // all that is shown belongs to the key; a text that is being written continues
}

function showState() {
  byId("key-button").textContent = readKey() ? "API key: set" : "API key";
}
