"""User data as one .npz file.

images uint8 [samples, views, height, width, 3], labels int [samples], and optionally view_labels
int [samples, views] (the label, or -1 where the camera does not see it) and classes text [classes].
Without view_labels a camera sees the object where its image is not all black.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.core.preprocessing import WHOLE, Preprocessing
from ddnn.errors import ConfigError
from ddnn.runtime.archive import (
    MAX_CLASSES,
    ArraySpec,
    check_range,
    read_class_names,
    read_npz,
)
from ddnn.runtime.pictures import make_input

from .dataset import ABSENT, Dataset, Images, Labels, Split, label_views
from .splits import split_by_class

_EXPECTED = {
    "images": ArraySpec("u", (None, None, None, None, 3), itemsize=1),
    "labels": ArraySpec("ui", (None,)),
    "view_labels": ArraySpec("i", (None, None), optional=True),
    "classes": ArraySpec("U", (None,), optional=True),
}


def load_npz(path: Path, *, seed: int = 0) -> Dataset:
    """The data set of the arrays in the file at `path`.

    Raises ConfigError for another layout, an unreadable file or too few samples.
    """
    classes, samples = load_npz_samples(path)
    return split_by_class("npz", classes, samples, seed, path)


def load_npz_samples(path: Path) -> tuple[tuple[str, ...], Split]:
    """The classes, and all samples of the file that a camera sees."""
    arrays = read_npz(path, _EXPECTED)
    images, labels = arrays["images"], arrays["labels"]
    if len(labels) != len(images):
        raise ConfigError(
            f"{path}: {len(images)} samples of images, {len(labels)} labels; expected equal counts"
        )
    if not images.any():
        raise ConfigError(f"{path}: all images are black; expected pictures, of 0 to 255")
    check_range(labels, 0, MAX_CLASSES - 1, "labels", path)
    if "classes" in arrays:
        classes = read_class_names(arrays["classes"], path)
        check_range(labels, 0, len(classes) - 1, "labels", path)
    else:
        classes = tuple(f"class{number}" for number in range(max(2, int(labels.max()) + 1)))
    labels = labels.astype(np.int32)
    if "view_labels" in arrays:
        view_labels = arrays["view_labels"].astype(np.int32)
        images = _blank_unseen(images, labels, view_labels, path)
    else:
        view_labels = label_views(images, labels)
    if images.shape[1] > 1 and ((view_labels != ABSENT).sum(axis=1) < 2).all():
        raise ConfigError(
            f"{path}: {images.shape[1]} views, but no sample is seen by two of them; put the views "
            "of one moment into one sample"
        )
    groups = np.full(len(labels), ABSENT, np.int32)
    seen = (view_labels != ABSENT).any(axis=1)
    return classes, Split("samples", images, labels, view_labels, groups).take(seen)


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


def scale_views(
    images: Images,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    devices: tuple[str, ...] = (),
) -> Images:
    """Images [samples, views, h, w, 3] as inputs of `shape`, by the preprocessing of a bundle.

    Images of that shape are inputs already.

    devices: names of the views, for their regions of interest
    """
    if images.shape[2:] == shape:
        return images
    rois = [preprocessing.find_roi(device) for device in devices[: images.shape[1]]]
    rois += [WHOLE] * (images.shape[1] - len(rois))
    scaled = np.empty((*images.shape[:2], *shape), np.uint8)
    for sample, views in enumerate(images):
        for view, (image, roi) in enumerate(zip(views, rois, strict=True)):
            scaled[sample, view] = make_input(image, shape, preprocessing, roi)
    return scaled
