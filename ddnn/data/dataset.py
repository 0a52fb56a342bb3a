"""Samples seen by several cameras at once, as plain arrays.

A *sample* is one instant of one object; a *view* is what one camera sees of it. A camera that does
not see the object has an image of zeros and the view label -1 (DDNN paper, A7: black image, label
-1). A seen image is never all zero, so image and view label always say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddnn.errors import ConfigError

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]

ABSENT = -1
"""The view label of a camera that does not see the object; the group of a sample without one."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A part of a data set.

    images:      uint8 [samples, views, height, width, 3]
    labels:      int32 [samples], the object's class
    view_labels: int32 [samples, views], the class, or -1 where the camera does not see it
    groups:      int32 [samples], what splits are made by (the object's number), -1 if none
    """

    name: str
    images: Images
    labels: Labels
    view_labels: Labels
    groups: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: ArrayLike) -> Split:
        """The samples at `indices`: numbers or a bool mask."""
        rows = np.asarray(indices)
        rows = rows if rows.size else rows.astype(np.intp)
        return Split(
            self.name,
            self.images[rows],
            self.labels[rows],
            self.view_labels[rows],
            self.groups[rows],
        )

    def named(self, name: str) -> Split:
        """The same samples under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True, eq=False)
class ViewPool:
    """Objects photographed from many directions, from which training draws camera rigs.

    images:   uint8 [objects, directions, height, width, 3]
    labels:   int32 [objects]
    presence: how often each camera of a drawn rig sees its object; None: always
    """

    images: Images
    labels: Labels
    presence: tuple[float, ...] | None = None

    def draw(
        self, generator: np.random.Generator, samples: int, views: int
    ) -> tuple[Images, Labels]:
        """Random objects, each seen by a random rig: `views` different directions of it.

        Returns images uint8 [samples, views, height, width, 3] and labels int32 [samples]. Where
        cameras are absent their images are zeros; `label_views` tells which.
        """
        objects, directions = self.images.shape[:2]
        if not 1 <= views <= directions:
            raise ConfigError(
                f"a rig of {views} views was asked for; this pool has {directions} directions: "
                f"ask for 1 to {directions}"
            )
        chosen = generator.integers(0, objects, samples)
        rigs = np.argsort(generator.random((samples, directions)), axis=1)[:, :views]
        images = self.images[chosen[:, None], rigs]
        if self.presence is not None:
            images[~draw_presence(generator, samples, self.presence[:views])] = 0
        return images, self.labels[chosen]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits that share no sample and, where samples have groups, no group."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    augment_pool: ViewPool | None = None

    @property
    def views(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, 3, as judged; training images may be finer (eth80)."""
        _, _, height, width, channels = self.test.images.shape
        return int(height), int(width), int(channels)


def label_views(images: Images, labels: Labels) -> Labels:
    """View labels [samples, views]: the sample's class where its image is not all zero, else -1."""
    seen = images.any(axis=(2, 3, 4))
    return np.where(seen, labels[:, None], ABSENT).astype(np.int32)


def draw_presence(
    generator: np.random.Generator, samples: int, rates: Sequence[float]
) -> NDArray[np.bool_]:
    """Which cameras see which sample, bool [samples, views]; at least one sees each.

    Samples that no camera would see are drawn again, so the rates come out a little above `rates`.
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


def first_views(split: Split, views: int | None) -> Split:
    """The split as its first `views` cameras see it; all of them where None."""
    available = split.images.shape[1]
    if views is None or views == available:
        return split
    if not 1 <= views <= available:
        raise ConfigError(
            f"views={views}: this data set has {available} cameras; ask for 1 to {available}"
        )
    return Split(
        split.name,
        split.images[:, :views],
        split.labels,
        split.view_labels[:, :views],
        split.groups,
    )


def check_enough(counts: Sequence[int], what: str) -> None:
    """Refuse splits of which one would be empty."""
    if min(counts) < 1:
        raise ConfigError(
            f"{what}: training, validation and test would get {tuple(counts)} samples; "
            "each needs at least one: add samples"
        )
