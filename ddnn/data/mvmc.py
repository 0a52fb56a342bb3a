"""mvmc: the multi-view, multi-class data of the DDNN paper (A7), read from the authors' file.

The file is an .npz with X float32 [samples, views, 3, height, width] in 0..1 and y int [samples,
views], the classes 0 car, 1 bus, 2 person, or -1 where the camera does not see the object. The
authors' has 851 samples of 6 views of 32x32. A fixed permutation assigns four fifths (680) to
training and one fifth (171) to the test. It is not the authors' permutation, so single figures may
differ from theirs. Their code has no validation split; here it is taken from the training samples,
so that thresholds are not chosen on the test samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.archive import ArraySpec, check_range, read_npz

from .dataset import ABSENT, Dataset, Split, check_split_sizes

CLASSES = ("car", "bus", "person")
TRAIN_SHARE = 0.8
VALIDATION_SHARE = 0.15
"""Share of the training samples."""
PERMUTATION_SEED = 170901921

_EXPECTED = {
    "X": ArraySpec("f", (None, None, 3, None, None)),
    "y": ArraySpec("i", (None, None)),
}


def load_mvmc(path: Path) -> Dataset:
    """The data set in the file at `path`, always split in the same way.

    Raises ConfigError where the file cannot be read or has too few samples.
    """
    samples = load_mvmc_samples(path)
    n = len(samples)
    train_count = int(TRAIN_SHARE * n)
    validation_count = max(1, round(VALIDATION_SHARE * train_count))
    check_split_sizes(
        (train_count - validation_count, validation_count, n - train_count), str(path)
    )
    order = np.random.default_rng(PERMUTATION_SEED).permutation(n)
    train, validation, test = np.split(order, (train_count - validation_count, train_count))
    return Dataset(
        "mvmc",
        CLASSES,
        samples.take(train).rename("train"),
        samples.take(validation).rename("validation"),
        samples.take(test).rename("test"),
    )


def load_mvmc_samples(path: Path) -> Split:
    """All samples of the file that a camera sees; the label is the largest of the view labels.

    Raises ConfigError where the file cannot be read or has another layout.
    """
    arrays = read_npz(path, _EXPECTED)
    pictures, view_labels = arrays["X"], arrays["y"]
    if pictures.shape[:2] != view_labels.shape:
        raise ConfigError(
            f"{path}: X has samples and views {list(pictures.shape[:2])}, y has "
            f"{list(view_labels.shape)}; expected the same"
        )
    check_range(view_labels, ABSENT, len(CLASSES) - 1, "y", path)
    low, high = float(pictures.min()), float(pictures.max())
    if not 0.0 <= low <= high <= 1.0:  # NaN fails too
        raise ConfigError(f"{path}: X has values from {low:g} to {high:g}; expected 0 to 1")
    images = np.rint(pictures.transpose(0, 1, 3, 4, 2) * np.float32(255)).astype(np.uint8)
    images[view_labels == ABSENT] = 0
    # A black view marks a camera that does not see the object, even where its label differs.
    view_labels = np.where(images.any(axis=(2, 3, 4)), view_labels, ABSENT)
    labels = view_labels.max(axis=1).astype(np.int32)
    groups = np.full(len(labels), ABSENT, np.int32)
    samples = Split("samples", images, labels, view_labels.astype(np.int32), groups)
    return samples.take(labels != ABSENT)
