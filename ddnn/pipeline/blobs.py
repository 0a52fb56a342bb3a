"""Named arrays as bytes and back: layer states, activations, gradients and labels on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from ddnn.core.section import Array
from ddnn.errors import LocalProtocolError, RemoteProtocolError

TYPES = frozenset(
    {"float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool"}
)
MAX_RANK = 8

_Side = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]
_Shape = Annotated[tuple[_Side, ...], msgspec.Meta(max_length=MAX_RANK)]
_Packed = dict[str, tuple[str, _Shape, bytes]]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Arrays as type, shape and raw little-endian bytes, the same bits on every machine."""
    packed: _Packed = {}
    for name, array in arrays.items():
        if array.dtype.name not in TYPES:
            raise LocalProtocolError(
                f"array {name} of {array.dtype} does not travel; use one of {sorted(TYPES)}"
            )
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        packed[name] = (array.dtype.name, array.shape, little.tobytes())
    return _ENCODER.encode(packed)


def unpack_arrays(blob: bytes) -> dict[str, Array]:
    """The arrays of `pack_arrays`, read-only; RemoteProtocolError where the bytes are no such."""
    try:
        packed = _DECODER.decode(blob)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteProtocolError(f"{len(blob)} bytes are no arrays: {error}") from None
    arrays: dict[str, Array] = {}
    for name, (type_name, shape, data) in packed.items():
        if type_name not in TYPES:
            raise RemoteProtocolError(f"array {name} is of type {type_name[:20]!r}")
        dtype = np.dtype(type_name).newbyteorder("<")
        expected = math.prod(shape) * dtype.itemsize
        if len(data) != expected:
            raise RemoteProtocolError(
                f"array {name} {type_name} {shape}: {len(data)} bytes, expected {expected}"
            )
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return arrays


def pack_array(array: Array) -> bytes:
    return pack_arrays({"x": array})


def unpack_array(blob: bytes) -> Array:
    """The array of `pack_array`; RemoteProtocolError where the bytes are no such."""
    arrays = unpack_arrays(blob)
    if arrays.keys() != {"x"}:
        raise RemoteProtocolError(f"arrays {sorted(arrays)[:4]}, expected one named x")
    return arrays["x"]
