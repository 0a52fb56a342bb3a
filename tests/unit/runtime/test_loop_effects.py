"""The loop keeps deadlines, carries out effects in order, and publishes statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddnn.machines.observer import Observer
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Effect,
    Event,
    Forget,
    Keep,
    Log,
    Publish,
    Save,
    Saved,
    Tick,
)
from ddnn.protocol.messages import Answer, Stats
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.transport import Arrived, LinkUp
from tests.unit.runtime.driven_node import ANSWER, IN_TIME_S, DrivenNode, wait_until


def test_a_deadline_is_kept(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node()
    due_s = node.machine.deadline = time.monotonic() + 0.05
    node.start()
    wait_until(lambda: node.machine.list_events(Tick))
    assert time.monotonic() >= due_s
    assert len(node.machine.list_events(Tick)) == 1


def test_a_deadline_is_kept_under_a_flood_of_nonsense(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node()
    node.machine.deadline = time.monotonic() + 0.05
    node.start()
    until_s = time.monotonic() + IN_TIME_S
    while not node.machine.list_events(Tick):
        assert time.monotonic() < until_s
        if node.transport.count_waiting() < 1000:  # it has no bound of its own, as a socket has
            node.transport.deliver(*[Arrived("x", b"")] * 100)
    assert node.loop.counts["malformed"] > 0


def test_a_machine_that_fails_is_reported(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node()
    error = ZeroDivisionError("a bug")

    def fail(event: Event) -> list[Effect]:
        raise error

    node.machine.react = fail
    node.start()
    node.transport.deliver(LinkUp(1))
    assert node.loop.join(IN_TIME_S)
    assert node.loop.failed is error
    node.loop.close()
    assert node.transport.last_words is not None  # its status is published all the same


def test_effects_are_carried_out_in_order(make_node: Callable[..., DrivenNode]) -> None:
    """Publish, save and compute in their order; a result is handled before the next message."""
    order: list[str] = []

    def section(inputs: Any) -> dict[str, Any]:
        order.append("section")
        return {"scores": inputs["x"] + 1}

    def save(effect: Save, done: Callable[[Saved], None]) -> None:
        order.append("save")
        done(Saved(effect.answers))

    node = make_node(sections={"own": section}, save=save)
    answers = [("home", ANSWER)]

    def react(event: Event) -> list[Effect]:
        if isinstance(event, Captured):
            compute = Compute(("own", event.sample), "own", {"x": np.ones(2)})
            return [Publish(Topic("home", Kind.ANSWER, "edge"), ANSWER), Save(answers), compute]
        return []

    node.machine.react = react
    node.start()
    node.loop.take_frame(Captured(5, 1.0, {}))
    wait_until(lambda: node.machine.list_events(Saved) and node.machine.list_events(Computed))
    assert order == ["save", "section"]
    (computed,) = node.machine.list_events(Computed)
    assert computed.job == ("own", 5)
    assert computed.outputs is not None
    assert computed.outputs["scores"].tolist() == [2, 2]
    assert node.machine.list_events(Saved) == [Saved(answers)]
    (published,) = node.transport.published
    assert published == ("ddnn/v1/home/answer/edge", encode(ANSWER), 0, False)
    assert node.loop.counts["messages_sent"] == 1
    assert node.loop.counts["bytes_sent"] > len(published[1])


def test_log_effects_are_logged(
    make_node: Callable[..., DrivenNode], caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    node.machine.react = lambda event: [Log("warning", "%s came at %d", ("cam2", 7))]
    node.start()
    with caplog.at_level("INFO"):
        node.settle()  # its event has come, and the effects follow
        wait_until(lambda: len(caplog.records) > 0)
    logged = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert logged == {("WARNING", "cam2 came at 7")}


def test_answers_are_stored_before_they_are_published(make_node: Callable[..., DrivenNode]) -> None:
    order: list[object] = []

    class Disk:
        def keep(self, answer: Answer) -> None:
            order.append(answer)

        def forget(self, samples: Any) -> None:
            order.append(list(samples))

    node = make_node(answer_log=Disk())
    publish = node.transport.publish
    node.transport.publish = lambda *what: (order.append("published"), publish(*what))[1]
    node.machine.react = lambda event: (
        [Keep(ANSWER), Publish(Topic("home", Kind.ANSWER, "edge"), ANSWER), Forget([3])]
        if isinstance(event, Captured)
        else []
    )
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    node.settle()
    assert order == [ANSWER, "published", [3]]


def test_a_full_disk_is_counted_and_the_answer_is_published(
    make_node: Callable[..., DrivenNode],
) -> None:
    class Full:
        def keep(self, answer: Answer) -> None:
            raise OSError(28, "No space left on device")

        def forget(self, samples: Any) -> None:
            raise OSError(28, "No space left on device")

    node = make_node(answer_log=Full())
    node.machine.react = lambda event: (
        [Keep(ANSWER), Publish(Topic("home", Kind.ANSWER, "edge"), ANSWER), Forget([3])]
        if isinstance(event, Captured)
        else []
    )
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    node.settle()
    assert node.loop.counts["answer_log_failed"] == 2
    assert node.transport.published[0][1] == encode(ANSWER)
    assert node.loop.failed is None


def test_statistics_are_published(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node(stats_every_s=0.02).start()
    node.transport.deliver(Arrived("x", b""))
    topic = str(Topic("home", Kind.STATS, "cam1"))

    def list_stats() -> list[Stats]:
        return [decode(Kind.STATS, p) for t, p, *_ in node.transport.published if t == topic]

    wait_until(lambda: len(list_stats()) >= 3)
    last = list_stats()[-1]
    assert last.counts == {"malformed": 1, "machine_counts": 5}
    assert last.role == "device"
    assert last.memory_bytes > 1 << 20
    assert 0 < last.uptime_s < IN_TIME_S
    assert "queue" in last.gauges
    assert topics.parse(topic).kind is Kind.STATS


def test_presence_is_repeated_with_the_statistics(make_node: Callable[..., DrivenNode]) -> None:
    """A broker may give nobody what it retains of a filter with wildcards."""
    node = make_node(stats_every_s=0.02).start()
    node.transport.deliver(LinkUp(1))
    topic = str(Topic("home", Kind.STATUS, "cam1"))

    def list_statuses() -> list[tuple[bytes, int, bool]]:
        return [(p, qos, retain) for t, p, qos, retain in node.transport.published if t == topic]

    wait_until(lambda: len(list_statuses()) >= 4)
    assert len(set(list_statuses())) == 1


def test_observers_see_every_event_before_the_machine(make_node: Callable[..., DrivenNode]) -> None:
    seen: list[Event] = []
    node = make_node(observer=Observer(seen.append)).start()
    node.transport.deliver(LinkUp(1))
    node.settle()
    assert seen == [event for event, _ in node.machine.events]


def test_statistics_include_those_of_the_observer(make_node: Callable[..., DrivenNode]) -> None:
    node = make_node(
        stats_every_s=0.02,
        observer=Observer(None, lambda: {"frames": 7}, lambda: {"camera_up": 1.0}),
    ).start()
    topic = str(Topic("home", Kind.STATS, "cam1"))
    wait_until(lambda: any(t == topic for t, *_ in node.transport.published))
    (payload, *_) = [p for t, p, *_ in node.transport.published if t == topic]
    stats = decode(Kind.STATS, payload)
    assert (stats.counts["frames"], stats.counts["machine_counts"]) == (7, 5)
    assert (stats.gauges["camera_up"], stats.gauges["machine_gauge"]) == (1.0, 0.5)
