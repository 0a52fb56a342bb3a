"""One contract for every way to a broker: MQTT 5 and 3.1.1, chosen or found out, on each broker."""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.adapters import mqtt
from ddnn.adapters.broker import command, free_port, wait_until_listening
from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import ConfigError
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp
from tests.parts import need_mosquitto

PAIRS = [
    ("mosquitto", "auto"),
    ("mosquitto", "5"),
    ("mosquitto", "3.1.1"),
    ("embedded", "auto"),
    ("embedded", "3.1.1"),
]
UP_S = 60.0
SLACK_S = 4.0  # of a machine under load; less than CONNECT_S, for which nothing may block
NEVER_S = 600  # longer than any test waits
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does not wait for on purpose, it does not wait for at all."""
    monkeypatch.setattr(mqtt, "ANSWER_S", NEVER_S)
    monkeypatch.setattr(mqtt, "FAREWELL_S", NEVER_S)


class RunningBroker:
    """A broker process that can be killed, stopped, and started again on its port."""

    def __init__(self, kind: str, directory: Path) -> None:
        if kind == "mosquitto":
            need_mosquitto()
        self.port = free_port()
        self.fleet = Fleet(directory)
        self.fleet.start("broker", command(kind, self.port, directory))
        wait_until_listening(self.port)

    def signal(self, number: signal.Signals) -> None:
        self.fleet.send_signal("broker", number)

    def start_again(self) -> None:
        self.fleet.start("broker")
        wait_until_listening(self.port)


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningBroker]]:
    running: dict[str, RunningBroker] = {}

    def get(kind: str) -> RunningBroker:
        if kind not in running:
            running[kind] = RunningBroker(kind, tmp_path_factory.mktemp(kind))
        return running[kind]

    yield get
    for broker in running.values():
        broker.fleet.close()


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def broker(
    pair: tuple[str, str],
    brokers: Callable[[str], RunningBroker],
    monkeypatch: pytest.MonkeyPatch,
) -> RunningBroker:
    if pair == ("embedded", "auto"):
        monkeypatch.setattr(mqtt, "ANSWER_S", 1.0)  # amqtt says nothing at all to MQTT 5
    return brokers(pair[0])


class Peer:
    """A transport driven by the test's own thread, and everything it said."""

    def __init__(self, port: int, version: str, host: str = "127.0.0.1") -> None:
        self.id = f"peer{next(_numbers)}"
        self.topic = f"contract/{self.id}"
        self.transport = MqttTransport(self.id, host, port, version)
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

    def of(self, kind: type[LinkEvent]) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def up(self, count: int = 1) -> int:
        """Wait for the connection number `count`; its session."""
        self.pump(lambda: len(self.of(LinkUp)) >= count)
        return self.of(LinkUp)[count - 1].session

    def got(self) -> list[bytes]:
        return [event.payload for event in self.of(Arrived)]

    def subscribed(self) -> Peer:
        """Connected and subscribed to all of its topics, the broker's word for it heard."""
        self.up()
        self.transport.subscribe([f"{self.topic}/in/#", f"{self.topic}/other"])
        probe = f"{self.topic}/in/probe"
        attempt = itertools.count()

        def probed() -> bool:
            if next(attempt) % 5 == 0:
                self.transport.publish(probe, b"probe", 0, False)
            return Arrived(probe, b"probe") in self.events

        self.pump(probed)
        self.transport.publish(probe, b"the last probe", 0, False)
        self.pump(lambda: Arrived(probe, b"the last probe") in self.events)
        self.events[:] = [event for event in self.events if not isinstance(event, Arrived)]
        return self


@pytest.fixture
def connect(pair: tuple[str, str], broker: RunningBroker) -> Iterator[Callable[..., Peer]]:
    """connect(port) starts a transport of this pair; all are closed in the end."""
    peers: list[Peer] = []

    def start(port: int | None = None) -> Peer:
        peers.append(Peer(port or broker.port, pair[1]).start())
        return peers[-1]

    yield start
    for peer in peers:
        peer.transport.close()


class Observer:
    """An independent client: paho's own loop, MQTT 3.1.1."""

    def __init__(self, port: int, topic: str) -> None:
        self.topic = topic
        self.messages: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"see{next(_numbers)}")
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(UP_S)

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


@pytest.fixture
def observe(broker: RunningBroker) -> Iterator[Callable[[str], Observer]]:
    observers: list[Observer] = []

    def start(topic: str) -> Observer:
        observers.append(Observer(broker.port, topic))
        return observers[-1]

    yield start
    for observer in observers:
        observer.close()


