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

Parts = tuple[list[int], list[int], list[int]]  # rows of training, validation and test


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

    A split gets whole sessions where each class has three or more, else whole bursts, each with all
    of its classes. The bursts of a class with fewer than three are cut in time, class by class,
    with a gap. Units are taken in an order from the seed. bursts: of each sample, which are in
    order.

    Returns the data set, and notes for the user on classes that were cut.
    """
    generator = np.random.default_rng(seed)
    sessions = [find_burst(burst) for burst in bursts]
    rank: dict[str, int] = {}
    for names in (sessions, bursts):
        shuffled = generator.permutation(sorted(set(names))).tolist()
        rank.update({unit: place for place, unit in enumerate(shuffled)})
    labels = samples.labels.tolist()
    few = [
        number
        for number in range(len(classes))
        if len(_list_units(labels, bursts, number)) < MIN_UNITS
    ]
    cut = {unit for number in few for unit in _list_units(labels, bursts, number)}
    units = bursts
    if all(
        len(_list_units(labels, sessions, number)) >= MIN_UNITS for number in range(len(classes))
    ):
        units, cut = sessions, set()
    parts = _cut_classes([row for row, unit in enumerate(units) if unit in cut], labels)
    counts: dict[str, Counter[int]] = {}
    for unit, label in zip(units, labels, strict=True):
        if unit not in cut:
            counts.setdefault(unit, Counter())[label] += 1
    split = _assign_units(counts, rank)
    for row, unit in enumerate(units):
        if unit in split:
            parts[split[unit]].append(row)
    notes = [
        f"class {classes[number]} has {len(_list_units(labels, bursts, number))} burst(s): its "
        "splits are cut from them in time, and its figures are too good; record three or more, at "
        "different times"
        for number in few
    ]
    return _take_splits(name, classes, samples, parts, path), tuple(notes)


def _list_units(labels: Sequence[int], units: Sequence[str], number: int) -> set[str]:
    """The sessions or bursts in which a class is."""
    return {unit for label, unit in zip(labels, units, strict=True) if label == number}


def _assign_units(counts: Mapping[str, Counter[int]], rank: Mapping[str, int]) -> dict[str, int]:
    """The split of each unit (0 training, 1 validation, 2 test), about 70/15/15 of each class.

    counts: samples of each class in each unit
    """
    left = sorted(counts, key=lambda unit: rank[unit])
    totals = sum(counts.values(), Counter[int]())
    units_left = Counter(label for unit in left for label in counts[unit])
    split = dict.fromkeys(counts, 0)
    for part, share, kept in ((2, TEST_SHARE, 2), (1, VALIDATION_SHARE, 1)):
        taken: Counter[int] = Counter()

        def take(unit: str, most: float, part: int = part, kept: int = kept) -> None:
            """Take a unit whose classes have enough units left, and do not get more samples."""
            count = counts[unit]
            fits = all(taken[k] + count[k] <= most * totals[k] for k in count)  # noqa: B023
            if fits and all(units_left[k] > kept for k in count):
                taken.update(count)  # noqa: B023
                units_left.subtract(dict.fromkeys(count, 1))
                split[unit] = part
                left.remove(unit)

        for unit in [*left]:
            take(unit, 1.4 * share)
        for label in sorted(totals):  # where all units of a class are larger, the smallest
            for unit in sorted(left, key=lambda unit: counts[unit].total()):
                if not taken[label] and label in counts[unit]:
                    take(unit, 1.0)
    return split


def _cut_classes(rows: list[int], labels: Sequence[int]) -> Parts:
    """Rows of training, validation and test: those of each class cut in time."""
    parts: Parts = ([], [], [])
    for label in sorted({labels[row] for row in rows}):
        own = _cut_in_time([row for row in rows if labels[row] == label])
        for part, more in zip(parts, own, strict=True):
            part += more
    return parts


def _cut_in_time(rows: list[int]) -> Parts:
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
