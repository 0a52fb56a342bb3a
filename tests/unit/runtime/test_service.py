"""A program ends cleanly at a signal, and its supervisor learns whether its sections still run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ddnn.errors import DdnnError
from ddnn.protocol.machine import Effect, Event
from ddnn.runtime.service import run_until_signal
from ddnn.runtime.transport import LinkUp
from tests.unit.runtime.driven_node import IN_TIME_S, DrivenNode, IdleSection, wait_until


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_cleanly(
    make_node: Callable[..., DrivenNode], number: signal.Signals
) -> None:
    node = make_node()

    def send_signal() -> None:
        assert node.transport.started.wait(IN_TIME_S)
        os.kill(os.getpid(), number)

    threading.Thread(target=send_signal, daemon=True).start()
    run_until_signal(node.loop)
    assert node.transport.last_words is not None
    assert node.loop.join(0)


@pytest.mark.usefixtures("_handlers")
def test_a_failed_machine_ends_the_program_with_an_error(
    make_node: Callable[..., DrivenNode],
) -> None:
    node = make_node()

    def fail(event: Event) -> list[Effect]:
        raise ZeroDivisionError("a bug")

    node.machine.react = fail
    node.transport.deliver(LinkUp(1))
    with pytest.raises(DdnnError, match="cam1: the machine failed: a bug"):
        run_until_signal(node.loop)


class Supervisor:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def notify_ready(self) -> None:
        self.calls.append("ready")

    def watchdog(self) -> None:
        self.calls.append("alive")

    def notify_stopping(self) -> None:
        self.calls.append("stopping")


@pytest.mark.usefixtures("_handlers")
def test_the_watchdog_is_notified_of_inferences_only(
    make_node: Callable[..., DrivenNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnn.runtime.service.CHECK_S", 0.01)
    monkeypatch.setattr("ddnn.runtime.service.INFERRED_WITHIN_S", 0.2)
    node, supervisor = make_node(sections={"cam1": IdleSection()}), Supervisor()

    def watch() -> None:
        node.transport.started.wait(IN_TIME_S)
        wait_until(lambda: node.loop.inferred_s is not None)
        time.sleep(0.05)
        before = list(supervisor.calls)
        node.transport.deliver(LinkUp(1))
        wait_until(lambda: "alive" in supervisor.calls)
        time.sleep(0.4)  # no section runs for longer than INFERRED_WITHIN_S
        quiet = len(supervisor.calls)
        time.sleep(0.1)
        seen.extend([before, len(supervisor.calls) - quiet])
        os.kill(os.getpid(), signal.SIGTERM)

    seen: list[Any] = []
    threading.Thread(target=watch, daemon=True).start()
    run_until_signal(node.loop, supervisor)
    before, after_its_last = seen
    assert set(before) <= {"alive"}  # not ready: there is no broker
    assert after_its_last == 0
    assert supervisor.calls[supervisor.calls.index("ready") + 1] == "alive"
    assert supervisor.calls[-1] == "stopping"
