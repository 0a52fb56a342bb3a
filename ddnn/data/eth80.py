"""eth80: photographs of objects of eight classes, each from 41 directions.

The file holds, for every photograph, its class and the number of its object within the class, and
rows of six photographs that six cameras around one object would take. Splits are by object number:
fold t tests on object t, validates on the next and trains on the rest, so that no object of the
training split is in another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.archive import ArraySpec, check_range, read_class_names, read_npz

from .dataset import Dataset, Images, Labels, Split, ViewPool, draw_presence, label_views

SIZE_PX = 32
SIZES_PX = (32, 64)
FIELD_PRESENCE = (0.37, 0.37, 0.46, 0.52, 0.60, 0.73)
"""Share of the samples of the field variant in which each camera sees its object, as the
accuracies of the single cameras in the DDNN paper suggest (A7: Fig. 8)."""

_EXPECTED = {
    "images": ArraySpec("u", (None, None, None, 3), itemsize=1),
    "label": ArraySpec("ui", (None,)),
    "object": ArraySpec("ui", (None,)),
    "classes": ArraySpec("U", (None,)),
    "view_index": ArraySpec("ui", (None, None)),
}


@dataclass(frozen=True, slots=True)
class _Photographs:
    """The arrays of a file.

    images: uint8 [photographs, size, size, 3]; labels, objects: int32 [photographs]
    rigs:   int32 [samples, views], the numbers of each sample's photographs
    """

    classes: tuple[str, ...]
    images: Images
    labels: Labels
    objects: Labels
    rigs: Labels

    @property
    def object_numbers(self) -> list[int]:
        return [int(number) for number in np.unique(self.objects)]


def load_eth80(
    path: Path,
    *,
    seed: int = 0,
    size: int = SIZE_PX,
    objects_test: int | None = None,
    objects_validation: int | None = None,
    train_all: bool = False,
    fine: bool = False,
    presence: Sequence[float] | None = None,
) -> Dataset:
    """Fold `objects_test` (None: the largest object number) of the file at `path`.

    objects_validation: the object to validate on, None: the one after the test's
    train_all: train on the validation object too (thresholds then come from other folds)
    fine: training images at twice the size, for augmentation to scale down
    presence: share of the samples in which each camera sees its object; None: all

    Raises ConfigError for objects that the file does not have and for a file that cannot be read.
    """
    photographs = _read(path, size)
    finer = _read(path, 2 * size) if fine else photographs
    numbers = photographs.object_numbers
    test = numbers[-1] if objects_test is None else objects_test
    if test not in numbers:
        raise ConfigError(f"{path}: object {test} to test on; expected one of {numbers}")
    if len(numbers) < 3:
        raise ConfigError(
            f"{path}: objects {numbers}; training, validation and test need three object numbers; "
            "a file with fewer can only be evaluated"
        )
    validation = (
        numbers[(numbers.index(test) + 1) % len(numbers)]
        if objects_validation is None
        else objects_validation
    )
    if validation not in numbers or validation == test:
        raise ConfigError(
            f"{path}: object {validation} to validate on; expected one of {numbers}, not {test}"
        )
    excluded = (test,) if train_all else (test, validation)
    train = [number for number in numbers if number not in excluded]
    train_split, validation_split, test_split = (
        _split(source, name, objects, child, presence, path)
        for source, name, objects, child in zip(
            (finer, photographs, photographs),
            ("train", "validation", "test"),
            (train, [validation], [test]),
            np.random.SeedSequence(seed).spawn(3),
            strict=True,
        )
    )
    pool = _make_pool(finer, train, None if presence is None else tuple(presence), path)
    name = "eth80" if presence is None else "eth80-field"
    return Dataset(
        name, photographs.classes, train_split, validation_split, test_split, augment_pool=pool
    )


def load_eth80_samples(
    path: Path,
    objects: Sequence[int] | None = None,
    *,
    seed: int = 0,
    size: int = SIZE_PX,
    presence: Sequence[float] | None = None,
) -> tuple[tuple[str, ...], Split]:
    """The classes, and all samples of the objects with these numbers (None: of all objects).

    Raises ConfigError for objects that the file does not have and for a file that cannot be read.
    """
    photographs = _read(path, size)
    numbers = photographs.object_numbers
    wanted = numbers if objects is None else list(objects)
    if not wanted or not set(wanted) <= set(numbers):
        raise ConfigError(f"{path}: objects {wanted} requested; expected some of {numbers}")
    samples = _split(photographs, "samples", wanted, np.random.SeedSequence(seed), presence, path)
    return photographs.classes, samples


def _split(
    photographs: _Photographs,
    name: str,
    objects: Sequence[int],
    seed: np.random.SeedSequence,
    presence: Sequence[float] | None,
    path: Path,
) -> Split:
    object_of_rig = photographs.objects[photographs.rigs[:, 0]]
    rows = np.flatnonzero(np.isin(object_of_rig, objects))
    if rows.size == 0:
        raise ConfigError(
            f"{path}: view_index has no sample of objects {list(objects)}; expected some"
        )
    rigs = photographs.rigs[rows]
    images, labels = photographs.images[rigs], photographs.labels[rigs[:, 0]]
    if presence is not None:
        if len(presence) != rigs.shape[1]:
            raise ConfigError(
                f"presence has {len(presence)} rates; {path} has {rigs.shape[1]} cameras"
            )
        images[~draw_presence(np.random.default_rng(seed), len(rows), presence)] = 0
    return Split(name, images, labels, label_views(images, labels), object_of_rig[rows])


def _make_pool(
    photographs: _Photographs,
    objects: Sequence[int],
    presence: tuple[float, ...] | None,
    path: Path,
) -> ViewPool:
    """The objects with these numbers and all their directions, in the file's order."""
    pairs = np.stack([photographs.labels, photographs.objects], axis=1)
    objects_of_pool = np.unique(pairs[np.isin(photographs.objects, objects)], axis=0)
    rows = [np.flatnonzero((pairs == pair).all(axis=1)) for pair in objects_of_pool]
    counts = {len(row) for row in rows}
    if len(counts) != 1:
        raise ConfigError(
            f"{path}: objects have {sorted(counts)} photographs; expected the same number of each"
        )
    return ViewPool(
        photographs.images[np.stack(rows)], objects_of_pool[:, 0].astype(np.int32), presence
    )


