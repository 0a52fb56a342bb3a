"""The assignment is published again while a worker holds other pieces than its own."""

from __future__ import annotations

from typing import Any

import pytest

from ddnn.machines.placement import REPEAT_S, SETTLE_S
from ddnn.machines.worker import WorkerNode
from ddnn.protocol.machine import Connected, Disconnected, Load, Loaded, Publish, Received
from ddnn.protocol.messages import Assignment, WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from tests.unit.machines.gather_group import PLAN, Group


@pytest.mark.parametrize("holds", [[], [3], [1, 3]], ids=str)
def test_the_assignment_is_repeated_while_a_worker_holds_other_pieces(holds) -> None:
    """The retained assignment was emptied or overwritten."""
    group = Group()
    group.wait(REPEAT_S)
    group.offer("w1", *holds)
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    assert group.assigned[0] == group.assigned[1]
    group.wait(3 * REPEAT_S)
    assert len(group.assigned) == 5
    group.offer("w1", 1)
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == 5
    assert group.machine.deadline_s() is None


@pytest.mark.parametrize("gone", ["lost", "faulty", "without a broker"])
def test_the_assignment_is_not_repeated_for_a_worker_that_cannot_load(gone) -> None:
    group = Group()
    group.offer("w1")
    if gone == "lost":
        group.announce("w1", "lost")
    elif gone == "faulty":
        group.machine.quarantine({"w1"}, group.now)
    else:
        group.handle(Disconnected())
    group.wait(SETTLE_S)
    before = len(group.assigned)
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == before
    assert group.machine.deadline_s() is None


def test_an_offer_for_another_plan_is_corrected_once() -> None:
    group = Group()
    group.wait(REPEAT_S)
    group.offer("w1", 1, plan="00000000")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == 2


class GroupWithWorkers:
    """A group whose workers are real machines; messages arrive at once."""

    def __init__(self) -> None:
        self.group = Group(online=False)
        self.workers = {
            name: WorkerNode("home", name, self.group.plan, None) for name in self.group.planned
        }
        self.offers = self.heard = 0
        for name in self.workers:
            self.group.announce(name)
            self.send(name, Connected())
        self.settle(SETTLE_S)

    def send(self, name: str, event: Any) -> None:
        effects = self.workers[name].handle(event, self.group.now)
        for effect in effects:
            if isinstance(effect, Publish):
                assert isinstance(effect.message, WorkerOffer)
                self.offers += 1
                self.group.handle(Received(effect.topic, effect.message))
        for effect in effects:
            if isinstance(effect, Load):
                self.send(name, Loaded(effect.section, True))

    def assign(self, pieces: dict[str, list[int]]) -> None:
        topic = Topic("home", Kind.ASSIGN, "edge")
        for name in self.workers:
            self.send(name, Received(topic, Assignment({PLAN: pieces})))

    def settle(self, for_s: float) -> None:
        until_s = self.group.now_s + for_s
        while self.group.now_s < until_s:
            self.group.wait(min(SETTLE_S / 4, until_s - self.group.now_s))
            while self.heard < len(self.group.assigned):
                self.heard += 1
                self.assign(self.group.assigned[self.heard - 1])


@pytest.mark.parametrize("what", ["assignment", "offer", "plan"])
def test_a_foreign_message_is_corrected_and_nothing_is_sent_afterwards(what) -> None:
    site = GroupWithWorkers()
    site.settle(REPEAT_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert len(site.group.assigned) == 1
    offers = site.offers
    if what == "assignment":
        site.assign({"w0": [1], "w1": [0], "w2": [], "w3": [3, 2]})
    elif what == "offer":
        site.group.offer("w1")
    else:
        site.group.offer("w1", plan="00000000")
    assert site.group.machine.pool.live_pieces != {0, 1, 2, 3}
    site.settle(2 * SETTLE_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert [worker.gauges["pieces_held"] for worker in site.workers.values()] == [1] * 4
    site.settle(10 * REPEAT_S)
    assert len(site.group.assigned) == 2
    assert site.offers - offers <= 16
    assert site.group.machine.deadline_s() is None


def test_two_gatherers_that_contradict_each_other_publish_slowly() -> None:
    """A second gatherer of the same group is a mistake, and causes no flood of messages."""
    site = GroupWithWorkers()
    for _ in range(100):
        site.assign({"w0": [1], "w1": [0]})
        site.settle(SETTLE_S)
    assert len(site.group.assigned) <= 2 + 100 * SETTLE_S / REPEAT_S
