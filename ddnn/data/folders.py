"""One's own data: a directory of images per camera, or one .npz file.

A directory::

    PATH/<camera>/<class>/<sample>.png      for example  yard/camera1/cat/0007.png

Cameras are the directories in PATH in natural order (camera2 before camera10). Images of the same
class and sample name in several cameras are one sample; a camera without that file does not see
it. Images (.png, .jpg, .jpeg, .bmp) become RGB of 32x32 pixels. Other files and names that begin
with a dot are passed over.

An .npz file: images uint8 [samples, views, height, width, 3], labels int [samples], and optionally
view_labels int [samples, views] (the label, or -1 where the camera does not see it) and classes
text [classes]. Without view_labels a camera sees whatever is not all black.

Both are split 70/15/15 within each class, by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError

from .archive import (
    MAX_ARRAY_BYTES,
    MAX_CLASSES,
    Expected,
    check_range,
    class_names,
    read_npz,
    refusing,
)
from .dataset import ABSENT, Dataset, Images, Labels, Split, check_enough, label_views

SIZE_PX = 32
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
FORMATS = ("PNG", "JPEG", "BMP")
VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15
MAX_IMAGE_PIXELS = 50_000_000
"""Of one picture before it is scaled down."""
MAX_IMAGES = 1_000_000

_EXPECTED = {
    "images": Expected("u", (None, None, None, None, 3), itemsize=1),
    "labels": Expected("ui", (None,)),
    "view_labels": Expected("i", (None, None), optional=True),
    "classes": Expected("U", (None,), optional=True),
}


def directory(path: Path, *, seed: int = 0, size: int = SIZE_PX) -> Dataset:
    """The images below `path`, scaled to size x size pixels."""
    classes, everything = directory_samples(path, size=size)
    return _divide("directory", classes, everything, seed, path)


def npz(path: Path, *, seed: int = 0) -> Dataset:
    """The arrays of the file at `path`."""
    classes, everything = npz_samples(path)
    return _divide("npz", classes, everything, seed, path)


def npz_samples(path: Path) -> tuple[tuple[str, ...], Split]:
    """The classes and all samples of the file that a camera sees."""
    arrays = read_npz(path, _EXPECTED)
    images, labels = arrays["images"], arrays["labels"]
    if len(labels) != len(images):
        raise ConfigError(
            f"{path}: {len(images)} samples of images, {len(labels)} labels; expected as many"
        )
    check_range(labels, 0, MAX_CLASSES - 1, "labels", path)
    if "classes" in arrays:
        classes = class_names(arrays["classes"], path)
        check_range(labels, 0, len(classes) - 1, "labels", path)
    else:
        classes = tuple(f"class{number}" for number in range(max(2, int(labels.max()) + 1)))
    labels = labels.astype(np.int32)
    if "view_labels" in arrays:
        images = _only_seen(images, labels, arrays["view_labels"], path)
    return classes, _seen_samples(images, labels)


def _only_seen(images: Images, labels: Labels, view_labels: Labels, path: Path) -> Images:
    """The images with those blacked out that their view labels say are not seen."""
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


def _seen_samples(images: Images, labels: Labels) -> Split:
    """All samples but those that no camera sees."""
    groups = np.full(len(labels), ABSENT, np.int32)
    view_labels = label_views(images, labels)
    return Split("samples", images, labels, view_labels, groups).take(
        (view_labels != ABSENT).any(axis=1)
    )


def directory_samples(path: Path, *, size: int = SIZE_PX) -> tuple[tuple[str, ...], Split]:
    """The classes (in the order of their names) and all samples below `path`."""
    with refusing(path):
        files = _find(path)
    classes = tuple(sorted({label for _, label, _ in files}))
    cameras = sorted({camera for camera, _, _ in files}, key=_natural)
    samples = sorted(
        {(label, name) for _, label, name in files},
        key=lambda sample: (sample[0], _natural(sample[1])),
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
    return classes, _seen_samples(images, labels)


def _find(path: Path) -> dict[tuple[str, str, str], Path]:
    """Image files by (camera, class, sample)."""
    if not path.is_dir():
        raise ConfigError(
            f"{path}: no such directory; expected <camera>/<class>/<sample>.png in it"
        )
    files: dict[tuple[str, str, str], Path] = {}
    for camera in _directories(path):
        for label in _directories(camera):
            for file in sorted(label.iterdir()):
                if file.suffix.lower() not in SUFFIXES or file.name.startswith("."):
                    continue
                key = (camera.name, label.name, file.stem)
                if key in files:
                    raise ConfigError(f"{file} and {files[key].name} are one view: remove one")
                files[key] = file
                if len(files) > MAX_IMAGES:
                    raise ConfigError(f"{path}: more than {MAX_IMAGES} images: split the data")
    return files


def _directories(path: Path) -> Iterator[Path]:
    return (p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith("."))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _read_image(file: Path, size: int) -> Images:
    from PIL import Image

    with refusing(file), Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"{file}: {picture.width}x{picture.height} pixels; at most {MAX_IMAGE_PIXELS} are "
                "read: scale it down"
            )
        scaled = picture.convert("RGB").resize(
            (size, size), Image.Resampling.BOX, reducing_gap=None
        )
        return np.asarray(scaled, np.uint8)


def _divide(
    name: str, classes: tuple[str, ...], everything: Split, seed: int, path: Path
) -> Dataset:
    """Splits 70/15/15 within each class."""
    generator = np.random.default_rng(seed)
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    for number in range(len(classes)):
        rows = generator.permutation(np.flatnonzero(everything.labels == number)).tolist()
        # A class of three or more samples is in every split.
        tested = max(round(TEST_SHARE * len(rows)), int(len(rows) >= 3))
        validated = max(round(VALIDATION_SHARE * len(rows)), int(len(rows) >= 3))
        test += rows[:tested]
        validation += rows[tested : tested + validated]
        train += rows[tested + validated :]
    check_enough((len(train), len(validation), len(test)), str(path))
    return Dataset(
        name,
        classes,
        everything.take(sorted(train)).named("train"),
        everything.take(sorted(validation)).named("validation"),
        everything.take(sorted(test)).named("test"),
    )
