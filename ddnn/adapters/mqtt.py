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
import ssl
import threading
import time
from collections.abc import Callable, Sequence

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ddnn.adapters.joined import make_tls
from ddnn.adapters.mqtt_link import Link, has_decrypted
from ddnn.adapters.mqtt_properties import share_tables
from ddnn.adapters.retry import RetrySchedule
from ddnn.errors import ConfigError
from ddnn.protocol.codec import publish_bytes
from ddnn.protocol.topics import find_qos
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import LinkDown, LinkEvent, Refused

log = logging.getLogger(__name__)
share_tables()

KEEPALIVE_S = 5
CONNECT_S = 5.0
LARGE_BYTES = 1024  # a packet that may be the reason why a broker closes the connection
CLOSED_BY_SIZE = 2  # times in a row that it does so
V5_BYTES = 1  # the length of the properties, of which there are none
_VERSIONS = {
    "auto": (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311),
    "5": (MQTTProtocolVersion.MQTTv5,),
    "3.1.1": (MQTTProtocolVersion.MQTTv311,),
}


class MqttTransport:
    """See ddnn.runtime.transport.Transport."""

    def __init__(
        self,
        client_id: str,
        brokers: Sequence[Broker],
        version: str = "auto",
        credentials: Callable[[], tuple[str, str | None] | None] = lambda: None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """brokers: addresses of the broker; after a failure the next one is tried. version: auto
        (5, then 3.1.1), 5 or 3.1.1. credentials: user and password; tls: the certificates, None: no
        TLS. Both are asked for at every connect."""
        for broker in brokers:
            if not 0 < broker.port < 65536:
                raise ConfigError(f"broker port {broker.port}: expected 1 to 65535")
        self._client_id, self._brokers = client_id, tuple(brokers)
        self._credentials, self._tls = credentials, tls
        self._random = random.Random()  # noqa: S311  jitter and session numbers, not secrets
        self._retry = RetrySchedule(_VERSIONS[version], self._random, len(self._brokers))
        self._link: Link | None = None
        self._connecting = False
        self._learned_bytes: int | None = None  # a packet of more bytes was refused
        self._closed_by_size = 0
        self._offered: Link | str | None = None  # by the connecting thread: a link, or why not
        self._closed = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    @classmethod
    def of(
        cls, settings: NodeSettings, name: str = "", version: str = "", instance: int = 0
    ) -> MqttTransport:
        """The connection that a node's settings ask for; under another `name` for who only visits
        with the node's rights, so that the node keeps its own.

        instance: of the process; a second process of one name does not end the first one's
        connection.
        """
        client_id = f"{settings.site}-{name or settings.node}"
        if instance:
            client_id += f"-{instance & 0xFFFFFFFF:08x}"

        def credentials() -> tuple[str, str | None] | None:
            user = settings.broker_user
            return (user, settings.broker_password) if user else None

        return cls(
            client_id,
            settings.brokers,
            version or settings.mqtt,
            credentials,
            make_tls(settings),
        )

    @property
    def broker(self) -> str:
        """host:port of the present connection, or of the next attempt"""
        return str(self._brokers[self._retry.address])

    @property
    def max_packet_bytes(self) -> int | None:
        announced = self._link.max_packet_bytes if self._link is not None else None
        known = [limit for limit in (announced, self._learned_bytes) if limit is not None]
        return min(known, default=None)

    def start(
        self,
        sink: Callable[[LinkEvent], None],
        will: Callable[[int], tuple[str, bytes]],
    ) -> None:
        self._sink, self._will = sink, will
        self._connect_soon()

    def subscribe(self, filters: Sequence[str]) -> None:
        if self._link is not None and self._link.up and filters:
            _, number = self._link.client.subscribe([(text, find_qos(text)) for text in filters])
            if number is not None:
                self._link.asked[number] = filters

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        link = self._link
        if link is None or not link.up:
            return
        limit, size = link.max_packet_bytes, 0
        if limit is not None or qos:
            size = publish_bytes(topic, len(payload), qos) + V5_BYTES
            if limit is not None and size > limit:
                text = f"{size} bytes, and the broker takes packets of at most {limit}"
                self._sink(Refused("publish", topic, text, too_large=True))
                return
        link.publish(topic, payload, qos, retain, size)

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
        if has_decrypted(sock):
            until_s = now_s
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
            link.work(sock in ready or has_decrypted(sock), bool(free))
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
            if isinstance(offered, Link):
                self._link = offered
            else:
                self._sink(LinkDown(f"{self.broker} {offered}"))
                self._retry.note_failure(now_s)
        if self._link is None and not self._connecting and now_s >= self._retry.due_s:
            self._connect_soon()

    def _drop(self, link: Link) -> None:
        """The link has ended: report it, and try again later."""
        self._link = None
        link.client.disconnect()
        self._suspect_size(link)
        if self._tls is not None and not link.up and "certificate" not in link.reason:
            # A reset came before the alert that names the reason.
            link.reason = "closed the connection: is this node's certificate expired or revoked?"
        self._sink(LinkDown(f"{self.broker} {link.reason}"))
        self._retry.note_failure(time.monotonic(), refused=not link.up)

    def _suspect_size(self, link: Link) -> None:
        """Take the size of what was sent to be the reason why the broker closed the connection, if
        it has done so after a large packet each time: MQTT 3.1.1 names no reason."""
        largest = max((size for _, size in link.sent.values()), default=0)
        if link.up:
            self._closed_by_size = self._closed_by_size + 1 if largest > LARGE_BYTES else 0
        if self._closed_by_size >= CLOSED_BY_SIZE:
            self._closed_by_size = 0
            self._learn_size(largest)

    def _learn_size(self, refused_bytes: int) -> None:
        self._learned_bytes = min(self._learned_bytes or refused_bytes, refused_bytes - 1)

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
        link = Link(client, session, self._sink, self._retry.note_success, self._learn_size)
        client.will_set(*self._will(session), qos=1, retain=True)

        client.connect_timeout = CONNECT_S
        try:
            credentials = self._credentials()
            if credentials is not None:
                client.username_pw_set(*credentials)
            if self._tls is not None:
                client.tls_set_context(self._tls())
                client.on_log = link.take_log
            broker = self._brokers[self._retry.address]
            client.connect(broker.host, broker.port, KEEPALIVE_S)
            link.begin_wait()
            self._offered = link
            if self._closed:
                client.disconnect()  # in good order, so that no Will follows the farewell
        except ConfigError as error:
            self._offered = f"cannot be asked: {error}"
        except ssl.SSLCertVerificationError as error:
            self._offered = f"has a certificate that is not accepted: {error.verify_message}"
        except ssl.SSLError as error:
            self._offered = f"does not accept TLS: {error.reason or error}"
        except (OSError, ValueError) as error:  # ValueError: the name can be none of a host
            log.debug("cannot connect: %s", error)
            self._offered = "cannot be reached"
        self.wake()
