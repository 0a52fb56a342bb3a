"""A loop whose transport and machine the test drives.

The transport is a queue that the test fills; its `wait` returns as soon as there is something, so
that nothing sleeps, and every wait of the tests has a deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ddnn.errors import SectionError
from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.codec import decode
from ddnn.protocol.machine import Effect, Event, Now, Saved, Tick
from ddnn.protocol.messages import Answer, Scores, Status, Tensor
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.transport import LinkEvent

IN_TIME_S = 20.0
ME = Identity("home", "cam1", "device", "ab12cd34", "0")
STATUS = str(Topic("home", Kind.STATUS, "cam1"))
SCORES = Scores(1, 7, "ab12cd34", 1, 1.0, Tensor.of(np.zeros(3, np.float32)))
ANSWER = Answer(
    sample=3,
    node="cam1",
    exit="device",
    label=0,
    probabilities=[1.0],
    eta=0.0,
    members=["cam1"],
    missing=[],
    quality="degraded",
    expected_accuracy=None,
    bundle="ab12cd34",
    captured_at_s=1.0,
    answered_at_s=2.0,
    latency_s=1.0,
)


class DrivenTransport:
    """A transport whose events the test delivers, from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._incoming: list[LinkEvent] = []
        self._woken = False
        self.published: list[tuple[str, bytes, int, bool]] = []
        self.filters: list[list[str]] = []
        self.max_packet_bytes: int | None = None
        self.last_words: tuple[str, bytes] | None = None
        self.started = threading.Event()

    def deliver(self, *events: LinkEvent) -> None:
        with self._condition:
            self._incoming += events
            self._condition.notify()

    def count_waiting(self) -> int:
        with self._condition:
            return len(self._incoming)

    def start(
        self, sink: Callable[[LinkEvent], None], will: Callable[[int], tuple[str, bytes]]
    ) -> None:
        self._sink, self.will = sink, will
        self.started.set()

    def wait(self, timeout_s: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._incoming or self._woken, timeout_s)
            events, self._incoming, self._woken = self._incoming, [], False
        for event in events:
            self._sink(event)

    def wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify()

    def subscribe(self, filters: list[str]) -> None:
        self.filters.append(list(filters))

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        self.published.append((topic, payload, qos, retain))

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        self.last_words = last_words

    def list_statuses(self) -> list[Status]:
        return [decode(Kind.STATUS, p) for t, p, *_ in self.published if t == STATUS]


class DrivenMachine:
    """A machine that records every event and returns the effects of `react`."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, str]] = []  # with the name of the thread
        self.react: Callable[[Event], list[Effect]] = lambda event: []
        self.deadline: float | None = None
        self.counts = {"machine_counts": 5}
        self.gauges = {"machine_gauge": 0.5}

    def handle(self, event: Event, now: Now) -> list[Effect]:
        if isinstance(event, Tick):
            self.deadline = None
        assert abs(now.monotonic_s - time.monotonic()) < IN_TIME_S
        assert abs(now.wall_s - time.time()) < IN_TIME_S
        self.events.append((event, threading.current_thread().name))
        return self.react(event)

    def deadline_s(self) -> float | None:
        return self.deadline

    def subscriptions(self) -> list[str]:
        return ["a/#", "b/#"]

    def list_events(self, kind: type) -> list[Any]:
        return [event for event, _ in self.events if isinstance(event, kind)]


def wait_until(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.001)


class WithoutExample:
    """A function as a section without an example of its inputs."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, inputs: Any) -> Any:
        return self.call(inputs)

    def example(self) -> dict[str, Any]:
        return {}


def add_example(section: Any) -> Any:
    return section if hasattr(section, "example") else WithoutExample(section)


class DrivenNode:
    """A loop, and the machine and the transport that it drives."""

    def __init__(self, **options: Any) -> None:
        self.machine, self.transport = DrivenMachine(), DrivenTransport()
        options.setdefault("stats_every_s", 1000.0)
        observer = options.pop("observer", None)
        machine = CompositeMachine(observer, self.machine) if observer else self.machine
        sections = options.get("sections", {})
        options["sections"] = {name: add_example(each) for name, each in sections.items()}
        named = ("sections", "load", "answer_log", "save")
        resources = Resources(**{name: options.pop(name) for name in named if name in options})
        identity = options.pop("identity", ME)
        self.loop = Loop(identity, machine, self.transport, resources, **options)

    def start(self) -> DrivenNode:
        self.loop.start()
        assert self.transport.started.wait(IN_TIME_S)
        return self

    def settle(self) -> None:
        """Wait until all events that were delivered before have been handled."""
        for _ in range(2):  # the first may overtake them on their way into the inbox
            before = len(self.machine.list_events(Saved))
            self.loop._put(Saved([]))
            wait_until(lambda before=before: len(self.machine.list_events(Saved)) > before)


class IdleSection:
    """A section with an example input. It may be slow, and fail after three runs."""

    def __init__(self, *, fails: bool = False, slow: bool = False) -> None:
        self.fails, self.slow, self.runs = fails, slow, 0

    def example(self) -> dict[str, np.ndarray]:
        return {"x": np.zeros(1, np.float32)}

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        self.runs += 1
        if self.slow:
            time.sleep(0.01)
        if self.fails and self.runs > 3:
            raise SectionError("broken")
        return {}
