"""Discovery messages are valid in Home Assistant's format, whatever the classes are called."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ddnn.errors import ConfigError
from ddnn.protocol.codec import encode
from ddnn.protocol.home_assistant import MAX_STATE_CHARS, make_discovery, require_prefix
from ddnn.protocol.messages import Status
from ddnn.protocol.node_messages import CloudReach, Latest
from ddnn.protocol.topics import Kind, Topic

HOSTILE = [
    "car",
    'a "quoted" b',
    "it's",
    "{{ 7 * 7 }}",
    "}}{% for x in y %}",
    "{# gone #}",
    "back\\slash \\n \\u0041 \\",
    "zwei\nlines",
    "Grüße 😀",
    "</script>",
    "",
]


def make_payloads(**changes: Any) -> dict[str, dict[str, Any]]:
    """Discovery payloads by topic, as they are read from the wire."""
    given: dict[str, Any] = {
        "model": "scenes-e",
        "classes": ["car", "bus"],
        "edges": ["edge", "edge2"],
        "devices": ["cam1"],
        "version": "1.2.3",
        **changes,
    }
    messages = make_discovery("homeassistant", "home", **given)
    read = {topic: json.loads(msgspec.json.encode(payload)) for topic, payload in messages}
    assert len(read) == len(messages)
    return read


def render(template: str, payload: bytes) -> str:
    """As Home Assistant does: `value_json` is the message, and the result is stripped."""
    environment = ImmutableSandboxedEnvironment()
    return environment.from_string(template).render(value_json=json.loads(payload)).strip()


def latest(label: int) -> Latest:
    return Latest(label, "edge", 75)


def template(payloads: dict[str, dict[str, Any]], entity: str) -> str:
    return str(payloads[f"homeassistant/sensor/ddnn-home/{entity}/config"]["value_template"])


def test_every_entity_is_of_one_device_and_unique() -> None:
    payloads = make_payloads()
    assert set(payloads) == {
        *(
            f"homeassistant/sensor/ddnn-home/{name}/config"
            for name in ("label", "exit", "confidence")
        ),
        *(
            f"homeassistant/binary_sensor/ddnn-home/node-{node}/config"
            for node in ("edge", "edge2", "cam1")
        ),
        "homeassistant/binary_sensor/ddnn-home/cloud/config",
    }
    for topic, payload in payloads.items():
        assert re.fullmatch(r"\w+/\w+/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config", topic)
        assert payload["device"] == {
            "identifiers": ["ddnn-home"],
            "name": "ddnn home",
            "manufacturer": "ddnn",
            "model": "scenes-e",
            "sw_version": "1.2.3",
        }
    ids = [payload["unique_id"] for payload in payloads.values()]
    assert len(set(ids)) == len(ids)
    other = make_discovery(
        "homeassistant",
        "shop",
        model="m",
        classes=["a", "b"],
        edges=["edge"],
        devices=[],
        version="1",
    )
    assert not set(ids) & {payload["unique_id"] for _, payload in other}


@pytest.mark.parametrize("label", range(len(HOSTILE)))
def test_a_class_is_shown_by_its_name_whatever_it_is(label: int) -> None:
    shown = render(template(make_payloads(classes=HOSTILE), "label"), encode(latest(label)))
    assert shown == HOSTILE[label].strip()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=4))
def test_any_name_stays_a_name(classes: list[str]) -> None:
    shown = template(make_payloads(classes=classes), "label")
    for label, name in enumerate(classes):
        assert render(shown, encode(latest(label))) == name[:MAX_STATE_CHARS].strip()


@pytest.mark.parametrize("label", [-1, 2, 65535])
def test_a_class_that_the_bundle_does_not_know_is_a_number(label: int) -> None:
    assert render(template(make_payloads(), "label"), encode(latest(label))) == str(label)


def test_answers_have_a_topic_of_their_own_and_expire() -> None:
    payloads = make_payloads()
    for entity, shown in (("label", "bus"), ("exit", "edge"), ("confidence", "75")):
        payload = payloads[f"homeassistant/sensor/ddnn-home/{entity}/config"]
        assert payload["state_topic"] == "ddnn/v1/home/latest/+"
        assert payload["expire_after"] == 60
        assert render(payload["value_template"], encode(latest(1))) == shown
    never = make_payloads(expire_s=0)
    assert not any("expire_after" in payload for payload in never.values())


@pytest.mark.parametrize(
    ("state", "shown"), [("online", "online"), ("stopped", "offline"), ("lost", "offline")]
)
def test_presence_is_what_the_retained_status_says(state: Any, shown: str) -> None:
    payloads = make_payloads()
    for node in ("edge", "edge2", "cam1"):
        entity = payloads[f"homeassistant/binary_sensor/ddnn-home/node-{node}/config"]
        assert entity["state_topic"] == str(Topic("home", Kind.STATUS, node))
        assert entity["device_class"] == "connectivity"
        status = encode(Status("edge", 1, state))
        assert render(entity["value_template"], status) == shown
        assert shown in (entity["payload_on"], entity["payload_off"])
        assert "availability" not in entity  # an absent node is off, not unknown


def test_answers_are_available_while_anybody_answers() -> None:
    label = make_payloads()["homeassistant/sensor/ddnn-home/label/config"]
    assert label["availability_mode"] == "any"
    assert [entry["topic"] for entry in label["availability"]] == [
        str(Topic("home", Kind.STATUS, node)) for node in ("edge", "cam1")
    ]


@pytest.mark.parametrize(("cloud", "shown"), [(True, "online"), (False, "offline")])
def test_the_lead_edge_says_whether_a_cloud_is_there(cloud: bool, shown: str) -> None:
    """Whatever clouds are called and however many there are; without the edge nobody knows."""
    entity = make_payloads()["homeassistant/binary_sensor/ddnn-home/cloud/config"]
    assert entity["state_topic"] == str(Topic("home", Kind.REACH, "edge"))
    assert render(entity["value_template"], encode(CloudReach(cloud))) == shown
    (available,) = entity["availability"]
    assert available["topic"] == str(Topic("home", Kind.STATUS, "edge"))
    assert render(available["value_template"], encode(Status("edge", 1, "lost"))) == "offline"


@pytest.mark.parametrize("prefix", ["homeassistant", "ha/site-1", "Home_2"])
def test_prefixes(prefix: str) -> None:
    assert require_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["a//b", "/a", "a/", "+", "a/#", "ä", "a b", "a\0", "x" * 101])
def test_what_no_topic_can_begin_with(prefix: str) -> None:
    with pytest.raises(ConfigError, match="--home-assistant"):
        require_prefix(prefix)
