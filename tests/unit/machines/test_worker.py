"""The worker's machine: pieces, tasks, answers."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import PieceKey
from ddnn.machines.worker import LIMIT, RETRY_S, PieceJob, WorkerNode
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Load,
    Loaded,
    Log,
    Now,
    PlanRead,
    Publish,
    ReadPlan,
    Received,
    Subscribe,
    Tick,
    Unload,
)
from ddnn.protocol.messages import Assignment, Result, Status, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic, topic_filter
from tests.plan_builders import make_piece, make_plan

PLAN, OTHER = "cd34ef56", "00000000"
X = np.arange(4, dtype=np.float32)
PROFILE = DeviceProfile("worker1", 1e9, 1 << 30)
THIS = make_plan({"worker9": tuple(range(6))}, make_piece({"x": (4,)}, {"z": (3,)}), plan_id=PLAN)


def make_key(piece: int) -> PieceKey:
    return PieceKey(PLAN, piece)


class Worker:
    """A worker of six pieces with inputs [4], and its clock."""

    def __init__(self, *held: int) -> None:
        self.machine = WorkerNode("home", "worker1", THIS, PROFILE)
        self.now_s = 0.0
        self.lends: list[list[int]] = []
        self.dones: list[tuple[int, int]] = []
        self.offers: list[dict[str, list[int]]] = []
        self.results: list[Result] = []
        self.event(Connected())
        if held:
            self.assign(*held)
            for piece in held:
                self.finish_loading(piece)

    def event(self, event):
        effects = self.machine.handle(event, Now(self.now_s, 1e9 + self.now_s))
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, WorkerOffer):
                assert effect.topic == Topic("home", Kind.OFFER, "worker1")
                self.offers.append(dict(effect.message.holds))
                self.lends.append(list(effect.message.holds.get(PLAN, ())))
            if isinstance(effect, Publish) and isinstance(effect.message, Result):
                assert effect.topic == Topic("home", Kind.RESULT, "worker1")
                self.results.append(effect.message)
                self.dones.append((effect.message.job, effect.message.piece))
        return [effect for effect in effects if not isinstance(effect, Publish)]

    def assign(self, *pieces, plan=PLAN, node="worker1", group="edge"):
        return self.event(
            Received(Topic("home", Kind.ASSIGN, group), Assignment({plan: {node: list(pieces)}}))
        )

    def finish_loading(self, piece, ok=True):
        return self.event(Loaded(make_key(piece), ok))

    def task(self, job, x=X, plan=PLAN):
        return self.event(
            Received(Topic("home", Kind.TASK, "edge"), Task(1, plan, job, {"x": Tensor.of(x)}))
        )

    def finish_computing(self, job, z=1.0):
        outputs = None if z is None else {"z": np.full(3, z, np.float32)}
        at_work = self.machine._computing
        token = at_work._replace(task=job) if at_work else PieceJob(make_key(0), job)
        return self.event(Computed(token, outputs))


def sections(effects):
    assert all(isinstance(effect, Compute) and effect.lent for effect in effects)
    return [(effect.job.task, effect.section) for effect in effects]


def test_it_says_what_it_lends_when_it_connects() -> None:
    worker = Worker()
    assert worker.lends == [[]]
    worker = Worker(2, 4)
    worker.event(Disconnected())
    worker.event(Connected())
    assert worker.lends[-1] == [2, 4]


def test_it_loads_what_it_is_given_and_says_so() -> None:
    worker = Worker()
    assert worker.assign(4, 2, 4) == [Load(make_key(2)), Load(make_key(4))]
    assert worker.assign(2, 4) == []  # under way
    worker.finish_loading(2)
    worker.finish_loading(4)
    assert worker.lends == [[], [], [], [2], [2, 4]]
    assert worker.machine.gauges["pieces_held"] == 2


def test_every_assignment_is_answered() -> None:
    """Who says it again may not have heard what is held."""
    worker = Worker(2)
    before = len(worker.lends)
    assert worker.assign(2) == []
    assert worker.lends[before:] == [[2]]
    worker.assign(2, plan="00000000")
    worker.event(Disconnected())
    worker.assign(2)
    assert worker.lends[before:] == [[2]]


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
    assert worker.assign(4, 5) == [Unload(make_key(2)), Load(make_key(5))]
    assert worker.lends[-1] == [4]
    assert worker.event(
        Received(Topic("home", Kind.ASSIGN, "edge"), Assignment({PLAN: {"worker9": [1]}}))
    ) == [Unload(make_key(4))]
    assert worker.lends[-1] == []


def test_what_is_taken_away_while_it_is_loaded_is_not_kept() -> None:
    worker = Worker()
    worker.assign(2)
    worker.assign()
    assert worker.finish_loading(2) == [Unload(make_key(2))]
    assert worker.machine.gauges["pieces_held"] == 0
    assert worker.assign(2) == [Load(make_key(2))]


def test_a_piece_whose_file_is_missing_is_tried_again() -> None:
    worker = Worker()
    worker.assign(1, 3)
    worker.finish_loading(3)
    assert worker.finish_loading(1, ok=False) == []
    assert worker.machine.counts["pieces_failed"] == 1
    assert worker.machine.deadline_s() == RETRY_S
    worker.now_s = RETRY_S
    assert worker.event(Tick()) == [Load(make_key(1))]
    assert worker.machine.deadline_s() is None
    worker.finish_loading(1)
    assert worker.lends[-1] == [1, 3]


def test_pieces_that_the_layer_does_not_have_are_not_loaded() -> None:
    assert Worker().assign(1, 6, 1000) == [Load(make_key(1))]


def test_assignments_of_other_groups_change_nothing() -> None:
    worker = Worker(2)
    assert worker.assign(1, group="edge2") == []
    assert worker.machine.gauges["pieces_held"] == 1


def test_a_plan_that_is_not_on_this_disk_is_looked_for_and_changes_nothing() -> None:
    worker = Worker(2)
    assert worker.assign(1, plan=OTHER) == [ReadPlan(OTHER)]
    assert worker.assign(1, plan=OTHER) == []  # it is being read
    (log,) = worker.event(PlanRead(OTHER, None))
    assert isinstance(log, Log)
    assert (log.level, log.arguments) == ("warning", ("edge", OTHER))
    assert worker.machine.counts == {"wrong_plan": 1}
    assert worker.machine.gauges["pieces_held"] == 1
    worker.now_s = RETRY_S
    assert worker.event(Tick()) == [ReadPlan(OTHER)]
    assert worker.event(PlanRead(OTHER, None)) == []  # logged once


def test_two_plans_at_a_time_until_the_older_one_is_no_longer_assigned() -> None:
    """Each task is computed by the plan that it names."""
    worker = Worker(2)

    def assign(**plans: list[int]) -> list[Effect]:
        pieces = {plan: {"worker1": held} for plan, held in plans.items()}
        return worker.event(Received(Topic("home", Kind.ASSIGN, "edge"), Assignment(pieces)))

    both = {PLAN: [2], OTHER: [0]}
    assert assign(**both) == [ReadPlan(OTHER)]
    other = make_plan({"worker1": (0,)}, make_piece({"y": (1,)}, {"z": (3,)}), plan_id=OTHER)
    assert worker.event(PlanRead(OTHER, other)) == [Load(other.key(0))]
    worker.event(Loaded(other.key(0), True))
    assert worker.offers[-1] == both
    assert sections(worker.task(7)) == [(7, make_key(2))]
    y = Tensor.of(np.ones(1, np.float32))
    worker.event(Received(Topic("home", Kind.TASK, "edge"), Task(1, OTHER, 8, {"y": y})))
    assert sections(worker.finish_computing(7)) == [(8, other.key(0))]
    worker.finish_computing(8)
    assert [(result.plan, result.job) for result in worker.results] == [(PLAN, 7), (OTHER, 8)]
    assert assign(**{OTHER: [0]}) == [Unload(make_key(2))]
    assert worker.offers[-1] == {OTHER: [0]}
    assert worker.task(9) == []
    assert worker.machine.counts["wrong_plan"] == 1


def test_pieces_are_computed_one_after_the_other_and_answered_at_once() -> None:
    worker = Worker(4, 2)
    assert sections(worker.task(7)) == [(7, make_key(2))]
    assert worker.task(8) == []
    assert sections(worker.finish_computing(7)) == [(7, make_key(4))]
    assert worker.dones == [(7, 2)]
    assert sections(worker.finish_computing(7)) == [(8, make_key(2))]
    worker.finish_computing(8)
    worker.finish_computing(8)
    assert worker.dones == [(7, 2), (7, 4), (8, 2), (8, 4)]
    assert worker.machine.gauges["tasks_waiting"] == 0
    assert worker.machine.counts == {"pieces_done": 4}


def test_a_worker_without_pieces_has_nothing_to_do() -> None:
    worker = Worker()
    assert worker.task(1) == worker.task(2) == []
    assert worker.machine.gauges["tasks_waiting"] == 0
    worker.assign(3)
    worker.finish_loading(3)
    assert sections(worker.task(3)) == [(3, make_key(3))]


def test_a_worker_that_was_behind_does_the_newest_tasks() -> None:
    """Its gatherer has long given up the others."""
    worker = Worker(0)
    for job in range(100):
        worker.task(job)
    assert worker.machine.gauges["tasks_waiting"] == LIMIT
    assert worker.machine.counts["tasks_skipped"] == 99 - LIMIT
    for job in [0, *range(100 - LIMIT, 100)]:
        worker.finish_computing(job)
    assert [job for job, _ in worker.dones] == [0, *range(100 - LIMIT, 100)]


def test_a_piece_that_was_taken_away_is_not_computed() -> None:
    """Its section is not there any more."""
    worker = Worker(1, 2, 3)
    worker.task(7)
    worker.task(8)
    worker.assign(1, 3)
    assert sections(worker.finish_computing(7)) == [(7, make_key(3))]
    assert sections(worker.finish_computing(7)) == [(8, make_key(1))]
    worker.assign()
    assert worker.finish_computing(8) == []
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
    assert sections(worker.task(2)) == [(2, make_key(0))]


@pytest.mark.parametrize("z", [None, np.nan, np.inf])
def test_a_failure_is_not_told_and_work_goes_on(z) -> None:
    worker = Worker(0, 1)
    worker.task(1)
    assert sections(worker.finish_computing(1, z)) == [(1, make_key(1))]
    worker.finish_computing(1)
    assert worker.dones == [(1, 1)]
    assert worker.machine.counts == {"section_failed": 1, "pieces_done": 1}


def test_without_a_broker_there_is_nothing_to_compute() -> None:
    worker = Worker(0, 1)
    worker.task(1)
    worker.task(2)
    worker.event(Disconnected())
    assert worker.finish_computing(1) == []
    assert worker.dones == []
    worker.event(Connected())
    assert sections(worker.task(3)) == [(3, make_key(0))]


def test_results_of_other_machines_of_the_process_are_not_taken() -> None:
    """A camera may be called anything that is an id."""
    worker = Worker(0)
    worker.task(1)
    for name in ("piece", "worker1", "cam1"):
        assert worker.event(Computed((name, 1), {"scores": X})) == []
    assert worker.dones == []


# --------------------------------------------------------- started without a plan


class Newcomer(Worker):
    """A worker that has no plan yet."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = WorkerNode("home", "worker1", None, PROFILE)
        self.event(Connected())


