// The numbers at the top, the exits beneath them, and the bytes next to what they are compared with.

import { bar, h, morph, spoken } from "./dom.js";
import { ago, bytes, className, count, duration, interval, list, many, NONE, percent, times } from "./format.js";

export const EXITS = ["device", "local", "edge", "cloud"];
const WORDY = 0.08; // a part of the bar that has room for its name
const MEANING = {
  device: "a camera alone",
  local: "scores of all cameras",
  edge: "features, at the edge",
  cloud: "features, in the cloud",
};

/** The CSS class of an exit; an unknown name gets a neutral colour. */
export const exitClass = (exit) => (EXITS.includes(exit) ? exit : "other");

const tile = (name, value, ...notes) =>
  h(
    "div",
    { "data-key": name },
    h("dt", {}, name),
    h("dd", { class: "number" }, value),
    notes.map((note) => h("dd", {}, note)),
  );

export function renderHeadline(state, nowS, history) {
  const { summary, bundle, nodes, expected_now: expected } = state;
  const newest = state.answers[0];
  const sent = summary?.payload_bytes;
  const rate = history.rate(state.at_s);
  const answered = tile(
    "Samples answered",
    count(summary?.answered),
    rate === null ? "counted since the first" : `${rate < 10 ? rate.toFixed(1) : count(rate)} per second now`,
    newest ? `newest ${ago((state.quiet_s ?? 0) + (nowS - state.at_s))}` : "none yet",
  );
  morph(
    document.getElementById("headline"),
    answered,
    accuracy(summary, expected, bundle),
    tile(
      "Sent per sample and camera",
      bytes(sent),
      sent ? `${times(bundle.raw_bytes, sent)} less than raw` : "nothing sent yet",
      sent && bundle.jpeg_bytes ? `${times(bundle.jpeg_bytes, sent)} less than JPEG` : "",
    ),
    tile(
      "Degraded answers",
      count(summary?.quality.degraded),
      summary?.answered
        ? `${percent(summary.quality.degraded / summary.answered)}: someone was missing`
        : "someone was missing",
      `${count(summary?.late)} delivered late`,
    ),
    online(nodes),
  );
}

/** What an accuracy is to be compared with: the shares of each class, and naming always one class. */
function baseline(summary, bundle) {
  if (!summary?.known) {
    return { majority: bundle.majority, recall: Object.entries(bundle.recall), of: "validation data" };
  }
  const recall = Object.entries(summary.recall).map(([label, share]) => [className(label, bundle.labels), share]);
  return { majority: summary.majority, recall, of: "the newest known samples" };
}

function accuracy(summary, expected, bundle) {
  const { majority, recall } = baseline(summary, bundle);
  const always = majority === null ? "" : `always naming one class: ${percent(majority)}`;
  const worst = recall.reduce((least, one) => (least && least[1] <= one[1] ? least : one), null);
  const weakest = worst && recall.length > 1 ? `weakest class: ${worst[0]} ${percent(worst[1])}` : "";
  const now = expected?.accuracy ?? null;
  if (!summary?.known) {
    return tile(
      "Accuracy expected",
      percent(now ?? summary?.expected_accuracy),
      expected?.members?.length ? `of the ${many(expected.members.length, "camera")} present` : "no camera is present",
      "no sample is labelled yet",
      always,
      weakest,
    );
  }
  return tile(
    "Accuracy",
    percent(summary.accuracy),
    `${interval(summary.accuracy_interval)} (95 %)`,
    `of ${count(summary.known)} known${summary.labelled ? `, ${count(summary.labelled)} by hand` : ""}`,
    now === null ? "" : `expected now ${percent(now)}`,
    always,
    weakest,
  );
}

function online(nodes) {
  const absent = nodes.filter((node) => node.state !== "online");
  return tile(
    "Nodes online",
    `${nodes.length - absent.length} of ${nodes.length}`,
    nodes.length === 0 ? "none has reported yet"
      : absent.length === 0 ? "all present"
      : `absent: ${absent.length > 4 ? `${absent.length} nodes` : list(absent.map((node) => node.id))}`,
  );
}

