"""What pictures weigh as JPEG files: the baseline that sent bytes are compared with."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

from .dataset import Images

QUALITY = 90


def jpeg_bytes(images: Images, quality: int = QUALITY) -> NDArray[np.int64]:
    """Encoded sizes in bytes: images uint8 [..., height, width, 3] -> int64 [...]."""
    from PIL import Image

    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise ConfigError(
            f"jpeg_bytes: {images.dtype} {list(images.shape)}; "
            "expected uint8 [..., height, width, 3]"
        )
    if not 1 <= quality <= 95:
        raise ConfigError(f"jpeg_bytes: quality {quality}; expected 1 to 95")

    def encoded(picture: Images) -> int:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        return buffer.tell()

    flat = images.reshape(-1, *images.shape[-3:])
    sizes = np.fromiter((encoded(picture) for picture in flat), np.int64, len(flat))
    return sizes.reshape(images.shape[:-3])
