"""Home Assistant's MQTT discovery: retained messages that tell it what a site's topics mean.

One message per entity, `<prefix>/<component>/ddnn-<site>/<entity>/config`: every Home Assistant
knows this form (the one message per device of newer ones it does not), and other programs that
read discovery messages know it, too. States are read from ddnn's own topics by templates; nothing
is sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddnn.errors import ConfigError
from ddnn.protocol.topics import Kind, Topic

MAX_STATE_CHARS = 255  # longer states Home Assistant refuses
MAX_PREFIX_CHARS = 100
_CONFIDENCE = "{{ (value_json.probabilities | max | default(0) * 100) | round(1) }}"
_CLOUD = "{{ 'online' if value_json.gauges.cloud_up | default(0) > 0 else 'offline' }}"
_PRESENT = "{{ 'online' if value_json.state == 'online' else 'offline' }}"


def require_prefix(prefix: str) -> str:
    """`prefix` unchanged, or ConfigError where no topic can begin with it."""
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


def discovery(
    prefix: str,
    site: str,
    *,
    model: str,
    classes: Sequence[str],
    edges: Sequence[str],
    devices: Sequence[str],
    version: str,
) -> list[tuple[str, dict[str, Any]]]:
    """(topic, payload) of each entity: the last label, exit and confidence, and who is present.

    `model`: the bundle's name. The first of `edges` leads: it answers (without it the devices do),
    and it says whether a cloud is there, which has no name of its own where there are several.
    """
    lead = edges[0]
    owner = f"ddnn-{site}"
    shared: dict[str, Any] = {
        "device": {
            "identifiers": [owner],
            "name": f"ddnn {site}",
            "manufacturer": "ddnn",
            "model": model,
            "sw_version": version,
        },
        "origin": {"name": "ddnn", "sw_version": version},
    }
    answer: dict[str, Any] = {
        **shared,
        "state_topic": str(Topic(site, Kind.ANSWER)),
        "availability": [_available(site, node) for node in (lead, *devices)],
        "availability_mode": "any",
    }
    entities: list[tuple[str, str, dict[str, Any]]] = [
        ("sensor", "label", {**answer, "name": "Label", "value_template": _label(classes)}),
        ("sensor", "exit", {**answer, "name": "Exit", "value_template": "{{ value_json.exit }}"}),
        (
            "sensor",
            "confidence",
            {
                **answer,
                "name": "Confidence",
                "value_template": _CONFIDENCE,
                "unit_of_measurement": "%",
                "state_class": "measurement",
            },
        ),
        *(
            ("binary_sensor", f"node-{node}", {**_presence(site, node, Kind.STATUS), **shared})
            for node in (*edges, *devices)
        ),
        (
            "binary_sensor",
            "cloud",
            {
                **_presence(site, lead, Kind.STATS),
                **shared,
                "name": "cloud",
                "value_template": _CLOUD,
                "availability": [_available(site, lead)],
            },
        ),
    ]
    return [
        (f"{prefix}/{component}/{owner}/{name}/config", {**payload, "unique_id": f"{owner}-{name}"})
        for component, name, payload in entities
    ]


def _available(site: str, node: str) -> dict[str, str]:
    return {"topic": str(Topic(site, Kind.STATUS, node)), "value_template": _PRESENT}


def _presence(site: str, node: str, kind: Kind) -> dict[str, Any]:
    return {
        "name": node,
        "state_topic": str(Topic(site, kind, node)),
        "value_template": _PRESENT,
        "payload_on": "online",
        "payload_off": "offline",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
    }


def _label(classes: Sequence[str]) -> str:
    """A template that gives the class's name, or its number where the bundle knows none."""
    names = ", ".join(f'"{_escaped(name[:MAX_STATE_CHARS])}"' for name in classes)
    return (
        f"{{% set names = [{names}] %}}{{% set i = value_json.label %}}"
        "{{ names[i] if 0 <= i < names | length else i }}"
    )


def _escaped(text: str) -> str:
    """`text` inside a string of a template: whatever a person called a class stays a name."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in " _-") else f"\\U{ord(c):08x}" for c in text
    )
