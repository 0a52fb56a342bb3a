"""Which workers a gatherer counts on and waits for."""

from __future__ import annotations

import pytest

from ddnn.machines.membership import PROBE_S
from ddnn.machines.placement import SETTLE_S
from ddnn.protocol.machine import Connected, Disconnected
from tests.unit.machines.gather_group import TIMEOUT_S, Group, list_failed, name_outcomes


def test_at_first_no_worker_is_live() -> None:
    group = Group(online=False)
    assert group.machine.pool.live_pieces == frozenset()
    assert not group.machine.quorum.is_possible()
    assert {state.state for state in group.machine.pool.states().values()} == {"lost"}


@pytest.mark.parametrize("order", ["status first", "offer first"])
def test_status_and_offer_may_arrive_in_either_order(order) -> None:
    group = Group(online=False)
    for piece in range(4):
        if order == "status first":
            group.announce(f"w{piece}")
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.offer(f"w{piece}", piece)
        else:
            group.offer(f"w{piece}", piece)
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.announce(f"w{piece}")
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert group.machine.quorum.is_possible()


def test_a_worker_that_holds_no_piece_of_its_own_is_not_live() -> None:
    group = Group(online=False)
    group.announce("w0")
    group.offer("w0")
    assert group.state("w0") == "loading"
    group.offer("w0", 3)  # a piece of another worker
    assert group.machine.pool.live_pieces == frozenset()
    group.offer("w0", 0, 3)
    assert group.machine.pool.live_pieces == {0}
    assert group.state("w0") == "live"
    group.offer("w0", 0, plan="00000000")
    assert group.machine.pool.live_pieces == frozenset()
    assert group.machine.counts == {"wrong_plan": 1}


@pytest.mark.parametrize("what", ["lost", "stopped", "unloads"])
def test_tasks_do_not_wait_for_workers_that_are_gone(what) -> None:
    group = Group()
    job = group.scatter()
    group.report(job, 0)
    group.report(job, 1)

    def end_worker(node):
        return group.offer(node) if what == "unloads" else group.announce(node, what)

    assert end_worker("w3") == []  # w2 may still come
    assert list_failed(end_worker("w2")) == [job]
    assert group.machine.deadline_s() <= group.now_s + SETTLE_S


def test_a_task_fails_as_soon_as_those_who_are_left_cannot_be_enough() -> None:
    group = Group(5, 4)
    job = group.scatter()
    group.report(job, 0)
    assert group.announce("w1", "lost") == []
    assert list_failed(group.announce("w2", "lost")) == [job]  # w3 and w4 make three


def test_a_complete_task_ends_when_the_last_missing_worker_is_lost() -> None:
    group = Group()
    job = group.scatter()
    group.report_all(job, "w1")
    assert name_outcomes(group.announce("w1", "lost")) == ["Ended"]


def test_the_threshold_ends_when_the_last_missing_worker_is_lost() -> None:
    group = Group(threshold_s=0.05)
    job = group.scatter()
    group.report_all(job, "w1")
    assert name_outcomes(group.announce("w1", "lost")) == ["Enough", "Ended"]


def test_without_a_broker_nothing_is_waited_for() -> None:
    group = Group()
    job = group.scatter()
    assert list_failed(group.handle(Disconnected())) == [job]
    assert not group.machine.quorum.is_possible()


def test_the_will_of_an_older_connection_is_ignored() -> None:
    group = Group()
    group.announce("w0", "online", session=2)
    group.announce("w0", "lost", session=1)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


@pytest.mark.parametrize("fresh", [True, False], ids=["edge starts", "edge reconnects"])
def test_a_retained_false_will_is_corrected_by_the_next_birth(fresh) -> None:
    group = Group(online=not fresh)
    if not fresh:
        group.handle(Disconnected())
        group.handle(Connected())
    group.offer("w0", 0)
    group.announce("w0", "lost", session=7)  # retained; of a connection that w0 had before
    assert group.machine.pool.live_pieces == frozenset()
    group.announce("w0", "online", session=1)
    assert group.machine.pool.live_pieces == {0}


def test_a_result_of_a_lost_worker_counts_and_does_not_make_it_live() -> None:
    group = Group()
    job = group.scatter()
    group.report(job, 0)
    group.announce("w1", "lost")
    group.report(job, 1)  # it was under way
    assert name_outcomes(group.report(job, 2)) == ["Enough"]
    assert group.state("w1") == "lost"


def test_a_worker_that_misses_two_tasks_is_not_waited_for_until_it_reports_in_time() -> None:
    group = Group()
    for _ in range(2):
        assert group.machine.pool.live_pieces == {0, 1, 2, 3}
        group.report_all(group.scatter(), "w1")
        group.wait(TIMEOUT_S)
    assert group.machine.pool.live_pieces == {0, 2, 3}
    assert group.state("w1") == "stalled"
    job = group.scatter()
    group.report_all(job, "w1")
    assert name_outcomes(group.outcomes[-2:]) == ["Enough", "Ended"]  # at once
    group.now_s += TIMEOUT_S / 2
    group.report(job, 1)
    assert group.state("w1") == "live"


def test_a_late_result_does_not_make_a_stalled_worker_live() -> None:
    group = Group()
    for _ in range(2):
        job = group.scatter()
        group.report_all(job, "w1")
        group.wait(TIMEOUT_S)
    group.now_s += 0.01
    group.report(job, 1)
    assert group.state("w1") == "stalled"


def test_where_all_workers_stall_probes_are_due() -> None:
    group = Group()
    for _ in range(2):
        group.scatter()
        group.wait(TIMEOUT_S)
    assert not group.machine.quorum.is_possible()
    assert not group.machine.probe_due(group.now)
    group.wait(PROBE_S)
    assert group.machine.probe_due(group.now)
    assert not group.machine.probe_due(group.now)  # once a second
    del group.outcomes[:]
    job = group.scatter(probe=True)
    for piece in range(3):
        group.report(job, piece)
    assert group.outcomes == []  # a probe comes to nothing
    assert group.machine.pool.live_pieces == {0, 1, 2}
    assert group.machine.quorum.is_possible()
    group.wait(TIMEOUT_S)
    assert group.outcomes == []
