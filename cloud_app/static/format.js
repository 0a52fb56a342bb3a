// Numbers as people read them. `null` and `undefined` are unknown values.

export const NONE = "–";
const NBSP = "\u00a0"; // keeps a number and its unit on one line

const nothing = (value) => value === null || value === undefined || Number.isNaN(value);
const grouped = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** 1,234; from a million on 1.23 M. */
export function count(value) {
  if (nothing(value)) return NONE;
  if (value < 1e6) return grouped(Math.round(value), 0);
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6]]) {
    if (value >= size) return `${grouped(value / size, 2)}${NBSP}${unit}`;
  }
}

/** A share of one. Only all is 100 %, only none is 0 %: rounding hides neither the first nor the last. */
export function percent(share, digits = 1) {
  if (nothing(share)) return NONE;
  const step = 10 ** -digits;
  const value = share * 100;
  if (value > 0 && value < step / 2) return `<${grouped(step, digits)}${NBSP}%`;
  if (value < 100 && value >= 100 - step / 2) return `>${grouped(100 - step, digits)}${NBSP}%`;
  return `${grouped(value, digits)}${NBSP}%`;
}

/** Both ends of an interval of shares. */
export function interval(bounds) {
  if (nothing(bounds)) return NONE;
  return `${grouped(bounds[0] * 100, 1)} to ${grouped(bounds[1] * 100, 1)}${NBSP}%`;
}

/** Decimal units, by which links are billed. */
export function bytes(value) {
  if (nothing(value)) return NONE;
  if (value === 0) return `0${NBSP}B`;
  if (value < 999.5) return `${grouped(value, value < 99.95 ? 1 : 0)}${NBSP}B`;
  const units = [["kB", 1e3], ["MB", 1e6], ["GB", 1e9], ["TB", 1e12]];
  const [unit, size] = units.find(([, of]) => value / of < 999.5) ?? units.at(-1);
  return `${grouped(value / size, value / size < 99.95 ? 1 : 0)}${NBSP}${unit}`;
}

/** How often the smaller one goes into the greater one: "282×". */
export function times(greater, smaller) {
  if (nothing(greater) || !smaller) return NONE;
  const ratio = greater / smaller;
  return `${grouped(ratio, ratio < 10 ? 1 : 0)}×`;
}

/** A latency. Clocks need not agree, so that it may be negative. */
export function duration(seconds) {
  if (nothing(seconds)) return NONE;
  const ms = seconds * 1000;
  if (Math.abs(ms) < 999.5) return `${grouped(ms, Math.abs(ms) < 99.95 ? 1 : 0)}${NBSP}ms`;
  return `${grouped(seconds, Math.abs(seconds) < 99.95 ? 1 : 0)}${NBSP}s`;
}

/** How long something lasts, in one unit. */
export function span(seconds) {
  if (nothing(seconds)) return NONE;
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${grouped(Math.floor(seconds / size), 0)}${NBSP}${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))}${NBSP}s`;
}

/** An age; a clock that runs ahead of ours gives "now". */
export function ago(seconds) {
  if (nothing(seconds)) return "never";
  return seconds < 1 ? "now" : `${span(seconds)}${NBSP}ago`;
}

/** An instant, by the clock of the reader; with the date unless it is `now`'s. */
export function clock(atS, nowS) {
  if (nothing(atS)) return NONE;
  const at = new Date(atS * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (!nothing(nowS) && at.toDateString() === new Date(nowS * 1000).toDateString()) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** The name of a class; its number where the bundle has no names. */
export function className(label, labels) {
  if (nothing(label)) return NONE;
  return label < 0 ? "nothing" : (labels[label] ?? `class ${label}`);
}

/** "a", "a and b", "a, b and c". */
export function list(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** "1 camera", "6 cameras". */
export function many(value, word, words = `${word}s`) {
  return `${count(value)} ${value === 1 ? word : words}`;
}

/** The 95 % interval by Wilson of `hits` among `all`; null without any. */
export function wilson(hits, all) {
  if (!all) return null;
  const z = 1.959964;
  const share = hits / all;
  const below = 1 + (z * z) / all;
  const middle = share + (z * z) / (2 * all);
  const reach = z * Math.sqrt((share * (1 - share)) / all + (z * z) / (4 * all * all));
  return [Math.max(0, (middle - reach) / below), Math.min(1, (middle + reach) / below)];
}
