"""The lead edge's machine: gather scores, ask whether the exit is sure, escalate or answer.

    stage      waits for                    then
    local      scores of the devices        sure: answer; else ask the devices for features
    edge       scores of the edges          sure: answer; else ask the edges for features
    cloud      the cloud's scores           answer
A stage that waits in vain, and in any case the deadline, ends in an answer with the deepest exit
at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.core.clock_offset import ClockOffset
from ddnn.errors import ConfigError
from ddnn.exits.entropy import softmax
from ddnn.exits.hierarchy import CLOUD, Exit
from ddnn.exits.manifest import Judgement, Manifest, exit_scores, judge
from ddnn.exits.timing import Timing
from ddnn.machines.jobs import Jobs
from ddnn.machines.membership import AnyOf, Membership
from ddnn.machines.outbox import Outbox
from ddnn.protocol.machine import (
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import (
    Answer,
    Escalate,
    ExitName,
    Features,
    Scores,
    Status,
    Thresholds,
    TimeReply,
    TimeRequest,
    add_traffic,
)
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

MOST_REVISIONS = 1 << 40  # a greater one is nonsense, and would refuse all that come after it
MAX_SCORE = 1e9  # beyond it a sum of scores may overflow, and the answer would be no number


class _Sample:
    """A sample on its way through the exits."""

    __slots__ = (
        "answer_by_s",
        "best",
        "captured_at_s",
        "captured_s",
        "exit_trace",
        "label",
        "masks",
        "scores",
        "stage",
        "traffic",
        "traffic_below",
    )

    def __init__(self, captured_at_s: float, captured_s: float, stage: Exit, by_s: float) -> None:
        self.captured_at_s = captured_at_s  # the device's wall clock
        self.captured_s = captured_s  # our monotonic clock
        self.stage = stage
        self.answer_by_s = by_s
        self.scores: dict[Exit, dict[str, NDArray[np.float32]]] = {"local": {}, "edge": {}}
        self.masks: dict[str, int] = {}  # edge -> the devices it fused
        self.best: Judgement | None = None
        self.exit_trace: list[tuple[ExitName, int, float]] = []
        self.label: int | None = None
        self.traffic = (0, 0)  # payload, wire bytes that devices sent as scores
        self.traffic_below = (0, 0)  # … as features, told by the tier that gathered them


class ExitNode:
    """Decides at every exit and answers. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        outbox: Outbox,
    ) -> None:
        hierarchy = manifest.hierarchy
        self.site, self.node, self.bundle = site, node, bundle
        self._own, self.timing, self.outbox = manifest, timing, outbox
        self.manifest = manifest  # with the thresholds in use
        self.revision = 0  # of the thresholds in use; 0: the bundle's own
        self.counts: dict[str, int] = {}
        self._devices = hierarchy.devices
        self._edges = tuple(group.id for group in hierarchy.edges)
        self._clouds = AnyOf()
        self._membership = Membership((*self._devices, *self._edges, CLOUD))
        self._membership.reported(node)
        self._offsets: dict[str, ClockOffset] = {d: ClockOffset() for d in self._devices}
        self._samples: Jobs[int, _Sample] = Jobs()

    def subscriptions(self) -> list[str]:
        own = [self._devices, [edge for edge in self._edges if edge != self.node]]
        kind = Kind.SCORES if self.manifest.hierarchy.local_exit else Kind.FEATURES
        return [
            *(topic_filter(kind, self.site, device) for device in own[0]),
            *(topic_filter(Kind.SCORES, self.site, edge) for edge in own[1]),
            topic_filter(Kind.VERDICT, self.site, self.node),
            topic_filter(Kind.THRESHOLDS, self.site, self.node),
            topic_filter(Kind.TIME_REQUEST, self.site),
            *presence_filters(self.site),
        ]

    def deadline_s(self) -> float | None:
        return self._samples.next_due_s()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.SCORES, node), Scores() as message):
                if node in self._devices:
                    effects = self._device_scores(node, message, event.wire_bytes, now)
                elif node in self._edges:
                    effects = self._edge_scores(node, message, now)
                else:
                    self._count("scores_refused")
            case Received(Topic(_, Kind.FEATURES, node), Features() as message):
                if not self.manifest.hierarchy.local_exit and node in self._devices:
                    self._sample(node, message, now)  # nothing is asked: only keep the deadline
            case Received(Topic(_, Kind.VERDICT, self.node), Scores() as message):
                effects = self._verdict(message, now)
            case Received(Topic(site, Kind.STATUS, node), Status() as status):
                if self._present(site, node, status):
                    effects = self._membership_changed(now)
            case Received(Topic(_, Kind.THRESHOLDS, self.node), Thresholds() as command):
                self._command(command)
            case Received(Topic(_, Kind.TIME_REQUEST, node), TimeRequest(asked_at_s)):
                reply = TimeReply(asked_at_s, now.wall_s)
                effects = [Publish(Topic(self.site, Kind.TIME_REPLY, node), reply)]
            case Disconnected():
                self._clouds.clear()
                self._membership = Membership((*self._devices, *self._edges, CLOUD))
                self._membership.reported(self.node)
        for sample in self._samples.due(now.monotonic_s):
            effects += self._due(sample, now)
        return effects

    @property
    def gauges(self) -> dict[str, float]:
        """The thresholds in use, so that who commanded them sees them applied, and whether a cloud
        is there: of several, whatever their names, any will do."""
        thresholds = {f"threshold_{tier}": t for tier, t in self.manifest.thresholds.items()}
        revision, cloud_up = float(self.revision), float(CLOUD in self._membership.live)
        return {**thresholds, "threshold_revision": revision, "cloud_up": cloud_up}

    def _present(self, site: str, node: str, status: Status) -> bool:
        """Whether it changed who is live. Of the clouds any will do: CLOUD stands for all."""
        if status.role != "cloud":
            return node != CLOUD and self._membership.status(node, status)
        self._clouds.status(f"{site}/{node}", status)
        state: Literal["online", "lost"] = "online" if self._clouds else "lost"
        return self._membership.status(CLOUD, Status("cloud", 0, state))

    def _command(self, command: Thresholds) -> None:
        """Use other thresholds, from the next decision on. Retained: it comes at every connect."""
        fits = self.revision <= command.revision <= MOST_REVISIONS
        if command.bundle != self.bundle or not fits:
            self._count("thresholds_refused")
            return
        try:
            self.manifest = self._own.with_thresholds(
                {str(t): v for t, v in command.thresholds.items()}
            )
        except ConfigError:
            self._count("thresholds_refused")
            return
        self.revision = command.revision

    # ------------------------------------------------------------ scores come in

    def _sample(self, device: str, message: Scores | Features, now: Now) -> _Sample | None:
        """The open sample that a device's message belongs to, opened if it is new."""
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return None
        age_s = self._offsets[device].age_s(message.captured_at_s, now.monotonic_s)
        opened_s = self._samples.opened_s(message.sample)
        if opened_s is not None:
            if now.monotonic_s <= opened_s + self.timing.window_s:
                self._membership.reported(device)
            return self._samples.get(message.sample)
        if age_s > self.timing.edge_s:
            self._count("expired")  # a queue that stood still: its device has long answered
            return None
        self._membership.reported(device)
        captured_s = now.monotonic_s - age_s
        stage = self.manifest.hierarchy.exits[0]
        by_s = captured_s + self.timing.edge_s
        sample = _Sample(message.captured_at_s, captured_s, stage, by_s)
        due_s = now.monotonic_s + self.timing.window_s if stage == "local" else by_s
        evicted = self._samples.open(message.sample, sample, now.monotonic_s, min(due_s, by_s))
        if evicted is not None:
            self._count("evicted")
        return sample

    def _vector(self, message: Scores) -> NDArray[np.float32] | None:
        if message.scores.shape != (len(self.manifest.classes),):
            return None
        vector = message.scores.array()
        within = np.abs(vector.astype(np.float32)) <= MAX_SCORE  # NaN is not
        return vector if within.all() else None

    def _device_scores(
        self, device: str, message: Scores, wire_bytes: int, now: Now
    ) -> list[Effect]:
        vector = self._vector(message)
        wire_type = self.manifest.score_format.type
        own = self.manifest.hierarchy.mask([device])
        if vector is None or message.scores.type != wire_type or message.members != own:
            self._count("scores_refused")
            return []
        sample = self._sample(device, message, now)
        if sample is None or sample.stage != "local" or device in sample.scores["local"]:
            self._count("scores_late")
            return []
        sample.scores["local"][device] = self.manifest.score_format.decode(vector)
        sample.traffic = add_traffic(sample.traffic, (len(message.scores.data), wire_bytes))
        self._take_label(sample, message.label)
        return self._if_complete(message.sample, sample, now)

    def _edge_scores(self, edge: str, message: Scores, now: Now) -> list[Effect]:
        sample = self._samples.get(message.sample)
        vector = self._vector(message)
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return []
        if vector is None or message.scores.type != "float32":
            self._count("scores_refused")
            return []
        self._in_time(edge, message.sample, now)
        if sample is None or sample.stage != "edge" or edge in sample.scores["edge"]:
            self._count("scores_late")
            return []
        sample.scores["edge"][edge] = vector
        sample.masks[edge] = message.members & self.manifest.hierarchy.mask(
            self.manifest.hierarchy.group(edge).devices
        )
        sample.traffic_below = add_traffic(sample.traffic_below, message.traffic)
        self._take_label(sample, message.label)
        return self._if_complete(message.sample, sample, now)

    def _verdict(self, message: Scores, now: Now) -> list[Effect]:
        sample = self._samples.get(message.sample)
        vector = self._vector(message)
        if message.bundle != self.bundle or vector is None or message.scores.type != "float32":
            self._count("verdict_refused")
            return []
        self._in_time(CLOUD, message.sample, now)
        if sample is None or sample.stage != "cloud":
            self._count("verdict_late")
            return []
        if not self.manifest.hierarchy.edge_section:
            sample.traffic_below = message.traffic
        self._take_label(sample, message.label)
        mask = message.members & self.manifest.hierarchy.everyone
        self._judge(sample, "cloud", vector, mask)
        return self._answer(message.sample, now)

    def _in_time(self, node: str, key: int, now: Now) -> None:
        """An upper tier is worth waiting for if it speaks before the answer is due."""
        opened_s = self._samples.opened_s(key)
        if opened_s is not None and now.monotonic_s <= opened_s + self.timing.edge_s:
            self._membership.reported(node)

    @staticmethod
    def _take_label(sample: _Sample, label: int | None) -> None:
        if label is not None:
            sample.label = max(label, -1 if sample.label is None else sample.label)

    # ------------------------------------------------------------------ decide

    def _nodes(self, stage: Exit) -> tuple[str, ...]:
        return self._devices if stage == "local" else self._edges

    def _if_complete(self, key: int, sample: _Sample, now: Now) -> list[Effect]:
        awaited = self._membership.live.intersection(self._nodes(sample.stage))
        if awaited <= sample.scores[sample.stage].keys():
            return self._decide(key, sample, now)
        return []

    def _decide(self, key: int, sample: _Sample, now: Now) -> list[Effect]:
        """The exit rule at the sample's stage."""
        stage = sample.stage
        nodes, scores = self._nodes(stage), sample.scores[stage]
        if scores:
            mask = self.manifest.hierarchy.mask(scores)
            if stage == "edge":
                mask = 0
                for edge in scores:
                    mask |= sample.masks[edge]
            fused = exit_scores(self.manifest, stage, [scores.get(node) for node in nodes])
            if self._judge(sample, stage, fused, mask).sure:
                return self._answer(key, now)
        return self._escalate(key, sample, now)

    def _judge(
        self, sample: _Sample, stage: Exit, scores: NDArray[np.float32], mask: int
    ) -> Judgement:
        best = judge(self.manifest, stage, scores, mask)
        sample.best = best
        sample.exit_trace.append((stage, best.label, best.eta))
        return best

    def _escalate(self, key: int, sample: _Sample, now: Now) -> list[Effect]:
        exits = self.manifest.hierarchy.exits
        tier = sample.stage
        if tier == "edge" and not sample.scores["edge"]:
            return self._answer(key, now)  # no edge has features to send further
        sample.stage = exits[exits.index(tier) + 1]
        ask: list[Effect] = [
            Publish(
                Topic(self.site, Kind.ESCALATE),
                Escalate(1, key, self.bundle, "edge" if tier == "edge" else "local"),
            )
        ]
        if sample.stage == "cloud" and CLOUD not in self._membership.live:
            if not self._membership.probe(CLOUD, now.monotonic_s):
                ask = []
            return [*ask, *self._answer(key, now)]
        wait_s = 2 * self.timing.window_s if sample.stage == "edge" else self.timing.deadline_s
        self._samples.reschedule(key, min(now.monotonic_s + wait_s, sample.answer_by_s))
        return ask

    def _due(self, key: int, now: Now) -> list[Effect]:
        """A stage's wait is over."""
        sample = self._samples.get(key)
        if sample is None:
            return []
        if sample.stage == "cloud":
            self._membership.missed([CLOUD], now.monotonic_s)
            return self._answer(key, now)
        awaited = self._membership.live.intersection(self._nodes(sample.stage))
        self._membership.missed(awaited - sample.scores[sample.stage].keys(), now.monotonic_s)
        if now.monotonic_s >= sample.answer_by_s:
            return self._answer(key, now)
        return self._decide(key, sample, now)

    def _membership_changed(self, now: Now) -> list[Effect]:
        """Somebody came or went: samples that waited only for them need not wait any more."""
        effects: list[Effect] = []
        for key, sample in self._samples.items():
            if sample.stage != "cloud":
                effects += self._if_complete(key, sample, now)
            elif CLOUD not in self._membership.live:
                effects += self._answer(key, now)
        return effects

    # ------------------------------------------------------------------ answer

    def _answer(self, key: int, now: Now) -> list[Effect]:
        sample = self._samples.close(key)
        best = sample.best
        hierarchy = self.manifest.hierarchy
        if best is None:
            self._count("unanswered")  # nobody's scores came: the devices answer for themselves
            return []
        mask = best.mask
        payload_bytes, wire_bytes = add_traffic(sample.traffic, sample.traffic_below)
        members = hierarchy.members(mask)
        full = best.sure and mask == hierarchy.everyone
        answer = Answer(
            sample=key,
            node=self.node,
            exit=best.exit,
            label=best.label,
            probabilities=best.probabilities,
            eta=best.eta,
            members=list(members),
            missing=[device for device in hierarchy.devices if device not in members],
            quality="full" if full else "degraded",
            expected_accuracy=self.manifest.expected_accuracy(
                mask, "overall" if best.sure else best.exit
            ),
            bundle=self.bundle,
            captured_at_s=sample.captured_at_s,
            answered_at_s=now.wall_s,
            latency_s=now.monotonic_s - sample.captured_s,
            truth=sample.label,
            payload_bytes=payload_bytes,
            wire_bytes=wire_bytes,
            votes=votes(sample.scores["local"]),
            exit_trace=sample.exit_trace,
        )
        self._count(f"exit_{best.exit}")
        return self.outbox.post(answer, now)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def votes(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[int, float]]:
    """What each device alone says, and how probable it finds it. scores: [classes] by device."""
    if not scores:
        return {}
    probabilities = softmax(np.stack(list(scores.values())))
    best = probabilities.argmax(axis=-1).tolist()
    return {
        device: (label, float(row[label]))
        for device, label, row in zip(scores, best, probabilities, strict=True)
    }
