"""Ages of messages between clocks that do not agree."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.clock_offset import RESOLUTION, STEPS, ClockOffset


@pytest.mark.parametrize("offset_s", [0.0, 1.75e9, -1.75e9, 0.25])
def test_a_constant_offset_is_no_age(offset_s: float) -> None:
    offset = ClockOffset()
    for n in range(100):
        assert offset.age_s(n - offset_s, float(n)) == pytest.approx(0, abs=1e-6)


def test_a_late_message_is_as_old_as_it_is_late() -> None:
    offset = ClockOffset()
    for n in range(10):
        offset.age_s(1000.0 + n, float(n))
    assert offset.age_s(1010.0, 10.5) == pytest.approx(0.5)
    assert offset.age_s(1011.0, 11.0) == pytest.approx(0.0)
    assert offset.age_s(1003.0, 12.0) == pytest.approx(9.0)


def test_a_queue_that_stood_still_shows() -> None:
    offset = ClockOffset()
    offset.age_s(0.0, 100.0)
    ages = [offset.age_s(float(n), 110.0) for n in range(1, 6)]
    assert ages == pytest.approx([9, 8, 7, 6, 5])


def test_the_window_forgets() -> None:
    offset = ClockOffset(window_s=10.0)
    assert offset.age_s(0.0, 0.0) == 0
    assert offset.age_s(4.0, 5.0) == 1.0  # the clock was set back by a second …
    assert offset.age_s(9.0, 10.0) == 1.0
    assert offset.age_s(10.0, 11.0) == 0.0  # … which is what the clock is, eleven seconds later


def test_it_is_per_instance_and_starts_with_no_age() -> None:
    assert ClockOffset().age_s(-5.0, 5.0) == 0


@given(steps=st.lists(st.tuples(st.floats(0, 3), st.floats(-5, 5)), min_size=1, max_size=80))
def test_as_the_minimum_over_the_window(steps: list[tuple[float, float]]) -> None:
    """Brute force: between the minima of the window and of the window less its resolution."""
    window_s = 10.0
    offset = ClockOffset(window_s)
    arrived_s = 0.0
    seen: list[tuple[float, float]] = []
    for step_s, captured_s in steps:
        arrived_s += step_s
        difference = arrived_s - captured_s
        seen.append((arrived_s, difference))
        age_s = offset.age_s(captured_s, arrived_s)
        surely = [d for at, d in seen if at >= arrived_s - window_s * (1 - 1 / RESOLUTION)]
        maybe = [d for at, d in seen if at >= arrived_s - window_s]
        assert difference - min(surely) <= age_s <= difference - min(maybe)
        assert age_s >= 0


def test_a_flood_is_not_remembered() -> None:
    offset = ClockOffset()
    for n in range(50_000):  # replays: ever older, so that none replaces another
        offset.age_s(0.0, n * 0.001)
    size = sum(sys.getsizeof(value) for value in vars(offset).values())
    assert size < 100_000
    assert len(offset._minima) <= RESOLUTION + 1


def test_drift_at_a_high_rate_is_followed() -> None:
    offset = ClockOffset(window_s=10.0)
    ages = [offset.age_s(n * 0.005 * (1 - 1e-4), n * 0.005) for n in range(20_000)]
    assert max(ages) <= 10.0 * 1e-4 + 1e-9
    assert min(ages) >= 0


@pytest.mark.parametrize("rate_hz", [1.0, 10.0, 100.0])
def test_a_clock_that_was_set_back_is_believed_within_seconds(rate_hz: float) -> None:
    offset = ClockOffset()
    generator = np.random.default_rng(3)
    ages = []
    for i in range(int(20 * rate_hz)):
        time_s = i / rate_hz
        ahead_s = 5.0 if time_s < 10 else 0.0  # the capturing clock, put right after 10 s
        transit_s = 0.002 + generator.exponential(0.003)
        ages.append(offset.age_s(time_s + ahead_s, time_s + transit_s))
    settled = int((10 + max(1.5, STEPS / rate_hz)) * rate_hz) + 1
    assert max(ages[: int(10 * rate_hz)]) < 0.1
    assert max(ages[settled:]) < 0.1
    assert ages[int(10 * rate_hz)] > 4  # nothing is believed at once


def test_a_queue_that_is_drained_is_old_and_stays_so() -> None:
    offset = ClockOffset()
    for i in range(100):
        offset.age_s(i * 0.1, i * 0.1 + 0.002)
    # three seconds stood still, and come at once
    for i in range(100, 130):
        captured_s = i * 0.1
        age_s = offset.age_s(captured_s, 13.0 + (i - 100) * 0.001)
        assert age_s == pytest.approx(13.0 + (i - 100) * 0.001 - captured_s - 0.002, abs=1e-6)
