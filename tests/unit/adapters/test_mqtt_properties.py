"""Properties with shared tables are read and written as paho's own."""

from __future__ import annotations

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import ddnn.adapters.mqtt  # noqa: F401  lets paho share the tables
from ddnn.adapters.mqtt_properties import SharedProperties

PACKETS = [PacketTypes.CONNACK, PacketTypes.PUBLISH, PacketTypes.PUBACK, PacketTypes.SUBACK]


def fill(properties: Properties) -> Properties:
    values = {
        "MessageExpiryInterval": 60,
        "UserProperty": [("a", "1"), ("b", "2")],
        "ReasonString": "no",
        "MaximumPacketSize": 1000,
        "SubscriptionIdentifier": [7],
    }
    for name, value in values.items():
        identifier = properties.getIdentFromName(name)
        if properties.packetType in properties.properties[identifier][1]:
            setattr(properties, name, value)
    return properties


@pytest.mark.parametrize("packet", PACKETS)
@pytest.mark.parametrize("filled", [False, True])
def test_what_is_read_and_written_is_equal(packet: int, filled: bool) -> None:
    own, theirs = SharedProperties(packet), Properties(packet)
    if filled:
        fill(own), fill(theirs)
    sent = theirs.pack()
    assert own.pack() == sent
    assert len(sent) > 1 or not filled
    own, theirs = SharedProperties(packet), Properties(packet)
    assert own.unpack(sent + b"rest")[1] == theirs.unpack(sent + b"rest")[1] == len(sent)
    assert own.json() == theirs.json()
    assert vars(own) == vars(theirs)


def test_one_that_is_used_again_is_cleared() -> None:
    properties = fill(SharedProperties(PacketTypes.PUBLISH))
    properties.unpack(b"\0")
    assert properties.isEmpty()
    assert SharedProperties(PacketTypes.PUBLISH).isEmpty()  # nothing was shared but the tables


@pytest.mark.parametrize("damaged", [b"", b"\x05\x02", b"\xff\xff\xff\xff\xff"])
def test_what_is_no_property_raises_as_before(damaged: bytes) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011  of whatever type
        Properties(PacketTypes.PUBLISH).unpack(damaged)
    with pytest.raises(theirs.type):
        SharedProperties(PacketTypes.PUBLISH).unpack(damaged)


def test_paho_uses_it() -> None:
    assert paho.Properties is SharedProperties  # type: ignore[attr-defined]
