"""The broker of the simulation: subscriptions and retained messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ddnn.protocol.access import matches
from ddnn.runtime.packets import Packet


class SimulatedBroker:
    """Retained messages, and subscriptions by filters with MQTT's `+`, which nodes use alone."""

    def __init__(self) -> None:
        self.up = True
        self._retained: dict[str, Packet] = {}
        self._filters: dict[str, list[str]] = {}  # node -> its filters
        self._numbers: dict[str, int] = {}  # node -> its place in the order of delivery
        # Thousands of nodes have filters of their own topics; those with a wildcard are few.
        self._exact: dict[str, set[str]] = {}  # filter -> nodes
        self._wild: dict[str, set[str]] = {}
        self._routes: dict[str, list[str]] = {}  # topic -> subscribers, made on demand

    def subscribe(self, name: str, filters: Sequence[str], *, more: bool = False) -> list[Packet]:
        """Subscribe a node; return the retained messages that it gets.

        more: besides what it has subscribed to before, else in its place.
        """
        if not more:
            self.unsubscribe(name)
        self._numbers.setdefault(name, len(self._numbers))
        self._filters.setdefault(name, []).extend(filters)
        for text in filters:
            self._find_index(text).setdefault(text, set()).add(name)
        self._routes.clear()
        wild = [text for text in filters if _is_wild(text)]
        if not wild:
            return [self._retained[topic] for topic in filters if topic in self._retained]
        return [
            packet
            for topic, packet in self._retained.items()
            if topic in filters or any(_list_matching(wild, topic))
        ]

    def unsubscribe(self, name: str) -> None:
        for text in set(self._filters.pop(name, ())):
            index = self._find_index(text)
            index[text].discard(name)
            if not index[text]:
                del index[text]
        self._routes.clear()

    def publish(self, packet: Packet) -> list[str]:
        """Retain the message if it is marked so; return the nodes that get it."""
        if not self.up:
            return []
        if packet.retain:
            self._retained[packet.topic] = packet
        if packet.topic not in self._routes:
            self._routes[packet.topic] = self._route(packet.topic)
        return self._routes[packet.topic]

    def stop(self) -> None:
        """Stop the broker, which loses its state."""
        self.up = False
        self._retained.clear()
        for name in list(self._filters):
            self.unsubscribe(name)

    def _route(self, topic: str) -> list[str]:
        """Find the subscribers of a topic, in the order in which they came."""
        names = set(self._exact.get(topic, ()))
        for text in _list_matching(self._wild, topic):
            names |= self._wild[text]
        return sorted(names, key=self._numbers.__getitem__)

    def _find_index(self, text: str) -> dict[str, set[str]]:
        return self._wild if _is_wild(text) else self._exact


def _is_wild(text: str) -> bool:
    return "+" in text


def _list_matching(filters: Iterable[str], topic: str) -> list[str]:
    """The filters that match a topic."""
    return [text for text in filters if matches(text, topic)]
