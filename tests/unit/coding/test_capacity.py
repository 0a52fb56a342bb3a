"""Virtual workers for devices of unequal power."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.coding import assign_virtual_workers, count_virtual_stragglers, make_low_weight
from ddnn.errors import ConfigError

POWER = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.floats(1e-3, 1e6),
    min_size=1,
    max_size=8,
)


def test_virtual_workers_are_proportional_with_the_largest_remainder() -> None:
    counts = {
        name: len(workers)
        for name, workers in assign_virtual_workers({"a": 4.0, "b": 2.0, "c": 1.0}, n=10).items()
    }
    assert counts == {"a": 6, "b": 3, "c": 1}  # 5.7, 2.9, 1.4
    assert assign_virtual_workers({"b": 1, "a": 1}, n=3) == {"b": (0,), "a": (1, 2)}
    assert assign_virtual_workers({"a": 1e308, "b": 1e308, "c": 1.0}, n=4)["c"] == (3,)


@given(POWER, st.integers(0, 30))
def test_all_virtual_workers_are_assigned_at_least_one_to_each_device(
    power: dict[str, float], more: int
) -> None:
    n = len(power) + more
    assigned = assign_virtual_workers(power, n)
    assert sorted(worker for workers in assigned.values() for worker in workers) == list(range(n))
    assert list(assigned) == list(power)
    assert all(assigned.values())
    for strong in power:
        for weak in power:
            if power[strong] > power[weak]:
                assert len(assigned[strong]) >= len(assigned[weak])
    backwards = assign_virtual_workers(dict(reversed(power.items())), n)
    assert {k: len(v) for k, v in assigned.items()} == {k: len(v) for k, v in backwards.items()}


def test_a_code_for_the_virtual_stragglers_tolerates_the_loss_of_a_device() -> None:
    """One device has at most so many virtual workers, and the code decodes without them."""
    assigned = assign_virtual_workers({"pi4": 2.0, "pi3a": 1.0, "pi3b": 1.0, "pi3c": 1.0}, n=10)
    s = count_virtual_stragglers(assigned, 1)
    assert s == 4
    assert count_virtual_stragglers(assigned, 2) == 6
    assert count_virtual_stragglers(assigned, 0) == 0
    code = make_low_weight(10, s)
    blocks = list(np.random.default_rng(0).standard_normal((code.k, 3)))
    answers = code.encode(blocks)
    for (lost,) in combinations(assigned, 1):
        left = {i: answers[i] for name, ids in assigned.items() if name != lost for i in ids}
        np.testing.assert_allclose(code.decode(left), blocks, atol=1e-9)


@pytest.mark.parametrize(
    ("power", "n"),
    [
        ({}, 3),
        ({"a": 1.0, "b": 1.0}, 1),
        ({"a": 0.0}, 1),
        ({"a": -1.0}, 2),
        ({"a": float("nan")}, 2),
        ({"a": float("inf")}, 2),
    ],
)
def test_invalid_powers_and_numbers_are_refused(power: dict[str, float], n: int) -> None:
    with pytest.raises(ConfigError):
        assign_virtual_workers(power, n)
