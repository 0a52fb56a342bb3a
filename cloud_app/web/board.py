"""What the page shows, made once a second however many look, and given to them as a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from cloud_app.store import NodeEvent, Record, Store, Summary
from cloud_app.views import BundleView, LinkView, LiveSite, NodeView
from cloud_app.web.messages import (
    Bundle,
    DemoState,
    ExpectedNow,
    InUse,
    Node,
    Now,
    Offload,
    Viewer,
)
from ddnn.errors import DdnnError, LinkError
from ddnn.protocol.messages import MAX_COUNT
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.service import ddnn_version

EVERY_S = 1.0
PATIENCE_S = 1.5  # for the database; a page without its numbers is better than none
NEWEST = 20  # answers and events shown
MOST_OFFLOADS = 16  # shown
MOST_WORKERS = 128  # shown of each
EVENTS_LOOKED_AT = 200  # to find those of one site
MOST_STREAMS = 32  # each holds a thread


class StoredFigures(NamedTuple):
    """What comes from the store."""

    summary: Summary
    answers: list[Record]
    events: list[NodeEvent]
    sites: list[str]


class Reader:
    """Reads the store in a thread of its own: a database that hangs must not hang the page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1, "page-store")
        self._pending: dict[str | None, Future[StoredFigures]] = {}

    def read(self, site: str | None) -> StoredFigures:
        """LinkError where the database is away, or does not answer in time. One thread calls."""
        late = self._pending.pop(site, None)
        self._pending = {of: f for of, f in self._pending.items() if not f.done()}
        future = late or self._pool.submit(self._read, site)
        try:
            # While it hangs it is waited for once, not once for each site and second.
            return future.result(0.0 if late or self._pending else PATIENCE_S)
        except TimeoutError:
            self._pending[site] = future
            raise LinkError(
                f"the database has not answered within {PATIENCE_S:g} s; "
                "is its server overloaded or its disk too slow?"
            ) from None

    def _read(self, site: str | None) -> StoredFigures:
        store = self._store
        events = store.events(NEWEST if site is None else EVENTS_LOOKED_AT)
        return StoredFigures(
            store.summary(site),
            store.newest(NEWEST, site),
            [event for event in events if site in (None, event.site)][:NEWEST],
            store.sites(),
        )


class Board:
    """The newest Now of each site that somebody looks at, as JSON; from any thread."""

    def __init__(self, store: Store, live: LiveSite) -> None:
        self._reader, self._live = Reader(store), live
        self._lock = threading.Lock()
        self._made: dict[str | None, tuple[float, bytes]] = {}
        # by site: how many answers there were, and when (monotonic) there was last one more
        self._grew: dict[str | None, tuple[int, float]] = {}

    def state(self, site: str | None, viewer: Viewer) -> bytes:
        """State as JSON: what all see, at most a second old, and what is the viewer's own."""
        return self._now(site)[:-1] + b"," + msgspec.json.encode(viewer)[1:]

    def _now(self, site: str | None) -> bytes:
        with self._lock:  # the first thread makes it, the others wait for it
            tick = time.monotonic() // EVERY_S  # listeners come together when it is new
            made, body = self._made.get(site, (-1.0, b""))
            if made != tick:
                body = msgspec.json.encode(self._make(site))
                # Those of sites that nobody looks at any more are not kept.
                self._made = {of: m for of, m in self._made.items() if m[0] >= tick - 1}
                self._made[site] = tick, body
            return body

    def _make(self, site: str | None) -> Now:
        live = self._live
        link, bundle, nodes, database = live.link(), live.bundle(), live.nodes(), ""
        stored = None
        try:
            stored = self._reader.read(site)
        except LinkError as error:
            database = str(error)
        sites = sites_of(nodes, stored.sites if stored else ())
        shown = [node for node in nodes if site is None or node.site in (site, EVERYWHERE)]
        offloads = [view for view in live.offloads() if site in (None, view.site)]
        one = site or (sites[0] if len(sites) == 1 else None)
        return Now(
            at_s=time.time(),
            version=ddnn_version(),
            bundle=Bundle.of(bundle),
            link=link,
            database=live.database_away() or database,
            nodes=[Node.of(node, bundle) for node in shown],
            offloads=[Offload.of(view, MOST_WORKERS) for view in offloads[:MOST_OFFLOADS]],
            summary=stored.summary if stored else None,
            quiet_s=self._quiet_s(site, stored) if stored else None,
            expected_now=expected_now(nodes, bundle, link, one),
            answers=stored.answers if stored else [],
            events=stored.events if stored else [],
            thresholds=in_use(nodes, bundle, link, one),
            demo=_demo(live),
            sites=sites,
        )

    def _quiet_s(self, site: str | None, stored: StoredFigures) -> float | None:
        """Nodes' clocks may be wrong: what counts is when there was an answer more."""
        if not stored.answers:
            return None
        now_s, answered = time.monotonic(), stored.summary.answered
        before = self._grew[site][0] if site in self._grew else -1
        if before < 0:  # not seen growing yet
            age_s = time.time() - stored.answers[0].answer.answered_at_s
            self._grew[site] = answered, now_s - max(0.0, age_s)
        elif answered > before:
            self._grew[site] = answered, now_s
        return now_s - self._grew[site][1]


