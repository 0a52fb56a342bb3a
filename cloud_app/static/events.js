// What happened to nodes, newest first.

import { h, morph } from "./dom.js";
import { ago, clock } from "./format.js";

const TONES = [
  [/died|lost|gone|failed|fell back|cannot use/, "bad"],
  [/dropped|stopped|late|drift/, "warn"],
  [/joined|back|started/, "good"],
];
const toneOf = ({ what }) => TONES.find(([words]) => words.test(what))?.[1] ?? "wait";

export function renderEvents(state, nowS) {
  const several = state.sites.length > 1;
  document.getElementById("events").classList.toggle("empty", state.events.length === 0);
  morph(
    document.getElementById("event-rows"),
    state.events.map((event) =>
      h(
        "li",
        { "data-key": `${event.at_s} ${event.site} ${event.node} ${event.what}` },
        h("span", { class: `dot ${toneOf(event)}`, "aria-hidden": "true" }),
        h("span", {}, h("b", {}, event.node), ` ${event.what}`, several && h("small", {}, event.site)),
        h("time", { title: clock(event.at_s, nowS) }, ago(nowS - event.at_s)),
      ),
    ),
  );
}
