// How the cameras and the first exit behave, beside what they did on validation data.

import { h, morph } from "./dom.js";
import { count, list, percent } from "./format.js";

const WORDS = { disagrees: "disagrees with the others", unsure: "is unsure" };

const isCamera = (voter, state) => state.bundle.devices.includes(voter);
const nameOf = (voter, state) => (isCamera(voter, state) ? voter : `the ${voter} exit`);

/** What is otherwise than on validation data, as a phrase; empty where nothing is. */
export function describeAlarms(state) {
  const alarms = state.drift.filter((of) => of.is_alarm);
  return list(alarms.map((of) => `${nameOf(of.voter, state)} ${WORDS[of.kind]}`));
}

/** What a person can look at: a camera, or what stands before all of them. */
export function askWhy(state) {
  const camera = state.drift.some((of) => of.is_alarm && isCamera(of.voter, state));
  return camera
    ? "Was a camera moved, is it dirty, or in the dark?"
    : "Are there other things before the cameras? Record and label them.";
}

export function renderDrift(state) {
  const drift = state.drift ?? [];
  document.getElementById("drift").hidden = drift.length === 0;
  if (!drift.length) return;
  const voters = [...new Set(drift.map((of) => of.voter))];
  const alarms = describeAlarms(state);
  document.getElementById("drift-note").textContent = alarms
    ? `Otherwise than on validation data: ${alarms}. ${askWhy(state)}`
    : `As on validation data, by the newest ${count(Math.max(...drift.map((of) => of.samples)))} samples with all cameras.`;
  morph(
    document.getElementById("drift-rows"),
    voters.map((voter) =>
      h(
        "tr",
        { "data-key": voter, class: drift.some((of) => of.voter === voter && of.is_alarm) ? "wrong" : "" },
        h("th", { scope: "row" }, nameOf(voter, state)),
        ["disagrees", "unsure"].map((kind) => cell(drift.find((of) => of.voter === voter && of.kind === kind))),
      ),
    ),
  );
}

function cell(of) {
  if (!of) return h("td", {}, "");
  const now = of.is_alarm ? h("strong", {}, percent(of.share)) : percent(of.share);
  return h("td", {}, now, h("small", {}, `validation ${percent(of.expected)}`));
}
