"""Packets: a message's topic and payload, with the delivery rules of the topic's kind."""

from __future__ import annotations

from typing import NamedTuple

from ddnn.protocol.codec import decode, encode, publish_bytes
from ddnn.protocol.machine import Forgotten, Received
from ddnn.protocol.messages import AnswerAck, Backlog
from ddnn.protocol.topics import AnyMessage, Topic, parse
from ddnn.runtime.guard import Guard


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


def pack(topic: Topic, message: AnyMessage, guard: Guard | None = None) -> Packet:
    """Encode a message to its packet; the guard signs commands."""
    rule, payload = topic.kind.value, encode(message)
    if guard is not None:
        payload = guard.seal(topic, payload)
    return Packet(str(topic), payload, rule.qos, rule.retain)


def divide(message: AnyMessage) -> tuple[AnyMessage, AnyMessage] | None:
    """Two messages that say the same as one; None where there are none."""
    match message:
        case Backlog(answers) if len(answers) > 1:
            middle = len(answers) // 2
            return Backlog(answers[:middle]), Backlog(answers[middle:])
        case AnswerAck(samples) if len(samples) > 1:
            middle = len(samples) // 2
            return AnswerAck(samples[:middle]), AnswerAck(samples[middle:])
    return None


def unpack(topic: str, payload: bytes, guard: Guard | None = None) -> Received | Forgotten:
    """Decode a packet that arrived to its event.

    Raises RemoteProtocolError where it is malformed, or is a command that the guard refuses.
    """
    parsed = parse(topic)
    if not payload and parsed.kind.value.retain:
        return Forgotten(parsed)
    content = payload if guard is None else guard.open(parsed, payload)
    message = decode(parsed.kind, content)
    return Received(parsed, message, publish_bytes(topic, len(payload), parsed.kind.value.qos))
