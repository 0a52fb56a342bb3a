"""Messages to bytes and back. `decode` raises one exception, whatever it is given."""

from __future__ import annotations

import msgspec

from ddnn.errors import ConfigError, RemoteProtocolError
from ddnn.protocol.messages import (
    MAX_MESSAGE_BYTES,
    Escalate,
    Features,
    Message,
    Result,
    Scores,
    Task,
)
from ddnn.protocol.topics import Kind, Topic, parse

_PACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()
_DATA_PLANE = (Scores, Features, Escalate, Task, Result)
_DECODERS: dict[type, msgspec.msgpack.Decoder[Message] | msgspec.json.Decoder[Message]] = {
    message: (
        msgspec.msgpack.Decoder(message)
        if message in _DATA_PLANE
        else msgspec.json.Decoder(message)
    )
    for message in {kind.value.message for kind in Kind}
}


def encode(message: Message) -> bytes:
    """The bytes of a message, MessagePack for the data plane, JSON for the control plane."""
    return (_PACK if isinstance(message, _DATA_PLANE) else _JSON).encode(message)


def decode(kind: Kind, data: bytes) -> Message:
    """The message, checked whole: types, bounds, array lengths. Or RemoteProtocolError."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(
            f"{kind.name}: {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are accepted"
        )
    try:
        message = _DECODERS[kind.value.message].decode(data)
    except (
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
        OverflowError,
        ConfigError,  # of a DeviceProfile that is impossible
    ) as error:
        raise RemoteProtocolError(f"{kind.name}: {error}") from None
    if isinstance(message, Scores):
        message.scores.check()
    elif isinstance(message, Features):
        for part in message.parts:
            part.check()
    elif isinstance(message, Task):
        for tensor in message.inputs.values():
            tensor.check()
    elif isinstance(message, Result):
        for tensor in message.outputs.values():
            tensor.check()
    return message


def decode_arrived(topic: str, payload: bytes) -> tuple[Topic, Message]:
    """The parsed topic and the message of what arrived from the broker.

    Raises RemoteProtocolError where the topic is none of ddnn's or the payload no such message.
    """
    parsed = parse(topic)
    return parsed, decode(parsed.kind, payload)


def publish_bytes(topic: str, payload_bytes: int, qos: int = 0) -> int:
    """Bytes of an MQTT 3.1.1 PUBLISH packet on the wire: fixed header, topic, id, payload."""
    remaining = 2 + len(topic.encode()) + (2 if qos else 0) + payload_bytes
    length_bytes = 1 + (remaining > 127) + (remaining > 16383) + (remaining > 2097151)
    return 1 + length_bytes + remaining
