"""Messages as they travel: topic and payload, with what the topic's kind says about delivery."""

from __future__ import annotations

from typing import NamedTuple

from ddnn.protocol.codec import decode_arrived, encode, publish_bytes
from ddnn.protocol.machine import Received
from ddnn.protocol.messages import Message
from ddnn.protocol.topics import Topic


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


def pack(topic: Topic, message: Message) -> Packet:
    """The packet of a message."""
    rule = topic.kind.value
    return Packet(str(topic), encode(message), rule.qos, rule.retain)


def unpack(topic: str, payload: bytes) -> Received:
    """The event of a packet that arrived; RemoteProtocolError where it is malformed."""
    parsed, message = decode_arrived(topic, payload)
    return Received(parsed, message, publish_bytes(topic, len(payload), parsed.kind.value.qos))
