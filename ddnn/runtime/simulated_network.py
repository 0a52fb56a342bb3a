"""The network of a simulation: hops that delay, lose, repeat and reorder what travels."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from ddnn.runtime.lanes import VirtualTime
from ddnn.runtime.packets import Packet


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Delays and faults of a hop (node to broker, broker to node), and delays of Last Wills."""

    latency_s: float = 0.001
    jitter_s: float = 0.0005  # mean of an exponential on top
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # share of messages that fall behind by up to `reorder_s`
    reorder_s: float = 0.05
    reliable: bool = True  # messages of QoS 1 arrive once and in order, despite the faults above
    will_after_s: float = 0.05  # after a crash, which closes the sockets of the process
    will_spread_s: float = 0.0  # and a random time up to this more
    stall_will_after_s: float = 7.5  # after a stop of the process: 1.5 keep-alives


class Hops:
    """The hops of a network in virtual time; `generator` draws delays and faults."""

    def __init__(self, network: Network, time: VirtualTime, generator: np.random.Generator) -> None:
        self._network, self._time, self._generator = network, time, generator

    def draw_will_delay_s(self) -> float:
        spread_s = self._network.will_spread_s
        late_s = spread_s * self._generator.random() if spread_s else 0.0
        return self._network.will_after_s + late_s

    def travel(self, packet: Packet, action: Callable[[], None], last_s: float) -> float:
        """Send a packet over one hop; return when the last packet of QoS 1 arrives.

        Packets of QoS 1 all arrive, in the order of sending. Others may be lost or reordered.
        """
        if packet.qos == 0 or not self._network.reliable:
            self.hop(action, lossy=True)
            return last_s
        return self.hop(action, not_before_s=last_s)

    def hop(
        self, action: Callable[[], None], *, lossy: bool = False, not_before_s: float = 0.0
    ) -> float:
        """Call `action` after one hop; return the time of arrival."""
        network, generator = self._network, self._generator
        delay_s = network.latency_s + generator.exponential(network.jitter_s)
        if lossy:
            if network.loss and generator.random() < network.loss:
                return self._time.now_s
            if network.reordering and generator.random() < network.reordering:
                delay_s += network.reorder_s * generator.random()
            if network.duplication and generator.random() < network.duplication:
                self._time.at(
                    self._time.now_s + delay_s + network.reorder_s * generator.random(), action
                )
        arrival_s = max(self._time.now_s + delay_s, not_before_s)
        self._time.at(arrival_s, action)
        return arrival_s

    def call_at(self, time_s: float, action: Callable[[], None]) -> None:
        """Call `action` at a time, or at once where that is now."""
        if time_s > self._time.now_s:
            self._time.at(time_s, action)
        else:
            action()
