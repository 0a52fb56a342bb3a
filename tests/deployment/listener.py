"""A client that hears everything at one broker of the deployment."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind
from tests.deployment.native import Native


class Listener:
    """Hears everything at one broker, as a client of its own."""

    def __init__(self, native: Native, broker: str, user: str = "health") -> None:
        self.heard: list[tuple[float, str, bytes, bool]] = []  # when, topic, payload, retained
        self._lock = threading.Lock()
        self._port = native.ports[broker]
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.username_pw_set(user, (native.secrets / f"mqtt_{user}").read_text().strip())
        self.client.on_connect = lambda client, *_: client.subscribe("#")
        self.client.on_message = self._hear
        self.client.reconnect_delay_set(0.2, 1)
        self.client.connect("127.0.0.1", self._port, 5)
        self.client.loop_start()

    def _hear(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._lock:
            heard = (time.time(), message.topic, message.payload, message.retain)
            self.heard.append(heard)

    def all(self, since_s: float = 0.0) -> list[tuple[topics.Topic, bytes]]:
        """Messages of ours; each must be one of the table's kinds."""
        with self._lock:
            heard = [(topic, payload) for at_s, topic, payload, _ in self.heard if at_s >= since_s]
        ours: list[tuple[topics.Topic, bytes]] = []
        for topic, payload in heard:
            if topic.startswith("ddnn/") and "/probe/" not in topic:
                ours.append((topics.parse(topic), payload))
        return ours

    def answers(self, since_s: float = 0.0) -> list[Answer]:
        return [decode(t.kind, p) for t, p in self.all(since_s) if t.kind is Kind.ANSWER]

    def read_retained(self, filter_: str) -> dict[str, bytes]:
        """The retained messages that a new client receives, until a second without one."""
        retained: dict[str, bytes] = {}
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.username, client.password = self.client.username, self.client.password
        client.on_connect = lambda c, *_: c.subscribe(filter_)
        until_s, quiet_s = time.monotonic() + 20, math.inf

        def restart_quiet_time(*_: object) -> None:
            nonlocal quiet_s
            quiet_s = time.monotonic() + 1.0

        def message(_c: object, _u: object, m: paho.MQTTMessage) -> None:
            if m.retain:
                retained[m.topic] = m.payload
                restart_quiet_time()

        client.on_subscribe, client.on_message = restart_quiet_time, message
        client.connect("127.0.0.1", self._port, 5)
        while (now_s := time.monotonic()) < quiet_s:
            assert now_s < until_s, "not subscribed, or never quiet"
            client.loop(0.05)
        client.disconnect()
        return retained

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
