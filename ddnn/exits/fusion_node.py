"""The machine of an edge or of the cloud: collects features, fuses them, runs a section, reports.

    state       signal     next
    COLLECTED   RUN        RUNNING     the section computes on the fused features
    COLLECTED   PASS_ON    CLOSED      there is no section: the features are sent up unchanged
    RUNNING     KEEP       KEPT        scores are sent; the features are kept for the next tier
    RUNNING     CLOSE      CLOSED      scores are sent, and there is nothing more to send
    KEPT        PASS_ON    CLOSED      the next tier asks for the features, which are sent up
    RUNNING     GIVE_UP    CLOSED      the section failed, the time is over, or too many are open
    KEPT        GIVE_UP    CLOSED      the time is over, or too many are open
Before that, `ddnn.machines.collect` collects the features until all live children have sent
theirs, or the window is over. `tiers` holds the differences between edge and cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ddnn.exits.manifest import Manifest
from ddnn.exits.tiers import Tier
from ddnn.exits.timing import Timing
from ddnn.machines.admission import Admission
from ddnn.machines.collect import Collector, Expired, Outcome, Receipt
from ddnn.machines.jobs import Jobs
from ddnn.machines.membership import Membership
from ddnn.machines.states import advance
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
    find_earliest,
)
from ddnn.protocol.messages import (
    Escalate,
    Features,
    Scores,
    Shortfall,
    Status,
    Tensor,
    TrafficBytes,
    add_shortfall,
    add_traffic,
)
from ddnn.protocol.topics import Kind, Topic, topic_filter

Made = TypeVar("Made")
MAX_SITES = 4096  # whose presence is remembered; beyond it the oldest is forgotten


class State(Enum):
    """The states of a fusion."""

    COLLECTED = auto()
    RUNNING = auto()
    KEPT = auto()
    CLOSED = auto()


class Signal(Enum):
    """What moves a fusion from one state to the next."""

    RUN = auto()
    KEEP = auto()
    PASS_ON = auto()
    CLOSE = auto()
    GIVE_UP = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.COLLECTED, Signal.RUN): State.RUNNING,
    (State.COLLECTED, Signal.PASS_ON): State.CLOSED,
    (State.RUNNING, Signal.KEEP): State.KEPT,
    (State.RUNNING, Signal.CLOSE): State.CLOSED,
    (State.KEPT, Signal.PASS_ON): State.CLOSED,
    (State.RUNNING, Signal.GIVE_UP): State.CLOSED,
    (State.KEPT, Signal.GIVE_UP): State.CLOSED,
}


class Key(NamedTuple):
    """The key of a fusion; the cloud fuses for several sites."""

    site: str
    sample: int


class SectionJob(NamedTuple):
    """The token of a Compute effect: a section on a sample of a site."""

    section: str
    site: str
    sample: int


class Part(NamedTuple):
    """A child's features, and the bytes that the devices sent for them."""

    message: Features
    traffic: TrafficBytes


@dataclass(slots=True)
class Fusion:
    """A sample whose features are fused: its state, and what its messages have in common."""

    mask: int = 0  # of the devices that contributed
    captured_at_s: float = 0.0
    label: int | None = None
    traffic: TrafficBytes = (0, 0)
    shortfall: Shortfall | None = None
    state: State = State.COLLECTED
    features: NDArray[Any] | None = None  # the section's; read in state KEPT only

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "a fusion")

    def add(self, part: Part) -> None:
        """Add a part. Where labels differ, the greatest counts, so the order does not matter."""
        message = part.message
        self.mask |= message.members
        self.captured_at_s = message.captured_at_s
        self.traffic = add_traffic(self.traffic, part.traffic)
        self.shortfall = add_shortfall(self.shortfall, message.shortfall)
        if message.label is not None:
            self.label = max(message.label, -1 if self.label is None else self.label)


