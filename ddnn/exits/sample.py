"""A sample at the lead edge: its states, what the edge knows of it, and its answer.

    state     signal       next
    LOCAL     ASK_EDGE     EDGE        not sure: the devices are asked for features
    LOCAL     ASK_CLOUD    CLOUD       the same where the edge has no section
    EDGE      ASK_CLOUD    CLOUD       not sure: the edges are asked for features
    LOCAL     ANSWER       ANSWERED    with the deepest exit that scores have reached
    EDGE      ANSWER       ANSWERED
    CLOUD     ANSWER       ANSWERED
    LOCAL     DROP         DROPPED     no scores came, or more samples are open than the limit
    EDGE      DROP         DROPPED
    CLOUD     DROP         DROPPED
A state before the last two names the exit whose scores the sample waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from ddnn.exits.entropy import softmax
from ddnn.exits.hierarchy import Exit
from ddnn.exits.manifest import Judgement, Manifest
from ddnn.machines.states import advance
from ddnn.protocol.machine import Now
from ddnn.protocol.messages import MAX_MISSING, Answer, ExitName, TrafficBytes, add_traffic


class State(Enum):
    """The states of a sample."""

    LOCAL = auto()
    EDGE = auto()
    CLOUD = auto()
    ANSWERED = auto()
    DROPPED = auto()

    __hash__ = object.__hash__  # fast: states stand in the keys of collections


class Signal(Enum):
    """What moves a sample from one state to the next."""

    ASK_EDGE = auto()
    ASK_CLOUD = auto()
    ANSWER = auto()
    DROP = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.LOCAL, Signal.ASK_EDGE): State.EDGE,
    (State.LOCAL, Signal.ASK_CLOUD): State.CLOUD,
    (State.EDGE, Signal.ASK_CLOUD): State.CLOUD,
    (State.LOCAL, Signal.ANSWER): State.ANSWERED,
    (State.EDGE, Signal.ANSWER): State.ANSWERED,
    (State.CLOUD, Signal.ANSWER): State.ANSWERED,
    (State.LOCAL, Signal.DROP): State.DROPPED,
    (State.EDGE, Signal.DROP): State.DROPPED,
    (State.CLOUD, Signal.DROP): State.DROPPED,
}

EXITS: Mapping[State, Exit] = {
    State.LOCAL: "local",
    State.EDGE: "edge",
    State.CLOUD: "cloud",
}
STATES: Mapping[Exit, State] = {tier: state for state, tier in EXITS.items()}


@dataclass(slots=True)
class Sample:
    """What the lead edge knows about a sample that is not answered yet."""

    number: int
    captured_at_s: float  # by the device's wall clock
    captured_s: float  # by our monotonic clock
    answer_by_s: float
    state: State
    votes: dict[str, tuple[int, float]] = field(default_factory=dict)  # see make_votes
    best: Judgement | None = None  # of the deepest exit so far
    exit_trace: list[tuple[ExitName, int, float]] = field(default_factory=list)
    label: int | None = None
    traffic: TrafficBytes = (0, 0)  # of the devices

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"sample {self.number}")

    def add(self, label: int | None, traffic: TrafficBytes) -> None:
        """Add label and traffic of a message. Where labels differ, the greatest counts."""
        self.traffic = add_traffic(self.traffic, traffic)
        if label is not None:
            self.label = max(label, -1 if self.label is None else self.label)

    def take(self, judgement: Judgement) -> None:
        """Take the decision of an exit: it is the deepest so far."""
        self.best = judgement
        self.exit_trace.append((judgement.exit, judgement.label, judgement.eta))


def make_answer(
    sample: Sample, best: Judgement, node: str, bundle: str, manifest: Manifest, now: Now
) -> Answer:
    """Make the answer of the lead edge; `best` is the decision of the deepest exit so far."""
    hierarchy = manifest.hierarchy
    members = hierarchy.list_members(best.mask)
    absent = [device for device in hierarchy.devices if device not in members]
    silent = best.shortfall.missing if best.shortfall else []
    payload_bytes, wire_bytes = sample.traffic
    return Answer(
        sample=sample.number,
        node=node,
        exit=best.exit,
        label=best.label,
        probabilities=best.probabilities,
        eta=best.eta,
        members=list(members),
        missing=list(dict.fromkeys([*absent, *silent]))[:MAX_MISSING],
        quality="degraded" if absent or best.shortfall or not best.sure else "full",
        expected_accuracy=find_accuracy(best, manifest),
        bundle=bundle,
        captured_at_s=sample.captured_at_s,
        answered_at_s=now.wall_s,
        latency_s=now.monotonic_s - sample.captured_s,
        truth=sample.label,
        payload_bytes=payload_bytes,
        wire_bytes=wire_bytes,
        votes=sample.votes,
        exit_trace=sample.exit_trace,
    )


def find_accuracy(best: Judgement, manifest: Manifest) -> float | None:
    """What was measured for answers like this one; None where nothing was.

    What workers leave out was measured at each exit with all cameras present.
    """
    if best.shortfall is None:
        return manifest.find_expected_accuracy(best.mask, "overall" if best.sure else best.exit)
    if best.mask != manifest.hierarchy.everyone:
        return None
    return best.shortfall.accuracy.get(best.exit)


def make_votes(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[int, float]]:
    """By device: the label that it would answer alone, and the probability of that label.

    scores: float32 [classes] by device.
    """
    if not scores:
        return {}
    probabilities = softmax(np.stack(list(scores.values())))
    labels = probabilities.argmax(axis=-1).tolist()
    return {
        device: (label, float(row[label]))
        for device, label, row in zip(scores, labels, probabilities, strict=True)
    }
