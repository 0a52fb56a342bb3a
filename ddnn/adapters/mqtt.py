"""MQTT by paho: MQTT 5 where the broker speaks it, 3.1.1 otherwise, found out at connect.

A fresh client per connection: each carries its own session number in its Last Will, and nothing
half-sent of an old connection reaches a new one.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ddnn.errors import ConfigError
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

log = logging.getLogger(__name__)

KEEPALIVE_S = 5
CONNECT_S = 5.0
ANSWER_S = 2.0  # a broker that does not know MQTT 5 may say nothing at all
FAREWELL_S = 2.0
BACKOFF_S = (0.2, 5.0)
_VERSIONS = {
    "auto": (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311),
    "5": (MQTTProtocolVersion.MQTTv5,),
    "3.1.1": (MQTTProtocolVersion.MQTTv311,),
}


class MqttTransport:
    """See ddnn.runtime.transport.Transport."""

    def __init__(
        self, client_id: str, host: str = "127.0.0.1", port: int = 1883, version: str = "auto"
    ) -> None:
        """`version`: auto (5, then 3.1.1), 5 or 3.1.1."""
        if not 0 < port < 65536:
            raise ConfigError(f"broker port {port}: expected 1 to 65535")
        self._client_id, self._host, self._port = client_id, host, port
        self._versions = _VERSIONS[version]
        self._random = random.Random()  # noqa: S311  jitter and session numbers, not secrets
        self._client: paho.Client | None = None
        self._down = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt-link", daemon=True)

    @classmethod
    def of(cls, settings: NodeSettings) -> MqttTransport:
        """The connection that a node's settings ask for."""
        client_id = f"{settings.site}-{settings.node}"
        return cls(client_id, settings.broker_host, settings.broker_port, settings.mqtt)

    def start(
        self,
        sink: Callable[[LinkEvent], None],
        will: Callable[[int], tuple[str, bytes]],
    ) -> None:
        self._sink, self._will = sink, will
        self._thread.start()

    def subscribe(self, filters: Sequence[str]) -> None:
        if self._client is not None and filters:
            self._client.subscribe([(text, 1) for text in filters])

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self._client is not None:
            self._client.publish(topic, payload, qos, retain)

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        self._closed.set()
        client = self._client
        if client is not None:
            if last_words is not None:
                with contextlib.suppress(ValueError, RuntimeError):
                    client.publish(*last_words, 1, True).wait_for_publish(FAREWELL_S)
            client.disconnect()
        self._down.set()
        if self._thread.is_alive():
            self._thread.join(CONNECT_S + FAREWELL_S)

    # ------------------------------------------------------- the link's thread

    def _run(self) -> None:
        turn = 0
        wait_s = BACKOFF_S[0]
        while not self._closed.is_set():
            reason, connected = self._connection(self._versions[turn % len(self._versions)])
            if connected:
                wait_s = BACKOFF_S[0]
            elif reason != "unreachable":
                turn += 1  # refused, or silent: perhaps it speaks the other version
            self._sink(LinkDown(f"{self._host}:{self._port} {reason}"))
            self._closed.wait(wait_s * self._random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, BACKOFF_S[1])

    def _connection(self, protocol: MQTTProtocolVersion) -> tuple[str, bool]:
        """One connection from start to end: why it ended, and whether it ever was one."""
        self._down.clear()
        answered = threading.Event()
        state: dict[str, Any] = {"reason": "closed", "connected": False}
        session = self._random.getrandbits(52)
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        client.will_set(*self._will(session), qos=1, retain=True)

        def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            if code.is_failure:
                state["reason"] = f"refused: {code}"
                self._down.set()
            else:
                state["connected"] = True
                self._client = client
                self._sink(LinkUp(session))
            answered.set()

        def on_disconnect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            if state["connected"]:
                state["reason"] = str(code)
            self._down.set()
            answered.set()

        def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            self._sink(Arrived(message.topic, bytes(message.payload)))

        def on_socket_open(_c: object, _u: object, sock: Any) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_socket_open = on_socket_open
        client.connect_timeout = CONNECT_S
        try:
            client.connect(self._host, self._port, KEEPALIVE_S)
        except OSError as error:
            log.debug("cannot connect: %s", error)
            return "unreachable", False
        client.loop_start()
        try:
            if not answered.wait(ANSWER_S):
                return "did not answer", False
            self._down.wait()
            return state["reason"], state["connected"]
        finally:
            self._client = None
            client.disconnect()
            client.loop_stop()
