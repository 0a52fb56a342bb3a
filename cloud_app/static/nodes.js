// Every node: its presence, and the age of its last message.

import { send } from "./api.js";
import { h, listFacts, morph, spoken } from "./dom.js";
import { ago, bytes, clock, count, NONE, span } from "./format.js";

const WORDS = ["online", "stopped", "lost"];
const ORDER = ["cloud", "store", "edge", "device", "worker"];
const busy = new Map(); // node -> what is being done to it
const open = new Set(); // nodes whose counts are shown

/** Nodes by role and name; processes of the demo that are no nodes (the broker) come first. */
function rows(state) {
  const alive = state.demo?.nodes ?? {};
  const known = new Set(state.nodes.map((node) => node.id));
  const rank = (node) => (ORDER.indexOf(node.role) + ORDER.length + 1) % (ORDER.length + 1);
  const processes = Object.keys(alive)
    .filter((id) => !known.has(id))
    .map((id) => ({ id, role: "process", state: alive[id] ? "online" : "stopped", site: "", process: true }));
  const nodes = [...state.nodes].sort(
    (a, b) => rank(a) - rank(b) || a.site.localeCompare(b.site) || a.id.localeCompare(b.id, "en", { numeric: true }),
  );
  return [...processes, ...nodes];
}

export function renderNodes(state, elapsedS) {
  const several = state.sites.length > 1;
  const unknown = !state.link.connected;
  const all = rows(state);
  const section = document.getElementById("nodes");
  section.classList.toggle("empty", all.length === 0);
  const note = document.getElementById("nodes-note");
  const words = unknown ? `As of ${clock(state.at_s - state.link.for_s, state.at_s)}: the broker is away.` : "";
  note.hidden = !unknown;
  if (unknown && (note.textContent === "" || !note.dataset.stale)) note.textContent = words;
  note.dataset.stale = unknown ? "yes" : "";
  morph(document.getElementById("node-rows"), all.map((node) => row(node, state, elapsedS, several)));
}

function row(node, state, elapsedS, several) {
  const seen = Number.isFinite(node.last_seen_age_s) ? ago(node.last_seen_age_s + elapsedS) : "never seen";
  const where = several && node.site ? `${node.role}, ${node.site}` : node.role;
  const key = `${node.site}/${node.id}`;
  const presence = WORDS.includes(node.state) ? node.state : "lost";
  const dot = h("span", { class: "dot", "aria-hidden": "true" });
  const name = node.process ? node.id
    : h(
      "button",
      { type: "button", class: "disclose", "data-key": "name", "data-open": key, "aria-expanded": String(open.has(key)) },
      node.id,
      spoken(" counts"),
    );
  return [
    h(
      "tr",
      { "data-key": key, class: presence },
      h("th", { scope: "row" }, dot, name, h("small", {}, where)),
      h("td", {}, h("b", {}, node.state), h("small", {}, node.process ? "" : seen),
        node.rollout && h("small", {}, node.rollout)),
      h("td", {}, node.memory_bytes ? bytes(node.memory_bytes) : NONE, h("small", {}, node.version || "")),
      h("td", {}, action(node.id, state)),
    ),
    open.has(key) && h("tr", { "data-key": `${key}/counts`, class: "counts" }, h("td", { colspan: 4 }, facts(node))),
  ];
}

function facts(node) {
  return listFacts([
    ["bundle", node.bundle || NONE],
    ["version", node.version || NONE],
    ["up for", node.uptime_s ? span(node.uptime_s) : NONE],
    ...pairs(node.counts, count),
    ...pairs(node.gauges, (value) => String(Math.round(value * 1000) / 1000)),
  ]);
}

const pairs = (values, shown) =>
  Object.entries(values ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => [name.replaceAll("_", " "), shown(value)]);

/** In a demo: the button that kills this process, or starts it. */
export function action(id, state) {
  const alive = state.demo?.nodes?.[id];
  if (alive === undefined) return null;
  const what = alive ? "kill" : "start";
  const doing = busy.get(id);
  const word = doing ? { kill: "Killing …", start: "Starting …" }[doing] : { kill: "Kill", start: "Start" }[what];
  return h(
    "button",
    { type: "button", class: what, "data-node": id, "data-what": what, "aria-disabled": Boolean(doing) && "true" },
    word, spoken(` ${id}`),
  );
}

export function listenToNodes(page) {
  document.getElementById("node-rows").addEventListener("click", ({ target }) => {
    const key = target.closest("button[data-open]")?.dataset.open;
    if (key === undefined) return;
    if (!open.delete(key)) open.add(key);
    page.render();
  });
  // Wherever such a button stands.
  document.getElementById("main").addEventListener("click", async ({ target }) => {
    const button = target.closest("button[data-node]");
    if (!button || busy.has(button.dataset.node)) return;
    const { node, what } = button.dataset;
    busy.set(node, what);
    page.render();
    try {
      await send(`/api/v1/demo/nodes/${encodeURIComponent(node)}/${what}`, {}, page.state.csrf);
      page.say(what === "kill" ? `${node} was killed.` : `${node} was started.`);
    } catch (error) {
      page.say(`${node}: ${error.message}`, "bad");
    }
    busy.delete(node);
    page.render();
  });
}
