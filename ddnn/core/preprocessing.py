"""What a picture becomes before a section sees it: the description that a bundle carries.

Training, evaluation and every source of frames follow it (`ddnn.runtime.pictures`), so that a
section sees on a device what it saw in training.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from ddnn.errors import ConfigError


class Roi(NamedTuple):
    """Region of interest, as fractions of the picture: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


WHOLE = Roi(0.0, 0.0, 1.0, 1.0)


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps from a picture to a section's input, in this order.

    orientation: a file is turned upright as its EXIF tag says; a camera delivers upright pictures
    depth:       grey levels of 16 bits are scaled from 0..65535 to 0..255; floats are refused
    background:  what shows through transparent pixels, as RGB
    channels:    of the section's input
    rois:        region of interest by device; a device that is not named has the whole picture
    fit:         how the region gets the aspect ratio of the input: "crop" takes its middle,
                 "stretch" takes all of it
    filter:      "box" averages the pixels of the region that fall on a pixel of the input
    """

    orientation: Literal["EXIF"] = "EXIF"
    depth: Literal["8 of 16 bits"] = "8 of 16 bits"
    background: tuple[int, int, int] = (255, 255, 255)
    channels: Literal["RGB"] = "RGB"
    rois: dict[str, Roi] = {}
    fit: Literal["crop", "stretch"] = "crop"
    filter: Literal["box"] = "box"

    def __post_init__(self) -> None:
        if any(not 0 <= level <= 255 for level in self.background):
            raise ConfigError(f"background {self.background}: expected three levels of 0 to 255")
        for device, roi in self.rois.items():
            if not is_inside(roi):
                raise ConfigError(f"region of interest of {device}: {roi} is not inside the frame")

    def find_roi(self, device: str) -> Roi:
        """The region of interest of a device's camera."""
        return self.rois.get(device, WHOLE)


def is_inside(roi: Roi) -> bool:
    """Whether the region is not empty and lies inside the picture; not for NaN."""
    inside = roi.x >= 0 and roi.y >= 0 and roi.x + roi.w <= 1 + 1e-9 and roi.y + roi.h <= 1 + 1e-9
    return inside and roi.w > 0 and roi.h > 0


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
    if not is_inside(roi):
        raise ConfigError(
            f"--roi {text!r}: expected x,y,w,h as fractions of the frame that lie inside it, "
            "such as 0.25,0,0.5,1 for the middle half"
        )
    return roi


def find_box(
    height: int,
    width: int,
    shape: tuple[int, int, int],
    roi: Roi = WHOLE,
    fit: Literal["crop", "stretch"] = "crop",
) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) of a picture that an input of `shape` shows.

    With "crop" they are the middle of the region of interest, with the aspect ratio of `shape`.
    """
    left, top = min(round(roi.x * width), width - 1), min(round(roi.y * height), height - 1)
    width = min(max(1, round(roi.w * width)), width - left)
    height = min(max(1, round(roi.h * height)), height - top)
    if fit == "stretch":
        return left, top, left + width, top + height
    aspect = shape[1] / shape[0]
    crop_w = max(1, min(width, round(height * aspect)))
    crop_h = max(1, min(height, round(width / aspect)))
    left, top = left + (width - crop_w) // 2, top + (height - crop_h) // 2
    return left, top, left + crop_w, top + crop_h
