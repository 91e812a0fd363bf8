// A live view: the service sends what has changed, about once a second, while the page is seen.

import { APIError, call, errorIn, serverSentEvents } from "./api.js";
import { clearNotice, showNotice } from "./notice.js";

const RETRY_SECONDS = 2;

export class LiveView {
  /** path: of the stream. changed: called with the whole state after each change. */
  constructor(path, changed) {
    Object.assign(this, { path, changed, state: { rows: {} }, leaving: null, isShown: false });
    document.addEventListener("visibilitychange", () => this.#update()); // a hidden tab costs the service nothing
  }

  show() {
    this.isShown = true;
    this.#update();
  }

  hide() {
    this.isShown = false;
    this.#update();
  }

  #update() {
    const isWanted = this.isShown && !document.hidden;
    if (isWanted && !this.leaving) this.#follow((this.leaving = new AbortController()).signal);
    if (!isWanted) {
      this.leaving?.abort();
      this.leaving = null;
    }
  }

  async #follow(signal) {
    while (!signal.aborted) {
      try {
        const response = await call(this.path, { signal });
        this.state = { rows: {} };
        for await (const { event, data } of serverSentEvents(response, signal)) this.#take(event, JSON.parse(data));
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof APIError)) throw error;
        this.#complain(error);
        if (!error.isPassing) return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_SECONDS * 1000));
    }
  }

  #complain(error) {
    this.hasTrouble = true;
    showNotice(error);
  }

  #take(event, data) {
    if (event === "trouble") return this.#complain(errorIn(data));
    if (this.hasTrouble) clearNotice();
    this.hasTrouble = false;
    const { rows = {}, ...sections } = data;
    Object.assign(this.state, sections);
    const listed = [...(this.state.waiting ?? []), ...(this.state.running ?? [])];
    const known = { ...this.state.rows, ...rows };
    this.state.rows = Object.fromEntries(listed.map((key) => [key, known[key]]));
    this.changed(this.state);
  }
}
