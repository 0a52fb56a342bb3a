"""The loop: what the world does becomes events, in one thread, and nothing of it ends the node.

The transport is a queue that the test fills; its `wait` returns as soon as there is something, so
that nothing sleeps, and every wait of the tests has a deadline.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ddnn.errors import DdnnError, LinkError, LocalProtocolError, SectionError
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.observer import Observer
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Forget,
    Keep,
    Log,
    Now,
    Publish,
    Received,
    Save,
    Saved,
    Tick,
)
from ddnn.protocol.messages import Answer, Escalate, Scores, Stats, Status, Tensor, Thresholds
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime import loop as module
from ddnn.runtime import sections as sections_module
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import TRANSITIONS, Loop, LoopState, State
from ddnn.runtime.service import run_until_signal
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

IN_TIME_S = 5.0
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


class MadeTransport:
    """Events are put in by the test, from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._incoming: list[LinkEvent] = []
        self._woken = False
        self.published: list[tuple[str, bytes, int, bool]] = []
        self.filters: list[list[str]] = []
        self.last_words: tuple[str, bytes] | None = None
        self.started = threading.Event()

    def happen(self, *events: LinkEvent) -> None:
        with self._condition:
            self._incoming += events
            self._condition.notify()

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

    def statuses(self) -> list[Status]:
        return [decode(Kind.STATUS, p) for t, p, *_ in self.published if t == STATUS]


class MadeMachine:
    """Remembers every event; answers as the test says."""

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

    def of(self, kind: type) -> list[Any]:
        return [event for event, _ in self.events if isinstance(event, kind)]


def until(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.001)


