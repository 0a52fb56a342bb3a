"""Home Assistant's MQTT discovery: retained messages that describe a site's topics.

One message per entity, `<prefix>/<component>/ddnn-<site>/<entity>/config`: every version of Home
Assistant reads this form, as do other programs that read discovery messages; only newer versions
read one message per device. Templates read the states from ddnn's own topics, so that no state is
sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddnn.errors import ConfigError
from ddnn.protocol.topics import Kind, Topic

MAX_STATE_CHARS = 255  # Home Assistant refuses longer states
MAX_PREFIX_CHARS = 100
_CONFIDENCE_TEMPLATE = "{{ (value_json.probabilities | max | default(0) * 100) | round(1) }}"
_CLOUD_TEMPLATE = "{{ 'online' if value_json.gauges.cloud_up | default(0) > 0 else 'offline' }}"
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


def make_discovery(
    prefix: str,
    site: str,
    *,
    model: str,
    classes: Sequence[str],
    edges: Sequence[str],
    devices: Sequence[str],
    version: str,
) -> list[tuple[str, dict[str, Any]]]:
    """(topic, payload) of each entity: the last label, exit and confidence, and each presence.

    `model`: the bundle's name. The first of `edges` is the lead edge: it answers (without it the
    devices do), and its statistics report whether a cloud node is online, whatever its id is.
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
        "state_topic": str(Topic(site, Kind.ANSWER)),
        "availability": [_make_availability(site, node) for node in (lead, *devices)],
        "availability_mode": "any",
    }
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
                **_make_presence(site, lead, Kind.STATS),
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
