// The newest samples: what each camera said, where the sample was answered, and what it really was.

import { read, send, url } from "./api.js";
import { bar, h, morph, spoken } from "./dom.js";
import { ago, className, count, duration, list, many, percent } from "./format.js";
import { EXITS, exitClass } from "./headline.js";

const FEW = 6;
const NAMED = 4; // missing nodes; more are counted
const PACE_S = 2.5; // faster than this nobody reads
const SAID_MS = 10_000;
const DOUBTFUL_MS = 5000; // between two questions for the samples that are worth a label
const DEBOUNCE_MS = 500; // arrow keys pass over labels that are not meant
const keyOf = ({ site, answer }) => `${site}/${answer.sample}`;

const saving = new Map(); // sample -> { text, tone } of its label, and the label until it is saved
const timers = new Map();
let held; // the answers that are shown while the list is paused
let shown = { records: [], at_s: -Infinity, round: 0 };
let pressed = false;
let all = false;
let doubtful = null; // the samples that are worth a label while these are shown, else null
let asking; // the timer of the next question for them

/** The list pauses while the pointer or the keyboard focus is in it. */
function inUse() {
  const list_ = document.getElementById("sample-rows");
  return pressed || list_.matches(":hover") || list_.contains(document.activeElement);
}

/** `round` differs where the answers are of another choice of sites. */
export function renderSamples(state, nowS, round) {
  if (doubtful) return showDoubtful(state, nowS);
  const fresh = new Map(state.answers.map((record) => [keyOf(record), record]));
  if (!inUse() || shown.round !== round) held = undefined;
  // A better answer or another's label is shown at once; only the order is paused.
  else held = renewed(held ?? shown.records, fresh);
  const records = held ?? paced(state, fresh, round);
  const section = document.getElementById("samples");
  section.classList.toggle("empty", records.length === 0);
  const keys = new Set(records.map(keyOf));
  const newer = state.answers.filter((record) => !keys.has(keyOf(record))).length;
  const hold = document.getElementById("hold");
  hold.setAttribute("aria-pressed", String(pressed));
  document.getElementById("held").textContent = held
    ? newer === state.answers.length ? `Paused, more than ${newer} newer.` : `Paused, ${newer} newer.`
    : "";
  const more = document.getElementById("more-samples");
  more.hidden = records.length <= FEW;
  more.textContent = all ? `Show ${FEW}` : `Show all ${records.length}`;
  more.setAttribute("aria-expanded", String(all));
  const rows = (all ? records : pickFew(records, FEW)).map((record) => row(record, state, nowS));
  morph(document.getElementById("sample-rows"), rows);
}

/** The samples without a truth of which the network is least sure. */
function showDoubtful(state, nowS) {
  document.getElementById("samples").classList.toggle("empty", doubtful.length === 0);
  document.getElementById("held").textContent = "Least sure, without a label.";
  document.getElementById("more-samples").hidden = true;
  morph(document.getElementById("sample-rows"), doubtful.map((record) => row(record, state, nowS)));
}

/** The newest `few`; exits that none of them shows are shown by their newest sample instead. */
export function pickFew(records, few) {
  const newest = records.slice(0, few);
  const has = (exit) => ({ answer }) => answer.exit === exit;
  const others = EXITS.filter((exit) => !newest.some(has(exit)))
    .map((exit) => records.find(has(exit)))
    .filter(Boolean);
  const picked = new Set([...newest.slice(0, few - others.length), ...others]);
  return records.filter((record) => picked.has(record));
}

const renewed = (records, fresh) => records.map((record) => fresh.get(keyOf(record)) ?? record);

/** Many samples a second are shown a few seconds at a time. */
function paced(state, fresh, round) {
  const { answers, at_s } = state;
  const due = at_s - shown.at_s >= PACE_S || at_s < shown.at_s || shown.records.length < FEW;
  if (due || shown.round !== round || !answers.length) shown = { records: answers, at_s, round };
  else shown.records = renewed(shown.records, fresh);
  return shown.records;
}

