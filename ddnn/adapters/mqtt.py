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


class RetrySchedule:
    """When to connect again, and with which protocol version.

    The interval doubles with each failure from `BACKOFF_S[0]` to `BACKOFF_S[1]`; jitter takes up to
    half of it, so that nodes do not return all at once. A broker that refused the connection or did
    not answer is tried with the next version.
    """

    def __init__(self, versions: Sequence[MQTTProtocolVersion], random: random.Random) -> None:
        self._versions, self._random = versions, random
        self._turn = 0
        self._interval_s = BACKOFF_S[0]
        self.due_s = 0.0

    @property
    def version(self) -> MQTTProtocolVersion:
        return self._versions[self._turn % len(self._versions)]

    def note_success(self) -> None:
        """The broker accepted a connection."""
        self._interval_s = BACKOFF_S[0]

    def note_failure(self, now_s: float, *, refused: bool = False) -> None:
        """A connection ended, or none came about. refused: by a broker that was reached."""
        self._turn += refused
        self.due_s = now_s + self._interval_s * self._random.uniform(0.5, 1.0)
        self._interval_s = min(2 * self._interval_s, BACKOFF_S[1])


class _Link:
    """One connection: a paho client and its state."""

    def __init__(self, client: paho.Client, session: int) -> None:
        self.client, self.session = client, session
        self.deadline_s = time.monotonic() + ANSWER_S
        self.misc_at_s = 0.0  # when keep-alives are next looked after
        self.up = False
        self.reason = ""  # why it ended; empty while it has not
        self.received = 0
        self.confirmed: set[int] = set()

    @property
    def due_s(self) -> float:
        """When `work` must be called at the latest."""
        return self.misc_at_s if self.up else min(self.misc_at_s, self.deadline_s)

    @property
    def waiting_to_write(self) -> list[Any]:
        """The socket, if something waits to be written to it."""
        sock = self.client.socket()
        return [sock] if sock is not None and self.client.want_write() else []

    def work(self, readable: bool, writable: bool) -> None:
        """Read and write what there is, and look after keep-alives; `reason` says if it ended."""
        if writable:
            self.client.loop_write()
        if readable:
            try:
                self._read()
            except Exception as error:  # paho raises any kind of exception from its parser
                self.reason = f"sent what is no MQTT: {error!r}"
        now_s = time.monotonic()
        if now_s >= self.misc_at_s:
            self.misc_at_s = now_s + MISC_S
            self.client.loop_misc()
        if not self.up and not self.reason and now_s > self.deadline_s:
            self.reason = "did not answer"
        if self.client.socket() is None and not self.reason:
            self.reason = "closed"

    def _read(self) -> None:
        for _ in range(READ_AT_ONCE):
            before = self.received
            code = self.client.loop_read()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self.received == before:
                break

    def publish_confirmed(self, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, and wait for the receipt, at most for `FAREWELL_S`."""
        sent = self.client.publish(topic, payload, 1, True)
        until_s = time.monotonic() + FAREWELL_S
        while sent.mid not in self.confirmed and time.monotonic() < until_s:
            sock = self.client.socket()
            if sock is None:
                return
            ready, free, _ = select.select([sock], self.waiting_to_write, [], 0.1)
            if free:
                self.client.loop_write()
            if ready and self.client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return


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
        self._random = random.Random()  # noqa: S311  jitter and session numbers, not secrets
        self._retry = RetrySchedule(_VERSIONS[version], self._random)
        self._link: _Link | None = None
        self._connecting = False
        self._offered: _Link | str | None = None  # by the connecting thread: a link, or why not
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
            until_s = min(until_s, link.due_s)
        elif not self._connecting:
            until_s = min(until_s, self._retry.due_s)
        sock = link.client.socket() if link is not None else None
        readable = [self._wake_read] if sock is None else [self._wake_read, sock]
        writable = link.waiting_to_write if link is not None else []
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
            link.work(sock in ready, bool(free))
            if link.reason:
                self._drop(link)

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        self._closed = True
        link = self._link
        if link is not None and link.up:
            if last_words is not None:
                link.publish_confirmed(*last_words)
            link.client.disconnect()
        self._link = None
        self._wake_read.close()
        self._wake_write.close()

    # -------------------------------------------------------------- connecting

    def _advance(self, now_s: float) -> None:
        """Take over what the connecting thread offers; start to connect when it is time."""
        offered, self._offered = self._offered, None
        if offered is not None:
            self._connecting = False
            if isinstance(offered, _Link):
                self._link = offered
                offered.misc_at_s = now_s + MISC_S
            else:
                self._retry.note_failure(now_s)
                self._sink(LinkDown(f"{self.broker} {offered}"))
        if self._link is None and not self._connecting and now_s >= self._retry.due_s:
            self._connect_soon()

    def _drop(self, link: _Link) -> None:
        """The link has ended: report it, and try again later."""
        self._link = None
        link.client.disconnect()
        self._retry.note_failure(time.monotonic(), refused=not link.up)
        self._sink(LinkDown(f"{self.broker} {link.reason}"))

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
            protocol=self._retry.version,
            reconnect_on_failure=False,
        )
        link = _Link(client, session)
        client.will_set(*self._will(session), qos=1, retain=True)

        def on_connect(_c: object, _u: object, _f: object, code: Any, _p: object) -> None:
            if code.is_failure:
                link.reason = f"refused: {code}"
            else:
                link.up = True
                self._retry.note_success()
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
