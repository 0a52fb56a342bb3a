"""A gatherer whose workers are played by the test, and the outcomes of its tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddnn.machines.collect import Complete
from ddnn.machines.gather import Gather
from ddnn.machines.placement import SETTLE_S
from ddnn.protocol.machine import Connected, Now, Publish, Received, Tick
from ddnn.protocol.messages import Assignment, Result, Status, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from tests.plan_builders import make_plan

PLAN = "cd34ef56"
TIMEOUT_S = 0.1
X = np.zeros(4, np.float32)


class Group:
    """A gatherer of n pieces of which any k are enough. Worker w<i> computes piece i."""

    def __init__(self, n: int = 4, k: int = 3, *, planned=None, online: bool = True, **options):
        self.planned = planned or {f"w{i}": (i,) for i in range(n)}
        self.k = k
        self.asked = 0
        options = {"timeout_s": TIMEOUT_S, **options}
        self.plan = make_plan(self.planned, plan_id=PLAN)
        self.machine = Gather("home", self.plan, self._enough, **options)
        self.now_s = 0.0
        self.outcomes: list[Any] = []
        self.assigned: list[dict[str, list[int]]] = []
        self.handle(Connected())
        if online:
            for name, pieces in self.planned.items():
                self.announce(name)
                self.offer(name, *pieces)
            self.wait(SETTLE_S)

    def _enough(self, pieces) -> bool:
        self.asked += 1
        return len(pieces) >= self.k

    @property
    def now(self) -> Now:
        return Now(self.now_s, 1_700_000_000 + self.now_s)

    def handle(self, event):
        effects, outcomes = self.machine.handle(event, self.now)
        for effect in effects:
            assert isinstance(effect, Publish)
            assert isinstance(effect.message, Assignment)
            assert effect.topic == Topic("home", Kind.ASSIGN, "edge")
            self.assigned.append(dict(effect.message.plans[PLAN]))
        self.outcomes += outcomes
        return outcomes

    def wait(self, for_s: float) -> None:
        """Advance the time by for_s; every tick is handled at its time."""
        until_s = self.now_s + for_s
        for _ in range(1000):
            due_s = self.machine.deadline_s()
            if due_s is None or due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            self.handle(Tick())
        else:
            raise AssertionError("the machine ticks without end")
        self.now_s = until_s

    def announce(self, node, state="online", session=1):
        status = Status("worker", session, state)
        return self.handle(Received(Topic("home", Kind.STATUS, node), status))

    def offer(self, node, *holds, plan=PLAN):
        return self.handle(
            Received(Topic("home", Kind.OFFER, node), WorkerOffer({plan: list(holds)}))
        )

    def scatter(self, **options) -> int:
        job, effects, outcomes = self.machine.scatter({"x": X}, self.now, **options)
        self.outcomes += outcomes
        assert [effect.topic for effect in effects] == [Topic("home", Kind.TASK, "edge")]
        assert effects[0].message == Task(1, PLAN, job, {"x": Tensor.of(X)})
        return job

    def report(self, job, piece, node=None, z=None, plan=PLAN):
        z = np.full(2, piece, np.float32) if z is None else z
        node = f"w{piece}" if node is None else node
        return self.handle(
            Received(
                Topic("home", Kind.RESULT, node), Result(1, plan, job, piece, {"z": Tensor.of(z)})
            )
        )

    def report_all(self, job, *but):
        for name, pieces in self.planned.items():
            for piece in pieces if name not in but else ():
                self.report(job, piece, name)

    def state(self, node) -> str:
        return self.machine.pool.states()[node].state


def name_outcomes(outcomes):
    """Name each outcome: Enough at completion, Ended after it, Failed without it."""
    names = {True: "Ended", False: "Failed"}
    return [
        "Enough" if isinstance(outcome, Complete) else names[outcome.completed]
        for outcome in outcomes
    ]


def list_failed(outcomes):
    """Return the numbers of the failed tasks. Assert that there is no other outcome."""
    assert set(name_outcomes(outcomes)) <= {"Failed"}
    return [outcome.key for outcome in outcomes]


def make_group_with_spares(*names: str, **options: Any) -> Group:
    """Make a group whose worker w0 is lost, and which has these spare workers."""
    group = Group(**options)
    for name in names:
        group.announce(name)
        group.offer(name)
    group.announce("w0", "lost")
    group.wait(SETTLE_S)
    return group
