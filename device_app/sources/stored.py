"""Stored frames: data sets, exported frames, directories of images, video files."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.frame_order import FrameOrder
from ddnn.runtime.pictures import find_skip_reason, make_input, read_picture, split_numbers
from device_app.sources import Frame, InputFormat, UnreadableFrameError

log = logging.getLogger(__name__)


class DatasetSource:
    """Samples of a data set; the sample of a tick is tick modulo the number of samples."""

    preloaded = True

    def __init__(
        self, spec: str, view: int, shape: tuple[int, int, int], input_format: InputFormat
    ) -> None:
        from ddnn.data import FolderRequest, load_samples  # here because they take memory

        # All cameras are read, so that every device has the same samples in the same order.
        folders = FolderRequest(
            tuple(input_format.cameras),
            input_format.cameras,
            input_format.classes,
            input_format.preprocessing,
            input_format.pair_by,
            shape,
        )
        split = load_samples(spec, folders=folders)
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


class DirectorySource:
    """Images of a directory in the order in which training sorts them, without labels.

    A file that cannot be read keeps its place, so that the cameras of a site stay aligned.
    """

    preloaded = False

    def __init__(self, path: Path, shape: tuple[int, int, int], input_format: InputFormat) -> None:
        if not path.is_dir():
            raise ConfigError(f"directory:{path}: no such directory")
        skipped = Counter[str]()
        self._files = []
        for file in sorted(path.iterdir(), key=lambda file: split_numbers(file.name)):
            if reason := find_skip_reason(file):
                skipped[reason] += 1
            else:
                self._files.append(file)
        reasons = ", ".join(f"{count} files: {reason}" for reason, count in skipped.items())
        if not self._files:
            raise ConfigError(
                f"directory:{path}: no image in it ({reasons or 'it is empty'}); expected endings "
                f"such as .png, .jpg, .tif, .webp"
            )
        if skipped:
            log.info("directory:%s: %d images; %s", path, len(self._files), reasons)
        self._path, self._shape, self._format = path, shape, input_format
        self._unreadable: set[Path] = set()

    def read_frame(self, tick: int) -> Frame:
        file = self._files[tick % len(self._files)]
        preprocessing = self._format.preprocessing
        try:
            picture = read_picture(file, preprocessing.background)
        except ConfigError as error:
            self._unreadable.add(file)
            if len(self._unreadable) == len(self._files):
                raise ConfigError(f"directory:{self._path}: no readable image: {error}") from None
            raise UnreadableFrameError(str(error)) from None
        self._unreadable.discard(file)
        image = make_input(picture, self._shape, preprocessing, self._format.roi)
        return Frame(image, None, picture)


def _check_view(
    images: tuple[int, ...], view: int, shape: tuple[int, int, int], origin: str
) -> None:
    if len(images) != 5 or not images[0] or view >= images[1] or images[2:] != shape:
        raise ConfigError(
            f"{origin}: images {images}; expected a view {view} of shape {shape}: "
            "use the data set that the bundle was trained for"
        )
