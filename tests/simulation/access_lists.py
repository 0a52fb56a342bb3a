"""A broker with access lists in the simulation: what is not allowed is dropped, and noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddnn.protocol.access import Filters, Role, list_filters, matches
from ddnn.protocol.topics import EVERYWHERE, parse
from ddnn.runtime.packets import Packet
from ddnn.runtime.simulation import Simulation


class AccessLists:
    """The rights of the nodes of one simulation, "<site>/<node>" -> roles.

    written: the topics that each node has written. refused: those that it may not write.
    """

    def __init__(self, simulation: Simulation, roles: Mapping[str, Sequence[Role]]) -> None:
        self.written: set[tuple[str, str]] = set()
        self.refused: set[tuple[str, str]] = set()
        self.filters: dict[str, Filters] = {}
        nodes: dict[Role, list[str]] = {}
        for name, held in roles.items():
            for role in held:
                nodes.setdefault(role, []).append(name.partition("/")[2])
        for name, held in roles.items():
            site, _, node = name.partition("/")
            is_bridged = any(other.startswith(f"{EVERYWHERE}/") for other in roles)
            self.filters[name] = list_filters(held, site, node, nodes, is_bridged=is_bridged)
        self.withheld: set[tuple[str, str]] = set()
        self._limit(simulation)

    def may_write(self, name: str, topic: str) -> bool:
        return any(matches(filter_, topic) for filter_ in self.filters[name].write)

    def may_read(self, name: str, topic: str) -> bool:
        return any(matches(filter_, topic) for filter_ in self.filters[name].read)

    def find_writers(self, topic: str) -> set[str]:
        return {name for name in self.filters if self.may_write(name, topic)}

    def list_kinds(self) -> set[object]:
        return {parse(topic).kind for _, topic in self.written}

    def _limit(self, simulation: Simulation) -> None:
        send, broker = simulation.send, simulation._broker
        publish, subscribe = broker.publish, broker.subscribe

        def send_allowed(node, packet: Packet) -> None:
            pair = node.name, packet.topic
            self.written.add(pair)
            if self.may_write(*pair):
                send(node, packet)
            else:
                self.refused.add(pair)

        def deliver_allowed(packet: Packet) -> list[str]:
            names = publish(packet)
            self.withheld |= {
                (n, packet.topic) for n in names if not self.may_read(n, packet.topic)
            }
            return [name for name in names if self.may_read(name, packet.topic)]

        def retained_allowed(name: str, filters: Sequence[str]) -> list[Packet]:
            return [p for p in subscribe(name, filters) if self.may_read(name, p.topic)]

        simulation.send = send_allowed
        broker.publish, broker.subscribe = deliver_allowed, retained_allowed


def list_roles(simulation: Simulation, more: Mapping[str, Sequence[Role]] = {}) -> dict:
    """The roles of a simulation's nodes: those that they announce."""
    announced = {name: (node.identity.role,) for name, node in simulation._nodes.items()}
    return {**announced, **more}
