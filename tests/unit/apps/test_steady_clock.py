"""The store's clock: no step moves it, and rows are deleted by a credible time only."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_app.steady_clock import TRUST_AFTER_S, SteadyClock
from cloud_app.store import Store
from tests.answer_builder import make_answer

START_S = 1.78e9
DAY_S = 86400.0


class Machine:
    """True time runs; the wall clock is `ahead_s` ahead."""

    def __init__(self, newest_s: float | None = None, ahead_s: float = 0.0) -> None:
        self.now_s, self.ahead_s = 0.0, ahead_s
        self.reports: list[str] = []
        self.clock = SteadyClock(newest_s, self.wall, self.monotonic, self.reports.append)

    def monotonic(self) -> float:
        return 50.0 + self.now_s

    def wall(self) -> float:
        return START_S + self.now_s + self.ahead_s

    def error_s(self) -> float:
        return self.clock.read() - (START_S + self.now_s)


@pytest.mark.parametrize("step_s", [-30 * DAY_S, -120.0, 120.0, 60 * DAY_S])
def test_a_step_moves_nothing_until_it_has_lasted_for_a_day(step_s: float) -> None:
    machine = Machine(START_S - 10.0)
    assert machine.clock.is_trusted()
    machine.ahead_s = step_s
    for hour in range(24):
        machine.now_s = 3600.0 * hour
        assert machine.error_s() == pytest.approx(0.0)
        assert not machine.clock.is_trusted()
    machine.now_s = TRUST_AFTER_S + 1.0
    assert machine.clock.is_trusted()
    assert machine.error_s() == pytest.approx(step_s)
    (report,) = machine.reports
    assert ("ahead" if step_s > 0 else "back") in report


def test_a_step_that_is_taken_back_moves_nothing() -> None:
    machine = Machine(START_S - 10.0)
    machine.ahead_s = 60 * DAY_S
    machine.clock.read()
    machine.now_s, machine.ahead_s = 90.0, 0.0
    assert machine.error_s() == pytest.approx(0.0)
    machine.now_s = 2 * DAY_S
    assert machine.error_s() == pytest.approx(0.0)
    assert machine.clock.is_trusted()
    assert len(machine.reports) == 2


def test_slow_changes_are_followed() -> None:
    machine = Machine(START_S - 10.0)
    for minute in range(600):
        machine.now_s, machine.ahead_s = 60.0 * minute, 0.5 * minute
        assert machine.error_s() == pytest.approx(machine.ahead_s)
        assert machine.clock.is_trusted()
    assert machine.reports == []


def test_a_start_in_the_past_of_the_store_runs_on_from_its_newest_row() -> None:
    machine = Machine(START_S, ahead_s=-30 * DAY_S)
    machine.now_s = 7.0
    assert machine.error_s() == pytest.approx(0.0)
    assert not machine.clock.is_trusted()


def test_a_start_long_after_the_newest_row_is_not_believed_for_a_day() -> None:
    machine = Machine(START_S - 60 * DAY_S)
    assert not machine.clock.is_trusted()
    machine.now_s = TRUST_AFTER_S + 1.0
    assert machine.clock.is_trusted()
    assert Machine(None).clock.is_trusted()  # an empty store has nothing to lose


def test_the_newest_row_of_a_store_is_found(tmp_path) -> None:
    store = Store(f"sqlite:///{tmp_path}/cloud.db", clock=lambda: START_S)
    assert store.find_newest_s() is None
    store.save([("home", make_answer(1))])
    assert store.find_newest_s() == START_S
    store.close()


def test_what_was_stored_before_the_clock_was_right_is_kept_as_long_as_all_else(
    tmp_path: Path,
) -> None:
    """A machine starts with its clock 30 days behind; NTP comes after two minutes."""
    keep_s = 30 * DAY_S
    machine = Machine(ahead_s=-30 * DAY_S)
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    store.clock = machine.clock.read
    for hour in range(26):
        machine.now_s = 3600.0 * hour
        store.save([("home", make_answer(hour))])
        if hour == 0:
            machine.now_s, machine.ahead_s = 120.0, 0.0
            machine.clock.read()
    assert machine.clock.is_trusted()
    assert machine.clock.behind_from_s == pytest.approx(START_S - 30 * DAY_S)
    store.protect(machine.clock.behind_from_s, machine.clock.read() + keep_s)
    assert store.prune(machine.clock.read(), keep_s) == 0
    assert len(store.list_newest(50)) == 26
    assert store.prune(machine.clock.read() + keep_s + 1, keep_s) == 26
    store.close()