function row(record, state, nowS) {
  const { answer, site } = record;
  const { labels, devices } = state.bundle;
  const status = saving.get(keyOf(record));
  // What was saved just now need not be in the state yet.
  const labelled = status?.tone === "right" ? status.label : record.labelled;
  const truth = labelled ?? answer.truth;
  const right = truth === null || truth === undefined || truth < 0 ? null : truth === answer.label;
  const verdict = right === null ? h("small", {}, "not labelled")
    : right ? h("small", { class: "right" }, "✓ right")
    : h("small", { class: "wrong" }, `✗ wrong: ${className(truth, labels)}`);
  const sure = answer.probabilities[answer.label];
  const cameras = devices.length ? devices : [...new Set([...answer.members, ...answer.missing])].sort();
  return h(
    "li",
    { "data-key": keyOf(record) },
    h("div", { class: "what" },
      h("b", { class: "label" }, className(answer.label, labels)), verdict,
      h("small", {}, `#${answer.sample}, `, h("span", { class: "nowrap" }, ago(nowS - answer.answered_at_s))),
      state.sites.length > 1 && h("small", {}, site)),
    h("div", { class: "seen" }, views(answer, state, cameras), votes(answer, labels, cameras)),
    h("div", { class: "how" },
      journey(answer, labels),
      h("small", {}, `${sure === undefined ? "" : `${percent(sure, 0)} sure, `}${duration(answer.latency_s)}`),
      notes(answer)),
    labelling(record, labels),
  );
}

/** Only a demo has pictures: elsewhere no image leaves a device. */
function views(answer, state, cameras) {
  if (!state.demo) return null;
  return h("img", {
    src: url(`/api/v1/demo/views/${answer.sample}.png`),
    alt: `What ${many(cameras.length, "camera")} saw`, loading: "lazy", decoding: "async",
  });
}

function votes(answer, labels, cameras) {
  return h(
    "ul",
    { class: "votes" },
    cameras.map((camera) => {
      const vote = answer.votes?.[camera];
      const here = answer.members.includes(camera);
      if (!vote) {
        const word = here ? "no vote" : "absent";
        return h("li", { class: here ? "novote" : "absent", title: `${camera}: ${word}` },
          spoken(`${camera} `), h("small", {}, word));
      }
      const [label, share] = vote;
      const name = className(label, labels);
      const agrees = label === answer.label;
      return h("li", { class: agrees ? "agrees" : "differs", title: `${camera}: ${name}, ${percent(share, 0)}` },
        spoken(`${camera} `),
        bar([share, agrees ? "agrees" : "differs"]),
        h("small", {}, name), spoken(` ${percent(share, 0)}`));
    }),
  );
}

/** The exits that judged it, in order; the last is the one that answered. */
function journey(answer, labels) {
  const exit_trace = answer.exit_trace?.length ? answer.exit_trace : [[answer.exit, answer.label, answer.eta]];
  return h(
    "ol",
    { class: "journey" },
    exit_trace.map(([exit, label, eta], i) => {
      const last = i === exit_trace.length - 1;
      const words = `${last ? "answered" : "not sure"}: ${className(label, labels)}, entropy ${eta.toFixed(2)}`;
      return h("li", { class: `${exitClass(exit)}${last ? " last" : ""}`, title: words }, exit, spoken(`, ${words}`));
    }),
  );
}

function notes(answer) {
  const said = [];
  const { missing } = answer;
  if (missing.length) said.push(`without ${missing.length > NAMED ? `${missing.length} nodes` : list(missing)}`);
  else if (answer.quality === "degraded") said.push("degraded");
  if (answer.late) said.push("delivered late");
  return said.length ? h("small", { class: "degraded" }, said.join("; ")) : null;
}

