// Reads the newest state: by server-sent events, or by polling each second where the stream is
// refused or silent. It never stops; without a session it polls rarely.

import { read, SessionEnded, url } from "./api.js";

export const STALE_MS = 3500; // a missed state or two
const SILENT_MS = 3000; // a stream that says nothing for so long is not waited for
const POLL_MS = 1000;
const AGAIN_MS = 20_000; // until a refused stream is tried again
const SIGNED_OUT_MS = 10_000;

export class Feed {
  /**
   * `first` is the state that came with the page; `onState(state)` is called with each one, after
   * `keep(state, before)` has added what is known from before.
   */
  constructor(first, keep, onState) {
    this.state = keep(first, null);
    this.keep = keep;
    this.onState = onState;
    this.site = "";
    this.failure = ""; // why there is no fresh state, as a sentence
    this.ended = false; // the session
    this.way = "stream"; // or "poll"
    // By the clock that never jumps; it starts with the request for the page.
    this.shownAt = performance.getEntriesByType("navigation")[0].responseStart;
    this.heardAt = 0; // the stream
    this.source = null;
    this.shownRound = 0;
    this.round = 0; // of requests; what an older one brings is not looked at
    this.connect();
    setInterval(() => this.watch(), 250);
    document.addEventListener("visibilitychange", () => document.hidden || this.watch());
  }

  /** Seconds since the shown state was read. */
  get ageS() {
    return (performance.now() - this.shownAt) / 1000;
  }

  get stale() {
    return this.ended || this.ageS * 1000 > STALE_MS;
  }

  choose(site) {
    this.site = site;
    this.round += 1;
    this.connect();
    if (this.way === "poll") this.poll();
  }

  connect() {
    this.source?.close();
    const round = this.round;
    const source = new EventSource(url("/api/v1/stream", { site: this.site }));
    this.source = source;
    this.triedAt = performance.now();
    source.addEventListener("state", (event) => {
      if (source !== this.source) return;
      this.way = "stream";
      this.heardAt = performance.now();
      this.take(JSON.parse(event.data), performance.now(), round);
    });
    // A browser retries a broken stream by itself, and closes one that is refused.
    source.addEventListener("error", () => {
      if (source === this.source && source.readyState === EventSource.CLOSED) this.fallBack();
    });
  }

  fallBack() {
    this.source?.close();
    this.source = null;
    this.way = "poll";
    if (!this.polling) this.poll();
  }

  watch() {
    const now = performance.now();
    if (this.source && now - Math.max(this.heardAt, this.triedAt) > SILENT_MS) this.fallBack();
    const every = this.ended ? SIGNED_OUT_MS : POLL_MS;
    if (this.way === "poll" && !this.polling && now - this.askedAt >= every) this.poll();
    if (this.way === "poll" && !this.source && !this.failure && now - this.triedAt > AGAIN_MS) this.connect();
  }

  async poll() {
    const round = this.round;
    const askedAt = performance.now();
    this.askedAt = askedAt;
    this.polling = true;
    try {
      this.take(await read("/api/v1/state", { site: this.site }), askedAt, round);
    } catch (error) {
      this.ended = error instanceof SessionEnded;
      this.failure = error.message;
    }
    this.polling = false;
  }

  take(state, at, round) {
    if (round !== this.round || at < this.shownAt) return;
    this.state = this.keep(state, round === this.shownRound ? this.state : null);
    this.shownRound = round;
    this.shownAt = at;
    this.failure = "";
    this.ended = false;
    this.onState(this.state);
  }
}
