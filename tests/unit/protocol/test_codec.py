"""Encode, decode, and everything that a peer may send instead."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.core.plan import MAX_ARRAYS, MAX_ELEMENTS, MAX_RANK
from ddnn.errors import LocalProtocolError, RemoteProtocolError
from ddnn.protocol.codec import decode, decode_arrived, encode, publish_bytes
from ddnn.protocol.messages import (
    MAX_COUNT,
    MAX_MESSAGE_BYTES,
    Features,
    Result,
    Scores,
    Task,
    Tensor,
    add_traffic,
)
from ddnn.protocol.topics import Kind, Topic
from tests.unit.protocol.messages_made import SAMPLES, STRATEGIES, answer

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
MSGPACK = (
    Kind.SCORES,
    Kind.FEATURES,
    Kind.ESCALATE,
    Kind.UPLINK,
    Kind.VERDICT,
    Kind.TASK,
    Kind.RESULT,
)


def refused(kind: Kind, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=kind.name):
        decode(kind, data)


def arrays_of(message: Any) -> list[np.ndarray]:
    match message:
        case Scores():
            tensors = [message.scores]
        case Features():
            tensors = list(message.parts)
        case Task():
            tensors = list(message.inputs.values())
        case Result():
            tensors = list(message.outputs.values())
        case _:
            tensors = []
    return [tensor.array() for tensor in tensors]


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
def test_other_item_types_do_not_leave(dtype: Any) -> None:
    with pytest.raises(LocalProtocolError, match="do not travel"):
        Tensor.of(np.zeros(3, dtype))


# ------------------------------------------------------------- broken messages


@KINDS
def test_every_truncation_is_refused(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    for cut in range(len(data)):
        refused(kind, data[:cut])


@KINDS
def test_something_after_the_end_is_refused(kind: Kind) -> None:
    refused(kind, encode(SAMPLES[kind]) + (b"\x00" if kind in MSGPACK else b"}"))


@KINDS
def test_every_single_bit_flip_is_refused_or_a_valid_message(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with contextlib.suppress(RemoteProtocolError):
            message = decode(kind, bytes(flipped))
            arrays_of(message)  # whatever was accepted can be read, and sent on
            assert decode(kind, encode(message)) == message


@KINDS
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_or_a_valid_message(kind: Kind, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        arrays_of(decode(kind, data))


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
        arrays_of(decode(kind, module.encode(value)))


@KINDS
def test_a_message_beyond_the_limit_is_not_even_parsed(kind: Kind) -> None:
    data = encode(SAMPLES[kind])
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode(kind, data + b" " * (MAX_MESSAGE_BYTES + 1 - len(data)))


def test_the_limit_itself_is_within() -> None:
    data = encode(SAMPLES[Kind.STATUS])
    padded = data + b" " * (MAX_MESSAGE_BYTES - len(data))
    assert decode(Kind.STATUS, padded) == SAMPLES[Kind.STATUS]


@pytest.mark.parametrize("kind", MSGPACK, ids=lambda kind: kind.name)
@pytest.mark.parametrize("version", [0, 2, -1, 2**63, "1", None, 1.0, True])
def test_another_schema_version_is_refused(kind: Kind, version: Any) -> None:
    plain = msgspec.to_builtins(SAMPLES[kind], builtin_types=[bytes])
    refused(kind, msgspec.msgpack.encode([version, *plain[1:]]))


# --------------------------------------------------------------------- arrays


def scores_with(item_type: Any, shape: Any, data: Any) -> bytes:
    return msgspec.msgpack.encode((1, 1, "b", 1, 0.0, (item_type, shape, data)))


@pytest.mark.parametrize(
    "shape",
    [
        [2**40],
        [2**53],
        [MAX_ELEMENTS + 1],
        [2**13, 2**13],
        [2**53] * MAX_RANK,
        [0, 2**53],
        [2**53, 0],
        [0, 2**53, 2**53],
        [1] * (MAX_RANK + 1),
        [0] * 100_000,
        [-1],
        [2**64 - 1],
        [1.5],
        ["3"],
        [None],
        3,
        None,
    ],
    ids=lambda shape: repr(shape)[:25],
)
@pytest.mark.parametrize("item_type", ["float32", "bits", "uint8"])
def test_impossible_shapes_are_refused_without_allocating(item_type: str, shape: Any) -> None:
    data = scores_with(item_type, shape, b"\0" * 12)
    empty = scores_with(item_type, shape, b"")
    tracemalloc.start()
    try:
        refused_by_check(data)
        refused_by_check(empty)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data) + 50_000


def refused_by_check(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Kind.SCORES, data)


@pytest.mark.parametrize(
    ("item_type", "right"), [("float32", 12), ("float16", 6), ("uint8", 3), ("bits", 1)]
)
def test_shape_and_length_must_agree(item_type: str, right: int) -> None:
    for length in range(16):
        data = scores_with(item_type, [3], b"\0" * length)
        if length == right:
            assert isinstance(decode(Kind.SCORES, data), Scores)
        else:
            refused_by_check(data)
            part = (item_type, [3], b"\0" * length)
            refused_by_check(msgspec.msgpack.encode((1, 1, "b", 1, 0.0, [part])))


@pytest.mark.parametrize("item_type", ["float64", "int8", "object", "", "<f4", 4, None, b"uint8"])
def test_other_item_types_are_refused(item_type: Any) -> None:
    refused(Kind.SCORES, scores_with(item_type, [1], b"\0" * 8))


def test_the_second_part_is_checked_too() -> None:
    good, bad = Tensor("uint8", (2,), b"ab"), Tensor("uint8", (3,), b"ab")
    decode(Kind.FEATURES, encode(Features(1, 1, "b", 1, 0.0, (good, good))))
    with pytest.raises(RemoteProtocolError, match="expected 3"):
        decode(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (good, bad))))


def test_too_many_parts_are_refused() -> None:
    part = Tensor("uint8", (1,), b"a")
    decode(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (part,) * 64)))
    refused(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (part,) * 65)))


def test_an_empty_array_is_an_array() -> None:
    message = decode(Kind.SCORES, scores_with("float32", [0, 3], b""))
    assert isinstance(message, Scores)
    assert message.scores.array().shape == (0, 3)


# ------------------------------------------------------------- hostile parsing


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1.1e12, 1e308])
def test_instants_are_finite_and_bounded(number: float) -> None:
    for kind in (Kind.SCORES, Kind.FEATURES, Kind.UPLINK, Kind.VERDICT):
        message: Any = SAMPLES[kind]
        refused(kind, encode(msgspec.structs.replace(message, captured_at_s=number)))


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b'""'])
def test_json_numbers_are_finite(literal: bytes) -> None:
    data = encode(answer(eta=0.75))
    assert data.count(b'"eta":0.75') == 1
    refused(Kind.ANSWER, data.replace(b'"eta":0.75', b'"eta":' + literal))


@pytest.mark.parametrize(
    "change",
    [
        (b"2500000000.0", b"0"),
        (b"2500000000.0", b"-1"),
        (b"2500000000.0", b"1e999"),
        (b"2500000000.0", b"1e-999"),
        (b"2500000000.0", b"9" * 400),
        (b"2500000000.0", b"NaN"),
        (b"2500000000.0", b"null"),
        (b"1073741824", b"0"),
        (b"1073741824", b"1.5"),
        (b"1073741824", b"9007199254740993"),
        (b"20000000.0", b"-0.0"),
        (b"0.125", b"1"),
        (b"0.125", b"-0.1"),
        (b'"worker1"', b'"Worker 1"'),
        (b'"worker1"', b'""'),
        (b'"worker1"', b'"a\\n"'),
        (b'"worker1"', b'"' + b"a" * 65 + b'"'),
    ],
    ids=lambda change: change[1].decode()[:20],
)
def test_an_impossible_device_profile_is_refused(change: tuple[bytes, bytes]) -> None:
    data, (value, other) = encode(SAMPLES[Kind.OFFER]), change
    assert data.count(value) == 1
    refused(Kind.OFFER, data.replace(value, other))


@pytest.mark.parametrize("kind", [Kind.TASK, Kind.RESULT], ids=lambda kind: kind.name)
def test_every_named_array_is_checked(kind: Kind) -> None:
    message: Any = SAMPLES[kind]
    field = "inputs" if kind is Kind.TASK else "outputs"
    good, bad = Tensor("uint8", (2,), b"ab"), Tensor("uint8", (3,), b"ab")
    for arrays in ({"a": bad}, {"a": good, "b": bad}):
        data = encode(msgspec.structs.replace(message, **{field: arrays}))
        with pytest.raises(RemoteProtocolError, match="expected 3"):
            decode(kind, data)
    for count, fits in ((0, False), (1, True), (MAX_ARRAYS, True), (MAX_ARRAYS + 1, False)):
        arrays = {f"a{i}": good for i in range(count)}
        data = encode(msgspec.structs.replace(message, **{field: arrays}))
        if fits:
            assert decode(kind, data) == msgspec.msgpack.decode(data, type=kind.value.message)
        else:
            refused(kind, data)
    refused(kind, encode(msgspec.structs.replace(message, **{field: {"a" * 65: good}})))


@pytest.mark.parametrize("digits", [17, 20, 400, 100_000])
def test_huge_integers(digits: int) -> None:
    data = encode(answer(77777)).replace(b"77777", b"9" * digits)
    refused(Kind.ANSWER, data)
    refused(Kind.ACK, b'{"samples":[' + b"9" * digits + b"]}")


@KINDS
def test_deep_nesting(kind: Kind) -> None:
    for depth in (100, 5_000, 1_000_000):
        refused(kind, (b"\x91" if kind in MSGPACK else b"[") * depth)
        refused(kind, b'{"unknown":' * depth)


def test_deep_nesting_in_what_would_be_skipped() -> None:
    data = encode(SAMPLES[Kind.SCORES])
    refused(Kind.SCORES, bytes([data[0] + 1]) + data[1:] + b"\x91" * 1_000_000 + b"\xc0")
    refused(Kind.ACK, b'{"samples":[],"x":' + b"[" * 500_000 + b"]" * 500_000 + b"}")


@pytest.mark.parametrize(
    "claimed",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("kind", MSGPACK, ids=lambda kind: kind.name)
def test_claimed_lengths_allocate_nothing(kind: Kind, claimed: bytes) -> None:
    data = encode(SAMPLES[kind])
    tracemalloc.start()
    try:
        for cut in range(len(data)):
            refused_or_valid(kind, data[:cut] + claimed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def refused_or_valid(kind: Kind, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(kind, data)


@pytest.mark.parametrize("kind", [Kind.ANSWER, Kind.SCORES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0", b"\x80\x80"])
def test_text_that_is_no_utf_8(kind: Kind, bad: bytes) -> None:
    data = encode(SAMPLES[kind])
    assert b"b1" in data
    refused(kind, data.replace(b"b1", bad))


def test_a_lone_surrogate_is_no_text() -> None:
    refused(Kind.ANSWER, encode(SAMPLES[Kind.ANSWER]).replace(b"b1", b"\\ud800"))


@pytest.mark.parametrize("node", ["", "Cam1", "cam 1", "cam1\n", "a" * 65, "+", "a/b", "cäm", "#"])
def test_ids_in_messages_may_stand_in_a_topic(node: str) -> None:
    refused(Kind.ANSWER, encode(answer(node=node)))
    refused(Kind.ANSWER, encode(answer(members=["cam1", node])))
    refused(Kind.BACKLOG, encode_backlog(answer(missing=[node])))


def encode_backlog(*answers: Any) -> bytes:
    return msgspec.json.encode({"answers": answers})


@pytest.mark.parametrize("size", [256, 257])
def test_a_batch_is_bounded(size: int) -> None:
    data = encode_backlog(*[answer(i) for i in range(size)])
    if size > 256:
        refused(Kind.BACKLOG, data)
    else:
        decode(Kind.BACKLOG, data)


def test_one_kind_is_not_taken_for_another() -> None:
    for kind, message in SAMPLES.items():
        for other in Kind:
            if other.value.message is not kind.value.message:
                refused(other, encode(message))


@given(a=st.tuples(*[st.integers(0, MAX_COUNT)] * 2), b=st.tuples(*[st.integers(0, MAX_COUNT)] * 2))
def test_sums_of_bytes_stay_within_what_travels(a: tuple[int, int], b: tuple[int, int]) -> None:
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
