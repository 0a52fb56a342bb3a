"""Watches the answers of a bundle that a site has just changed to, and finds reasons to go back.

There are three. The answers whose truth is known are right less often than the bundle measured for
them; most answers are degraded; or, without labels, cameras or the first exit behave otherwise than
on the bundle's validation data (ddnn.exits.drift).

    state       signal    next
    WATCHING    FAIL      FAILED      there is a reason to go back
    WATCHING    END       PASSED      the time is over
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from ddnn.exits.drift import (
    WINDOWS,
    Observation,
    Reference,
    describe,
    find_deviations,
    make_observation,
)
from ddnn.exits.intervals import compute_wilson_interval
from ddnn.machines.states import advance
from ddnn.protocol.machine import Connected, Effect, Event, Now, Received
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind, Topic, topic_filter

CONFIDENCE = 0.999  # of each look, of which there are many
LEAST_KNOWN = 30  # samples by which accuracy is judged
LEAST_ANSWERS = 50  # by which quality is judged
MOST_DEGRADED = 0.5
LOOK_EVERY_S = 2.0
REMEMBERED = 1024  # samples: several cameras may answer one


class State(Enum):
    """The states of a probation."""

    WATCHING = auto()
    PASSED = auto()
    FAILED = auto()


class Signal(Enum):
    """What ends it."""

    FAIL = auto()
    END = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.WATCHING, Signal.FAIL): State.FAILED,
    (State.WATCHING, Signal.END): State.PASSED,
}


class Figures(msgspec.Struct):
    """What was seen of the bundle's answers.

    expected: the sum of the accuracies that the bundle measured for the `known` answers.
    """

    answers: int = 0
    degraded: int = 0
    known: int = 0
    correct: int = 0
    expected: float = 0.0


class Probation:
    """One bundle's first minutes at a site. `reason`: why the site must go back."""

    def __init__(
        self, site: str, bundle: str, lead: str, reference: Reference | None, watch_s: float
    ) -> None:
        """lead: the edge that answers. reference: the bundle's behaviour on validation data."""
        self._site, self._bundle, self._lead = site, bundle, lead
        self._reference, self.watch_s = reference, watch_s
        self._seen: deque[Observation] = deque(maxlen=max(WINDOWS))
        self._fallbacks: dict[int, None] = {}  # the newest samples that cameras answered
        self._until_s: float | None = None
        self._look_s = 0.0
        self.state = State.WATCHING
        self.figures, self.reason = Figures(), ""
        self.counts: dict[str, int] = {}

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    @property
    def is_over(self) -> bool:
        return self.state is not State.WATCHING

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.ANSWER, self._site)]

    def deadline_s(self) -> float | None:
        return None if self.is_over or self._until_s is None else self._look_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected() if self._until_s is None:
                self._until_s = now.monotonic_s + self.watch_s
                self._look_s = now.monotonic_s + LOOK_EVERY_S
            case Received(Topic(self._site, Kind.ANSWER, self._lead), Answer() as answer):
                if answer.bundle == self._bundle and not self.is_over:
                    self._note(answer)
            case Received(Topic(self._site, Kind.ANSWER), Answer(exit="device") as answer):
                if answer.bundle == self._bundle and not self.is_over:
                    self._note_fallback(answer.sample)
        if self._until_s is not None and not self.is_over and now.monotonic_s >= self._look_s:
            self._look_s = min(now.monotonic_s + LOOK_EVERY_S, self._until_s)
            self._look(now.monotonic_s >= self._until_s)
        return []

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "the probation")

    def _note(self, answer: Answer) -> None:
        figures = self.figures
        figures.answers += 1
        figures.degraded += answer.quality == "degraded"
        expected = answer.expected_accuracy
        if answer.truth is not None and answer.truth >= 0 and expected is not None:
            figures.known += 1
            figures.correct += answer.label == answer.truth
            figures.expected += expected
        if (one := make_observation(answer.exit_trace, answer.votes)) is not None:
            self._seen.append(one)

    def _note_fallback(self, sample: int) -> None:
        """A camera answered for itself, since it heard nothing from the lead edge in time."""
        if sample in self._fallbacks:
            return
        self._fallbacks[sample] = None
        if len(self._fallbacks) > REMEMBERED:
            del self._fallbacks[next(iter(self._fallbacks))]
        self.figures.answers += 1
        self.figures.degraded += 1

    def _look(self, is_last: bool) -> None:
        self.reason = self._find_reason()
        if self.reason:
            self.move(Signal.FAIL)
        elif is_last:
            self.move(Signal.END)

    def _find_reason(self) -> str:
        figures = self.figures
        if figures.known >= LEAST_KNOWN:
            _, high = compute_wilson_interval(figures.correct, figures.known, CONFIDENCE)
            expected = figures.expected / figures.known
            if high < expected:
                return (
                    f"{figures.correct} of {figures.known} answers with known truth are right; "
                    f"the bundle measured {expected:.1%} for them"
                )
        if figures.answers >= LEAST_ANSWERS:
            low, _ = compute_wilson_interval(figures.degraded, figures.answers, CONFIDENCE)
            if low > MOST_DEGRADED:
                return f"{figures.degraded} of {figures.answers} answers are degraded"
        if self._reference is not None:
            for one in find_deviations(self._reference, list(self._seen)):
                if one.is_alarm:
                    return f"{one.voter} {describe(one)}"
        return ""
