"""Pure functions from a camera's picture to a section's input: region, scaling, motion."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

Image = NDArray[np.uint8]

NOISE = 25  # grey levels of 255; a pixel that differs by no more has not changed
MEMORY_S = 1.0  # time constant with which the background follows the pictures


class Roi(NamedTuple):
    """Region of interest, as fractions of the frame: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


WHOLE = Roi(0.0, 0.0, 1.0, 1.0)


def parse_roi(text: str) -> Roi:
    """Parse `x,y,w,h`; the empty text is the whole frame.

    Raises ConfigError unless the region lies inside the frame.
    """
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


def find_crop(
    height: int, width: int, shape: tuple[int, int, int], roi: Roi = WHOLE
) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) that a section's input shows.

    They are the middle of the region of interest, with the aspect ratio of `shape`.
    """
    left, top = min(round(roi.x * width), width - 1), min(round(roi.y * height), height - 1)
    width = min(max(1, round(roi.w * width)), width - left)
    height = min(max(1, round(roi.h * height)), height - top)
    aspect = shape[1] / shape[0]
    crop_w = max(1, min(width, round(height * aspect)))
    crop_h = max(1, min(height, round(width / aspect)))
    left, top = left + (width - crop_w) // 2, top + (height - crop_h) // 2
    return left, top, left + crop_w, top + crop_h


def crop_and_scale(
    image: Image, shape: tuple[int, int, int], roi: Roi = WHOLE, *, bgr: bool = False
) -> Image:
    """Crop `image` (`find_crop`) and average it down to `shape` [height, width, 3], as RGB.

    A picture in BGR is reversed after scaling: reversing 1280x720 pixels takes longer than scaling
    them.
    """
    from PIL import Image as Pillow  # imported here because stored frames need no scaling

    if image.shape != shape or roi != WHOLE:
        box = find_crop(image.shape[0], image.shape[1], shape, roi)
        picture = Pillow.fromarray(image)
        image = np.asarray(
            picture.resize((shape[1], shape[0]), Pillow.Resampling.BOX, box=box), np.uint8
        )
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


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
