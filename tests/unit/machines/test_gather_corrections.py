"""Assignments are published again where a worker holds other pieces than it should."""

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
def test_who_holds_other_pieces_is_told_again_until_it_does_not(holds) -> None:
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
def test_who_cannot_be_helped_is_not_told_again(gone) -> None:
    group = Group()
    group.offer("w1")
    if gone == "lost":
        group.status("w1", "lost")
    elif gone == "faulty":
        group.machine.quarantine({"w1"}, group.now)
    else:
        group.event(Disconnected())
    group.wait(SETTLE_S)
    told = len(group.assigned)
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == told
    assert group.machine.deadline_s() is None


def test_a_lend_of_another_plan_is_questioned_once() -> None:
    group = Group()
    group.wait(REPEAT_S)
    group.offer("w1", 1, plan="00000000")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == 2


class Together:
    """A group whose workers are real machines; messages arrive at once."""

    def __init__(self) -> None:
        self.group = Group(online=False)
        self.workers = {
            name: WorkerNode("home", name, "edge", self.group.plan, None)
            for name in self.group.planned
        }
        self.lends = self.heard = 0
        for name in self.workers:
            self.group.status(name)
            self.give(name, Connected())
        self.settle(SETTLE_S)

    def give(self, name: str, event: Any) -> None:
        effects = self.workers[name].handle(event, self.group.now)
        for effect in effects:
            if isinstance(effect, Publish):
                assert isinstance(effect.message, WorkerOffer)
                self.lends += 1
                self.group.event(Received(effect.topic, effect.message))
        for effect in effects:
            if isinstance(effect, Load):
                self.give(name, Loaded(effect.section, True))

    def assign(self, pieces: dict[str, list[int]]) -> None:
        topic = Topic("home", Kind.ASSIGN, "edge")
        for name in self.workers:
            self.give(name, Received(topic, Assignment({PLAN: pieces})))

    def settle(self, for_s: float) -> None:
        until_s = self.group.now_s + for_s
        while self.group.now_s < until_s:
            self.group.wait(min(SETTLE_S / 4, until_s - self.group.now_s))
            while self.heard < len(self.group.assigned):
                self.heard += 1
                self.assign(self.group.assigned[self.heard - 1])


@pytest.mark.parametrize("what", ["assignment", "lend", "plan"])
def test_workers_and_gatherer_put_a_foreign_message_right_and_are_quiet_then(what) -> None:
    site = Together()
    site.settle(REPEAT_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert len(site.group.assigned) == 1
    lends = site.lends
    if what == "assignment":
        site.assign({"w0": [1], "w1": [0], "w2": [], "w3": [3, 2]})
    elif what == "lend":
        site.group.offer("w1")
    else:
        site.group.offer("w1", plan="00000000")
    assert site.group.machine.pool.live_pieces != {0, 1, 2, 3}
    site.settle(2 * SETTLE_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert [worker.gauges["pieces_held"] for worker in site.workers.values()] == [1] * 4
    site.settle(10 * REPEAT_S)
    assert len(site.group.assigned) == 2
    assert site.lends - lends <= 16
    assert site.group.machine.deadline_s() is None


def test_two_that_contradict_each_other_do_so_slowly() -> None:
    """A second gatherer of the same group is a mistake, but no storm."""
    site = Together()
    for _ in range(100):
        site.assign({"w0": [1], "w1": [0]})
        site.settle(SETTLE_S)
    assert len(site.group.assigned) <= 2 + 100 * SETTLE_S / REPEAT_S
