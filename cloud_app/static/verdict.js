// The state of the site in sentences: its problems, else what it does.

import { url } from "./api.js";
import { h, morph } from "./dom.js";
import { askWhy, describeAlarms } from "./drift.js";
import { clock, list, many, percent, span } from "./format.js";

const QUIET_S = 15; // without a sample; a gate that sees no motion takes none
const REMEMBERED_S = 3;
let awaySince = null;

/** A start computed from a duration varies slightly; the first value is kept. */
function since(atS, forS) {
  const start = atS - forS;
  if (awaySince === null || Math.abs(awaySince - start) > REMEMBERED_S) awaySince = start;
  return awaySince;
}

/** What is wrong: [{ title, text, link }], the most important first. */
export function problems(state, feed) {
  const said = [];
  const now = state.at_s;
  const asOf = `The numbers are from ${clock(now, now)}.`;
  if (feed.ended) {
    said.push({ title: "Your session has ended.", text: asOf, link: [url("/login"), "Sign in again"] });
  } else if (feed.stale) {
    const why = feed.failure || "The server sends no fresh numbers.";
    said.push({ title: "Not live.", text: `${why} ${asOf}` });
  }
  if (!state.link.connected) {
    const { broker, for_s, reason } = state.link;
    said.push({
      title: `No connection to the broker ${broker} since ${clock(since(now, for_s), now)}.`,
      text: `The nodes are shown as of then. ${reason ? `Reason: ${reason}` : ""}`.trim(),
    });
  } else awaySince = null;
  if (state.database) {
    const of = state.stored_at_s;
    const before = of ? `The answers are shown as of ${clock(of, now)}.` : "No answers were read.";
    const stored = of === now ? "" : before;
    said.push({
      title: "The database is away.",
      text: `Answers are kept and written once it is back. ${stored} Reason: ${state.database}`,
    });
  }
  return said;
}

