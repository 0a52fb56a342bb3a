"""Wrong hosts and ports, and brokers that send nonsense: a transport tries again, never raises."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from ddnn.adapters import mqtt
from ddnn.adapters.broker import free_port
from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import ConfigError
from ddnn.runtime.transport import LinkDown, LinkUp
from tests.contracts.transport_peers import Peer

pytestmark = pytest.mark.usefixtures("endless_waits")


def test_a_port_where_nothing_listens_is_tried_again() -> None:
    peer = Peer(free_port(), "auto").start()
    peer.pump(lambda: len(peer.list_events(LinkDown)) >= 3)
    peer.transport.close(("contract/x", b"never said"))  # at once: FAREWELL_S is long
    assert len(peer.list_events(LinkUp)) == 0


@pytest.mark.parametrize("host", ["", "a" * 64, "no..host", "no-such-host.invalid"])
def test_a_host_that_cannot_exist_is_tried_again(host: str) -> None:
    peer = Peer(1883, "auto", host).start()
    peer.pump(lambda: len(peer.list_events(LinkDown)) >= 2)
    peer.transport.close()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
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
def test_a_broker_that_sends_nonsense_raises_nothing(
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
        peer.wait_up()  # and what follows lies in the socket already
    else:
        peer.pump(lambda: peer.list_events(LinkDown))
        assert not peer.list_events(LinkUp)
    for _ in range(5):
        peer.transport.wait(0.02)
    peer.transport.close()
    server.close()