class FusionNode:
    """Fuses the features of a tier's children, for one site or several."""

    def __init__(
        self, site: str, node: str, bundle: str, manifest: Manifest, timing: Timing, tier: Tier
    ) -> None:
        self.site, self.node, self.bundle = site, node, bundle
        self.manifest, self.timing, self.tier = manifest, timing, tier
        self.counts: dict[str, int] = {}
        self._membership: dict[str, Membership] = {}  # of the children, by site
        self._admission: dict[str, Admission] = {}  # by site
        self._expected = {child: frozenset([child]) for child in tier.children}
        self._collector: Collector[Key, Part] = Collector()
        self._running: Jobs[Key, Fusion] = Jobs()
        # Samples whose features came before anybody asked for them: nobody misses those of others.
        self._unasked: set[Key] = set()

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    def subscriptions(self) -> list[str]:
        return [*self.tier.subscriptions(self.site), topic_filter(Kind.STATUS, self.site)]

    def deadline_s(self) -> float | None:
        times = (self._collector.next_due_s(), self._running.next_due_s())
        return find_earliest(times)

    def find_membership(self, site: str) -> Membership:
        """Find or make the membership of a site's children."""
        return _find_or_make(self._membership, site, lambda: Membership(self.tier.children))

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(topic, Features() as message) if topic.kind is self.tier.input:
                effects = self._take(topic, message, event.wire_bytes, now)
            case Received(topic, Escalate() as escalate):
                effects = self._escalate(topic.site, escalate, now)
            case Received(topic, Status() as status) if topic.node in self.tier.children:
                if self.find_membership(topic.site).take_status(topic.node, status):
                    # Samples that wait only for a child that is away need not wait any longer.
                    keys = [key for key in self._collector.open_keys() if key.site == topic.site]
                    effects = self._conclude(self._collector.review(keys, now.monotonic_s), now)
            case Computed(SectionJob(self.tier.section, site, sample)):
                effects = self._finish(Key(site, sample), event)
            case Disconnected():
                self._membership.clear()
        effects += self._conclude(self._collector.end_due(now.monotonic_s), now)
        for key in self._running.due(now.monotonic_s):
            self._running.close(key).move(Signal.GIVE_UP)
        return effects

    # ----------------------------------------------------------------- collect

    def _take(self, topic: Topic, message: Features, wire_bytes: int, now: Now) -> list[Effect]:
        key, child = Key(topic.site, message.sample), topic.node
        if child not in self.tier.children or not self._is_valid(child, message):
            self._count("features_refused")
            return []
        opened_s = self._collector.opened_s(key)
        if opened_s is None or now.monotonic_s <= opened_s + self.timing.window_s:
            self.find_membership(key.site).note_report(child)
        admission = _find_or_make(self._admission, key.site, lambda: Admission(self.tier.children))
        if opened_s is not None:
            admission.note(child, message.sample, message.captured_at_s, now.monotonic_s)
        elif admission.admit(child, message.sample, message.captured_at_s, now.monotonic_s):
            self._open(key, now)
            if self.tier.hears_escalations:
                self._unasked.add(key)
        else:
            self._count("samples_refused")
            return []
        part = Part(message, self.tier.measure_traffic(message, wire_bytes))
        receipt, outcomes = self._collector.receive(key, child, child, part, now.monotonic_s)
        if receipt is not Receipt.TAKEN:
            self._count("features_late")
        return self._conclude(outcomes, now)

    def _is_valid(self, child: str, message: Features) -> bool:
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return False
        return self.tier.is_valid(child, message)

    def _open(self, key: Key, now: Now) -> None:
        """Wait for the children's features."""
        due_s = now.monotonic_s + self.timing.window_s
        enough = partial(self._is_enough, key.site)
        for evicted in self._collector.open(key, self._expected, enough, now.monotonic_s, due_s):
            self._unasked.discard(evicted.key)
            self._count("evicted")

    def _is_enough(self, site: str, children: Collection[str]) -> bool:
        """Whether all live children have sent features; which are live changes during the wait."""
        return len(children) > 0 and self.find_membership(site).live.issubset(children)

    def _conclude(self, outcomes: list[Outcome[Key, Part]], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for outcome in outcomes:
            is_asked = outcome.key not in self._unasked
            self._unasked.discard(outcome.key)
            if isinstance(outcome, Expired):
                if outcome.completed or not outcome.parts:
                    continue
                membership = self.find_membership(outcome.key.site)
                missing = membership.live.intersection(outcome.missing) if is_asked else ()
                membership.note_misses(missing, now.monotonic_s)
            self._collector.end(outcome.key)
            effects += self._fuse(outcome.key, outcome.parts, now)
        return effects

    # -------------------------------------------------------------------- work

    def _fuse(self, key: Key, parts: Mapping[str, Part], now: Now) -> list[Effect]:
        fusion = Fusion()
        for part in parts.values():
            fusion.add(part)
        section = self.tier.section
        if section is None:
            fusion.move(Signal.PASS_ON)
            present = [parts[child] for child in self.tier.children if child in parts]
            tensors = [tensor for part in present for tensor in part.message.parts]
            return [self._make_uplink(key, fusion, tensors)]
        fusion.move(Signal.RUN)
        due_s = now.monotonic_s + self.timing.deadline_s
        evicted = self._running.open(key, fusion, now.monotonic_s, due_s)
        if evicted is not None:
            evicted[1].move(Signal.GIVE_UP)
            self._count("evicted")
        inputs = self.tier.fuse({child: part.message for child, part in parts.items()})
        return [Compute(SectionJob(section, *key), section, inputs)]

    def _finish(self, key: Key, computed: Computed) -> list[Effect]:
        """Take the section's outputs; None: it failed."""
        fusion, outputs = self._running.get(key), computed.outputs
        if fusion is None or fusion.state is not State.RUNNING:
            return []
        if outputs is None or not np.isfinite(outputs["scores"]).all():
            self._count("section_failed")
            self._running.close(key).move(Signal.GIVE_UP)
            return []
        fusion.shortfall = add_shortfall(fusion.shortfall, computed.shortfall)
        if self.tier.keeps_features:
            fusion.move(Signal.KEEP)
            fusion.features = outputs["features"]
        else:
            self._running.close(key).move(Signal.CLOSE)
        scores = Scores(
            1,
            key.sample,
            self.bundle,
            fusion.mask,
            fusion.captured_at_s,
            Tensor.of(outputs["scores"]),
            fusion.label,
            fusion.traffic,
            fusion.shortfall,
        )
        return [Publish(self.tier.make_scores_topic(key.site), scores)]

    def _escalate(self, site: str, escalate: Escalate, now: Now) -> list[Effect]:
        """Wait for features after the local exit; after the edge exit send this node's up."""
        key = Key(site, escalate.sample)
        if escalate.bundle != self.bundle:
            return []
        if escalate.tier == "local":
            self._unasked.discard(key)
            if self._collector.opened_s(key) is None:
                self._open(key, now)
            return []
        fusion = self._running.get(key)
        if fusion is None or fusion.state is not State.KEPT:
            return []
        self._running.close(key).move(Signal.PASS_ON)
        return [self._make_uplink(key, fusion, [Tensor.of(np.asarray(fusion.features), bits=True)])]

    def _make_uplink(self, key: Key, fusion: Fusion, parts: list[Tensor]) -> Publish:
        features = Features(
            1,
            key.sample,
            self.bundle,
            fusion.mask,
            fusion.captured_at_s,
            tuple(parts),
            fusion.label,
            fusion.traffic,
            fusion.shortfall,
        )
        return Publish(Topic(key.site, Kind.UPLINK, self.node), features)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def _find_or_make(by_site: dict[str, Made], site: str, make: Callable[[], Made]) -> Made:
    """The entry of a site; a new one takes the place of the oldest where there are too many."""
    if site not in by_site:
        if len(by_site) >= MAX_SITES:
            del by_site[next(iter(by_site))]
        by_site[site] = make()
    return by_site[site]