/** Where nothing is wrong with what is shown: how the site does. { tone, title, text } */
export function standing(state, nowS) {
  const { summary, nodes, expected_now: expected, bundle } = state;
  const gone = (role) => {
    const of = nodes.filter((node) => node.role === role);
    return of.length > 0 && of.every((node) => node.state !== "online");
  };
  const cameras = bundle.devices.length;
  const missing = expected?.missing ?? [];
  if (!summary?.answered) {
    const online = nodes.filter((node) => node.role === "device" && node.state === "online").length;
    return {
      tone: "wait",
      title: "No sample has been answered yet.",
      text: online
        ? `${many(online, "camera")} online; the first answer appears here by itself.`
        : "No camera is online. Start device_app where the cameras are, or look at the nodes below.",
    };
  }
  const quietS = (state.quiet_s ?? 0) + (nowS - state.at_s);
  const lost = nodes.filter((node) => node.wanted && node.state !== "online");
  if (quietS > QUIET_S) {
    const absent = missing.length ? missing : lost.map((node) => node.id);
    const names = absent.length > 8 ? `${absent.length} nodes` : list(absent);
    return {
      tone: absent.length ? "warn" : "wait",
      title: `No sample since ${clock(nowS - quietS, nowS)}.`,
      text: absent.length
        ? `Absent: ${names}.`
        : "Every camera is there; perhaps nothing moves before them.",
    };
  }
  const lostEdges = nodes.filter(
    (node) => node.role === "edge" && node.wanted && node.state !== "online",
  );
  const isOneSite = state.sites.length <= 1 || Boolean(expected?.members?.length || missing.length);
  if (gone("edge") || (isOneSite && lostEdges.some((node) => node.id === bundle.lead))) {
    return {
      tone: "warn",
      title: "The edge is gone; answers continue.",
      text: "One camera answers each sample from its own exit until the edge is back.",
    };
  }
  const worth = expected?.accuracy === null || expected?.accuracy === undefined
    ? ""
    : ` They are expected to be right in ${percent(expected.accuracy)} of the samples.`;
  if (missing.length) {
    return {
      tone: "warn",
      title: `${list(missing)} ${missing.length === 1 ? "is" : "are"} absent; answers continue.`,
      text: `${cameras - missing.length} of ${many(cameras, "camera")} answer together.${worth}`,
    };
  }
  if (isOneSite && lostEdges.length) {
    return {
      tone: "warn",
      title: `${list(lostEdges.map((node) => node.id))} ${lostEdges.length === 1 ? "is" : "are"} absent; answers continue.`,
      text: "What goes beyond the local exit is answered without its cameras.",
    };
  }
  const lacking = state.offloads.filter((of) => !of.state.enough).map((of) => of.state.title);
  if (lacking.length) {
    return {
      tone: "warn",
      title: `Too few workers compute ${list(lacking)}; answers continue.`,
      text: `The edge computes it itself, or answers from the deepest exit it has.${worth}`,
    };
  }
  const alarms = describeAlarms(state);
  if (alarms) {
    return {
      tone: "warn",
      title: `Otherwise than on validation data: ${alarms}.`,
      text: askWhy(state),
    };
  }
  if (!isOneSite && lost.length) {
    const names = lost.length > 4 ? `${lost.length} nodes` : list(lost.map((node) => `${node.site}/${node.id}`));
    return {
      tone: "warn",
      title: `${names} ${lost.length === 1 ? "is" : "are"} absent.`,
      text: "Choose a site above to see what it does without them.",
    };
  }
  const thinned = nodes.find((node) => node.state === "online" && node.gauges?.share_taken < 1);
  if (thinned) {
    return {
      tone: "warn",
      title: `The cameras take ${percent(thinned.gauges.share_taken)} of the ticks.`,
      text: `The site is offered more than it can do; ${many(thinned.counts?.samples_shed ?? 0, "sample")} shed so far.${worth}`,
    };
  }
  if (gone("cloud") && bundle.exits.includes("cloud")) {
    return {
      tone: "warn",
      title: "The cloud is gone; answers continue.",
      text: `The edge answers from the deepest exit it has.${worth}`,
    };
  }
  return {
    tone: "good",
    title: "All is well.",
    text: `${cameras === 1 ? "The camera answers" : `${cameras} cameras answer together`}.${worth}`,
  };
}

const ICONS = {
  good: "M4 10.5 8.5 15 16.5 5.5",
  warn: "M10 4v8M10 15.5v.5",
  bad: "M5 5l10 10M15 5 5 15",
  wait: "M10 5v5.5l3.5 2",
};

function statement({ tone, title, text, link }) {
  return h(
    "div",
    { class: `statement ${tone}`, "data-key": title },
    h("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, h("path", { d: ICONS[tone] })),
    h("p", {}, h("strong", {}, title), " ", text, link && [" ", h("a", { href: link[0] }, link[1])]),
  );
}

export function renderVerdict(state, feed, nowS) {
  const wrong = problems(state, feed).map((problem) => ({ tone: "bad", ...problem }));
  morph(document.getElementById("problems"), wrong.map(statement));
  morph(document.getElementById("standing"), wrong.length ? [] : [statement(standing(state, nowS))]);
  const age = document.getElementById("age");
  const kind = feed.stale ? "stale" : "live";
  age.className = `age ${kind}`;
  const words = feed.stale ? `stale, ${span(feed.ageS)} old` : `live, ${feed.ageS.toFixed(0)} s old`;
  if (age.textContent !== words) age.textContent = words;
  age.title = feed.way === "stream" ? "" : "The live stream is refused or silent; the page polls each second.";
  document.body.classList.toggle("stale", feed.stale);
  document.body.classList.toggle("nodes-unknown", !state.link.connected);
  const refused = feed.way === "poll" && !feed.stale;
  document.getElementById("way").hidden = !refused;
}
