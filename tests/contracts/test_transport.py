"""One contract for every way to a broker: MQTT 5 and 3.1.1, chosen or found out, on each broker."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddnn.adapters import mqtt, mqtt_link
from ddnn.adapters.broker import free_port
from ddnn.runtime.transport import Arrived, LinkDown, LinkUp
from tests.contracts.transport_peers import NEVER_S, SLACK_S, Observer, Peer, RunningBroker, Wire

pytestmark = pytest.mark.usefixtures("endless_waits")

PAIRS = [
    ("mosquitto", "auto"),
    ("mosquitto", "5"),
    ("mosquitto", "3.1.1"),
    ("embedded", "auto"),
    ("embedded", "3.1.1"),
]


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
        monkeypatch.setattr(mqtt_link, "ANSWER_S", 1.0)  # amqtt says nothing at all to MQTT 5
    return brokers(pair[0])


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


@pytest.fixture
def observe(broker: RunningBroker) -> Iterator[Callable[[str], Observer]]:
    observers: list[Observer] = []

    def start(topic: str) -> Observer:
        observers.append(Observer(broker.port, topic))
        return observers[-1]

    yield start
    for observer in observers:
        observer.close()


@pytest.fixture
def wire(broker: RunningBroker) -> Iterator[Wire]:
    wire = Wire(broker.port)
    yield wire
    wire.close()


def test_messages_arrive_whole_and_in_order(connect: Callable[..., Peer]) -> None:
    peer = connect().subscribe_all()
    payloads = [b"", bytes(range(256)), b"x" * 100_000]
    for qos in (0, 1):
        for payload in payloads:
            peer.transport.publish(f"{peer.topic}/in/{qos}", payload, qos, False)
    peer.transport.publish(f"{peer.topic}/elsewhere", b"not asked for", 1, False)
    peer.transport.publish(f"{peer.topic}/other", b"last", 1, False)
    peer.pump(lambda: len(peer.list_payloads()) >= 7)
    assert peer.list_events(Arrived) == [
        *(Arrived(f"{peer.topic}/in/{qos}", payload) for qos in (0, 1) for payload in payloads),
        Arrived(f"{peer.topic}/other", b"last"),
    ]
    sent = [b"%d" % number for number in range(600)]
    peer.events.clear()
    for number, payload in enumerate(sent):
        peer.transport.publish(f"{peer.topic}/in/many", payload, 1 if number >= 500 else 0, False)
        if number % 50 == 0:
            peer.transport.wait(0.0)
    peer.pump(lambda: len(peer.list_payloads()) >= len(sent), 20)
    assert peer.list_payloads() == sent
    assert len(peer.list_events(LinkDown)) == 0


def test_a_retained_message_reaches_later_subscribers(
    connect: Callable[..., Peer], observe: Callable[[str], Observer]
) -> None:
    first = connect()
    observer = observe(f"{first.topic}/in/#")
    first.wait_up()
    topic = f"{first.topic}/in/kept"
    for payload in (b"old", b"new"):
        first.transport.publish(topic, payload, 1, True)
    first.transport.publish(f"{first.topic}/in/passing", b"gone", 1, False)
    assert [observer.next(first)[1] for _ in range(3)] == [b"old", b"new", b"gone"]
    later = connect()
    later.wait_up()
    later.transport.subscribe([f"{first.topic}/in/#"])
    later.pump(lambda: later.list_payloads())
    assert later.list_events(Arrived) == [Arrived(topic, b"new")]
    first.transport.publish(topic, b"", 1, True)
    assert observer.next(first)[1] == b""


def test_every_connection_has_a_session_and_a_will_of_its_own(
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
        sessions.append(peer.wait_up(number))
        down = len(peer.list_events(LinkDown))
        wire.cut()
        peer.pump(lambda before=down: len(peer.list_events(LinkDown)) > before)
        topic, payload, _ = observer.next(peer)
        assert (topic, payload) == (f"{peer.topic}/will", b"lost %d" % sessions[-1])
    assert sessions[0] != sessions[1]
    peer.wait_up(3)
    late = observe(f"{peer.topic}/#")  # the Will is retained for later subscribers
    assert late.next(peer) == (f"{peer.topic}/will", b"lost %d" % sessions[1], True)


def test_clients_may_connect_and_subscribe_at_the_same_time(
    connect: Callable[..., Peer], observe: Callable[[str], Observer], broker: RunningBroker
) -> None:
    """All nodes of a site start at once, while there are retained messages."""
    peer = connect().subscribe_all()
    # amqtt never answers one or two of some thousand connections, more of them on a busy machine.
    count = 12 if broker.kind == "embedded" else 40
    topics = [f"{peer.topic}/in/{number}" for number in range(count)]
    for topic in topics:
        peer.transport.publish(topic, b"retained", 1, True)
    peer.pump(lambda: len(peer.list_payloads()) >= len(topics))
    with ThreadPoolExecutor(4) as pool:
        observers = list(pool.map(observe, topics))
    for topic, observer in zip(topics, observers, strict=True):
        assert observer.next() == (topic, b"retained", True)
    again = sum(observer.connections - 1 for observer in observers)
    assert again <= (1 if broker.kind == "embedded" else 0)


def test_close_publishes_the_last_words_and_not_the_will(
    connect: Callable[..., Peer], observe: Callable[[str], Observer]
) -> None:
    peer = connect()
    peer.wait_up()
    observer = observe(f"{peer.topic}/#")
    peer.transport.close((f"{peer.topic}/will", b"stopped"))  # at once: FAREWELL_S is long
    assert observer.next()[:2] == (f"{peer.topic}/will", b"stopped")
    assert observe(f"{peer.topic}/#").next() == (f"{peer.topic}/will", b"stopped", True)
    with pytest.raises(queue.Empty):  # no Will follows
        observer.messages.get(timeout=0.3)
    peer.transport.close()  # again: nothing happens


def test_the_transport_reconnects_after_a_broker_is_killed(
    connect: Callable[..., Peer], broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", NEVER_S)  # it is noticed without it
    peer = connect().subscribe_all()
    first = peer.wait_up()
    peer.events[:] = peer.list_events(LinkUp)
    broker.signal(signal.SIGKILL)
    peer.pump(lambda: peer.list_events(LinkDown))
    peer.transport.publish(f"{peer.topic}/in/x", b"while it was away", 1, False)
    peer.transport.subscribe([f"{peer.topic}/in/nobody-hears-this"])
    peer.pump(lambda: len(peer.list_events(LinkDown)) >= 3)  # it keeps trying
    broker.start_again()
    assert peer.wait_up(2) != first
    peer.transport.subscribe([f"{peer.topic}/in/#"])
    peer.transport.publish(f"{peer.topic}/in/x", b"after", 1, False)
    peer.pump(lambda: peer.list_payloads())
    assert peer.list_payloads() == [b"after"]  # what was said without a connection is dropped


def test_a_stopped_broker_is_noticed_and_blocks_no_call(
    connect: Callable[..., Peer], broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mqtt.KEEPALIVE_S <= 5  # so that a real one is noticed within 10 s
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    monkeypatch.setattr(mqtt_link, "FAREWELL_S", 0.3)
    peer, closing = connect(), connect()
    first = peer.wait_up()
    closing.wait_up()
    peer.events[:] = peer.list_events(LinkUp)
    broker.signal(signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        for _ in range(200):  # 10 MB: more than any socket buffer holds
            peer.transport.publish(f"{peer.topic}/in/x", bytes(50_000), 0, False)
        peer.transport.publish(f"{peer.topic}/in/x", b"x", 1, False)
        closing.transport.close(("contract/stopped", b"stopped"))
        assert time.monotonic() - stopped_s < mqtt_link.FAREWELL_S + SLACK_S
        peer.pump(
            lambda: peer.list_events(LinkDown),
            2 * mqtt.KEEPALIVE_S + 2 * mqtt_link.MISC_S + SLACK_S,
        )
    finally:
        broker.signal(signal.SIGCONT)
    assert peer.wait_up(2) != first


def test_publishing_without_a_connection_is_harmless(connect: Callable[..., Peer]) -> None:
    for peer in (Peer(free_port(), "auto"), connect()):
        peer.transport.publish("contract/x", b"x", 1, True)
        peer.transport.subscribe(["contract/#"])
        peer.transport.close(("contract/x", b"never said"))
        assert peer.list_events(LinkUp) == []
