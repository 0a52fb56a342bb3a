"""Splits of user data, and what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError

from .dataset import ABSENT, Dataset, Split, check_split_sizes

VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15


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
    check_split_sizes((len(train), len(validation), len(test)), str(path))
    return Dataset(
        name,
        classes,
        samples.take(sorted(train)).rename("train"),
        samples.take(sorted(validation)).rename("validation"),
        samples.take(sorted(test)).rename("test"),
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
    for part in splits[1:]:
        if missing := [
            name for number, name in enumerate(dataset.classes) if not (part.labels == number).any()
        ]:
            lines.append(
                f"no {part.name} sample of {', '.join(missing)}: the accuracy on it is not "
                "measured; add samples, at least three of each class"
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
