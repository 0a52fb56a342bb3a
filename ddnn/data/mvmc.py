"""mvmc: the multi-view, multi-class data of the DDNN paper (A7), for who has the file.

An .npz with X float32 [samples, views, 3, height, width] in 0..1 and y int [samples, views], the
classes 0 car, 1 bus, 2 person, or -1 where the camera does not see the object; in the authors' file
851 samples of 6 views of 32x32. Four fifths train, one fifth tests (680 and 171), by a fixed
permutation. It is our own: the authors' is not, so single figures need not agree with theirs. Their
code has no validation part; here it is cut from the training samples, so that nothing is chosen on
the test samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import ConfigError

from .archive import Expected, check_range, read_npz
from .dataset import ABSENT, Dataset, Split, check_enough

CLASSES = ("car", "bus", "person")
TRAIN_SHARE = 0.8
VALIDATION_SHARE = 0.15
"""Of the training samples."""
PERMUTATION_SEED = 170901921

_EXPECTED = {
    "X": Expected("f", (None, None, 3, None, None)),
    "y": Expected("i", (None, None)),
}


def mvmc(path: Path) -> Dataset:
    """The file at `path`, always split in the same way."""
    everything = mvmc_samples(path)
    n = len(everything)
    learned = int(TRAIN_SHARE * n)
    validated = max(1, round(VALIDATION_SHARE * learned))
    check_enough((learned - validated, validated, n - learned), str(path))
    order = np.random.default_rng(PERMUTATION_SEED).permutation(n)
    train, validation, test = np.split(order, (learned - validated, learned))
    return Dataset(
        "mvmc",
        CLASSES,
        everything.take(train).named("train"),
        everything.take(validation).named("validation"),
        everything.take(test).named("test"),
    )


def mvmc_samples(path: Path) -> Split:
    """All samples of the file that a camera sees; the label is the largest of the view labels."""
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
    # A view that is all black shows nothing, whatever its label says.
    view_labels = np.where(images.any(axis=(2, 3, 4)), view_labels, ABSENT)
    labels = view_labels.max(axis=1).astype(np.int32)
    groups = np.full(len(labels), ABSENT, np.int32)
    everything = Split("samples", images, labels, view_labels.astype(np.int32), groups)
    return everything.take(labels != ABSENT)
