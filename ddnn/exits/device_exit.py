"""A device by one bundle: runs the section on every frame, and answers alone where no edge does.

    state       signal    next
    WAITING     START     COMPUTING   the section is free and no newer frame waits
    COMPUTING   FINISH    READY       scores are sent, features are kept
    COMPUTING   FAIL      FAILED      there is nothing to send
    READY       SEND      SENT        the edge asks for the features, which are kept no longer
    WAITING     CLOSE     CLOSED      a newer frame waits, or as below
    COMPUTING   CLOSE     CLOSED      the sample is answered or shed, or this device answers alone:
    READY       CLOSE     CLOSED      the time is over, no edge is there, or too many are open
    FAILED      CLOSE     CLOSED
    SENT        CLOSE     CLOSED
A device without a section begins in READY: its features are the raw image.

Where the edge is silent one device answers for all: `turns` says which, and who follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Arrays
from ddnn.exits.answers import make_own_answer
from ddnn.exits.manifest import Manifest
from ddnn.exits.pace_follower import PaceFollower
from ddnn.exits.timing import Timing
from ddnn.exits.turns import Turns
from ddnn.machines.jobs import Jobs
from ddnn.machines.outbox import Outbox
from ddnn.machines.states import advance
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
    find_earliest,
)
from ddnn.protocol.messages import (
    MAX_COUNT,
    Answered,
    Escalate,
    Features,
    PaceCommand,
    Scores,
    Status,
    Tensor,
)
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

LIMIT = 1024  # open samples; beyond it the device answers the oldest early


class State(Enum):
    """The states of a sample at its device."""

    WAITING = auto()
    COMPUTING = auto()
    READY = auto()
    FAILED = auto()
    SENT = auto()
    CLOSED = auto()


class Signal(Enum):
    """What moves a sample from one state to the next."""

    START = auto()
    FINISH = auto()
    FAIL = auto()
    SEND = auto()
    CLOSE = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.WAITING, Signal.START): State.COMPUTING,
    (State.COMPUTING, Signal.FINISH): State.READY,
    (State.COMPUTING, Signal.FAIL): State.FAILED,
    (State.READY, Signal.SEND): State.SENT,
    (State.WAITING, Signal.CLOSE): State.CLOSED,
    (State.COMPUTING, Signal.CLOSE): State.CLOSED,
    (State.READY, Signal.CLOSE): State.CLOSED,
    (State.FAILED, Signal.CLOSE): State.CLOSED,
    (State.SENT, Signal.CLOSE): State.CLOSED,
}


@dataclass(slots=True)
class _Sample:
    """What a device keeps of a sample until it is answered."""

    captured_at_s: float  # by the wall clock
    captured_s: float  # by the monotonic clock
    label: int | None
    state: State
    scores: NDArray[np.float32] | None = None  # as receivers decode them
    features: NDArray[Any] | None = None  # read in state READY only
    is_turn: bool = False  # whether the device answers when the time is over
    is_answered: bool = False  # by another node, before this one had its frame

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "a sample")


class _EarlyAnswers:
    """The newest samples that others have answered before this device had its frames."""

    def __init__(self) -> None:
        self._samples: dict[int, bool] = {}  # in the order of the answers

    def add(self, sample: int) -> None:
        self._samples[sample] = True
        if len(self._samples) > LIMIT:
            del self._samples[next(iter(self._samples))]

    def remove(self, sample: int) -> bool:
        """Whether the sample was among them; it is not any more."""
        return self._samples.pop(sample, False)


class FrameJob(NamedTuple):
    """The token of a Compute effect: the device's section on its frame of a sample."""

    node: str
    sample: int


