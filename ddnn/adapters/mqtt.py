"""MQTT by paho: MQTT 5 where the broker speaks it, 3.1.1 otherwise, found out at connect.

paho is driven by the machine's own thread through its interface for external event loops: no
hand-over between threads stands between a message and its answer. Only connecting, which may
block, happens in a thread of its own. A fresh client per connection: each carries its own session
number in its Last Will, and nothing half-sent of an old connection reaches a new one.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from ddnn.errors import ConfigError
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

log = logging.getLogger(__name__)

KEEPALIVE_S = 5
CONNECT_S = 5.0
ANSWER_S = 2.0  # a broker that does not know MQTT 5 may say nothing at all
FAREWELL_S = 2.0
MISC_S = 0.5  # how often keep-alives are looked after
BACKOFF_S = (0.2, 5.0)
READ_AT_ONCE = 64  # messages read before others get their turn
_VERSIONS = {
    "auto": (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311),
    "5": (MQTTProtocolVersion.MQTTv5,),
    "3.1.1": (MQTTProtocolVersion.MQTTv311,),
}


class _Link:
    """One connection: a paho client and what has become of it."""

    def __init__(self, client: paho.Client, session: int) -> None:
        self.client, self.session = client, session
        self.deadline_s = time.monotonic() + ANSWER_S
        self.up = False
        self.reason = ""  # why it ended; empty while it has not
        self.received = 0
        self.confirmed: set[int] = set()


class MqttTransport:
    """See ddnn.runtime.transport.Transport."""

    def __init__(
        self,
        client_id: str,
        host: str = "127.0.0.1",
        port: int = 1883,
        version: str = "auto",
        credentials: Callable[[], tuple[str, str | None] | None] = lambda: None,
    ) -> None:
        """`version`: auto (5, then 3.1.1), 5 or 3.1.1. `credentials`: user and password, asked for
        at every connect."""
        if not 0 < port < 65536:
            raise ConfigError(f"broker port {port}: expected 1 to 65535")
        self._client_id, self._host, self._port = client_id, host, port
        self._credentials = credentials
        self._versions = _VERSIONS[version]
        self._turn = 0  # which version is tried
        self._random = random.Random()  # noqa: S311  jitter and session numbers, not secrets
        self._link: _Link | None = None
        self._connecting = False
        self._offered: _Link | str | None = None  # by the connecting thread: a link, or why not
        self._retry_at_s = 0.0
        self._backoff_s = BACKOFF_S[0]
        self._misc_at_s = 0.0
        self._closed = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    @classmethod
    def of(cls, settings: NodeSettings, name: str = "", version: str = "") -> MqttTransport:
        """The connection that a node's settings ask for; under another `name` for who only visits
        with the node's rights, so that the node keeps its own."""
        client_id = f"{settings.site}-{name or settings.node}"

        def credentials() -> tuple[str, str | None] | None:
            user = settings.broker_user
            return (user, settings.broker_password) if user else None

        return cls(
            client_id,
            settings.broker_host,
            settings.broker_port,
            version or settings.mqtt,
            credentials,
        )

    @property
    def broker(self) -> str:
        """host:port"""
        return f"{self._host}:{self._port}"

    def start(
        self,
        sink: Callable[[LinkEvent], None],
        will: Callable[[int], tuple[str, bytes]],
    ) -> None:
        self._sink, self._will = sink, will
        self._connect_soon()

    def subscribe(self, filters: Sequence[str]) -> None:
        if self._link is not None and self._link.up and filters:
            self._link.client.subscribe([(text, 1) for text in filters])

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self._link is not None and self._link.up:
            self._link.client.publish(topic, payload, qos, retain)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody sleeps
            self._wake_write.send(b"\0")

    def wait(self, timeout_s: float) -> None:
        now_s = time.monotonic()
        self._advance(now_s)
        link = self._link
        until_s = now_s + timeout_s
        if link is not None:
            until_s = min(until_s, self._misc_at_s)
            if not link.up:
                until_s = min(until_s, link.deadline_s)
        elif not self._connecting:
            until_s = min(until_s, self._retry_at_s)
        sock = link.client.socket() if link is not None else None
        readable = [self._wake_read] if sock is None else [self._wake_read, sock]
        writable = (
            [sock] if link is not None and sock is not None and link.client.want_write() else []
        )
        try:
            ready, free, _ = select.select(
                readable, writable, [], max(0.0, until_s - time.monotonic())
            )
        except (OSError, ValueError):  # the socket was closed under us
            ready, free = [], []
        if self._wake_read in ready:
            with contextlib.suppress(OSError):
                self._wake_read.recv(4096)
        if link is not None:
            self._work(link, sock in ready, bool(free))

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        self._closed = True
        link = self._link
        if link is not None and link.up:
            if last_words is not None:
                self._publish_confirmed(link, *last_words)
            link.client.disconnect()
        self._link = None
        self._wake_read.close()
        self._wake_write.close()

    # --------------------------------------------------------------- one link

    def _work(self, link: _Link, readable: bool, writable: bool) -> None:
        """Read and write what there is, and look after keep-alives."""
        if writable:
            link.client.loop_write()
        if readable:
            try:
                self._read(link)
            except Exception as error:  # paho raises whatever its parsing comes upon
                link.reason = f"sent what is no MQTT: {error!r}"
        now_s = time.monotonic()
        if now_s >= self._misc_at_s:
            self._misc_at_s = now_s + MISC_S
            link.client.loop_misc()
        if not link.up and not link.reason and now_s > link.deadline_s:
            link.reason = "did not answer"
        if link.client.socket() is None and not link.reason:
            link.reason = "closed"
        if link.reason:
            self._drop(link)

    @staticmethod
    def _read(link: _Link) -> None:
        for _ in range(READ_AT_ONCE):
            before = link.received
            code = link.client.loop_read()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or link.received == before:
                break

    def _drop(self, link: _Link) -> None:
        """The link has ended: say so, and try again later."""
        self._link = None
        link.client.disconnect()
        self._failed(link.reason, was_up=link.up)

    def _failed(self, reason: str, *, was_up: bool) -> None:
        if was_up:
            self._backoff_s = BACKOFF_S[0]
        elif not reason.startswith("cannot"):
            self._turn += 1  # refused, or silent: perhaps it speaks the other version
        self._retry_at_s = time.monotonic() + self._backoff_s * self._random.uniform(0.5, 1.0)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S[1])
        self._sink(LinkDown(f"{self._host}:{self._port} {reason}"))

    def _publish_confirmed(self, link: _Link, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, and wait for the receipt, briefly."""
        sent = link.client.publish(topic, payload, 1, True)
        until_s = time.monotonic() + FAREWELL_S
        while sent.mid not in link.confirmed and time.monotonic() < until_s:
            sock = link.client.socket()
            if sock is None:
                return
            wanting = [sock] if link.client.want_write() else []
            ready, free, _ = select.select([sock], wanting, [], 0.1)
            if free:
                link.client.loop_write()
            if ready and link.client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return

    # -------------------------------------------------------------- connecting

    def _advance(self, now_s: float) -> None:
        """Take over what the connecting thread offers; start to connect when it is time."""
        offered, self._offered = self._offered, None
        if offered is not None:
            self._connecting = False
            if isinstance(offered, _Link):
                self._link = offered
                self._misc_at_s = now_s + MISC_S
            else:
                self._failed(offered, was_up=False)
        if self._link is None and not self._connecting and now_s >= self._retry_at_s:
            self._connect_soon()

    def _connect_soon(self) -> None:
        if not self._closed:
            self._connecting = True
            threading.Thread(target=self._connect, name="mqtt-connect", daemon=True).start()

    def _connect(self) -> None:
        """In a thread of its own, for names and sockets may take their time."""
        session = self._random.getrandbits(52)
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._versions[self._turn % len(self._versions)],
            reconnect_on_failure=False,
        )
        link = _Link(client, session)
        client.will_set(*self._will(session), qos=1, retain=True)

        def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            if code.is_failure:
                link.reason = f"refused: {code}"
            else:
                link.up = True
                self._backoff_s = BACKOFF_S[0]
                self._sink(LinkUp(session))

        def on_disconnect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            link.reason = link.reason or str(code)

        def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            link.received += 1
            try:
                topic = message.topic
            except UnicodeDecodeError:
                topic = ""  # which is none of ours: counted and dropped like any other
            self._sink(Arrived(topic, bytes(message.payload)))

        def on_publish(_c: object, _u: object, mid: int, _r: object, _p: object) -> None:
            if self._closed:
                link.confirmed.add(mid)

        def on_socket_open(_c: object, _u: object, sock: Any) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_publish = on_publish
        client.on_socket_open = on_socket_open
        client.connect_timeout = CONNECT_S
        try:
            credentials = self._credentials()
            if credentials is not None:
                client.username_pw_set(*credentials)
            client.connect(self._host, self._port, KEEPALIVE_S)
            link.deadline_s = time.monotonic() + ANSWER_S
            self._offered = link
            if self._closed:
                client.disconnect()  # in good order, so that no Will follows the farewell
        except ConfigError as error:
            self._offered = f"cannot be asked: {error}"
        except (OSError, ValueError) as error:  # ValueError: the name can be none of a host
            log.debug("cannot connect: %s", error)
            self._offered = "cannot be reached"
        self.wake()


class DrivenTransport:
    """A transport with a thread of its own to drive it, for programs that have no loop."""

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
