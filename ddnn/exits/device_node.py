"""The device's machine: run the section on every frame, and answer alone when nobody else does.

captured -> compute -> publish scores, keep features -> (escalate -> publish features)
                                |
                                +-> no result in time -> its own exit answers, marked
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Arrays
from ddnn.exits.manifest import Manifest, judge
from ddnn.exits.timing import Timing
from ddnn.machines.jobs import Jobs
from ddnn.machines.outbox import Outbox
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import Answer, Escalate, Features, Scores, Status, Tensor
from ddnn.protocol.topics import Kind, Topic, topic_filter

LIMIT = 256  # samples without an answer at a time; the oldest answers early beyond it


class _Sample:
    """What a device keeps of a sample until it is answered."""

    __slots__ = ("captured_at_s", "captured_s", "features", "label", "scores")

    def __init__(self, frame: Captured, captured_s: float) -> None:
        self.captured_at_s = frame.captured_at_s
        self.captured_s = captured_s  # monotonic
        self.label = frame.label
        self.scores: NDArray[np.float32] | None = None  # as receivers decode them
        self.features: NDArray[Any] | None = None


class FrameJob(NamedTuple):
    """The token of a Compute effect: the device's section on its frame of a sample."""

    node: str
    sample: int


class DeviceNode:
    """A device of the hierarchy. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        pending: Iterable[Answer] = (),
    ) -> None:
        self.site, self.node, self.bundle = site, node, bundle
        self.manifest, self.timing = manifest, timing
        self.outbox = Outbox(site, node, pending)
        self.counts = self.outbox.counts
        self._mask = manifest.hierarchy.mask([node])
        self._samples: Jobs[int, _Sample] = Jobs(LIMIT)
        self._connected = False
        self._lead: Status | None = None
        self._computing = False
        self._waiting: Captured | None = None  # newest frame wins while the section is busy

    @property
    def gauges(self) -> dict[str, float]:
        return self.outbox.gauges

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.ESCALATE, self.site),
            topic_filter(Kind.ANSWER, self.site),
            *self.outbox.subscriptions(),
        ]

    def deadline_s(self) -> float | None:
        times = (self._samples.next_due_s(), self.outbox.deadline_s())
        return min((t for t in times if t is not None), default=None)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = self.outbox.handle(event, now)
        match event:
            case Captured():
                effects += self._capture(event, now)
            case Computed(FrameJob(self.node, sample), outputs):
                effects += self._computed(sample, outputs, now)
            case Received(Topic(_, Kind.ESCALATE), Escalate() as escalate):
                effects += self._escalated(escalate)
            case Received(Topic(_, Kind.ANSWER), Answer() as answer):
                if answer.exit != "device" and self._samples.get(answer.sample):
                    self._samples.close(answer.sample)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                if node == self.manifest.hierarchy.lead:
                    self._lead_status(status)
            case Connected():
                self._connected = True
            case Disconnected():
                self._connected = False
                self._lead = None
            case Tick():
                pass
        for sample in self._samples.due(now.monotonic_s):
            effects += self._answer(sample, now)
        return effects

    # ---------------------------------------------------------------- a sample

    def _capture(self, frame: Captured, now: Now) -> list[Effect]:
        if self._samples.opened_s(frame.sample) is not None:
            self._count("frames_repeated")
            return []
        kept = _Sample(frame, now.monotonic_s)
        evicted = self._samples.open(
            frame.sample, kept, now.monotonic_s, now.monotonic_s + self.timing.device_s
        )
        effects = self._post(*evicted, now) if evicted else []
        if self.manifest.hierarchy.device_section:
            return [*effects, *self._compute(frame)]
        kept.features = frame.image["image"]
        features = self._features_message(frame.sample, kept)
        return [*effects, *features, *self._alone(frame.sample, now)]

    def _compute(self, frame: Captured) -> list[Effect]:
        """Run the section, or wait for it; a frame that waits gives way to a newer one."""
        if not self._computing:
            self._computing = True
            return [Compute(FrameJob(self.node, frame.sample), self.node, frame.image)]
        if self._waiting is not None and self._samples.get(self._waiting.sample):
            self._samples.close(self._waiting.sample)
            self._count("frames_skipped")
        self._waiting = frame
        return []

    def _computed(self, sample: int, outputs: Arrays | None, now: Now) -> list[Effect]:
        self._computing = False
        kept = self._samples.get(sample)
        effects: list[Effect] = []
        if outputs is None or not np.isfinite(outputs["scores"]).all():
            self._count("section_failed")
        elif kept is not None:
            wire = self.manifest.score_format.encode(outputs["scores"])
            kept.scores = self.manifest.score_format.decode(wire)
            kept.features = outputs["features"]
            if self._connected:
                effects.append(
                    Publish(
                        self._topic(Kind.SCORES),
                        Scores(
                            1,
                            sample,
                            self.bundle,
                            self._mask,
                            kept.captured_at_s,
                            Tensor.of(wire),
                            kept.label,
                        ),
                    )
                )
            effects += self._alone(sample, now)
        if self._waiting is not None:
            frame, self._waiting = self._waiting, None
            if self._samples.get(frame.sample):  # not answered meanwhile
                effects += self._compute(frame)
        return effects

    def _escalated(self, escalate: Escalate) -> list[Effect]:
        kept = self._samples.get(escalate.sample)
        if escalate.tier != "local" or kept is None or escalate.bundle != self.bundle:
            return []
        return self._features_message(escalate.sample, kept)

    def _features_message(self, sample: int, kept: _Sample) -> list[Effect]:
        """The features, once: they are dropped when they are sent."""
        features, kept.features = kept.features, None
        if features is None or not self._connected:
            return []
        bits = self.manifest.hierarchy.device_section
        return [
            Publish(
                self._topic(Kind.FEATURES),
                Features(
                    1,
                    sample,
                    self.bundle,
                    self._mask,
                    kept.captured_at_s,
                    (Tensor.of(features, bits=bits),),
                    kept.label,
                ),
            )
        ]

    # ------------------------------------------------------------- on its own

    def _alone(self, sample: int, now: Now) -> list[Effect]:
        """Answer at once where it is known that no edge will."""
        away = not self._connected or (self._lead is not None and self._lead.state != "online")
        return self._answer(sample, now) if away else []

    def _lead_status(self, status: Status) -> None:
        """Births, and only those Wills that are of the session that lives."""
        same = self._lead is None or self._lead.session == status.session
        if status.state == "online" or same:
            self._lead = status

    def _answer(self, sample: int, now: Now) -> list[Effect]:
        return self._post(sample, self._samples.close(sample), now)

    def _post(self, sample: int, kept: _Sample, now: Now) -> list[Effect]:
        """The device's own exit: what one camera can say, and that it is no more than that."""
        self._count("answered_alone")
        label, probabilities, eta = -1, [], 1.0
        if kept.scores is not None:
            own = judge(self.manifest, "device", kept.scores, self._mask)
            label, probabilities, eta = own.label, own.probabilities, own.eta
        answer = Answer(
            sample=sample,
            node=self.node,
            exit="device",
            label=label,
            probabilities=probabilities,
            eta=eta,
            members=[self.node],
            missing=[d for d in self.manifest.hierarchy.devices if d != self.node],
            quality="degraded",
            expected_accuracy=self.manifest.device_accuracy.get(self.node),
            bundle=self.bundle,
            captured_at_s=kept.captured_at_s,
            answered_at_s=now.wall_s,
            latency_s=now.monotonic_s - kept.captured_s,
            truth=kept.label,
            votes={self.node: (label, max(probabilities))} if probabilities else {},
            exit_trace=[("device", label, eta)],
        )
        return self.outbox.post(answer, now)

    def _topic(self, kind: Kind) -> Topic:
        return Topic(self.site, kind, self.node)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def own_section(manifest: Manifest, node: str) -> Sequence[str]:
    """The sections that this node runs."""
    return (node,) if manifest.hierarchy.device_section else ()
