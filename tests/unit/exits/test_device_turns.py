"""Which device answers where the edge is silent."""

from __future__ import annotations

import pytest

from ddnn.exits.device_node import DeviceNode
from ddnn.protocol.machine import (
    Connected,
    Effect,
    Tick,
)
from ddnn.protocol.messages import Answered
from ddnn.protocol.topics import Kind
from tests.unit.exits.device_builder import (
    make_answered,
    make_computed,
    make_device,
)
from tests.unit.exits.exit_builders import (
    TIMING,
    at,
    list_answers,
    list_published,
    make_frame,
    make_presence,
)


class Silent:
    """Three devices without an edge that answers; which hear each other, and which saw a sample."""

    def __init__(self, samples: int, lost: str = "", stopped: str = "", edge: str = "online"):
        self.answers: list[tuple[float, str, int]] = []
        self._heard: list[tuple[str, Answered]] = []
        nodes = {name: make_device(node=name) for name in ("cam1", "cam2", "cam3")}
        for node in nodes.values():
            node.handle(Connected(), at(0))
            node.handle(make_presence("edge"), at(0))
            for name in nodes:
                node.handle(make_presence(name), at(0))
            if edge != "online":
                node.handle(make_presence("edge", state=edge), at(0.1))
            if lost:
                node.handle(make_presence(lost, state="lost"), at(0.1))
        running = {n: node for n, node in nodes.items() if n not in (lost, stopped)}
        for sample in range(samples):
            for name, node in running.items():
                node.handle(make_frame(sample, 1.0), at(1.0))
                self._publish(name, node.handle(make_computed(sample, node=name), at(1.0)), 1.0)
                self._deliver(running)
        for ms in range(1000, 2100, 10):
            for name, node in running.items():
                self._publish(name, node.handle(Tick(), at(ms / 1000)), ms / 1000)
            self._deliver(running)

    def _publish(self, name: str, effects: list[Effect], now_s: float) -> None:
        for answer in list_answers(effects):
            self.answers.append((now_s, name, answer.sample))
        self._heard += [(name, m) for m in list_published(effects, Kind.ANSWERED)]

    def _deliver(self, running: dict[str, DeviceNode]) -> None:
        heard, self._heard = self._heard, []
        for name, message in heard:
            for node in running.values():
                node.handle(make_answered(*message.samples, node=name), at(1.0))


@pytest.mark.parametrize("edge", ["online", "lost"])
@pytest.mark.parametrize("lost", ["", "cam1"])
@pytest.mark.parametrize("stopped", ["", "cam3"])
def test_one_device_answers_where_the_edge_is_silent(lost: str, stopped: str, edge: str) -> None:
    silent = Silent(40, lost, stopped, edge)
    assert sorted(sample for _, _, sample in silent.answers) == list(range(40))
    assert max(at_s for at_s, _, _ in silent.answers) < 1.0 + TIMING.deadline_s
    by = {name for _, name, _ in silent.answers}
    assert by == {"cam1", "cam2", "cam3"} - {lost, stopped}


def test_a_device_without_scores_lets_others_answer_first() -> None:
    nodes = {name: make_device(node=name) for name in ("cam1", "cam2", "cam3")}
    for node in nodes.values():
        node.handle(Connected(), at(0))
        for name in ("edge", *nodes):
            node.handle(make_presence(name), at(0))
    first_s = {}
    for sample in range(30):
        for name, node in nodes.items():
            node.handle(make_frame(sample, 1.0), at(1.0))
            if name != "cam1":
                node.handle(make_computed(sample, node=name), at(1.0))
        for ms in range(1850, 2000, 5):
            for name, node in nodes.items():
                for answer in list_answers(node.handle(Tick(), at(ms / 1000))):
                    first_s.setdefault(answer.sample, set()).add((ms, name))
    first = {min(when)[1] for when in first_s.values()}
    assert first == {"cam2", "cam3"}


def test_the_word_of_a_device_that_answers_later_does_not_count() -> None:
    """So that a device can keep others from answering only where it answers first itself."""
    nodes = {name: make_device(node=name) for name in ("cam1", "cam2", "cam3")}
    for name, node in nodes.items():
        node.handle(Connected(), at(0))
        for other in ("edge", *nodes):
            node.handle(make_presence(other), at(0))
        for sample in range(30):
            node.handle(make_frame(sample, 1.0), at(1.0))
            node.handle(make_computed(sample, node=name), at(1.0))
        if name != "cam1":
            node.handle(make_answered(*range(30), node="cam1"), at(1.1))
            node.handle(make_answered(*range(30), node="cam9"), at(1.1))
    answered = {
        s
        for n in nodes.values()
        for s in [a.sample for a in list_answers(n.handle(Tick(), at(9.0)))]
    }
    assert answered == set(range(30))
    assert 0 < nodes["cam2"].counts["answered_alone"] < 30
