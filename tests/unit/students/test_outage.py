"""The closed forms of the probability that all portions arrive, enumeration and simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.device import DeviceProfile
from ddnn.errors import ConfigError
from ddnn.students import StudentPlan, StudentType, mean_lost_after, p_all_after, plan

# Eight devices of which k = 1 … 5 failed: the probability that all portions arrive, and the mean
# fraction of portions lost (derived for reference, not of the paper).
GROUPINGS = {
    (1,) * 8: ([0, 0, 0, 0, 0], [0.125, 0.25, 0.375, 0.5, 0.625]),
    (2, 2, 2, 2): ([1, 0.857, 0.571, 0.229, 0], [0, 0.036, 0.107, 0.214, 0.357]),
    (3, 3, 2): ([1, 0.964, 0.857, 0.643, 0.321], [0, 0.012, 0.048, 0.119, 0.238]),
    (4, 4): ([1, 1, 1, 0.971, 0.857], [0, 0, 0, 0.014, 0.071]),
}
# … and the probability with independent outages of p each.
INDEPENDENT = {
    0.1: [0.430, 0.961, 0.988, 0.9998],
    0.2: [0.168, 0.849, 0.945, 0.9968],
    0.3: [0.058, 0.686, 0.862, 0.984],
}


def make_plan(sizes: tuple[int, ...], p: float = 0.1) -> StudentPlan:
    """A plan with groups of these sizes, all devices alike."""
    names = [f"d{i}" for i in range(sum(sizes))]
    ends = np.cumsum(sizes)
    groups = [names[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    devices = [DeviceProfile(name, 1e6, outage_probability=p) for name in names]
    return plan(devices, np.ones((8, 8)), [StudentType("s", 1e6, 1, 8)], 1, group=groups)


@pytest.mark.parametrize("sizes", GROUPINGS)
def test_the_table_of_eight_devices(sizes: tuple[int, ...]) -> None:
    arrive, lost = GROUPINGS[sizes]
    made = make_plan(sizes)
    assert [round(made.p_full(k=k), 3) for k in range(1, 6)] == arrive
    assert [round(float(mean_lost_after(sizes, k)), 3) for k in range(1, 6)] == lost
    assert made.p_full(k=0) == 1
    assert made.p_full(k=8) == 0


@pytest.mark.parametrize("k", [-1, 9, 2.0, 1.5, math.nan, math.inf, "2"])
def test_a_number_of_failures_that_cannot_be_is_refused(k) -> None:
    with pytest.raises(ConfigError, match="devices 0 to 8 can fail"):
        make_plan((4, 4)).p_full(k=k)


@pytest.mark.parametrize("p", INDEPENDENT)
def test_the_table_of_independent_outages(p: float) -> None:
    for sizes, value in zip(GROUPINGS, INDEPENDENT[p], strict=True):
        # 2 x 4 at p = 0.3 is 0.9839; the table has it with three digits.
        assert make_plan(sizes, p).p_full() == pytest.approx(value, abs=6e-4)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_the_generating_function_counts_what_enumeration_counts(sizes: list, data) -> None:
    owner = [group for group, size in enumerate(sizes) for _ in range(size)]
    k = data.draw(st.integers(0, len(owner)))
    sets = list(combinations(range(len(owner)), k))
    lost = [
        sum(set(np.flatnonzero(np.array(owner) == g)) <= set(failed) for g in range(len(sizes)))
        for failed in sets
    ]
    assert p_all_after(sizes, k) == Fraction(lost.count(0), len(sets))
    assert mean_lost_after(sizes, k) == Fraction(sum(lost), len(sets) * len(sizes))


def test_many_devices_are_exact() -> None:
    assert p_all_after([2] * 50, 1) == 1
    assert p_all_after([1] * 100, 0) == 1
    assert 0 < float(p_all_after([4] * 25, 50)) < 1


def test_independent_outages_are_the_mixture_over_the_number_of_failed() -> None:
    """sum_k P(k of 8 failed) P(full | k) = P(full)."""
    made, p = make_plan((3, 3, 2), 0.2), 0.2
    weights = [comb(8, k) * p**k * (1 - p) ** (8 - k) for k in range(9)]
    mixture = sum(weight * made.p_full(k=k) for k, weight in enumerate(weights))
    assert mixture == pytest.approx(made.p_full())


def test_simulated_failures_agree() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    outages = [0.1, 0.3, 0.2, 0.4, 0.25, 0.15, 0.35, 0.05]
    devices = [DeviceProfile(f"d{i}", 1e6, outage_probability=p) for i, p in enumerate(outages)]
    groups = [["d0", "d1"], ["d2", "d3", "d4"], ["d5"], ["d6", "d7"]]
    made = plan(devices, np.ones((8, 8)), [StudentType("s", 1e6, 1, 8)], 1, group=groups)
    fails = rng.random((draws, 8)) < outages
    full = np.array(
        [np.isfinite(made.latency_s([f"d{i}" for i in np.flatnonzero(row)])) for row in fails]
    )
    expected = made.p_full()
    assert abs(full.mean() - expected) < 4 * sqrt(expected * (1 - expected) / draws)
    for k in range(1, 5):
        given_k = full[fails.sum(axis=1) == k]
        exact = [  # of sets of k weighted by their probability, which is not uniform here
            np.isfinite(made.latency_s([f"d{i}" for i in failed]))
            for failed in combinations(range(8), k)
        ]
        weights = [
            np.prod([p / (1 - p) for i, p in enumerate(outages) if i in failed])
            for failed in combinations(range(8), k)
        ]
        mean = float(np.average(exact, weights=weights))
        assert abs(given_k.mean() - mean) < 4 * sqrt(mean * (1 - mean) / len(given_k)) + 1e-9


@pytest.mark.parametrize("k", [-1, 9, 0.5])
def test_k_out_of_range(k: float) -> None:
    with pytest.raises(ConfigError, match="of 8 devices 0 to 8 can fail"):
        p_all_after([2, 2, 2, 2], k)


def test_without_groups_nothing_can_be_lost() -> None:
    with pytest.raises(ConfigError, match="no groups"):
        mean_lost_after([], 0)
