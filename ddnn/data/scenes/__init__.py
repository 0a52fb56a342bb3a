"""scenes: small street scenes seen by six calibrated cameras around a square.

This data set needs no file. Every sample is one object on a square of 28 m,
drawn in three dimensions and projected into six pin-hole cameras, each of which overlooks only a
part of the square. As in the data of the DDNN paper (A7) a view is the crop around the object,
scaled to 32x32, and a camera that does not see it gives a black image and the label -1. Poles,
trees, walls, other people and vehicles, distance, noise and exposure make one camera weak, so that
fusing six of them pays.

The kinds of objects are those of the data set's name. `scenes` has cars, buses and people; in
`scenes5` and `scenes8` kinds are alike except for parts that only some sides show (`vehicles`).

The seed determines every image. Samples are drawn in chunks, each with a child seed, so the first
n samples of a split are the same in a split of any size.

`things` builds meshes from the primitives of `solids`; `layout` draws what stands where on the
`square`; `scenery` collects the faces and sorts the things by what hides what; `photograph` draws
them with the functions of `raster` and applies the sensors' noise.
"""

from __future__ import annotations

import numpy as np

from ddnn.errors import ConfigError

from ..dataset import ABSENT, Images, Labels, Split
from .layout import draw_layout
from .photograph import SIZE_PX, photograph
from .square import CAMERAS
from .things import KINDS, Kinds

SPLITS = ("train", "validation", "test")
SAMPLES = {
    "scenes": (3000, 1000, 1000),
    "scenes5": (6000, 1000, 1000),
    "scenes8": (6000, 1000, 1000),
}
"""Default sizes of the splits."""
MAX_SAMPLES = 100_000
CHUNK = 100
"""Samples that share a child seed."""
MIN_VIEWS = 2
"""Samples that fewer cameras see are drawn again."""


def list_classes(name: str) -> tuple[str, ...]:
    """The classes of scenes, scenes5 or scenes8, in the order of labels."""
    return tuple(KINDS[name])


def draw_split(part: str, name: str = "scenes", *, seed: int = 0, samples: int) -> Split:
    """The first `samples` samples of the split `part` of the data set with this seed.

    Raises ConfigError unless `samples` is from 1 to MAX_SAMPLES.
    """
    if not 1 <= samples <= MAX_SAMPLES:
        raise ConfigError(f"{name}: {samples} samples asked for; expected 1 to {MAX_SAMPLES}")
    number = SPLITS.index(part)
    chunks = np.random.SeedSequence(seed).spawn(3)[number].spawn(-(-samples // CHUNK))
    drawn = [_draw_samples(np.random.default_rng(chunk), KINDS[name], CHUNK) for chunk in chunks]
    images, labels, view_labels = (
        np.concatenate(arrays)[:samples] for arrays in zip(*drawn, strict=True)
    )
    return Split(part, images, labels, view_labels, np.full(samples, ABSENT, np.int32))


def _draw_samples(
    generator: np.random.Generator, kinds: Kinds, samples: int
) -> tuple[Images, Labels, Labels]:
    """Samples of random kinds.

    Returns images uint8 [samples, 6, 32, 32, 3], labels int32 [samples] and view labels int32
    [samples, 6].
    """
    images = np.zeros((samples, len(CAMERAS), SIZE_PX, SIZE_PX, 3), np.uint8)
    labels = generator.integers(0, len(kinds), samples).astype(np.int32)
    seen = np.zeros((samples, len(CAMERAS)), np.bool_)
    rows = np.arange(samples)
    while rows.size:
        layout = draw_layout(generator, kinds, labels[rows])
        images[rows], seen[rows] = photograph(generator, layout)
        rows = np.flatnonzero(seen.sum(axis=1) < MIN_VIEWS)
    return images, labels, np.where(seen, labels[:, None], ABSENT).astype(np.int32)
