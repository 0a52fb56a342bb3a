"""Enumeration of groupings, follow-the-leader and shares of filters."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ddnn.students.costs import Costs, list_members, share_filters
from ddnn.students.grouping import follow_leaders, list_groupings, list_redistributions
from tests.unit.students.site_made import make_devices, make_students


def test_the_number_of_groupings_is_bell_s() -> None:
    assert [len(list_groupings(n)) for n in range(1, 9)] == [1, 2, 5, 15, 52, 203, 877, 4140]
    for n in range(1, 7):
        groupings = {tuple(sorted(groups[groups > 0])) for groups in list_groupings(n)}
        assert len(groupings) == len(list_groupings(n))
        for groups in groupings:
            assert sum(groups) == np.bitwise_or.reduce(groups) == (1 << n) - 1


def test_the_followers_are_the_nearest() -> None:
    """Leaders 0 and 2: each takes the one beside it, not the next in the list."""
    capabilities = np.array([[1.0, 1.0], [0.5, 0.1], [0.7, 0.2], [0.9, 1.0]])
    assert follow_leaders(capabilities, [0.1] * 4, 0.01, np.inf) == (0b1001, 0b0110)


def test_out_of_reach_the_most_reliable_follows() -> None:
    capabilities, outages = np.array([[1.0], [0.5], [0.4]]), [0.1, 0.04, 0.01]
    assert follow_leaders(capabilities, outages, 0.05, 0.1) == (0b101, 0b010)
    assert follow_leaders(capabilities, outages, 0.05, 1.0) == (0b011, 0b100)


def test_a_last_group_that_fails_the_bound_joins_the_one_before() -> None:
    capabilities = np.array([[1.0], [0.9], [0.5]])
    assert follow_leaders(capabilities, [0.1, 0.1, 0.1], 0.01, np.inf) == (0b111,)


def test_few_members_are_redistributed_in_every_way() -> None:
    ways = {tuple(sorted(pair)) for pair in list_redistributions(0b011, 0b100)}
    assert ways == {(0b000, 0b111), (0b001, 0b110), (0b010, 0b101), (0b011, 0b100)}
    first, second = 0b1111, 0b11110000
    for pair in list_redistributions(first, second):
        assert pair[0] ^ pair[1] == first | second
        assert not pair[0] & pair[1]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.data())
def test_shares_keep_their_limits(limits: list[int], data) -> None:
    filters = data.draw(st.integers(len(limits), sum(limits)))
    sizes = share_filters(limits, filters)
    assert sizes.sum() == filters
    assert (sizes >= 1).all()
    assert (sizes <= limits).all()


def test_shares_are_proportional() -> None:
    assert share_filters([11, 21, 31], 33).tolist() == [6, 11, 16]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["guaranteed", "expected", "best"]))
def test_the_least_latency_of_groups_is_that_of_the_best_sizes(seed: int, objective: str) -> None:
    rng = np.random.default_rng(seed)
    devices, filters = tuple(make_devices(rng, 4)), 7
    costs = Costs(devices, tuple(make_students(rng, filters)), filters, 1, objective)
    for groups in ((0b1111,), (0b0011, 0b1100), (0b0001, 0b0110, 0b1000)):
        rows = [costs.latencies_s(group) for group in groups]
        assert all((row[:-1] <= row[1:]).all() for row in rows)
        least = min(
            max(row[size - 1] for row, size in zip(rows, sizes, strict=True))
            for sizes in product(range(1, filters + 1), repeat=len(groups))
            if sum(sizes) == filters
        )
        assert costs.latency_s(groups) == least
        if np.isfinite(least):
            assert sum(costs.limit(group, least) for group in groups) >= filters


@given(st.integers(1, 2**100))
def test_members_of_a_mask(mask: int) -> None:
    assert sum(1 << i for i in list_members(mask)) == mask
