"""Samples seen by several cameras at once, as plain arrays.

A *sample* is one instant of one object; a *view* is what one camera sees of it. A camera that does
not see the object has an image of zeros and the view label -1 (DDNN paper, A7: black image, label
-1). The image of a camera that sees it may be all zero only in user data, whose view labels decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddnn.errors import ConfigError

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]

ABSENT = -1
"""View label of a camera that does not see the object, and group of a sample that has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A part of a data set.

    images:      uint8 [samples, views, height, width, 3]
    labels:      int32 [samples], the object's class
    view_labels: int32 [samples, views], the class, or -1 where the camera does not see it
    groups:      int32 [samples], the number of the object that splits are made by, or -1
    """

    name: str
    images: Images
    labels: Labels
    view_labels: Labels
    groups: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: ArrayLike) -> Split:
        """The samples at `indices`, which are row numbers or a bool mask [samples]."""
        rows = np.asarray(indices)
        rows = rows if rows.size else rows.astype(np.intp)
        return Split(
            self.name,
            self.images[rows],
            self.labels[rows],
            self.view_labels[rows],
            self.groups[rows],
        )

    def rename(self, name: str) -> Split:
        """The same samples as a split of another name."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True, eq=False)
class ViewPool:
    """Objects photographed from many directions, from which training draws camera rigs.

    images:   uint8 [objects, directions, height, width, 3]
    labels:   int32 [objects]
    presence: share of the samples in which each camera of a rig sees its object; None: all
    """

    images: Images
    labels: Labels
    presence: tuple[float, ...] | None = None

    def draw(
        self, generator: np.random.Generator, samples: int, views: int
    ) -> tuple[Images, Labels]:
        """Random objects, each from `views` different random directions.

        Returns images uint8 [samples, views, height, width, 3] and labels int32 [samples]. Images
        of cameras that do not see the object are zeros; `label_views` returns their labels.
        Raises ConfigError where there are fewer directions than views.
        """
        count, directions = self.images.shape[:2]
        if not 1 <= views <= directions:
            raise ConfigError(
                f"{views} views requested of objects with {directions} directions: "
                f"request 1 to {directions}"
            )
        objects = generator.integers(0, count, samples)
        rigs = np.argsort(generator.random((samples, directions)), axis=1)[:, :views]
        images = self.images[objects[:, None], rigs]
        if self.presence is not None:
            images[~draw_presence(generator, samples, self.presence[:views])] = 0
        return images, self.labels[objects]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits that share no sample and no group.

    cameras: in user folders: the folder of each view, by the device that has it
    notes:   what the loader found and passed over, in sentences for the user
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    augment_pool: ViewPool | None = None
    cameras: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def views(self) -> int:
        """Number of cameras."""
        return int(self.train.images.shape[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and 3 of the test images; training images may be larger (eth80)."""
        _, _, height, width, channels = self.test.images.shape
        return int(height), int(width), int(channels)


def label_views(images: Images, labels: Labels) -> Labels:
    """View labels [samples, views]: the sample's class where its image is not all zero, else -1."""
    seen = images.any(axis=(2, 3, 4))
    return np.where(seen, labels[:, None], ABSENT).astype(np.int32)


def draw_presence(
    generator: np.random.Generator, samples: int, rates: Sequence[float]
) -> NDArray[np.bool_]:
    """Draw which cameras see which sample: bool [samples, views], at least one in each row.

    Samples that no camera sees are drawn again, so the resulting rates are a little above `rates`.
    Raises ConfigError unless `rates` are in 0..1 and not all zero.
    """
    chances = np.asarray(rates, float)
    if chances.ndim != 1 or not ((chances >= 0) & (chances <= 1)).all() or not chances.any():
        raise ConfigError(
            f"presence {tuple(rates)!r}: expected one rate in 0..1 for each camera, not all zero"
        )
    seen = np.zeros((samples, len(chances)), np.bool_)
    while (rows := np.flatnonzero(~seen.any(axis=1))).size:
        seen[rows] = generator.random((rows.size, len(chances))) < chances
    return seen


def take_views(split: Split, views: int) -> Split:
    """The split with its first `views` cameras only.

    Raises ConfigError where it has fewer.
    """
    available = split.images.shape[1]
    if not 1 <= views <= available:
        raise ConfigError(
            f"views={views}: this data set has {available} cameras; request 1 to {available}"
        )
    return Split(
        split.name,
        split.images[:, :views],
        split.labels,
        split.view_labels[:, :views],
        split.groups,
    )


def check_split_sizes(counts: Sequence[int], what: str) -> None:
    """Raise ConfigError where a split is empty."""
    if min(counts) < 1:
        raise ConfigError(
            f"{what}: training, validation and test get {tuple(counts)} samples; "
            "each needs at least one: add samples"
        )
