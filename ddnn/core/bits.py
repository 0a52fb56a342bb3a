"""Binary features on the wire: eight activations per byte.

DDNN / eBNN: row-major, most significant bit first; a value >= 0 is a one (paper notes A3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def packed_bytes(count: int) -> int:
    """Bytes that `count` binary activations need."""
    return (count + 7) // 8


def pack(values: NDArray[np.float32]) -> bytes:
    """Pack the signs of `values` (any shape, row-major); -0.0 counts as >= 0."""
    return np.packbits(np.asarray(values).reshape(-1) >= 0).tobytes()


def unpack(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The signs as float32 -1/+1 of `shape`. Raises ValueError where the length does not fit."""
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) != packed_bytes(count):
        raise ValueError(
            f"{len(data)} bytes for {count} bits; expected {packed_bytes(count)} bytes"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count)
    return (bits.astype(np.float32) * 2 - 1).reshape(shape)
