"""Wrong hosts and ports, and brokers that send nonsense: a transport tries again, never raises."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from pathlib import Path

import pytest

from ddnn.adapters import mqtt, mqtt_link
from ddnn.adapters.broker import free_port
from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import ConfigError
from ddnn.runtime.site_identity import Broker, parse_broker
from ddnn.runtime.transport import LinkDown, LinkUp
from tests.contracts.transport_peers import Peer, RunningBroker

pytestmark = pytest.mark.usefixtures("endless_waits")


def test_a_port_where_nothing_listens_is_tried_again() -> None:
    peer = Peer(free_port(), "auto").start()
    peer.pump(lambda: len(peer.list_events(LinkDown)) >= 3)
    peer.transport.close(("contract/x", b"never said"))  # at once: FAREWELL_S is long
    assert len(peer.list_events(LinkUp)) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_where_a_broker_is_gone_the_next_address_is_used(
    how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is frozen accepts connections, and then says nothing."""
    monkeypatch.setattr(mqtt_link, "ANSWER_S", 0.3)
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, second = (RunningBroker("mosquitto", tmp_path / name) for name in ("first", "second"))
    addresses = [f"127.0.0.1:{broker.port}" for broker in (first, second)]
    try:
        peer = Peer(first.port, "auto", others=[parse_broker(addresses[1])]).start()
        peer.wait_up()
        assert peer.transport.broker == addresses[0]
        first.signal(how)
        peer.wait_up(2)
        assert peer.transport.broker == addresses[1]
        second.signal(signal.SIGKILL)
        if how == signal.SIGSTOP:
            first.signal(signal.SIGCONT)
        else:
            first.start_again()
        peer.wait_up(3)
        assert peer.transport.broker == addresses[0]
        peer.transport.close()
    finally:
        first.fleet.close()
        second.fleet.close()


@pytest.mark.parametrize("host", ["", "a" * 64, "no..host", "no-such-host.invalid"])
def test_a_host_that_cannot_exist_is_tried_again(host: str) -> None:
    peer = Peer(1883, "auto", host).start()
    peer.pump(lambda: len(peer.list_events(LinkDown)) >= 2)
    peer.transport.close()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 65535"):
        MqttTransport("x", [Broker("127.0.0.1", port)])


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
def test_a_broker_that_sends_nonsense_raises_nothing(
    what: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link ends, or goes on without that message; nothing escapes into the node's thread."""
    connects = what.startswith(("a ", "QoS"))
    if not connects:
        monkeypatch.setattr(mqtt_link, "ANSWER_S", 0.1)
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
        peer.wait_up()  # and what follows lies in the socket already
    else:
        peer.pump(lambda: peer.list_events(LinkDown))
        assert not peer.list_events(LinkUp)
    for _ in range(5):
        peer.transport.wait(0.02)
    peer.transport.close()
    server.close()
