"""User data as a directory of images per camera.

A directory::

    PATH/<camera>/<class>/<sample>.png      for example  yard/front/cat/0007.png

Cameras are the directories in PATH. A device has the camera that is named for it, else that of its
own name, else the next in natural order (camera2 before camera10). Images of one class are paired
to samples by name, time or order (`ddnn.data.pairing`); a camera without a file for a sample does
not see it. Images of any format that Pillow reads become inputs as `ddnn.runtime.pictures` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ddnn.core.preprocessing import Preprocessing
from ddnn.core.text import fold_name
from ddnn.errors import ConfigError
from ddnn.runtime.archive import MAX_ARRAY_BYTES, MAX_CLASSES, convert_read_errors
from ddnn.runtime.pictures import find_skip_reason, make_input, read_picture, split_numbers

from .dataset import ABSENT, Dataset, Split
from .pairing import PairBy, Samples, pair
from .recordings.description import (
    ASIDE,
    DESCRIPTION,
    UNLABELLED,
    find_burst,
    read_description,
)
from .splits import split_by_burst, split_by_class

SIZE_PX = 32
MAX_IMAGES = 1_000_000
STRETCH = Preprocessing(fit="stretch")
NOT_CAMERAS = ("__MACOSX",)


@dataclass(frozen=True)
class FolderRequest:
    """How folders of images become samples.

    devices: names of the views, in order; empty: one for each camera, named like it
    cameras: folder by device; a device that is missing gets the folder of its own name or the next
    classes: the classes and their order; None: those of the folders
    labelled: whether the labels are read; else one class is enough, and pictures that nobody has
              labelled yet are samples, too
    """

    devices: tuple[str, ...] = ()
    cameras: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing = STRETCH
    pair_by: PairBy = "name"
    shape: tuple[int, int, int] = (SIZE_PX, SIZE_PX, 3)
    labelled: bool = True


@dataclass(frozen=True)
class FolderSamples:
    """Samples of folders. notes: what was found, in sentences for the user.

    bursts: of each sample, in a directory that `ddnn collect` wrote; else empty
    """

    classes: tuple[str, ...]
    samples: Split
    cameras: dict[str, str]
    notes: tuple[str, ...]
    bursts: tuple[str, ...] = ()


@dataclass
class _Scan:
    """Images by camera and class, in natural order, and what was passed over.

    recorded: whether `ddnn collect` or `ddnn label` has described them; has_bursts: whether
              `ddnn collect` took them, whose names say in which burst
    """

    path: Path
    recorded: bool = False
    has_bursts: bool = False
    images: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    skipped: dict[str, list[Path]] = field(default_factory=dict)

    def skip(self, reason: str, path: Path) -> None:
        self.skipped.setdefault(reason, []).append(path)


def load_directory(path: Path, request: FolderRequest, *, seed: int = 0) -> Dataset:
    """The data set of the images below `path`.

    Raises ConfigError for another layout, an unreadable image or too few samples.
    """
    found = load_directory_samples(path, request)
    notes = found.notes
    if found.bursts:
        dataset, more = split_by_burst(
            "directory", found.classes, found.samples, found.bursts, seed, path
        )
        notes += more
    else:
        dataset = split_by_class("directory", found.classes, found.samples, seed, path)
    return Dataset(
        dataset.name,
        dataset.classes,
        dataset.train,
        dataset.validation,
        dataset.test,
        cameras=found.cameras,
        notes=notes,
    )


def load_directory_samples(path: Path, request: FolderRequest) -> FolderSamples:
    """The classes, in the order of their names or as requested, and all samples below `path`.

    Raises ConfigError for what cannot be meant: no images, classes whose names differ only by case,
    space or Unicode normalization, a class without images, an unknown class, no sample that two
    cameras see.
    """
    with convert_read_errors(path):
        scan = _scan(path, request.labelled)
    cameras = assign_cameras(path, request.devices, list(scan.images), request.cameras)
    images = {camera: scan.images[camera] for camera in cameras.values()}
    classes = _check_classes(path, images, request, scan)
    samples: list[tuple[int, dict[str, Path]]] = []
    for number, label in enumerate(classes):
        of_class = {camera: found[label] for camera, found in images.items() if label in found}
        of_class = {camera: files for camera, files in of_class.items() if files}
        if of_class:
            samples += [(number, sample) for sample in pair(of_class, request.pair_by)]
    _check_pairs(path, [sample for _, sample in samples], len(images), request.pair_by)
    split, black = _read_samples(path, samples, cameras, request)
    notes = _describe(scan, cameras, [sample for _, sample in samples], request.pair_by)
    if black:
        notes.append(f"{black} images are all black; they count as views that see their object")
    bursts: tuple[str, ...] = ()
    if scan.has_bursts:
        names = [next(iter(sample.values())).stem for _, sample in samples]
        bursts = tuple(find_burst(name) for name in names)
        split = replace(split, groups=np.unique(bursts, return_inverse=True)[1].astype(np.int32))
    return FolderSamples(classes, split, cameras, tuple(notes), bursts)


def assign_cameras(
    path: Path, devices: Sequence[str], folders: Sequence[str], given: Mapping[str, str]
) -> dict[str, str]:
    """The folder of each device: the given one, else that of its own name, else the next.

    Raises ConfigError for names that do not exist and for more devices than folders.
    """
    devices = devices or [given.get(folder, folder) for folder in folders]
    for device, folder in given.items():
        if device not in devices or folder not in folders:
            raise ConfigError(
                f"--camera {device}={folder}: expected a device of {', '.join(devices)}, and a "
                f"folder with images in {path}: {', '.join(folders)}"
            )
    chosen = {device: given.get(device, device) for device in devices}
    chosen = {device: folder for device, folder in chosen.items() if folder in folders}
    if len(set(chosen.values())) < len(chosen):
        raise ConfigError(f"--camera: {chosen} names a folder twice; expected one for each device")
    rest = [folder for folder in folders if folder not in chosen.values()]
    missing = [device for device in devices if device not in chosen]
    if len(missing) > len(rest):
        raise ConfigError(
            f"{len(devices)} devices, but {path} has the {len(folders)} views (cameras) "
            f"{', '.join(folders)}; use --devices {len(folders)} or fewer"
        )
    chosen.update(zip(missing, rest, strict=False))
    return {device: chosen[device] for device in devices}


def _scan(path: Path, labelled: bool) -> _Scan:
    if not path.is_dir():
        raise ConfigError(
            f"{path}: no such directory; expected <camera>/<class>/<sample>.png in it"
        )
    description = read_description(path)
    scan, count = _Scan(path, description is not None), 0
    scan.has_bursts = description is not None and bool(description.sessions)
    for camera in _list_directories(path, scan):
        found: dict[str, list[Path]] = {}
        for label in _list_directories(camera, scan):
            if labelled and scan.recorded and label.name == UNLABELLED:
                for file in label.iterdir():
                    scan.skip("not labelled; `ddnn label` shows them", file)
                continue
            files = found[label.name] = []
            for file in sorted(label.iterdir(), key=lambda file: split_numbers(file.name)):
                if reason := find_skip_reason(file):
                    scan.skip(reason, file)
                    continue
                files.append(file)
                count += 1
                if count > MAX_IMAGES:
                    raise ConfigError(f"{path}: more than {MAX_IMAGES} images: split the data")
        if any(found.values()):
            scan.images[camera.name] = found
        else:
            scan.skip("a folder without <class>/<image>", camera)
    if not scan.images:
        raise ConfigError(
            f"{path}: no images; expected {path}/<camera>/<class>/<sample>.png"
            + "".join(f"; {note}" for note in _describe_skipped(scan))
            + "".join(
                f"; there are images one level deeper: give {file.parents[2]}"
                for file in islice(path.glob("*/*/*/*"), 1)
            )
        )
    return scan


def _list_directories(path: Path, scan: _Scan) -> Iterator[Path]:
    """The folders in a folder, in natural order."""
    for child in sorted(path.iterdir(), key=lambda child: split_numbers(child.name)):
        try:
            child.name.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{path}: {child.name!r} is not UTF-8; names of cameras and classes are kept in "
                "the bundle: rename it (convmv -f latin1 -t utf8 converts whole trees)"
            ) from None
        if scan.recorded and child.name in (DESCRIPTION, ASIDE):
            continue
        if child.name.startswith(".") or child.name in NOT_CAMERAS:
            scan.skip("hidden, or of the system", child)
        elif child.is_dir():
            yield child
        else:
            scan.skip("not in a folder <camera>/<class>", child)


def _check_classes(
    path: Path,
    images: Mapping[str, Mapping[str, Sequence[Path]]],
    request: FolderRequest,
    scan: _Scan,
) -> tuple[str, ...]:
    """The classes of the folders, or those wanted; ConfigError for names that cannot be meant."""
    wanted = request.classes
    counts = Counter[str]()
    for found in images.values():
        for label, files in found.items():
            counts[label] += len(files)
    alike: dict[str, list[str]] = {}
    for label in sorted({*counts, *(wanted or ())}):
        alike.setdefault(fold_name(label), []).append(label)
    for names in alike.values():
        if len(names) > 1:
            where = {name: [c for c, found in images.items() if name in found] for name in names}
            raise ConfigError(
                f"{path}: the classes {', '.join(map(ascii, names))} differ only by case, space or "
                f"Unicode normalization (in {where}); rename the folders of one class alike"
            )
    if empty := [label for label, count in counts.items() if not count]:
        raise ConfigError(
            f"{path}: class {', '.join(map(repr, empty))} has no image"
            + "".join(f"; {note}" for note in _describe_skipped(scan))
            + "; add images to its folders, or remove them"
        )
    if wanted is not None:
        if foreign := sorted(set(counts) - set(wanted)):
            raise ConfigError(
                f"{path}: the bundle does not know the classes {', '.join(foreign)}; it knows "
                f"{', '.join(wanted)}: rename or remove their folders"
            )
        return wanted
    classes = tuple(sorted(counts))
    if not (2 if request.labelled else 1) <= len(classes) <= MAX_CLASSES:
        raise ConfigError(
            f"{path}: images of {len(classes)} classes {classes[:5]}; expected at least two, as "
            f"{path}/<camera>/<class>/<sample>.png"
        )
    return classes


def _check_pairs(path: Path, samples: Samples, cameras: int, pair_by: PairBy) -> None:
    """ConfigError where there are several cameras and no sample has two views."""
    if cameras > 1 and max(map(len, samples)) < 2:
        names = ", ".join(f"{c}/…/{f.name}" for sample in samples[:1] for c, f in sample.items())
        raise ConfigError(
            f"{path}: {cameras} cameras, but no sample has two views by --pair-by {pair_by} (such "
            f"as {names}); give pictures of one moment one name, or use --pair-by time or order"
        )


def _read_samples(
    path: Path,
    samples: Sequence[tuple[int, Mapping[str, Path]]],
    cameras: Mapping[str, str],
    request: FolderRequest,
) -> tuple[Split, int]:
    """The samples, and how many of their images are all black."""
    shape = (len(samples), len(cameras), *request.shape)
    if np.prod(shape, dtype=object) > MAX_ARRAY_BYTES:
        raise ConfigError(
            f"{path}: {len(samples)} samples of {len(cameras)} cameras at "
            f"{request.shape[1]}x{request.shape[0]} are over {MAX_ARRAY_BYTES} bytes: split the "
            "data"
        )
    images = np.zeros(shape, np.uint8)
    labels = np.array([label for label, _ in samples], np.int32)
    view_labels = np.full(shape[:2], ABSENT, np.int32)
    preprocessing, black = request.preprocessing, 0
    for row, (label, sample) in enumerate(samples):
        for view, (device, camera) in enumerate(cameras.items()):
            if camera not in sample:
                continue
            picture = read_picture(sample[camera], preprocessing.background)
            roi = preprocessing.find_roi(device)
            images[row, view] = make_input(picture, request.shape, preprocessing, roi)
            view_labels[row, view] = label
            black += not images[row, view].any()
    groups = np.full(len(labels), ABSENT, np.int32)
    return Split("samples", images, labels, view_labels, groups), black


def _describe(
    scan: _Scan, cameras: Mapping[str, str], samples: Samples, pair_by: PairBy
) -> list[str]:
    """What was found, for the user."""
    notes = ["cameras: " + ", ".join(f"{d} is {folder}" for d, folder in cameras.items())]
    if unused := [folder for folder in scan.images if folder not in cameras.values()]:
        notes.append(f"cameras without a device, not used: {', '.join(unused)}")
    partial = [sample for sample in samples if len(sample) < len(cameras)]
    if partial:
        alone = [sample for sample in partial if len(sample) == 1]
        names = ", ".join(next(iter(sample.values())).name for sample in partial[:3])
        notes.append(
            f"{len(partial)} of {len(samples)} samples lack a view (paired by {pair_by}), "
            f"{len(alone)} are seen by one camera only, such as {names}"
        )
    return notes + _describe_skipped(scan)


def _describe_skipped(scan: _Scan) -> list[str]:
    return [
        f"{len(paths)} passed over ({reason}), such as {paths[0].relative_to(scan.path)!s}"
        for reason, paths in scan.skipped.items()
    ]
