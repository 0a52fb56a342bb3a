"""The broker of the simulation: subscriptions and retained messages."""

from __future__ import annotations

from collections.abc import Sequence

from ddnn.runtime.packets import Packet


class SimulatedBroker:
    """Retained messages, and subscriptions by filters with MQTT's `+`, which nodes use alone."""

    def __init__(self) -> None:
        self.up = True
        self._retained: dict[str, Packet] = {}
        self._subscriptions: dict[str, list[tuple[str, ...]]] = {}
        self._filters: dict[tuple[str, ...], list[str]] = {}  # the same by filter, made on demand
        self._routes: dict[str, list[str]] = {}  # topic -> subscribers, made on demand

    def subscribe(self, name: str, filters: Sequence[str]) -> list[Packet]:
        """Subscribe a node; return the retained messages that it gets."""
        wanted = [tuple(text.split("/")) for text in filters]
        self._subscriptions[name] = wanted
        self._forget_routes()
        return [
            packet
            for topic, packet in self._retained.items()
            if any(_matches(text, topic.split("/")) for text in wanted)
        ]

    def unsubscribe(self, name: str) -> None:
        self._subscriptions.pop(name, None)
        self._forget_routes()

    def publish(self, packet: Packet) -> list[str]:
        """Retain the message if it is marked so; return the nodes that get it."""
        if not self.up:
            return []
        if packet.retain:
            self._retained[packet.topic] = packet
        if packet.topic not in self._routes:
            self._routes[packet.topic] = self._route(packet.topic.split("/"))
        return self._routes[packet.topic]

    def stop(self) -> None:
        """Stop the broker, which loses its state."""
        self.up = False
        self._retained.clear()
        self._subscriptions.clear()
        self._forget_routes()

    def _route(self, topic: list[str]) -> list[str]:
        """Find the subscribers of a topic. Each filter is matched once: many nodes share one."""
        if not self._filters:
            for name, filters in self._subscriptions.items():
                for text in filters:
                    self._filters.setdefault(text, []).append(name)
        lists = (names for text, names in self._filters.items() if _matches(text, topic))
        matched = {name for names in lists for name in names}
        return [name for name in self._subscriptions if name in matched] if matched else []

    def _forget_routes(self) -> None:
        self._filters.clear()
        self._routes.clear()


def _matches(text: Sequence[str], topic: Sequence[str]) -> bool:
    return len(text) == len(topic) and all(
        want in ("+", part) for want, part in zip(text, topic, strict=True)
    )
