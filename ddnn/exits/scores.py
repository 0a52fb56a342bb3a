"""Class scores on the wire: float32 as in the paper, or float16, or 8-bit integers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

ScoreType = Literal["float32", "float16", "uint8"]
SCORE_TYPES: tuple[ScoreType, ...] = ("float32", "float16", "uint8")

FLOAT16_MAX = 65504.0


class ScoreFormat(msgspec.Struct, frozen=True):
    """How scores travel. `low` and `high` bound the uint8 grid, chosen on validation data."""

    type: ScoreType = "float32"
    low: float = -1.0
    high: float = 1.0

    @property
    def bytes_per_score(self) -> int:
        return int(np.dtype(self.type).itemsize)

    def encode(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        """float32 [..., classes] -> the array that travels, same shape; too large ones saturate."""
        if self.type == "float32":
            return scores.astype(np.float32)
        if self.type == "float16":
            return np.clip(scores, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
        grid = (scores - self.low) * (255.0 / (self.high - self.low))
        encoded: NDArray[Any] = np.clip(np.rint(grid), 0, 255).astype(np.uint8)
        return encoded

    def decode(self, wire: NDArray[Any]) -> NDArray[np.float32]:
        """The inverse up to rounding: what every receiver computes with."""
        if self.type != "uint8":
            return wire.astype(np.float32)
        step = np.float32((self.high - self.low) / 255.0)
        return wire.astype(np.float32) * step + np.float32(self.low)