def sites_of(nodes: Sequence[NodeView], stored: Sequence[str]) -> list[str]:
    return sorted({*stored, *(node.site for node in nodes)} - {EVERYWHERE})


def expected_now(
    nodes: Sequence[NodeView], bundle: BundleView, link: LinkView, site: str | None
) -> ExpectedNow:
    """Nothing is expected without a broker, for then nobody is known to be there."""
    if site is None or not link.connected:
        return ExpectedNow([], [], None)
    there = {
        node.id
        for node in nodes
        if node.site == site
        and node.state == "online"
        and node.bundle == bundle.id
        and node.gauges.get("camera_up", 1.0) > 0
    }
    members = [device for device in bundle.devices if device in there]
    missing = [device for device in bundle.devices if device not in there]
    used = in_use(nodes, bundle, link, site).in_use
    return ExpectedNow(members, missing, bundle.expected(members, used))


def in_use(
    nodes: Sequence[NodeView], bundle: BundleView, link: LinkView, site: str | None
) -> InUse:
    """The thresholds that the lead edge of a site reports; unknown while it is not heard."""
    own = dict(bundle.thresholds)
    for node in nodes:
        if (node.site, node.id, node.bundle) != (site, bundle.lead, bundle.id):
            continue
        gauges = node.gauges
        revision = gauges.get("threshold_revision", -1.0)
        if link.connected and node.state == "online" and 0 <= revision < MAX_COUNT:
            used = {t: gauges[f"threshold_{t}"] for t in own if f"threshold_{t}" in gauges}
            return InUse(used, own, int(revision))
    return InUse(None, own, None)


def _demo(live: LiveSite) -> DemoState | None:
    demo = live.demo()
    if demo is None:
        return None
    try:
        return DemoState(demo.nodes())
    except DdnnError:  # the demo itself was ended
        return DemoState({})


class Streams:
    """How many listeners there are, and the signal that ends all of them."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._closing = threading.Event()

    def open(self) -> None:
        """A server may be started again with the same app."""
        self._closing.clear()

    def close(self) -> None:
        self._closing.set()

    def take(self) -> bool:
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        self._free.release()

    def events(self, state: Callable[[], bytes], wanted: Callable[[], bool]) -> Iterator[bytes]:
        """A server-sent event each second, in step with all other listeners, while `wanted`.

        Each is a whole state, so that who connects again has missed nothing; it is the heartbeat,
        too: writing it finds out that a listener is gone.
        """
        yield b"retry: 2000\n\n"
        while not self._closing.is_set() and wanted():
            yield b"event: state\ndata: " + state() + b"\n\n"
            self._closing.wait(EVERY_S - time.monotonic() % EVERY_S)
