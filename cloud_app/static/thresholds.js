// What other thresholds would do, before they are applied.

import { read, send } from "./api.js";
import { bar, h, morph } from "./dom.js";
import { bytes, clock, count, interval, NONE, percent } from "./format.js";
import { renderFront } from "./front.js";
import { EXITS, exitClass } from "./headline.js";

const DEBOUNCE_MS = 150;
const EVERY_MS = 10_000; // recorded samples become more
const CHANGES = 5;

let draft = null; // the thresholds of the sliders, once someone moved one
let answer = null; // of the what-if
let asked = null; // the request under way
let timer;
let history = null; // { changes, … }
let site = "";
let page;
let sent = null; // a revision that the edge does not use yet

const words = (thresholds) =>
  EXITS.filter((exit) => exit in thresholds).map((exit) => `${exit} ${thresholds[exit].toFixed(2)}`).join(", ");
const same = (a, b) => Object.keys(a).every((exit) => Math.abs(a[exit] - (b?.[exit] ?? -1)) < 0.0005);

function current() {
  const { thresholds } = page.state;
  return thresholds?.in_use ?? thresholds?.own ?? {};
}

export function renderThresholds(state) {
  const section = document.getElementById("thresholds");
  const own = state.thresholds?.own ?? {};
  const exits = EXITS.filter((exit) => exit in own);
  const choose = state.sites.length > 1 && !page.site;
  section.classList.toggle("choose", choose);
  section.classList.toggle("none", exits.length === 0);
  if (choose || exits.length === 0) return;
  const chosen = page.site || state.sites[0] || "home";
  if (site !== chosen) {
    site = chosen;
    draft = null;
    answer = null;
    history = null;
    sent = null;
    refresh();
  }
  const now = current();
  if (sent && state.thresholds.in_use && state.thresholds.revision >= sent) sent = null;
  const values = draft ?? now;
  morph(
    document.getElementById("sliders"),
    exits.map((exit) => slider(exit, values[exit] ?? 0, now[exit])),
  );
  for (const input of document.querySelectorAll("#sliders input")) {
    const value = String(values[input.dataset.exit] ?? 0);
    if (Number(input.value) !== Number(value)) input.value = value;
  }
  const changed = draft !== null && !same(draft, now);
  disable("apply", !changed);
  disable("reset", !changed);
  disable("revert", !history?.changes?.length);
  document.getElementById("threshold-state").textContent =
    sent ? "Sent; the edge does not use it yet."
    : state.thresholds.in_use ? `In use: ${words(now)}.`
    : `The edge does not report its thresholds; those of the bundle are ${words(now)}.`;
  renderComparison(changed);
  const nearest = answer?.now?.sweep;
  renderFront(
    history?.front ?? [],
    nearest && { ...nearest, total_bytes: answer.now_total_bytes },
    state.summary?.exits,
  );
  document.getElementById("audit").textContent = auditWords(answer?.audit);
  renderChanges(state);
}

/** How often deeper exits agree with the local one, of the samples that were sent up to ask them. */
function auditWords(audit) {
  if (!audit?.share) return "";
  const rate = `Audit: ${percent(audit.share)} of the samples that the local exit is sure of go up all the same`;
  if (!audit.audited) return `${rate}; none has so far.`;
  return `${rate}; of ${count(audit.audited)} so far, deeper exits agreed with ` +
    `${percent(audit.agreed / audit.audited)} (${interval(audit.interval)}).`;
}

/** Disables a button without taking the focus from it. */
function disable(id, disabled) {
  const button = document.getElementById(id);
  if (disabled) button.setAttribute("aria-disabled", "true");
  else button.removeAttribute("aria-disabled");
}

function slider(exit, value, now) {
  const id = `threshold-${exit}`;
  return h(
    "div",
    { "data-key": exit, class: `slider ${exitClass(exit)}` },
    h("label", { for: id }, h("span", { class: "dot", "aria-hidden": "true" }), `${exit} answers below an entropy of`),
    h("output", { for: id }, value.toFixed(2)),
    h("input", {
      type: "range", id, min: 0, max: 1, step: 0.02, value, // as the sweep's rows
      "data-exit": exit, "aria-describedby": `now-${exit}`,
    }),
    h("small", { id: `now-${exit}` }, `now ${now === undefined ? NONE : now.toFixed(2)}; 0 never, 1 always`),
  );
}

/** One column of the comparison: { accuracy, note, share, bytes }. */
function column(name, kind, of) {
  if (!of) return { name, kind, accuracy: NONE, note: "", share: {}, bytes: NONE };
  const recorded = "samples" in of;
  return {
    name,
    kind,
    accuracy: percent(of.accuracy),
    note: !recorded ? `at ${words(of.thresholds ?? {})}`
      : of.known ? `${interval(of.interval)}, ${count(of.known)} labelled` : "none labelled",
    share: of.exit_share ?? {},
    bytes: bytes(of.bytes),
  };
}

