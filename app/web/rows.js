// Keeps the rows of a table, or the items of a list, in step with a list of keys: elements stay, so focus stays too.

/** Show these keys in this order. make(key): a new element. fill(element, key, index): brings it up to date. */
export function showRows(parent, keys, make, fill) {
  const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  for (const [key, child] of kept) if (!keys.includes(key)) child.remove();
  keys.forEach((key, index) => {
    let child = kept.get(key);
    if (!child) {
      child = make(key);
      child.dataset.key = key;
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    fill(child, key, index);
  });
}

/** Write texts into the cells of a row, from the first on; what has not changed is left alone. */
export function writeCells(row, texts) {
  texts.forEach((text, index) => {
    const shown = String(text ?? "");
    if (row.cells[index].textContent !== shown) row.cells[index].textContent = shown;
  });
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
