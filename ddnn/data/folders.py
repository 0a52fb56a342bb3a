"""User data: a directory of images per camera, or one .npz file.

A directory::

    PATH/<camera>/<class>/<sample>.png      for example  yard/camera1/cat/0007.png

Cameras are the directories in PATH in natural order (camera2 before camera10). Images of the same
class and sample name in several cameras are one sample; a camera without that file does not see
it. Images (.png, .jpg, .jpeg, .bmp) are converted to RGB of 32x32 pixels. Other files and names
that begin with a dot are ignored.

An .npz file: images uint8 [samples, views, height, width, 3], labels int [samples], and optionally
view_labels int [samples, views] (the label, or -1 where the camera does not see it) and classes
text [classes]. Without view_labels a camera sees the object where its image is not all black.

Both are split 70/15/15 within each class, at random from the seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.archive import (
    MAX_ARRAY_BYTES,
    MAX_CLASSES,
    ArraySpec,
    check_range,
    convert_read_errors,
    read_class_names,
    read_npz,
)

from .dataset import ABSENT, Dataset, Images, Labels, Split, check_split_sizes, label_views

SIZE_PX = 32
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
FORMATS = ("PNG", "JPEG", "BMP")
VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15
MAX_IMAGE_PIXELS = 50_000_000
"""Limit of one image before it is scaled down."""
MAX_IMAGES = 1_000_000

_EXPECTED = {
    "images": ArraySpec("u", (None, None, None, None, 3), itemsize=1),
    "labels": ArraySpec("ui", (None,)),
    "view_labels": ArraySpec("i", (None, None), optional=True),
    "classes": ArraySpec("U", (None,), optional=True),
}


def load_directory(path: Path, *, seed: int = 0, size: int = SIZE_PX) -> Dataset:
    """The data set of the images below `path`, scaled to size x size pixels.

    Raises ConfigError for another layout, an unreadable image or too few samples.
    """
    classes, samples = load_directory_samples(path, size=size)
    return _split_by_class("directory", classes, samples, seed, path)


def load_npz(path: Path, *, seed: int = 0) -> Dataset:
    """The data set of the arrays in the file at `path`.

    Raises ConfigError for another layout, an unreadable file or too few samples.
    """
    classes, samples = load_npz_samples(path)
    return _split_by_class("npz", classes, samples, seed, path)


def load_npz_samples(path: Path) -> tuple[tuple[str, ...], Split]:
    """The classes, and all samples of the file that a camera sees."""
    arrays = read_npz(path, _EXPECTED)
    images, labels = arrays["images"], arrays["labels"]
    if len(labels) != len(images):
        raise ConfigError(
            f"{path}: {len(images)} samples of images, {len(labels)} labels; expected equal counts"
        )
    check_range(labels, 0, MAX_CLASSES - 1, "labels", path)
    if "classes" in arrays:
        classes = read_class_names(arrays["classes"], path)
        check_range(labels, 0, len(classes) - 1, "labels", path)
    else:
        classes = tuple(f"class{number}" for number in range(max(2, int(labels.max()) + 1)))
    labels = labels.astype(np.int32)
    if "view_labels" in arrays:
        images = _blank_unseen(images, labels, arrays["view_labels"], path)
    return classes, _select_seen(images, labels)


def _blank_unseen(images: Images, labels: Labels, view_labels: Labels, path: Path) -> Images:
    """The images, with zeros where the view label is -1."""
    if view_labels.shape != images.shape[:2]:
        raise ConfigError(
            f"{path}: view_labels {list(view_labels.shape)}; expected {list(images.shape[:2])}"
        )
    absent = view_labels == ABSENT
    if not (absent | (view_labels == labels[:, None])).all():
        raise ConfigError(
            f"{path}: view_labels differ from labels; expected the sample's label, or {ABSENT} "
            "where the camera does not see it"
        )
    return np.where(absent[..., None, None, None], np.uint8(0), images)


def _select_seen(images: Images, labels: Labels) -> Split:
    """The samples that at least one camera sees."""
    groups = np.full(len(labels), ABSENT, np.int32)
    view_labels = label_views(images, labels)
    return Split("samples", images, labels, view_labels, groups).take(
        (view_labels != ABSENT).any(axis=1)
    )


def load_directory_samples(path: Path, *, size: int = SIZE_PX) -> tuple[tuple[str, ...], Split]:
    """The classes, in the order of their names, and all samples below `path`."""
    with convert_read_errors(path):
        files = _find_images(path)
    classes = tuple(sorted({label for _, label, _ in files}))
    cameras = sorted({camera for camera, _, _ in files}, key=_split_numbers)
    samples = sorted(
        {(label, name) for _, label, name in files},
        key=lambda sample: (sample[0], _split_numbers(sample[1])),
    )
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise ConfigError(
            f"{path}: images of {len(classes)} classes {classes[:5]}; expected at least two, as "
            f"{path}/<camera>/<class>/<sample>.png"
        )
    shape = (len(samples), len(cameras), size, size, 3)
    if np.prod(shape, dtype=object) > MAX_ARRAY_BYTES:
        raise ConfigError(
            f"{path}: {len(samples)} samples of {len(cameras)} cameras at {size}x{size} are over "
            f"{MAX_ARRAY_BYTES} bytes: split the data"
        )
    images = np.zeros(shape, np.uint8)
    row = {sample: number for number, sample in enumerate(samples)}
    column = {camera: number for number, camera in enumerate(cameras)}
    for (camera, label, name), file in files.items():
        images[row[label, name], column[camera]] = _read_image(file, size)
    labels = np.array([classes.index(label) for label, _ in samples], np.int32)
    return classes, _select_seen(images, labels)


def _find_images(path: Path) -> dict[tuple[str, str, str], Path]:
    """Image files by (camera, class, sample)."""
    if not path.is_dir():
        raise ConfigError(
            f"{path}: no such directory; expected <camera>/<class>/<sample>.png in it"
        )
    files: dict[tuple[str, str, str], Path] = {}
    for camera in _list_directories(path):
        for label in _list_directories(camera):
            for file in sorted(label.iterdir()):
                if file.suffix.lower() not in SUFFIXES or file.name.startswith("."):
                    continue
                key = (camera.name, label.name, file.stem)
                if key in files:
                    raise ConfigError(
                        f"{file} and {files[key].name} are one view of a sample: remove one"
                    )
                files[key] = file
                if len(files) > MAX_IMAGES:
                    raise ConfigError(f"{path}: more than {MAX_IMAGES} images: split the data")
    return files


def _list_directories(path: Path) -> Iterator[Path]:
    return (p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith("."))


def _split_numbers(name: str) -> list[tuple[int, str]]:
    """A sort key that compares numbers in names by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _read_image(file: Path, size: int) -> Images:
    from PIL import Image

    with convert_read_errors(file), Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"{file}: {picture.width}x{picture.height} pixels; at most {MAX_IMAGE_PIXELS} are "
                "supported: scale it down"
            )
        scaled = picture.convert("RGB").resize(
            (size, size), Image.Resampling.BOX, reducing_gap=None
        )
        return np.asarray(scaled, np.uint8)


def _split_by_class(
    name: str, classes: tuple[str, ...], samples: Split, seed: int, path: Path
) -> Dataset:
    """Split 70/15/15 within each class."""
    generator = np.random.default_rng(seed)
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for number in range(len(classes)):
        rows = generator.permutation(np.flatnonzero(samples.labels == number)).tolist()
        # A class of three or more samples is in every split.
        test_count = max(round(TEST_SHARE * len(rows)), int(len(rows) >= 3))
        validation_count = max(round(VALIDATION_SHARE * len(rows)), int(len(rows) >= 3))
        test += rows[:test_count]
        validation += rows[test_count : test_count + validation_count]
        train += rows[test_count + validation_count :]
    check_split_sizes((len(train), len(validation), len(test)), str(path))
    return Dataset(
        name,
        classes,
        samples.take(sorted(train)).rename("train"),
        samples.take(sorted(validation)).rename("validation"),
        samples.take(sorted(test)).rename("test"),
    )
