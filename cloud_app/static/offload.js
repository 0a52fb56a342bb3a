// Offloaded work: what the plan tolerates, which worker holds which pieces, and its counts.

import { h, morph, spoken } from "./dom.js";
import { count, duration, list, many, span } from "./format.js";
import { action } from "./nodes.js";

const OLD_S = 3.5; // a state is published each second
const MOST_CELLS = 128;
const STATES = ["live", "loading", "stalled", "lost", "faulty"];
const CELLS = {
  used: "in the last combination",
  ready: "there, not waited for",
  loading: "being loaded",
  absent: "missing",
};

const compareNaturally = (a, b) => a.localeCompare(b, "en", { numeric: true });

export function renderOffloads(state, elapsedS) {
  document.getElementById("offload").hidden = state.offloads.length === 0;
  morph(
    document.getElementById("offloads"),
    state.offloads.map((offload) => renderOffload(offload, offload.age_s + elapsedS, state)),
  );
}

function renderOffload(offload, ageS, state) {
  const { site, node, state: of } = offload;
  const where = state.sites.length > 1 ? `${node}, ${site}` : node;
  const [tone, words] = judge(of, ageS);
  return h(
    "div",
    { "data-key": `${site}/${node}`, class: "offload" },
    h(
      "div",
      {},
      h("h3", {}, of.title, h("small", {}, `${of.room}, for ${where}`)),
      h("p", { class: "plan" }, of.description),
      h("p", { class: `enough ${tone}` }, h("span", { class: `dot ${tone}`, "aria-hidden": "true" }), words),
      renderPieces(offload),
      renderFacts(of),
    ),
    renderWorkers(offload, state),
  );
}

/** Whether the live workers suffice, and how many more may vanish: [tone, words]. */
function judge({ enough, live_pieces: live, pieces, spare_workers: spare, ...of }, ageS) {
  if (ageS > OLD_S) return ["wait", `No report for ${span(ageS)}: the state is shown as of then.`];
  const there = `${count(live)} of ${many(pieces, "piece")} live`;
  if (!enough) return ["bad", `${there}: too few. The edge computes them itself, or answers without them.`];
  if (of.combined + of.computed_here + of.given_up === 0)
    return ["good", `${there}: enough. No sample has come here yet: shallower exits were sure.`];
  if (spare === 0) return ["warn", `${there}: just enough. No further worker may vanish.`];
  return ["good", `${there}: enough. Any ${spare === 1 ? "one worker" : `${count(spare)} workers`} more may vanish.`];
}

/** A cell for each piece, in a strip for each group; none where some workers are not known. */
function renderPieces({ worker_states: states, state: of }) {
  if (of.pieces > MOST_CELLS || Object.keys(of.workers).length < sum(states)) return null;
  const cells = findCells(of);
  const groups = of.groups.length ? of.groups : [{ name: "pieces", first: 0, end: of.pieces }];
  const there = Object.keys(CELLS).filter((is) => cells.some(([cell]) => cell === is));
  return [
    groups.map(({ name, first, end }, group) =>
      h(
        "div",
        { class: "strip", "data-key": `${name}/${first}` },
        h("span", { class: "note", "aria-hidden": "true" }, name),
        h("ol", { class: `pieces group${group % 2}`, "aria-label": `Pieces: ${name}` }, cells.slice(first, end).map(([is, holder], i) =>
          h(
            "li",
            { class: is, title: `piece ${first + i}, ${holder}: ${CELLS[is]}` },
            spoken("piece "), String(first + i), spoken(`, ${holder}: ${CELLS[is]}`),
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

/** [[cell, who holds the piece], …]: of several holders the one in the best state. */
function findCells({ pieces, workers, missing, combined }) {
  const cells = Array.from({ length: pieces }, () => ["absent", "no worker"]);
  const order = Object.keys(CELLS);
  for (const [name, worker] of Object.entries(workers)) {
    const is = worker.state === "loading" ? "loading"
      : worker.state !== "live" ? "absent"
      : missing.includes(name) || combined === 0 ? "ready" : "used";
    for (const piece of worker.pieces) {
      const [before, holder] = cells[piece];
      if (order.indexOf(is) < order.indexOf(before) || holder === "no worker") cells[piece] = [is, name];
    }
  }
  return cells;
}

function renderFacts({ combined, computed_here: here, given_up: up, gather_ms: gather, combine_ms: combine, counts, missing }) {
  const without = missing.length > 6 ? many(missing.length, "worker") : list([...missing].sort(compareNaturally));
  const facts = [
    ["Samples combined from results", count(combined)],
    ["Computed at the edge itself", count(here)],
    ["Given up, a shallower exit answered", count(up)],
    ...Object.entries(counts).filter(([, value]) => value).map(([name, value]) => [toWords(name), count(value)]),
    ["Gathering the results", duration(gather / 1000)],
    ["Combining them", duration(combine / 1000)],
    ["Not waited for in the last combination", combined ? without || "no worker" : "none combined yet"],
  ];
  return h("dl", {}, facts.map(([name, value]) => h("div", { "data-key": name }, h("dt", {}, name), h("dd", {}, value))));
}

/** "late_results" as "Late results". */
function toWords(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function renderWorkers({ worker_states: states, state: of }, state) {
  const workers = Object.entries(of.workers).sort(([a], [b]) => compareNaturally(a, b));
  const others = sum(states) - workers.length;
  const heads = ["Worker", "State", "In time", "Not needed"].map((head) => h("th", { scope: "col" }, head));
  return h(
    "div",
    {},
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, heads, h("th", { scope: "col" }, spoken("Commands")))),
      h("tbody", {}, workers.map(([name, worker]) => renderWorker(name, worker, state))),
    ),
    others > 0 && h("p", { class: "note" }, `and ${many(others, "live worker")} more`),
  );
}

function renderWorker(name, worker, state) {
  const is = STATES.includes(worker.state) ? worker.state : "lost";
  const idle = worker.state === "loading" && worker.pieces.length === 0;
  const held = worker.pieces.length ? `${worker.pieces.length === 1 ? "piece" : "pieces"} ${listRanges(worker.pieces)}` : "no piece";
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

const sum = (numbers) => Object.values(numbers).reduce((total, number) => total + number, 0);

/** "0 to 3, 7". */
function listRanges(numbers) {
  const runs = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : b === a + 1 ? `${a}, ${b}` : `${a} to ${b}`)).join(", ");
}
