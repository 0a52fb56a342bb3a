"""Sites with coded layers, and the checks that their answers equal those without workers."""

from __future__ import annotations

from functools import cache

import numpy as np

from ddnn.coding.constructions import (
    make_low_weight,
    make_mds,
    make_parity,
    make_replication,
    make_uncoded,
)
from ddnn.protocol.messages import Answer
from tests.simulation.offload_site import CodedSite, OffloadSite, Run
from tests.simulation.scenario import PERIOD_S, TIMING

SAMPLES = 30
START_S = 1.0
END_S = START_S + SAMPLES * PERIOD_S

CODES = {
    "none": lambda: make_uncoded(4),
    "replication": lambda: make_replication(6, 1),
    "parity": lambda: make_parity(6),
    "mds": lambda: make_mds(6, 2),
    "low weight": lambda: make_low_weight(6, 2),
}


@cache
def make_site(name: str = "mds") -> OffloadSite:
    return CodedSite(CODES[name]())


@cache
def answer_at_the_edge(name: str = "mds", samples: int = SAMPLES) -> dict[int, Answer]:
    """The answers of a site without workers; its sections do not depend on the code."""
    store = make_site(name).run_without_workers(samples).simulation.store
    answers = {sample: answer for (_, sample), answer in store.items()}
    assert len(answers) == samples
    assert {answer.exit for answer in answers.values()} == {"local", "edge", "cloud"}
    return answers


def assert_equal(run: Run, expected: dict[int, Answer], samples=None) -> None:
    for sample in expected if samples is None else samples:
        answer, other = run.store[sample], expected[sample]
        for field in ("exit", "label", "members", "missing", "quality", "late", "truth"):
            assert getattr(answer, field) == getattr(other, field), (sample, field)
        np.testing.assert_allclose(
            answer.probabilities, other.probabilities, rtol=0, atol=run.site.error
        )


def assert_in_time(run: Run) -> None:
    """Every sample has one answer, given before its deadline."""
    given = {}
    for at_s, _, answer in run.simulation.answers:
        assert answer.sample not in given, "answered twice"
        given[answer.sample] = at_s - (START_S + answer.sample * PERIOD_S)
    assert set(given) == set(range(len(run.scenario.images)))
    assert max(given.values()) <= TIMING.deadline_s
    assert run.store.keys() == given.keys()
    assert run.simulation.list_kept_answers() == {}


def count_escalated(expected: dict[int, Answer]) -> int:
    """The number of samples that need the offloaded layer."""
    return sum(answer.exit != "local" for answer in expected.values())


def list_latencies_s(run: Run, samples) -> np.ndarray:
    exits = ("edge", "cloud")
    return np.array([run.store[n].latency_s for n in samples if run.store[n].exit in exits])
