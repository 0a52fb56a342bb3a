"""The same machines in virtual time, over a network that delays, loses, repeats and reorders.

A broker with retained messages and Last Wills stands in the middle; every message is encoded and
decoded as on the wire. Everything random comes from one generator: the same seed gives the same
run. Nothing sleeps, so an hour of a thousand devices takes what its computing takes.

Work takes time on each node's CPU, and messages take time on its link, as far as `Costs` and
`DeviceProfile` say so: load queues, and what it does to latency can be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.core.section import Section
from ddnn.protocol.machine import (
    Captured,
    Connected,
    Disconnected,
    Event,
    Machine,
    SectionName,
)
from ddnn.protocol.messages import Answer, Message
from ddnn.protocol.topics import Topic
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs, VirtualTime
from ddnn.runtime.packets import Packet, pack, unpack
from ddnn.runtime.simulated_broker import SimulatedBroker
from ddnn.runtime.simulated_node import WALL_S, Build, Journal, SimulatedNode


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How messages travel, per hop (node to broker, broker to node), and how soon death shows."""

    latency_s: float = 0.001
    jitter_s: float = 0.0005  # mean of an exponential on top
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # share of messages that fall behind by up to `reorder_s`
    reorder_s: float = 0.05
    reliable: bool = True  # messages of QoS 1 arrive once and in order, whatever the above says
    will_after_s: float = 0.05  # a crashed process: its sockets close
    will_spread_s: float = 0.0  # and at most so much later
    stall_will_after_s: float = 7.5  # a stopped process: 1.5 keep-alives


