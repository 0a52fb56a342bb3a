// What the charts show of the buckets of time: lines or areas, a table, a legend and a sentence.

import { count, duration, interval, NONE, percent, wilson } from "./format.js";
import { EXITS, exitClass } from "./headline.js";

export const total = (bucket) => Object.values(bucket.exits).reduce((all, one) => all + one, 0);
const shareOf = (bucket, exit) => (total(bucket) ? (bucket.exits[exit] ?? 0) / total(bucket) : null);
const measured = (bucket) => (bucket.known ? bucket.correct / bucket.known : null);
const whole = (value) => `${Math.round(value * 100)}%`;

/** Those that answered something, from shallow to deep; unknown names come last. */
function exitsOf(list) {
  const found = new Set(list.flatMap((bucket) => Object.keys(bucket.exits)).filter(Boolean));
  const answered = [...found].filter((exit) => list.some((bucket) => bucket.exits[exit]));
  const rank = (exit) => (EXITS.includes(exit) ? EXITS.indexOf(exit) : EXITS.length);
  return answered.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

/** The next of 1, 2, 5, 10, … above a number, or below it. */
function step125(value, up) {
  const decade = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 5, 10].map((step) => step * decade);
  return up ? steps.find((step) => step >= value) : steps.findLast((step) => step <= value);
}
const is125 = (value) => /^[125]\.000e/.test(value.toExponential(3));

/** A tint of a colour, for what lies behind a line. */
const faded = (color) => `color-mix(in srgb, ${color} 22%, transparent)`;
const hidden = { width: 0, points: { show: false } };

/**
 * Each chart: `lines(list)` are [name, values, style], drawn in this order; `bands` fill between
 * two of them; `y` is uPlot's scale and `ticks` its axis. `heads` and `row` are the table,
 * `legend` is [words, colour, mark], `say` the sentence of one bucket. `c` are the page's colours.
 */
export const CHARTS = {
  shares: {
    /** Shares one upon the other: each area reaches to the ground, the next is drawn over it. */
    lines(list, c) {
      const exits = exitsOf(list);
      const upTo = (bucket, n) => exits.slice(0, n).reduce((sum, exit) => sum + shareOf(bucket, exit), 0);
      return exits.map((_, i) => i + 1).reverse().map((n) => [
        exits[n - 1],
        list.map((bucket) => (total(bucket) ? upTo(bucket, n) : null)),
        {
          stroke: c.card,
          width: 1,
          fill: c[exitClass(exits[n - 1])],
          points: { show: false },
          paths: window.uPlot.paths.bars({ size: [1, Infinity], align: 1 }),
        },
      ]);
    },
    y: () => ({ range: () => [0, 1] }),
    ticks: { values: whole },
    heads: (list) => ["Samples", ...exitsOf(list)],
    row: (bucket, list) => [
      count(total(bucket)),
      ...exitsOf(list).map((exit) => percent(shareOf(bucket, exit), 0)),
    ],
    legend: (list) => exitsOf(list).map((exit) => [exit, exitClass(exit), ""]),
    say: (bucket) =>
      exitsOf([bucket]).map((exit) => `${exit} ${percent(shareOf(bucket, exit), 0)}`).join(", "),
  },

  accuracy: {
    lines(list, c) {
      const bounds = list.map((bucket) => wilson(bucket.correct, bucket.known));
      const expected = { stroke: c.text, width: 1.5, dash: [5, 4], points: { show: false } };
      const line = { stroke: c.accuracy, width: 2, points: { size: 5, fill: c.accuracy } };
      return [
        ["upper", bounds.map((pair) => pair?.[1] ?? null), hidden],
        ["lower", bounds.map((pair) => pair?.[0] ?? null), hidden],
        ["expected", list.map((bucket) => bucket.expected_accuracy ?? null), expected],
        ["measured", list.map(measured), line],
      ];
    },
    bands: (c) => [{ series: [1, 2], fill: faded(c.accuracy) }],
    /** The lowest value, except values of few samples, which would compress the scale. */
    y: (listNow) => ({
      range() {
        const list = listNow();
        const most = Math.max(...list.map((bucket) => bucket.known));
        const worth = list.map((bucket) => (bucket.known > most / 4 ? measured(bucket) : 1));
        const low = Math.min(...worth, ...list.map((bucket) => bucket.expected_accuracy ?? 1));
        return [Math.max(0, Math.min(0.9, Math.floor(low * 20 - 0.5) / 20)), 1];
      },
    }),
    ticks: { values: whole, incrs: [0.01, 0.02, 0.05, 0.1, 0.25] },
    heads: () => ["Measured", "95 % interval", "Known", "Expected"],
    row: (bucket) => [
      percent(measured(bucket)),
      interval(wilson(bucket.correct, bucket.known)),
      count(bucket.known),
      percent(bucket.expected_accuracy),
    ],
    legend: () => [["measured (95 %)", "accuracy", "line"], ["expected", "", "dashed"]],
    say(bucket) {
      const known = `measured ${percent(measured(bucket))} of ${count(bucket.known)}`;
      return `${bucket.known ? known : "none labelled"}, expected ${percent(bucket.expected_accuracy)}`;
    },
  },

  latency: {
    lines(list, c) {
      const style = (exit, slow) => {
        const stroke = c[exitClass(exit)];
        if (slow) return { stroke, width: 1.25, dash: [2, 3], points: { show: false } };
        return { stroke, width: 2, points: { size: 4, fill: stroke } };
      };
      const all = ["p50", "p99"].flatMap((which) =>
        exitsOf(list).map((exit) => [
          `${exit} ${which}`,
          list.map((bucket) => bucket[`${which}_s`][exit] || null), // zero has no logarithm
          style(exit, which === "p99"),
        ]),
      );
      // A line without a point would stretch the axis.
      return all.filter(([, values]) => values.some((value) => value !== null));
    },
    y: () => ({
      distr: 3, // logarithmic
      range: (_, low, high) => (low > 0 ? [step125(low, false), step125(high * 1.01, true)] : [0.001, 1]),
    }),
    ticks: {
      values: (value) => duration(value).replace("\u00a0", " ").replace(".0 ", " "),
      filter: (_, at) => at.map((value) => (is125(value) ? value : null)),
    },
    heads: (list) => exitsOf(list).flatMap((exit) => [`${exit} p50`, `${exit} p99`]),
    row: (bucket, list) =>
      exitsOf(list).flatMap((exit) => [duration(bucket.p50_s[exit]), duration(bucket.p99_s[exit])]),
    legend: (list) => [
      ...exitsOf(list).map((exit) => [`${exit} p50`, exitClass(exit), "line"]),
      ...(list.some((bucket) => Object.keys(bucket.p99_s).length) ? [["p99", "", "dotted"]] : []),
    ],
    say(bucket) {
      const of = (exit) => {
        const slow = bucket.p99_s[exit] ? `, p99 ${duration(bucket.p99_s[exit])}` : "";
        return `${exit} ${duration(bucket.p50_s[exit])}${slow}`;
      };
      return exitsOf([bucket]).map(of).join("; ") || NONE;
    },
  },
};

/** All steps from the first to the last: where nothing was answered there is a gap. */
export function filled(list, stepS) {
  if (!list.length) return [];
  const by = new Map(list.map((bucket) => [bucket.start_s, bucket]));
  const none = { exits: {}, known: 0, correct: 0, expected_accuracy: null, p50_s: {}, p99_s: {} };
  const out = [];
  for (let at = list[0].start_s; at <= list.at(-1).start_s; at += stepS) {
    out.push(by.get(at) ?? { ...none, start_s: at });
  }
  return out;
}
