// Makes elements. Texts become text nodes; no string ever becomes markup.

/** Return a new element. Attributes: `class`, `on<event>` with a listener, booleans; null and undefined are left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", onclick, ...attributes }, text);
}

export const byId = (id) => document.getElementById(id);

/** Let a screen reader read this text; nothing is seen of it. */
export function announce(text) {
  byId("announcement").textContent = text;
}
