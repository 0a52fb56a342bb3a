"""Portions of groups become one feature map; replicas that differ are found."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest

from ddnn.core.section import GOLDEN_TOLERANCE, Arrays
from ddnn.students.combiner import StudentCombiner
from ddnn.students.portions import find_minority, join_portions
from ddnn.students.state import count_spare_workers
from tests.simulation.students import StudentSite

NOW_S = 5.0


@cache
def site() -> StudentSite:
    return StudentSite((3, 3, 2))


def make_portions() -> dict[int, Arrays]:
    """Portion k is filled with the numbers of its filters."""
    return {
        k: {"portion": np.broadcast_to(np.float32(filters), (2, 2, len(filters)))}
        for k, filters in enumerate(site().filters)
    }


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_portions_are_joined_in_the_order_of_the_filters(order: tuple[int, ...]) -> None:
    combiner, given = StudentCombiner(site().plan), make_portions()
    combined = combiner.combine({k: given[k] for k in order}, {}, NOW_S, last=False)
    assert np.array_equal(combined.outputs["z"], np.broadcast_to(np.float32(range(10)), (2, 2, 10)))
    assert combined.outputs["z"].dtype == np.float32
    assert (combined.missing, combined.accuracy) == (frozenset(), {"edge": 0.9, "cloud": 0.95})


@pytest.mark.parametrize("lost", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}], ids=str)
def test_a_lost_portion_is_filled_and_named(lost: set[int]) -> None:
    combiner, given = StudentCombiner(site().plan), make_portions()
    kept = {k: portion for k, portion in given.items() if k not in lost}
    assert not combiner.enough(kept)
    combined = combiner.combine(kept, {}, NOW_S, last=True)
    z = combined.outputs["z"]
    for k, filters in enumerate(site().filters):
        for filter_ in filters:
            value = site().fill[filter_] if k in lost else filter_
            assert np.array_equal(z[..., filter_], np.full((2, 2), value, np.float32))
    mask = sum(1 << k for k in lost)
    assert combined.missing == lost
    assert combined.accuracy == site().detail.accuracy[str(mask)]


def test_of_nothing_there_is_no_result() -> None:
    assert StudentCombiner(site().plan).combine({}, {}, NOW_S, last=True).outputs is None


def test_portions_may_be_vectors() -> None:
    portions = {1: np.float32([5, 6])}
    joined = join_portions(portions, [[1], [2, 0]], np.float32([7, 8, 9]))
    assert joined.tolist() == [6, 8, 5]


def vary(*factors: float) -> dict[str, np.ndarray]:
    base = np.linspace(1, 2, 8, dtype=np.float32)
    return {f"worker{i}": base * np.float32(factor) for i, factor in enumerate(factors)}


@pytest.mark.parametrize(
    ("factors", "minority"),
    [
        ((1,), set()),
        ((1, 1), set()),
        ((1, 1 + GOLDEN_TOLERANCE / 10, 1), set()),  # another kind of processor
        ((1, 1, 3), {"worker2"}),
        ((3, 1, 1), {"worker0"}),
        ((1, 3, 1, 4, 1), {"worker1", "worker3"}),
        ((1, 3), None),
        ((1, 3, 4), None),
        ((1, 1, 3, 3), None),
    ],
)
def test_more_than_half_decide_who_is_faulty(factors, minority) -> None:
    assert find_minority(vary(*factors)) == minority


def test_who_contradicts_a_majority_is_faulty_and_others_are_only_counted() -> None:
    combiner = StudentCombiner(site().plan)

    def inspect(*factors: float) -> frozenset[str]:
        given = {name: {"portion": array} for name, array in vary(*factors).items()}
        return combiner.inspect({1: given, 2: {"other": given["worker0"]}}, NOW_S)

    assert inspect(1, 1, 1) == frozenset()
    assert inspect(1, 9, 1) == {"worker1"}
    assert combiner.counts == {"contradictions": 0}
    assert inspect(1, 9) == frozenset()
    assert combiner.counts == {"contradictions": 1}


@pytest.mark.parametrize(
    ("holdings", "spare"),
    [
        ([[0], [0], [1], [1], [2], [2]], 1),
        ([[0], [0], [0], [1], [1], [1], [2], [2], [2]], 2),
        ([[0], [0], [1], [1], [2]], 0),
        ([[0], [0], [1], [1]], 0),  # not even enough
        ([[0, 1], [1, 2], [2, 0]], 1),
        ([], 0),
    ],
)
def test_spare_workers_are_those_of_the_smallest_group(holdings, spare) -> None:
    assert count_spare_workers(3, holdings) == spare


def test_what_the_page_shows() -> None:
    combiner = StudentCombiner(site().plan)
    assert combiner.title == "section edge"
    assert combiner.description == (
        "8 workers in 3 groups: the first answer of each is used. Every portion arrives with "
        "probability 0.9880."
    )
    assert [(group.name, group.first, group.end) for group in combiner.groups] == [
        ("group 0: 4 filters, wrn-0", 0, 1),
        ("group 1: 3 filters, wrn-1", 1, 2),
        ("group 2: 3 filters, wrn-2", 2, 3),
    ]
