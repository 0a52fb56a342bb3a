"""The latest answer: on change, at most once a second, repeated while answers continue."""

from __future__ import annotations

import itertools

import msgspec

from ddnn.machines.latest import PERIOD_S, REPEAT_S, LatestAnswer
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Saved,
    Tick,
)
from ddnn.protocol.messages import Answer
from ddnn.protocol.node_messages import CloudReach, Latest
from ddnn.protocol.topics import Kind, Topic
from tests.unit.runtime.driven_node import ANSWER


class Answering:
    """A machine that publishes the answers it is given."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.answers: list[Answer] = []

    def handle(self, event: Event, now: Now) -> list[Effect]:
        answers, self.answers = self.answers, []
        return [Publish(Topic("home", Kind.ANSWER), answer) for answer in answers]

    def deadline_s(self) -> float | None:
        return None

    def subscriptions(self) -> list[str]:
        return []


class World:
    def __init__(self) -> None:
        self.inner = Answering()
        self.machine = LatestAnswer(self.inner, "home", "edge", reach=True)
        self.said: list[tuple[float, Latest]] = []
        self.reach: list[bool] = []
        self.send(Connected(), 0.0)

    def send(self, event: Event, at_s: float) -> None:
        for effect in self.machine.handle(event, Now(at_s, 1e9 + at_s)):
            assert isinstance(effect, Publish)
            if isinstance(effect.message, Latest):
                self.said.append((at_s, effect.message))
            if isinstance(effect.message, CloudReach):
                self.reach.append(effect.message.cloud)

    def answer(self, at_s: float, label: int = 0, probability: float = 1.0, **more: object) -> None:
        self.inner.answers.append(
            msgspec.structs.replace(ANSWER, label=label, probabilities=[probability], **more)
        )
        self.send(Saved([]), at_s)

    def run(self, until_s: float) -> None:
        while (due_s := self.machine.deadline_s()) is not None and due_s <= until_s:
            self.send(Tick(), due_s)


def test_a_site_that_answers_often_changes_its_state_once_a_second() -> None:
    world = World()
    for number in range(500):
        at_s = 100 + number * 0.01
        world.run(at_s)
        world.answer(at_s, label=number % 7)
    world.run(200.0)
    times = [at_s for at_s, _ in world.said]
    assert times[0] == 100
    assert all(b - a >= PERIOD_S - 1e-9 for a, b in itertools.pairwise(times))
    assert 5 <= len(times) <= 6
    assert world.said[-1][1].label == 499 % 7  # the last one is not lost
    assert world.machine.deadline_s() is None  # nothing comes without answers


def test_a_state_that_does_not_change_is_repeated_while_answers_come() -> None:
    world = World()
    for number in range(250):
        world.run(100 + number * 0.1)
        world.answer(100 + number * 0.1, probability=0.7512 + 1e-5 * (number % 3))
    assert [(at_s, m) for at_s, m in world.said] == [
        (100 + k * REPEAT_S, Latest(0, "device", 75)) for k in range(3)
    ]


def test_late_answers_and_outages_are_no_news() -> None:
    world = World()
    world.answer(100.0, label=1, late=True)
    assert world.said == []
    world.send(Disconnected(), 101.0)
    world.answer(101.5, label=2)
    assert world.said == []
    world.send(Connected(), 103.0)
    assert [message.label for _, message in world.said] == [2]


def test_whether_the_cloud_is_online_is_published_at_each_change() -> None:
    world = World()
    for number in range(300):
        world.inner.gauges["cloud_up"] = float(100 <= number < 200)
        world.answer(number * 0.1)
    assert world.reach == [False, True, False]
    world.send(Disconnected(), 40.0)
    world.send(Connected(), 41.0)
    assert world.reach[-1:] == [False]
    assert len(world.reach) == 4  # the broker may have forgotten it