class Wire:
    """A TCP relay in front of a broker, to cut."""

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


@pytest.fixture
def wire(broker: RunningBroker) -> Iterator[Wire]:
    wire = Wire(broker.port)
    yield wire
    wire.close()


# ------------------------------------------------------------------ the contract


def test_messages_arrive_whole_and_in_order(connect: Callable[..., Peer]) -> None:
    peer = connect().subscribed()
    payloads = [b"", bytes(range(256)), b"x" * 100_000]
    for qos in (0, 1):
        for payload in payloads:
            peer.transport.publish(f"{peer.topic}/in/{qos}", payload, qos, False)
    peer.transport.publish(f"{peer.topic}/elsewhere", b"not asked for", 1, False)
    peer.transport.publish(f"{peer.topic}/other", b"last", 1, False)
    peer.pump(lambda: len(peer.got()) >= 7)
    assert peer.of(Arrived) == [
        *(Arrived(f"{peer.topic}/in/{qos}", payload) for qos in (0, 1) for payload in payloads),
        Arrived(f"{peer.topic}/other", b"last"),
    ]
    sent = [b"%d" % number for number in range(600)]
    peer.events.clear()
    for number, payload in enumerate(sent):
        peer.transport.publish(f"{peer.topic}/in/many", payload, 1 if number >= 500 else 0, False)
        if number % 50 == 0:
            peer.transport.wait(0.0)
    peer.pump(lambda: len(peer.got()) >= len(sent), 20)
    assert peer.got() == sent
    assert len(peer.of(LinkDown)) == 0


def test_a_retained_message_waits_for_who_comes_later(
    connect: Callable[..., Peer], observe: Callable[[str], Observer]
) -> None:
    first = connect()
    observer = observe(f"{first.topic}/in/#")
    first.up()
    topic = f"{first.topic}/in/kept"
    for payload in (b"old", b"new"):
        first.transport.publish(topic, payload, 1, True)
    first.transport.publish(f"{first.topic}/in/passing", b"gone", 1, False)
    assert [observer.next(first)[1] for _ in range(3)] == [b"old", b"new", b"gone"]
    later = connect()
    later.up()
    later.transport.subscribe([f"{first.topic}/in/#"])
    later.pump(lambda: later.got())
    assert later.of(Arrived) == [Arrived(topic, b"new")]
    first.transport.publish(topic, b"", 1, True)
    assert observer.next(first)[1] == b""