class Simulation:
    """Nodes, a broker and a clock. `run` until a virtual time, then read the journal."""

    WALL_S = WALL_S

    def __init__(self, generator: np.random.Generator, network: Network | None = None) -> None:
        self.network = network or Network()
        self.time = VirtualTime()
        self.journal = Journal()
        self._generator = generator
        self._nodes: dict[str, SimulatedNode] = {}
        self._broker = SimulatedBroker()

    # ------------------------------------------------------------- what happened

    @property
    def now_s(self) -> float:
        return self.time.now_s

    @property
    def answers(self) -> list[tuple[float, str, Answer]]:
        """Answers as they were given: virtual time, node, answer."""
        return self.journal.answers

    @property
    def store(self) -> dict[tuple[str, int], Answer]:
        """The database, by site and sample."""
        return self.journal.store

    @property
    def failures(self) -> list[str]:
        """Exceptions of machines; must stay empty."""
        return self.journal.failures

    def node(self, name: str) -> SimulatedNode:
        """A node by its name, "<site>/<node>"."""
        return self._nodes[name]

    def machine(self, name: str) -> Machine | None:
        """The machine of a node; None where it is not running."""
        return self._nodes[name].machine

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

    # ------------------------------------------------------------ the scenario

    def add(
        self,
        identity: Identity,
        build: Build,
        sections: Mapping[SectionName, Section] | None = None,
        *,
        device: DeviceProfile | None = None,
        costs: Costs | None = None,
        cores: Cores | None = None,
        wall_offset_s: float = 0.0,
    ) -> str:
        """Add a node and start it; `build` makes its machine from the answers on its disk.

        `device` limits its link and its computing speed, `costs` says what its work takes, nodes
        with the same `cores` share a computer. Its name, "<site>/<node>", is what the other
        methods take.
        """
        node = SimulatedNode(
            self,
            identity,
            build,
            sections or {},
            device=device,
            costs=costs or Costs(),
            cores=cores or Cores(),
            wall_offset_s=wall_offset_s,
        )
        self._nodes[node.name] = node
        self.start(node.name)
        return node.name

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a virtual time."""
        self.time.at(time_s, action)

    def run(self, until_s: float) -> None:
        """Let virtual time pass."""
        self.time.run(until_s)

    def capture(self, name: str, frame: Captured) -> None:
        """A frame now; nothing happens if the node is not running."""
        if not self._nodes[name].stalled:
            self._nodes[name].take(frame)

    def publish(self, topic: Topic, message: Message) -> None:
        """A message of somebody else, at the broker now."""
        self._distribute(pack(topic, message))

    def start(self, name: str) -> None:
        self._nodes[name].start()
        self.connect(name)

    def crash(self, name: str) -> None:
        """SIGKILL: all but the disk is lost; the Will follows."""
        if self._nodes[name].machine is not None:
            self._nodes[name].stop()
            self._drop_link(name, self._will_after_s())

    def crash_after(self, name: str, events: int) -> None:
        """Crash in the moment in which the node would handle its next but `events`-th event."""
        self._nodes[name].crash_after = events

    def stall(self, name: str) -> None:
        """SIGSTOP: the connection stays until the broker misses the keep-alive."""
        node = self._nodes[name]
        node.stalled = True
        session = node.session

        def break_link() -> None:
            if node.stalled and node.connected and node.session == session:
                self._drop_link(name, 0.0)
                node.take(Disconnected())

        self.at(self.now_s + self.network.stall_will_after_s, break_link)

    def resume(self, name: str) -> None:
        """SIGCONT: what arrived meanwhile is handled now."""
        self._nodes[name].resume()
        self.connect(name)

    def disconnect(self, name: str) -> None:
        """The node's link breaks; the Will follows."""
        if self._nodes[name].connected:
            self._drop_link(name, self._will_after_s())
            self._nodes[name].take(Disconnected())

    def connect(self, name: str) -> None:
        """The node connects, if it runs, is not connected, and the broker is there."""
        node = self._nodes[name]
        if node.machine is None or node.stalled or node.connected or not self._broker.up:
            return
        node.session = session = int(self._generator.integers(1, 2**50))
        node.connected = True
        retained = self._broker.subscribe(name, node.machine.subscriptions())
        self._distribute(node.identity.status("online", session))
        self.later(partial(self._take_if, node, session, Connected()))
        for packet in retained:
            self._deliver(node, packet)

    def broker(self, up: bool) -> None:
        """The broker dies, forgetting everything, or comes back, forgetful."""
        if up:
            self._broker.up = True
            for name in self._nodes:
                self.connect(name)
            return
        self._broker.stop()
        for node in self._nodes.values():
            if node.connected:
                node.connected = False
                node.take(Disconnected())

    # -------------------------------------------------------------- the network

    def send(self, node: SimulatedNode, packet: Packet) -> None:
        """A message of a node: through its uplink, then one hop to the broker."""
        if not node.connected:
            return
        session, leaves_s = node.session, node.uplink.take(self.now_s, packet.wire_bytes)

        def leave() -> None:
            if node.connected and node.session == session:
                arrive = partial(self._distribute, packet)
                node.sent_s = self._travel(packet, arrive, node.sent_s)

        self._when(leaves_s, leave)

    def later(self, action: Callable[[], None]) -> None:
        """Call `action` after one hop."""
        self._hop(action)

    def _will_after_s(self) -> float:
        spread_s = self.network.will_spread_s
        late_s = spread_s * self._generator.random() if spread_s else 0.0
        return self.network.will_after_s + late_s

    def _drop_link(self, name: str, after_s: float) -> None:
        node = self._nodes[name]
        if node.connected:
            node.connected = False
            self._broker.unsubscribe(name)
            will = node.identity.status("lost", node.session)
            self.at(self.now_s + after_s, partial(self._distribute, will))

    def _distribute(self, packet: Packet) -> None:
        """At the broker: pass on to everyone subscribed."""
        for name in self._broker.publish(packet):
            self._deliver(self._nodes[name], packet)

    def _deliver(self, node: SimulatedNode, packet: Packet) -> None:
        """One hop to the node, then through its downlink."""
        received, session = unpack(packet.topic, packet.payload), node.session

        def arrive() -> None:
            passed_s = node.downlink.take(self.now_s, packet.wire_bytes)
            self._when(passed_s, partial(self._take_if, node, session, received))

        node.received_s = self._travel(packet, arrive, node.received_s)

    def _take_if(self, node: SimulatedNode, session: int, event: Event) -> None:
        """A delivery reaches only the connection that it was meant for."""
        if node.connected and node.session == session:
            node.take(event)

    def _travel(self, packet: Packet, action: Callable[[], None], last_s: float) -> float:
        """One hop. State (QoS 1) arrives, and in the order in which it was sent: the time of the
        last one. Data may do neither."""
        if packet.qos == 0 or not self.network.reliable:
            self._hop(action, lossy=True)
            return last_s
        return self._hop(action, not_before_s=last_s)

    def _hop(
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

    def _when(self, time_s: float, action: Callable[[], None]) -> None:
        """At a time that may be now."""
        if time_s > self.now_s:
            self.at(time_s, action)
        else:
            action()
