"""`ddnn doctor` names faults of the network, the broker and the clocks, and their remedies."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddnn.adapters.broker import free_port
from tests.integration.doctor_report import NETWORK, Doctor
from tests.integration.site import PASSWORD, USER, Voice, mosquitto, write_password

DATABASE = "sqlite:///:memory:"

# ----------------------------------------------------------------------- network


def test_a_name_that_cannot_be_resolved(doctor: Doctor) -> None:
    report = doctor("--broker-host", "broker.invalid", "--insecure")
    report.fails("name", 8, "'broker.invalid' cannot be resolved", "--broker-host")
    assert {report.outcome(check) for check in NETWORK[1:]} == {"skipped"}
    assert report.outcome("camera") == "ok"  # checks that need no broker run


def test_a_port_where_nothing_listens(doctor: Doctor) -> None:
    report = doctor(port=free_port())
    assert report.outcome("name") == "ok"
    report.fails("tcp", 8, "connection refused", "start the broker")
    assert {report.outcome(check) for check in NETWORK[2:]} == {"skipped"}


def test_one_address_of_two_is_enough(doctor: Doctor, tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        gone = f"127.0.0.1:{free_port()}"
        report = doctor("--broker-host", f"{gone},127.0.0.1:{port}")
    assert [report.outcome(check) for check in ("name", "tcp", "mqtt")] == ["ok", "warning", "ok"]
    report.assert_words("tcp", f"nothing listens on {gone}", "another address works")
    assert report.outcome("round trip") == "ok"


def test_what_the_broker_can_do(doctor: Doctor, tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 70000") as port:
        report = doctor(port=port)
        shared = doctor("--node", "cloud", "--share", "clouds", "--database", DATABASE, port=port)
    assert report.outcome("capabilities") == "ok"
    words = ("retained messages through wildcards", "packets of at most 70000 bytes")
    report.assert_words("capabilities", *words)
    assert shared.outcome("capabilities") == "ok"
    shared.assert_words("capabilities", *words, "shared subscriptions")


@pytest.fixture
def listener() -> Iterator[Callable[[bytes], int]]:
    """listener(words): a port that accepts connections and sends `words`, then nothing."""
    opened: list[socket.socket] = []

    def listen(words: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)

        def serve() -> None:
            try:
                while True:
                    client, _ = server.accept()
                    opened.append(client)
                    client.sendall(words)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield listen
    for opened_socket in opened:
        opened_socket.close()


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_of_another_service(
    doctor: Doctor, listener: Callable[[bytes], int], words: bytes
) -> None:
    """A port that sends nothing does not block the report."""
    started_s = time.monotonic()
    report = doctor(port=listener(words))
    assert time.monotonic() - started_s < 20
    assert report.outcome("tcp") == "ok"
    report.fails("mqtt", 8, "no MQTT broker", "--broker-port")
    assert report.rows["mqtt"]["took_s"] < 12


def test_users_and_passwords(doctor: Doctor, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(PASSWORD + "\n")
    wrong.write_text("a wrong secret 91c\n")
    with mosquitto(tmp_path, *write_password(tmp_path)) as port:
        as_user = ("--broker-user", USER, "--broker-password-file")
        report = doctor(*as_user, str(right), port=port)
        assert report.code == 0, report.rows
        report.assert_words("mqtt", f"as user {USER}")
        assert PASSWORD not in json.dumps(report.rows)
        for version in ("5", "3.1.1"):
            report = doctor(*as_user, str(wrong), "--mqtt", version, port=port)
            report.fails("mqtt", 8, "Not authorized", "mosquitto_passwd")
            assert "91c" not in json.dumps(report.rows)
        report = doctor(port=port)
        report.fails("mqtt", 8, "Not authorized", "requires a user", "--broker-password-file")
        assert report.outcome("round trip") == "skipped"


def test_an_access_list_that_forbids(doctor: Doctor, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite somewhere/else/#\n")
    with mosquitto(tmp_path, "allow_anonymous true", f"acl_file {acl}") as port:
        report = doctor(port=port)
        report.fails("round trip", 8, "did not come back", "access list", "ddnn/v1/home/#")
        acl.write_text("topic readwrite ddnn/v1/home/#\n")
    with mosquitto(tmp_path, "allow_anonymous true", f"acl_file {acl}") as port:
        assert doctor(port=port).outcome("round trip") == "ok"


# ------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("ahead_s", "outcome", "words"),
    [
        (3600.0, "failed", "3600.0 s behind the lead edge's"),
        (-7200.0, "failed", "7200.0 s ahead of the lead edge's"),
        (-5.0, "warning", "5.0 s ahead of the lead edge's"),
        (0.5, "warning", "ms behind the lead edge's"),
        (None, "warning", "does not answer time requests"),
    ],
)
def test_clocks_that_disagree(
    doctor: Doctor, port: int, voice: Voice, ahead_s: float | None, outcome: str, words: str
) -> None:
    voice.announce("edge", "edge")
    voice.clock_ahead_s = ahead_s
    report = doctor(port=port)
    assert report.outcome("clock") == outcome
    report.assert_words("clock", words)
    if outcome == "failed":
        report.fails("clock", 1, "set the clock")
    else:
        assert report.code == 0


def test_without_an_edge_there_is_no_clock_to_compare_with(
    doctor: Doctor, port: int, voice: Voice
) -> None:
    voice.announce("edge", "edge", "lost")
    report = doctor(port=port)
    assert report.outcome("clock") == "skipped"
    report.assert_words("clock", "no edge is online")
    assert report.code == 0


ACCESS = {
    # access list: what the check must name, and what it must not
    "topic readwrite ddnn/#": ("", ""),
    "topic write ddnn/#\ntopic read ddnn/v1/home/node/#": (
        "read ddnn/v1/home/answered/edge",
        "publish ",
    ),
    "topic readwrite ddnn/#\ntopic deny ddnn/v1/home/scores/cam1": (
        "publish ddnn/v1/home/scores/cam1",
        "read ",
    ),
}


@pytest.mark.parametrize("rights", ACCESS)
def test_a_partial_access_list_is_named(rights: str, doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(rights + "\n")
    with mosquitto(tmp_path, "allow_anonymous true", f"acl_file {tmp_path / 'acl'}") as port:
        report = doctor(port=port)
    words, others = ACCESS[rights]
    if not words:
        assert report.outcome("access") == "ok"
        return
    report.fails("access", 8, words, "access list")
    assert others not in report.rows["access"]["message"]
