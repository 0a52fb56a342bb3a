"""The worker's machine: pieces, tasks, answers."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.machines.worker import JOB, LIMIT, RETRY_S, WorkerNode, piece_of, section_of
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Load,
    Loaded,
    Now,
    Publish,
    Received,
    Tick,
    Unload,
)
from ddnn.protocol.messages import Assignment, Result, Status, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic

PLAN = "cd34ef56"
X = np.arange(4, dtype=np.float32)


class Worker:
    """A worker of six pieces with inputs [4], and its clock."""

    def __init__(self, *held: int) -> None:
        self.machine = WorkerNode("home", "worker1", PLAN, "edge", 6, (4,), 1e9, 1 << 30)
        self.now_s = 0.0
        self.lends: list[list[int]] = []
        self.dones: list[tuple[int, int]] = []
        self.event(Connected())
        if held:
            self.assign(*held)
            for piece in held:
                self.loaded(piece)

    def event(self, event):
        effects = self.machine.handle(event, Now(self.now_s, 1e9 + self.now_s))
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, WorkerOffer):
                assert effect.topic == Topic("home", Kind.OFFER, "worker1")
                self.lends.append(list(effect.message.holds))
            if isinstance(effect, Publish) and isinstance(effect.message, Result):
                assert effect.topic == Topic("home", Kind.RESULT, "worker1")
                self.dones.append((effect.message.job, effect.message.piece))
        return [effect for effect in effects if not isinstance(effect, Publish)]

    def assign(self, *pieces, plan=PLAN, node="worker1", group="edge"):
        return self.event(
            Received(Topic("home", Kind.ASSIGN, group), Assignment(plan, {node: list(pieces)}))
        )

    def loaded(self, piece, ok=True):
        return self.event(Loaded(section_of(piece), ok))

    def task(self, job, x=X, plan=PLAN):
        return self.event(
            Received(Topic("home", Kind.TASK, "edge"), Task(1, plan, job, Tensor.of(x)))
        )

    def computed(self, job, z=1.0):
        outputs = None if z is None else {"z": np.full(3, z, np.float32)}
        return self.event(Computed((JOB, job), outputs))


def sections(effects):
    assert all(isinstance(effect, Compute) and effect.lent for effect in effects)
    return [(effect.job[1], effect.section) for effect in effects]


def test_it_says_what_it_lends_when_it_connects() -> None:
    worker = Worker()
    assert worker.lends == [[]]
    worker = Worker(2, 4)
    worker.event(Disconnected())
    worker.event(Connected())
    assert worker.lends[-1] == [2, 4]


def test_it_loads_what_it_is_given_and_says_so() -> None:
    worker = Worker()
    assert worker.assign(4, 2, 4) == [Load(section_of(2)), Load(section_of(4))]
    assert worker.assign(2, 4) == []  # under way
    worker.loaded(2)
    worker.loaded(4)
    assert worker.lends == [[], [], [], [2], [2, 4]]
    assert worker.machine.gauges["pieces_held"] == 2


def test_every_assignment_is_answered() -> None:
    """Who says it again may not have heard what is held."""
    worker = Worker(2)
    told = len(worker.lends)
    assert worker.assign(2) == []
    assert worker.lends[told:] == [[2]]
    worker.assign(2, plan="00000000")
    worker.event(Disconnected())
    worker.assign(2)
    assert worker.lends[told:] == [[2]]


def test_it_hears_what_is_said_of_itself() -> None:
    """So that the loop can contradict a Will that came too late."""
    filters = Worker().machine.subscriptions()
    assert str(Topic("home", Kind.STATUS, "worker1")) in filters
    assert not any("+" in text for text in filters)  # and nothing of the others
    worker = Worker(2)
    status = Status("worker", 9, "lost")
    assert worker.event(Received(Topic("home", Kind.STATUS, "worker1"), status)) == []
    assert worker.machine.gauges["pieces_held"] == 1


def test_it_gives_back() -> None:
    worker = Worker(2, 4)
    assert worker.assign(4, 5) == [Unload(section_of(2)), Load(section_of(5))]
    assert worker.lends[-1] == [4]
    assert worker.event(
        Received(Topic("home", Kind.ASSIGN, "edge"), Assignment(PLAN, {"worker9": [1]}))
    ) == [Unload(section_of(4))]
    assert worker.lends[-1] == []


def test_what_is_taken_away_while_it_is_loaded_is_not_kept() -> None:
    worker = Worker()
    worker.assign(2)
    worker.assign()
    assert worker.loaded(2) == [Unload(section_of(2))]
    assert worker.machine.gauges["pieces_held"] == 0
    assert worker.assign(2) == [Load(section_of(2))]


def test_a_piece_whose_file_is_missing_is_tried_again() -> None:
    worker = Worker()
    worker.assign(1, 3)
    worker.loaded(3)
    assert worker.loaded(1, ok=False) == []
    assert worker.machine.counts["shards_failed"] == 1
    assert worker.machine.deadline_s() == RETRY_S
    worker.now_s = RETRY_S
    assert worker.event(Tick()) == [Load(section_of(1))]
    assert worker.machine.deadline_s() is None
    worker.loaded(1)
    assert worker.lends[-1] == [1, 3]


def test_pieces_that_the_layer_does_not_have_are_not_loaded() -> None:
    assert Worker().assign(1, 6, 1000) == [Load(section_of(1))]


@pytest.mark.parametrize("wrong", [{"plan": "00000000"}, {"group": "edge2"}])
def test_assignments_of_others_change_nothing(wrong) -> None:
    worker = Worker(2)
    assert worker.assign(1, **wrong) == []
    assert worker.machine.gauges["pieces_held"] == 1


def test_pieces_are_computed_one_after_the_other_and_answered_at_once() -> None:
    worker = Worker(4, 2)
    assert sections(worker.task(7)) == [(7, section_of(2))]
    assert worker.task(8) == []
    assert sections(worker.computed(7)) == [(7, section_of(4))]
    assert worker.dones == [(7, 2)]
    assert sections(worker.computed(7)) == [(8, section_of(2))]
    worker.computed(8)
    worker.computed(8)
    assert worker.dones == [(7, 2), (7, 4), (8, 2), (8, 4)]
    assert worker.machine.gauges["tasks_waiting"] == 0
    assert worker.machine.counts == {"pieces_done": 4}


def test_a_worker_without_pieces_has_nothing_to_do() -> None:
    worker = Worker()
    assert worker.task(1) == worker.task(2) == []
    assert worker.machine.gauges["tasks_waiting"] == 0
    worker.assign(3)
    worker.loaded(3)
    assert sections(worker.task(3)) == [(3, section_of(3))]


def test_a_worker_that_was_behind_does_the_newest_tasks() -> None:
    """Its gatherer has long given up the others."""
    worker = Worker(0)
    for job in range(100):
        worker.task(job)
    assert worker.machine.gauges["tasks_waiting"] == LIMIT
    assert worker.machine.counts["tasks_skipped"] == 99 - LIMIT
    for job in [0, *range(100 - LIMIT, 100)]:
        worker.computed(job)
    assert [job for job, _ in worker.dones] == [0, *range(100 - LIMIT, 100)]


def test_a_piece_that_was_taken_away_is_not_computed() -> None:
    """Its section is not there any more."""
    worker = Worker(1, 2, 3)
    worker.task(7)
    worker.task(8)
    worker.assign(1, 3)
    assert sections(worker.computed(7)) == [(7, section_of(3))]
    assert sections(worker.computed(7)) == [(8, section_of(1))]
    worker.assign()
    assert worker.computed(8) == []
    assert worker.task(9) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan": "00000000"},
        {"x": X[:3]},
        {"x": X.reshape(2, 2)},
        {"x": X.astype(np.float16)},
    ],
)
def test_tasks_that_do_not_fit_are_refused(wrong) -> None:
    worker = Worker(0)
    assert worker.task(1, **wrong) == []
    assert sum(worker.machine.counts.values()) == 1
    assert sections(worker.task(2)) == [(2, section_of(0))]


@pytest.mark.parametrize("z", [None, np.nan, np.inf])
def test_a_failure_is_not_told_and_work_goes_on(z) -> None:
    worker = Worker(0, 1)
    worker.task(1)
    assert sections(worker.computed(1, z)) == [(1, section_of(1))]
    worker.computed(1)
    assert worker.dones == [(1, 1)]
    assert worker.machine.counts == {"section_failed": 1, "pieces_done": 1}


def test_without_a_broker_there_is_nothing_to_compute() -> None:
    worker = Worker(0, 1)
    worker.task(1)
    worker.task(2)
    worker.event(Disconnected())
    assert worker.computed(1) == []
    assert worker.dones == []
    worker.event(Connected())
    assert sections(worker.task(3)) == [(3, section_of(0))]


def test_results_of_other_machines_of_the_process_are_not_taken() -> None:
    """A camera may be called anything that is an id."""
    worker = Worker(0)
    worker.task(1)
    for name in ("piece", "worker1", "cam1"):
        assert worker.event(Computed((name, 1), {"scores": X})) == []
    assert worker.dones == []


def test_names_of_pieces() -> None:
    assert [piece_of(section_of(n)) for n in (0, 17, 1023)] == [0, 17, 1023]
    for name in ("edge", "piece", "piece/", "piece/x", "piece/-1", "head", "0"):
        assert piece_of(name) is None
