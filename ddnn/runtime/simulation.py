"""The same machines in virtual time, over a network that delays, loses, repeats and reorders.

A broker with retained messages and Last Wills stands in the middle; every message is encoded and
decoded as on the wire. Everything random comes from one generator: the same seed gives the same
run. Nothing sleeps, so an hour of a thousand devices takes what its computing takes.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec
import numpy as np

from ddnn.core.section import Section
from ddnn.exits.answers import better
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode, publish_bytes
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
    Load,
    Loaded,
    Log,
    Machine,
    Now,
    Publish,
    Received,
    Save,
    Saved,
    Tick,
)
from ddnn.protocol.messages import Answer, Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.identity import Identity


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How messages travel, per hop (node to broker, broker to node), and how soon death shows."""

    latency_s: float = 0.001
    jitter_s: float = 0.0005  # mean of an exponential on top
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # share of messages that fall behind by `reorder_s`
    reorder_s: float = 0.05
    will_after_s: float = 0.05  # a crashed process: its sockets close
    stall_will_after_s: float = 7.5  # a stopped process: 1.5 keep-alives


@dataclass(slots=True)
class _Node:
    identity: Identity
    build: Callable[[list[Answer]], Machine]
    sections: Mapping[str, Section]
    compute_s: float
    wall_offset_s: float
    machine: Machine | None = None  # None: not running
    session: int = 0
    connected: bool = False
    stalled: bool = False
    waiting: list[Event] = field(default_factory=list)  # arrived while stalled
    kept: dict[int, Answer] = field(default_factory=dict)  # its disk
    tick_s: float | None = None  # the Tick that is scheduled
    crash_after: int | None = None  # events until it crashes
    told_s: float = 0.0  # when its last message of state (QoS 1) reaches the broker
    heard_s: float = 0.0  # when the last one for it arrives


