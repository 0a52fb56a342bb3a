"""Properties of MQTT 5 packets at less cost.

paho makes the tables of all properties again for every packet that arrives, and searches the new
object for properties to clear: a sixth of an edge's processor time. Here all packets share the
tables, and one without properties, as nearly all are, is not searched.
"""

from __future__ import annotations

import sys
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_EXAMPLE = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
_TABLES = {name: table for name, table in vars(_EXAMPLE).items() if name != "packetType"}
_USERS = ("paho.mqtt.client", "paho.mqtt._packet")  # the second one from paho 2.2 on


class SharedProperties(Properties):
    """Does what `Properties` does."""

    def __init__(self, packet_type: int) -> None:
        vars(self).update(_TABLES, packetType=packet_type)

    def unpack(self, buffer: bytes) -> Any:
        """Take the properties at the start of `buffer`; returns itself and how long they were."""
        is_new = len(vars(self)) == len(_TABLES) + 1
        if is_new and buffer[:1] == b"\0":
            return self, 1
        return super().unpack(buffer)  # type: ignore[no-untyped-call]


def share_tables() -> None:
    """Let paho use this class from now on."""
    for name in _USERS:
        module: Any = sys.modules.get(name)
        if getattr(module, "Properties", None) is Properties:
            module.Properties = SharedProperties
