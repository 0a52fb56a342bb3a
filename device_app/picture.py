"""Motion in the pictures that a section sees."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

NOISE = 25  # grey levels of 255; a pixel that differs by no more has not changed
MEMORY_S = 1.0  # time constant with which the background follows the pictures


def compute_brightness(image: Image) -> NDArray[np.float32]:
    """The brightness (ITU-R BT.601 luma) of uint8 [height, width, 3]: float32 [height, width]."""
    return np.asarray(image @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def measure_change(now: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    """The share of pixels whose brightness differs by more than NOISE."""
    return float(np.mean(np.abs(now - before) > NOISE))


class MotionGate:
    """Admits pictures while something moves.

    Motion lasts while the share of changed pixels is at least `share`, and `hold_s` longer. The
    first picture counts as motion. Pictures are compared with a background, their exponential
    average over MEMORY_S, so that slow movement adds up and a change of light is motion only once.
    """

    def __init__(self, share: float, hold_s: float) -> None:
        self._share, self._hold_s = share, hold_s
        self._background: NDArray[np.float32] | None = None
        self._seen_s = 0.0
        self._moved_s = -math.inf

    def admit(self, image: Image, at_s: float) -> bool:
        """Add the picture taken at `at_s` (of any clock); returns whether there is motion."""
        now = compute_brightness(image)
        if self._background is None or measure_change(now, self._background) >= self._share:
            self._moved_s = at_s
        if self._background is None:
            self._background = now
        else:
            follow = 1 - math.exp(-max(0.0, at_s - self._seen_s) / MEMORY_S)
            self._background += np.float32(follow) * (now - self._background)
        self._seen_s = at_s
        return 0 <= at_s - self._moved_s <= self._hold_s
