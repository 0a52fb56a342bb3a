// Offloaded work: what the plan tolerates, which worker holds which pieces, and its counts.

import { renderAlternatives } from "./alternatives.js";
import { h, listFacts, morph, spoken } from "./dom.js";
import { count, duration, list, many, percent, span } from "./format.js";
import { action } from "./nodes.js";

const OLD_S = 3.5; // a state is published each second
const OBSERVED_S = 60;
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
    { "data-key": `${site}/${node}`, class: "offload work" },
    h(
      "div",
      {},
      h("h3", {}, of.title, h("small", {}, `${of.room}, for ${where}`)),
      h("p", { class: "plan" }, of.description),
      h("p", { class: `enough ${tone}` }, h("span", { class: `dot ${tone}`, "aria-hidden": "true" }), words),
      renderPieces(offload),
      renderFacts(of),
      renderAlternatives(of),
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

/** A cell for each holder of each piece, in a strip for each group; none where some workers are not
known. Where pieces have several holders, the cells bear their names. */
function renderPieces({ worker_states: states, state: of }) {
  if (of.pieces > MOST_CELLS || Object.keys(of.workers).length < sum(states)) return null;
  const cells = findCells(of);
  const groups = of.groups.length ? of.groups : [{ name: "pieces", first: 0, end: of.pieces }];
  const there = Object.keys(CELLS).filter((is) => cells.some((of) => of.some(([cell]) => cell === is)));
  const replicas = cells.some((of) => of.length > 1);
  return [
    groups.map(({ name, first, end }, group) =>
      h(
        "div",
        { class: "strip", "data-key": `${name}/${first}` },
        h("span", { class: "note", "aria-hidden": "true" }, name),
        h("ol", { class: `pieces group${group % 2}`, "aria-label": `Pieces: ${name}` }, cells.slice(first, end).flatMap((of, i) => of.map(([is, holder]) =>
          h(
            "li",
            { class: is, title: `piece ${first + i}, ${holder}: ${CELLS[is]}` },
            replicas
              ? [spoken(`piece ${first + i}, `), holder, spoken(`: ${CELLS[is]}`)]
              : [spoken("piece "), String(first + i), spoken(`, ${holder}: ${CELLS[is]}`)],
          ),
        ))),
      ),
    ),
    h(
      "ul",
      { class: "legend", "data-key": "legend", "aria-hidden": "true" },
      there.map((is) => h("li", { class: is }, h("span", { class: "swatch" }), CELLS[is])),
    ),
  ];
}

/** By piece: [[cell, who holds it], …]. A spare hides the one that it stands in for. */
function findCells({ pieces, workers, sources }) {
  const names = Object.keys(workers).sort(compareNaturally);
  return Array.from({ length: pieces }, (_, piece) => {
    const holders = names.filter((name) => workers[name].pieces.includes(piece));
    const cells = holders.map((name) => [findCell(workers[name], sources[piece] === name), name]);
    let spares = holders.filter((name) => !workers[name].planned).length;
    const shown = cells.filter(([is, name]) => !(is === "absent" && workers[name].planned && spares-- > 0));
    return shown.length ? shown : [["absent", "no worker"]];
  });
}

function findCell({ state }, isSource) {
  if (state === "loading") return "loading";
  if (state !== "live") return "absent";
  return isSource ? "used" : "ready";
}

function renderFacts({ combined, combined_partly: partly, computed_here: here, given_up: up, accuracy, counts, missing, ...of }) {
  const without = missing.length > 6 ? many(missing.length, "worker") : list([...missing].sort(compareNaturally));
  return listFacts([
    ["Samples combined from results", count(combined)],
    ...(partly ? [["Of them without some pieces", count(partly)]] : []),
    ["Computed at the edge itself", count(here)],
    ["Given up, a shallower exit answered", count(up)],
    ...Object.entries(counts).filter(([, value]) => value).map(([name, value]) => [toWords(name), count(value)]),
    ["Gathering the results", duration(of.gather_ms / 1000)],
    ["Combining them", duration(of.combine_ms / 1000)],
    ...Object.entries(accuracy).map(([exit, share]) => [`Accuracy at ${exit} with these pieces`, percent(share)]),
    ["Not waited for in the last combination", combined ? without || "no worker" : "none combined yet"],
  ]);
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
    h("td", {}, count(worker.late), h("small", {}, `missed ${count(worker.missed)}${describeAbsence(worker)}`)),
    h("td", {}, action(name, state)),
  );
}

/** How much of the time a worker was away, once that was observed for a while. */
function describeAbsence(worker) {
  return worker.observed_s >= OBSERVED_S ? `, away ${percent(worker.outage)} of ${span(worker.observed_s)}` : "";
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