def test_every_connection_has_its_session_and_its_own_will(
    connect: Callable[..., Peer],
    wire: Wire,
    observe: Callable[[str], Observer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", NEVER_S)  # a cut is noticed without it
    peer = connect(wire.port)
    observer = observe(f"{peer.topic}/#")
    sessions = []
    for number in (1, 2):
        sessions.append(peer.up(number))
        down = len(peer.of(LinkDown))
        wire.cut()
        peer.pump(lambda before=down: len(peer.of(LinkDown)) > before)
        topic, payload, _ = observer.next(peer)
        assert (topic, payload) == (f"{peer.topic}/will", b"lost %d" % sessions[-1])
    assert sessions[0] != sessions[1]
    peer.up(3)
    late = observe(f"{peer.topic}/#")  # the Will is retained, for who comes later
    assert late.next(peer) == (f"{peer.topic}/will", b"lost %d" % sessions[1], True)


def test_close_says_the_last_words_and_not_the_will(
    connect: Callable[..., Peer], observe: Callable[[str], Observer]
) -> None:
    peer = connect()
    peer.up()
    observer = observe(f"{peer.topic}/#")
    peer.transport.close((f"{peer.topic}/will", b"stopped"))  # at once: FAREWELL_S is long
    assert observer.next()[:2] == (f"{peer.topic}/will", b"stopped")
    assert observe(f"{peer.topic}/#").next() == (f"{peer.topic}/will", b"stopped", True)
    with pytest.raises(queue.Empty):  # no Will follows
        observer.messages.get(timeout=0.3)
    peer.transport.close()  # again: nothing happens


def test_a_broker_that_is_killed_and_started_again(
    connect: Callable[..., Peer], broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", NEVER_S)  # it is noticed without it
    peer = connect().subscribed()
    first = peer.up()
    peer.events[:] = peer.of(LinkUp)
    broker.signal(signal.SIGKILL)
    peer.pump(lambda: peer.of(LinkDown))
    peer.transport.publish(f"{peer.topic}/in/x", b"while it was away", 1, False)
    peer.transport.subscribe([f"{peer.topic}/in/nobody-hears-this"])
    peer.pump(lambda: len(peer.of(LinkDown)) >= 3)  # it keeps trying
    broker.start_again()
    assert peer.up(2) != first
    peer.transport.subscribe([f"{peer.topic}/in/#"])
    peer.transport.publish(f"{peer.topic}/in/x", b"after", 1, False)
    peer.pump(lambda: peer.got())
    assert peer.got() == [b"after"]  # what was said without a connection is dropped


def test_a_broker_that_stands_still_is_noticed_and_blocks_nobody(
    connect: Callable[..., Peer], broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mqtt.KEEPALIVE_S <= 5  # so that a real one is noticed within 10 s
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    monkeypatch.setattr(mqtt, "FAREWELL_S", 0.3)
    peer, closing = connect(), connect()
    first = peer.up()
    closing.up()
    peer.events[:] = peer.of(LinkUp)
    broker.signal(signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        for _ in range(200):  # 10 MB: more than any socket buffer holds
            peer.transport.publish(f"{peer.topic}/in/x", bytes(50_000), 0, False)
        peer.transport.publish(f"{peer.topic}/in/x", b"x", 1, False)
        closing.transport.close(("contract/stopped", b"stopped"))
        assert time.monotonic() - stopped_s < mqtt.FAREWELL_S + SLACK_S
        peer.pump(lambda: peer.of(LinkDown), 2 * mqtt.KEEPALIVE_S + 2 * mqtt.MISC_S + SLACK_S)
    finally:
        broker.signal(signal.SIGCONT)
    assert peer.up(2) != first


def test_publishing_without_a_connection_is_harmless(connect: Callable[..., Peer]) -> None:
    for peer in (Peer(free_port(), "auto"), connect()):
        peer.transport.publish("contract/x", b"x", 1, True)
        peer.transport.subscribe(["contract/#"])
        peer.transport.close(("contract/x", b"never said"))
        assert peer.of(LinkUp) == []


# --------------------------------------------------- whatever the broker may be


def test_a_port_where_nobody_listens_is_tried_again_and_again() -> None:
    peer = Peer(free_port(), "auto").start()
    peer.pump(lambda: len(peer.of(LinkDown)) >= 3)
    peer.transport.close(("contract/x", b"never said"))  # at once: FAREWELL_S is long
    assert len(peer.of(LinkUp)) == 0


@pytest.mark.parametrize("host", ["", "a" * 64, "no..host", "no-such-host.invalid"])
def test_a_host_that_cannot_be_is_tried_again_and_again(host: str) -> None:
    peer = Peer(1883, "auto", host).start()
    peer.pump(lambda: len(peer.of(LinkDown)) >= 2)
    peer.transport.close()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 65535"):
        MqttTransport("x", port=port)


CONNACK = {"auto": b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}  # auto tries 5 first
NONSENSE = {
    "nothing": b"",
    "no CONNACK": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a packet type that is none": b"%s\xf0\x00",
    "a length without end": b"%s\x30\xff\xff\xff\xff\xff\xff",
    "a topic longer than its packet": b"%s\x30\x05\xff\xffabc",
    "a topic that is no text": b"%s\x30\x07\x00\x02\xff\xfe\x00ab",
    "a receipt cut short": b"%s\x40\x01\x00",
    "a subscription's receipt cut short": b"%s\x90\x01\x00",
    "a second CONNACK": b"%s%s",
    "QoS 3": b"%s\x36\x07\x00\x01a\x00\x01ab",
}


@pytest.mark.parametrize("version", CONNACK)
@pytest.mark.parametrize("what", NONSENSE)
def test_a_broker_that_talks_nonsense_raises_nothing(
    what: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link ends, or goes on without that message; nothing escapes into the node's thread."""
    connects = what.startswith(("a ", "QoS"))
    if not connects:
        monkeypatch.setattr(mqtt, "ANSWER_S", 0.1)
    data = NONSENSE[what].replace(b"%s", CONNACK[version])
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                client.recv(1000)
                client.sendall(data)
                client.recv(1000)
                client.close()

    threading.Thread(target=serve, daemon=True).start()
    peer = Peer(server.getsockname()[1], version).start()
    if connects:
        peer.up()  # and what follows lies in the socket already
    else:
        peer.pump(lambda: peer.of(LinkDown))
        assert not peer.of(LinkUp)
    for _ in range(5):
        peer.transport.wait(0.02)
    peer.transport.close()
    server.close()
