"""Bottleneck assignment and Kuhn-Munkres against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.students import StudentType, plan
from ddnn.students.assignment import assign_by_bottleneck, assign_by_sum


@pytest.mark.parametrize("seed", range(20))
def test_against_all_permutations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    costs = rng.random((n, n))
    costs[rng.random((n, n)) < 0.2] = np.inf
    costs[np.arange(n), rng.permutation(n)] = rng.random(n)  # so that one is possible
    totals = [costs[np.arange(n), list(order)] for order in permutations(range(n))]
    chosen = costs[np.arange(n), assign_by_bottleneck(costs)]
    assert chosen.max() == min(total.max() for total in totals)
    assert costs[np.arange(n), assign_by_sum(costs)].sum() == pytest.approx(
        min(total.sum() for total in totals)
    )


def test_the_least_sum_is_not_the_least_maximum() -> None:
    costs = np.array([[1.0, 6.0], [5.0, 9.0]])
    assert assign_by_sum(costs).tolist() == [0, 1]
    assert assign_by_bottleneck(costs).tolist() == [1, 0]


def test_the_maximum_of_a_plan_is_no_worse_than_with_the_sum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        devices = [
            DeviceProfile(f"d{i}", rng.uniform(5e6, 3e7), uplink_bits_per_s=rng.uniform(500, 1000))
            for i in range(4)
        ]
        students = [StudentType("s", 2e7, 1, 16), StudentType("m", 4e7, 1, 32)]
        bottleneck, by_sum = (
            plan(devices, np.ones((32, 32)), students, 1, assign=assign).guaranteed_latency_s
            for assign in ("bottleneck", "sum")
        )
        assert bottleneck <= by_sum