class WithoutExample:
    """A function as a section that knows no example of its inputs."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, inputs: Any) -> Any:
        return self.call(inputs)

    def example(self) -> dict[str, Any]:
        return {}


def with_example(section: Any) -> Any:
    return section if hasattr(section, "example") else WithoutExample(section)


class Running:
    def __init__(self, **options: Any) -> None:
        self.machine, self.transport = MadeMachine(), MadeTransport()
        options.setdefault("stats_every_s", 1000.0)
        observer = options.pop("observer", None)
        machine = CompositeMachine(observer, self.machine) if observer else self.machine
        sections = options.get("sections", {})
        options["sections"] = {name: with_example(each) for name, each in sections.items()}
        named = ("sections", "load", "answer_log", "save")
        resources = Resources(**{name: options.pop(name) for name in named if name in options})
        self.loop = Loop(ME, machine, self.transport, resources, **options)

    def start(self) -> Running:
        self.loop.start()
        assert self.transport.started.wait(IN_TIME_S)
        return self

    def settle(self) -> None:
        """Until everything that was put in before has been handled."""
        before = len(self.machine.of(Saved))
        self.loop._put(Saved([]))
        until(lambda: len(self.machine.of(Saved)) > before)


@pytest.fixture
def make() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(**options: Any) -> Running:
        made.append(Running(**options))
        return made[-1]

    yield build
    for running in made:
        if running.loop._thread.is_alive():
            running.loop.close()
            assert running.loop.join(IN_TIME_S)


# -------------------------------------------------------------------- the link


def test_every_connection_is_announced_and_subscribed(make: Callable[..., Running]) -> None:
    node = make().start()
    topic, payload = node.transport.will(9)
    assert topic == STATUS
    assert decode(Kind.STATUS, payload) == Status("device", 9, "lost", "ab12cd34", "0")
    for session in (9, 10):
        node.transport.happen(LinkUp(session))
        node.settle()
        assert node.transport.statuses()[-1] == Status("device", session, "online", "ab12cd34", "0")
        assert node.transport.published[-1][2:] == (1, True)
        node.transport.happen(LinkDown("gone"))
        node.settle()
    assert node.transport.filters == [["a/#", "b/#"]] * 2
    kinds = [type(e) for e, _ in node.machine.events if not isinstance(e, Saved)]
    assert kinds == [Connected, Disconnected] * 2
    assert {thread for _, thread in node.machine.events} == {"machine"}


def test_a_will_of_an_old_connection_is_put_right(make: Callable[..., Running]) -> None:
    node = make().start()
    node.transport.happen(LinkUp(2))
    node.settle()
    me = Status("device", 2, "online", "ab12cd34", "0")

    def corrections(state: str, session: int) -> list[Status]:
        node.transport.published.clear()
        status = Status("device", session, state, "ab12cd34", "0")
        node.transport.happen(Arrived(STATUS, encode(status)))
        node.settle()
        return node.transport.statuses()

    assert corrections("lost", 1) == [me]
    assert corrections("stopped", 1) == [me]
    assert corrections("online", 2) == []
    assert corrections("lost", 2) == []  # of this very connection: its end is about to be noticed
    assert corrections("online", 1) == []  # else two nodes of one name would go on for ever
    node.transport.happen(LinkDown("gone"))
    assert corrections("lost", 1) == []


def test_close_says_that_it_stopped(make: Callable[..., Running]) -> None:
    node = make().start()
    node.transport.happen(LinkUp(77))
    node.settle()
    node.loop.close()
    assert node.loop.join(IN_TIME_S)
    assert node.transport.last_words is not None
    topic, payload = node.transport.last_words
    assert topic == STATUS
    assert decode(Kind.STATUS, payload) == Status("device", 77, "stopped", "ab12cd34", "0")


def test_the_states_of_a_loop(make: Callable[..., Running]) -> None:
    node = make()
    assert node.loop.link.state is State.NEW
    node.start()
    node.settle()
    assert node.loop.link.state is State.DISCONNECTED
    node.transport.happen(LinkUp(1))
    node.settle()
    assert node.loop.link.state is State.CONNECTED
    node.loop.close()
    assert node.loop.link.state is State.STOPPED
    with pytest.raises(LinkError, match="stopped"):
        node.loop.publish(Publish(Topic("home", Kind.ANSWER), ANSWER))


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_forbidden_transitions_raise(
    make: Callable[..., Running], before: State, after: State
) -> None:
    loop = make().loop
    loop.link = LoopState(before, 0.0)
    if after in TRANSITIONS[before]:
        loop._enter(after)
        assert loop.link.state is after
    else:
        with pytest.raises(LocalProtocolError, match=f"{before.value} cannot be {after.value}"):
            loop._enter(after)


# ---------------------------------------------------------------- what arrives


def test_good_messages_arrive_with_what_they_weigh(make: Callable[..., Running]) -> None:
    node = make().start()
    topic = Topic("home", Kind.SCORES, "cam2")
    payload = encode(SCORES)
    node.transport.happen(Arrived(str(topic), payload))
    node.settle()
    weight = 2 + 2 + len(str(topic)) + len(payload)  # MQTT 3.1.1: header, length, topic, payload
    assert node.machine.of(Received) == [Received(topic, SCORES, weight)]
    assert node.loop.counts == {}


def test_malformed_ones_are_counted_and_nothing_else(make: Callable[..., Running]) -> None:
    node = make().start()
    topic = str(Topic("home", Kind.SCORES, "cam2"))
    good = encode(SCORES)
    bad = [
        *(Arrived(topic, good[:end]) for end in range(len(good))),
        Arrived(topic, good + b"\0"),
        Arrived(topic, encode(Escalate(1, 7, "ab12cd34", "local"))),
        Arrived(topic, b"\x92\x02" + good[2:]),
        Arrived(topic, b"\xdd\xff\xff\xff\xff" * 1000),
        Arrived(topic, bytes((16 << 20) + 1)),
        *(
            Arrived(text, good)
            for text in (
                "",
                "x",
                topic + "/x",
                topic.upper(),
                "ddnn/v2/home",
                "ddnn/v1/home/scores/CAM",
                "/" * 300,
                "\0",
            )
        ),
    ]
    node.transport.happen(*bad)
    node.settle()
    assert node.loop.counts == {"malformed": len(bad)}
    assert node.machine.of(Received) == []
    assert node.loop.failed is None


def test_the_queue_is_bounded_and_drops_are_counted(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    node = make().start()
    arrived = Arrived(str(Topic("home", Kind.SCORES, "cam2")), encode(SCORES))
    node.transport.happen(*[arrived] * 500)
    node.settle()
    seen = len(node.machine.of(Received))
    assert seen + node.loop.counts["queue_full"] == 500
    assert 10 <= seen <= 11
    node.transport.happen(LinkUp(1))  # what is no message is never refused
    node.settle()
    assert node.machine.of(Connected)


# -------------------------------------------------------------------- machines


def test_a_deadline_is_kept(make: Callable[..., Running]) -> None:
    node = make()
    due_s = node.machine.deadline = time.monotonic() + 0.05
    node.start()
    until(lambda: node.machine.of(Tick))
    assert time.monotonic() >= due_s
    assert len(node.machine.of(Tick)) == 1


def test_a_deadline_is_kept_under_a_flood_of_nonsense(make: Callable[..., Running]) -> None:
    node = make()
    node.machine.deadline = time.monotonic() + 0.05
    node.start()
    until_s = time.monotonic() + IN_TIME_S
    while not node.machine.of(Tick):
        assert time.monotonic() < until_s
        node.transport.happen(*[Arrived("x", b"")] * 100)
    assert node.loop.counts["malformed"] > 0


def test_a_machine_that_fails_is_reported(make: Callable[..., Running]) -> None:
    node = make()
    error = ZeroDivisionError("a bug")

    def fail(event: Event) -> list[Effect]:
        raise error

    node.machine.react = fail
    node.start()
    node.transport.happen(LinkUp(1))
    assert node.loop.join(IN_TIME_S)
    assert node.loop.failed is error
    node.loop.close()
    assert node.transport.last_words is not None  # its status is published all the same


def test_effects_follow_one_after_the_other(make: Callable[..., Running]) -> None:
    """Publish, save and compute in their order; a result is handled before the next message."""
    order: list[str] = []

    def section(inputs: Any) -> dict[str, Any]:
        order.append("section")
        return {"scores": inputs["x"] + 1}

    def save(effect: Save, done: Callable[[Saved], None]) -> None:
        order.append("save")
        done(Saved(effect.answers))

    node = make(sections={"own": section}, save=save)
    answers = [("home", ANSWER)]

    def react(event: Event) -> list[Effect]:
        if isinstance(event, Captured):
            compute = Compute(("own", event.sample), "own", {"x": np.ones(2)})
            return [Publish(Topic("home", Kind.ANSWER), ANSWER), Save(answers), compute]
        return []

    node.machine.react = react
    node.start()
    node.loop.take_frame(Captured(5, 1.0, {}))
    until(lambda: node.machine.of(Saved) and node.machine.of(Computed))
    assert order == ["save", "section"]
    (computed,) = node.machine.of(Computed)
    assert computed.job == ("own", 5)
    assert computed.outputs is not None
    assert computed.outputs["scores"].tolist() == [2, 2]
    assert node.machine.of(Saved) == [Saved(answers)]
    (published,) = node.transport.published
    assert published == ("ddnn/v1/home/answer", encode(ANSWER), 0, False)
    assert node.loop.counts["messages_sent"] == 1
    assert node.loop.counts["bytes_sent"] > len(published[1])


def test_a_machine_writes_into_the_log(
    make: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    node = make()
    node.machine.react = lambda event: [Log("warning", "%s came at %d", ("cam2", 7))]
    node.start()
    with caplog.at_level("INFO"):
        node.settle()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "cam2 came at 7")


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


def computing(event: Event) -> list[Effect]:
    return [Compute(("s", 1), "s", {"x": np.ones(1)})] if isinstance(event, Captured) else []


def test_a_slow_section_does_not_hold_messages_up(make: Callable[..., Running]) -> None:
    section = SlowSection()
    node = make(sections={"s": section})
    node.machine.react = computing
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    assert section.entered.wait(IN_TIME_S)
    assert section.thread.startswith("section")
    arrived = Arrived(str(Topic("home", Kind.SCORES, "cam2")), encode(SCORES))
    node.transport.happen(LinkUp(1), arrived)
    node.settle()
    assert node.machine.of(Received)
    assert not node.machine.of(Computed)
    section.go_on.set()
    until(lambda: node.machine.of(Computed))
    assert {thread for _, thread in node.machine.events} == {"machine"}


@pytest.mark.parametrize("error", [SectionError("x"), ValueError("x"), IndexError(), TypeError()])
@pytest.mark.parametrize("slow", [True, False])
def test_a_section_that_fails_is_reported_to_the_machine(
    make: Callable[..., Running], error: Exception, slow: bool
) -> None:
    section = SlowSection()
    section.error = error
    section.go_on.set()
    call: Any = section if slow else lambda inputs: section(inputs)  # without an example: inline
    node = make(sections={"s": call})
    node.machine.react = computing
    node.start()
    for _ in range(2):
        node.loop.take_frame(Captured(1, 1.0, {}))
    until(lambda: len(node.machine.of(Computed)) == 2)
    assert node.machine.of(Computed) == [Computed(("s", 1), None)] * 2
    assert section.thread.startswith("section" if slow else "machine")


def test_answers_are_written_down_before_they_are_published(make: Callable[..., Running]) -> None:
    order: list[object] = []

    class Disk:
        def keep(self, answer: Answer) -> None:
            order.append(answer)

        def forget(self, samples: Any) -> None:
            order.append(list(samples))

    node = make(answer_log=Disk())
    publish = node.transport.publish
    node.transport.publish = lambda *what: (order.append("published"), publish(*what))[1]
    node.machine.react = lambda event: (
        [Keep(ANSWER), Publish(Topic("home", Kind.ANSWER), ANSWER), Forget([3])]
        if isinstance(event, Captured)
        else []
    )
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    node.settle()
    assert order == [ANSWER, "published", [3]]


def test_a_full_disk_is_counted_and_the_answer_goes_out(make: Callable[..., Running]) -> None:
    class Full:
        def keep(self, answer: Answer) -> None:
            raise OSError(28, "No space left on device")

        def forget(self, samples: Any) -> None:
            raise OSError(28, "No space left on device")

    node = make(answer_log=Full())
    node.machine.react = lambda event: (
        [Keep(ANSWER), Publish(Topic("home", Kind.ANSWER), ANSWER), Forget([3])]
        if isinstance(event, Captured)
        else []
    )
    node.start()
    node.loop.take_frame(Captured(1, 1.0, {}))
    node.settle()
    assert node.loop.counts["answer_log_failed"] == 2
    assert node.transport.published[0][1] == encode(ANSWER)
    assert node.loop.failed is None


def test_statistics_are_published(make: Callable[..., Running]) -> None:
    node = make(stats_every_s=0.02).start()
    node.transport.happen(Arrived("x", b""))
    topic = str(Topic("home", Kind.STATS, "cam1"))

    def published() -> list[Stats]:
        return [decode(Kind.STATS, p) for t, p, *_ in node.transport.published if t == topic]

    until(lambda: len(published()) >= 3)
    last = published()[-1]
    assert last.counts == {"malformed": 1, "machine_counts": 5}
    assert last.role == "device"
    assert last.memory_bytes > 1 << 20
    assert 0 < last.uptime_s < IN_TIME_S
    assert "queue" in last.gauges
    assert topics.parse(topic).kind is Kind.STATS


def test_observers_see_every_event_before_the_machine(make: Callable[..., Running]) -> None:
    seen: list[Event] = []
    node = make(observer=Observer(seen.append)).start()
    node.transport.happen(LinkUp(1))
    node.settle()
    assert seen == [event for event, _ in node.machine.events]


# --------------------------------------------------------------------- service


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_cleanly(
    make: Callable[..., Running], number: signal.Signals
) -> None:
    node = make()

    def soon() -> None:
        assert node.transport.started.wait(IN_TIME_S)
        os.kill(os.getpid(), number)

    threading.Thread(target=soon, daemon=True).start()
    run_until_signal(node.loop)
    assert node.transport.last_words is not None
    assert node.loop.join(0)


@pytest.mark.usefixtures("_handlers")
def test_a_failed_machine_ends_the_program_with_an_error(make: Callable[..., Running]) -> None:
    node = make()

    def fail(event: Event) -> list[Effect]:
        raise ZeroDivisionError("a bug")

    node.machine.react = fail
    node.transport.happen(LinkUp(1))
    with pytest.raises(DdnnError, match="cam1: the machine failed: a bug"):
        run_until_signal(node.loop)


# ------------------------------------------------- other messages than the machine's


def test_others_may_send_through_the_loop_but_not_without_a_broker(
    make: Callable[..., Running],
) -> None:
    node = make().start()
    command = Publish(Topic("home", Kind.THRESHOLDS, "edge"), Thresholds("b1", {"local": 0.5}, 1))
    with pytest.raises(LinkError, match="not connected yet"):
        node.loop.publish(command)
    node.transport.happen(LinkUp(1))
    node.settle()
    assert node.loop.link.connected
    node.loop.publish(command)
    node.settle()
    assert node.transport.published[-1] == (str(command.topic), encode(command.message), 1, True)
    node.transport.happen(LinkDown("pulled"))
    node.settle()
    with pytest.raises(LinkError, match="pulled"):
        node.loop.publish(command)
    since_s = node.loop.link.since_s
    node.transport.happen(LinkDown("still pulled"))  # an attempt that failed: it is no new outage
    node.settle()
    assert (node.loop.link.since_s, node.loop.link.reason) == (since_s, "still pulled")


def test_announcements_are_retained_and_made_at_every_connect(make: Callable[..., Running]) -> None:
    node = make(announcements=[("homeassistant/x/config", b"{}")]).start()
    for session in (1, 2):
        node.transport.happen(LinkUp(session))
        node.settle()
        assert node.transport.published[-1] == ("homeassistant/x/config", b"{}", 1, True)
    assert len([t for t, *_ in node.transport.published if t == "homeassistant/x/config"]) == 2


def test_statistics_say_what_else_runs_in_the_process(make: Callable[..., Running]) -> None:
    node = make(
        stats_every_s=0.02,
        observer=Observer(None, lambda: {"frames": 7}, lambda: {"camera_up": 1.0}),
    ).start()
    topic = str(Topic("home", Kind.STATS, "cam1"))
    until(lambda: any(t == topic for t, *_ in node.transport.published))
    (payload, *_) = [p for t, p, *_ in node.transport.published if t == topic]
    stats = decode(Kind.STATS, payload)
    assert (stats.counts["frames"], stats.counts["machine_counts"]) == (7, 5)
    assert (stats.gauges["camera_up"], stats.gauges["machine_gauge"]) == (1.0, 0.5)


class Example:
    """A section with an example input; may be slow, may fail."""

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


@pytest.mark.parametrize("slow", [False, True])
def test_a_section_without_work_proves_that_it_can(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    monkeypatch.setattr("ddnn.runtime.sections.IDLE_RUN_S", 0.0)
    section = Example(slow=slow)
    node = make(sections={"cam1": section}, stats_every_s=0.02).start()
    until(lambda: section.runs > 5)  # three of them to warm up
    before_s = node.loop.inferred_s
    until(lambda: node.loop.inferred_s > before_s)
    assert node.machine.of(Computed) == []  # the machine has not asked for it


def test_a_broken_section_is_not_taken_for_a_working_one(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnn.runtime.sections.IDLE_RUN_S", 0.0)
    section = Example(fails=True)
    node = make(sections={"cam1": section}, stats_every_s=0.02).start()
    until(lambda: section.runs > 3)
    last_s = node.loop.inferred_s
    until(lambda: section.runs > 6)
    assert node.loop.inferred_s == last_s


# ------------------------------------------------------------------ supervision


class Supervisor:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def ready(self) -> None:
        self.calls.append("ready")

    def watchdog(self) -> None:
        self.calls.append("alive")

    def stopping(self) -> None:
        self.calls.append("stopping")


@pytest.mark.usefixtures("_handlers")
def test_the_supervisor_hears_of_inferences_only(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnn.runtime.service.CHECK_S", 0.01)
    monkeypatch.setattr("ddnn.runtime.service.INFERRED_WITHIN_S", 0.2)
    node, supervisor = make(sections={"cam1": Example()}), Supervisor()

    def watch() -> None:
        node.transport.started.wait(IN_TIME_S)
        until(lambda: node.loop.inferred_s is not None)
        time.sleep(0.05)
        before = list(supervisor.calls)
        node.transport.happen(LinkUp(1))
        until(lambda: "alive" in supervisor.calls)
        time.sleep(0.4)  # the section has nothing to do, and proves nothing: too late
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
