// Trainings across devices: how far they are, who computes which layers, and what happened.

import { bar, h, listFacts, morph, spoken } from "./dom.js";
import { ago, clock, count, duration, many, percent, span } from "./format.js";

const OLD_S = 3.5; // a state is published each second
const PREPARING = {
  GATHERING: "waits for devices",
  PROFILING: "measures the layers",
  HALTING: "chooses who gets which layers",
  HOLDING: "distributes the layers",
  STARTING: "starts",
};
const TONES = { restart: "bad", resend: "warn", drain: "warn", advance: "good", end: "good" };

export function renderTrainings(state, elapsedS) {
  document.getElementById("training").hidden = state.trainings.length === 0;
  const nowS = state.at_s + elapsedS;
  morph(
    document.getElementById("trainings"),
    state.trainings.map((training) => renderTraining(training, training.age_s + elapsedS, nowS, state)),
  );
}

function renderTraining({ site, node, state: of }, ageS, nowS, state) {
  const where = state.sites.length > 1 ? `${node}, ${site}` : node;
  const [tone, words] = judge(of, ageS, state.link.connected);
  return h(
    "div",
    { "data-key": `${site}/${node}`, class: "training work" },
    h(
      "div",
      {},
      h("h3", {}, of.run, h("small", {}, `driven by ${where}`)),
      h("p", { class: `going ${tone}` }, h("span", { class: `dot ${tone}`, "aria-hidden": "true" }), words),
      bar([of.end ? of.batches / of.end : 0, "done"]),
      renderFacts(of),
      renderTimeline(of, nowS),
    ),
    of.places.length > 0 && renderPlaces(of),
  );
}

/** How the training goes, in a sentence: [tone, words]. */
function judge(of, ageS, connected) {
  const done = `${count(of.batches)} of ${many(of.end, "batch", "batches")}`;
  if (of.state === "ENDED") return ["good", `Finished: ${done}.`];
  if (of.state === "FAILED") return ["bad", `Failed after ${done}; the log of its central node has the reason.`];
  if (ageS > OLD_S && !connected) return ["wait", `${done}, ${span(ageS)} ago: this page has no connection to the broker.`];
  if (ageS > OLD_S) return ["bad", `No report for ${span(ageS)}: at ${done}. It goes on from its last checkpoint once the same command is started again.`];
  if (of.state in PREPARING) {
    const why = of.state === "GATHERING" ? `, ${many(of.workers, "worker")} so far` : "";
    return [of.term > 1 ? "warn" : "wait", `${done}: it ${PREPARING[of.state]}${why}.`];
  }
  if (of.state === "PROBING") return ["warn", `${done}: a batch is overdue, it asks who is there.`];
  if (of.state === "DRAINING") return ["wait", `${done}: it finishes the batches under way, for another layout.`];
  const left = of.batch_s ? `, about ${span((of.end - of.batches) * of.batch_s)} left` : "";
  return ["good", `${done}${left}.`];
}

function renderFacts(of) {
  const copies = of.global_every
    ? `${many(of.version - of.copied, "step")} old, every ${count(of.global_every)}`
    : "none yet";
  return listFacts([
    ["Loss of the newest batches", describeLoss(of)],
    ["Right in the same batches", percent(of.accuracy)],
    ["Time per batch", of.batch_s ? duration(of.batch_s) : "not measured yet"],
    ["Copies at the next device", of.chain_every ? `every ${many(of.chain_every, "step")}` : "none yet"],
    ["Whole copy at the central node", copies],
    ["Failures of devices", count(of.failures)],
    ["Layouts so far", count(of.term)],
  ]);
}

/** JSON has no number for a loss that is not finite; the accuracy of the same batches is one. */
function describeLoss({ loss, accuracy }) {
  if (loss === null) return accuracy === null ? "none yet" : "not finite: it diverges";
  return loss < 1000 ? loss.toFixed(3) : loss.toExponential(2);
}

function renderTimeline({ timeline }, nowS) {
  return h(
    "details",
    {},
    h("summary", {}, `What happened: ${many(timeline.length, "entry", "entries")}`),
    h(
      "ol",
      { class: "rows" },
      [...timeline].reverse().map(({ at_s: atS, batch, kind, text }) =>
        h(
          "li",
          { "data-key": `${atS} ${batch} ${kind}` },
          h("span", { class: `dot ${TONES[kind] ?? "wait"}`, "aria-hidden": "true" }),
          h("span", {}, h("b", {}, kind), `: ${text}`, h("small", {}, `at batch ${count(batch)}`)),
          h("time", { title: clock(atS, nowS) }, ago(nowS - atS)),
        ),
      ),
    ),
  );
}

function renderPlaces({ places }) {
  const heads = ["Device", "Layers", "Per batch", "Busy"].map((head) => h("th", { scope: "col" }, head));
  return h(
    "table",
    {},
    h("caption", { class: "spoken" }, "Who computes which layers, in the order of the layers"),
    h("thead", {}, h("tr", {}, heads)),
    h(
      "tbody",
      {},
      places.map(({ node, start, stop, batch_s: batchS, idle_share: idle }) =>
        h(
          "tr",
          { "data-key": node },
          h("th", { scope: "row" }, node),
          h("td", {}, stop - start === 1 ? count(start) : `${count(start)} to ${count(stop - 1)}`),
          h("td", {}, batchS ? duration(batchS) : spokenNone()),
          h("td", {}, batchS ? [percent(1 - idle, 0), bar([1 - idle, "busy"])] : spokenNone()),
        ),
      ),
    ),
  );
}

const spokenNone = () => ["–", spoken(" not measured yet")];
