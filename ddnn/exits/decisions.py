"""The open samples of the lead edge: collects scores exit by exit, then answers or escalates."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Judgement, aggregate_scores, judge
from ddnn.exits.presence import HierarchyPresence
from ddnn.exits.receipts import Receipts
from ddnn.exits.sample import EXITS, STATES, Sample, Signal, State, make_answer, make_votes
from ddnn.exits.thresholds import ThresholdsInUse
from ddnn.exits.timing import Timing
from ddnn.machines.collect import Collector, Expired, Outcome, Receipt
from ddnn.machines.outbox import Outbox
from ddnn.machines.pace import PaceControl
from ddnn.machines.window import Window
from ddnn.protocol.machine import Effect, Now, Publish
from ddnn.protocol.messages import Escalate, Shortfall, TrafficBytes, add_shortfall
from ddnn.protocol.topics import Kind, Topic

LIMIT = 1024  # open samples; beyond it the oldest is dropped
REMEMBER = 3 * 8192  # closed collections, of which a sample has up to three
# How many windows each state waits for scores. The edges wait for features first, which takes a
# window of its own; the wait for the cloud ends when the answer is due.
WINDOWS: Mapping[State, float] = {State.LOCAL: 1, State.EDGE: 2, State.CLOUD: math.inf}


class Key(NamedTuple):
    """The key of a collection: a sample in one of its states."""

    sample: int
    state: State


class Report(NamedTuple):
    """The report of a node on a sample."""

    scores: NDArray[np.float32]  # [classes]
    mask: int  # of the devices that contributed
    label: int | None
    traffic: TrafficBytes  # of the devices, below this node
    shortfall: Shortfall | None = None


class Decisions:
    """Decides at every exit and answers. Each open sample has one open collection, of its state."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        thresholds: ThresholdsInUse,
        timing: Timing,
        presence: HierarchyPresence,
        outbox: Outbox,
        receipts: Receipts,
        pace: PaceControl,
    ) -> None:
        hierarchy = thresholds.manifest.hierarchy
        self.counts: dict[str, int] = {}
        self._site, self._node, self._bundle = site, node, bundle
        self._thresholds, self._timing, self._hierarchy = thresholds, timing, hierarchy
        self._presence, self._outbox = presence, outbox
        self._receipts, self._pace = receipts, pace
        self._first = STATES[hierarchy.exits[0]]
        self._nodes = {
            State.LOCAL: hierarchy.devices,
            State.EDGE: tuple(group.id for group in hierarchy.edges),
            State.CLOUD: (CLOUD,),
        }
        self._expected = {
            state: {node: frozenset([node]) for node in nodes}
            for state, nodes in self._nodes.items()
        }
        self._window = Window()
        self._samples: dict[int, Sample] = {}
        self._collector: Collector[Key, Report] = Collector(LIMIT, REMEMBER)

    def __len__(self) -> int:
        return len(self._samples)

    def deadline_s(self) -> float | None:
        return self._collector.next_due_s()

    @property
    def gauges(self) -> dict[str, float]:
        """How many samples may wait for the cloud."""
        return {"cloud_window": round(self._window.size, 1)}

    def opened_s(self, sample: int) -> float | None:
        """When the sample was opened, also where it is answered already; None: unknown."""
        return self.asked_s(sample, self._first)

    def asked_s(self, sample: int, state: State) -> float | None:
        """When the sample began to wait for the scores of this state; None: unknown."""
        return self._collector.opened_s(Key(sample, state))

    def open(
        self,
        number: int,
        captured_at_s: float,
        captured_s: float,
        now: Now,
        ahead_s: float = 0.0,
    ) -> None:
        """Open a sample; captured_at_s is by its device's clock, captured_s by this node's.

        ahead_s: how long before the others its first device has reported.
        """
        answer_by_s = captured_s + self._timing.edge_s
        sample = Sample(number, captured_at_s, captured_s, answer_by_s, self._first)
        self._samples[number] = sample
        self._collect(sample, now, ahead_s)

    def take(
        self, number: int, state: State, node: str, report: Report, now: Now
    ) -> tuple[bool, list[Effect]]:
        """Add a report. False where the sample does not wait for it: it is early, late or known."""
        key = Key(number, state)
        receipt, outcomes = self._collector.receive(key, node, node, report, now.monotonic_s)
        taken = receipt is Receipt.TAKEN
        if taken:
            self._samples[number].add(report.label, report.traffic)
        return taken, self._conclude(outcomes, now)

    def review(self, now: Now) -> list[Effect]:
        """Decide on the samples that no longer wait for any node after one came or went."""
        outcomes = self._collector.review(self._collector.open_keys(), now.monotonic_s)
        return self._conclude(outcomes, now)

    def end_due(self, now: Now) -> list[Effect]:
        """Decide on the samples whose wait is over."""
        return self._conclude(self._collector.end_due(now.monotonic_s), now)

    # ----------------------------------------------------------------- collect

    def _collect(self, sample: Sample, now: Now, ahead_s: float = 0.0) -> None:
        """Wait for the scores of the sample's state."""
        from_s = now.monotonic_s + ahead_s
        window_s = WINDOWS[sample.state] * self._timing.window_s
        evicted = self._collector.open(
            Key(sample.number, sample.state),
            self._expected[sample.state],
            partial(self._is_enough, sample.state),
            from_s,
            min(from_s + window_s, sample.answer_by_s),
        )
        for outcome in evicted:
            self._window.drop(outcome.key.sample)
            self._samples.pop(outcome.key.sample).move(Signal.DROP)
            self._count("evicted")

    def _is_enough(self, state: State, reported: Collection[str]) -> bool:
        """Whether all live nodes have reported; which are live may change while a sample waits."""
        return self._presence.live.intersection(self._nodes[state]).issubset(reported)

    def _conclude(self, outcomes: list[Outcome[Key, Report]], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for outcome in outcomes:
            sample = self._samples.get(outcome.key.sample)
            if sample is None or sample.state is not outcome.key.state:
                continue  # the collection was complete before it ended
            self._collector.end(outcome.key)
            overdue = False
            if isinstance(outcome, Expired):
                self._presence.note_misses(outcome.missing, now.monotonic_s)
                overdue = now.monotonic_s >= sample.answer_by_s
            if sample.state is State.LOCAL:
                self._pace.note_sample(outcome.parts)
                sample.votes = make_votes({n: r.scores for n, r in outcome.parts.items()})
            elif sample.state is State.CLOUD:
                self._note_cloud(sample.number, outcome, now)
            if overdue or not outcome.parts:
                if outcome.parts:  # too late to send it on, but not to use what there is
                    sample.take(self._judge(sample.state, outcome.parts))
                effects += self._answer(sample, now)
            else:
                effects += self._decide(sample, outcome.parts, now)
        return effects

    def _note_cloud(self, number: int, outcome: Outcome[Key, Report], now: Now) -> None:
        """Note how the cloud keeps up. One that is away is none of the window's business."""
        if outcome.parts:
            self._window.receive(number, now.monotonic_s)
        elif isinstance(outcome, Expired):
            self._window.miss(number, now.monotonic_s)
        else:
            self._window.drop(number)

    # ------------------------------------------------------------------ decide

    def _decide(self, sample: Sample, reports: Mapping[str, Report], now: Now) -> list[Effect]:
        """Apply the exit rule to the reports of the sample's state."""
        judgement = self._judge(sample.state, reports)
        sample.take(judgement)
        if not judgement.sure:
            return self._escalate(sample, now)
        if sample.state is State.LOCAL and self._thresholds.audits(sample.number):
            self._count("audited")
            return self._escalate(sample, now)  # without a cloud this answers
        return self._answer(sample, now)

    def _judge(self, state: State, reports: Mapping[str, Report]) -> Judgement:
        manifest, mask, shortfall = self._thresholds.manifest, 0, None
        for report in reports.values():
            mask |= report.mask
            shortfall = add_shortfall(shortfall, report.shortfall)
        if state is State.CLOUD:
            return judge(manifest, "cloud", reports[CLOUD].scores, mask, shortfall)
        tier = EXITS[state]
        parts = [reports[n].scores if n in reports else None for n in self._nodes[state]]
        return judge(manifest, tier, aggregate_scores(manifest, tier, parts), mask, shortfall)

    def _escalate(self, sample: Sample, now: Now) -> list[Effect]:
        """Ask the nodes of the sample's tier for features, so that the next tier can report."""
        exits, tier = self._hierarchy.exits, EXITS[sample.state]
        to_edge = exits[exits.index(tier) + 1] == "edge"
        message = Escalate(1, sample.number, self._bundle, "edge" if tier == "edge" else "local")
        ask: list[Effect] = [Publish(Topic(self._site, Kind.ESCALATE), message)]
        if not to_edge and not self._presence.cloud_is_live:
            probe = self._presence.probe_cloud(now.monotonic_s)
            return [*(ask if probe else []), *self._answer(sample, now)]
        if not to_edge:
            if self._window.is_full:
                self._count("cloud_shed")
                return self._answer(sample, now)
            self._window.send(sample.number, now.monotonic_s, sample.answer_by_s)
        sample.move(Signal.ASK_EDGE if to_edge else Signal.ASK_CLOUD)
        self._collect(sample, now)
        return ask

    def _answer(self, sample: Sample, now: Now) -> list[Effect]:
        del self._samples[sample.number]
        best = sample.best
        if best is None:  # no scores arrived: the devices answer alone
            sample.move(Signal.DROP)
            self._count("unanswered")
            return []
        sample.move(Signal.ANSWER)
        self._count(f"exit_{best.exit}")
        manifest = self._thresholds.manifest
        answer = make_answer(sample, best, self._node, self._bundle, manifest, now)
        return [*self._outbox.post(answer, now), *self._receipts.add(sample.number, now)]

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
