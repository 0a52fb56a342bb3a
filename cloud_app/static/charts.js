// Exit shares, accuracy and latency over time. uPlot draws; each chart also is a sentence and a table.

import { read } from "./api.js";
import { h, morph } from "./dom.js";
import { clock, count, duration, interval, NONE, percent, wilson } from "./format.js";
import { EXITS, exitClass } from "./headline.js";
import { LIVE_STEP_S } from "./history.js";

const EVERY_MS = 10_000;
const HEIGHT = 190;
const TABLE_ROWS = 30;
const RIPE = 4; // buckets that make an hour worth looking at

let page;
let buckets = []; // the store's, of the range chosen
let range = null; // minutes; 0: since the page was opened; null: not chosen yet
let failure = "";
let colors = {};
const drawn = new Map(); // chart -> { plot, shape }

const shown = () => (range ? buckets : page.history.buckets());

function readColors() {
  const style = getComputedStyle(document.body);
  const names = ["text", "faint", "line", "card", "track", ...EXITS, "other", "accuracy"];
  colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const exitsOf = (list) =>
  EXITS.filter((exit) => list.some((bucket) => bucket.exits[exit])).concat(
    [...new Set(list.flatMap((bucket) => Object.keys(bucket.exits)))].filter((exit) => !EXITS.includes(exit)).sort(),
  );
const total = (bucket) => Object.values(bucket.exits).reduce((all, one) => all + one, 0);

/** The next of 1, 2, 5, 10, … above a number, or below it. */
function step125(value, up) {
  const decade = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 5, 10].map((step) => step * decade);
  return up ? steps.find((step) => step >= value) : steps.findLast((step) => step <= value);
}

/** A tint of a colour, for what lies behind a line. */
const faded = (color) => `color-mix(in srgb, ${color} 22%, transparent)`;

const CHARTS = {
  shares: {
    /** Shares one upon the other: the last series is the lowest, and is drawn over the others. */
    data(list) {
      const exits = exitsOf(list);
      const tops = exits.map((_, i) =>
        list.map((bucket) => {
          const all = total(bucket);
          if (!all) return null;
          return exits.slice(0, exits.length - i).reduce((sum, exit) => sum + (bucket.exits[exit] ?? 0), 0) / all;
        }),
      );
      return { names: [...exits].reverse(), series: tops };
    },
    style: (name) => ({
      stroke: colors.card, width: 1, fill: colors[exitClass(name)], points: { show: false },
      paths: window.uPlot.paths.bars({ size: [1, Infinity], align: 1 }),
    }),
    range: () => [0, 1],
    axis: (value) => `${Math.round(value * 100)}%`,
    heads: (list) => ["Samples", ...exitsOf(list)],
    row: (bucket, list) => [count(total(bucket)), ...exitsOf(list).map((exit) => (total(bucket) ? percent((bucket.exits[exit] ?? 0) / total(bucket), 0) : NONE))],
    legend: (list) => exitsOf(list).map((exit) => [exit, exitClass(exit), ""]),
    say: (bucket) => (total(bucket) ? EXITS.filter((exit) => bucket.exits[exit]).map((exit) => `${exit} ${percent(bucket.exits[exit] / total(bucket), 0)}`).join(", ") : "no samples"),
  },
  accuracy: {
    data(list) {
      const bounds = list.map((bucket) => wilson(bucket.correct, bucket.known));
      return {
        names: ["upper", "lower", "expected", "measured"],
        series: [
          bounds.map((pair) => pair?.[1] ?? null),
          bounds.map((pair) => pair?.[0] ?? null),
          list.map((bucket) => bucket.expected_accuracy ?? null),
          list.map((bucket) => (bucket.known ? bucket.correct / bucket.known : null)),
        ],
        bands: [{ series: [1, 2], fill: faded(colors.accuracy) }],
      };
    },
    style: (name) => ({
      upper: { width: 0, points: { show: false } },
      lower: { width: 0, points: { show: false } },
      expected: { stroke: colors.text, width: 1.5, dash: [5, 4], points: { show: false } },
      measured: { stroke: colors.accuracy, width: 2, points: { size: 5, fill: colors.accuracy } },
    })[name],
    /** As low as the lines go, but for those of few samples, which would squeeze all else. */
    range: (list) => {
      const most = Math.max(...list.map((bucket) => bucket.known));
      const low = Math.min(...list.flatMap(({ known, correct, expected_accuracy: expected }) => [known > most / 4 ? correct / known : 1, expected ?? 1]));
      return [Math.max(0, Math.min(0.9, Math.floor(low * 20 - 0.5) / 20)), 1];
    },
    axis: (value) => `${Math.round(value * 100)}%`,
    heads: () => ["Measured", "95 % interval", "Known", "Expected"],
    row: (bucket) => [bucket.known ? percent(bucket.correct / bucket.known) : NONE, interval(wilson(bucket.correct, bucket.known)), count(bucket.known), percent(bucket.expected_accuracy)],
    legend: () => [["measured (95 %)", "accuracy", "line"], ["expected", "", "dashed"]],
    say: (bucket) => `${bucket.known ? `measured ${percent(bucket.correct / bucket.known)} of ${count(bucket.known)}` : "none labelled"}, expected ${percent(bucket.expected_accuracy)}`,
  },
  latency: {
    data(list) {
      const exits = exitsOf(list);
      const of = (which) => exits.map((exit) => list.map((bucket) => bucket[which][exit] || null));
      return {
        names: [...exits.map((exit) => `${exit} p50`), ...exits.map((exit) => `${exit} p99`)],
        series: [...of("p50_s"), ...of("p99_s")],
      };
    },
    style: (name) => {
      const [exit, which] = name.split(" ");
      const slow = which === "p99";
      return { stroke: colors[exitClass(exit)], width: slow ? 1.25 : 2, dash: slow ? [2, 3] : undefined, points: slow ? { show: false } : { size: 4, fill: colors[exitClass(exit)] } };
    },
    logarithmic: true,
    axis: (value) => duration(value).replace("\u00a0", " ").replace(".0 ", " "),
    heads: (list) => exitsOf(list).flatMap((exit) => [`${exit} p50`, `${exit} p99`]),
    row: (bucket, list) => exitsOf(list).flatMap((exit) => [duration(bucket.p50_s[exit]), duration(bucket.p99_s[exit])]),
    legend: (list) => [...exitsOf(list).map((exit) => [`${exit} p50`, exitClass(exit), "line"]), ...(range ? [["p99", "", "dotted"]] : [])],
    say: (bucket) => EXITS.filter((exit) => bucket.p50_s[exit]).map((exit) => `${exit} ${duration(bucket.p50_s[exit])}${bucket.p99_s[exit] ? `, p99 ${duration(bucket.p99_s[exit])}` : ""}`).join("; ") || "no samples",
  },
};

