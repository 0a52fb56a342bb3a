"""Splits of user data, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError

from .dataset import ABSENT, Dataset, Split, check_split_sizes
from .recordings.description import find_burst

VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15
FEW_SAMPLES = 20  # of a class, in the training split
IMBALANCE = 4.0  # ratio of training samples above which classes are unbalanced
MIN_UNITS = 3  # sessions or bursts of a class that give each split one
MIN_GAP_ROWS = 8  # a class of fewer samples is cut without a gap


def split_by_class(
    name: str, classes: tuple[str, ...], samples: Split, seed: int, path: Path
) -> Dataset:
    """Split 70/15/15 within each class, at random from the seed."""
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
    return _take_splits(name, classes, samples, (train, validation, test), path)


def split_by_burst(
    name: str,
    classes: tuple[str, ...],
    samples: Split,
    bursts: Sequence[str],
    seed: int,
    path: Path,
) -> tuple[Dataset, tuple[str, ...]]:
    """Split recorded samples so that neighbouring pictures are never in two splits.

    A split gets whole sessions of a class where there are three or more, else whole bursts; a class
    with fewer is cut in time, with a gap. Sessions are taken in one order for all classes, from the
    seed, so that a session tends to be in one split. bursts: of each sample, which are in order.

    Returns the data set, and notes for the user on classes that were cut.
    """
    generator = np.random.default_rng(seed)
    sessions = [find_burst(burst) for burst in bursts]
    rank: dict[str, int] = {}
    for names in (sessions, bursts):
        shuffled = generator.permutation(sorted(set(names))).tolist()
        rank.update({unit: place for place, unit in enumerate(shuffled)})
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    notes = []
    for number, label in enumerate(classes):
        rows: list[int] = np.flatnonzero(samples.labels == number).tolist()
        by_unit: dict[str, list[int]] = {}
        for names in (bursts, sessions):
            units = {names[row] for row in rows}
            if len(units) >= MIN_UNITS:
                by_unit = {unit: [r for r in rows if names[r] == unit] for unit in units}
        if by_unit:
            found = _assign_units(by_unit, rank)
        else:
            found = _cut_in_time(rows)
            notes.append(
                f"class {label} has {len({bursts[row] for row in rows})} burst(s): its splits are "
                "cut from them in time, and its figures are too good; record three or more, at "
                "different times"
            )
        for part, more in zip(parts, found, strict=True):
            part += more
    return _take_splits(name, classes, samples, parts, path), tuple(notes)


def _assign_units(
    by_unit: Mapping[str, list[int]], rank: Mapping[str, int]
) -> tuple[list[int], list[int], list[int]]:
    """Rows of training, validation and test: whole units, about 70/15/15."""
    left = sorted(by_unit, key=lambda unit: rank[unit])
    sizes = Counter({unit: len(rows) for unit, rows in by_unit.items()})
    total = sizes.total()
    held: list[list[int]] = []
    for share in (TEST_SHARE, VALIDATION_SHARE):
        taken: list[int] = []
        for unit in list(left):
            enough_left = len(left) > (2 if not held else 1)
            if enough_left and len(taken) + sizes[unit] <= 1.4 * share * total:
                taken += by_unit[unit]
                left.remove(unit)
        if not taken:  # all are larger
            smallest = min(left, key=lambda unit: sizes[unit])
            taken += by_unit[smallest]
            left.remove(smallest)
        held.append(taken)
    return [row for unit in left for row in by_unit[unit]], held[1], held[0]


def _cut_in_time(rows: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Rows of training, validation and test: one after the other, with gaps that are left out."""
    count = len(rows)
    test = max(round(TEST_SHARE * count), int(count >= MIN_UNITS))
    validation = max(round(VALIDATION_SHARE * count), int(count >= MIN_UNITS))
    gap = max(1, count // 20) if count >= MIN_GAP_ROWS else 0
    train = count - test - validation - 2 * gap
    begin = train + gap
    return (
        rows[:train],
        rows[begin : begin + validation],
        rows[count - test :],
    )


def _take_splits(
    name: str,
    classes: tuple[str, ...],
    samples: Split,
    rows: Sequence[Sequence[int]],
    path: Path,
) -> Dataset:
    """The data set with these rows in training, validation and test."""
    check_split_sizes([len(part) for part in rows], str(path))
    train, validation, test = (samples.take(sorted(part)) for part in rows)
    return Dataset(
        name,
        classes,
        train.rename("train"),
        validation.rename("validation"),
        test.rename("test"),
    )


def check_trainable(dataset: Dataset, data: str) -> None:
    """Raise ConfigError where a class has no sample to train with."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    if empty := [n for n, count in zip(dataset.classes, counts, strict=True) if not count]:
        raise ConfigError(
            f"{data}: no training sample of class {', '.join(empty)}; add samples that a camera "
            "sees, or remove the class"
        )


def describe_dataset(dataset: Dataset) -> list[str]:
    """A table of classes, cameras and splits, and what the loader noted, as lines.

    A cell has the samples, or a camera's views, of the training, validation and test split.
    """
    splits = (dataset.train, dataset.validation, dataset.test)
    views = [
        f"{device} ({folder})" if device != folder else device
        for device, folder in dataset.cameras.items()
    ] or [f"view {number}" for number in range(1, dataset.views + 1)]
    rows = [["class", "samples", *views]]
    for number, name in enumerate(dataset.classes):
        counts = ["/".join(str(int((split.labels == number).sum())) for split in splits)]
        for view in range(len(views)):
            seen = [int((split.view_labels[:, view] == number).sum()) for split in splits]
            counts.append("/".join(map(str, seen)))
        rows.append([name, *counts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.append("(samples and views: training/validation/test)")
    lines += dataset.notes
    lines += _describe_balance(dataset)
    for part in splits[1:]:
        if missing := [
            name for number, name in enumerate(dataset.classes) if not (part.labels == number).any()
        ]:
            lines.append(
                f"no {part.name} sample of {', '.join(missing)}: the accuracy on it is not "
                "measured; add samples, at least three of each class"
            )
    return lines


def _describe_balance(dataset: Dataset) -> list[str]:
    """Warnings on classes with few training samples, and on classes far larger than others."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    lines = []
    few = [
        f"{name} ({count})"
        for name, count in zip(dataset.classes, counts, strict=True)
        if 0 < count < FEW_SAMPLES
    ]
    if few:
        lines.append(
            f"few training samples of {', '.join(few)}; a class is hardly learned from fewer than "
            f"{FEW_SAMPLES}"
        )
    if counts.min() and counts.max() > IMBALANCE * counts.min():
        most, least = dataset.classes[int(counts.argmax())], dataset.classes[int(counts.argmin())]
        lines.append(
            f"{most} has {counts.max() / counts.min():.1f} times as many training samples as "
            f"{least}; the network will prefer it: record more of {least}"
        )
    return lines


def relabel(
    split: Split, own: tuple[str, ...], classes: tuple[str, ...] | None, what: str
) -> Split:
    """The samples with labels that number `classes` instead of `own`; None: as they are.

    Raises ConfigError where a class that has samples is not in `classes`.
    """
    if classes is None or own == classes:
        return split
    present = [own[number] for number in np.unique(split.labels)]
    if foreign := [name for name in present if name not in classes]:
        raise ConfigError(
            f"{what}: samples of {', '.join(foreign)}, but the bundle knows the classes "
            f"{', '.join(classes)}; use the data set that it was trained on, or name classes alike"
        )
    index = np.array(
        [classes.index(name) if name in classes else ABSENT for name in own] + [ABSENT], np.int32
    )  # the last is for view labels of -1
    return Split(
        split.name, split.images, index[split.labels], index[split.view_labels], split.groups
    )
