"""Which answer to a sample counts: the deepest exit, then the most members."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise, permutations
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ddnn.exits.answers import choose_better, rank
from ddnn.exits.hierarchy import EXITS
from ddnn.protocol.messages import Answer

CAMS = ["cam1", "cam2", "cam3", "cam4"]


def make(**changes: Any) -> Answer:
    answer = Answer(
        sample=7,
        node="edge",
        exit="local",
        label=1,
        probabilities=[0.25, 0.75],
        eta=0.8,
        members=CAMS[:2],
        missing=CAMS[2:],
        quality="degraded",
        expected_accuracy=0.9,
        bundle="b1",
        captured_at_s=10.0,
        answered_at_s=11.0,
        latency_s=1.0,
    )
    return msgspec.structs.replace(answer, **changes)


answers = st.builds(
    make,
    exit=st.sampled_from(EXITS),
    label=st.integers(-1, 1),
    members=st.integers(0, 4).map(lambda n: CAMS[:n]),
    late=st.booleans(),
    answered_at_s=st.sampled_from([11.0, 12.0]),
)


def test_from_worst_to_best() -> None:
    rising = [
        make(exit="device", members=CAMS),
        make(late=True),
        make(answered_at_s=12.0),
        make(),
        make(members=CAMS[:3], late=True, answered_at_s=99.0),
        make(exit="edge", members=[]),
        make(exit="cloud", members=[], late=True),
    ]
    for worse, best in pairwise(rising):
        assert rank(worse) < rank(best)
        assert choose_better(worse, best) is best
        assert choose_better(best, worse) is best


def test_a_member_named_twice_counts_once() -> None:
    assert choose_better(make(members=["cam1"] * 9), make()) == make()


@given(st.lists(answers, min_size=1, max_size=5))
def test_the_order_of_arrival_does_not_matter(some: list[Answer]) -> None:
    assert len({repr(reduce(choose_better, order)) for order in permutations(some)}) == 1


@given(answers, answers)
def test_different_answers_never_tie(a: Answer, b: Answer) -> None:
    assert (rank(a) == rank(b)) == (a == b)
