// Layers that an edge shares among workers: the plan, who does what, and how the decoding goes.

import { h, morph, spoken } from "./dom.js";
import { count, duration, list, many, span } from "./format.js";
import { action } from "./nodes.js";

const OLD_S = 3.5; // it is told each second
const MOST_CELLS = 128;
const STATES = ["live", "loading", "stalled", "lost", "faulty"];
const CELLS = {
  used: "in the last decoding",
  ready: "there, not waited for",
  loading: "being loaded",
  absent: "missing",
};

const natural = (a, b) => a.localeCompare(b, "en", { numeric: true });

export function renderSharing(state, elapsedS) {
  document.getElementById("sharing").hidden = state.sharing.length === 0;
  morph(
    document.getElementById("shared"),
    state.sharing.map((shared) => layer(shared, shared.age_s + elapsedS, state)),
  );
}

function layer(shared, ageS, state) {
  const { site, node, sharing } = shared;
  const where = state.sites.length > 1 ? `${node}, ${site}` : node;
  const [tone, words] = standing(shared, ageS);
  return h(
    "div",
    { "data-key": `${site}/${node}`, class: "shared" },
    h(
      "div",
      {},
      h("h3", {}, sharing.layer, h("small", {}, `${sharing.redundancy}, code ${sharing.code}, shared by ${where}`)),
      h("p", { class: "plan" }, plan(shared)),
      h("p", { class: `enough ${tone}` }, h("span", { class: `dot ${tone}`, "aria-hidden": "true" }), words),
      cells(shared),
      decoding(sharing),
    ),
    table(shared, state),
  );
}

/** What the plan promises. */
function plan({ planned, sharing: { redundancy, n, k, tolerate } }) {
  const shards = `${many(n, "shard")} on ${many(planned, "worker")}.`;
  if (tolerate === 0) return `${shards} All are needed: no worker may vanish.`;
  const suffices = redundancy === "replicate"
    ? `One copy of each of the ${many(k, "block")} suffices`
    : `Any ${count(k)} of the shards suffice`;
  return `${shards} ${suffices}: any ${count(tolerate)} of ${many(planned, "worker")} may vanish.`;
}

/** Whether the live workers suffice, and how many more may go: [tone, words]. */
function standing({ to_spare: spare, sharing }, ageS) {
  const { decodable, live_pieces: live, n } = sharing;
  if (ageS > OLD_S) return ["wait", `Not heard of for ${span(ageS)}: what is shown is of then.`];
  const there = `${count(live)} of ${many(n, "shard")} live`;
  if (!decodable) return ["bad", `${there}: too few. The edge computes the layer itself, or answers without it.`];
  if (sharing.decoded + sharing.computed_here + sharing.given_up === 0)
    return ["good", `${there}: enough. No sample has come here yet: shallower exits were sure.`];
  if (spare === 0) return ["warn", `${there}: just enough. No further worker may vanish.`];
  return ["good", `${there}: enough. Any ${spare === 1 ? "one" : count(spare)} more may vanish.`];
}

/** [[words, class, first, end], …]: what the shards are. */
function kinds({ redundancy, n, k }) {
  if (redundancy === "coded") return [["data", "data", 0, k], ["parity", "parity", k, n]];
  if (redundancy === "coded-sparse") return [["mixed", "parity", 0, n]];
  return [[redundancy === "replicate" ? "copies" : "data", "data", 0, n]];
}

