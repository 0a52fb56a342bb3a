"""Photographs to distil from: random crops and flips, and the teacher's feature maps of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.training.fit import Images, Labels
from ddnn.training.students.examples import BATCH, FloatArray, compute_batches

PADDING_PX = 4  # on each side, mirrored; Zagoruyko, Komodakis, 2016
Crops = NDArray[np.int64]


def scale_images(images: Images) -> FloatArray:
    """uint8 of any shape as float32 from -1 to 1."""
    return (images.astype(np.float32) - 127.5) / 127.5


def draw_crops(generator: np.random.Generator, shape: tuple[int, ...]) -> Crops:
    """Random crops [*shape, 3]: row and column from 0 to 2 PADDING_PX, and 0 or 1 for a flip."""
    return generator.integers(0, [2 * PADDING_PX + 1, 2 * PADDING_PX + 1, 2], (*shape, 3))


def crop_images(images: Images, crops: Crops) -> Images:
    """The crops [images, 3] of images [images, height, width, channels], in the images' size."""
    n, height, width, _ = images.shape
    margin = (PADDING_PX, PADDING_PX)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)), mode="reflect")
    rows = crops[:, 0, None] + np.arange(height)
    steps = np.arange(width)
    columns = crops[:, 1, None] + np.where(crops[:, 2, None] == 1, steps[::-1], steps)
    return np.asarray(padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None]])


@dataclass(frozen=True)
class CroppedImages:
    """Crops of images, new ones for each batch, with the teacher's feature maps of them.

    images: uint8 [images, height, width, channels]; features: the teacher's Keras model, float32
    crops -> z.
    """

    images: Images
    labels: Labels
    features: Any
    _run: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        run = tf.function(lambda x: self.features(x, training=False), reduce_retracing=True)
        object.__setattr__(self, "_run", run)

    def draw(
        self, generator: np.random.Generator, batch: int, /
    ) -> tuple[FloatArray, Labels, FloatArray]:
        rows = generator.integers(0, len(self.labels), batch)
        cropped = crop_images(self.images[rows], draw_crops(generator, (batch,)))
        inputs = scale_images(cropped)
        return inputs, self.labels[rows], self._run(inputs).numpy()


@dataclass(frozen=True, slots=True)
class CachedCrops:
    """A fixed set of crops of each image, with the teacher's feature maps computed once.

    crops: [variants, images, 3]; z: float32 [variants, images, height, width, filters]
    """

    images: Images
    labels: Labels
    crops: Crops
    z: FloatArray

    @classmethod
    def of(
        cls,
        features: Any,
        images: Images,
        labels: Labels,
        variants: int,
        file: Path,
        seed: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> CachedCrops:
        """The first variant is the image itself. features: the teacher's Keras model.

        file: of z, which stays on the disk. One that exists is read: name it by all that z depends
        on. Raises ValueError where its shape is another.
        """
        crops = draw_crops(np.random.default_rng(seed), (variants, len(images)))
        crops[0] = PADDING_PX, PADDING_PX, 0
        shape = (variants, len(images), *features.outputs[0].shape[1:])
        if file.exists():
            stored = np.load(file, mmap_mode="r")
            if stored.shape != shape:
                raise ValueError(f"{file}: shape {stored.shape}; expected {shape}")
            return cls(images, labels, crops, stored)
        fresh = file.with_suffix(".new")
        z = np.lib.format.open_memmap(fresh, "w+", np.float32, shape)
        made = cls(images, labels, crops, z)
        step = 64 * BATCH
        for variant in range(variants):
            for start in range(0, len(images), step):
                rows = np.arange(start, min(start + step, len(images)))
                z[variant, rows] = compute_batches(features, made.take(variant, rows))
                progress(variant * len(images) + rows[-1] + 1, variants * len(images))
        z.flush()
        fresh.replace(file)
        return replace(made, z=np.load(file, mmap_mode="r"))

    def take(self, variant: int, rows: NDArray[np.int64]) -> FloatArray:
        """The inputs of one variant of the images with these numbers."""
        return scale_images(crop_images(self.images[rows], self.crops[variant, rows]))

    def draw(
        self, generator: np.random.Generator, batch: int, /
    ) -> tuple[FloatArray, Labels, FloatArray]:
        rows = generator.integers(0, len(self.labels), batch)
        variants = generator.integers(0, len(self.crops), batch)
        cropped = crop_images(self.images[rows], self.crops[variants, rows])
        return scale_images(cropped), self.labels[rows], self.z[variants, rows]
