// The thresholds that no others surpass on validation data, and where the site stands among them:
// accuracy against bytes and against latency.

import { bar, h, morph } from "./dom.js";
import { bytes, duration, percent } from "./format.js";
import { EXITS, exitClass } from "./headline.js";

const ROWS = 7;
const WIDTH = 320;
const HEIGHT = 120;
const EDGE = 8; // around the points, so that none is cut off

/** At most `most` of a list, its ends included, evenly. */
export function spread(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, i) => list[Math.round((i * (list.length - 1)) / (most - 1))]);
}

/** Mean latency of exit shares, from the medians of the exits; null where one is unknown. */
export function latencyOf(share, exits) {
  let sum = 0;
  for (const [exit, part] of Object.entries(share)) {
    if (!part) continue;
    const median = exits?.[exit]?.latency_p50_s;
    if (median === null || median === undefined) return null;
    sum += part * median;
  }
  return sum;
}

/** `now`: the nearest row of the sweep to the thresholds in use, { accuracy, exit_share, total_bytes }. */
export function renderFront(front, now, exits) {
  const figure = document.getElementById("front");
  figure.hidden = front.length < 2;
  if (figure.hidden) return;
  const place = (row) => ({ ...row, latency: latencyOf(row.exit_share, exits) });
  const rows = front.map(place);
  const here = now && place(now);
  const drawings = [
    drawing("bytes", rows.map((row) => [row.total_bytes, row.accuracy]), here && [here.total_bytes, here.accuracy]),
  ];
  if (rows.every((row) => row.latency !== null)) {
    const at = here && here.latency !== null ? [here.latency, here.accuracy] : null;
    drawings.push(drawing("latency", rows.map((row) => [row.latency, row.accuracy]), at));
  }
  morph(document.getElementById("front-plots"), drawings);
  const standing = here ? standingOf(rows, here) : "";
  document.getElementById("front-note").textContent = standing;
  morph(
    document.getElementById("front-rows"),
    spread(rows, ROWS).map((row) =>
      h(
        "tr",
        { "data-key": JSON.stringify(row.thresholds) },
        h("td", {}, percent(row.accuracy)),
        h("td", {}, bytes(row.total_bytes)),
        h("td", {}, duration(row.latency)),
        h("td", { class: "shares" },
          bar(...EXITS.filter((exit) => row.exit_share[exit] > 0).map((exit) => [row.exit_share[exit], exitClass(exit)]))),
        h("td", {}, h("button", { type: "button", "data-thresholds": JSON.stringify(row.thresholds),
          "aria-label": `Try the thresholds with ${percent(row.accuracy)} at ${bytes(row.total_bytes)}` }, "Try")),
      ),
    ),
  );
}

/** What the site could have with as few bytes, in a sentence. */
export function standingOf(rows, here) {
  const best = rows.filter((row) => row.total_bytes <= here.total_bytes + 1e-6).at(-1);
  const gain = best ? best.accuracy - here.accuracy : 0;
  return gain > 0.0005
    ? `The thresholds in use are ${(gain * 100).toFixed(1)} points below the front at ${bytes(here.total_bytes)}.`
    : `The thresholds in use are on the front, at ${bytes(here.total_bytes)}.`;
}

function drawing(name, points, here) {
  const all = here ? [...points, here] : points;
  const most = Math.max(...all.map(([x]) => x)) || 1;
  const low = Math.min(...all.map(([, y]) => y));
  const high = Math.max(...all.map(([, y]) => y));
  const at = ([x, y]) => [
    EDGE + (x / most) * (WIDTH - 2 * EDGE),
    HEIGHT - EDGE - ((y - low) / (high - low || 1)) * (HEIGHT - 2 * EDGE),
  ];
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  const line = sorted.map(at).map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const mark = here && at(here);
  const label = name === "bytes" ? `up to ${bytes(most)}` : `up to ${duration(most)}`;
  return h(
    "div",
    { "data-key": name },
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `Accuracy from ${percent(low)} to ${percent(high)} against ${name}, ${label}` },
      h("path", { d: line, class: "line" }),
      mark && h("rect", { class: "here", x: mark[0] - 4, y: mark[1] - 4, width: 8, height: 8 })),
    h("small", {}, `${percent(low)} to ${percent(high)} against ${name}, ${label}`),
  );
}
