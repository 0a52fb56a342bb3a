"""`ddnn status` shows which nodes are online and which exits answer, and nothing outdated."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddnn.adapters.broker import free_port, wait_until_listening
from ddnn.cli.observer import ObserverSettings
from ddnn.cli.site_observer import SiteObserver, observe_site
from ddnn.protocol.messages import Stats
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet
from tests.integration.commands import run
from tests.integration.site import (
    IN_TIME_S,
    PASSWORD,
    USER,
    Voice,
    mosquitto,
    start_node,
    write_password,
    write_picture,
)
from tests.parts import MOSQUITTO, need_mosquitto


def report(ddnn: list[str], port: int, *flags: str) -> dict[str, Any]:
    done = run([*ddnn, "status", "--broker-port", str(port), "--json", *flags])
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def index_nodes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["node"]: node for node in found["nodes"]}


def wait_until(observer: SiteObserver, condition: Callable[[], Any]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not condition():
        assert time.monotonic() < until_s, observer.make_report()
        observer.wait(0.05)


# ------------------------------------------------------------------- a real site


def test_a_real_site(
    ddnn: list[str], port: int, voice: Voice, scenes_bundle: Path, tmp_path: Path
) -> None:
    """Nodes, counts and exits; then one node that was killed and one that was stopped."""
    fleet = Fleet(tmp_path / "logs")
    (tmp_path / "pictures").mkdir()
    camera = ("--source", write_picture(tmp_path / "pictures"))
    try:
        for app, node, *flags in (
            ("edge", "edge"),
            ("device", "cam1", *camera),
            ("device", "cam2", *camera),
        ):
            state = ("--state", str(tmp_path / node))
            start_node(fleet, app, node, port, scenes_bundle, *state, *flags)
        result = str(Topic("home", Kind.ANSWER, "edge"))
        voice.wait_until(lambda: len(voice.list_payloads(result)) > 5)
        found = report(ddnn, port, "--for-s", "50")
        bundle = read_manifest(scenes_bundle)[1]
        assert {(n["node"], n["role"], n["presence"], n["bundle"]) for n in found["nodes"]} == {
            ("edge", "edge", "online", bundle),
            ("cam1", "device", "online", bundle),
            ("cam2", "device", "online", bundle),
        }
        for node in found["nodes"]:
            assert 0 <= node["heard_age_s"] < IN_TIME_S
            assert node["uptime_s"] > 0
            assert node["memory_bytes"] > 1 << 20
        exits = found["exits"]
        assert exits  # at least one exit answers
        assert sum(exit_["share"] for exit_ in exits.values()) == pytest.approx(1, abs=1e-3)
        assert all(exit_["latency_p50_s"] > 0 for exit_ in exits.values())
        assert sum(exit_["degraded"] for exit_ in exits.values()) > 0  # four cameras are missing
        assert found["last_answer_age_s"] < IN_TIME_S
        assert 2 <= found["listened_s"] < 25  # it ends once all nodes have sent statistics

        fleet.send_signal("cam1", signal.SIGKILL)
        fleet.send_signal("cam2", signal.SIGTERM)
        states = [str(Topic("home", Kind.STATUS, node)) for node in ("cam1", "cam2")]
        voice.wait_until(
            lambda: all(b"online" not in voice.list_payloads(topic)[-1] for topic in states)
        )
        nodes = index_nodes(report(ddnn, port))
        assert (nodes["cam1"]["presence"], nodes["cam2"]["presence"]) == ("lost", "stopped")
        done = run([*ddnn, "status", "--broker-port", str(port)])
        assert f"site home at 127.0.0.1:{port}: 1 of 3 nodes online" in done.stdout
        lines = done.stdout.splitlines()
        assert [line.split()[:3] for line in lines[2:5]] == [
            ["cam1", "device", "lost"],
            ["cam2", "device", "stopped"],
            ["edge", "edge", "online"],
        ]
    finally:
        fleet.close()


# -------------------------------------------------------------------- absent nodes


def test_a_site_without_nodes(ddnn: list[str], port: int) -> None:
    done = run([*ddnn, "status", "--broker-port", str(port), "--site", "shop", "--for-s", "1"])
    assert done.returncode == 0
    assert "no node was announced; start a node, or correct --site" in done.stdout
    assert "site shop" in done.stdout
    found = report(ddnn, port, "--for-s", "0.5")
    assert (found["nodes"], found["exits"], found["last_answer_age_s"]) == ([], {}, None)


def test_one_site_or_every_site_is_shown(ddnn: list[str], port: int) -> None:
    for site in ("home", "shop"):
        voice = Voice(port, site)
        voice.announce(f"cam-{site}", "device")
        voice.close()
    cloud = Voice(port, "all")
    cloud.announce("cloud", "cloud")
    cloud.close()
    assert set(index_nodes(report(ddnn, port, "--for-s", "1"))) == {"cam-home", "cloud"}
    everyone = index_nodes(report(ddnn, port, "--for-s", "1", "--site", "all"))
    assert set(everyone) == {"cam-home", "cam-shop", "cloud"}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--for-s", "0"), 2, "--for-s"),
        (("--watch", "--json"), 2, "--watch"),
        (("--site", "Home!"), 2, "Home!"),
        (("--broker-host", "broker.invalid"), 8, "cannot be reached"),
        ((), 8, "cannot be reached"),
    ],
)
def test_what_cannot_be_shown(
    ddnn: list[str], flags: tuple[str, ...], code: int, words: str
) -> None:
    done = run([*ddnn, "status", "--broker-port", str(free_port()), *flags])
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    if code == 8:
        assert "ddnn doctor" in done.stderr


def test_users_and_passwords(ddnn: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    with mosquitto(tmp_path, *write_password(tmp_path)) as port:
        flags = ("--broker-user", USER, "--broker-password-file", str(secret), "--for-s", "0.5")
        assert report(ddnn, port, *flags)["connected"]
        done = run([*ddnn, "status", "--broker-port", str(port)])
        assert done.returncode == 8
        assert "Not authorized" in done.stderr


# ------------------------------------------------------------- presence cannot lie


def test_a_late_will_changes_nothing(port: int, voice: Voice) -> None:
    """The Last Will of a replaced connection, and then that of the present one."""
    with observe_site(ObserverSettings(broker_port=port)) as observer:
        voice.announce("cam1", "device", session=2)
        wait_until(observer, lambda: index_nodes(observer.make_report()).get("cam1"))
        voice.announce("cam1", "device", "lost", session=1)
        voice.announce("mark", "device")
        wait_until(
            observer, lambda: index_nodes(observer.make_report()).get("mark")
        )  # the Will arrived before it
        assert index_nodes(observer.make_report())["cam1"]["presence"] == "online"
        voice.announce("cam1", "device", "lost", session=2)
        wait_until(
            observer, lambda: index_nodes(observer.make_report())["cam1"]["presence"] == "lost"
        )


def test_a_silent_node_is_not_shown_as_online(port: int, voice: Voice) -> None:
    with observe_site(ObserverSettings(broker_port=port)) as observer:
        observer.silent_s = 0.4
        voice.announce("cam1", "device")
        wait_until(
            observer,
            lambda: index_nodes(observer.make_report()).get("cam1", {}).get("presence") == "silent",
        )
        (seen,) = observer.nodes.values()
        before_s = seen.heard_s
        voice.say(Kind.STATS, "cam1", Stats("device", 5.0, 1 << 20, {"frames_skipped": 3}))
        counts = {"frames_skipped": 3}
        wait_until(
            observer, lambda: index_nodes(observer.make_report())["cam1"]["counts"] == counts
        )
        assert seen.heard_s is not None
        assert before_s is None or seen.heard_s >= before_s + 0.4
        observer.silent_s = IN_TIME_S
        assert index_nodes(observer.make_report())["cam1"]["presence"] == "online"


def test_texts_of_peers_cannot_control_the_terminal(
    ddnn: list[str], port: int, voice: Voice
) -> None:
    voice.announce(
        "cam1", "device", version="\x1b[2J\x1b]0;gone\x07" + "x" * 400, bundle="\x1b[31m"
    )
    done = run([*ddnn, "status", "--broker-port", str(port), "--for-s", "0.5"])
    assert "cam1" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 200


# --------------------------------------------------------------------------- watch


def test_watch_reports_that_the_broker_is_away_and_recovers(
    ddnn: list[str], tmp_path: Path
) -> None:
    need_mosquitto()
    port = free_port()
    conf = tmp_path / "broker.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    fleet = Fleet(tmp_path / "logs")
    fleet.start("broker", [str(MOSQUITTO), "-c", str(conf)])
    command = [*ddnn, "status", "--watch", "--broker-port", str(port)]
    watching = None
    try:
        wait_until_listening(port)
        voice = Voice(port)
        voice.announce("cam1", "device")
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None

        def read_next(words: str) -> str:
            until_s = time.monotonic() + IN_TIME_S
            while time.monotonic() < until_s:
                line = watching.stdout.readline()
                if words in line:
                    return line
            pytest.fail(f"not printed: {words}")

        assert "online" in read_next("cam1")
        voice.close()
        fleet.send_signal("broker", signal.SIGKILL)
        read_next("the broker is away")
        assert "unknown" in read_next("cam1")
        fleet.start("broker")
        read_next(
            "no node was announced"
        )  # the broker lost its state; no old node is shown as present
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    finally:
        if watching is not None and watching.poll() is None:
            watching.kill()
        fleet.close()


def test_watch_draws_a_table_in_a_terminal(ddnn: list[str], port: int, voice: Voice) -> None:
    voice.announce("cam1", "device", version="1.2.3")
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [*ddnn, "status", "--watch", "--broker-port", str(port)],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "140"},
    )
    os.close(theirs)
    try:
        seen, until_s = b"", time.monotonic() + IN_TIME_S
        while b"cam1" not in seen and time.monotonic() < until_s:
            seen += os.read(ours, 4096)
        assert b"online" in seen
        assert b"\x1b[" in seen  # redrawn in place, in colour
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        os.close(ours)
