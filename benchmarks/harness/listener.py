"""An MQTT client for measurements, and what several benchmarks read with it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.errors import LinkError
from ddnn.protocol.topics import ROOT, parse


class Listener:
    """A client that passes each message to a function, in a thread of its own.

    It connects again by itself when the broker comes back.
    """

    def __init__(
        self,
        name: str,
        port: int,
        filters: Sequence[str],
        on_message: Callable[[str, bytes], None] = lambda *_: None,
    ) -> None:
        """name: the client's id; on_message: receives topic and payload"""
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_connect = self._subscribe
        self._client.on_message = lambda _c, _u, message: on_message(
            message.topic, bytes(message.payload)
        )
        self._client.on_socket_open = _send_at_once
        self._filters = filters
        self._client.reconnect_delay_set(1, 2)
        self._port = port

    def start(self) -> Listener:
        """Connect and subscribe. LinkError where no broker listens."""
        try:
            self._client.connect("127.0.0.1", self._port, 30)
        except OSError as error:
            raise LinkError(f"no broker on port {self._port} of this machine: {error}") from None
        self._client.loop_start()
        return self

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 0, or with QoS 1 what the broker is to retain."""
        self._client.publish(topic, payload, int(retain), retain)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, _c: object, _u: object, _f: object, _code: object, _p: object) -> None:
        for text in self._filters:
            self._client.subscribe(text, 1)


def _send_at_once(_client: object, _userdata: object, connection: Any) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class PayloadSizes(msgspec.Struct, frozen=True):
    """Bytes of the messages by which one sample is answered."""

    scores: int = 60
    features: int = 80
    escalate: int = 20
    uplink: int = 80
    answer: int = 500


def listen_for_sizes(port: int, site: str, seconds: float) -> dict[str, int]:
    """The sizes of the messages that a site publishes, by the fields of PayloadSizes."""
    seen: dict[str, int] = {}

    def note(topic: str, payload: bytes) -> None:
        seen[parse(topic).kind.name.lower()] = len(payload)

    listener = Listener(f"sizes-{time.time_ns()}", port, [f"{ROOT}/{site}/#"], note).start()
    time.sleep(seconds)
    listener.close()
    return {name: seen[name] for name in PayloadSizes.__struct_fields__ if name in seen}