def test_without_a_plan_it_hears_every_assignment_and_no_task() -> None:
    filters = Newcomer().machine.subscriptions()
    assert topic_filter(Kind.ASSIGN, "home") in filters
    assert not [text for text in filters if "/task/" in text]


def test_it_serves_the_first_owner_whose_plan_comes_to_its_disk() -> None:
    worker = Newcomer()
    assert worker.assign(0, plan=OTHER, group="edge-b") == [ReadPlan(OTHER)]
    (log,) = worker.event(PlanRead(OTHER, None))
    assert isinstance(log, Log)
    assert log.arguments == ("edge-b", OTHER)
    assert ReadPlan(PLAN) in worker.assign(2)
    assert isinstance(worker.event(PlanRead(PLAN, None))[0], Log)
    assert worker.event(PlanRead(OTHER, None)) == []
    worker.now_s += RETRY_S
    assert sorted(effect.id for effect in worker.event(Tick())) == [OTHER, PLAN]
    effects = worker.event(PlanRead(PLAN, THIS))
    assert effects[0] == Subscribe([topic_filter(Kind.TASK, "home", "edge")])
    assert effects[-1] == Load(make_key(2))
    worker.finish_loading(2)
    assert worker.offers[-1] == {PLAN: [2]}
    assert sections(worker.task(5)) == [(5, make_key(2))]
    assert topic_filter(Kind.TASK, "home", "edge") in worker.machine.subscriptions()
    assert worker.assign(0, plan=OTHER, group="edge-b") == [], "it works for one owner"
    assert worker.event(PlanRead(OTHER, None)) == []


def test_a_plan_of_an_owner_that_assigned_nothing_is_not_followed() -> None:
    worker = Newcomer()
    worker.assign(2)
    stranger = make_plan({"worker9": tuple(range(6))}, plan_id=PLAN, group="edge-z")
    effects = worker.event(PlanRead(PLAN, stranger))
    assert [type(effect) for effect in effects] == [Log]
    assert worker.machine.group == ""
