"""Time-outs, replication periods, capacities and the hysteresis of new cuts."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.pipeline import choose_period, choose_timeout_s, is_worth_moving, measure_capacity


def test_the_timeout_is_the_median_and_six_deviations() -> None:
    assert choose_timeout_s([1.0, 2.0, 3.0, 2.0, 1.0]) == 2.0 + 6 * 1.0


def test_one_slow_batch_does_not_change_the_timeout() -> None:
    assert choose_timeout_s([1.0] * 20 + [500.0]) == choose_timeout_s([1.0] * 20) == 2.0


def test_the_timeout_before_any_batch_and_its_least() -> None:
    assert choose_timeout_s([], first_s=12.0) == 12.0
    assert choose_timeout_s([0.001] * 9, least_s=0.5) == 0.5


def test_the_period_minimizes_copying_and_lost_work() -> None:
    copy_s, batch_s, failures_per_s = 2.0, 0.05, 1e-4

    def share(period: int) -> float:
        return copy_s / (period * batch_s) + failures_per_s * period * batch_s / 2

    chosen = choose_period(2e6, 1e6, batch_s, failures_per_s, least=1, most=100_000)
    best = min(range(1, 20_000), key=share)
    assert share(chosen) <= share(best) * 1.001


def test_replication_leaves_the_link_to_the_batches() -> None:
    assert choose_period(1e6, 1e6, 1.0, failures_per_s=10.0) == 20  # one twentieth of the time


def test_the_period_has_bounds_and_grows_with_reliability() -> None:
    assert choose_period(1, 1e9, 1.0, 0.0) == 50
    assert choose_period(1, 1e9, 1.0, 1.0) == 10
    periods = [choose_period(1e7, 1e7, 0.1, rate, most=10_000) for rate in (1e-2, 1e-3, 1e-4)]
    assert periods == sorted(periods)
    assert periods[0] < periods[-1]


def test_impossible_measurements_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected positive"):
        choose_period(1, 0, 1, 0)
    with pytest.raises(ConfigError, match="expected a range"):
        measure_capacity(1.0, [1.0, 1.0], 1, 1)


def test_the_capacity_is_relative_to_the_central_node() -> None:
    assert measure_capacity(6.0, [1.0, 2.0, 1.0], 1, 3) == 2.0


def test_noise_does_not_move_layers() -> None:
    rng = np.random.default_rng(1)
    assert not any(is_worth_moving(s, 1.0) for s in rng.normal(1.0, 0.03, 200))
    assert is_worth_moving(2.0, 1.0)


def test_a_move_must_pay_for_itself() -> None:
    assert is_worth_moving(2.0, 1.0, move_s=99)
    assert not is_worth_moving(2.0, 1.0, move_s=101)
