"""Which workers a gatherer counts on and waits for."""

from __future__ import annotations

import pytest

from ddnn.machines.membership import PROBE_S
from ddnn.machines.placement import SETTLE_S
from ddnn.protocol.machine import Connected, Disconnected
from tests.unit.machines.gather_group import TIMEOUT_S, Group, failed, kinds


def test_nobody_is_there_at_first() -> None:
    group = Group(online=False)
    assert group.machine.pool.live_pieces == frozenset()
    assert not group.machine.possible
    assert {state.state for state in group.machine.pool.states().values()} == {"lost"}


@pytest.mark.parametrize("order", ["status first", "lend first"])
def test_presence_and_lending_come_in_any_order(order) -> None:
    group = Group(online=False)
    for piece in range(4):
        if order == "status first":
            group.status(f"w{piece}")
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.offer(f"w{piece}", piece)
        else:
            group.offer(f"w{piece}", piece)
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.status(f"w{piece}")
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert group.machine.possible


def test_who_holds_nothing_is_not_counted_on() -> None:
    group = Group(online=False)
    group.status("w0")
    group.offer("w0")
    assert group.state("w0") == "loading"
    group.offer("w0", 3)  # what is another's
    assert group.machine.pool.live_pieces == frozenset()
    group.offer("w0", 0, 3)
    assert group.machine.pool.live_pieces == {0}
    assert group.state("w0") == "live"
    group.offer("w0", 0, plan="00000000")
    assert group.machine.pool.live_pieces == frozenset()
    assert group.machine.counts == {"wrong_plan": 1}


@pytest.mark.parametrize("what", ["lost", "stopped", "unloads"])
def test_tasks_do_not_wait_for_who_is_gone(what) -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.done(job, 1)

    def go(node):
        return group.offer(node) if what == "unloads" else group.status(node, what)

    assert go("w3") == []  # w2 may still come
    assert failed(go("w2")) == [job]
    assert group.machine.deadline_s() <= group.now_s + SETTLE_S


def test_a_task_fails_as_soon_as_those_who_are_left_cannot_be_enough() -> None:
    group = Group(5, 4)
    job = group.scatter()
    group.done(job, 0)
    assert group.status("w1", "lost") == []
    assert failed(group.status("w2", "lost")) == [job]  # w3 and w4 make three


def test_when_enough_are_there_the_rest_is_not_waited_for_longer_than_it_lives() -> None:
    group = Group()
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.status("w1", "lost")) == ["Ended"]


def test_a_threshold_ends_when_the_last_that_is_waited_for_is_gone() -> None:
    group = Group(threshold_s=0.05)
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.status("w1", "lost")) == ["Enough", "Ended"]


def test_without_a_broker_nothing_is_waited_for() -> None:
    group = Group()
    job = group.scatter()
    assert failed(group.event(Disconnected())) == [job]
    assert not group.machine.possible


def test_an_old_connections_will_takes_nobody_away() -> None:
    group = Group()
    group.status("w0", "online", session=2)
    group.status("w0", "lost", session=1)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


@pytest.mark.parametrize("fresh", [True, False], ids=["edge starts", "edge reconnects"])
def test_a_false_will_that_was_kept_is_corrected_by_the_next_birth(fresh) -> None:
    group = Group(online=not fresh)
    if not fresh:
        group.event(Disconnected())
        group.event(Connected())
    group.offer("w0", 0)
    group.status("w0", "lost", session=7)  # retained; of a connection that w0 had before
    assert group.machine.pool.live_pieces == frozenset()
    group.status("w0", "online", session=1)
    assert group.machine.pool.live_pieces == {0}


def test_an_answer_of_a_dead_worker_counts_and_brings_it_not_back() -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.status("w1", "lost")
    group.done(job, 1)  # it was under way
    assert kinds(group.done(job, 2)) == ["Enough"]
    assert group.state("w1") == "lost"


def test_who_misses_two_tasks_is_not_waited_for_until_it_answers_in_time() -> None:
    group = Group()
    for _ in range(2):
        assert group.machine.pool.live_pieces == {0, 1, 2, 3}
        group.answer_all(group.scatter(), "w1")
        group.wait(TIMEOUT_S)
    assert group.machine.pool.live_pieces == {0, 2, 3}
    assert group.state("w1") == "stalled"
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.outcomes[-2:]) == ["Enough", "Ended"]  # at once
    group.now_s += TIMEOUT_S / 2
    group.done(job, 1)
    assert group.state("w1") == "live"


def test_an_answer_that_is_too_late_is_no_reason_to_wait_again() -> None:
    group = Group()
    for _ in range(2):
        job = group.scatter()
        group.answer_all(job, "w1")
        group.wait(TIMEOUT_S)
    group.now_s += 0.01
    group.done(job, 1)
    assert group.state("w1") == "stalled"


def test_all_stalled_are_asked_now_and_then() -> None:
    group = Group()
    for _ in range(2):
        group.scatter()
        group.wait(TIMEOUT_S)
    assert not group.machine.possible
    assert not group.machine.probe_due(group.now)
    group.wait(PROBE_S)
    assert group.machine.probe_due(group.now)
    assert not group.machine.probe_due(group.now)  # once a second
    del group.outcomes[:]
    job = group.scatter(probe=True)
    for piece in range(3):
        group.done(job, piece)
    assert group.outcomes == []  # a probe comes to nothing
    assert group.machine.pool.live_pieces == {0, 1, 2}
    assert group.machine.possible
    group.wait(TIMEOUT_S)
    assert group.outcomes == []