/** The steps from the first to the last, those without samples too: a gap is shown as a gap. */
function filled(list, stepS) {
  if (!list.length) return [];
  const by = new Map(list.map((bucket) => [bucket.start_s, bucket]));
  const out = [];
  for (let at = list[0].start_s; at <= list.at(-1).start_s; at += stepS) {
    out.push(by.get(at) ?? { start_s: at, exits: {}, known: 0, correct: 0, expected_accuracy: null, p50_s: {}, p99_s: {} });
  }
  return out;
}

function stepOf(list) {
  if (!range) return LIVE_STEP_S;
  const gaps = list.slice(1).map((bucket, i) => bucket.start_s - list[i].start_s);
  return gaps.length ? Math.min(...gaps) : 60;
}

export function renderCharts() {
  if (range === null) return;
  const raw = shown();
  const step = stepOf(raw);
  const list = filled(raw, step);
  const enough = list.some((bucket) => total(bucket) > 0);
  document.getElementById("charts").classList.toggle("empty", !enough);
  const note = document.getElementById("charts-note");
  note.textContent = failure || (enough ? "" : range ? "No samples in this time." : "Drawn as samples are answered.");
  note.hidden = !note.textContent;
  for (const [name, chart] of Object.entries(CHARTS)) {
    const figure = document.getElementById(`chart-${name}`);
    if (!enough) continue;
    if (window.uPlot) draw(name, chart, list, step, figure);
    const last = list.findLast((bucket) => total(bucket) > 0);
    readout(figure, chart, last);
    morph(figure.querySelector(".legend"), chart.legend(list).map(([text, color, mark]) =>
      h("li", { "data-key": text }, h("span", { class: `swatch ${color} ${mark}`, "aria-hidden": "true" }), text)));
    table(figure, chart, list);
  }
}

function readout(figure, chart, bucket) {
  const text = `${clock(bucket.start_s, page.state.at_s)}: ${chart.say(bucket)}`;
  const place = figure.querySelector(".readout");
  if (!figure.dataset.pointed && place.textContent !== text) place.textContent = text;
}

function table(figure, chart, list) {
  const details = figure.querySelector("details");
  if (!details.open) return; // made when it is opened
  const newest = list.filter((bucket) => total(bucket) > 0).slice(-TABLE_ROWS).reverse();
  morph(details.querySelector("thead"), h("tr", {}, ["From", ...chart.heads(list)].map((head) => h("th", { scope: "col" }, head))));
  morph(details.querySelector("tbody"), newest.map((bucket) =>
    h("tr", { "data-key": String(bucket.start_s) },
      h("th", { scope: "row" }, clock(bucket.start_s, page.state.at_s)),
      chart.row(bucket, list).map((text) => h("td", {}, text)))));
}

