"""What tests of transports connect: brokers, a transport to drive, an observer, a relay to cut."""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.adapters.broker import command, free_port, wait_until_listening
from ddnn.adapters.mqtt import MqttTransport
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp
from tests.parts import need_mosquitto

UP_S = 60.0
SILENT_S, ATTEMPTS = 15.0, 4  # a connection that gets no answer for so long is made again
SLACK_S = 4.0  # of a machine under load; less than CONNECT_S, for which nothing may block
NEVER_S = 600  # longer than any test waits
_numbers = itertools.count()


class RunningBroker:
    """A broker process that can be killed, stopped, and started again on its port."""

    def __init__(self, kind: str, directory: Path) -> None:
        if kind == "mosquitto":
            need_mosquitto()
        self.kind, self.port = kind, free_port()
        self.fleet = Fleet(directory)
        self.fleet.start("broker", command(kind, self.port, directory))
        wait_until_listening(self.port)

    def signal(self, number: signal.Signals) -> None:
        self.fleet.send_signal("broker", number)

    def start_again(self) -> None:
        self.fleet.start("broker")
        wait_until_listening(self.port)


class Peer:
    """A transport driven by the thread of the test, and the events that it reported."""

    def __init__(
        self,
        port: int,
        version: str,
        host: str = "127.0.0.1",
        others: Sequence[Broker] = (),
    ) -> None:
        self.id = f"peer{next(_numbers)}"
        self.topic = f"contract/{self.id}"
        self.transport = MqttTransport(self.id, [Broker(host, port), *others], version)
        self.events: list[LinkEvent] = []
        self.sessions: list[int] = []

    def start(self) -> Peer:
        self.transport.start(self.events.append, self.will)
        return self

    def will(self, session: int) -> tuple[str, bytes]:
        self.sessions.append(session)
        return f"{self.topic}/will", b"lost %d" % session

    def pump(self, true: Callable[[], object], timeout_s: float = UP_S) -> None:
        """Drive the transport until something is true."""
        until_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until_s, f"not within {timeout_s} s: {self.events[-3:]}"
            started_s = time.monotonic()
            self.transport.wait(0.02)
            assert time.monotonic() - started_s < 0.02 + SLACK_S, "wait() took longer than asked"

    def list_events(self, kind: type[LinkEvent]) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def wait_up(self, count: int = 1) -> int:
        """Wait for the connection number `count`. Return its session."""
        self.pump(lambda: len(self.list_events(LinkUp)) >= count)
        return self.list_events(LinkUp)[count - 1].session

    def list_payloads(self) -> list[bytes]:
        return [event.payload for event in self.list_events(Arrived)]

    def subscribe_all(self) -> Peer:
        """Connect, subscribe to all of its topics, and wait until the broker has done so."""
        self.wait_up()
        self.transport.subscribe([f"{self.topic}/in/#", f"{self.topic}/other"])
        probe = f"{self.topic}/in/probe"
        attempt = itertools.count()

        def try_probe() -> bool:
            if next(attempt) % 5 == 0:
                self.transport.publish(probe, b"probe", 0, False)
            return Arrived(probe, b"probe") in self.events

        self.pump(try_probe)
        self.transport.publish(probe, b"the last probe", 0, False)
        self.pump(lambda: Arrived(probe, b"the last probe") in self.events)
        self.events[:] = [event for event in self.events if not isinstance(event, Arrived)]
        return self


class Observer:
    """An independent client: paho's own loop, MQTT 3.1.1."""

    def __init__(self, port: int, topic: str) -> None:
        self.topic = topic
        self.messages: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        self.connections = 0
        self.log: deque[str] = deque(maxlen=12)
        while not self._connect(port):  # a node tries again, too
            self.close()
            text = f"no answer to {ATTEMPTS} connections; the client's log ends with {self.log}"
            assert self.connections < ATTEMPTS, text

    def _connect(self, port: int) -> bool:
        """Connect and subscribe; whether the broker answers."""
        ready = threading.Event()
        self.connections += 1
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"see{next(_numbers)}")
        self.client.on_connect = lambda client, *_: client.subscribe(self.topic, 1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = self._take
        self.client.on_log = lambda _client, _user, _level, text: self.log.append(text)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        return ready.wait(SILENT_S)

    def _take(self, _client: object, _user: object, message: paho.MQTTMessage) -> None:
        # amqtt gives a new client all retained messages that anybody subscribed to
        if message.topic.startswith(self.topic.removesuffix("#")):
            self.messages.put((message.topic, message.payload, message.retain))

    def next(self, peer: Peer | None = None, timeout_s: float = UP_S) -> tuple[str, bytes, bool]:
        """The next message, while `peer` is driven."""
        if peer is not None:
            peer.pump(lambda: not self.messages.empty(), timeout_s)
        return self.messages.get(timeout=timeout_s)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Wire:
    """A TCP relay in front of a broker; `cut` resets all its connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(a, b), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for side in self._open:
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            side.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
