// The page: shows the state that came with it at once, and then each fresher one.

import { send, url } from "./api.js";
import { renderCharts, resetCharts, startCharts } from "./charts.js";
import { h, morph } from "./dom.js";
import { renderDrift } from "./drift.js";
import { renderEvents } from "./events.js";
import { Feed } from "./feed.js";
import { clock } from "./format.js";
import { renderBytes, renderExits, renderHeadline } from "./headline.js";
import { History } from "./history.js";
import { listenToNodes, renderNodes } from "./nodes.js";
import { renderOffloads } from "./offload.js";
import { listenToSamples, renderSamples } from "./samples.js";
import { listenToThresholds, renderThresholds } from "./thresholds.js";
import { renderTrainings } from "./training.js";
import { renderVerdict } from "./verdict.js";

const TICK_MS = 1000; // ages grow while nothing comes, too
const SAID_MS = 8000;

const page = {
  history: new History(),
  feed: null,
  get state() {
    return page.feed.state;
  },
  get site() {
    return page.feed.site;
  },

  render() {
    const { state, feed, history } = page;
    const elapsedS = feed.ageS;
    const nowS = state.at_s + elapsedS;
    renderVerdict(state, feed, nowS);
    renderHeader(state);
    renderHeadline(state, nowS, history);
    renderExits(state);
    renderBytes(state, history);
    renderDrift(state);
    renderNodes(state, elapsedS);
    renderOffloads(state, elapsedS);
    renderTrainings(state, elapsedS);
    renderSamples(state, nowS, feed.shownRound);
    renderEvents(state, nowS);
    renderThresholds(state);
  },

  /** Shows the result of an action of the reader. */
  say(text, tone = "good") {
    const place = document.getElementById("said");
    place.textContent = text;
    place.className = `said ${tone}`;
    clearTimeout(page.saidTimer);
    page.saidTimer = setTimeout(() => {
      place.textContent = "";
      place.className = "said";
    }, SAID_MS);
  },
};

function renderHeader(state) {
  document.getElementById("bundle").textContent = state.bundle.id ? `bundle ${state.bundle.id}` : "no bundle";
  const asOf = clock(state.at_s, Date.now() / 1000);
  document.getElementById("as-of").textContent = `ddnn ${state.version}, numbers of ${asOf}`;
  const several = state.sites.length > 1;
  document.getElementById("site-filter").hidden = !several;
  const option = (value, text) => h("option", { value, selected: value === page.site }, text);
  const sites = state.sites.map((site) => option(site, site));
  if (several) morph(document.getElementById("site"), option("", "all sites"), sites);
  document.getElementById("sign-out").hidden = !state.signed_in;
  document.getElementById("demo").hidden = !state.demo;
  document.getElementById("open").hidden = state.signed_in;
}

document.getElementById("site").addEventListener("change", ({ target }) => {
  page.history.clear();
  page.feed.choose(target.value);
  resetCharts();
  page.render();
});

document.getElementById("sign-out").addEventListener("click", async () => {
  try {
    await send("/logout", {}, page.state.csrf);
  } catch (error) {
    if (error.message === "The server does not answer.") return page.say(error.message, "bad");
  }
  location.assign(url("/login"));
});

/** While the database is away, keeps what was read last; `stored_at_s` is when that was. */
function keep(state, before) {
  if (state.summary || !before) return { ...state, stored_at_s: state.summary ? state.at_s : null };
  const { summary, answers, events, stored_at_s } = before;
  const quiet_s = before.quiet_s === null ? null : before.quiet_s + (state.at_s - before.at_s);
  return { ...state, summary, answers, events, stored_at_s, quiet_s };
}

page.feed = new Feed(JSON.parse(document.getElementById("state").textContent), keep, (state) => {
  if (state.stored_at_s === state.at_s) page.history.push(state);
  page.render();
  renderCharts();
});
if (page.state.summary) page.history.push(page.state);
listenToNodes(page);
listenToSamples(page);
listenToThresholds(page);
page.render();
startCharts(page);
setInterval(() => page.feed.ageS * 1000 > TICK_MS && page.render(), TICK_MS / 4);