function cells({ states, sharing }) {
  const workers = Object.entries(sharing.workers);
  const all = Object.values(states).reduce((sum, of) => sum + of, 0);
  if (sharing.n > MOST_CELLS || workers.length < all) return null;
  const missing = new Set(sharing.missing);
  const found = Array.from({ length: sharing.n }, () => ["absent", "nobody"]);
  const order = Object.keys(CELLS);
  for (const [name, worker] of workers) {
    const is = worker.state === "loading" ? "loading"
      : worker.state !== "live" ? "absent"
      : missing.has(name) || sharing.decoded === 0 ? "ready" : "used";
    for (const shard of worker.pieces) {
      const [before, holder] = found[shard];
      if (order.indexOf(is) < order.indexOf(before) || holder === "nobody") found[shard] = [is, name];
    }
  }
  const there = order.filter((is) => found.some(([of]) => of === is));
  return [
    kinds(sharing).filter(([, , first, end]) => first < end).map(([words, kind, first, end]) =>
      h(
        "div",
        { class: "strip", "data-key": words },
        h("span", { class: "note", "aria-hidden": "true" }, words),
        h("ol", { class: "shards", "aria-label": `Shards: ${words}` }, found.slice(first, end).map(([is, name], i) =>
          h(
            "li",
            { class: `${kind} ${is}`, title: `shard ${first + i}, ${name}: ${CELLS[is]}` },
            spoken("shard "), String(first + i), spoken(`, ${name}: ${CELLS[is]}`),
          ),
        )),
      ),
    ),
    h(
      "ul",
      { class: "legend", "data-key": "legend", "aria-hidden": "true" },
      there.map((is) => h("li", { class: is }, h("span", { class: "swatch" }), CELLS[is])),
    ),
  ];
}

function decoding(sharing) {
  const { decoded, computed_here: here, given_up: up, gather_ms: gather, decode_ms: decode, missing } = sharing;
  const without = missing.length > 6 ? many(missing.length, "worker") : list([...missing].sort(natural));
  const facts = [
    ["Samples decoded", count(decoded)],
    ["Computed at the edge itself", count(here)],
    ["Given up, a shallower exit answered", count(up)],
    ...(sharing.contradictions ? [["Contradictions, nobody to blame", count(sharing.contradictions)]] : []),
    ["Gathering the shards", duration(gather / 1000)],
    ["Decoding", duration(decode / 1000)],
    ["Not waited for in the last decoding", decoded ? without || "nobody" : "none decoded yet"],
  ];
  return h("dl", {}, facts.map(([name, value]) => h("div", { "data-key": name }, h("dt", {}, name), h("dd", {}, value))));
}

function table({ states, sharing }, state) {
  const workers = Object.entries(sharing.workers).sort(([a], [b]) => natural(a, b));
  const all = Object.values(states).reduce((sum, of) => sum + of, 0);
  const heads = ["Worker", "State", "In time", "Not needed"].map((head) => h("th", { scope: "col" }, head));
  return h(
    "div",
    {},
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads, h("th", { scope: "col" }, spoken("Commands")))),
      h("tbody", {}, workers.map(([name, worker]) => row(name, worker, state))),
    ),
    workers.length < all && h("p", { class: "note" }, `and ${many(all - workers.length, "live worker")} more`),
  );
}

function row(name, worker, state) {
  const is = STATES.includes(worker.state) ? worker.state : "lost";
  const idle = worker.state === "loading" && worker.pieces.length === 0;
  const held = worker.pieces.length ? `${worker.pieces.length === 1 ? "shard" : "shards"} ${ranges(worker.pieces)}` : "no shard";
  return h(
    "tr",
    { "data-key": name, class: is },
    h("th", { scope: "row" }, h("span", { class: "dot", "aria-hidden": "true" }), name, h("small", {}, worker.planned ? held : `spare, ${held}`)),
    h("td", {}, h("b", {}, idle ? "idle" : worker.state), h("small", {}, is === "live" && worker.latency_ms ? duration(worker.latency_ms / 1000) : "")),
    h("td", {}, count(worker.answered), h("small", {}, `used ${count(worker.used)}`)),
    h("td", {}, count(worker.late), h("small", {}, `missed ${count(worker.missed)}`)),
    h("td", {}, action(name, state)),
  );
}

/** "0 to 3, 7". */
function ranges(numbers) {
  const runs = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : b === a + 1 ? `${a}, ${b}` : `${a} to ${b}`)).join(", ");
}
