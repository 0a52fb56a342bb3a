"""What systemd hears of a service, over real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddnn.adapters.systemd import Notifier

LIMIT_S = 5.0


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd's, and what NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@ddnn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(LIMIT_S)
        receiver.bind(name.replace("@", "\0", 1))
        yield receiver, name


def test_each_word_is_one_datagram(listener: tuple[socket.socket, str]) -> None:
    receiver, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.notify_ready()
    notifier.watchdog()
    notifier.status("cam1:\n12 samples")  # a line break would start another assignment
    notifier.notify_stopping()
    heard = [receiver.recv(4096) for _ in range(4)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"STATUS=cam1: 12 samples", b"STOPPING=1"]


def test_a_start_that_works_is_given_more_time(listener: tuple[socket.socket, str]) -> None:
    """The watchdog begins when the node is ready; until then TimeoutStartSec guards it."""
    receiver, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.watchdog()
    notifier.notify_ready()
    notifier.watchdog()
    heard = [receiver.recv(4096) for _ in range(3)]
    assert heard == [b"EXTEND_TIMEOUT_USEC=30000000", b"READY=1", b"WATCHDOG=1"]


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000000"})
    notifier.notify_ready()
    notifier.notify_stopping()
    assert notifier.watchdog_every_s() is None


@pytest.mark.parametrize("address", ["/nowhere/notify", "@ddnn-nobody-listens", "vsock:2:3", "x"])
def test_a_manager_that_is_away_stops_nothing(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).notify_ready()


def test_a_manager_that_does_not_read_stops_nothing(listener: tuple[socket.socket, str]) -> None:
    """Its queue is full: a datagram is dropped, the node goes on."""
    receiver, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(2000):
        notifier.notify_ready()
    assert receiver.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    ("variables", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # meant for a parent of ours
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_per_timeout(
    variables: dict[str, str], every_s: float | None
) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/n", **variables}).watchdog_every_s() == every_s
