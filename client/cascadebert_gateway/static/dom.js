// Making elements, and writing numbers.
export const $ = (id) => document.getElementById(id);
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const ms = (time) => `${time < 10 ? time.toFixed(1) : time.toFixed(0)} ms`;
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Texts are always set as text, so nothing of a caller or a server becomes markup.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const labelText = (label) => [label].flat().join(", ") || "no label";
