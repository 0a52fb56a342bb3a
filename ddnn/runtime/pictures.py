"""The one way from a picture to a section's input; see `ddnn.core.preprocessing`."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi, find_box
from ddnn.errors import ConfigError

Image = NDArray[np.uint8]

MAX_PIXELS = 64_000_000
TIFF_BITS = 258  # the tag BitsPerSample
DEFAULT = Preprocessing()
# EPS starts another program; Pillow knows the others by name only.
NOT_READ = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")


@cache
def list_formats() -> tuple[str, ...]:
    """The formats of picture files that are read: those of Pillow that it decodes by itself."""
    from PIL import Image as Pillow

    Pillow.init()
    return tuple(sorted({*Pillow.OPEN} - {*NOT_READ}))


@cache
def list_endings() -> frozenset[str]:
    """The endings of picture files, such as .png, in lower case."""
    from PIL import Image as Pillow

    formats = (*list_formats(), "MPO")  # several pictures as JPEG, of which the first is read
    return frozenset(e for e, name in Pillow.registered_extensions().items() if name in formats)


def split_numbers(name: str) -> list[tuple[int, str]]:
    """The key by which names of files and cameras are sorted: numbers in them by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def find_skip_reason(file: Path) -> str:
    """The reason why a file in a folder of pictures is passed over; "" for a picture."""
    if file.name.startswith(".") or file.name.lower() in ("thumbs.db", "desktop.ini"):
        return "hidden, or of the system"
    if file.suffix.lower() not in list_endings():
        return f"ending {file.suffix or '(none)'} is not read"
    return "" if file.is_file() else "no regular file"


def read_picture(file: Path, background: tuple[int, int, int] = DEFAULT.background) -> Image:
    """Read a file as uint8 [height, width, 3]: upright, in RGB, on the background.

    Raises ConfigError, with the remedy, for a file that is broken, too large, or holds floats.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about sizes and metadata
            with Pillow.open(file, formats=list_formats()) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ConfigError(
                        f"{file}: {opened.width}x{opened.height} pixels; at most {MAX_PIXELS} are "
                        "read: scale it down"
                    )
                opened.load()
                picture = ImageOps.exif_transpose(opened)
                bits = _find_bits(opened)
                return _convert_to_rgb(file, picture, opened.format, bits, background)
    except ConfigError:
        raise
    except Exception as error:  # Pillow raises some fifteen unrelated types for broken files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{file}: cannot be read ({reason}): not a readable image, broken or truncated; copy "
            "it again from its origin, or remove it"
        ) from None


def _convert_to_rgb(
    file: Path, picture: Any, kind: str | None, bits: int, background: tuple[int, int, int]
) -> Image:
    from PIL import Image as Pillow

    # PNG has at most 16 bits, which old versions of Pillow open as 32.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        levels = np.asarray(picture, np.int64)
        most = 2**bits - 1  # a camera of 12 bits writes them in 16
        grey = np.minimum((levels * 255 + most // 2) // most, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("F", "I"):
        raise ConfigError(
            f"{file}: pixels are {'floats' if picture.mode == 'F' else 'integers of 32 bits'}, "
            "whose range is not known; expected 8 or 16 bits: convert it"
        )
    if picture.has_transparency_data:
        below = Pillow.new("RGBA", picture.size, (*background, 255))
        picture = Pillow.alpha_composite(below, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"), np.uint8)


def _find_bits(picture: Any) -> int:
    """The bits of a pixel of a picture with more than 8: as a TIFF says, else 16."""
    tags = getattr(picture, "tag_v2", None) or {}
    bits = tags.get(TIFF_BITS, (16,))
    found = int(bits[0] if isinstance(bits, tuple) else bits)
    return found if 8 < found <= 16 else 16


def make_input(
    image: Image,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing = DEFAULT,
    roi: Roi = WHOLE,
    *,
    bgr: bool = False,
) -> Image:
    """Make the section's input of `shape` from a picture, uint8 [height, width, 3].

    A picture in BGR is reversed after scaling: reversing 1280x720 pixels takes longer than scaling
    them.
    """
    from PIL import Image as Pillow

    if image.shape != shape or roi != WHOLE:
        box = find_box(image.shape[0], image.shape[1], shape, roi, preprocessing.fit)
        picture = Pillow.fromarray(image)
        image = np.asarray(
            picture.resize((shape[1], shape[0]), Pillow.Resampling.BOX, box=box), np.uint8
        )
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image
