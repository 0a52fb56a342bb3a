"""Arrays of a message: shape, item type and length agree, and nothing is allocated before."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from ddnn.core.plan import MAX_ARRAYS, MAX_ELEMENTS, MAX_RANK
from ddnn.errors import RemoteProtocolError
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import Features, Scores, Tensor
from ddnn.protocol.topics import Kind
from tests.unit.protocol.codec_checks import assert_refused
from tests.unit.protocol.messages_made import SAMPLES


def encode_scores(item_type: Any, shape: Any, data: Any) -> bytes:
    return msgspec.msgpack.encode((1, 1, "b", 1, 0.0, (item_type, shape, data)))


def assert_scores_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Kind.SCORES, data)


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
    data = encode_scores(item_type, shape, b"\0" * 12)
    empty = encode_scores(item_type, shape, b"")
    tracemalloc.start()
    try:
        assert_scores_refused(data)
        assert_scores_refused(empty)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data) + 50_000


@pytest.mark.parametrize(
    ("item_type", "right"), [("float32", 12), ("float16", 6), ("uint8", 3), ("bits", 1)]
)
def test_shape_and_length_must_agree(item_type: str, right: int) -> None:
    for length in range(16):
        data = encode_scores(item_type, [3], b"\0" * length)
        if length == right:
            assert isinstance(decode(Kind.SCORES, data), Scores)
        else:
            assert_scores_refused(data)
            part = (item_type, [3], b"\0" * length)
            assert_scores_refused(msgspec.msgpack.encode((1, 1, "b", 1, 0.0, [part])))


@pytest.mark.parametrize("item_type", ["float64", "int8", "object", "", "<f4", 4, None, b"uint8"])
def test_other_item_types_are_refused(item_type: Any) -> None:
    assert_refused(Kind.SCORES, encode_scores(item_type, [1], b"\0" * 8))


def test_the_second_part_is_checked_too() -> None:
    good, bad = Tensor("uint8", (2,), b"ab"), Tensor("uint8", (3,), b"ab")
    decode(Kind.FEATURES, encode(Features(1, 1, "b", 1, 0.0, (good, good))))
    with pytest.raises(RemoteProtocolError, match="expected 3"):
        decode(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (good, bad))))


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
            assert_refused(kind, data)
    assert_refused(kind, encode(msgspec.structs.replace(message, **{field: {"a" * 65: good}})))


def test_an_array_may_be_empty() -> None:
    message = decode(Kind.SCORES, encode_scores("float32", [0, 3], b""))
    assert isinstance(message, Scores)
    assert message.scores.array().shape == (0, 3)


def test_too_many_parts_are_refused() -> None:
    part = Tensor("uint8", (1,), b"a")
    decode(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (part,) * 64)))
    assert_refused(Kind.UPLINK, encode(Features(1, 1, "b", 1, 0.0, (part,) * 65)))
