"""Results that are late, repeated or invalid, and results of faulty workers."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.machines.placement import SETTLE_S
from ddnn.machines.workers import Health, WorkerPool
from ddnn.protocol.machine import Received, Tick
from ddnn.protocol.messages import Result, Status, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from tests.unit.machines.gather_group import PLAN, Group, list_failed

# ------------------------------------------------------------------ late, twice, wrong


def test_late_and_repeated_answers_are_counted_and_dropped() -> None:
    group = Group()
    job = group.scatter()
    group.report(job, 0)
    group.report(job, 0, z=np.full(2, 9, np.float32))
    group.report_all(job)
    assert group.outcomes[0].parts[0]["z"][0] == 0  # the first counts
    seen = len(group.outcomes)
    group.report(job, 1)
    group.report(job + 1000, 1)
    assert len(group.outcomes) == seen
    assert group.machine.counts == {"results_late": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {"piece": 1},
        {"piece": 1000},
        {"plan": "00000000"},
        {"z": np.zeros(3, np.float32)},
        {"z": np.zeros((1, 2), np.float32)},
        {"z": np.zeros(2, np.float16)},
        {"z": np.zeros(2, np.uint8)},
        {"z": np.array([0, np.nan], np.float32)},
        {"z": np.array([np.inf, 0], np.float32)},
        {"node": "stranger"},
        {"node": "w1"},
    ],
    ids=str,
)
def test_answers_that_do_not_fit_are_refused(wrong) -> None:
    group = Group()
    job = group.scatter()
    given = {"node": "w0", "piece": 0, **wrong}
    assert group.report(job, **given) == []
    assert group.machine.counts == {"results_refused": 1}
    group.report_all(job, "w0")
    assert list(group.outcomes[0].parts) == [1, 2, 3]


def test_a_result_of_packed_bits_is_refused() -> None:
    group = Group()
    job = group.scatter()
    tensor = Tensor.of(np.ones(2, np.float32), bits=True)
    assert not group.handle(
        Received(Topic("home", Kind.RESULT, "w0"), Result(1, PLAN, job, 0, {"z": tensor}))
    )
    assert group.machine.counts == {"results_refused": 1}


# ------------------------------------------------------------------------ the faulty


@pytest.mark.parametrize("way", ["another offer", "another plan"])
def test_a_faulty_worker_stays_so_in_its_session(way: str) -> None:
    """Whatever it offers, and also for a plan that takes the place of this one."""
    group = Group()
    group.machine.quarantine({"w1"}, group.now)
    pool = group.machine.pool
    if way == "another offer":
        pool.take_offer("w1", WorkerOffer({}))
    else:
        pool = WorkerPool(PLAN, group.planned)
        pool.adopt_presence(group.machine.pool, group.now_s)
    pool.take_offer("w1", WorkerOffer({PLAN: [1]}))
    assert pool.health("w1") is Health.FAULTY
    assert "w1" not in pool.live
    pool.take_status("w1", Status("worker", 2, "online"), group.now_s)
    assert pool.health("w1") is Health.LIVE


def test_a_faulty_worker_is_left_out_until_it_starts_again() -> None:
    group = Group()
    group.machine.quarantine({"w1"}, group.now)
    group.wait(SETTLE_S)
    assert group.state("w1") == "faulty"
    assert "w1" not in group.assigned[-1]
    job = group.scatter()
    assert group.report(job, 1) == []
    assert group.machine.counts == {"workers_faulty": 1, "results_refused": 1}
    group.machine.quarantine({"w1", "nobody"}, group.now)
    assert group.machine.counts["workers_faulty"] == 1
    group.announce("w1", session=1)  # said once more, by the same
    assert group.state("w1") == "faulty"
    group.announce("w1", session=2)
    group.wait(SETTLE_S)
    assert group.assigned[-1]["w1"] == [1]
    assert group.state("w1") == "live"


def test_results_of_a_faulty_worker_are_removed_from_open_tasks_at_once() -> None:
    group = Group()
    job = group.scatter()
    group.report(job, 1)
    group.report(job, 2)
    group.announce("w3", "lost")
    group.machine.quarantine({"w1"}, group.now)
    assert group.machine.deadline_s() <= group.now_s
    group.handle(Tick())
    assert list_failed(group.outcomes) == [job]


def test_only_the_worker_that_sent_the_result_is_quarantined() -> None:
    """Not the planned worker that a spare stands in for."""
    group = Group()
    group.announce("w2", "lost")
    group.announce("x")
    group.offer("x")
    group.wait(SETTLE_S)
    group.offer("x", 2)
    job = group.scatter()
    group.report(job, 2, "x")
    group.report_all(job, "w2")
    ended = group.outcomes[-1]
    group.machine.quarantine({ended.senders[2]}, group.now)
    assert group.state("x") == "faulty"
    group.announce("w2")
    group.offer("w2", 2)
    assert group.state("w2") == "live"
