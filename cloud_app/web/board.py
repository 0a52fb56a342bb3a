"""The state of the page: made once a second for all viewers, and sent to them as a stream."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import msgspec

from cloud_app.store import NodeEvent, Record, Store, Summary
from cloud_app.views import BundleView, LinkView, LiveSite, NodeView
from cloud_app.web.messages import (
    Bundle,
    DemoState,
    ExpectedNow,
    Node,
    Offload,
    PageState,
    ThresholdState,
    Training,
    Viewer,
)
from ddnn.errors import DdnnError, LinkError
from ddnn.protocol.messages import MAX_COUNT
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.service import find_ddnn_version

PERIOD_S = 1.0
WATCHED_S = 10 * PERIOD_S  # looks that are no further apart show when answers came
DATABASE_TIMEOUT_S = 1.5  # then the page is shown without the numbers of the database
NEWEST = 20  # number of answers and of events on the page
MAX_NODES = 500  # on the page
MAX_FIGURES = (100, 24)  # counts, and gauges, of a node of the bundle, and of another
MAX_SITES = 1000
MAX_OFFLOADS = 16  # on the page
MAX_WORKERS = 128  # on the page, per offload
MAX_TRAININGS = 4  # on the page
MAX_PLACES = 64  # on the page, per training
EVENTS_READ = 200  # among which those of one site are searched
MAX_STREAMS = 32  # each occupies a thread


class StoredFigures(NamedTuple):
    """The part of the state that comes from the store."""

    summary: Summary
    answers: list[Record]
    events: list[NodeEvent]
    sites: list[str]


class StoreReader:
    """Reads the store in a thread of its own: a database that hangs must not block the page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1, "page-store")
        self._pending: dict[str | None, Future[StoredFigures]] = {}

    def read(self, site: str | None) -> StoredFigures:
        """Read a site's figures; LinkError where the database is away or too slow.

        Only one thread at a time may call this.
        """
        late = self._pending.pop(site, None)
        if late is not None and late.done():
            late = None  # perhaps long ago: old figures are never shown as those of now
        self._pending = {of: f for of, f in self._pending.items() if not f.done()}
        future = late or self._pool.submit(self._read, site)
        try:
            # While the database hangs, only the first call waits; the later ones fail at once.
            return future.result(0.0 if late or self._pending else DATABASE_TIMEOUT_S)
        except TimeoutError:
            self._pending[site] = future
            raise LinkError(
                f"the database has not answered within {DATABASE_TIMEOUT_S:g} s; "
                "is its server overloaded or its disk too slow?"
            ) from None

    def _read(self, site: str | None) -> StoredFigures:
        store = self._store
        events = store.list_events(NEWEST if site is None else EVENTS_READ)
        return StoredFigures(
            store.summarize(site),
            store.list_newest(NEWEST, site),
            [event for event in events if site in (None, event.site)][:NEWEST],
            store.list_sites(),
        )


class _Growth(NamedTuple):
    """The number of answers at the last look, when it grew last, and when that look was
    (monotonic)."""

    answered: int
    grew_s: float
    looked_s: float


class Board:
    """The newest state of each site that somebody views, as JSON; any thread may ask for it."""

    def __init__(self, store: Store, live: LiveSite) -> None:
        self._reader, self._live = StoreReader(store), live
        self._lock = threading.Lock()
        self._made: dict[str | None, tuple[float, bytes]] = {}
        self._growth: dict[str | None, _Growth] = {}  # by site

    def make_state(self, site: str | None, viewer: Viewer) -> bytes:
        """Make a State as JSON: the part for all viewers, at most 1 s old, and the viewer's own."""
        return self._encode_page_state(site)[:-1] + b"," + msgspec.json.encode(viewer)[1:]

    def _encode_page_state(self, site: str | None) -> bytes:
        with self._lock:  # the first thread makes the state, the others wait for it
            tick = time.monotonic() // PERIOD_S  # the streams ask right after a new tick begins
            made, body = self._made.get(site, (-1.0, b""))
            if made != tick:
                body = msgspec.json.encode(self._make_page_state(site))
                # States of sites that nobody views any more are dropped.
                self._made = {of: m for of, m in self._made.items() if m[0] >= tick - 1}
                self._made[site] = tick, body
            return body

    def _make_page_state(self, site: str | None) -> PageState:
        live = self._live
        link, bundle, nodes, database = live.read_link(), live.bundle, live.list_nodes(), ""
        stored = None
        try:
            stored = self._reader.read(site)
        except LinkError as error:
            database = str(error)
        sites = list_sites(nodes, stored.sites if stored else ())
        of_site = [node for node in nodes if site is None or node.site in (site, EVERYWHERE)]
        shown = choose_shown(of_site, bundle)
        offloads = [view for view in live.list_offloads() if site in (None, view.site)]
        trainings = [view for view in live.list_trainings() if site in (None, view.site)]
        one = site or (sites[0] if len(sites) == 1 else None)
        return PageState(
            at_s=time.time(),
            version=find_ddnn_version(),
            bundle=Bundle.of(bundle),
            link=link,
            database=live.find_database_error() or database,
            nodes=[Node.of(node, bundle) for node in shown],
            nodes_hidden=len(of_site) - len(shown),
            offloads=[Offload.of(view, MAX_WORKERS) for view in offloads[:MAX_OFFLOADS]],
            trainings=[Training.of(view, MAX_PLACES) for view in trainings[:MAX_TRAININGS]],
            summary=stored.summary if stored else None,
            quiet_s=self._measure_quiet_s(site, stored) if stored else None,
            expected_now=compute_expected_now(nodes, bundle, link, one),
            answers=stored.answers if stored else [],
            events=stored.events if stored else [],
            thresholds=find_thresholds_in_use(nodes, bundle, link, one),
            drift=live.read_drift(one) if one else [],
            demo=_read_demo_state(live),
            sites=sites[:MAX_SITES],
        )

    def _measure_quiet_s(self, site: str | None, stored: StoredFigures) -> float | None:
        """Measure for how long no answer was added; None where there is none.

        The clocks of the nodes may be wrong, so the growth of the number of answers counts. If
        nobody has looked for a while, the growth may be as old as the last look: then the age of
        the newest answer is used, within these bounds.
        """
        if not stored.answers:
            return None
        now_s, answered = time.monotonic(), stored.summary.answered
        before = self._growth.get(site, _Growth(-1, -math.inf, -math.inf))
        grew_s = before.grew_s
        if answered > before.answered:
            age_s = time.time() - stored.answers[0].answer.answered_at_s
            was_watched = now_s - before.looked_s < WATCHED_S
            grew_s = now_s if was_watched else max(before.looked_s, now_s - max(0.0, age_s))
        self._growth[site] = _Growth(answered, grew_s, now_s)
        return now_s - grew_s


