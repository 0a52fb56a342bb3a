"""When MQTT connects again, at which address, and with which version."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from ddnn.adapters.retry import BACKOFF_S, STEADY_S, RetrySchedule

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311


class FixedJitter(random.Random):
    """Draws always the same share of the range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def random(self) -> float:
        return self.share


def measure_intervals(schedule: RetrySchedule, failures: int) -> list[float]:
    intervals_s = []
    for number in range(failures):
        schedule.note_failure(100.0 * number)
        intervals_s.append(schedule.due_s - 100.0 * number)
    return intervals_s


def test_the_first_connection_is_due_at_once() -> None:
    assert RetrySchedule([V5], FixedJitter(1.0)).due_s == 0.0


def test_intervals_double_up_to_the_largest_and_start_again_after_a_good_connection() -> None:
    schedule = RetrySchedule([V5], FixedJitter(1.0))
    least_s, most_s = BACKOFF_S
    intervals_s = measure_intervals(schedule, 10)
    assert intervals_s[0] == pytest.approx(least_s)
    assert intervals_s[-1] == pytest.approx(most_s)
    for before_s, after_s in pairwise(intervals_s):
        assert after_s == pytest.approx(min(2 * before_s, most_s))
    schedule.note_success(-STEADY_S)
    assert measure_intervals(schedule, 3) == pytest.approx(intervals_s[:3])


def test_a_connection_that_ends_at_once_is_no_success() -> None:
    """A broker that accepts and drops its clients is not stormed."""
    schedule = RetrySchedule([V5], FixedJitter(1.0))
    intervals_s = []
    for number in range(8):
        schedule.note_success(10.0 * number)
        schedule.note_failure(10.0 * number + STEADY_S - 0.1)
        intervals_s.append(schedule.due_s - 10.0 * number - STEADY_S + 0.1)
    assert intervals_s[-1] == pytest.approx(BACKOFF_S[1])


def test_each_failure_is_followed_by_the_next_address() -> None:
    schedule = RetrySchedule([V5], FixedJitter(0.5), addresses=3)
    tried = [schedule.address]
    for refused in (False, False, True, False):
        schedule.note_failure(0.0, refused=refused)
        tried.append(schedule.address)
    assert tried == [0, 1, 2, 0, 1]


def test_a_broker_that_refuses_is_tried_with_each_version_before_the_next_one() -> None:
    schedule = RetrySchedule([V5, V311], FixedJitter(0.5), addresses=2)
    tried = [(schedule.address, schedule.version)]
    for _ in range(4):
        schedule.note_failure(0.0, refused=True)
        tried.append((schedule.address, schedule.version))
    assert tried == [(0, V5), (0, V311), (1, V5), (1, V311), (0, V5)]


def test_jitter_takes_up_to_half_of_an_interval() -> None:
    shortest = measure_intervals(RetrySchedule([V5], FixedJitter(0.0)), 8)
    longest = measure_intervals(RetrySchedule([V5], FixedJitter(1.0)), 8)
    assert shortest == pytest.approx([interval_s / 2 for interval_s in longest])


def test_a_refusal_leads_to_the_next_version_and_an_unreachable_broker_does_not() -> None:
    schedule = RetrySchedule([V5, V311], FixedJitter(0.5))
    versions = [schedule.version]
    for refused in (False, True, False, True):
        schedule.note_failure(0.0, refused=refused)
        versions.append(schedule.version)
    assert versions == [V5, V5, V311, V311, V5]


def test_a_version_that_was_asked_for_is_not_changed() -> None:
    schedule = RetrySchedule([V311], FixedJitter(0.5))
    schedule.note_failure(0.0, refused=True)
    assert schedule.version == V311
