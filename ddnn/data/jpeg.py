"""Sizes of images as JPEG files: the baseline that transmitted bytes are compared with."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

from .dataset import Images

QUALITY = 90


def measure_jpeg_bytes(images: Images, quality: int = QUALITY) -> NDArray[np.int64]:
    """Sizes in bytes of images uint8 [..., height, width, 3] as JPEG files: int64 [...].

    Raises ConfigError for another dtype or shape and for a quality outside 1..95.
    """
    from PIL import Image

    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise ConfigError(
            f"images to encode as JPEG are {images.dtype} {list(images.shape)}; "
            "expected uint8 [..., height, width, 3]"
        )
    if not 1 <= quality <= 95:
        raise ConfigError(f"JPEG quality {quality}; expected 1 to 95")

    def encode(picture: Images) -> int:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        return buffer.tell()

    flat = images.reshape(-1, *images.shape[-3:])
    sizes = np.fromiter((encode(picture) for picture in flat), np.int64, len(flat))
    return sizes.reshape(images.shape[:-3])