def choose_shown(nodes: Sequence[NodeView], bundle: BundleView) -> list[NodeView]:
    """The nodes that a state holds, in their order: those of the bundle, and of others some.

    What a node may report is bounded, too: anybody at the broker can publish statistics.
    """

    def is_known(node: NodeView) -> bool:
        return node.id in bundle.devices or node.role in ("edge", "cloud", "store")

    if len(nodes) > MAX_NODES:
        ranked = sorted(nodes, key=lambda node: (not is_known(node), node.state != "online"))
        chosen = {id(node) for node in ranked[:MAX_NODES]}
        nodes = [node for node in nodes if id(node) in chosen]
    return [_shorten(node, MAX_FIGURES[not is_known(node)]) for node in nodes]


def _shorten(node: NodeView, figures: int) -> NodeView:
    if max(len(node.counts), len(node.gauges)) <= figures:
        return node
    counts, gauges = islice(node.counts.items(), figures), islice(node.gauges.items(), figures)
    return replace(node, counts=dict(counts), gauges=dict(gauges))


def list_sites(nodes: Sequence[NodeView], stored: Sequence[str]) -> list[str]:
    """The sites that have nodes or stored answers."""
    return sorted({*stored, *(node.site for node in nodes)} - {EVERYWHERE})


def compute_expected_now(
    nodes: Sequence[NodeView], bundle: BundleView, link: LinkView, site: str | None
) -> ExpectedNow:
    """The devices that take part, and the accuracy that the bundle measured with exactly these.

    Without a broker no device is known to be online, and nothing is expected.
    """
    if site is None or not link.connected:
        return ExpectedNow([], [], None)
    present = {
        node.id
        for node in nodes
        if node.site == site
        and node.state == "online"
        and node.bundle == bundle.id
        and node.gauges.get("camera_up", 1.0) > 0
    }
    members = [device for device in bundle.devices if device in present]
    missing = [device for device in bundle.devices if device not in present]
    used = find_thresholds_in_use(nodes, bundle, link, site).in_use
    return ExpectedNow(members, missing, bundle.find_accuracy(members, used))


def find_thresholds_in_use(
    nodes: Sequence[NodeView], bundle: BundleView, link: LinkView, site: str | None
) -> ThresholdState:
    """The thresholds that the lead edge of a site reports; unknown while it is offline."""
    own = dict(bundle.thresholds)
    for node in nodes:
        if (node.site, node.id, node.bundle) != (site, bundle.lead, bundle.id):
            continue
        gauges = node.gauges
        revision = gauges.get("threshold_revision", -1.0)
        if link.connected and node.state == "online" and 0 <= revision < MAX_COUNT:
            used = {t: gauges[f"threshold_{t}"] for t in own if f"threshold_{t}" in gauges}
            return ThresholdState(used, own, int(revision), gauges.get("audit_share"))
    return ThresholdState(None, own, None)


def _read_demo_state(live: LiveSite) -> DemoState | None:
    demo = live.demo
    if demo is None:
        return None
    try:
        return DemoState(demo.read_processes())
    except DdnnError:  # the demo has ended
        return DemoState({})


class Streams:
    """Bounds the number of streams, and ends all of them when the server closes."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._closing = threading.Event()

    def open(self) -> None:
        """Allow streams again, for a second server of the same app."""
        self._closing.clear()

    def close(self) -> None:
        self._closing.set()

    def acquire(self) -> bool:
        """Reserve a stream; False where all are in use."""
        return self._free.acquire(blocking=False)

    def release(self) -> None:
        self._free.release()

    def generate_events(
        self, state: Callable[[], bytes], is_wanted: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Yield a server-sent event each second, in step with all other streams, while `is_wanted`.

        Each event is a whole state, so that a listener that reconnects has missed nothing. It is
        also the heartbeat: writing it fails where the listener is gone.
        """
        yield b"retry: 2000\n\n"
        while not self._closing.is_set() and is_wanted():
            yield b"event: state\ndata: " + state() + b"\n\n"
            self._closing.wait(PERIOD_S - time.monotonic() % PERIOD_S)
