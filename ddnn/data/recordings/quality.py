"""What a person must know of a picture while recording: is it dark, is it blurred, is it new?"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

SIDE_PX = 160  # of the grey picture that is measured
HASH_SIDE = 16
DARK, BRIGHT = 40.0, 225.0  # mean grey levels of 0..255
BLURRED = 12.0  # variance of the Laplacian


class PictureQuality(NamedTuple):
    """Figures of one picture.

    brightness: mean grey level, 0..255
    sharpness:  variance of the Laplacian of the picture at SIDE_PX
    hash:       the difference hash, HASH_SIDE * HASH_SIDE bits
    """

    width: int
    height: int
    brightness: float
    sharpness: float
    hash: int

    @property
    def complaints(self) -> list[str]:
        """What is wrong with the picture, in words for the user."""
        found = []
        if self.brightness < DARK:
            found.append("dark")
        elif self.brightness > BRIGHT:
            found.append("overexposed")
        if self.sharpness < BLURRED:
            found.append("blurred")
        return found


def measure_quality(jpeg: bytes) -> PictureQuality:
    """Measure a JPEG picture. Raises ConfigError where it is broken."""
    from PIL import Image

    try:
        with Image.open(BytesIO(jpeg), formats=("JPEG",)) as picture:
            width, height = picture.size
            picture.draft("L", (SIDE_PX, SIDE_PX))  # decodes to a smaller size, which is faster
            grey = picture.convert("L")
    except Exception as error:  # Pillow raises some fifteen unrelated types for broken files
        raise ConfigError(f"no JPEG picture: {error}") from None
    small = np.asarray(grey.resize((SIDE_PX, SIDE_PX)), np.float32)
    tiny = grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    return PictureQuality(
        width,
        height,
        float(small.mean()),
        compute_sharpness(small),
        compute_difference_hash(np.asarray(tiny, np.int16)),
    )


def compute_sharpness(grey: NDArray[np.float32]) -> float:
    """The variance of the Laplacian of a grey picture [height, width]: small without edges."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def compute_difference_hash(grey: NDArray[np.int16]) -> int:
    """A bit for each neighbours in a row: whether it becomes brighter. grey: [n, n + 1]."""
    bits = np.packbits(np.diff(grey, axis=1) > 0)
    return int.from_bytes(bits.tobytes(), "big")