def _read(path: Path, size: int) -> _Photographs:
    if size not in SIZES_PX:
        raise ConfigError(f"eth80: size={size}; expected one of {SIZES_PX}")
    arrays = read_npz(path, _EXPECTED)
    count = len(arrays["images"])
    classes = read_class_names(arrays["classes"], path)

    def refuse(what: str) -> NoReturn:
        raise ConfigError(f"{path}: {what}; expected the layout of ddnn/data/eth80.py")

    if len(arrays["label"]) != count or len(arrays["object"]) != count:
        refuse(f"{count} images, {len(arrays['label'])} labels, {len(arrays['object'])} objects")
    check_range(arrays["label"], 0, len(classes) - 1, "label", path)
    check_range(arrays["object"], 0, 2**31 - 1, "object", path)
    check_range(arrays["view_index"], 0, count - 1, "view_index", path)
    labels, objects = arrays["label"].astype(np.int32), arrays["object"].astype(np.int32)
    rigs = arrays["view_index"].astype(np.int32)
    for name, values in (("classes", labels), ("objects", objects)):
        if (values[rigs] != values[rigs[:, :1]]).any():
            refuse(f"view_index has samples of several {name}")
    images = _scale_down(arrays["images"], size, path)
    if not images.any(axis=(1, 2, 3)).all():
        refuse("an image is all black, which is reserved for cameras that do not see the object")
    return _Photographs(classes, images, labels, objects, rigs)


def _scale_down(images: Images, size: int, path: Path) -> Images:
    """Photographs [n, side, side, 3] at `size`: unchanged, or the means of 2x2 pixels."""
    height, width = images.shape[1:3]
    if height == width == size:
        return images
    if height != width or height != 2 * size:
        raise ConfigError(
            f"{path}: images of {height}x{width} pixels; expected {size}x{size} or "
            f"{2 * size}x{2 * size}"
        )
    blocks = images.reshape(len(images), size, 2, size, 2, 3)
    total = blocks.sum(axis=(2, 4), dtype=np.uint16)
    return np.asarray((total + 2) // 4, np.uint8)
