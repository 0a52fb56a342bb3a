// Exit shares, accuracy and latency over time. uPlot draws; each chart also is a sentence and a table.

import { read } from "./api.js";
import { h, morph } from "./dom.js";
import { clock } from "./format.js";
import { EXITS } from "./headline.js";
import { LIVE_STEP_S } from "./history.js";
import { CHARTS, filled, total } from "./series.js";

const EVERY_MS = 10_000;
const HEIGHT = 190;
const TABLE_ROWS = 30;
const RIPE = 4; // buckets with samples that make an hour worth looking at
const LEAST_S = { live: 60, stored: 600 }; // of time on the axis
const DAY_MINUTES = 1440;

let page;
let stored = { step_s: 60, buckets: [] }; // of the range chosen
let range = null; // minutes; 0: since the page was opened; null: not chosen yet
let failure = "";
let colors = {};
const drawn = new Map(); // chart -> { plot, shape, list }

function readColors() {
  const style = getComputedStyle(document.body);
  const names = ["text", "faint", "line", "card", "accuracy", "other", ...EXITS];
  colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export function renderCharts() {
  if (range === null) return;
  const step = range ? stored.step_s : LIVE_STEP_S;
  const list = filled(range ? stored.buckets : page.history.buckets(), step);
  const last = list.findLast(total);
  document.getElementById("charts").classList.toggle("empty", !last);
  const note = document.getElementById("charts-note");
  const nothing = range ? "No samples in this time." : "Drawn as samples are answered.";
  note.textContent = failure || (last ? "" : nothing);
  note.hidden = !note.textContent;
  if (!last) return;
  for (const [name, chart] of Object.entries(CHARTS)) {
    const figure = document.getElementById(`chart-${name}`);
    if (window.uPlot) draw(name, chart, list, step, figure);
    if (!figure.dataset.pointed) readout(figure, chart, last);
    const legend = chart.legend(list).map(([text, color, mark]) =>
      h("li", { "data-key": text }, h("span", { class: `swatch ${color} ${mark}`, "aria-hidden": "true" }), text));
    morph(figure.querySelector(".legend"), legend);
    if (figure.querySelector("details").open) table(figure, chart, list);
  }
}

function readout(figure, chart, bucket) {
  const said = total(bucket) ? chart.say(bucket) : "no samples";
  const text = `${clock(bucket.start_s, page.state.at_s)}: ${said}`;
  const place = figure.querySelector(".readout");
  if (place.textContent !== text) place.textContent = text;
}

function table(figure, chart, list) {
  const newest = list.filter(total).slice(-TABLE_ROWS).reverse();
  const heads = ["From", ...chart.heads(list)].map((head) => h("th", { scope: "col" }, head));
  morph(figure.querySelector("thead"), h("tr", {}, heads));
  const rows = newest.map((bucket) =>
    h(
      "tr",
      { "data-key": String(bucket.start_s) },
      h("th", { scope: "row" }, clock(bucket.start_s, page.state.at_s)),
      chart.row(bucket, list).map((text) => h("td", {}, text)),
    ),
  );
  morph(figure.querySelector("tbody"), rows);
}

// ------------------------------------------------------------------- drawing

function draw(name, chart, list, step, figure) {
  const lines = chart.lines(list, colors);
  const xs = list.map((bucket) => bucket.start_s);
  const data = [xs, ...lines.map(([, values]) => values)];
  const shape = JSON.stringify([lines.map(([line]) => line), colors, range]);
  let known = drawn.get(name);
  if (known?.shape !== shape) {
    known?.plot.destroy();
    const holder = figure.querySelector(".plot");
    known = { shape, list };
    drawn.set(name, known);
    known.plot = new window.uPlot(options(chart, lines, holder, figure, known), data, holder);
  }
  known.list = list;
  const end = range ? page.state.at_s : xs.at(-1) + step;
  const from = Math.min(xs[0], end - (range ? LEAST_S.stored : LEAST_S.live));
  known.plot.batch(() => {
    known.plot.setData(data, false);
    known.plot.setScale("x", { min: from, max: end });
  });
}

function options(chart, lines, holder, figure, known) {
  const axis = {
    stroke: colors.faint,
    font: "11px system-ui, sans-serif",
    grid: { stroke: colors.line, width: 1 },
    ticks: { show: false },
  };
  const { values, ...ticks } = chart.ticks;
  const instant = (s) => (range > DAY_MINUTES ? clock(s).slice(5, 10) : clock(s, s).slice(0, range ? 5 : 8));
  const areas = lines.some(([, , style]) => style.paths);
  return {
    width: Math.max(120, holder.clientWidth),
    height: HEIGHT,
    bands: chart.bands?.(colors),
    legend: { show: false },
    select: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, ...(areas && { points: { show: () => null } }) },
    scales: { x: { time: true }, y: chart.y(() => known.list) },
    series: [{}, ...lines.map(([label, , style]) => ({ label, ...style }))],
    axes: [
      { ...axis, space: 70, size: 26, values: (_, at) => at.map(instant) },
      { ...axis, ...ticks, size: 46, values: (_, at) => at.map((value) => (value === null ? null : values(value))) },
    ],
    hooks: { setCursor: [(plot) => point(plot, chart, figure, known.list)] },
  };
}

/** The sentence describes the bucket at the pointer, else the newest one. */
function point({ cursor }, chart, figure, list) {
  const bucket = cursor.left >= 0 ? list[cursor.idx] : undefined;
  if (bucket) {
    figure.dataset.pointed = "yes";
    readout(figure, chart, bucket);
  } else delete figure.dataset.pointed;
}

function fit() {
  for (const [name, { plot }] of drawn) {
    const width = document.querySelector(`#chart-${name} .plot`).clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }
}

// ------------------------------------------------------------------- choosing

async function load(asked = range) {
  const [before, { site }] = [range, page];
  if (!asked) return;
  try {
    const found = await read("/api/v1/series", { site, minutes: asked });
    if (before !== range || site !== page.site) return;
    stored = found;
    failure = "";
  } catch (error) {
    failure = `The history cannot be read: ${error.message}`;
  }
  renderCharts();
}

async function choose(minutes) {
  range = minutes;
  for (const input of document.querySelectorAll("input[name=range]")) {
    input.checked = Number(input.value) === minutes;
  }
  await load();
  renderCharts();
}

/** Clears the charts when another site is chosen. */
export function resetCharts() {
  stored = { step_s: 60, buckets: [] };
  load();
}

export async function startCharts(of) {
  page = of;
  readColors();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColors();
    renderCharts();
  });
  const observer = new ResizeObserver(fit);
  for (const holder of document.querySelectorAll(".plot")) observer.observe(holder);
  document.getElementById("charts").addEventListener("toggle", renderCharts, true);
  document.getElementById("ranges").addEventListener("change", ({ target }) => choose(Number(target.value)));
  setInterval(() => document.hidden || page.feed.stale || load(), EVERY_MS);
  // An hour, where the store knows enough of it to look at; otherwise what happens from now on.
  await load(60);
  if (range === null) await choose(stored.buckets.filter(total).length < RIPE ? 0 : 60);
}
