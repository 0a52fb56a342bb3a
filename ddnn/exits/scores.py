"""The format in which class scores are sent: float32 as in the paper, float16 or 8-bit integers."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

ScoreType = Literal["float32", "float16", "uint8"]
SCORE_TYPES: tuple[ScoreType, ...] = ("float32", "float16", "uint8")

FLOAT16_MAX = 65504.0


class ScoreFormat(msgspec.Struct, frozen=True):
    """A format of scores. `low` and `high`, from validation data, bound the uint8 grid."""

    type: ScoreType = "float32"
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        width = self.high - self.low
        if self.type == "uint8" and not (math.isfinite(width) and width > 0):
            raise ConfigError(
                f"scores as uint8 from {self.low:g} to {self.high:g}: expected a finite low below "
                "high; export the bundle again"
            )

    @property
    def bytes_per_score(self) -> int:
        return int(np.dtype(self.type).itemsize)

    def encode(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        """Encode float32 [..., classes] to an array of that shape; too large values saturate."""
        if self.type == "float32":
            return scores.astype(np.float32)
        if self.type == "float16":
            return np.clip(scores, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
        grid = (scores - self.low) * (255.0 / (self.high - self.low))
        encoded: NDArray[Any] = np.clip(np.rint(grid), 0, 255).astype(np.uint8)
        return encoded

    def decode(self, wire: NDArray[Any]) -> NDArray[np.float32]:
        """Decode to float32: the inverse up to rounding, which every receiver computes with."""
        if self.type != "uint8":
            return wire.astype(np.float32)
        step = np.float32((self.high - self.low) / 255.0)
        return wire.astype(np.float32) * step + np.float32(self.low)
