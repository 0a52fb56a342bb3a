"""Home Assistant's MQTT discovery: retained messages that describe a site's topics.

One message per entity, `<prefix>/<component>/ddnn-<site>/<entity>/config`: every version of Home
Assistant reads this form, as do other programs that read discovery messages; only newer versions
read one message per device. The states of the latest answer have a topic of their own, on which
they change at most once a second: Home Assistant records each change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddnn.errors import ConfigError
from ddnn.protocol.topics import Kind, Topic, topic_filter

MAX_STATE_CHARS = 255  # Home Assistant refuses longer states
MAX_PREFIX_CHARS = 100
_CONFIDENCE_TEMPLATE = "{{ value_json.confidence_percent }}"
_CLOUD_TEMPLATE = "{{ 'online' if value_json.cloud else 'offline' }}"
_PRESENCE_TEMPLATE = "{{ 'online' if value_json.state == 'online' else 'offline' }}"


def require_prefix(prefix: str) -> str:
    """Return `prefix` unchanged; ConfigError where no topic can begin with it."""
    levels = prefix.split("/")
    if len(prefix) > MAX_PREFIX_CHARS or not all(
        level and level.isascii() and level.replace("-", "").replace("_", "").isalnum()
        for level in levels
    ):
        raise ConfigError(
            f"--home-assistant {prefix!r}: expected the discovery prefix that Home Assistant is "
            "set to, of letters, digits, '-', '_' and '/', such as 'homeassistant'"
        )
    return prefix


def find_entities(prefix: str, site: str, node: str) -> list[str]:
    """The topics of the entities of one node."""
    return [f"{prefix}/binary_sensor/ddnn-{site}/node-{node}/config"]


def make_discovery(
    prefix: str,
    site: str,
    *,
    model: str,
    classes: Sequence[str],
    edges: Sequence[str],
    devices: Sequence[str],
    version: str,
    expire_s: float = 60.0,
) -> list[tuple[str, dict[str, Any]]]:
    """(topic, payload) of each entity: the last label, exit and confidence, and each presence.

    `model`: the bundle's name. The first of `edges` is the lead edge: it answers (without it the
    devices do), and reports whether a cloud node is online, whatever its id is. An answer is
    unknown after `expire_s` without a newer one; 0: never.
    """
    lead = edges[0]
    device_id = f"ddnn-{site}"
    common: dict[str, Any] = {
        "device": {
            "identifiers": [device_id],
            "name": f"ddnn {site}",
            "manufacturer": "ddnn",
            "model": model,
            "sw_version": version,
        },
        "origin": {"name": "ddnn", "sw_version": version},
    }
    answer: dict[str, Any] = {
        **common,
        "state_topic": topic_filter(Kind.LATEST, site),  # of whichever node answers
        "availability": [_make_availability(site, node) for node in (lead, *devices)],
        "availability_mode": "any",
    }
    if expire_s:
        answer["expire_after"] = round(expire_s)
    entities: list[tuple[str, str, dict[str, Any]]] = [
        (
            "sensor",
            "label",
            {**answer, "name": "Label", "value_template": _make_label_template(classes)},
        ),
        ("sensor", "exit", {**answer, "name": "Exit", "value_template": "{{ value_json.exit }}"}),
        (
            "sensor",
            "confidence",
            {
                **answer,
                "name": "Confidence",
                "value_template": _CONFIDENCE_TEMPLATE,
                "unit_of_measurement": "%",
                "state_class": "measurement",
            },
        ),
        *(
            ("binary_sensor", f"node-{node}", {**_make_presence(site, node, Kind.STATUS), **common})
            for node in (*edges, *devices)
        ),
        (
            "binary_sensor",
            "cloud",
            {
                **_make_presence(site, lead, Kind.REACH),
                **common,
                "name": "cloud",
                "value_template": _CLOUD_TEMPLATE,
                "availability": [_make_availability(site, lead)],
            },
        ),
    ]
    return [
        (
            f"{prefix}/{component}/{device_id}/{name}/config",
            {**payload, "unique_id": f"{device_id}-{name}"},
        )
        for component, name, payload in entities
    ]


def _make_availability(site: str, node: str) -> dict[str, str]:
    return {"topic": str(Topic(site, Kind.STATUS, node)), "value_template": _PRESENCE_TEMPLATE}


def _make_presence(site: str, node: str, kind: Kind) -> dict[str, Any]:
    return {
        "name": node,
        "state_topic": str(Topic(site, kind, node)),
        "value_template": _PRESENCE_TEMPLATE,
        "payload_on": "online",
        "payload_off": "offline",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
    }


def _make_label_template(classes: Sequence[str]) -> str:
    """A template that gives the class's name, or its number where the bundle has no name for it."""
    names = ", ".join(f'"{_escape(name[:MAX_STATE_CHARS])}"' for name in classes)
    return (
        f"{{% set names = [{names}] %}}{{% set i = value_json.label %}}"
        "{{ names[i] if 0 <= i < names | length else i }}"
    )


def _escape(text: str) -> str:
    """`text` for a string literal of a template: no class name can end the literal."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in " _-") else f"\\U{ord(c):08x}" for c in text
    )