function renderComparison(changed) {
  const heads = ["Thresholds", "Accuracy", "Exits", "Bytes"].map((head) => h("th", { scope: "col" }, head));
  const heading = h("thead", { "data-key": "heads" }, h("tr", {}, heads));
  const samples = answer?.recorded?.samples;
  const groups = [
    ["Recorded samples", samples ? `the newest ${count(samples)}` : "none yet", "recorded"],
    ["Validation data", "of the bundle, nearest row of its sweep", "sweep"],
  ];
  morph(
    document.getElementById("comparison"),
    heading,
    groups.map(([name, note, kind]) => {
      const columns = [
        column("now", kind, answer?.now?.[kind]),
        ...(changed ? [column("with these", kind, answer?.[kind])] : []),
      ];
      return h(
        "tbody",
        { "data-key": kind },
        h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: 4 }, name, h("small", {}, note))),
        columns.map((shown) =>
          h(
            "tr",
            { "data-key": shown.name },
            h("th", { scope: "row" }, shown.name),
            h("td", {}, h("b", {}, shown.accuracy), h("small", {}, shown.note)),
            h("td", { class: "shares" }, shares(shown.share)),
            h("td", {}, shown.bytes),
          ),
        ),
      );
    }),
  );
}

function shares(share) {
  const names = [...EXITS, "unknown"].filter((name) => share[name] > 0);
  if (!names.length) return NONE;
  return [
    bar(...names.map((name) => [share[name], name === "unknown" ? "unknown" : exitClass(name)])),
    h("small", {}, names.map((name) => `${name} ${percent(share[name], 0)}`).join(", ")),
  ];
}

function renderChanges(state) {
  const changes = (history?.changes ?? []).slice(0, CHANGES);
  const note = document.getElementById("changes-note");
  note.hidden = history === null || changes.length > 0;
  note.textContent = same(state.thresholds?.own ?? {}, current())
    ? "None yet: the bundle's own thresholds are in use."
    : "None was made here.";
  morph(
    document.getElementById("changes"),
    changes.map((change) =>
      h(
        "li",
        { "data-key": String(change.revision) },
        h(
          "span",
          {},
          h("b", {}, change.what),
          `: ${words(change.thresholds)}`,
          h("small", {}, `before: ${words(change.before)}; by ${change.by || "someone"}`),
        ),
        h("time", {}, clock(change.at_s, state.at_s)),
      ),
    ),
  );
}

async function ask() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  const here = site;
  try {
    const found = await read("/api/v1/whatif", { site, ...(draft ?? current()) }, signal);
    if (here !== site) return;
    answer = found;
    note("");
  } catch (error) {
    if (signal.aborted) return;
    note(error.message);
  }
  page.render();
}

async function refresh() {
  const here = site;
  try {
    const found = await read("/api/v1/thresholds", { site });
    if (here === site) history = found;
  } catch {
    // The feed reports errors of the server; the history does not change.
  }
  await ask();
}

function note(text) {
  const element = document.getElementById("whatif-note");
  element.textContent = text;
  element.hidden = !text;
}

async function command(path, body, done) {
  try {
    const change = await send(path, body, page.state.csrf);
    sent = change?.revision ?? null;
    draft = null;
    page.say(done);
  } catch (error) {
    page.say(error.message, "bad");
  }
  await refresh();
}

export function listenToThresholds(of) {
  page = of;
  const allowed = (event) => event.currentTarget.getAttribute("aria-disabled") !== "true";
  document.getElementById("sliders").addEventListener("input", ({ target }) => {
    draft = { ...(draft ?? current()), [target.dataset.exit]: Number(target.value) };
    page.render();
    clearTimeout(timer);
    timer = setTimeout(ask, DEBOUNCE_MS);
  });
  document.getElementById("front-rows").addEventListener("click", ({ target }) => {
    if (!target.dataset.thresholds) return;
    draft = JSON.parse(target.dataset.thresholds);
    page.render();
    ask();
  });
  document.getElementById("apply").addEventListener("click", (event) => {
    const done = () => `Thresholds sent to the edge: ${words(draft)}.`;
    if (allowed(event)) command("/api/v1/thresholds", { site, thresholds: draft }, done());
  });
  document.getElementById("revert").addEventListener("click", (event) => {
    const done = "The previous thresholds were sent to the edge.";
    if (allowed(event)) command("/api/v1/thresholds/revert", { site }, done);
  });
  document.getElementById("reset").addEventListener("click", (event) => {
    if (!allowed(event)) return;
    draft = null;
    page.render();
    ask();
  });
  setInterval(() => document.hidden || page.feed.stale || !site || refresh(), EVERY_MS);
}
