"""What a broker refuses is reported: topics by its access list, and packets by their size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddnn.runtime.transport import LinkDown, Refused
from tests.contracts.transport_peers import Peer
from tests.integration.site import mosquitto

LIMIT = 4096


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def open_peer(stack: contextlib.ExitStack, directory: Path, version: str, *lines: str) -> Peer:
    port = stack.enter_context(mosquitto(directory, "allow_anonymous true", *lines))
    peer = Peer(port, version).start()
    stack.callback(peer.transport.close)
    peer.wait_up()
    return peer


def test_a_topic_that_may_not_be_written_is_named(
    peers: contextlib.ExitStack, tmp_path: Path
) -> None:
    (tmp_path / "acl").write_text("topic readwrite contract/#\ntopic deny contract/no\n")
    peer = open_peer(peers, tmp_path, "5", f"acl_file {tmp_path / 'acl'}")
    for topic in ("contract/no", "contract/yes", "elsewhere"):
        peer.transport.publish(topic, b"x", 1, False)
    peer.pump(lambda: len(peer.list_events(Refused)) >= 2)
    assert [(r.action, r.topic, r.too_large) for r in peer.list_events(Refused)] == [
        ("publish", "contract/no", False),
        ("publish", "elsewhere", False),
    ]
    assert "authorized" in peer.list_events(Refused)[0].reason


def test_an_announced_limit_is_honoured(peers: contextlib.ExitStack, tmp_path: Path) -> None:
    peer = open_peer(peers, tmp_path, "5", f"max_packet_size {LIMIT}")
    assert peer.transport.max_packet_bytes == LIMIT
    heading = len(f"{peer.topic}/in/x") + 8  # fixed header, lengths, id, properties
    peer.subscribe_all()
    for qos in (0, 1):
        peer.transport.publish(f"{peer.topic}/in/x", bytes(LIMIT), qos, False)
        peer.transport.publish(f"{peer.topic}/in/x", bytes(LIMIT - heading), qos, False)
    peer.pump(lambda: len(peer.list_payloads()) >= 2)
    assert [len(payload) for payload in peer.list_payloads()] == [LIMIT - heading] * 2
    assert [refused.too_large for refused in peer.list_events(Refused)] == [True] * 2
    assert peer.list_events(LinkDown) == []


@pytest.mark.parametrize(
    ("version", "setting"),
    [("5", "message_size_limit"), ("3.1.1", "max_packet_size")],
)
def test_a_limit_that_is_not_announced_is_learned(
    peers: contextlib.ExitStack, tmp_path: Path, version: str, setting: str
) -> None:
    """MQTT 3.1.1 has no word for it, and Mosquitto 2.0.11 says it in MQTT 5 as it may not be said:
    the connection ends after each such packet."""
    peer = open_peer(peers, tmp_path, version, f"{setting} {LIMIT}")
    for number in (1, 2):
        peer.wait_up(number)
        assert peer.transport.max_packet_bytes is None
        peer.transport.publish(f"{peer.topic}/in/x", bytes(2 * LIMIT), 1, False)
        peer.pump(lambda number=number: len(peer.list_events(LinkDown)) >= number)
    peer.wait_up(3)
    assert LIMIT < (peer.transport.max_packet_bytes or 0) < 2 * LIMIT + 40
