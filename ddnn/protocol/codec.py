"""Messages to bytes and back. `decode` raises one exception for any input.

Array-like structs are of the data plane and travel as MessagePack; all others as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec

from ddnn.errors import ConfigError, RemoteProtocolError
from ddnn.protocol.messages import MAX_MESSAGE_BYTES, Tensor
from ddnn.protocol.topics import AnyMessage, Kind, Topic, parse

_PACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()
_DECODERS: dict[type, msgspec.msgpack.Decoder[AnyMessage] | msgspec.json.Decoder[AnyMessage]] = {
    message: (
        msgspec.msgpack.Decoder(message)
        if message.__struct_config__.array_like
        else msgspec.json.Decoder(message)
    )
    for message in {kind.value.message for kind in Kind}
}


def _holds_tensors(annotation: Any) -> bool:
    """Whether values of a type are tensors, or tuples or dictionaries of them."""
    return annotation is Tensor or any(map(_holds_tensors, get_args(annotation)))


_TENSOR_FIELDS = {
    message: [name for name, of in get_type_hints(message).items() if _holds_tensors(of)]
    for message in _DECODERS
}


def encode(message: AnyMessage) -> bytes:
    """The bytes of a message, MessagePack for the data plane, JSON for the control plane."""
    return (_PACK if message.__struct_config__.array_like else _JSON).encode(message)


def decode(kind: Kind, data: bytes) -> AnyMessage:
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
    for tensor in _find_tensors(message):
        tensor.check()
    return message


def _find_tensors(message: AnyMessage) -> Iterator[Tensor]:
    """The tensors of a message: fields, or members of a tuple or a dictionary."""
    for name in _TENSOR_FIELDS[type(message)]:
        value = getattr(message, name)
        if isinstance(value, Tensor):
            yield value
        elif value is not None:
            yield from value.values() if isinstance(value, dict) else value


def decode_arrived(topic: str, payload: bytes) -> tuple[Topic, AnyMessage]:
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
