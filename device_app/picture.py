"""From a camera's picture to a section's input: region of interest, scaling, motion. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

Image = NDArray[np.uint8]

NOISE = 25  # grey levels of 255: a pixel that differs by less has not changed
MEMORY_S = 1.0  # what stands still for about so long becomes part of the background


class Roi(NamedTuple):
    """Region of interest, as fractions of the frame: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


WHOLE = Roi(0.0, 0.0, 1.0, 1.0)


def parse_roi(text: str) -> Roi:
    """`x,y,w,h`; the empty text is the whole frame. ConfigError unless it lies inside the frame."""
    if not text:
        return WHOLE
    try:
        roi = Roi(*(float(part) for part in text.split(",")))
    except (ValueError, TypeError):
        roi = Roi(math.nan, 0, 0, 0)
    inside = roi.x >= 0 and roi.y >= 0 and roi.x + roi.w <= 1 + 1e-9 and roi.y + roi.h <= 1 + 1e-9
    if not (inside and roi.w > 0 and roi.h > 0):
        raise ConfigError(
            f"--roi {text!r}: expected x,y,w,h as fractions of the frame that lie inside it, "
            "such as 0.25,0,0.5,1 for the middle half"
        )
    return roi


def region(
    height: int, width: int, shape: tuple[int, int, int], roi: Roi = WHOLE
) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) that a section's input shows: the middle of the region
    of interest, in the aspect of `shape`."""
    left, top = min(round(roi.x * width), width - 1), min(round(roi.y * height), height - 1)
    width = min(max(1, round(roi.w * width)), width - left)
    height = min(max(1, round(roi.h * height)), height - top)
    aspect = shape[1] / shape[0]
    crop_w = max(1, min(width, round(height * aspect)))
    crop_h = max(1, min(height, round(width / aspect)))
    left, top = left + (width - crop_w) // 2, top + (height - crop_h) // 2
    return left, top, left + crop_w, top + crop_h


def scaled(
    image: Image, shape: tuple[int, int, int], roi: Roi = WHOLE, *, bgr: bool = False
) -> Image:
    """`region` of `image`, averaged down to `shape`, as RGB.

    A picture in BGR is turned around after it was scaled, when that costs nothing: turning round
    a frame of 1280x720 takes longer than scaling it.
    """
    from PIL import Image as Pillow  # only here: stored frames have their size

    if image.shape != shape or roi != WHOLE:
        box = region(image.shape[0], image.shape[1], shape, roi)
        picture = Pillow.fromarray(image)
        image = np.asarray(
            picture.resize((shape[1], shape[0]), Pillow.Resampling.BOX, box=box), np.uint8
        )
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


def grey(image: Image) -> NDArray[np.float32]:
    """float32 [height, width]: the brightness (ITU-R BT.601 luma)."""
    return np.asarray(image @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def changed(now: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    """The share of pixels that differ by more than noise."""
    return float(np.mean(np.abs(now - before) > NOISE))


class MotionGate:
    """Open while something moves: while the share of changed pixels is at least `share`, and for
    `hold_s` after that. The first frame counts as motion.

    Compared is with a background that follows what is seen (an exponential average over MEMORY_S),
    so that slow movement adds up and a change of light is motion only once.
    """

    def __init__(self, share: float, hold_s: float) -> None:
        self._share, self._hold_s = share, hold_s
        self._background: NDArray[np.float32] | None = None
        self._seen_s = 0.0
        self._moved_s = -math.inf

    def passes(self, image: Image, at_s: float) -> bool:
        """Take the image of the moment `at_s` (of any clock) and say whether it may pass."""
        now = grey(image)
        if self._background is None or changed(now, self._background) >= self._share:
            self._moved_s = at_s
        if self._background is None:
            self._background = now
        else:
            follow = 1 - math.exp(-max(0.0, at_s - self._seen_s) / MEMORY_S)
            self._background += np.float32(follow) * (now - self._background)
        self._seen_s = at_s
        return 0 <= at_s - self._moved_s <= self._hold_s
