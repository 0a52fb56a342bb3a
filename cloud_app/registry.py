"""The state of all nodes and of their offloaded sections, from the messages that they publish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import isfinite
from statistics import median_low
from typing import NamedTuple

from cloud_app.latest import LatestReports
from cloud_app.views import NodeView, OffloadView, TrainingView
from ddnn.core.plan import MAX_PIECES
from ddnn.protocol.commands import REFUSALS
from ddnn.protocol.drops import drops
from ddnn.protocol.machine import Connected, Disconnected, Event, Forgotten, Received
from ddnn.protocol.messages import Answer, Stats, Status
from ddnn.protocol.offload_state import Alternatives, OffloadState
from ddnn.protocol.rollout_messages import BundleState
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import TrainState
from ddnn.runtime.guard import DAY_S, EXPIRES_SOON_DAYS

MAX_NODES = 2000
MAX_STRANGERS = 256  # nodes that no bundle names and that have sent no statistics: made-up ids
NEW_PER_MINUTE = 60  # strangers of a site whose coming and going is recorded one by one
EVENT_PERIOD_S = 60.0  # a repeated event of a node is recorded once in this time
SILENT_S = 30.0  # an online node that publishes nothing for longer is lost
MAX_PERIOD_S = 3600.0
GAPS = 5  # of which the middle one is the period: a gap may be an outage, or lost reports
OFFLOAD_S = 10.0  # a state is published each second; an older one is forgotten
MAX_OFFLOADS = 64
TRAINING_S = 3600.0  # the last state of a training is of interest after its end, too
MAX_TRAININGS = 16
MAX_HELD = 4 * MAX_PIECES  # pieces of one plan, over all workers
ANNOUNCED_WITHIN_S = 8.0  # after a reconnect; the longest back-off of a node is 5 s
_NO_STATS = Stats("device", 0.0)
COUNTED_EVENTS = {
    "clock_set_back": "its clock was set back",
    "clock_set_ahead": "its clock was set ahead",
    "name_conflicts": "another process claims its name",
}
_EVENT_TEXTS = {"online": "joined", "stopped": "stopped", "lost": "died"}

# wall clock, site, node, text, key; of several clouds that report the same key one is recorded
ReportEvent = Callable[[float, str, str, str, str], None]


class _Switch(NamedTuple):
    """A gauge that is on or off, and the events of its changes. first: before it was reported."""

    key: str
    first: float
    on: str
    off: str


SWITCHES = {
    "camera_up": _Switch(
        "camera", 1.0, "camera is back", "camera is away: it is opened again and again"
    ),
    "recording": _Switch(
        "recording", 0.0, "RECORDS: its pictures go to a collector", "records no more"
    ),
}


@dataclass(frozen=True, slots=True)
class _SeenNode:
    status: Status
    at_s: float
    stats: Stats | None = None
    bundle_state: BundleState | None = None
    gaps_s: tuple[float, ...] = ()  # between its statistics, by its own time

    @property
    def period_s(self) -> float:
        """The time between two statistics; 0 where it is not known."""
        return median_low(self.gaps_s) if self.gaps_s else 0.0


class Registry:
    """Observes the events of the cloud's machine; any thread may list nodes and offloads.

    Only the machine's thread writes. It replaces entries and never changes one that is read.
    """

    def __init__(
        self,
        report: ReportEvent,
        clock: Callable[[], float] = time.time,
        wanted: Collection[str] = (),
    ) -> None:
        """clock: the wall time of events. wanted: the nodes that the bundle names."""
        self._report, self._clock, self._wanted = report, clock, frozenset(wanted)
        self._nodes: dict[tuple[str, str], _SeenNode] = {}
        self._strangers: dict[tuple[str, str], None] = {}  # the oldest first
        self._reported: Counter[str] = Counter()  # by site: events of strangers in this minute
        self._minute = 0.0
        self._offloads: LatestReports[OffloadState] = LatestReports(OFFLOAD_S, MAX_OFFLOADS)
        self._trainings: LatestReports[TrainState] = LatestReports(TRAINING_S, MAX_TRAININGS)
        self._connected_s = 0.0
        self._expiring: dict[tuple[str, str], int] = {}  # the day of the last report
        self.inferred_s: float | None = None  # monotonic: when a section of a site last ran

    def observe(self, event: Event) -> None:
        match event:
            case Connected():
                self._connected_s = time.monotonic()
            case Disconnected():
                self._offloads.clear()
            case Forgotten(topic) if topic.kind is Kind.STATUS:
                self._forget((topic.site, topic.node))
            case Received(topic, Status() as status):
                self._take_status((topic.site, topic.node), status)
            case Received(topic, Stats() as stats):
                self._take_stats((topic.site, topic.node), stats)
            case Received(topic, BundleState() as bundle_state):
                self._take_bundle_state((topic.site, topic.node), bundle_state)
            case Received(topic, OffloadState() as state):
                if self._is_credible(topic, "an offload", _is_consistent(state)):
                    self._offloads.add((topic.site, topic.node), state)
            case Received(topic, TrainState() as training):
                if self._is_credible(topic, "a training", _is_training_consistent(training)):
                    self._trainings.add((topic.site, topic.node), training)
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
                describe_rollout(seen.bundle_state),
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
        return [OffloadView(*latest) for latest in self._offloads.list_fresh()]

    def list_trainings(self) -> list[TrainingView]:
        """Those that run, and those of the last hour."""
        return [TrainingView(*latest) for latest in self._trainings.list_fresh()]

    def _is_credible(self, topic: Topic, what: str, is_consistent: bool) -> bool:
        """Whether a report is to be kept: its node is known, and its numbers agree."""
        key = topic.site, topic.node
        if key in self._nodes and not is_consistent:
            text = f"reports {what} that contradicts itself: it is not shown"
            self._report_once_per_minute(key, text, what.split()[-1])
        return key in self._nodes and is_consistent

    def _take_status(self, key: tuple[str, str], status: Status) -> None:
        seen = self._nodes.get(key)
        if seen is not None and status.state != "online" and status.session != seen.status.session:
            return  # the Will of an older connection
        if seen is None and not self._make_room(key):
            return
        if status.state != "online":
            self._offloads.remove(key)  # the node offloads no work any more
        now = (status.session, status.state)
        if seen is None or (seen.status.session, seen.status.state) != now:
            self._report_presence(key, status)
        elif seen.status.bundle != status.bundle and key[1] in self._wanted:
            text = f"uses bundle {status.bundle} in the place of {seen.status.bundle}"
            self._report_once_per_minute(key, text, "bundle")
        if seen is None or seen.status.session != status.session:
            seen = _SeenNode(status, 0.0)
        self._nodes[key] = replace(seen, status=status, at_s=time.monotonic())

    def _forget(self, key: tuple[str, str]) -> None:
        """Drop a node whose retained status was removed; one that runs announces itself again."""
        if key in self._nodes:
            self._remove(key)
            self._report_once_per_minute(key, "was forgotten", "forgotten")

    def _make_room(self, key: tuple[str, str]) -> bool:
        """Make room for a node; False where there is none. Strangers displace strangers only."""
        is_wanted = key[1] in self._wanted
        if not is_wanted and len(self._strangers) >= MAX_STRANGERS:
            self._remove(next(iter(self._strangers)))
        elif len(self._nodes) >= MAX_NODES:
            others = (k for k in (*self._strangers, *self._nodes) if k[1] not in self._wanted)
            displaced = next(others, None)
            if displaced is None or not (is_wanted or displaced in self._strangers):
                return False
            self._remove(displaced)
        if not is_wanted:
            self._strangers[key] = None
        return True

    def _remove(self, key: tuple[str, str]) -> None:
        self._strangers.pop(key, None)
        del self._nodes[key]
        self._offloads.remove(key)
        self._trainings.remove(key)
        self._expiring.pop(key, None)

    def _report_presence(self, key: tuple[str, str], status: Status) -> None:
        """Report that a node came or went; of many strangers, only how many."""
        now_s = self._clock()
        if key in self._strangers:
            minute = now_s // EVENT_PERIOD_S
            if minute != self._minute:
                self._minute, self._reported = minute, Counter()
            self._reported[key[0]] += 1
            if self._reported[key[0]] > NEW_PER_MINUTE:
                text = f"more than {NEW_PER_MINUTE} unknown nodes came or went in this minute"
                self._report_once_per_minute((key[0], "cloud"), text, "strangers")
                return
        once = f"{status.session}-{status.state}"
        self._report(now_s, *key, _EVENT_TEXTS[status.state], once)

    def _take_stats(self, key: tuple[str, str], stats: Stats) -> None:
        seen = self._nodes.get(key)
        if seen is None:
            return
        self._strangers.pop(key, None)
        dropped = {n: c for n, c in drops(stats.counts).items() if n not in REFUSALS}
        before = dropped if seen.stats is None else drops(seen.stats.counts)  # first: no report
        new = {name: n - before.get(name, 0) for name, n in dropped.items()}
        lost = ", ".join(f"{n} {name}" for name, n in sorted(new.items()) if n > 0)
        if lost:
            self._report_once_per_minute(key, f"dropped at least {lost}", "dropped")
        self._report_switches(key, seen.stats, stats)
        self._report_thinning(key, stats)
        self._report_security(key, seen, stats)
        for name, text in COUNTED_EVENTS.items():
            counted = 0 if seen.stats is None else seen.stats.counts.get(name, 0)
            if stats.counts.get(name, 0) > counted:
                self._report(self._clock(), *key, text, _name_count(name, seen, stats))
        gap_s = stats.uptime_s - seen.stats.uptime_s if seen.stats is not None else 0.0
        gaps_s = seen.gaps_s if gap_s >= 0 else ()  # a node that has started again
        if gap_s > 0:
            gaps_s = (*gaps_s, min(gap_s, MAX_PERIOD_S))[-GAPS:]
        inference_age_s = stats.gauges.get("inference_age_s")
        if inference_age_s is not None and inference_age_s >= 0:
            inferred_s = time.monotonic() - inference_age_s
            self.inferred_s = max(self.inferred_s or inferred_s, inferred_s)
        self._nodes[key] = replace(seen, at_s=time.monotonic(), stats=stats, gaps_s=gaps_s)

    def _take_bundle_state(self, key: tuple[str, str], state: BundleState) -> None:
        """Note how far a node is with a roll-out, and report its beginning and a refusal."""
        seen = self._nodes.get(key)
        if seen is None:
            return
        before = describe_rollout(seen.bundle_state)
        self._nodes[key] = replace(seen, bundle_state=state)
        text = describe_rollout(state)
        if text and (not before or state.phase == "failed") and text != before:
            self._report_once_per_minute(key, text, f"rollout-{state.phase}")

    def _report_switches(self, key: tuple[str, str], before: Stats | None, now: Stats) -> None:
        """Report gauges that went on or off."""
        for gauge, switch in SWITCHES.items():
            was = switch.first if before is None else before.gauges.get(gauge, switch.first)
            is_on = now.gauges.get(gauge, switch.first) > 0
            if (was > 0) != is_on:
                text = switch.on if is_on else switch.off
                self._report(self._clock(), *key, text, f"{switch.key}-{now.uptime_s:.3f}")

    def _report_thinning(self, key: tuple[str, str], now: Stats) -> None:
        """Report a lead edge whose site cannot take all ticks."""
        share = now.gauges.get("share_taken", 1.0)
        if share < 1:
            shed = now.counts.get("samples_shed", 0)
            text = (
                f"too much to do: cameras take {100 * share:.0f} % of the ticks, {shed} were shed"
            )
            self._report_once_per_minute(key, text, "thinned")

    def _report_security(self, key: tuple[str, str], seen: _SeenNode, now: Stats) -> None:
        """Report commands that a node has refused, and a certificate that expires soon."""
        for name, text in REFUSALS.items():
            count = now.counts.get(name, 0)
            if count <= (0 if seen.stats is None else seen.stats.counts.get(name, 0)):
                continue
            if seen.stats is None and now.uptime_s > EVENT_PERIOD_S:  # perhaps reported long ago
                self._report(self._clock(), *key, text, _name_count(name, seen, now))
            else:
                self._report_once_per_minute(key, text, name)
        days = now.gauges.get("certificate_days")
        today = int(self._clock() // DAY_S)
        if days is None or not days < EXPIRES_SOON_DAYS or self._expiring.get(key) == today:
            return
        if len(self._expiring) >= MAX_NODES:
            self._expiring.clear()
        self._expiring[key] = today
        when = f"expires in {days:.0f} days" if days >= 0 else "has expired"
        text = f"its certificate {when}: ddnn site add-node {key[1]} --renew"
        self._report(self._clock(), *key, text, f"certificate-{today}")

    def _report_once_per_minute(self, key: tuple[str, str], text: str, kind: str) -> None:
        """Report with a key that stays the same for a minute, so that one event is recorded."""
        now_s = self._clock()
        self._report(now_s, *key, text, f"{kind}-{now_s // EVENT_PERIOD_S:.0f}")


def _name_count(name: str, seen: _SeenNode, stats: Stats) -> str:
    """The key of an event that is counted: the same whichever process reports it, and when."""
    return f"{name}-{seen.status.session}-{stats.counts[name]}"


def describe_rollout(state: BundleState | None) -> str:
    """What a node does about a bundle that is rolled out; empty where that is nothing."""
    match state:
        case None | BundleState(phase="in use"):
            return ""
        case BundleState(phase="fetching", parts=parts):
            return f"fetches bundle {state.ordered}: {parts} parts so far"
        case BundleState(phase="checking"):
            return f"checks bundle {state.ordered}"
        case BundleState(phase="staged"):
            return f"has bundle {state.ordered} ready"
    return f"cannot use bundle {state.ordered}: {state.reason}"


def _is_consistent(state: OffloadState) -> bool:
    """Whether the numbers agree with each other and stay within the bounds of the page."""
    held = [piece for worker in state.workers.values() for piece in worker.pieces]
    return (
        1 <= state.pieces <= MAX_PIECES
        and state.live_pieces <= state.pieces
        and state.spare_workers <= len(state.workers)
        and len(state.sources) <= state.pieces
        and all(group.first < group.end <= state.pieces for group in state.groups)
        and _are_consistent(state.alternatives)
        and len(held) <= MAX_HELD
        and max(held, default=0) < state.pieces
    )


def _is_training_consistent(state: TrainState) -> bool:
    """Whether the numbers agree with each other."""
    return (
        state.batches <= state.end
        and state.copied <= state.version
        and all(place.start < place.stop for place in state.places)
    )


def _are_consistent(alternatives: Alternatives | None) -> bool:
    """Whether every plan has a figure, a finite one, for each axis."""
    return alternatives is None or all(
        len(point.values) == len(alternatives.axes) and all(map(isfinite, point.values))
        for point in alternatives.points
    )
