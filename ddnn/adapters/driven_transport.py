"""A transport with a thread of its own to drive it, for programs that have no loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ddnn.adapters.mqtt import MqttTransport
from ddnn.adapters.mqtt_link import FAREWELL_S
from ddnn.runtime.transport import LinkEvent


class DrivenTransport:
    """Its sink runs in that thread."""

    def __init__(self, transport: MqttTransport) -> None:
        self._transport = transport
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(
        self, sink: Callable[[LinkEvent], None], will: Callable[[int], tuple[str, bytes]]
    ) -> None:
        self._transport.start(sink, will)
        self._thread.start()

    def subscribe(self, filters: Sequence[str]) -> None:
        """From the sink only."""
        self._transport.subscribe(filters)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """From the sink only."""
        self._transport.publish(topic, payload, qos, retain)

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._transport.wake()
            self._thread.join(FAREWELL_S)
        self._transport.close(last_words)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._transport.wait(1.0)
