// Elements from data. Whatever comes from the network is placed as text or as the value of a plain
// attribute, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const NARROW = 0.18; // a part that has no room for words on a phone
const DRAWN = new Set(["svg", "rect", "path", "text"]);

/** h("p", { class: "note" }, "text", element, null, [more]) */
export function h(name, attributes, ...children) {
  const element = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  const present = children.flat(Infinity).filter((child) => child !== null && child !== undefined);
  element.append(...present.filter((child) => child !== false && child !== ""));
  return element;
}

/** [[name, value], …] as a list, each with its value at the right. */
export const listFacts = (facts) =>
  h("dl", {}, facts.map(([name, value]) => h("div", { "data-key": name }, h("dt", {}, name), h("dd", {}, value))));

/** Text for screen readers. */
export const spoken = (text) => h("span", { class: "spoken" }, text);

/** Shares of one side by side: [[share, class, words], …]. The numbers follow as text. */
export function bar(...parts) {
  let at = 0;
  const rects = [];
  const texts = [];
  for (const [share, name, words] of parts) {
    const width = Math.max(0, Math.min(1 - at, share || 0));
    const place = { x: `${at * 100}%`, width: `${width * 100}%`, height: "100%" };
    rects.push(h("rect", { class: name, ...place }));
    const middle = { x: `${(at + width / 2) * 100}%`, y: "50%" };
    if (words) texts.push(h("text", { class: width < NARROW && "narrow", ...middle }, words));
    at += width;
  }
  return h("svg", { class: "bar", "aria-hidden": "true" }, rects, texts);
}

/**
 * Makes the children of `parent` like `target` and keeps what need not change, so that focus,
 * selections and opened details stay. Children with `data-key` keep their element wherever they go.
 */
export function morph(parent, ...target) {
  const children = target.flat(Infinity).filter((child) => child);
  const keys = new Set(children.map(keyOf).filter(Boolean));
  const kept = new Map();
  for (const old of [...parent.childNodes]) {
    const key = keyOf(old);
    if (!key) continue;
    if (keys.has(key)) kept.set(key, old);
    else old.remove(); // first, so that what stays need not move: moving takes the focus away
  }
  let at = parent.firstChild;
  for (const child of children) {
    const old = keyOf(child) ? kept.get(keyOf(child)) : at && !keyOf(at) ? at : null;
    if (!old || old.nodeName !== child.nodeName) {
      parent.insertBefore(child, at);
    } else {
      if (old === at) at = at.nextSibling;
      else parent.insertBefore(old, at);
      become(old, child);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const keyOf = (node) => node.dataset?.key ?? "";

function become(old, target) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== target.data) old.data = target.data;
    return;
  }
  for (const { name, value } of target.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's choice.
    if (!target.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  morph(old, ...target.childNodes);
  // So is what stands in a field while it is being used.
  if (old.nodeName === "SELECT" && old !== document.activeElement && old.value !== target.value) {
    old.value = target.value;
  }
}
