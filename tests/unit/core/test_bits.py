"""Bit packing, against a packer written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.bits import pack, packed_bytes, unpack

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def pack_by_hand(values: list[float]) -> bytes:
    """eBNN's masks 0x80 … 0x01: the first value is the most significant bit."""
    out = bytearray((len(values) + 7) // 8)
    for i, value in enumerate(values):
        if value >= 0:
            out[i // 8] |= 0x80 >> i % 8
    return bytes(out)


def test_the_first_value_is_the_most_significant_bit() -> None:
    assert pack(np.array([1, -1, -1, -1, -1, -1, -1, -1], np.float32)) == b"\x80"
    assert pack(np.array([-1, -1, -1, -1, -1, -1, -1, 1], np.float32)) == b"\x01"
    assert pack(np.array([-1] * 8 + [1], np.float32)) == b"\x00\x80"


def test_zero_of_either_sign_is_a_one() -> None:
    assert pack(np.array([0.0, -0.0, -1e-38, 1e-38], np.float32)) == b"\xd0"


@given(st.lists(st.floats(allow_nan=False, width=32), max_size=40))
def test_as_by_hand(values: list[float]) -> None:
    data = pack(np.array(values, np.float32))
    assert data == pack_by_hand(values)
    assert len(data) == packed_bytes(len(values))


@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_round_trip_of_any_shape(shape: tuple[int, ...], seed: int) -> None:
    values = np.random.default_rng(seed).choice(np.float32([-1, 1]), shape)
    back = unpack(pack(values), shape)
    np.testing.assert_array_equal(back, values)
    assert back.dtype == np.float32
    assert back.shape == shape


def test_rows_come_before_columns() -> None:
    values = np.array([[1, -1], [-1, 1]], np.float32)
    assert pack(values) == b"\x90"
    assert pack(np.asfortranarray(values)) == b"\x90"
    np.testing.assert_array_equal(unpack(b"\x90", (2, 2)), values)


@pytest.mark.parametrize("count", range(25))
def test_lengths(count: int) -> None:
    right = packed_bytes(count)
    assert right == -(-count // 8)
    for length in range(6):
        if length == right:
            assert unpack(bytes(length), (count,)).tolist() == [-1.0] * count
        else:
            with pytest.raises(ValueError, match="expected"):
                unpack(bytes(length), (count,))
