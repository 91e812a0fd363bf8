// What this tab keeps until it is closed: conversations and parameters, as JSON in the session storage.

const PREFIX = "llm-api.";

export function load(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise; // not JSON: of another server
  }
}

/** Keep a value. Return false where the browser has no space for it (about 5 MB). */
export function save(name, value) {
  try {
    sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
