"""Frame sources by URI. A source gives the frame of a tick; the newest frame wins.

dataset:NAME[:PATH]     the test samples of a data set, aligned over all cameras by the tick
frames:DIR              the same, exported by `ddnn demo` (memory-mapped, no rendering)
directory:DIR           images of a directory in the order of their names, over and over
video:FILE              a video file, over and over
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

KINDS = ("dataset", "frames", "directory", "video")
MAX_PIXELS = 64_000_000
Image = NDArray[np.uint8]


class Frame(NamedTuple):
    image: Image  # uint8 [height, width, 3]
    label: int | None  # of the object, -1 where this view does not show it, None: not known


class FrameSource(Protocol):
    """`at_hand`: a frame costs no waiting and no decoding."""

    at_hand: bool

    def frame(self, tick: int) -> Frame: ...


def parse_uri(uri: str) -> tuple[str, str]:
    """Kind and path of a source; ConfigError where there is no such kind."""
    kind, _, rest = uri.partition(":")
    if kind not in KINDS or not rest:
        raise ConfigError(f"--source {uri!r}: expected KIND:… with KIND one of {', '.join(KINDS)}")
    return kind, rest


def open_source(uri: str, view: int, shape: tuple[int, int, int]) -> FrameSource:
    """The source `uri` for camera number `view`, giving images of `shape`."""
    kind, rest = parse_uri(uri)
    if kind == "dataset":
        return DatasetSource(rest, view, shape)
    if kind == "frames":
        return FramesSource(Path(rest), view, shape)
    images = _directory(Path(rest)) if kind == "directory" else _video(Path(rest))
    return StreamSource(images, shape)


class DatasetSource:
    """Sample number tick modulo the number of samples."""

    at_hand = True

    def __init__(self, spec: str, view: int, shape: tuple[int, int, int]) -> None:
        from ddnn.data import load_samples  # only here: rendering costs memory

        split = load_samples(spec)
        _check_view(split.images.shape, view, shape, spec)
        self._images = split.images[:, view].copy()
        self._labels = split.view_labels[:, view]

    def frame(self, tick: int) -> Frame:
        index = tick % len(self._images)
        return Frame(self._images[index], int(self._labels[index]))


class FramesSource:
    """images.npy [samples, views, height, width, 3] and view_labels.npy, mapped, not loaded."""

    at_hand = True

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
                f"{labels.dtype} {labels.shape} do not belong together"
            )
        self._images, self._labels, self._view = images, labels, view

    def frame(self, tick: int) -> Frame:
        index = tick % len(self._images)
        return Frame(
            np.array(self._images[index, self._view]), int(self._labels[index, self._view])
        )


class StreamSource:
    """Frames one after the other, scaled to the section's input; nothing is known of labels."""

    at_hand = False

    def __init__(self, images: Iterator[Image], shape: tuple[int, int, int]) -> None:
        self._images, self._shape = images, shape

    def frame(self, tick: int) -> Frame:
        return Frame(scaled(next(self._images), self._shape), None)


def scaled(image: Image, shape: tuple[int, int, int]) -> Image:
    """The middle square (or the section's aspect) of `image`, averaged down to `shape`."""
    from PIL import Image as Pillow

    if image.shape == shape:
        return image
    height, width, _ = image.shape
    want = shape[1] / shape[0]
    crop_w, crop_h = min(width, round(height * want)), min(height, round(width / want))
    left, top = (width - crop_w) // 2, (height - crop_h) // 2
    box = (left, top, left + crop_w, top + crop_h)
    picture = Pillow.fromarray(image)
    return np.asarray(
        picture.resize((shape[1], shape[0]), Pillow.Resampling.BOX, box=box), np.uint8
    )


def _directory(path: Path) -> Iterator[Image]:
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
                        raise ConfigError(f"{file}: more than {MAX_PIXELS} pixels")
                    yield np.asarray(picture.convert("RGB"), np.uint8)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{file}: not a readable image: {error}") from None

    return read()


def _video(path: Path) -> Iterator[Image]:
    try:
        import cv2  # the extra `camera`
    except ImportError:
        raise ConfigError("video files need the extra `camera`: pip install 'ddnn[camera]'") from (
            None
        )
    if not path.is_file():
        raise ConfigError(f"video:{path}: no such file")

    def read() -> Iterator[Image]:
        while True:
            capture = cv2.VideoCapture(str(path))
            frames = 0
            try:
                while True:
                    ok, image = capture.read()
                    if not ok:
                        break
                    frames += 1
                    yield np.ascontiguousarray(image[:, :, ::-1])
            finally:
                capture.release()
            if not frames:
                raise ConfigError(f"video:{path}: no frame can be decoded from it")

    return read()


def _check_view(images: tuple[int, ...], view: int, shape: tuple[int, int, int], what: str) -> None:
    if len(images) != 5 or not images[0] or view >= images[1] or images[2:] != shape:
        raise ConfigError(
            f"{what}: images {images} do not give view {view} of shape {shape}; "
            "use the data set that the bundle was trained for"
        )
