"""Which nodes there are, what becomes of them and what they give to workers, by their messages."""

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
EVENT_EVERY_S = 60.0  # of what may happen again and again, once a node and minute
SILENT_S = 30.0  # an online node that says nothing for longer is not there
MOST_EVERY_S = 3600.0
OFFLOAD_S = 10.0  # a state is published each second; an older one is forgotten
MAX_OFFLOADS = 64
MAX_HELD = 4 * MAX_PIECES  # pieces of one plan, over all workers
ANNOUNCED_WITHIN_S = 8.0  # after a reconnect; the longest back-off of a node is 5 s
_NOTHING = Stats("device", 0.0)
_WORDS = {"online": "joined", "stopped": "stopped", "lost": "died"}

# wall clock, site, node, what, key: of several clouds that see the same, one writes it down
Report = Callable[[float, str, str, str, str], None]


@dataclass(frozen=True, slots=True)
class _Seen:
    status: Status
    at_s: float
    stats: Stats | None = None
    every_s: float = 0.0  # how often its statistics come


class Registry:
    """Watches events of the cloud's machine; `nodes`, `offloads` may be called from any thread.

    Written by the machine's thread alone. Each entry is replaced, never changed while it is read.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._nodes: dict[tuple[str, str], _Seen] = {}
        self._offloads: dict[tuple[str, str], tuple[float, OffloadState]] = {}
        self._connected_s = 0.0
        self.inferred_s: float | None = None  # monotonic: some section of the site ran

    def observe(self, event: Event) -> None:
        match event:
            case Connected():
                self._connected_s = time.monotonic()
            case Disconnected():
                self._offloads.clear()
            case Received(topic, Status() as status):
                self._status((topic.site, topic.node), status)
            case Received(topic, Stats() as stats):
                self._stats((topic.site, topic.node), stats)
            case Received(topic, OffloadState() as state):
                self._offload((topic.site, topic.node), state)
            case Received(topic, Answer() as answer):
                if answer.label >= 0:
                    self.inferred_s = time.monotonic()
                if answer.exit == "device" and not answer.late:
                    words = "fell back: it answers alone, from its own exit"
                    self._say((topic.site, answer.node), words, "alone")

    def nodes(self) -> list[NodeView]:
        now_s = time.monotonic()
        views = []
        for (site, node), seen in sorted(self._nodes.copy().items()):
            status, stats = seen.status, seen.stats or _NOTHING
            # At a broker that comes back every node announces itself: one that has not is away.
            # Nor is who says nothing any more: no Will tells that a bridge between brokers broke.
            unannounced = seen.at_s < self._connected_s < now_s - ANNOUNCED_WITHIN_S
            silent = unannounced or now_s - seen.at_s > max(SILENT_S, 4 * seen.every_s)
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
        # Of clouds any will do: one that was replaced by another is not missing.
        served = {(view.site, view.role) for view in views if view.state == "online"}
        return [
            view
            for view in views
            if view.state == "online"
            or view.role not in ("cloud", "store")
            or (view.site, view.role) not in served
        ]

    def offloads(self) -> list[OffloadView]:
        now_s = time.monotonic()
        return [
            OffloadView(site, node, now_s - at_s, state)
            for (site, node), (at_s, state) in sorted(self._offloads.copy().items())
            if now_s - at_s <= OFFLOAD_S
        ]

    def _offload(self, key: tuple[str, str], state: OffloadState) -> None:
        if key not in self._nodes:
            return
        if not _is_consistent(state):
            self._say(key, "reports an offload that contradicts itself: it is not shown", "offload")
            return
        now_s = time.monotonic()
        for other, (at_s, _) in list(self._offloads.items()):
            if now_s - at_s > OFFLOAD_S:
                del self._offloads[other]
        if key in self._offloads or len(self._offloads) < MAX_OFFLOADS:
            self._offloads[key] = now_s, state

    def _status(self, key: tuple[str, str], status: Status) -> None:
        seen = self._nodes.get(key)
        if seen is not None and status.state != "online" and status.session != seen.status.session:
            return  # the Will of a connection that is long replaced
        if seen is None and len(self._nodes) >= MAX_NODES:
            return
        if status.state != "online":
            self._offloads.pop(key, None)  # it gives no work to workers any more
        now = (status.session, status.state)
        if seen is None or (seen.status.session, seen.status.state) != now:
            once = f"{status.session}-{status.state}"
            self._report(time.time(), *key, _WORDS[status.state], once)
        if seen is None or seen.status.session != status.session:
            seen = _Seen(status, 0.0)
        self._nodes[key] = replace(seen, status=status, at_s=time.monotonic())

    def _stats(self, key: tuple[str, str], stats: Stats) -> None:
        seen = self._nodes.get(key)
        if seen is None:
            return
        dropped = drops(stats.counts)
        before = dropped if seen.stats is None else drops(seen.stats.counts)  # no news at first
        new = {name: n - before.get(name, 0) for name, n in dropped.items()}
        lost = ", ".join(f"{n} {name}" for name, n in sorted(new.items()) if n > 0)
        if lost:
            self._say(key, f"dropped at least {lost}", "dropped")
        self._camera(key, seen.stats, stats)
        every_s = 0.0
        if seen.stats is not None:
            every_s = min(max(0.0, stats.uptime_s - seen.stats.uptime_s), MOST_EVERY_S)
        inference_age_s = stats.gauges.get("inference_age_s")
        if inference_age_s is not None and inference_age_s >= 0:
            inferred_s = time.monotonic() - inference_age_s
            self.inferred_s = max(self.inferred_s or inferred_s, inferred_s)
        self._nodes[key] = replace(
            seen, at_s=time.monotonic(), stats=stats, every_s=max(seen.every_s, every_s)
        )

    def _camera(self, key: tuple[str, str], before: Stats | None, now: Stats) -> None:
        """A camera that went away, or came back."""
        was = 1.0 if before is None else before.gauges.get("camera_up", 1.0)
        is_up = now.gauges.get("camera_up", 1.0)
        if (was > 0) != (is_up > 0):
            what = "camera is back" if is_up > 0 else "camera is away: it is opened again and again"
            self._report(time.time(), *key, what, f"camera-{now.uptime_s:.3f}")

    def _say(self, key: tuple[str, str], what: str, kind: str) -> None:
        """At most once a node and minute: the key is the same for a minute."""
        now_s = time.time()
        self._report(now_s, *key, what, f"{kind}-{now_s // EVENT_EVERY_S:.0f}")


def _is_consistent(state: OffloadState) -> bool:
    """Whether the numbers fit together, and are few enough to be shown."""
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
