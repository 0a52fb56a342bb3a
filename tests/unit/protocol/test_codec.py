"""What is encoded is decoded; truncated and damaged messages are refused; sizes of packets."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import LocalProtocolError, RemoteProtocolError
from ddnn.protocol.codec import decode, decode_arrived, encode, publish_bytes
from ddnn.protocol.messages import MAX_COUNT, MAX_MESSAGE_BYTES, Scores, Tensor, add_traffic
from ddnn.protocol.topics import Kind, Topic
from tests.unit.protocol.codec_checks import KINDS, MSGPACK, assert_refused, read_arrays
from tests.unit.protocol.messages_made import SAMPLES, STRATEGIES, answer

# ---------------------------------------------------------------- round trips


def test_there_is_a_sample_and_a_strategy_for_every_kind() -> None:
    assert set(SAMPLES) == set(STRATEGIES) == set(Kind)


@KINDS
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_encoded_is_decoded(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(STRATEGIES[kind])
    assert decode(kind, encode(message)) == message


@KINDS
def test_samples_come_back_equal(kind: Kind) -> None:
    assert decode(kind, encode(SAMPLES[kind])) == SAMPLES[kind]


@KINDS
def test_what_arrived_is_decoded_by_its_topic(kind: Kind) -> None:
    topic = Topic("home", kind, "n1" if kind.value.per_node else "")
    assert decode_arrived(str(topic), encode(SAMPLES[kind])) == (topic, SAMPLES[kind])
    for text, payload in (("elsewhere", encode(SAMPLES[kind])), (str(topic), b"")):
        with pytest.raises(RemoteProtocolError):
            decode_arrived(text, payload)


def test_the_control_plane_is_json_and_the_data_plane_is_not() -> None:
    for kind, message in SAMPLES.items():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            msgspec.json.decode(encode(message))
            assert kind not in MSGPACK
            continue
        assert kind in MSGPACK


@pytest.mark.parametrize("name", ["float32", "float16", "uint8"])
def test_arrays_travel_exactly(name: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) * 7.3).astype(name)
    tensor = Tensor.of(array)
    np.testing.assert_array_equal(tensor.array(), array)
    assert tensor.array().dtype == array.dtype
    assert len(tensor.data) == array.nbytes


def test_arrays_travel_little_endian_and_row_major() -> None:
    big = np.array([[1, 2], [3, 4]], ">f4")
    assert Tensor.of(big.astype(np.float32)).data == np.array([1, 2, 3, 4], "<f4").tobytes()
    assert Tensor.of(np.asfortranarray(big).astype(np.float32)).data[4:8] == b"\0\0\0\x40"


def test_nan_and_infinity_in_arrays_travel_as_they_are() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    message = Scores(1, 1, "b", 1, 0.0, Tensor.of(array))
    got = decode(Kind.SCORES, encode(message))
    assert isinstance(got, Scores)
    assert got.scores.array().tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.bool_, np.complex64, object])
def test_arrays_of_other_item_types_are_not_encoded(dtype: Any) -> None:
    with pytest.raises(LocalProtocolError, match="do not travel"):
        Tensor.of(np.zeros(3, dtype))


# ------------------------------------------------------------- broken messages


@KINDS
def test_every_truncation_is_refused(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    for cut in range(len(data)):
        assert_refused(kind, data[:cut])


@KINDS
def test_bytes_after_the_end_are_refused(kind: Kind) -> None:
    assert_refused(kind, encode(SAMPLES[kind]) + (b"\x00" if kind in MSGPACK else b"}"))


@KINDS
def test_every_single_bit_flip_is_refused_or_a_valid_message(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with contextlib.suppress(RemoteProtocolError):
            message = decode(kind, bytes(flipped))
            read_arrays(message)  # whatever was accepted can be read, and sent on
            assert decode(kind, encode(message)) == message


@KINDS
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_or_a_valid_message(kind: Kind, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        read_arrays(decode(kind, data))


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=9), inner, max_size=5)
    ),
    max_leaves=25,
)


@KINDS
@settings(max_examples=40)
@given(value=_ANYTHING)
def test_well_formed_values_of_other_shapes_are_refused(kind: Kind, value: Any) -> None:
    module = msgspec.msgpack if kind in MSGPACK else msgspec.json
    with contextlib.suppress(RemoteProtocolError):
        read_arrays(decode(kind, module.encode(value)))


@KINDS
def test_a_message_beyond_the_limit_is_not_parsed(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode(kind, data + b" " * (MAX_MESSAGE_BYTES + 1 - len(data)))


def test_a_message_at_the_limit_is_decoded() -> None:
    data = encode(SAMPLES[Kind.STATUS])
    padded = data + b" " * (MAX_MESSAGE_BYTES - len(data))
    assert decode(Kind.STATUS, padded) == SAMPLES[Kind.STATUS]


@pytest.mark.parametrize("kind", MSGPACK, ids=lambda kind: kind.name)
@pytest.mark.parametrize("version", [0, 2, -1, 2**63, "1", None, 1.0, True])
def test_another_schema_version_is_refused(kind: Kind, version: Any) -> None:
    plain = msgspec.to_builtins(SAMPLES[kind], builtin_types=[bytes])
    assert_refused(kind, msgspec.msgpack.encode([version, *plain[1:]]))


# ------------------------------------------------------------- kinds and counts


def test_one_kind_is_not_taken_for_another() -> None:
    for kind, message in SAMPLES.items():
        for other in Kind:
            if other.value.message is not kind.value.message:
                assert_refused(other, encode(message))


@given(a=st.tuples(*[st.integers(0, MAX_COUNT)] * 2), b=st.tuples(*[st.integers(0, MAX_COUNT)] * 2))
def test_sums_of_bytes_stay_within_the_bound_of_a_message(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    total = add_traffic(a, b)
    assert total == tuple(min(x + y, MAX_COUNT) for x, y in zip(a, b, strict=True))
    data = encode(answer(payload_bytes=total[0], wire_bytes=total[1]))
    assert decode(Kind.ANSWER, data) == answer(payload_bytes=total[0], wire_bytes=total[1])


# -------------------------------------------------------------- bytes on the wire


def mqtt_publish(topic: str, payload: bytes, qos: int, retain: bool) -> bytes:
    """A PUBLISH packet by the letter of MQTT 3.1.1, section 3.3."""
    name = topic.encode()
    variable = len(name).to_bytes(2, "big") + name
    if qos:
        variable += (1).to_bytes(2, "big")  # packet identifier
    remaining = len(variable) + len(payload)
    length = b""
    while True:  # section 2.2.3: seven bits per byte, the highest says that more follow
        remaining, digit = divmod(remaining, 128)
        length += bytes([digit | (0x80 if remaining else 0)])
        if not remaining:
            break
    return bytes([0x30 | qos << 1 | retain]) + length + variable + payload


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("around", [0, 127, 128, 16383, 16384, 2097151, 2097152])
def test_publish_bytes_is_the_length_of_the_packet(qos: int, around: int) -> None:
    topic = str(Topic("home", Kind.SCORES, "cam1"))
    overhead = 2 + len(topic) + (2 if qos else 0)
    for size in range(around - overhead - 2, around - overhead + 3):
        if size >= 0:
            packet = mqtt_publish(topic, bytes(size), qos, retain=False)
            assert publish_bytes(topic, size, qos) == len(packet)


@KINDS
def test_publish_bytes_of_every_kind(kind: Kind) -> None:
    topic, payload = str(Topic("home", kind, "cam1")), encode(SAMPLES[kind])
    packet = mqtt_publish(topic, payload, kind.value.qos, kind.value.retain)
    assert publish_bytes(topic, len(payload), kind.value.qos) == len(packet)