function labelling(record, labels) {
  const key = keyOf(record);
  const status = saving.get(key);
  const chosen = (status?.label === undefined ? record.labelled : status.label) ?? "";
  const option = (value, text) =>
    h("option", { value, selected: String(chosen) === String(value) }, text);
  const source = record.answer.truth;
  const unset = source === null || source < 0 ? "not labelled" : `${className(source, labels)} (source)`;
  const known = labels.length > chosen || chosen === "" ? [] : [option(chosen, className(chosen, labels))];
  return h(
    "div",
    { class: "labelling" },
    h("label", {}, h("small", {}, "It was", spoken(` (sample ${record.answer.sample})`)),
      h("select", { "data-sample": record.answer.sample, "data-site": record.site },
        option("", unset), labels.map((name, i) => option(i, name)), known)),
    h("small", { class: `status ${status?.tone ?? ""}` }, status?.text ?? (record.labelled === null ? "" : "by hand")),
  );
}

export function listenToSamples(page) {
  const rows = document.getElementById("sample-rows");
  rows.addEventListener("change", ({ target }) => {
    if (target.nodeName !== "SELECT") return;
    const key = `${target.dataset.site}/${target.dataset.sample}`;
    clearTimeout(timers.get(key));
    const label = target.value === "" ? null : Number(target.value);
    const { site, sample } = target.dataset;
    saving.set(key, { text: "saving …", tone: "", label });
    timers.set(key, setTimeout(() => save(key, { site, sample: Number(sample), label }), DEBOUNCE_MS));
    page.render();
  });
  // Left by the pointer or the keyboard, the list moves on with the next state.
  document.getElementById("hold").addEventListener("click", () => {
    pressed = !pressed;
    page.render();
  });
  document.getElementById("more-samples").addEventListener("click", () => {
    all = !all;
    page.render();
  });

  const button = document.getElementById("doubtful");
  button.addEventListener("click", async () => {
    clearTimeout(asking);
    doubtful = doubtful ? null : [];
    const isOn = doubtful !== null;
    button.setAttribute("aria-pressed", String(isOn));
    document.getElementById("samples-title").textContent = isOn ? "Worth a label" : "Newest samples";
    document.getElementById("no-samples").textContent = isOn
      ? "The samples are being asked for."
      : "No sample has been answered yet.";
    document.getElementById("hold").hidden = isOn;
    if (isOn) await ask();
    page.render();
  });

  /** Asks now and later again; a list that is in use, or of which a label is being saved, stays. */
  async function ask() {
    try {
      const found = await read("/api/v1/doubtful", { site: page.site });
      if (doubtful && !(doubtful.length && inUse()) && !saving.size) doubtful = found;
      if (doubtful) {
        document.getElementById("no-samples").textContent =
          "There is no new sample whose truth is not known.";
      }
    } catch (error) {
      page.say(error.message, "bad");
    }
    if (!doubtful) return;
    asking = setTimeout(ask, DOUBTFUL_MS);
    page.render();
  }

  async function save(key, { site, sample, label }) {
    const name = label === null ? "not labelled" : className(label, page.state.bundle.labels);
    try {
      await send("/api/v1/labels", { site, sample, label }, page.state.csrf);
      saving.set(key, { text: "saved", tone: "right", label });
      page.say(`Sample ${sample}: ${name}, saved.`);
      // It may be shown here (paused) and no longer be among the newest.
      const relabel = (record) => (keyOf(record) === key ? { ...record, labelled: label } : record);
      shown.records = shown.records.map(relabel);
      held = held?.map(relabel);
      doubtful = doubtful?.map(relabel) ?? null;
    } catch (error) {
      saving.set(key, { text: `not saved: ${error.message}`, tone: "wrong" });
      page.say(`Sample ${sample}: the label was not saved. ${error.message}`, "bad");
    }
    page.render();
    timers.set(key, setTimeout(() => saving.delete(key), SAID_MS));
  }
}