class Simulation:
    """Nodes, a broker and a clock. `run` until a virtual time, then read `answers` and `store`."""

    WALL_S = 1_700_000_000.0

    def __init__(self, generator: np.random.Generator, network: Network | None = None) -> None:
        self.now_s = 0.0
        self.network = network or Network()
        self.answers: list[tuple[float, str, Answer]] = []  # as given: virtual time, site, answer
        self.store: dict[tuple[str, int], Answer] = {}
        self.logs: list[tuple[float, str, Log]] = []  # virtual time, node
        self.delivered = 0
        self.failures: list[str] = []  # exceptions of machines; must stay empty
        self._generator = generator
        self._nodes: dict[str, _Node] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._retained: dict[str, bytes] = {}
        self._broker_up = True
        self._subscriptions: dict[str, list[list[str]]] = {}
        self._filters: dict[tuple[str, ...], list[str]] = {}  # the same by filter, when asked for
        self._routes: dict[str, list[str]] = {}  # topic -> subscribers, as far as asked for

    # ------------------------------------------------------------ the scenario

    def add(
        self,
        identity: Identity,
        build: Callable[[list[Answer]], Machine],
        sections: Mapping[str, Section] | None = None,
        *,
        compute_s: float = 0.0005,
        wall_offset_s: float = 0.0,
    ) -> str:
        """Add a node and start it; `build` makes its machine from the answers on its disk.

        Its name, "<site>/<node>", is what the other methods take.
        """
        name = f"{identity.site}/{identity.node}"
        self._nodes[name] = _Node(identity, build, sections or {}, compute_s, wall_offset_s)
        self.start(name)
        return name

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a virtual time."""
        heapq.heappush(self._queue, (time_s, next(self._order), action))

    def capture(self, name: str, frame: Captured) -> None:
        """A frame now; nothing happens if the node is not running."""
        node = self._nodes[name]
        if node.machine is not None and not node.stalled:
            self._handle(name, frame)

    def start(self, name: str) -> None:
        node = self._nodes[name]
        node.machine = node.build(list(node.kept.values()))
        node.stalled = False
        if self._broker_up:
            self._connect(name)

    def crash(self, name: str) -> None:
        """SIGKILL: all but the disk is lost; the Will follows."""
        node = self._nodes[name]
        if node.machine is None:
            return
        node.machine = None
        node.waiting.clear()
        node.tick_s = node.crash_after = None
        self._drop_link(name, self.network.will_after_s)

    def crash_after(self, name: str, events: int) -> None:
        """Crash in the moment in which the node would handle its next but `events`-th event."""
        self._nodes[name].crash_after = events

    def stall(self, name: str) -> None:
        """SIGSTOP: the connection stays until the broker misses the keep-alive."""
        node = self._nodes[name]
        node.stalled = True
        session = node.session

        def broken() -> None:
            if node.stalled and node.connected and node.session == session:
                self._drop_link(name, 0.0)
                node.waiting.append(Disconnected())

        self.at(self.now_s + self.network.stall_will_after_s, broken)

    def resume(self, name: str) -> None:
        """SIGCONT: what arrived meanwhile is handled now."""
        node = self._nodes[name]
        node.stalled = False
        waiting, node.waiting = node.waiting, []
        for event in waiting:
            self._handle(name, event)
        if not node.connected and node.machine is not None and self._broker_up:
            self._connect(name)

    def broker(self, up: bool) -> None:
        """The broker dies, forgetting everything, or comes back, forgetful."""
        self._broker_up = up
        if not up:
            self._retained.clear()
            self._subscriptions.clear()
            self._subscriptions_changed()
            for name, node in self._nodes.items():
                if node.connected:
                    node.connected = False
                    self._handle(name, Disconnected())
        else:
            for name, node in self._nodes.items():
                if node.machine is not None and not node.stalled:
                    self._connect(name)

    def run(self, until_s: float) -> None:
        """Let virtual time pass."""
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        self.now_s = until_s

    def counts(self) -> dict[str, int]:
        """The running machines' counts, summed."""
        total: dict[str, int] = defaultdict(int)
        for node in self._nodes.values():
            for key, number in (node.machine.counts if node.machine else {}).items():
                total[key] += number
        return dict(total)

    def kept(self) -> dict[str, list[Answer]]:
        """Answers on the nodes' disks that no store has confirmed."""
        return {name: list(node.kept.values()) for name, node in self._nodes.items() if node.kept}

    # -------------------------------------------------------------- the broker

    def _connect(self, name: str) -> None:
        node = self._nodes[name]
        if node.machine is None or node.connected:
            return
        node.session = int(self._generator.integers(1, 2**50))
        node.connected = True
        filters = node.machine.subscriptions()
        self._subscriptions[name] = [text.split("/") for text in filters]
        self._subscriptions_changed()
        self._publish(*self._status(node, "online", node.session), retain=True)
        self._later(lambda: self._handle_if(name, node.session, Connected()))
        for topic, payload in list(self._retained.items()):
            if any(_matches(text, topic.split("/")) for text in self._subscriptions[name]):
                self._deliver(name, topic, payload)

    def _drop_link(self, name: str, after_s: float) -> None:
        node = self._nodes[name]
        if not node.connected:
            return
        node.connected = False
        self._subscriptions.pop(name, None)
        self._subscriptions_changed()
        topic, payload = self._status(node, "lost", node.session)
        self.at(self.now_s + after_s, lambda: self._publish(topic, payload, retain=True))

    def _status(self, node: _Node, state: str, session: int) -> tuple[str, bytes]:
        me = node.identity
        status = Status(me.role, session, state, me.bundle, me.version)  # type: ignore[arg-type]
        return str(Topic(me.site, Kind.STATUS, me.node)), encode(status)

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """At the broker: keep, and pass on to everyone subscribed."""
        if not self._broker_up:
            return
        if retain:
            self._retained[topic] = payload
        if topic not in self._routes:
            self._routes[topic] = self._route(topic.split("/"))
        for name in self._routes[topic]:
            self._deliver(name, topic, payload)

    def _route(self, topic: list[str]) -> list[str]:
        """Who is subscribed. A thousand nodes have few different filters."""
        if not self._filters:
            for name, filters in self._subscriptions.items():
                for text in filters:
                    self._filters.setdefault(tuple(text), []).append(name)
        lists = (names for text, names in self._filters.items() if _matches(text, topic))
        matched = {name for names in lists for name in names}
        return [name for name in self._subscriptions if name in matched] if matched else []

    def _subscriptions_changed(self) -> None:
        self._filters.clear()
        self._routes.clear()

    def _deliver(self, name: str, topic: str, payload: bytes) -> None:
        session = self._nodes[name].session
        parsed = topics.parse(topic)
        received = Received(
            parsed,
            decode(parsed.kind, payload),
            publish_bytes(topic, len(payload), parsed.kind.value.qos),
        )
        node = self._nodes[name]
        action = partial(self._handle_if, name, session, received)
        node.heard_s = self._travel(parsed.kind, action, node.heard_s)

    def _travel(self, kind: Kind, action: Callable[[], None], last_s: float) -> float:
        """One hop. State (QoS 1) arrives, and in the order in which it was sent: the time of the
        last one. Data may do neither."""
        if kind.value.qos == 0:
            self._later(action, lossy=True)
            return last_s
        return self._later(action, not_before_s=last_s)

    def _later(
        self, action: Callable[[], None], *, lossy: bool = False, not_before_s: float = 0.0
    ) -> float:
        """After one hop; when that is."""
        network, generator = self.network, self._generator
        delay_s = network.latency_s + generator.exponential(network.jitter_s)
        if lossy:
            if network.loss and generator.random() < network.loss:
                return self.now_s
            if network.reordering and generator.random() < network.reordering:
                delay_s += network.reorder_s * generator.random()
            if network.duplication and generator.random() < network.duplication:
                self.at(self.now_s + delay_s + network.reorder_s * generator.random(), action)
        arrival_s = max(self.now_s + delay_s, not_before_s)
        self.at(arrival_s, action)
        return arrival_s

    # --------------------------------------------------------------- the nodes

    def _handle_if(self, name: str, session: int, event: Event) -> None:
        """A delivery reaches only the connection that it was meant for."""
        node = self._nodes[name]
        if node.connected and node.session == session:
            self._handle(name, event)

    def _handle(self, name: str, event: Event) -> None:
        node = self._nodes[name]
        if node.machine is None:
            return
        if node.stalled:
            node.waiting.append(event)
            return
        if node.crash_after is not None:
            node.crash_after -= 1
            if node.crash_after < 0:
                self.crash(name)
                return
        self.delivered += 1
        now = Now(self.now_s, self.WALL_S + self.now_s + node.wall_offset_s)
        try:
            effects = node.machine.handle(event, now)
        except Exception as error:  # recorded, for a test to show
            self.failures.append(f"{name}: {type(event).__name__}: {error!r}")
            return
        for effect in effects:
            self._perform(name, node, effect)
        self._schedule_tick(name, node)

    def _schedule_tick(self, name: str, node: _Node) -> None:
        due_s = node.machine.deadline_s() if node.machine else None
        if due_s is None or (node.tick_s is not None and node.tick_s <= due_s):
            return
        node.tick_s = due_s = max(due_s, self.now_s)

        def tick() -> None:
            if node.tick_s == due_s:
                node.tick_s = None
                if node.stalled:
                    node.waiting.append(Tick())
                else:
                    self._handle(name, Tick())

        self.at(due_s, tick)

    def _perform(self, name: str, node: _Node, effect: Effect) -> None:
        machine = node.machine
        match effect:
            case Publish(topic, message):
                if isinstance(message, Answer):
                    self.answers.append((self.now_s, topic.site, message))
                if node.connected:
                    text, payload = str(topic), encode(message)
                    retain = topic.kind.value.retain
                    send = partial(self._publish, text, payload, retain=retain)
                    node.told_s = self._travel(topic.kind, send, node.told_s)
            case Compute():
                outputs = node.sections[effect.section](effect.inputs)

                def computed() -> None:
                    if node.machine is machine:
                        self._handle(name, Computed(effect.job, outputs))

                self.at(self.now_s + node.compute_s, computed)
            case Load(section):
                self.at(self.now_s + node.compute_s, lambda: self._loaded(name, machine, section))
            case Keep(answer):
                if not node.connected:
                    self.answers.append((self.now_s, node.identity.site, answer))
                node.kept[answer.sample] = answer
            case Forget(samples):
                for sample in samples:
                    node.kept.pop(sample, None)
            case Save(answers):
                for site, answer in answers:
                    old = self.store.get((site, answer.sample))
                    self.store[site, answer.sample] = better(old, answer) if old else answer
                self._later(lambda: self._handle(name, Saved(answers)))
            case Log():
                self.logs.append((self.now_s, name, effect))

    def _loaded(self, name: str, machine: Machine | None, section: str) -> None:
        node = self._nodes[name]
        if node.machine is machine:
            self._handle(name, Loaded(section, section in node.sections))


def _matches(text: Sequence[str], topic: Sequence[str]) -> bool:
    """MQTT's '+' wildcard, all that we subscribe with."""
    return len(text) == len(topic) and all(
        want in ("+", part) for want, part in zip(text, topic, strict=True)
    )
