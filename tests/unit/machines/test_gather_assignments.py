"""The assignment of pieces to planned workers, and to spare workers that stand in for them."""

from __future__ import annotations

import pytest

from ddnn.machines.placement import LOAD_S, REPEAT_S, SETTLE_S
from ddnn.protocol.machine import Connected, Disconnected
from tests.unit.machines.gather_group import TIMEOUT_S, Group, make_group_with_spares, name_outcomes


def test_the_assignment_is_published_once_and_includes_absent_workers() -> None:
    """A worker that starts finds its pieces at the broker; an edge that starts takes no piece
    away from anybody."""
    group = Group(online=False)
    group.wait(1.0)
    assert group.assigned == [{f"w{i}": [i] for i in range(4)}]
    for name in group.planned:
        group.announce(name)
        group.offer(name)
    group.announce("w2", "lost")
    group.wait(1.0)
    assert len(group.assigned) == 1


def test_the_assignment_is_published_again_after_a_reconnection() -> None:
    group = Group()
    group.handle(Disconnected())
    group.wait(1.0)
    assert len(group.assigned) == 1
    group.handle(Connected())
    group.wait(1.0)
    assert len(group.assigned) == 2


def test_a_spare_stands_in_until_the_planned_worker_is_live_again() -> None:
    group = Group()
    group.announce("x")
    group.offer("x")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 1  # nothing to do for it
    group.announce("w2", "lost")
    group.wait(SETTLE_S)
    assert group.assigned[-1]["x"] == [2]
    group.offer("x", 2)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert not group.machine.pool.states()["x"].planned
    group.announce("w2", session=2)
    group.offer("w2")
    group.wait(1.0)
    assert group.assigned[-1]["x"] == [2]  # it has not loaded yet
    group.offer("w2", 2)
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


def test_a_spare_stands_in_for_a_stalled_worker_and_both_may_report() -> None:
    group = Group()
    group.announce("x")
    group.offer("x")
    for _ in range(2):
        group.report_all(group.scatter(), "w1")
        group.wait(TIMEOUT_S)
    group.wait(SETTLE_S)
    assert group.assigned[-1] == {**{f"w{i}": [i] for i in range(4)}, "x": [1]}
    group.offer("x", 1)
    job = group.scatter()
    group.report(job, 1, "x")
    group.report(job, 1, "w1")
    assert group.machine.counts == {"results_late": 1}
    group.report_all(job, "w1")
    assert group.outcomes[-1].senders[1] == "x"
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]  # w1 is trusted again


def test_results_of_a_spare_that_was_relieved_meanwhile_count() -> None:
    group = Group(timeout_s=1.0)
    group.announce("w2", "lost")
    group.announce("x")
    group.offer("x")
    group.wait(SETTLE_S)
    group.offer("x", 2)
    job = group.scatter()
    group.announce("w2", session=2)
    group.offer("w2", 2)
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]
    group.report(job, 2, "x")
    group.report(job, 0)
    assert name_outcomes(group.report(job, 1)) == ["Enough"]
    assert group.machine.counts == {}


def test_changes_within_a_short_time_are_published_together() -> None:
    group = Group()
    for i in range(4):
        group.announce(f"x{i}")
        group.offer(f"x{i}")
        group.announce(f"w{i}", "lost")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    assert [group.assigned[-1][f"x{i}"] for i in range(4)] == [[i] for i in range(4)]


def test_a_stalled_spare_gives_way_to_another() -> None:
    group = Group()
    for name in ("x", "y"):
        group.announce(name)
        group.offer(name)
    group.announce("w0", "lost")
    group.wait(SETTLE_S)
    assert "y" not in group.assigned[-1]
    group.offer("x", 0)
    for _ in range(2):
        group.report_all(group.scatter(), "w0")
        group.wait(TIMEOUT_S)
    group.wait(SETTLE_S)
    assert group.assigned[-1]["y"] == [0]
    assert "x" not in group.assigned[-1]


def test_a_spare_that_does_not_load_gives_way_without_any_traffic() -> None:
    group = make_group_with_spares("x", "y")
    group.wait(LOAD_S - SETTLE_S)
    assert group.assigned[-1].get("x") == [0]
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [0]
    assert "x" not in group.assigned[-1]
    group.offer("y", 0)
    group.wait(60.0)
    assert group.assigned[-1].get("y") == [0]
    assert group.machine.deadline_s() is None
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


def test_a_spare_that_did_not_load_ranks_behind_a_new_one() -> None:
    group = make_group_with_spares("x")
    group.wait(2 * LOAD_S)
    assert group.assigned[-1].get("x") == [0]  # there is no other spare
    group.announce("y")
    group.offer("y")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [0]
    assert "x" not in group.assigned[-1]


@pytest.mark.parametrize("how", ["loads", "starts again"])
def test_a_spare_is_trusted_again(how) -> None:
    group = make_group_with_spares("x")
    group.wait(2 * LOAD_S)
    if how == "loads":
        group.offer("x", 0)
    else:
        group.announce("x", session=2)
    group.wait(SETTLE_S)
    group.announce("a")
    group.offer("a")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("x") == [0]
    assert "a" not in group.assigned[-1]


def test_spares_that_are_slow_to_load_take_turns_that_become_longer() -> None:
    group = make_group_with_spares("x", "y", "z")
    turns: list[tuple[str, float]] = []
    for _ in range(100):
        (turn,) = group.assigned[-1].keys() - group.planned.keys()
        if not turns or turns[-1][0] != turn:
            turns.append((turn, group.now_s))
        group.wait(LOAD_S / 5)
    assert [turn for turn, _ in turns[:7]] == ["x", "y", "z", "x", "y", "z", "x"]
    assert turns[3][1] - turns[0][1] == pytest.approx(3 * LOAD_S, abs=LOAD_S)
    assert turns[6][1] - turns[3][1] == pytest.approx(6 * LOAD_S, abs=LOAD_S)
    first = len(group.assigned)
    group.wait(3600.0)  # assignments go on at a bounded rate
    assert len(group.assigned) - first <= 3600 / REPEAT_S * 1.1
