"""Numbers, nesting, lengths and text that a hostile peer may send."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgspec
import pytest

from ddnn.errors import RemoteProtocolError
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.topics import Kind
from tests.unit.protocol.codec_checks import KINDS, MSGPACK, assert_refused
from tests.unit.protocol.messages_made import SAMPLES, answer


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1.1e12, 1e308])
def test_instants_are_finite_and_bounded(number: float) -> None:
    for kind in (Kind.SCORES, Kind.FEATURES, Kind.UPLINK, Kind.VERDICT):
        message: Any = SAMPLES[kind]
        assert_refused(kind, encode(msgspec.structs.replace(message, captured_at_s=number)))


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b'""'])
def test_json_numbers_are_finite(literal: bytes) -> None:
    data = encode(answer(eta=0.75))
    assert data.count(b'"eta":0.75') == 1
    assert_refused(Kind.ANSWER, data.replace(b'"eta":0.75', b'"eta":' + literal))


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
    assert_refused(Kind.OFFER, data.replace(value, other))


@pytest.mark.parametrize("digits", [17, 20, 400, 100_000])
def test_huge_integers_are_refused(digits: int) -> None:
    data = encode(answer(77777)).replace(b"77777", b"9" * digits)
    assert_refused(Kind.ANSWER, data)
    assert_refused(Kind.ACK, b'{"samples":[' + b"9" * digits + b"]}")


@KINDS
def test_deep_nesting_is_refused(kind: Kind) -> None:
    for depth in (100, 5_000, 1_000_000):
        assert_refused(kind, (b"\x91" if kind in MSGPACK else b"[") * depth)
        assert_refused(kind, b'{"unknown":' * depth)


def test_deep_nesting_in_skipped_fields_is_refused() -> None:
    data = encode(SAMPLES[Kind.SCORES])
    assert_refused(Kind.SCORES, bytes([data[0] + 1]) + data[1:] + b"\x91" * 1_000_000 + b"\xc0")
    assert_refused(Kind.ACK, b'{"samples":[],"x":' + b"[" * 500_000 + b"]" * 500_000 + b"}")


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
            decode_or_refuse(kind, data[:cut] + claimed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def decode_or_refuse(kind: Kind, data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(kind, data)


@pytest.mark.parametrize("kind", [Kind.ANSWER, Kind.SCORES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0", b"\x80\x80"])
def test_text_that_is_not_utf_8_is_refused(kind: Kind, bad: bytes) -> None:
    data = encode(SAMPLES[kind])
    assert b"b1" in data
    assert_refused(kind, data.replace(b"b1", bad))


def test_a_lone_surrogate_is_refused() -> None:
    assert_refused(Kind.ANSWER, encode(SAMPLES[Kind.ANSWER]).replace(b"b1", b"\\ud800"))


@pytest.mark.parametrize("node", ["", "Cam1", "cam 1", "cam1\n", "a" * 65, "+", "a/b", "cäm", "#"])
def test_ids_that_no_topic_may_contain_are_refused(node: str) -> None:
    assert_refused(Kind.ANSWER, encode(answer(node=node)))
    assert_refused(Kind.ANSWER, encode(answer(members=["cam1", node])))
    assert_refused(Kind.BACKLOG, encode_backlog(answer(missing=[node])))


def encode_backlog(*answers: Any) -> bytes:
    return msgspec.json.encode({"answers": answers})


@pytest.mark.parametrize("size", [256, 257])
def test_a_batch_is_bounded(size: int) -> None:
    data = encode_backlog(*[answer(i) for i in range(size)])
    if size > 256:
        assert_refused(Kind.BACKLOG, data)
    else:
        decode(Kind.BACKLOG, data)
