"""What crosses the bridge, against the one table of topics: neither can change alone."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from ddnn.protocol.messages import MAX_MESSAGE_BYTES
from ddnn.protocol.topics import EVERYWHERE, ROOT, Kind, topic_filter
from tests.deployment.composed import ROOT as REPOSITORY

SITE = "home"
USERS = "/tmp/users"  # noqa: S108  of a container: memory of its own
UP = {
    Kind.UPLINK,
    Kind.ANSWER,
    Kind.BACKLOG,
    Kind.STATUS,
    Kind.STATS,
    Kind.OFFLOAD,
    Kind.TRAIN_STATE,
}
DOWN = {Kind.VERDICT, Kind.ACK, Kind.THRESHOLDS}
LAN_ONLY = {
    Kind.CLAIM,
    Kind.LATEST,
    Kind.REACH,
    Kind.SCORES,
    Kind.FEATURES,
    Kind.ESCALATE,
    Kind.ANSWERED,
    Kind.PACE,
    Kind.TIME_REQUEST,
    Kind.TIME_REPLY,
    Kind.TASK,
    Kind.RESULT,
    Kind.OFFER,
    Kind.ASSIGN,
    Kind.TRAIN_OFFER,
    Kind.TRAIN_COMMAND,
    Kind.TRAIN_REPLY,
    Kind.TRAIN_REPORT,
    Kind.TRAIN_FLOW,
    Kind.TRAIN_FETCH,
    Kind.TRAIN_PART,
    Kind.RECORD_ORDER,
    Kind.RECORD_STATE,
    Kind.RECORD_CHUNK,
    Kind.RECORD_ACK,
    Kind.BUNDLE_ORDER,
    Kind.BUNDLE_PART,
    Kind.BUNDLE_STATE,
}
CLOUDS = topic_filter(Kind.STATUS, EVERYWHERE)


def conf(broker: str) -> list[list[str]]:
    lines = (REPOSITORY / "mosquitto" / f"{broker}.conf").read_text().splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def read_bridge_topics() -> dict[tuple[str, str], int]:
    """(filter, direction) -> QoS, of every topic line; both ends name the topic alike."""
    lines: dict[tuple[str, str], int] = {}
    for key, *words in conf("edge"):
        if key == "topic":
            pattern, direction, qos, here, there = words
            assert here == there
            lines[here + pattern, direction] = int(qos)
    return lines


def commands(kind: Kind) -> str:
    """One line serves all commands, those of later kinds too."""
    return re.sub(r"/cmd/.*", "/cmd/#", topic_filter(kind, SITE))


def test_every_kind_has_its_place():
    assert {*Kind} == UP | DOWN | LAN_ONLY
    assert len(UP) + len(DOWN) + len(LAN_ONLY) == len(Kind)


def test_the_bridge_is_the_table():
    expected = {(topic_filter(kind, SITE), "out"): kind.value.qos for kind in UP}
    expected |= {(commands(kind), "in"): kind.value.qos for kind in DOWN}
    expected[CLOUDS, "in"] = Kind.STATUS.value.qos
    assert read_bridge_topics() == expected


def fits(filter_: str, topic: str) -> bool:
    pattern = re.escape(filter_).replace(r"\+", "[^/]+").replace(r"\#", ".+")
    return re.fullmatch(pattern.replace("#", ".+"), topic) is not None


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_crosses_one_way_or_not_at_all(kind):
    topic = topic_filter(kind, SITE).replace("+", "node-1")
    ways = [
        direction
        for (filter_, direction), _ in read_bridge_topics().items()
        if fits(filter_, topic)
    ]
    assert ways == (["out"] if kind in UP else ["in"] if kind in DOWN else [])
    assert not any(fits(f, topic.replace(f"/{SITE}/", "/other/")) for f, _ in read_bridge_topics())


@pytest.mark.parametrize("broker", ["edge", "cloud"])
def test_a_broker_takes_the_largest_message_from_users_only(broker):
    lines = conf(broker)
    assert ["message_size_limit", str(MAX_MESSAGE_BYTES)] in lines
    assert ["allow_anonymous", "false"] in lines
    assert [words[1] for words in lines if words[0] == "password_file"] == [USERS]
    assert ["persistence", "true"] in lines
    assert [words for words in lines if words[0] == "listener"] == [["listener", "1883"]]
    limits = {words[0] for words in lines}
    assert {"max_inflight_messages", "max_queued_messages", "max_queued_bytes"} <= limits


def test_start_sh_puts_in_site_broker_and_password(tmp_path: Path):
    script = (REPOSITORY / "mosquitto" / "start.sh").read_text()
    script = script.replace("/mosquitto/config/", f"{REPOSITORY}/mosquitto/")
    script = script.replace("/run/secrets/", f"{tmp_path}/").replace(">/tmp/", f">{tmp_path}/")
    script = script.replace("exec mosquitto -c /tmp/", f"exec cat {tmp_path}/")
    for secret in ("mqtt_edge_users", "mqtt_health", "mqtt_bridge"):
        (tmp_path / secret).write_text(f"{secret}-content\n")
    given = {"DDNN_SITE": "garden", "DDNN_CLOUD_BROKER": "10.0.0.1:1884", "PATH": os.defpath}
    done = subprocess.run(
        ["/bin/sh", "-c", script, "start.sh", "edge"],
        env=given,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    lines = done.stdout.splitlines()
    plain = (REPOSITORY / "mosquitto" / "edge.conf").read_text().replace("home", "garden")
    assert lines[:-1] == plain.replace("mosquitto-cloud:1883", "10.0.0.1:1884").splitlines()
    assert lines[-1] == "remote_password mqtt_bridge-content"
    for file in ("users", "mosquitto_sub", "mosquitto.conf"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_the_sites_name_stands_in_the_bridge_alone():
    """Where start.sh puts another site's name."""
    places = [words for words in conf("edge") if any("home" in word for word in words)]
    assert {words[0] for words in places} == {"connection", "remote_clientid", "topic"}
    assert ROOT in str(places)
    assert not any("home" in word for words in conf("cloud") for word in words)
