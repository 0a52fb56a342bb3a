// What this page has seen since it was opened, second by second: finer than the minutes that the
// store keeps. Differences between the totals of two states, so that nothing is counted twice.

const KEPT = 180;
const GAP_S = 180; // the charts have no gaps longer than this
const STEP_S = 5;
const RATE_S = 10;
const LINK_S = 40; // nodes tell their counts every few seconds only

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.ticks = [];
  }

  /** Takes each new state. */
  push(state) {
    const { summary } = state;
    const last = this.ticks.at(-1);
    const gapS = last ? state.at_s - last.at_s : 0;
    // A step of the server's clock, or a page that slept.
    if (last && (summary.answered < last.answered || gapS < 0 || gapS > GAP_S)) this.clear();
    if (this.ticks.length && gapS < 0.5) return;
    this.ticks.push({
      at_s: state.at_s,
      answered: summary.answered,
      degraded: summary.quality.degraded,
      known: summary.known,
      correct: Math.round((summary.accuracy ?? 0) * summary.known),
      exits: Object.fromEntries(Object.entries(summary.exits).map(([name, of]) => [name, of.answered])),
      expected: state.expected_now?.accuracy ?? null,
      latencies: state.answers.map(({ answer }) => [answer.exit, answer.latency_s, answer.answered_at_s]),
      nodes: state.nodes.filter((node) => node.state === "online"),
    });
    if (this.ticks.length > KEPT) this.ticks.shift();
  }

  /** Samples per second before `nowS`; null without two states, or where the newest is old. */
  rate(nowS) {
    const [first, last] = this.ends(RATE_S, nowS);
    if (!first) return null;
    return (last.answered - first.answered) / (last.at_s - first.at_s);
  }

  ends(seconds, nowS) {
    const last = this.ticks.at(-1);
    if (last && nowS - last.at_s > seconds) return [null, null];
    const first = last && this.ticks.find((tick) => last.at_s - tick.at_s <= seconds);
    return first && first !== last ? [first, last] : [null, null];
  }

  /** What nodes send upward: the cameras together, and each node above them but the last. */
  links(nowS) {
    const [first, last] = this.ends(LINK_S, nowS);
    const nodes = this.ticks.at(-1)?.nodes ?? [];
    const above = nodes.some((node) => node.role === "edge") ? "edge" : "cloud";
    const cameras = nodes.filter((node) => node.role === "device");
    const together = cameras.length === 1 ? cameras[0].id : `${cameras.length} cameras`;
    const groups = [
      ...(cameras.length ? [{ key: "cameras", from: together, to: above, nodes: cameras }] : []),
      ...nodes
        .filter((node) => node.role === "edge")
        .map((node) => ({ key: `${node.site}/${node.id}`, from: node.id, to: "all others", nodes: [node] })),
    ];
    // Distinguishes the images of the same samples where all cameras are of one edge.
    const one = groups.length <= 2 && new Set(cameras.map((node) => node.site)).size <= 1;
    return groups.map(({ key, from, to, nodes: senders }) => ({
      key,
      from,
      to,
      cameras: one ? cameras.length : null,
      bytes_per_s: first ? sum(senders.map((node) => growth(first, node))) / (last.at_s - first.at_s) : null,
    }));
  }

  /** The same shape as the store's buckets. */
  buckets() {
    const found = new Map();
    for (let i = 1; i < this.ticks.length; i += 1) {
      const [before, tick] = [this.ticks[i - 1], this.ticks[i]];
      const start = Math.floor(before.at_s / STEP_S) * STEP_S;
      const bucket = found.get(start) ?? empty(start);
      found.set(start, bucket);
      for (const [name, answered] of Object.entries(tick.exits)) {
        // Negative where a better answer moved its sample to another exit.
        bucket.exits[name] = (bucket.exits[name] ?? 0) + answered - (before.exits[name] ?? 0);
      }
      bucket.degraded += tick.degraded - before.degraded;
      bucket.known += tick.known - before.known;
      bucket.correct += tick.correct - before.correct;
      bucket.expected_accuracy = tick.expected;
      for (const [exit, latency, at] of tick.latencies) {
        if (at > before.at_s) (bucket.latencies[exit] ??= []).push(latency);
      }
    }
    return [...found.values()].map((bucket) => ({
      ...bucket,
      exits: Object.fromEntries(Object.entries(bucket.exits).filter(([, answered]) => answered > 0)),
      // A label that was taken back may be one of an earlier bucket.
      known: Math.max(0, bucket.known),
      correct: Math.min(Math.max(0, bucket.correct), Math.max(0, bucket.known)),
      p50_s: Object.fromEntries(Object.entries(bucket.latencies).map(([exit, all]) => [exit, median(all)])),
      p99_s: {},
    }));
  }
}

export const LIVE_STEP_S = STEP_S;

const empty = (start) => ({
  start_s: start, exits: {}, degraded: 0, known: 0, correct: 0, expected_accuracy: null, latencies: {},
});

const sum = (values) => values.reduce((all, value) => all + value, 0);

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function growth(first, node) {
  const before = first.nodes.find(({ id, site }) => id === node.id && site === node.site);
  // A node that started again counts from zero.
  const more = (node.counts.bytes_sent ?? 0) - (before?.counts.bytes_sent ?? node.counts.bytes_sent ?? 0);
  return Math.max(0, more);
}