function draw(name, chart, list, step, figure) {
  const holder = figure.querySelector(".plot");
  const { names, series, bands } = chart.data(list);
  const end = range ? page.state.at_s : list.at(-1).start_s + step;
  const xs = list.map((bucket) => bucket.start_s);
  const data = [xs, ...series];
  const least = range ? Math.min(range * 60, 600) : 60;
  const from = Math.min(xs[0], end - least);
  const shape = JSON.stringify([names, Object.values(colors), range]);
  let known = drawn.get(name);
  if (known?.shape !== shape) {
    known?.plot.destroy();
    const plot = new window.uPlot(options(name, chart, names, bands, holder, figure), data, holder);
    known = { plot, shape };
    drawn.set(name, known);
  }
  known.list = list;
  known.plot.batch(() => {
    known.plot.setData(data, false);
    known.plot.setScale("x", { min: from, max: end });
  });
}

function options(name, chart, names, bands, holder, figure) {
  const axis = { stroke: colors.faint, font: "11px system-ui, sans-serif", grid: { stroke: colors.line, width: 1 }, ticks: { show: false } };
  const y = chart.logarithmic
    ? { distr: 3, range: (_, low, high) => (low > 0 && high > 0 ? [step125(low, false), step125(high * 1.01, true)] : [0.001, 1]) }
    : { range: () => chart.range(drawn.get(name)?.list ?? []) };
  return {
    width: Math.max(120, holder.clientWidth),
    height: HEIGHT,
    bands,
    legend: { show: false },
    cursor: { drag: { x: false, y: false, setScale: false }, y: false, ...(name === "shares" && { points: { show: () => null } }) },
    select: { show: false },
    scales: { x: { time: true }, y },
    series: [{}, ...names.map((series) => ({ label: series, ...chart.style(series) }))],
    axes: [
      { ...axis, space: 70, size: 26, values: (_, at) => at.map((s) => (range > 1440 ? clock(s).slice(5, 10) : clock(s, s).slice(0, range ? 5 : 8))) },
      { ...axis, size: 46, ...(chart.logarithmic && { filter: (_, at) => at.map((value) => (/^[125](\.0+)?e/.test(value.toExponential(3)) ? value : null)) }), ...(!chart.logarithmic && { incrs: [0.01, 0.02, 0.05, 0.1, 0.25] }), values: (_, at) => at.map((value) => (value === null ? null : chart.axis(value))) },
    ],
    hooks: {
      setCursor: [
        (plot) => {
          const { idx } = plot.cursor;
          const list = drawn.get(name)?.list;
          const bucket = idx === null || idx === undefined ? null : list?.[idx];
          if (bucket && plot.cursor.left >= 0) {
            delete figure.dataset.pointed;
            readout(figure, chart, bucket);
            figure.dataset.pointed = "yes";
          } else delete figure.dataset.pointed;
        },
      ],
    },
  };
}

async function load() {
  const asked = range;
  if (!asked) return;
  try {
    const found = await read("/api/v1/series", { site: page.site, minutes: asked });
    if (asked !== range) return;
    buckets = found.buckets ?? found;
    failure = "";
  } catch (error) {
    failure = `The history cannot be read: ${error.message}`;
  }
  renderCharts();
}

async function choose(minutes) {
  range = minutes;
  for (const input of document.querySelectorAll("input[name=range]")) input.checked = Number(input.value) === minutes;
  if (minutes) await load();
  renderCharts();
}

/** Of another site all is other. */
export function resetCharts() {
  buckets = [];
  load();
}

export async function startCharts(of) {
  page = of;
  readColors();
  const again = () => {
    readColors();
    renderCharts();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  const observer = new ResizeObserver(() => {
    for (const [name, { plot }] of drawn) {
      const width = document.querySelector(`#chart-${name} .plot`).clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  });
  for (const holder of document.querySelectorAll(".plot")) observer.observe(holder);
  document.getElementById("charts").addEventListener("toggle", renderCharts, true);
  document.getElementById("ranges").addEventListener("change", ({ target }) => choose(Number(target.value)));
  setInterval(() => document.hidden || page.feed.stale || load(), EVERY_MS);
  // An hour, where the store knows enough of it to look at; otherwise what happens from now on.
  range = 60;
  await load();
  if (range === 60 && buckets.filter(total).length < RIPE) await choose(0);
}

