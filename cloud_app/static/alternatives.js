// Other plans that no plan beats in everything: a plot of two of their figures, and a table of all.

import { h } from "./dom.js";
import { bytes, count, duration, percent } from "./format.js";

const PADDING = 0.08; // of the plot, between its border and the outermost marks
const FORMATS = { s: duration, share: (value) => percent(value, 2), bytes, count };
const FEW = 2; // alternatives that are worth a plot

/** The first two axes are drawn, the third one is the size of the marks. */
export function renderAlternatives({ alternatives }) {
  if (!alternatives || alternatives.points.length < FEW || alternatives.axes.length < 2) return null;
  const { title, axes, points } = alternatives;
  return h(
    "details",
    { class: "alternatives", "data-key": "alternatives" },
    h("summary", {}, title),
    plot(axes, points),
    legend(axes),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, table` }, table(axes, points)),
  );
}

const show = (axis, value) => (FORMATS[axis.unit] ?? count)(value);

/** Where a value is between the least and the greatest of its axis: 0 to 1. */
function place(points, at) {
  const values = points.map((point) => point.values[at]);
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  return (value) => (greatest > least ? PADDING + ((1 - 2 * PADDING) * (value - least)) / (greatest - least) : 0.5);
}

function plot(axes, points) {
  const [x, y, size] = axes.map((_, at) => place(points, at));
  const [low, high] = [0, 1].map((at) => {
    const sorted = points.map((point) => point.values[at]).sort((a, b) => a - b);
    return [sorted[0], sorted.at(-1)];
  });
  const marks = points.map(({ values, current }, number) => {
    const side = size ? 8 + Math.round(10 * size(values[2])) : 10;
    const at = { x: `${100 * x(values[0])}%`, y: `${100 * (1 - y(values[1]))}%` };
    return [
      h("rect", { ...at, width: side, height: side, class: current && "current" }),
      h("text", { ...at, class: x(values[0]) > 0.5 && "left" }, String(number + 1)),
    ];
  });
  return h(
    "div",
    { class: "plot", "aria-hidden": "true" },
    h("span", { class: "y" }, h("b", {}, axes[1].name), h("span", {}, show(axes[1], high[1])), h("span", {}, show(axes[1], high[0]))),
    h("svg", {}, marks.map(([mark]) => mark), marks.map(([, number]) => number)),
    h("span", { class: "x" }, h("span", {}, show(axes[0], low[0])), h("b", {}, axes[0].name), h("span", {}, show(axes[0], low[1]))),
  );
}

function legend(axes) {
  return h(
    "p",
    { class: "note", "aria-hidden": "true" },
    h("span", { class: "swatch current" }),
    "in use",
    axes[2] && `; the larger a mark, the more ${axes[2].name}`,
  );
}

function table(axes, points) {
  const heads = [...axes.map((axis) => axis.name), "Plan"].map((head) => h("th", { scope: "col" }, head));
  const rows = points.map(({ label, values, current }, number) =>
    h(
      "tr",
      { class: current && "current" },
      h("th", { scope: "row" }, String(number + 1)),
      axes.map((axis, at) => h("td", {}, show(axis, values[at]))),
      h("td", { class: "which" }, label, current && h("b", {}, " (in use)")),
    ),
  );
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "No."), heads)), h("tbody", {}, rows));
}
