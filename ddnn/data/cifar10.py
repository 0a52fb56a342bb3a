"""cifar10: 32x32 photographs of ten classes (Krizhevsky, 2009), one view of each.

A directory holds two files. `cifar10_train_jpeg.npz`: jpeg uint8 [bytes], JPEG files one after the
other; offsets int64 [images + 1], where each begins and the last ends; label uint8 [images].
`cifar10_test5000.npz`: images uint8 [images, 32, 32, 3]; label uint8 [images]. The validation split
is a random tenth of the training images, drawn with the seed; files that are sorted by class need
no other treatment.

In `cifar10` one camera sees the whole image. In `cifar10-tiles` each of six cameras sees one tile
of three columns and two rows, as the DDNN authors' later code divides images: columns of 10, 11
and 11 and rows of 16 pixels, each tile enlarged to 32x32 by its nearest pixels.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError
from ddnn.runtime.archive import ArraySpec, check_range, convert_read_errors, read_npz

from .dataset import Dataset, Images, Labels, Split, check_split_sizes, label_views

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
NAMES = ("cifar10", "cifar10-tiles")
TILE_ROWS, TILE_COLUMNS = 2, 3
TRAIN_FILE, TEST_FILE = "cifar10_train_jpeg.npz", "cifar10_test5000.npz"
SIZE_PX = 32
VALIDATION_SHARE = 0.1  # of the training images

_TRAIN = {
    "jpeg": ArraySpec("u", (None,), itemsize=1),
    "offsets": ArraySpec("i", (None,)),
    "label": ArraySpec("ui", (None,)),
}
_TEST = {
    "images": ArraySpec("u", (None, SIZE_PX, SIZE_PX, 3), itemsize=1),
    "label": ArraySpec("ui", (None,)),
}


def load_cifar10(directory: Path, name: str = "cifar10", *, seed: int = 0) -> Dataset:
    """The data set in the two files of a directory; `name` is one of NAMES.

    Raises ConfigError where a file cannot be read or a split is empty.
    """
    train, test = _read_train(directory / TRAIN_FILE), _read_test(directory / TEST_FILE)
    order = np.random.default_rng(seed).permutation(len(train))
    count = round(VALIDATION_SHARE * len(train))
    check_split_sizes((len(train) - count, count, len(test)), str(directory))
    validation, rest = np.split(order, [count])
    convert = _divide if name == "cifar10-tiles" else (lambda split: split)
    return Dataset(
        name,
        CLASSES,
        convert(train.take(rest)),
        convert(train.take(validation).rename("validation")),
        convert(test),
    )


def load_cifar10_samples(directory: Path, name: str = "cifar10") -> Split:
    """All samples of both files, those of the training file first. Raises as `load_cifar10`."""
    parts = _read_train(directory / TRAIN_FILE), _read_test(directory / TEST_FILE)
    images, labels = (
        np.concatenate([getattr(part, field) for part in parts]) for field in ("images", "labels")
    )
    split = _make_split("samples", images[:, 0], labels, directory)
    return _divide(split) if name == "cifar10-tiles" else split


def _divide(split: Split) -> Split:
    """The images as tiles, each the view of a camera: row by row from the upper left.

    A tile that is all black is a view that sees nothing, as everywhere.
    """
    whole = split.images[:, 0]
    edges = [np.linspace(0, SIZE_PX, n + 1).astype(int) for n in (TILE_ROWS, TILE_COLUMNS)]
    tiles = [
        whole[:, _stretch(top, bottom)][:, :, _stretch(left, right)]
        for top, bottom in pairwise(edges[0])
        for left, right in pairwise(edges[1])
    ]
    views = np.stack(tiles, axis=1)
    return replace(split, images=views, view_labels=label_views(views, split.labels))


def _stretch(start: int, end: int) -> NDArray[np.intp]:
    """The nearest pixels of start..end for SIZE_PX pixels."""
    return np.asarray(start + (np.arange(SIZE_PX) + 0.5) * (end - start) // SIZE_PX, np.intp)


def _read_train(path: Path) -> Split:
    arrays = read_npz(path, _TRAIN)
    jpeg, offsets = arrays["jpeg"], arrays["offsets"]
    if offsets[0] != 0 or offsets[-1] != len(jpeg) or (np.diff(offsets) <= 0).any():
        raise ConfigError(
            f"{path}: offsets from {offsets[0]} to {offsets[-1]}; expected increasing numbers from "
            f"0 to {len(jpeg)}, the length of jpeg: copy the file again from its origin"
        )
    if len(offsets) != len(arrays["label"]) + 1:
        raise ConfigError(
            f"{path}: {len(offsets)} offsets for {len(arrays['label'])} labels; expected one more "
            "than labels: copy the file again from its origin"
        )
    files = (jpeg[a:b].tobytes() for a, b in pairwise(offsets))
    images = np.empty((len(arrays["label"]), SIZE_PX, SIZE_PX, 3), np.uint8)
    with convert_read_errors(path):
        for number, file in enumerate(files):
            images[number] = _decode(file, number, path)
    return _make_split("train", images, arrays["label"], path)


def _decode(file: bytes, number: int, path: Path) -> Images:
    """The image of a JPEG file; its size is checked before it is decoded."""
    from PIL import Image

    with Image.open(BytesIO(file), formats=["JPEG"]) as image:
        if image.size != (SIZE_PX, SIZE_PX):
            width, height = image.size
            raise ConfigError(
                f"{path}: image {number} is {height}x{width}; expected {SIZE_PX}x{SIZE_PX}"
            )
        return np.asarray(image.convert("RGB"))


def _read_test(path: Path) -> Split:
    arrays = read_npz(path, _TEST)
    if len(arrays["images"]) != len(arrays["label"]):
        raise ConfigError(
            f"{path}: {len(arrays['images'])} images, {len(arrays['label'])} labels; expected a "
            "label for each image"
        )
    return _make_split("test", arrays["images"], arrays["label"], path)


def _make_split(name: str, images: Images, labels: NDArray[np.integer[Any]], path: Path) -> Split:
    check_range(labels, 0, len(CLASSES) - 1, "label", path)
    of_images: Labels = labels.astype(np.int32)
    views = images[:, None]
    view_labels = label_views(views, of_images)
    if (view_labels != of_images[:, None]).any():
        raise ConfigError(
            f"{path}: an image is all black, which is reserved for cameras that see nothing; "
            "remove it"
        )
    return Split(name, views, of_images, view_labels, np.full(len(labels), -1, np.int32))
