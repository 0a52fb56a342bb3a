"""Packets: a message's topic and payload, with the delivery rules of the topic's kind."""

from __future__ import annotations

from typing import NamedTuple

from ddnn.protocol.codec import decode_arrived, encode, publish_bytes
from ddnn.protocol.machine import Received
from ddnn.protocol.topics import AnyMessage, Topic


class Packet(NamedTuple):
    """One MQTT PUBLISH; its fields are the arguments of `Transport.publish`."""

    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def wire_bytes(self) -> int:
        """Bytes of this packet on the link."""
        return publish_bytes(self.topic, len(self.payload), self.qos)


def pack(topic: Topic, message: AnyMessage) -> Packet:
    """Encode a message to its packet."""
    rule = topic.kind.value
    return Packet(str(topic), encode(message), rule.qos, rule.retain)


def unpack(topic: str, payload: bytes) -> Received:
    """Decode a packet that arrived to its event; RemoteProtocolError where it is malformed."""
    parsed, message = decode_arrived(topic, payload)
    return Received(parsed, message, publish_bytes(topic, len(payload), parsed.kind.value.qos))
