"""Who has joined or left for good, and that nobody who comes and goes moves anything for long."""

from __future__ import annotations

import pytest

from ddnn.machines.attendance import CALM_TERMS, MAX_DOUBLINGS, Attendance

TERM_S = 60


class Site:
    """Two workers, of which `b` is watched, and the seconds."""

    def __init__(self) -> None:
        self.attendance = Attendance(["a", "b"], TERM_S, 0.0)
        self.now_s = 0
        self.changes = 0

    def watch(self, seconds: int, *present: str) -> None:
        for _ in range(seconds):
            before = self.attendance.staying
            self.attendance.update({"a", *present}, self.now_s)
            self.changes += before != self.attendance.staying
            self.now_s += 1


def test_who_is_away_for_its_term_has_left_and_who_is_there_for_it_has_joined() -> None:
    site = Site()
    site.watch(100, "b")
    site.watch(TERM_S)
    assert site.attendance.staying == {"a", "b"}
    site.watch(1)
    assert site.attendance.staying == {"a"}
    site.watch(2 * TERM_S, "b")
    assert site.attendance.staying == {"a"}, "its second change takes twice as long"
    site.watch(1, "b")
    assert site.attendance.staying == {"a", "b"}
    assert site.changes == 2


def test_a_stranger_joins_after_its_term() -> None:
    site = Site()
    site.watch(TERM_S, "b", "c")
    assert site.attendance.staying == {"a", "b"}
    site.watch(1, "b", "c")
    assert site.attendance.staying == {"a", "b", "c"}


def test_a_planned_worker_that_never_came_has_left() -> None:
    site = Site()
    site.watch(TERM_S + 1)
    assert site.attendance.staying == {"a"}


@pytest.mark.parametrize("half_period_s", [1, 20, 59, 61, 90, 150, 400, 1000])
def test_a_flapping_worker_changes_little_however_slowly_it_flaps(half_period_s: int) -> None:
    site = Site()
    for _ in range(20_000 // half_period_s):
        site.watch(half_period_s)
        site.watch(half_period_s, "b")
    assert site.changes <= MAX_DOUBLINGS
    if half_period_s < TERM_S:
        assert site.changes == 0


def test_without_the_broker_nobody_leaves() -> None:
    site = Site()
    site.watch(TERM_S - 1)
    site.attendance.interrupt()
    site.now_s += 10_000
    site.watch(TERM_S)
    assert site.changes == 0
    site.watch(1)
    assert site.attendance.staying == {"a"}
    site.watch(2 * TERM_S, "b")
    site.attendance.interrupt()
    site.watch(2 * TERM_S, "b")
    assert site.attendance.staying == {"a"}


def test_after_a_long_calm_the_first_term_holds_again() -> None:
    site = Site()
    site.watch(TERM_S + 1)
    site.watch(2 * TERM_S + 1, "b")
    site.watch(CALM_TERMS * 4 * TERM_S + 1, "b")
    site.watch(TERM_S + 1)
    assert site.attendance.staying == {"a"}
