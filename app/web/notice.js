// The line at the top of the page that says what went wrong, and what to do.

import { byId } from "./dom.js";

export function showNotice(error) {
  if (error.status === 401) return; // the dialog for the key says it
  const notice = byId("notice");
  notice.textContent = (error.lines ?? [error.message]).join(" ");
  notice.hidden = false;
}

export function clearNotice() {
  byId("notice").hidden = true;
}
