"""Meshes of flat faces, for many samples at once: blocks, discs and balls, joined and placed.

A thing is built in its own frame, in metres, with x ahead, y to its left, z up and the ground at
z = 0, and then placed on the square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

CORNERS = 6
"""Corners of every face; a face with fewer repeats its last one."""

# Corner numbers of a block, counter-clockwise seen from outside: 0-3 below, 4-7 above.
_SIDES = {
    "X": (1, 2, 6, 5),
    "x": (3, 0, 4, 7),
    "Y": (2, 3, 7, 6),
    "y": (0, 1, 5, 4),
    "Z": (4, 5, 6, 7),
}
# The two axes that span a disc, ordered so that their cross product is its normal.
_SPANS = {"X": (1, 2), "x": (2, 1), "Y": (2, 0), "y": (0, 2), "Z": (0, 1)}


@dataclass(frozen=True, slots=True)
class Mesh:
    """The faces of one thing, for n samples.

    vertices:  float32 [n, faces, 6, 3], metres
    colours:   float32 [n, faces, 3], red, green, blue in 0..1 before light
    layers:    int16 [n, faces], painted in rising order within the thing
    two_sided: bool [n, faces], visible from behind too
    """

    vertices: Floats
    colours: Floats
    layers: NDArray[np.int16]
    two_sided: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.vertices)

    @property
    def faces(self) -> int:
        return int(self.vertices.shape[1])


def make_points(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
    """Points float32 [n, 3] from their coordinates, each a number or an array [n]."""
    counts = [len(value) for value in (x, y, z) if isinstance(value, np.ndarray) and value.ndim]
    points = np.empty((max(counts, default=1), 3), np.float32)  # np.stack takes ten times as long
    points[:, 0], points[:, 1], points[:, 2] = x, y, z
    return points


def _make_mesh(vertices: Floats, colour: ArrayLike, layer: int, two_sided: bool) -> Mesh:
    n, faces = vertices.shape[:2]
    colours = np.asarray(colour, np.float32)
    colours = colours[:, None] if colours.ndim == 2 else colours
    return Mesh(
        vertices=vertices.astype(np.float32),
        colours=np.broadcast_to(colours, (n, faces, 3)).astype(np.float32),
        layers=np.full((n, faces), layer, np.int16),
        two_sided=np.full((n, faces), two_sided),
    )


def build_block(
    low: Floats,
    high: Floats,
    colour: ArrayLike,
    *,
    taper: ArrayLike = 0.0,
    sides: str = "xXyYZ",
    layer: int = 1,
) -> Mesh:
    """Boxes from corner `low` to corner `high` [n, 3].

    taper: metres by which the top is shorter at both ends; it is narrower by a third of that
    sides: the faces to build, by their outward direction: capitals for positive, none below
    """
    low, high = np.broadcast_arrays(low, high)
    slope = np.asarray(taper, np.float32)
    corners = []
    for z, dx, dy in ((low[:, 2], 0.0, 0.0), (high[:, 2], slope, slope / 3)):
        x0, x1, y0, y1 = low[:, 0] + dx, high[:, 0] - dx, low[:, 1] + dy, high[:, 1] - dy
        corners += [
            make_points(x0, y0, z),
            make_points(x1, y0, z),
            make_points(x1, y1, z),
            make_points(x0, y1, z),
        ]
    numbers = [(*_SIDES[side], *_SIDES[side][-1:] * (CORNERS - 4)) for side in sides]
    return _make_mesh(np.stack(corners, axis=1)[:, numbers], colour, layer, two_sided=False)


def build_disc(
    centre: Floats,
    radius: ArrayLike,
    side: str,
    colour: ArrayLike,
    *,
    layer: int = 2,
    two_sided: bool = False,
) -> Mesh:
    """Hexagons around `centre` [n, 3] that face `side`."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    first, second = _SPANS[side]
    ring = np.zeros((CORNERS, 3), np.float32)
    ring[:, first], ring[:, second] = np.cos(angle), np.sin(angle)
    size = np.atleast_1d(np.asarray(radius, np.float32))[:, None, None]
    vertices = np.asarray(centre[:, None] + size * ring, np.float32)
    return _make_mesh(vertices[:, None], colour, layer, two_sided)


def build_ball(centre: Floats, radius: ArrayLike, colour: ArrayLike, *, layer: int = 2) -> Mesh:
    """Three crossing hexagons around `centre` [n, 3], which look round at this size."""
    discs = [
        build_disc(centre, radius, side, colour, layer=layer, two_sided=True) for side in "XYZ"
    ]
    return join(*discs)


def join(*meshes: Mesh) -> Mesh:
    """One mesh of the faces of several."""
    return Mesh(
        vertices=np.concatenate([m.vertices for m in meshes], axis=1),
        colours=np.concatenate([m.colours for m in meshes], axis=1),
        layers=np.concatenate([m.layers for m in meshes], axis=1),
        two_sided=np.concatenate([m.two_sided for m in meshes], axis=1),
    )


def repeat(mesh: Mesh, n: int) -> Mesh:
    """The mesh of one sample, repeated for n."""
    return Mesh(
        vertices=np.repeat(mesh.vertices, n, axis=0),
        colours=np.repeat(mesh.colours, n, axis=0),
        layers=np.repeat(mesh.layers, n, axis=0),
        two_sided=np.repeat(mesh.two_sided, n, axis=0),
    )


def place(mesh: Mesh, position: Floats, heading: NDArray[np.floating]) -> Mesh:
    """The mesh turned by `heading` [n] (radians, x towards y) and moved to `position` [n, 2]."""
    cos, sin = np.cos(heading)[:, None, None], np.sin(heading)[:, None, None]
    x, y, z = np.moveaxis(mesh.vertices, -1, 0)
    moved = (
        x * cos - y * sin + position[:, 0, None, None],
        x * sin + y * cos + position[:, 1, None, None],
        z,
    )
    vertices = np.stack(moved, axis=-1).astype(np.float32)
    return Mesh(vertices, mesh.colours, mesh.layers, mesh.two_sided)
