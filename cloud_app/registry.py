"""The state of all nodes and of their offloaded sections, from the messages that they publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cloud_app.views import NodeView, OffloadView
from ddnn.core.plan import MAX_PIECES
from ddnn.protocol.drops import drops
from ddnn.protocol.machine import Connected, Disconnected, Event, Received
from ddnn.protocol.messages import Answer, OffloadState, Stats, Status

MAX_NODES = 10_000
EVENT_PERIOD_S = 60.0  # a repeated event of a node is recorded once in this time
SILENT_S = 30.0  # an online node that publishes nothing for longer is lost
MAX_PERIOD_S = 3600.0
OFFLOAD_S = 10.0  # a state is published each second; an older one is forgotten
MAX_OFFLOADS = 64
MAX_HELD = 4 * MAX_PIECES  # pieces of one plan, over all workers
ANNOUNCED_WITHIN_S = 8.0  # after a reconnect; the longest back-off of a node is 5 s
_NO_STATS = Stats("device", 0.0)
CLOCK_STEPS = {
    "clock_set_back": "its clock was set back",
    "clock_set_ahead": "its clock was set ahead",
}
_EVENT_TEXTS = {"online": "joined", "stopped": "stopped", "lost": "died"}

# wall clock, site, node, text, key; of several clouds that report the same key one is recorded
ReportEvent = Callable[[float, str, str, str, str], None]


@dataclass(frozen=True, slots=True)
class _SeenNode:
    status: Status
    at_s: float
    stats: Stats | None = None
    period_s: float = 0.0  # of its statistics


class Registry:
    """Observes the events of the cloud's machine; any thread may list nodes and offloads.

    Only the machine's thread writes. It replaces entries and never changes one that is read.
    """

    def __init__(self, report: ReportEvent, clock: Callable[[], float] = time.time) -> None:
        """clock: the wall time of events."""
        self._report, self._clock = report, clock
        self._nodes: dict[tuple[str, str], _SeenNode] = {}
        self._offloads: dict[tuple[str, str], tuple[float, OffloadState]] = {}
        self._connected_s = 0.0
        self.inferred_s: float | None = None  # monotonic: when a section of a site last ran

    def observe(self, event: Event) -> None:
        match event:
            case Connected():
                self._connected_s = time.monotonic()
            case Disconnected():
                self._offloads.clear()
            case Received(topic, Status() as status):
                self._take_status((topic.site, topic.node), status)
            case Received(topic, Stats() as stats):
                self._take_stats((topic.site, topic.node), stats)
            case Received(topic, OffloadState() as state):
                self._take_offload((topic.site, topic.node), state)
            case Received(topic, Answer() as answer):
                if answer.label >= 0:
                    self.inferred_s = time.monotonic()
                if answer.exit == "device" and not answer.late:
                    text = "fell back: it answers alone, from its own exit"
                    self._report_once_per_minute((topic.site, answer.node), text, "alone")

    def list_nodes(self) -> list[NodeView]:
        now_s = time.monotonic()
        views = []
        for (site, node), seen in sorted(self._nodes.copy().items()):
            status, stats = seen.status, seen.stats or _NO_STATS
            # After a reconnect every node announces itself: one that has not is away. So is one
            # that has been silent for long: no Will reports a broken bridge between brokers.
            unannounced = seen.at_s < self._connected_s < now_s - ANNOUNCED_WITHIN_S
            silent = unannounced or now_s - seen.at_s > max(SILENT_S, 4 * seen.period_s)
            state = "lost" if silent and status.state == "online" else status.state
            view = NodeView(
                site,
                node,
                status.role,
                state,
                status.bundle,
                status.version,
                now_s - seen.at_s,
                stats.uptime_s,
                stats.memory_bytes,
                dict(stats.counts),
                dict(stats.gauges),
            )
            views.append(view)
        # A cloud that is away is not missing while another one serves the same site.
        served = {(view.site, view.role) for view in views if view.state == "online"}
        return [
            view
            for view in views
            if view.state == "online"
            or view.role not in ("cloud", "store")
            or (view.site, view.role) not in served
        ]

    def list_offloads(self) -> list[OffloadView]:
        now_s = time.monotonic()
        return [
            OffloadView(site, node, now_s - at_s, state)
            for (site, node), (at_s, state) in sorted(self._offloads.copy().items())
            if now_s - at_s <= OFFLOAD_S
        ]

    def _take_offload(self, key: tuple[str, str], state: OffloadState) -> None:
        if key not in self._nodes:
            return
        if not _is_consistent(state):
            self._report_once_per_minute(
                key, "reports an offload that contradicts itself: it is not shown", "offload"
            )
            return
        now_s = time.monotonic()
        for other, (at_s, _) in list(self._offloads.items()):
            if now_s - at_s > OFFLOAD_S:
                del self._offloads[other]
        if key in self._offloads or len(self._offloads) < MAX_OFFLOADS:
            self._offloads[key] = now_s, state

    def _take_status(self, key: tuple[str, str], status: Status) -> None:
        seen = self._nodes.get(key)
        if seen is not None and status.state != "online" and status.session != seen.status.session:
            return  # the Will of an older connection
        if seen is None and len(self._nodes) >= MAX_NODES:
            return
        if status.state != "online":
            self._offloads.pop(key, None)  # the node offloads no work any more
        now = (status.session, status.state)
        if seen is None or (seen.status.session, seen.status.state) != now:
            once = f"{status.session}-{status.state}"
            self._report(self._clock(), *key, _EVENT_TEXTS[status.state], once)
        if seen is None or seen.status.session != status.session:
            seen = _SeenNode(status, 0.0)
        self._nodes[key] = replace(seen, status=status, at_s=time.monotonic())

    def _take_stats(self, key: tuple[str, str], stats: Stats) -> None:
        seen = self._nodes.get(key)
        if seen is None:
            return
        dropped = drops(stats.counts)
        before = dropped if seen.stats is None else drops(seen.stats.counts)  # first: no report
        new = {name: n - before.get(name, 0) for name, n in dropped.items()}
        lost = ", ".join(f"{n} {name}" for name, n in sorted(new.items()) if n > 0)
        if lost:
            self._report_once_per_minute(key, f"dropped at least {lost}", "dropped")
        self._report_camera_change(key, seen.stats, stats)
        for name, text in CLOCK_STEPS.items():
            counted = 0 if seen.stats is None else seen.stats.counts.get(name, 0)
            if stats.counts.get(name, 0) > counted:
                self._report(self._clock(), *key, text, f"{name}-{stats.uptime_s:.3f}")
        period_s = 0.0
        if seen.stats is not None:
            period_s = min(max(0.0, stats.uptime_s - seen.stats.uptime_s), MAX_PERIOD_S)
        inference_age_s = stats.gauges.get("inference_age_s")
        if inference_age_s is not None and inference_age_s >= 0:
            inferred_s = time.monotonic() - inference_age_s
            self.inferred_s = max(self.inferred_s or inferred_s, inferred_s)
        self._nodes[key] = replace(
            seen, at_s=time.monotonic(), stats=stats, period_s=max(seen.period_s, period_s)
        )

    def _report_camera_change(self, key: tuple[str, str], before: Stats | None, now: Stats) -> None:
        """Report a camera that went away or came back."""
        was = 1.0 if before is None else before.gauges.get("camera_up", 1.0)
        is_up = now.gauges.get("camera_up", 1.0)
        if (was > 0) != (is_up > 0):
            text = "camera is back" if is_up > 0 else "camera is away: it is opened again and again"
            self._report(self._clock(), *key, text, f"camera-{now.uptime_s:.3f}")

    def _report_once_per_minute(self, key: tuple[str, str], text: str, kind: str) -> None:
        """Report with a key that stays the same for a minute, so that one event is recorded."""
        now_s = self._clock()
        self._report(now_s, *key, text, f"{kind}-{now_s // EVENT_PERIOD_S:.0f}")


def _is_consistent(state: OffloadState) -> bool:
    """Whether the numbers agree with each other and stay within the bounds of the page."""
    held = [piece for worker in state.workers.values() for piece in worker.pieces]
    return (
        1 <= state.pieces <= MAX_PIECES
        and state.live_pieces <= state.pieces
        and state.spare_workers <= len(state.workers)
        and len(state.sources) <= state.pieces
        and all(group.first < group.end <= state.pieces for group in state.groups)
        and len(held) <= MAX_HELD
        and max(held, default=0) < state.pieces
    )
