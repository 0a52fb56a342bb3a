"""When the room is asked for another placement, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Sequence

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import Plan
from ddnn.machines.replan import Candidate, Replanner
from ddnn.machines.workers import WorkerPool
from ddnn.protocol.machine import Call, Effect, Log, Returned
from ddnn.protocol.messages import Status, WorkerOffer
from tests.plan_builders import make_plan

TERM_S = 10.0
PLAN = make_plan({"a": (0,), "b": (1,), "c": (1,)})
MOVED = {"a": (0,), "b": (1,)}


class Owner:
    """A replanner, the pool that it looks at, and the calls that it makes."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.plan, self.now_s = PLAN, 0.0
        self.replanner = Replanner(list(PLAN.placement), self.place, TERM_S, 0.0)
        self.pool = WorkerPool(PLAN.id, PLAN.placement)
        for name in PLAN.placement:
            self.announce(name)

    def place(self, plan: Plan, candidates: Sequence[Candidate]) -> Plan | None:
        self.asked.append([one.name for one in candidates])
        return plan.revise(0, MOVED, {"for": self.asked[-1]})

    def announce(self, name: str, state="online") -> None:
        self.pool.take_offer(name, WorkerOffer({PLAN.id: [0]}, DeviceProfile(name, 1e9)))
        self.pool.take_status(name, Status("worker", 1, state), self.now_s)

    def watch(self, seconds: float) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(int(seconds)):
            self.now_s += 1
            effects += self.replanner.update(self.plan, self.pool, self.now_s)
        return effects


def run(call: Effect) -> Returned:
    assert isinstance(call, Call)
    assert call.lent
    return Returned(call.job, call.function(), 0.0)


def test_while_the_workers_are_those_of_the_plan_nothing_is_asked() -> None:
    owner = Owner()
    assert owner.watch(5 * TERM_S) == []
    owner.announce("c", "lost")
    assert owner.watch(TERM_S) == []


def test_once_one_has_left_a_revision_is_made_and_no_second_one() -> None:
    owner = Owner()
    owner.announce("c", "lost")
    (call,) = owner.watch(3 * TERM_S)
    revised, logs = owner.replanner.take(run(call), PLAN)
    assert owner.asked == [["a", "b"]]
    assert logs == []
    assert revised is not None
    assert (revised.id, revised.placement, revised.pieces) == (
        f"{PLAN.id}-1",
        MOVED,
        PLAN.pieces,
    )
    owner.plan = revised
    assert owner.watch(5 * TERM_S) == []
    owner.announce("c")
    (call,) = owner.watch(3 * TERM_S)
    again, _ = owner.replanner.take(run(call), revised)
    assert again is not None
    assert again.id == f"{PLAN.id}-2"
    assert owner.asked[-1] == ["a", "b", "c"]


def test_an_answer_for_a_plan_that_is_not_in_use_any_more_is_dropped() -> None:
    owner = Owner()
    owner.announce("c", "lost")
    (call,) = owner.watch(3 * TERM_S)
    other = make_plan({"a": (0,), "b": (1,)}, plan_id="00000000")
    assert owner.replanner.take(run(call), other) == (None, [])
    owner.plan = other
    assert owner.watch(5) == [], "the new plan was made for whom it names"


def test_a_failure_is_logged_and_asked_no_more() -> None:
    owner = Owner()
    owner.announce("c", "lost")
    (call,) = owner.watch(3 * TERM_S)
    assert isinstance(call, Call)
    revised, logs = owner.replanner.take(Returned(call.job, None, 0.0, "ValueError: no"), PLAN)
    assert revised is None
    assert [type(log) for log in logs] == [Log]
    assert owner.watch(5 * TERM_S) == []


def test_an_answer_for_a_placement_that_is_not_in_use_any_more_is_asked_for_again() -> None:
    owner = Owner()
    owner.announce("c", "lost")
    (call,) = owner.watch(3 * TERM_S)
    owner.plan = PLAN.revise(1, MOVED, {})
    assert owner.replanner.take(run(call), owner.plan) == (None, [])
    (again,) = owner.watch(5)
    assert owner.replanner.take(run(again), owner.plan)[0] is not None
