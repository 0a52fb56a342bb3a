"""One MQTT connection: a paho client that the caller's thread drives."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp, Refused

ANSWER_S = 2.0  # a broker that does not know MQTT 5 may say nothing at all
UNSPECIFIED = "Unspecified error"  # paho's text for a socket that was closed
FAREWELL_S = 2.0
MISC_S = 0.5  # how often keep-alives are looked after
READ_AT_ONCE = 64  # messages read before others get their turn
TOO_LARGE = 0x95  # reason code of MQTT 5


class Link:
    """One connection: a paho client and its state."""

    def __init__(
        self,
        client: paho.Client,
        session: int,
        sink: Callable[[LinkEvent], None],
        note_success: Callable[[float], None],
        learn_size: Callable[[int], None],
    ) -> None:
        """sink: takes what happens. note_success: called with the time (monotonic) once the broker
        has accepted the connection; learn_size: with the bytes of a packet that it refused as too
        large."""
        self.client, self.session = client, session
        self._sink, self._note_success, self._learn_size = sink, note_success, learn_size
        self.deadline_s = self.misc_at_s = 0.0  # of the answer; of the next look after keep-alives
        self.up = False
        self.reason = ""  # why it ended; empty while it has not
        self.received = 0
        self.max_packet_bytes: int | None = None  # as the broker announced
        self.sent: dict[int, tuple[str, int]] = {}  # QoS 1, unconfirmed: topic and size, by id
        self.asked: dict[int, Sequence[str]] = {}  # filters of subscriptions, by id
        client.on_connect = self._take_connect
        client.on_disconnect = self._take_disconnect
        client.on_message = self._take_message
        client.on_subscribe = self._take_subscribe
        client.on_socket_open = _set_no_delay

    def begin_wait(self) -> None:
        """Wait for the broker's answer from now on."""
        now_s = time.monotonic()
        self.deadline_s, self.misc_at_s = now_s + ANSWER_S, now_s + MISC_S

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

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, size: int) -> None:
        """Publish; size: of the packet.

        paho reports each packet that has left, which costs as much as to send it: only while a
        confirmation is awaited it does.
        """
        if not qos:
            self.client.publish(topic, payload, qos, retain)
            return
        self.client.on_publish = self._take_publish
        self.sent[self.client.publish(topic, payload, qos, retain).mid] = topic, size

    def publish_confirmed(self, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, and wait for the receipt, at most for `FAREWELL_S`."""
        self.publish(topic, payload, 1, True, len(payload))
        number = next(reversed(self.sent))
        until_s = time.monotonic() + FAREWELL_S
        while number in self.sent and time.monotonic() < until_s:
            sock = self.client.socket()
            if sock is None:
                return
            wait_s = 0.0 if has_decrypted(sock) else 0.1
            ready, free, _ = select.select([sock], self.waiting_to_write, [], wait_s)
            if free:
                self.client.loop_write()
            if (
                ready or has_decrypted(sock)
            ) and self.client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return

    # ------------------------------------------------------------- paho's callbacks

    def take_log(self, _client: object, _data: object, level: int, text: str) -> None:
        """Take a line of paho's log.

        With TLS 1.3 a broker refuses a certificate after the handshake: paho reports the alert here
        only.
        """
        if level == paho.MQTT_LOG_ERR and "ALERT" in text.upper():
            alert = text.partition("alert ")[2].partition(" (")[0] or text
            self.reason = f"refused the certificate of this node: {alert}"

    def _take_connect(
        self, client: paho.Client, _data: object, _flags: object, code: Any, given: Any
    ) -> None:
        if code.is_failure:
            self.reason = f"refused: {code}"
            return
        self.up = True
        self.max_packet_bytes = getattr(given, "MaximumPacketSize", None)
        client.on_log = None  # it costs time at every packet
        self._note_success(time.monotonic())
        self._sink(LinkUp(self.session))

    def _take_disconnect(
        self, _client: object, _data: object, _flags: object, code: Any, _given: object
    ) -> None:
        text = str(code)
        lost = "the connection was lost" if text == UNSPECIFIED else text
        self.reason = self.reason or lost

    def _take_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.received += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # which is none of ours: counted and dropped like any other
        self._sink(Arrived(topic, bytes(message.payload)))

    def _take_publish(
        self, _client: object, _data: object, number: int, code: Any, _given: object
    ) -> None:
        topic, size = self.sent.pop(number, ("", 0))
        if not self.sent:
            self.client.on_publish = None
        if topic and code.is_failure:
            too_large = code.value == TOO_LARGE
            if too_large:
                self._learn_size(size)
            self._sink(Refused("publish", topic, str(code), too_large))

    def _take_subscribe(
        self, _client: object, _data: object, number: int, codes: Any, _given: object
    ) -> None:
        for text, code in zip(self.asked.pop(number, ()), codes, strict=False):
            if code.is_failure:
                self._sink(Refused("subscribe", text, str(code)))


def _set_no_delay(_client: object, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def has_decrypted(sock: object) -> bool:
    """Whether TLS has bytes to read that the socket, which gave them already, does not report."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
