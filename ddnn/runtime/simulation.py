"""Runs machines in virtual time, over a network that delays, loses, repeats and reorders messages.

All messages pass a broker with retained messages and Last Wills, and are encoded and decoded as on
a real link. Everything random comes from one generator: the same seed gives the same run. No wait
takes real time, so an hour of a thousand devices takes only as long as its computation.

`Costs` and `DeviceProfile` give the time that work takes on a node's CPU, and messages on its link.
Both queue, so that the effect of load on latency can be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.core.section import Section
from ddnn.core.site_time import SiteTime
from ddnn.protocol.machine import (
    Captured,
    Connected,
    Disconnected,
    Event,
    Machine,
    SectionName,
)
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import AnyMessage, Topic
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs, VirtualTime
from ddnn.runtime.packets import Packet, pack, unpack
from ddnn.runtime.simulated_broker import SimulatedBroker
from ddnn.runtime.simulated_network import Hops, Network
from ddnn.runtime.simulated_node import WALL_S, Build, Journal, SimulatedNode

_unpack = lru_cache(256)(unpack)  # machines change no message: all subscribers get the same one


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
        self.hops = Hops(self.network, self.time, generator)

    # ------------------------------------------------------------- what happened

    @property
    def now_s(self) -> float:
        return self.time.now_s

    @property
    def answers(self) -> list[tuple[float, str, Answer]]:
        """All answers in order: virtual time, node, answer."""
        return self.journal.answers

    @property
    def store(self) -> dict[tuple[str, int], Answer]:
        """The best answers in the store, by site and sample."""
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

    def sum_counts(self) -> dict[str, int]:
        """Sum the counts of the running machines."""
        total: dict[str, int] = defaultdict(int)
        for node in self._nodes.values():
            for key, number in (node.machine.counts if node.machine else {}).items():
                total[key] += number
        return dict(total)

    def list_kept_answers(self) -> dict[str, list[Answer]]:
        """List the answers on the nodes' disks that no store has confirmed, by node."""
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

        `device` limits its link and its computing speed, `costs` gives the time of its work, and
        nodes with the same `cores` share a computer. Returns the node's name, "<site>/<node>".
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
        """Call `action` at a virtual time."""
        self.time.at(time_s, action)

    def run(self, until_s: float) -> None:
        """Run until a virtual time."""
        self.time.run(until_s)

    def set_clock(self, name: str, wall_offset_s: float) -> None:
        """Set a node's wall clock: seconds ahead of the true time."""
        self._nodes[name].wall_offset_s = wall_offset_s

    def find_kept_time(self, name: str) -> SiteTime | None:
        """The site time on a node's disk; None where it is not known, as before the first start."""
        return self._nodes[name].kept_time if name in self._nodes else None

    def capture(self, name: str, frame: Captured) -> None:
        """Give a node a frame now; nothing happens where it is not running."""
        if not self._nodes[name].stalled:
            self._nodes[name].take(frame)

    def publish(self, topic: Topic, message: AnyMessage) -> None:
        """Publish a message of a sender that is no node, at the broker now."""
        self._distribute(pack(topic, message))

    def start(self, name: str) -> None:
        self._nodes[name].start()
        self.connect(name)

    def crash(self, name: str) -> None:
        """Kill a node (SIGKILL): everything but its disk is lost; its Last Will follows."""
        if self._nodes[name].machine is not None:
            self._nodes[name].stop()
            self._drop_link(name, self.hops.draw_will_delay_s())

    def crash_after(self, name: str, events: int) -> None:
        """Let a node handle `events` more events, and crash at the next one."""
        self._nodes[name].crash_after = events

    def stall(self, name: str) -> None:
        """Stop a node (SIGSTOP): its connection lasts until the broker misses the keep-alive."""
        node = self._nodes[name]
        node.stalled = True
        session = node.session

        def break_link() -> None:
            if node.stalled and node.connected and node.session == session:
                self._drop_link(name, 0.0)
                node.take(Disconnected())

        self.at(self.now_s + self.network.stall_will_after_s, break_link)

    def resume(self, name: str) -> None:
        """Continue a node (SIGCONT), which then handles what arrived meanwhile."""
        self._nodes[name].resume()
        self.connect(name)

    def disconnect(self, name: str) -> None:
        """Break a node's link; its Last Will follows."""
        if self._nodes[name].connected:
            self._drop_link(name, self.hops.draw_will_delay_s())
            self._nodes[name].take(Disconnected())

    def connect(self, name: str) -> None:
        """Connect a node, if it runs and is not connected, and the broker is up."""
        node = self._nodes[name]
        if node.machine is None or node.stalled or node.connected or not self._broker.up:
            return
        node.session = session = int(self._generator.integers(1, 2**50))
        node.connected = True
        retained = self._broker.subscribe(name, node.machine.subscriptions())
        self._distribute(node.identity.make_status("online", session))
        self.hops.hop(partial(self._deliver_event, node, session, Connected()))
        for packet in retained:
            self._deliver(node, packet)

    def set_broker(self, up: bool) -> None:
        """Stop the broker, which loses its state, or start it again without any."""
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
        """Send a node's message through its uplink, then one hop to the broker."""
        if not node.connected:
            return
        session, leaves_s = node.session, node.uplink.take(self.now_s, packet.wire_bytes)

        def leave() -> None:
            if node.connected and node.session == session:
                arrive = partial(self._distribute, packet)
                node.sent_s = self.hops.travel(packet, arrive, node.sent_s)

        self.hops.call_at(leaves_s, leave)

    def subscribe(self, node: SimulatedNode, filters: Sequence[str]) -> None:
        """Add topic filters to those of a connected node."""
        if node.connected:
            for packet in self._broker.subscribe(node.name, filters, more=True):
                self._deliver(node, packet)

    def _drop_link(self, name: str, after_s: float) -> None:
        node = self._nodes[name]
        if node.connected:
            node.connected = False
            self._broker.unsubscribe(name)
            will = node.identity.make_status("lost", node.session)
            self.at(self.now_s + after_s, partial(self._distribute, will))

    def _distribute(self, packet: Packet) -> None:
        """Deliver a message that is at the broker to all subscribers."""
        for name in self._broker.publish(packet):
            self._deliver(self._nodes[name], packet)

    def _deliver(self, node: SimulatedNode, packet: Packet) -> None:
        """Deliver a message over one hop to the node, then through its downlink."""
        received, session = _unpack(packet.topic, packet.payload), node.session

        def arrive() -> None:
            passed_s = node.downlink.take(self.now_s, packet.wire_bytes)
            self.hops.call_at(passed_s, partial(self._deliver_event, node, session, received))

        node.received_s = self.hops.travel(packet, arrive, node.received_s)

    def _deliver_event(self, node: SimulatedNode, session: int, event: Event) -> None:
        """Give a node an event, unless the connection that it belongs to has ended."""
        if node.connected and node.session == session:
            node.take(event)
