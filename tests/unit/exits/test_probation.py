"""A bundle stays where its first answers are as promised, else there is a reason to go back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.exits.drift import measure_reference
from ddnn.exits.probation import LEAST_ANSWERS, LEAST_KNOWN, Probation, State
from ddnn.protocol.machine import Connected, Disconnected, Now, Received, Tick
from ddnn.protocol.topics import Kind, Topic
from tests.answer_builder import make_answer
from tests.unit.exits.test_drift import HIERARCHY, draw, observe

WATCH_S = 60.0


class Watched:
    """A probation in virtual time."""

    def __init__(self, reference: Any = None) -> None:
        self.probation = Probation("home", "new", "edge", reference, WATCH_S)
        self.now_s = 1000.0
        self.handle(Connected())

    def handle(self, event: Any) -> None:
        assert self.probation.handle(event, Now(self.now_s, self.now_s)) == []

    def answer(self, sample: int, *, node: str = "edge", **fields: Any) -> None:
        known = {"bundle": "new", "label": 1, "truth": 1, "expected_accuracy": 0.9}
        answer = make_answer(sample, node=node, **{**known, **fields})
        self.handle(Received(Topic("home", Kind.ANSWER, node), answer))

    def wait(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.probation.deadline_s() is not None and self.now_s < until_s:
            self.now_s = min(max(self.now_s, self.probation.deadline_s()), until_s)
            self.handle(Tick())


def test_answers_as_promised_pass() -> None:
    watched = Watched()
    for sample in range(200):
        watched.answer(sample, label=1 if sample % 10 else 0)
    watched.wait(WATCH_S - 1)
    assert watched.probation.state is State.WATCHING
    watched.wait(2)
    assert watched.probation.state is State.PASSED
    figures = watched.probation.figures
    assert (figures.answers, figures.known, figures.correct) == (200, 200, 180)
    assert watched.probation.deadline_s() is None


def test_wrong_answers_are_a_reason_within_seconds() -> None:
    watched = Watched()
    for sample in range(LEAST_KNOWN):
        watched.answer(sample, label=sample % 2)
    watched.wait(5)
    assert watched.probation.state is State.FAILED
    assert watched.probation.reason == (
        "15 of 30 answers with known truth are right; the bundle measured 90.0% for them"
    )


def test_most_answers_degraded_are_a_reason() -> None:
    watched = Watched()
    for sample in range(2 * LEAST_ANSWERS):
        watched.answer(sample, truth=None, quality="degraded" if sample % 5 else "full")
    watched.wait(5)
    assert watched.probation.reason == "80 of 100 answers are degraded"


@pytest.mark.parametrize("dark", [None, 2])
def test_cameras_that_behave_otherwise_are_a_reason_without_labels(dark: int | None) -> None:
    rng = np.random.default_rng(1)
    scores = draw(rng, 800)
    watched = Watched(measure_reference(HIERARCHY, scores, scores.mean(1)))
    for sample, one in enumerate(observe(draw(rng, 400, dark=dark))):
        trace = [("local", one.label, 1 - one.certainty)]
        watched.answer(sample, truth=None, votes=dict(one.votes), exit_trace=trace)
    watched.wait(WATCH_S + 1)
    if dark is None:
        assert watched.probation.state is State.PASSED
    else:
        assert watched.probation.reason.startswith(("cam3 ", "local "))


def test_cameras_that_answer_for_themselves_are_a_reason() -> None:
    """The lead edge does not answer: it crashes or stands still with the new bundle."""
    watched = Watched()
    for sample in range(LEAST_ANSWERS):
        for node in ("cam1", "cam2"):  # both have given up on the edge
            watched.answer(sample, node=node, exit="device", quality="degraded")
    watched.wait(5)
    assert watched.probation.reason == f"{LEAST_ANSWERS} of {LEAST_ANSWERS} answers are degraded"


def test_answers_of_others_do_not_count() -> None:
    watched = Watched()
    for sample in range(100):
        watched.answer(sample, label=0, bundle="old")
        watched.answer(sample, label=0, bundle="old", node="cam1", exit="device")
    watched.handle(Disconnected())
    watched.handle(Connected())  # the time goes on
    watched.wait(WATCH_S + 1)
    assert watched.probation.state is State.PASSED
    assert watched.probation.figures.answers == 0
