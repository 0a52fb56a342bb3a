"""Batches by number: the same number gives the same batch again, after a crash too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError
from ddnn.training.fit import Images, Labels, SplitLike
from ddnn.training.students.images import crop_images, draw_crops

_ORDER, _CROPS = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class NumberedBatches:
    """Batches of a split, every sample once in an epoch, in an order drawn for each epoch.

    All batches are full: the samples that remain at the end of an epoch are left out of it.

    images: uint8 [samples, height, width, channels]; labels: int32 [samples]. batch: samples of
    one. crops: random shifts and flips, for photographs.

    Raises ConfigError where there are fewer samples than a batch has.
    """

    images: Images
    labels: Labels
    batch: int
    seed: int = 0
    crops: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= len(self.labels):
            raise ConfigError(
                f"batches of {self.batch} samples; expected 1 to {len(self.labels)}, of which the "
                "training split has that many"
            )

    @property
    def batches_per_epoch(self) -> int:
        return len(self.labels) // self.batch

    def make(self, number: int) -> tuple[Images, Labels]:
        """The images and labels of a batch; numbers start from 0 and go on in the next epoch."""
        epoch, index = divmod(number, self.batches_per_epoch)
        order = _draw_order(self.seed, epoch, len(self.labels))
        rows = order[index * self.batch : (index + 1) * self.batch]
        images = self.images[rows]
        if self.crops:
            generator = np.random.default_rng([self.seed, _CROPS, number])
            images = crop_images(images, draw_crops(generator, (self.batch,)))
        return images, self.labels[rows]


def make_batches(
    split: SplitLike, batch: int, *, seed: int = 0, crops: bool = False
) -> NumberedBatches:
    """Batches of a split, all views of a sample as the channels of one image."""
    return NumberedBatches(join_views(split.images), split.labels, batch, seed, crops)


def join_views(images: Images) -> Images:
    """uint8 [samples, views, h, w, 3] -> [samples, h, w, 3 views], as the scheme CC fuses them."""
    samples, _, height, width, _ = images.shape
    return np.moveaxis(images, 1, 3).reshape(samples, height, width, -1)


@lru_cache(maxsize=2)  # batches of two epochs are in flight at an epoch's end
def _draw_order(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(samples)
