"""The square of the scenes: its cameras, the houses around it and the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from . import solids, things
from .raster import NEAR_M, Camera, Rig, compute_normals, project
from .solids import Floats, Mesh

SQUARE_M = 14.0
"""Half the side of the square on which objects stand."""

CAMERAS = (
    Camera((-21.0, -15.0, 4.5), (-5.5, 2.0, 0.0), 21.0, noise=0.035, gain=0.95),
    Camera((2.0, -23.0, 6.0), (-4.5, -2.5, 0.0), 21.8, noise=0.030, gain=1.05),
    Camera((22.0, -12.0, 3.5), (2.0, -6.3, 0.0), 25.0, noise=0.020, gain=0.90),
    Camera((25.0, 21.0, 6.5), (5.0, 4.0, 0.0), 15.5, noise=0.030, gain=1.00),
    Camera((-3.0, 23.0, 4.0), (3.0, 2.0, 0.0), 28.5, noise=0.015, gain=1.10),
    Camera((-23.0, 10.0, 7.0), (-3.5, 1.5, 0.0), 18.3, 128, 96, noise=0.050, gain=1.00),
)
"""Each camera overlooks another part of the square; the last one has fewer pixels."""
RIG = Rig.of(CAMERAS)

# x0, x1, y0, y1 and height in metres, colour.
_HOUSES = (
    (-60, -34, -62, -30, 14, (0.62, 0.52, 0.44)),
    (-26, -4, -64, -36, 10, (0.70, 0.66, 0.58)),
    (4, 30, -60, -34, 17, (0.50, 0.47, 0.46)),
    (36, 62, -40, -8, 11, (0.66, 0.45, 0.36)),
    (34, 58, 0, 30, 15, (0.60, 0.61, 0.62)),
    (6, 34, 36, 60, 9, (0.72, 0.60, 0.46)),
    (-30, -2, 34, 62, 16, (0.55, 0.50, 0.52)),
    (-62, -36, 10, 40, 12, (0.68, 0.58, 0.52)),
    (-60, -38, -22, 4, 8, (0.58, 0.62, 0.56)),
)
MAP_CELLS = 256
"""Cells along each side of the map of the ground, which repeats beyond it."""
CELL_M = 0.25


def find_overlooking(place: Floats) -> NDArray[np.bool_]:
    """Which cameras overlook points [n, 2] (a metre above them): bool [n, cameras]."""
    sensor = np.array([(c.width_px, c.height_px) for c in CAMERAS], np.float32)
    waist = solids.make_points(place[:, 0], place[:, 1], 1.0)
    pixels, _ = project(np.tile(waist, (len(CAMERAS), 1, 1)), np.arange(len(CAMERAS)), RIG)
    return np.asarray((np.abs(pixels.swapaxes(0, 1)) < sensor / 2).all(axis=-1))


@cache
def build_houses() -> Mesh:
    """All houses around the square, a mesh of one sample."""
    return solids.join(*(things.build_house(*row[:5], row[5]) for row in _HOUSES))


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The faces of houses that one camera sees.

    face: int [faces], numbers in `build_houses`; pixels: [faces, 6, 2], between low and high
    [faces, 2]; depth: [faces], metres; layers: as in Mesh
    """

    face: NDArray[np.intp]
    pixels: Floats
    low: Floats
    high: Floats
    depth: Floats
    layers: NDArray[np.int16]


@cache
def project_houses(camera: int) -> Backdrop:
    """The houses as a camera sees them, which is the same in every sample."""
    houses = build_houses()
    vertices = houses.vertices[0]
    pixels, depth = project(vertices[None], np.array([camera]), RIG)
    towards = vertices[:, 0] - RIG.position[camera]
    front = (compute_normals(vertices) * towards).sum(axis=-1) < 0
    face = np.flatnonzero((front | houses.two_sided[0]) & (depth[0] > NEAR_M).all(axis=-1))
    seen = pixels[0, face]
    return Backdrop(
        face,
        seen,
        seen.min(axis=1),
        seen.max(axis=1),
        depth[0, face].mean(axis=-1),
        houses.layers[0, face],
    )


@cache
def colour_ground() -> Floats:
    """Colours [cells, cells, 3] of the map of the ground: two roads, crossings, pavement."""
    generator = np.random.default_rng(0x5CE7E)
    y, x = (np.mgrid[:MAP_CELLS, :MAP_CELLS] - MAP_CELLS / 2) * CELL_M
    colour = np.full((MAP_CELLS, MAP_CELLS, 3), (0.56, 0.54, 0.51))
    colour[(np.floor(x) + np.floor(y)) % 2 == 0] = (0.52, 0.50, 0.47)
    colour[(np.abs(x) > 17) & (np.abs(y) > 17)] = (0.30, 0.40, 0.20)
    for across, along in ((x, y), (y, x)):
        road = np.abs(across) < 5
        colour[road] = (0.38, 0.38, 0.40)
        colour[road & (np.abs(across) < 0.2) & (along % 4 < 2) & (np.abs(along) > 10)] = 0.62
        colour[road & (np.abs(np.abs(along) - 7.5) < 1.4) & (across % 1.5 < 0.75)] = 0.60
    colour[(np.abs(x) < 5) & (np.abs(y) < 5)] = (0.39, 0.39, 0.41)
    patches = generator.normal(0, 0.03, (32, 32, 1)).repeat(8, axis=0).repeat(8, axis=1)
    colour += patches + generator.normal(0, 0.02, (MAP_CELLS, MAP_CELLS, 1))
    return np.asarray(np.clip(colour, 0, 1), np.float32)
