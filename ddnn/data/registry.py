"""Data sets by name: `NAME` or `NAME:PATH`.

==============  =========================  ====================================================
name            path                       content
==============  =========================  ====================================================
scenes          none                       rendered street scenes of three kinds, six cameras
scenes5         none                       the same, five kinds that are more alike (the default)
scenes8         none                       the same, eight kinds
eth80           .npz, or $DDNN_DATA        photographs of objects of eight classes, six cameras
eth80-field     as eth80                   the same, each camera absent from some samples
mvmc            .npz, or $DDNN_DATA        the DDNN paper's own data
cifar10         folder, or $DDNN_DATA      photographs of ten classes, one camera
cifar10-tiles   as cifar10                 the same, six cameras each see one tile of 3x2
directory       a directory                user images, <camera>/<class>/<sample>.png
npz             .npz                       user arrays
==============  =========================  ====================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ddnn.errors import ConfigError

from . import cifar10, mvmc, scenes
from .arrays import load_npz, load_npz_samples, scale_views
from .dataset import Dataset, Split, ViewPool, take_views
from .eth80 import FIELD_PRESENCE, SIZE_PX, load_eth80, load_eth80_samples
from .folders import FolderRequest, load_directory, load_directory_samples
from .rendered import draw_split_once, load_rendered
from .splits import relabel

RENDERED = ("scenes", "scenes5", "scenes8")
NAMES = (*RENDERED, "eth80", "eth80-field", "mvmc", *cifar10.NAMES, "directory", "npz")
DATA_VARIABLE = "DDNN_DATA"
"""Environment variable that names a directory with eth80.npz, mvmc.npz and the files of cifar10."""

MAX_SIZE_PX = 512

_ETH80 = ("eth80", "eth80-field")
# The data sets that have each option.
_OPTIONS = {
    "objects": _ETH80,
    "objects_test": _ETH80,
    "objects_validation": _ETH80,
    "train_all": _ETH80,
    "fine": _ETH80,
    "presence": _ETH80,
    "size": (*_ETH80, "directory"),
    "samples": RENDERED,
}
_DEFAULT_FILES = {
    "eth80": "eth80.npz",
    "eth80-field": "eth80.npz",
    "mvmc": "mvmc.npz",
    **dict.fromkeys(cifar10.NAMES, ""),  # the directory itself
}


def load(
    spec: str,
    *,
    seed: int = 0,
    views: int | None = None,
    objects_test: int | None = None,
    objects_validation: int | None = None,
    train_all: bool = False,
    fine: bool = False,
    presence: Sequence[float] | None = None,
    size: int = SIZE_PX,
    samples: tuple[int, int, int] | None = None,
    folders: FolderRequest | None = None,
) -> Dataset:
    """The data set `NAME[:PATH]`, in three splits; the same seed gives the same bytes.

    views:        how many cameras to keep, from the first; None: all
    objects_test: eth80: the object number to test on, None: the largest
    objects_validation: eth80: the object number to validate on, None: the next
    train_all:    eth80: train on the validation object too
    fine:         eth80: training images at twice the size, for augmentation to scale down
    presence:     eth80: share of the samples in which each camera sees its object
    size:         eth80: 32 or 64 pixels; directory: any up to 512
    samples:      scenes, scenes5, scenes8: sizes of the training, validation and test split
    folders:      directory: cameras, pairing and preprocessing, in place of `size`

    Raises ConfigError for an unknown name, an option that the data set does not have, and a file
    that cannot be used.
    """
    name, path = _parse(spec)
    _check_numbers(seed, size)
    _refuse_options(
        name,
        objects_test=objects_test,
        objects_validation=objects_validation,
        train_all=train_all or None,
        fine=fine or None,
        presence=presence,
        size=None if size == SIZE_PX else size,
        samples=samples,
    )
    rates = FIELD_PRESENCE if name == "eth80-field" and presence is None else presence
    match name:
        case "scenes" | "scenes5" | "scenes8":
            dataset = load_rendered(name, seed=seed, samples=samples or scenes.SAMPLES[name])
        case "eth80" | "eth80-field":
            dataset = load_eth80(
                path,
                seed=seed,
                size=size,
                objects_test=objects_test,
                objects_validation=objects_validation,
                train_all=train_all,
                fine=fine,
                presence=rates,
            )
        case "mvmc":
            dataset = mvmc.load_mvmc(path)
        case "cifar10" | "cifar10-tiles":
            dataset = cifar10.load_cifar10(path, name, seed=seed)
        case "directory":
            dataset = load_directory(path, folders or _make_request(size), seed=seed)
        case _:
            dataset = load_npz(path, seed=seed)
    return dataset if views is None else _take_dataset_views(dataset, views)


def load_samples(
    spec: str,
    objects: Sequence[int] | None = None,
    *,
    seed: int = 0,
    views: int | None = None,
    presence: Sequence[float] | None = None,
    size: int = SIZE_PX,
    samples: int | None = None,
    folders: FolderRequest | None = None,
) -> Split:
    """Samples to evaluate on: all samples of the file, which may be too small for three splits.

    objects: eth80: only the objects with these numbers
    samples: scenes, scenes5, scenes8, which have no file: the size of its test split, which is
             what is returned
    folders: directory, npz: cameras, pairing and preprocessing, in place of `size`; labels of every
             data set number its classes where it has some

    The other parameters and errors are those of `load`.
    """
    name, path = _parse(spec)
    _check_numbers(seed, size)
    _refuse_options(
        name,
        objects=objects,
        presence=presence,
        size=None if size == SIZE_PX else size,
        samples=samples,
    )
    rates = FIELD_PRESENCE if name == "eth80-field" and presence is None else presence
    own: tuple[str, ...]
    match name:
        case "scenes" | "scenes5" | "scenes8":
            count = scenes.SAMPLES[name][2] if samples is None else samples
            own = scenes.list_classes(name)
            split = draw_split_once("test", name, seed=seed, samples=count)
        case "eth80" | "eth80-field":
            own, split = load_eth80_samples(path, objects, seed=seed, size=size, presence=rates)
        case "mvmc":
            own, split = mvmc.CLASSES, mvmc.load_mvmc_samples(path)
        case "cifar10" | "cifar10-tiles":
            own, split = cifar10.CLASSES, cifar10.load_cifar10_samples(path, name)
        case "directory":
            found = load_directory_samples(path, folders or _make_request(size))
            own, split = found.classes, found.samples
        case _:
            own, split = load_npz_samples(path)
    if len(split) == 0:
        raise ConfigError(f"{spec}: no camera sees any sample")
    if folders is not None:
        split = relabel(split, own, folders.classes, spec)
        split = scale_split(name, split, folders)
    return split if views is None else take_views(split, views)


def digest_files(spec: str) -> str:
    """A digest of the names, sizes and times of change of a data set's files; "" where it is
    rendered. ConfigError for an unknown name."""
    name, path = _parse(spec)
    if name in RENDERED:
        return ""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode(errors="surrogateescape"))
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        with contextlib.suppress(OSError):  # gone meanwhile
            found = file.stat()
            if stat.S_ISREG(found.st_mode):
                entry = f"{file.relative_to(path)}\0{found.st_size}\0{found.st_mtime_ns}\0"
                digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]


def scale_split(name: str, split: Split, folders: FolderRequest) -> Split:
    """The samples of an npz file as inputs of a bundle; those of other data sets as they are."""
    if name != "npz":
        return split
    images = scale_views(split.images, folders.shape, folders.preprocessing, folders.devices)
    return replace(split, images=images)


def _make_request(size: int) -> FolderRequest:
    return FolderRequest(shape=(size, size, 3))


def _parse(spec: str) -> tuple[str, Path]:
    """The name and the path of a specification; the path is unused for rendered ones."""
    name, colon, path = spec.partition(":")
    if name not in NAMES:
        raise ConfigError(
            f"data set {spec!r}: unknown name; expected NAME[:PATH] with one of {', '.join(NAMES)}"
        )
    if name in RENDERED:
        if colon:
            raise ConfigError(f"data set {spec!r}: {name} is rendered and takes no path")
        return name, Path()
    if path:
        return name, Path(path)
    if name not in _DEFAULT_FILES:
        raise ConfigError(f"data set {spec!r}: no path given; write {name}:PATH")
    if not (parent := os.environ.get(DATA_VARIABLE)):
        raise ConfigError(
            f"data set {spec!r}: no file given; write {name}:PATH, or set {DATA_VARIABLE} to the "
            f"directory that holds {_DEFAULT_FILES[name] or 'its files'}"
        )
    return name, Path(parent) / _DEFAULT_FILES[name]


def _check_numbers(seed: int, size: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed={seed}; expected 0 or more")
    if not 1 <= size <= MAX_SIZE_PX:
        raise ConfigError(f"size={size}; expected 1 to {MAX_SIZE_PX} pixels")


def _refuse_options(name: str, **options: object) -> None:
    """Raise ConfigError where an option is given (not None) that the data set does not have."""
    for option, value in options.items():
        owners = _OPTIONS[option]
        if value is not None and name not in owners:
            raise ConfigError(
                f"data set {name!r} has no option {option} (given: {value!r}); "
                f"it belongs to {', '.join(owners)}"
            )


def _take_dataset_views(dataset: Dataset, views: int) -> Dataset:
    pool = dataset.augment_pool
    if pool is not None and pool.presence is not None:
        pool = ViewPool(pool.images, pool.labels, pool.presence[:views])
    return replace(
        dataset,
        train=take_views(dataset.train, views),
        validation=take_views(dataset.validation, views),
        test=take_views(dataset.test, views),
        augment_pool=pool,
    )