class DeviceExit:
    """What a device of the hierarchy does by one bundle. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        outbox: Outbox,
        pace: PaceFollower,
    ) -> None:
        """outbox, pace: the node's own, whose events another part of the node takes."""
        self.site, self.node, self.bundle = site, node, bundle
        self.manifest, self.timing = manifest, timing
        self.counts: dict[str, int] = {}
        self._mask = manifest.hierarchy.make_mask([node])
        self._samples: Jobs[int, _Sample] = Jobs(LIMIT)
        self._outbox, self._pace = outbox, pace
        self._turns = Turns(node, manifest.hierarchy.devices, timing)
        self._early = _EarlyAnswers()
        self._connected = False
        self._lead: Status | None = None
        self._busy = False  # the section, perhaps on a sample that is closed already
        self._waiting: Captured | None = None  # the newest frame while the section is busy

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.ESCALATE, self.site),
            topic_filter(Kind.ANSWERED, self.site),
            topic_filter(Kind.PACE, self.site, self.manifest.hierarchy.lead),
            *presence_filters(self.site),
        ]

    def deadline_s(self) -> float | None:
        times = (self._samples.next_due_s(), self._pace.deadline_s())
        return find_earliest(times)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Captured():
                effects += self._capture(event, now)
            case Computed(FrameJob(self.node, sample), outputs):
                effects += self._finish(sample, outputs, now)
            case Received(Topic(_, Kind.ESCALATE), Escalate() as escalate):
                effects += self._escalate(escalate)
            case Received(Topic(_, Kind.ANSWERED, node), Answered() as answered):
                self._take_answered(node, answered)
            case Received(Topic(_, Kind.PACE), PaceCommand() as command):
                self._take_pace(command)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                self._turns.take_status(node, status)
                if node == self.manifest.hierarchy.lead:
                    self._take_lead(status)
            case Connected():
                self._connected = True
            case Disconnected():
                self._connected = False
                self._lead = None
                self._turns.disconnect()
        self._pace.follow(self._lead is not None and self._lead.state == "online", now.monotonic_s)
        for sample in self._samples.due(now.monotonic_s):
            effects += self._end_wait(sample, now)
        return effects

    # ---------------------------------------------------------------- a sample

    def _capture(self, frame: Captured, now: Now) -> list[Effect]:
        if not 0 <= frame.sample <= MAX_COUNT:  # of a clock before 1970: nobody could read it
            self._count("frames_refused")
            return []
        if self._samples.opened_s(frame.sample) is not None:
            self._count("frames_repeated")
            return []
        if not self._pace.history.is_admitted(frame.sample):
            self._count("frames_shed")
            return []
        has_section = self.manifest.hierarchy.device_section
        state = State.WAITING if has_section else State.READY
        sample = _Sample(frame.captured_at_s, now.monotonic_s, frame.label, state)
        due_s = now.monotonic_s + self.timing.device_s
        sample.is_answered = self._early.remove(frame.sample)
        evicted = self._samples.open(frame.sample, sample, now.monotonic_s, due_s)
        effects = self._post(*evicted, now) if evicted else []
        if has_section:
            return [*effects, *self._compute(frame, sample)]
        sample.features = frame.image["image"]
        effects += self._send_features(frame.sample, sample)
        return [*effects, *self._answer_if_alone(frame.sample, now)]

    def _compute(self, frame: Captured, sample: _Sample) -> list[Effect]:
        """Run the section, or wait until it is free; a newer frame replaces a waiting one."""
        if not self._busy:
            self._busy = True
            sample.move(Signal.START)
            return [Compute(FrameJob(self.node, frame.sample), self.node, frame.image)]
        if self._waiting is not None and self._samples.get(self._waiting.sample):
            self._close(self._waiting.sample)
            self._count("frames_skipped")
        self._waiting = frame
        return []

    def _finish(self, number: int, outputs: Arrays | None, now: Now) -> list[Effect]:
        """Take the section's outputs (None: it failed), and run it on the waiting frame."""
        self._busy = False
        effects: list[Effect] = []
        sample = self._samples.get(number)
        computing = sample is not None and sample.state is State.COMPUTING
        if outputs is None or not np.isfinite(outputs["scores"]).all():
            self._count("section_failed")
            if sample is not None and computing:
                sample.move(Signal.FAIL)
        elif sample is not None and computing:
            sample.move(Signal.FINISH)
            wire = self.manifest.score_format.encode(outputs["scores"])
            sample.scores = self.manifest.score_format.decode(wire)
            sample.features = outputs["features"]
            effects += self._send_scores(number, sample, wire)
            effects += self._answer_if_alone(number, now)
        frame, self._waiting = self._waiting, None
        if frame is not None:
            waiting = self._samples.get(frame.sample)
            if waiting is not None:  # not answered meanwhile
                effects += self._compute(frame, waiting)
        return effects

    def _send_scores(self, number: int, sample: _Sample, wire: NDArray[Any]) -> list[Effect]:
        if not self._connected:
            return []
        at_s, scores = sample.captured_at_s, Tensor.of(wire)
        message = Scores(1, number, self.bundle, self._mask, at_s, scores, sample.label)
        return [Publish(self._topic(Kind.SCORES), message)]

    def _escalate(self, escalate: Escalate) -> list[Effect]:
        sample = self._samples.get(escalate.sample)
        if escalate.tier != "local" or sample is None or escalate.bundle != self.bundle:
            return []
        return self._send_features(escalate.sample, sample)

    def _send_features(self, number: int, sample: _Sample) -> list[Effect]:
        """Send the features, once: they are kept no longer."""
        if sample.state is not State.READY:
            return []
        sample.move(Signal.SEND)
        features, sample.features = sample.features, None
        if features is None or not self._connected:
            return []
        at_s = sample.captured_at_s
        parts = (Tensor.of(features, bits=self.manifest.hierarchy.device_section),)
        message = Features(1, number, self.bundle, self._mask, at_s, parts, sample.label)
        return [Publish(self._topic(Kind.FEATURES), message)]

    # ------------------------------------------------------------- on its own

    def _answer_if_alone(self, number: int, now: Now) -> list[Effect]:
        """Answer at once where no edge can: the broker or the lead edge is away."""
        if not self._connected:
            return self._answer(number, now)
        if self._lead is None or self._lead.state == "online":
            return []
        sample, wait_s = self._samples.get(number), self._turns.find_wait_s(number)
        if wait_s == 0 or sample is None:
            return self._answer(number, now)
        sample.is_turn = True  # if no other device answers before it
        self._samples.reschedule(number, now.monotonic_s + wait_s)
        return []

    def _end_wait(self, number: int, now: Now) -> list[Effect]:
        """The edge is silent: answer, or wait while it is another device's turn."""
        sample = self._samples.get(number)
        if sample is None or sample.is_turn or not self._connected:
            return self._answer(number, now)
        can_answer = sample.scores is not None or not self.manifest.hierarchy.device_section
        until_s = sample.captured_s + self._turns.find_answer_by_s(number, can_answer)
        if until_s <= now.monotonic_s:
            return self._answer(number, now)
        sample.is_turn = True
        self._samples.reschedule(number, until_s)
        return []

    def _take_pace(self, command: PaceCommand) -> None:
        """Take the lead's command, and shed what is open and not admitted any more."""
        pace = self._pace.take(command)
        opened = [number for number, _ in self._samples.items() if number >= pace.since]
        for number in opened:
            if not pace.is_admitted(number):
                self._close(number)
                self._count("frames_shed")

    def _take_lead(self, status: Status) -> None:
        """Take the lead's status, except the Last Will of an older session."""
        same = self._lead is None or self._lead.session == status.session
        if status.state == "online" or same:
            self._lead = status

    def _close(self, number: int) -> _Sample:
        sample = self._samples.close(number)
        sample.move(Signal.CLOSE)
        return sample

    def _take_answered(self, node: str, answered: Answered) -> None:
        """Take the word of the lead, or of a device that answers before this one."""
        is_leads = node == self.manifest.hierarchy.lead
        for number in answered.samples:
            if not (is_leads or self._turns.is_before(number, node)):
                continue
            if self._samples.get(number):
                self._close(number)
            elif self._samples.opened_s(number) is None:
                self._early.add(number)

    def _answer(self, number: int, now: Now) -> list[Effect]:
        return self._post(number, self._samples.close(number), now)

    def _post(self, number: int, sample: _Sample, now: Now) -> list[Effect]:
        """Answer from the device's own exit, with exit `device` and quality `degraded`."""
        sample.move(Signal.CLOSE)
        if sample.is_answered:
            return []
        self._count("answered_alone")
        answer = make_own_answer(
            number,
            sample.scores,
            self.node,
            self.bundle,
            self.manifest,
            captured_at_s=sample.captured_at_s,
            answered_at_s=now.wall_s,
            latency_s=now.monotonic_s - sample.captured_s,
            truth=sample.label,
        )
        effects = self._outbox.post(answer, now)
        if self._connected:  # so that no other device answers, too
            effects.append(Publish(self._topic(Kind.ANSWERED), Answered(1, [number])))
        return effects

    def _topic(self, kind: Kind) -> Topic:
        return Topic(self.site, kind, self.node)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def list_device_sections(manifest: Manifest, node: str) -> Sequence[str]:
    """The sections that a device runs."""
    return (node,) if manifest.hierarchy.device_section else ()
