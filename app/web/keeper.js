// Keeps a value that grows while a text is written: a few times a second, and when the page is left.

import { save } from "./storage.js";
import { showNotice } from "./notice.js";

const KEEP_MILLISECONDS = 250;

export class Keeper {
  /** read: returns the value to keep under `name`. */
  constructor(name, read) {
    Object.assign(this, { name, read, timer: null });
    addEventListener("pagehide", () => this.keepNow());
  }

  keepSoon() {
    this.timer ??= setTimeout(() => this.keepNow(), KEEP_MILLISECONDS);
  }

  keepNow() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!save(this.name, this.read())) {
      showNotice(new Error("This text is too long to be kept in the tab: it will be gone after a reload. Begin a new one."));
    }
  }
}
