"""A real edge announces its site to Home Assistant; templates show what real nodes publish."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ddnn.protocol.codec import decode
from ddnn.protocol.node_messages import Latest
from ddnn.protocol.topics import Kind, Topic, parse, topic_filter
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet
from tests.integration.site import Voice, mosquitto, start_node

pytestmark = pytest.mark.timed

PREFIX = "homeassistant"
# The keys that Home Assistant knows of these components, as its documentation names them.
COMMON = {
    "availability",
    "availability_mode",
    "device",
    "entity_category",
    "name",
    "origin",
    "state_topic",
    "unique_id",
    "value_template",
}
KNOWN = {
    "sensor": COMMON | {"expire_after", "unit_of_measurement", "state_class"},
    "binary_sensor": COMMON | {"device_class", "payload_on", "payload_off"},
}
NEEDED = {"state_topic", "unique_id", "device", "name", "value_template"}


def read_retained(port: int) -> dict[str, dict[str, Any]]:
    """The discovery messages that a Home Assistant started now would find."""
    late = Voice(port)
    try:
        late.announce("mark", "device")  # comes after what is retained
        late.wait_until(lambda: late.list_payloads(str(Topic("home", Kind.STATUS, "mark"))))
        return {t: json.loads(p) for t, p, r in late.heard if r and t.startswith(PREFIX)}
    finally:
        late.close()


def read_all_retained(port: int) -> dict[str, dict[str, Any]]:
    """The discovery messages once all of them have arrived, else nothing."""
    found = read_retained(port)
    return found if any("/cloud/" in topic for topic in found) else {}


def render(template: str, payload: bytes) -> str:
    environment = ImmutableSandboxedEnvironment()
    return environment.from_string(template).render(value_json=json.loads(payload)).strip()


def test_a_site_in_home_assistant(
    port: int, voice: Voice, fleet: Fleet, scenes_bundle: Path, tmp_path: Path
) -> None:
    manifest, _ = read_manifest(scenes_bundle)
    start_node(
        fleet,
        "edge",
        "edge",
        port,
        scenes_bundle,
        "--home-assistant",
        PREFIX,
        "--state",
        str(tmp_path / "edge"),
    )
    start_node(
        fleet,
        "device",
        "cam1",
        port,
        scenes_bundle,
        "--source",
        "dataset:scenes",
        "--state",
        str(tmp_path / "cam1"),
    )
    expected = 3 + len(manifest.hierarchy.devices) + 2  # of the last answer; nodes, edge, cloud
    configs = voice.wait_until(lambda: read_all_retained(port))
    assert len(configs) == expected

    for topic, config in configs.items():
        prefix, component, owner, _, last = topic.split("/")
        assert (prefix, owner, last) == (PREFIX, "ddnn-home", "config")
        assert NEEDED <= set(config) <= KNOWN[component], config
        assert set(config["device"]) == {
            "identifiers",
            "name",
            "manufacturer",
            "model",
            "sw_version",
        }
        parse(config["state_topic"].replace("+", "edge"))  # one of the table's
        for entry in config.get("availability", []):
            assert parse(entry["topic"]).kind is Kind.STATUS
            assert set(entry) == {"topic", "value_template"}
    assert len({config["unique_id"] for config in configs.values()}) == expected
    assert len({json.dumps(config["device"]) for config in configs.values()}) == 1

    result = str(Topic("home", Kind.LATEST, "edge"))
    voice.wait_until(lambda: len(voice.list_payloads(result)) > 2)
    answers = voice.list_payloads(str(Topic("home", Kind.ANSWER, "edge")))
    assert len(answers) > 2 * len(voice.list_payloads(result))  # at most one a second
    sensor = {
        name: configs[f"{PREFIX}/sensor/ddnn-home/{name}/config"]
        for name in ("label", "exit", "confidence")
    }
    for payload in voice.list_payloads(result):
        answer = decode(Kind.LATEST, payload)
        assert isinstance(answer, Latest)
        shown = {name: render(config["value_template"], payload) for name, config in sensor.items()}
        assert shown["label"] == manifest.classes[answer.label]
        assert shown["exit"] == answer.exit
        assert int(shown["confidence"]) == answer.confidence_percent
    assert {config["state_topic"] for config in sensor.values()} == {
        topic_filter(Kind.LATEST, "home")
    }

    presence = configs[f"{PREFIX}/binary_sensor/ddnn-home/node-cam1/config"]
    says = presence["value_template"]
    topic = presence["state_topic"]
    assert render(says, voice.list_payloads(topic)[-1]) == presence["payload_on"]
    cloud = configs[f"{PREFIX}/binary_sensor/ddnn-home/cloud/config"]

    def render_cloud() -> str:
        said = voice.list_payloads(cloud["state_topic"])
        return render(cloud["value_template"], said[-1]) if said else ""

    voice.wait_until(lambda: render_cloud() == cloud["payload_off"])
    fleet.send_signal("cam1", signal.SIGKILL)
    voice.wait_until(lambda: b"lost" in voice.list_payloads(topic)[-1])  # its Last Will
    assert render(says, voice.list_payloads(topic)[-1]) == presence["payload_off"]
    voice.announce("cloud-7f3a", "cloud")  # no sample waits for it, which would be in vain
    voice.wait_until(lambda: render_cloud() == cloud["payload_on"])


def test_it_is_off_unless_asked_for(
    port: int, voice: Voice, fleet: Fleet, scenes_bundle: Path, tmp_path: Path
) -> None:
    start_node(fleet, "edge", "edge", port, scenes_bundle, "--state", str(tmp_path / "edge"))
    stats = str(Topic("home", Kind.STATS, "edge"))
    voice.wait_until(lambda: voice.list_payloads(stats))  # well after it connected
    assert read_retained(port) == {}


def test_it_is_sent_again_to_a_broker_that_has_forgotten(
    fleet: Fleet, scenes_bundle: Path, tmp_path: Path
) -> None:
    def read_discovery(port: int) -> dict[str, dict[str, Any]]:
        voice = Voice(port)
        try:
            return dict(voice.wait_until(lambda: read_all_retained(port)))
        finally:
            voice.close()

    with mosquitto(tmp_path, "allow_anonymous true") as port:
        start_node(
            fleet,
            "edge",
            "edge",
            port,
            scenes_bundle,
            "--home-assistant",
            PREFIX,
            "--state",
            str(tmp_path / "edge"),
        )
        before = read_discovery(port)
    with mosquitto(tmp_path, "allow_anonymous true", port=port):
        assert read_discovery(port) == before
