"""Stored frames: data sets, exported frames, directories of images, video files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.frame_order import FrameOrder
from device_app.picture import WHOLE, Image, Roi, crop_and_scale
from device_app.sources import Frame

MAX_PIXELS = 64_000_000


class DatasetSource:
    """Samples of a data set; the sample of a tick is tick modulo the number of samples."""

    preloaded = True

    def __init__(self, spec: str, view: int, shape: tuple[int, int, int]) -> None:
        from ddnn.data import load_samples  # imported here because it takes memory

        split = load_samples(spec)
        _check_view(split.images.shape, view, shape, spec)
        self._images = split.images[:, view].copy()
        self._labels = split.view_labels[:, view]

    def read_frame(self, tick: int) -> Frame:
        index = tick % len(self._images)
        return Frame(self._images[index], int(self._labels[index]))


class FramesSource:
    """Exported frames, memory-mapped.

    images.npy: uint8 [samples, views, height, width, 3]; view_labels.npy: int [samples, views].
    ddnn.runtime.frame_order says which of them a tick shows.
    """

    preloaded = True

    def __init__(self, path: Path, view: int, shape: tuple[int, int, int]) -> None:
        try:
            images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(path / "view_labels.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"frames {path}: {error}") from None
        _check_view(images.shape, view, shape, str(path))
        if images.dtype != np.uint8 or labels.shape != images.shape[:2] or labels.dtype.kind != "i":
            raise ConfigError(
                f"frames {path}: images {images.dtype} {images.shape} and view labels "
                f"{labels.dtype} {labels.shape}; expected uint8 and int [samples, views]"
            )
        self._images, self._labels, self._view = images, labels, view
        self._order = FrameOrder(path, len(images))

    def read_frame(self, tick: int) -> Frame:
        index = self._order.find_frame(tick)
        return Frame(
            np.array(self._images[index, self._view]), int(self._labels[index, self._view])
        )


class StreamSource:
    """Frames of a stream in their order, scaled to the section's input, without labels."""

    preloaded = False

    def __init__(
        self,
        images: Iterator[Image],
        shape: tuple[int, int, int],
        roi: Roi = WHOLE,
        *,
        bgr: bool = False,
    ) -> None:
        self._images, self._shape, self._roi, self._bgr = images, shape, roi, bgr

    def read_frame(self, tick: int) -> Frame:
        return Frame(
            crop_and_scale(next(self._images), self._shape, self._roi, bgr=self._bgr), None
        )


def read_directory(path: Path) -> Iterator[Image]:
    """The images of a directory in the order of their names, repeated.

    Raises ConfigError where there is none or one cannot be read.
    """
    from PIL import Image as Pillow

    if not path.is_dir():
        raise ConfigError(f"directory:{path}: no such directory")
    endings = {".png", ".jpg", ".jpeg", ".bmp"}
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in endings)
    if not files:
        raise ConfigError(f"directory:{path}: no {', '.join(sorted(endings))} in it")

    def read() -> Iterator[Image]:
        for file in cycle(files):
            try:
                with Pillow.open(file) as picture:
                    if picture.width * picture.height > MAX_PIXELS:
                        raise ConfigError(f"{file}: more than {MAX_PIXELS} pixels: scale it down")
                    yield np.asarray(picture.convert("RGB"), np.uint8)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{file}: not a readable image: {error}") from None

    return read()


def _check_view(
    images: tuple[int, ...], view: int, shape: tuple[int, int, int], origin: str
) -> None:
    if len(images) != 5 or not images[0] or view >= images[1] or images[2:] != shape:
        raise ConfigError(
            f"{origin}: images {images}; expected a view {view} of shape {shape}: "
            "use the data set that the bundle was trained for"
        )
