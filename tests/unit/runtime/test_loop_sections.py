"""Sections that are slow, fail, or have no work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddnn.errors import SectionError
from ddnn.protocol.codec import encode
from ddnn.protocol.machine import Captured, Compute, Computed, Effect, Event, Received
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime import sections as sections_module
from ddnn.runtime.transport import Arrived, LinkUp
from tests.unit.runtime.driven_node import IN_TIME_S, SCORES, DrivenNode, IdleSection, wait_until


class SlowSection:
    """Slow when warmed up, and then as long as the test wants."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.thread = ""
        self.error: Exception | None = None

    def example(self) -> dict[str, Any]:
        return {"x": np.zeros(1)}

    def __call__(self, inputs: Any) -> dict[str, Any]:
        if not inputs["x"][0]:
            time.sleep(2 * sections_module.INLINE_S)
            return {}
        self.thread = threading.current_thread().name
        self.entered.set()
        assert self.go_on.wait(IN_TIME_S)
        if self.error is not None:
            raise self.error
        return {"scores": np.ones(1)}


def request_section(event: Event) -> list[Effect]:
    return [Compute(("s", 1), "s", {"x": np.ones(1)})] if isinstance(event, Captured) else []


def test_a_slow_section_does_not_delay_messages(make_node: Callable[..., DrivenNode]) -> None:
    section = SlowSection()
    node = make_node(sections={"s": section})
    node.machine.react = request_section
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    assert section.entered.wait(IN_TIME_S)
    assert section.thread.startswith("section")
    arrived = Arrived(str(Topic("home", Kind.SCORES, "cam2")), encode(SCORES))
    node.transport.deliver(LinkUp(1), arrived)
    node.settle()
    assert node.machine.list_events(Received)
    assert not node.machine.list_events(Computed)
    section.go_on.set()
    wait_until(lambda: node.machine.list_events(Computed))
    assert {thread for _, thread in node.machine.events} == {"machine"}


@pytest.mark.parametrize("error", [SectionError("x"), ValueError("x"), IndexError(), TypeError()])
@pytest.mark.parametrize("slow", [True, False])
def test_a_section_that_fails_is_reported_to_the_machine(
    make_node: Callable[..., DrivenNode], error: Exception, slow: bool
) -> None:
    section = SlowSection()
    section.error = error
    section.go_on.set()
    call: Any = section if slow else lambda inputs: section(inputs)  # without an example: inline
    node = make_node(sections={"s": call})
    node.machine.react = request_section
    node.start()
    for _ in range(2):
        node.loop.take_frame(Captured(1, 1.0, {}))
    wait_until(lambda: len(node.machine.list_events(Computed)) == 2)
    assert node.machine.list_events(Computed) == [Computed(("s", 1), None)] * 2
    assert section.thread.startswith("section" if slow else "machine")


@pytest.mark.parametrize("slow", [False, True])
def test_a_section_without_work_runs_on_its_example(
    make_node: Callable[..., DrivenNode], monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    monkeypatch.setattr("ddnn.runtime.sections.IDLE_RUN_S", 0.0)
    section = IdleSection(slow=slow)
    node = make_node(sections={"cam1": section}, stats_every_s=0.02).start()
    wait_until(lambda: section.runs > 5)  # three of them to warm up
    before_s = node.loop.inferred_s
    wait_until(lambda: node.loop.inferred_s > before_s)
    assert node.machine.list_events(Computed) == []  # the machine has not asked for it


def test_a_run_that_fails_is_no_sign_of_life(
    make_node: Callable[..., DrivenNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnn.runtime.sections.IDLE_RUN_S", 0.0)
    section = IdleSection(fails=True)
    node = make_node(sections={"cam1": section}, stats_every_s=0.02).start()
    wait_until(lambda: section.runs > 3)
    last_s = node.loop.inferred_s
    wait_until(lambda: section.runs > 6)
    assert node.loop.inferred_s == last_s