const dot = () => h("span", { class: "dot", "aria-hidden": "true" });
const known = (of) => (of.accuracy === null ? "no labels" : interval(of.accuracy_interval));

export function renderExits(state) {
  const rows = exitRows(state);
  const parts = rows.map(([name, of]) => [of.share, exitClass(name), of.share > WORDY ? name : ""]);
  morph(document.getElementById("exit-bar"), rows.length ? bar(...parts) : null);
  morph(
    document.getElementById("exit-rows"),
    rows.map(([name, of]) =>
      h(
        "tr",
        { "data-key": name, class: exitClass(name) },
        h("th", { scope: "row" }, dot(), name, h("small", {}, MEANING[name] ?? "")),
        h("td", { class: "big" }, percent(of.share), h("small", {}, count(of.answered))),
        h("td", {}, percent(of.accuracy), h("small", {}, known(of))),
        h("td", {}, duration(of.latency_p50_s), h("small", {}, `p99 ${duration(of.latency_p99_s)}`)),
      ),
    ),
  );
  const { majority, recall, of: measured } = baseline(state.summary, state.bundle);
  const shares = recall.map(([name, share]) => `${name} ${percent(share)}`);
  const recognized = shares.length ? `Of each class, in ${measured}, is recognized: ${list(shares)}.` : "";
  const always = majority === null ? "" : ` Always naming the most frequent class is right in ${percent(majority)}.`;
  document.getElementById("recall").textContent = recognized + always;
  document.getElementById("exits").classList.toggle("empty", rows.length === 0);
}

/** Exits of the bundle even while they have answered nothing, and others that have answered. */
function exitRows(state) {
  const exits = state.summary?.exits ?? {};
  if (!state.summary?.answered) return [];
  const none = { answered: 0, share: 0, accuracy: null, latency_p50_s: null, latency_p99_s: null };
  return EXITS.filter((name) => exits[name]?.answered || state.bundle.exits.includes(name))
    .concat(Object.keys(exits).filter((name) => !EXITS.includes(name)))
    .map((name) => [name, exits[name] ?? none]);
}

export function renderBytes(state, history) {
  const { summary, bundle } = state;
  const sizes = [
    ["Sent", "arrays alone", summary?.payload_bytes, "sent"],
    ["Sent", "with headers", summary?.wire_bytes, "sent"],
    ["JPEG", "of each image", bundle.jpeg_bytes, "image"],
    ["Raw", "each image", bundle.raw_bytes, "image"],
  ].filter(([, , size]) => size !== null && size !== undefined);
  const most = Math.max(1, ...sizes.map(([, , size]) => size));
  morph(
    document.getElementById("byte-rows"),
    sizes.map(([name, note, size, kind]) =>
      h(
        "tr",
        { "data-key": name + note, class: kind },
        h("th", { scope: "row" }, name, " ", h("small", {}, note)),
        h("td", {}, bar([size / most, kind])),
        h("td", {}, bytes(size)),
      ),
    ),
  );
  const links = history.links(state.at_s);
  const samples = history.rate(state.at_s);
  morph(
    document.getElementById("link-rows"),
    links.map(({ key, from, to, bytes_per_s: rate, cameras }) =>
      h(
        "tr",
        { "data-key": key },
        h("th", { scope: "row" }, from, h("span", { "aria-hidden": "true" }, " → "), spoken(" to "), to),
        h("td", {}, rate === null ? "measuring" : `${bytes(rate)}/s`),
        h("td", {}, samples && cameras && bundle.jpeg_bytes ? `${bytes(samples * cameras * bundle.jpeg_bytes)}/s` : NONE),
        h("td", {}, samples && cameras ? `${bytes(samples * cameras * bundle.raw_bytes)}/s` : NONE),
      ),
    ),
  );
  document.getElementById("links").hidden = links.length === 0;
}
