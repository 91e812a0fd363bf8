// Starts the page: the views, of which the part of the address behind # shows one, and what all of them need.

import * as chat from "./chat.js";
import * as completion from "./completion.js";
import * as keyDialog from "./key_dialog.js";
import * as keys from "./keys.js";
import * as parameters from "./parameters.js";
import * as queue from "./queue.js";
import * as usage from "./usage.js";
import * as workers from "./workers.js";
import { APIError, readJSON } from "./api.js";
import { byId } from "./dom.js";
import { closeJob } from "./job_dialog.js";
import { keepModel } from "./model.js";
import { clearNotice, showNotice } from "./notice.js";

const VIEWS = ["chat", "completion", "queue", "workers", "usage", "keys"];
const SHOWN = { queue, workers, usage, keys }; // views that read something when they are shown
const WITH_PARAMETERS = { chat: "draft", completion: "prompt" }; // and the field that one writes into

function showView() {
  const name = location.hash.slice(1).split("/")[0];
  const shown = VIEWS.includes(name) ? name : VIEWS[0];
  for (const view of VIEWS) byId(view).hidden = view !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") !== `#${shown}`) link.removeAttribute("aria-current");
    else link.setAttribute("aria-current", "page");
  }
  byId("parameters").hidden = true;
  closeJob();
  if (shown in WITH_PARAMETERS) {
    parameters.showFor(shown);
    if (matchMedia("(pointer: fine)").matches) byId(WITH_PARAMETERS[shown]).focus(); // on a phone it opens the keyboard
  }
  for (const [view, { show, hide }] of Object.entries(SHOWN)) (view === shown ? show : hide)();
  clearNotice();
}

async function showModel() {
  try {
    const { data } = await readJSON("v1/models");
    const adapters = data.filter((model) => model.parent);
    keepModel(data[0]);
    byId("model").textContent = data[0].id;
    parameters.offerAdapters(adapters.map((model) => model.id));
    parameters.showDefaults();
    if (data[0].state !== "ready") showNotice(new Error(`The model is ${data[0].state}: ${data[0].detail}`));
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    showNotice(error);
  }
}

/** Show what the API key of this tab may do: the view Keys is for admins. */
async function showCaller() {
  try {
    const key = await readJSON("live/key");
    byId("keys-link").hidden = !key?.scopes.includes("admin");
    if (key) byId("key-button").textContent = `API key: ${key.name}`;
  } catch (error) {
    if (!(error instanceof APIError)) throw error; // showModel reports it
  }
}

keyDialog.start();
parameters.start();
chat.start();
completion.start();
queue.start();
usage.start();
keys.start();
addEventListener("hashchange", showView);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); }); // the address names the view
showView();
await Promise.all([showModel(), showCaller()]);
