"""Solids of the street scenes: cars, buses, people and clutter as flat shaded faces.

Everything is built of blocks (boxes, optionally tapering to the top) and hexagonal discs, for many
samples at once. A thing is built in its own frame, metres, x ahead, y to its left, z up, standing
on z = 0, and then placed on the square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

CORNERS = 6
"""Corners of every face; one with fewer repeats its last."""

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

_GLASS = (0.10, 0.14, 0.19)
_TYRE = (0.05, 0.05, 0.06)
_HUB = (0.55, 0.55, 0.57)
_HEADLIGHT = (1.0, 0.97, 0.80)
_TAILLIGHT = (0.75, 0.05, 0.04)


@dataclass(frozen=True, slots=True)
class Mesh:
    """The faces of one thing, for n samples.

    vertices:  float32 [n, faces, 6, 3], metres
    colours:   float32 [n, faces, 3], red, green, blue in 0..1 before light
    layers:    int16 [n, faces], painted in rising order within the thing
    two_sided: bool [n, faces], seen from behind too
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


def points(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
    """Points [n, 3] from their coordinates, each a number or an array [n]."""
    return np.stack(np.broadcast_arrays(*np.atleast_1d(x, y, z)), axis=-1).astype(np.float32)


def _mesh(vertices: Floats, colour: ArrayLike, layer: int, two_sided: bool) -> Mesh:
    n, faces = vertices.shape[:2]
    colours = np.asarray(colour, np.float32)
    colours = colours[:, None] if colours.ndim == 2 else colours
    return Mesh(
        vertices=vertices.astype(np.float32),
        colours=np.broadcast_to(colours, (n, faces, 3)).astype(np.float32),
        layers=np.full((n, faces), layer, np.int16),
        two_sided=np.full((n, faces), two_sided),
    )


def block(
    low: Floats,
    high: Floats,
    colour: ArrayLike,
    *,
    taper: ArrayLike = 0.0,
    sides: str = "xXyYZ",
    layer: int = 1,
) -> Mesh:
    """A box from corner `low` to corner `high` [n, 3] whose top is `taper` metres shorter at both
    ends (and a third of that narrower); `sides` names the faces wanted, capitals the positive ones.

    A window is a box a little larger than the body with one side only.
    """
    low, high = np.broadcast_arrays(low, high)
    slope = np.asarray(taper, np.float32)
    corners = []
    for z, dx, dy in ((low[:, 2], 0.0, 0.0), (high[:, 2], slope, slope / 3)):
        x0, x1, y0, y1 = low[:, 0] + dx, high[:, 0] - dx, low[:, 1] + dy, high[:, 1] - dy
        corners += [points(x0, y0, z), points(x1, y0, z), points(x1, y1, z), points(x0, y1, z)]
    numbers = [(*_SIDES[side], *_SIDES[side][-1:] * (CORNERS - 4)) for side in sides]
    return _mesh(np.stack(corners, axis=1)[:, numbers], colour, layer, two_sided=False)


def disc(
    centre: Floats,
    radius: ArrayLike,
    side: str,
    colour: ArrayLike,
    *,
    layer: int = 2,
    two_sided: bool = False,
) -> Mesh:
    """A hexagon about `centre` [n, 3] that faces `side`."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    first, second = _SPANS[side]
    ring = np.zeros((CORNERS, 3), np.float32)
    ring[:, first], ring[:, second] = np.cos(angle), np.sin(angle)
    size = np.atleast_1d(np.asarray(radius, np.float32))[:, None, None]
    vertices = np.asarray(centre[:, None] + size * ring, np.float32)
    return _mesh(vertices[:, None], colour, layer, two_sided)


def ball(centre: Floats, radius: ArrayLike, colour: ArrayLike, *, layer: int = 2) -> Mesh:
    """Three crossing hexagons: round enough at this size, from every direction."""
    discs = [disc(centre, radius, side, colour, layer=layer, two_sided=True) for side in "XYZ"]
    return join(*discs)


def join(*meshes: Mesh) -> Mesh:
    """One thing made of several."""
    return Mesh(
        vertices=np.concatenate([m.vertices for m in meshes], axis=1),
        colours=np.concatenate([m.colours for m in meshes], axis=1),
        layers=np.concatenate([m.layers for m in meshes], axis=1),
        two_sided=np.concatenate([m.two_sided for m in meshes], axis=1),
    )


def repeat(mesh: Mesh, n: int) -> Mesh:
    """A thing of one sample, the same in n."""
    return Mesh(
        vertices=np.repeat(mesh.vertices, n, axis=0),
        colours=np.repeat(mesh.colours, n, axis=0),
        layers=np.repeat(mesh.layers, n, axis=0),
        two_sided=np.repeat(mesh.two_sided, n, axis=0),
    )


def place(mesh: Mesh, position: Floats, heading: NDArray[np.floating]) -> Mesh:
    """The thing turned by `heading` [n] (radians, x towards y) and moved to `position` [n, 2]."""
    cos, sin = np.cos(heading)[:, None, None], np.sin(heading)[:, None, None]
    x, y, z = np.moveaxis(mesh.vertices, -1, 0)
    moved = (
        x * cos - y * sin + position[:, 0, None, None],
        x * sin + y * cos + position[:, 1, None, None],
        z,
    )
    vertices = np.stack(moved, axis=-1).astype(np.float32)
    return Mesh(vertices, mesh.colours, mesh.layers, mesh.two_sided)


def _paint(generator: np.random.Generator, n: int) -> Floats:
    """Colours [n, 3] of cars, buses and clothes: from grey to bright, from black to white."""
    grey = generator.uniform(0.08, 0.90, (n, 1))
    bright = generator.uniform(0.04, 0.95, (n, 3))
    share = generator.uniform(0.0, 1.0, (n, 1)) ** 0.6
    return np.asarray(grey + share * (bright - grey), np.float32)


def _wheels(
    length: Floats, width: Floats, radius: float, at: tuple[float, ...]
) -> tuple[Mesh, ...]:
    """Wheels on both sides; `at` are their places as shares of the half length."""
    parts = []
    for share in at:
        for side, sign in (("Y", 1), ("y", -1)):
            centre = points(share * length / 2, sign * (width / 2 + 0.02), radius)
            parts.append(disc(centre, radius, side, _TYRE, layer=2))
            parts.append(disc(centre, radius * 0.5, side, _HUB, layer=3))
    return tuple(parts)


def _lamps(length: Floats, width: Floats, z0: float, z1: float) -> tuple[Mesh, ...]:
    """Head and tail lights at the four corners."""
    parts = []
    for side, sign, colour in (("X", 1, _HEADLIGHT), ("x", -1, _TAILLIGHT)):
        end = sign * (length / 2 + 0.02)
        for inner, outer in ((0.28, 0.46), (-0.46, -0.28)):
            low, high = points(end, inner * width, z0), points(end, outer * width, z1)
            parts.append(block(low, high, colour, sides=side, layer=2))
    return tuple(parts)


def car(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Cars, some of them vans, and their half length and half width [n, 2]."""
    van = generator.random(n) < 0.12
    length = generator.uniform(3.7, 4.8, n).astype(np.float32)
    width = generator.uniform(1.65, 1.9, n).astype(np.float32)
    waist = generator.uniform(0.80, 0.98, n).astype(np.float32)
    height = np.where(van, generator.uniform(1.8, 2.1, n), generator.uniform(1.38, 1.55, n))
    tail = np.where(van, -0.49, generator.uniform(-0.48, -0.36, n)) * length
    nose = np.where(van, 0.36, generator.uniform(0.20, 0.30, n)) * length
    taper = np.where(van, 0.15, generator.uniform(0.35, 0.55, n))
    colour = _paint(generator, n)
    half = width / 2

    def cabin(grow: float, share: float, colour: ArrayLike, sides: str, layer: int) -> Mesh:
        top = waist + share * (height - waist)
        low = points(tail - grow, -0.94 * half - grow, waist + 0.03 * (layer - 3))
        high = points(nose + grow, 0.94 * half + grow, top)
        return block(low, high, colour, taper=taper * share, sides=sides, layer=layer)

    mesh = join(
        block(
            points(-length / 2, -half, 0.28), points(length / 2, half, waist), colour, taper=0.06
        ),
        cabin(0.0, 1.0, colour, "xXyYZ", 3),
        cabin(0.02, 0.84, _GLASS, "xXyY", 4),
        *_wheels(length, width, 0.34, (-0.62, 0.64)),
        *_lamps(length, width, 0.55, 0.75),
    )
    return mesh, np.stack([length / 2, half], axis=1)


def bus(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Buses, some of them short ones, and their half length and half width [n, 2]."""
    short = generator.random(n) < 0.15
    length = np.where(short, generator.uniform(5.8, 7.0, n), generator.uniform(8.5, 11.5, n))
    length = length.astype(np.float32)
    width = generator.uniform(2.2, 2.5, n).astype(np.float32)
    height = np.where(short, generator.uniform(2.4, 2.7, n), generator.uniform(2.8, 3.2, n))
    colour = _paint(generator, n)
    half = width / 2
    sill, lintel = 0.45 * height, 0.80 * height
    skirt = np.asarray(0.45 * colour, np.float32)
    windows = [
        block(
            points((start - 0.075) * length, -half - 0.02, sill),
            points((start + 0.075) * length, half + 0.02, lintel),
            _GLASS,
            sides="yY",
            layer=3,
        )
        for start in (-0.39, -0.21, -0.03, 0.15, 0.36)
    ]
    roof = np.asarray(0.3 * colour + 0.65, np.float32)
    mesh = join(
        block(points(-length / 2, -half, 0.35), points(length / 2, half, height), colour),
        block(
            points(-length / 2 - 0.01, -half - 0.01, 0.84 * height),
            points(length / 2 + 0.01, half + 0.01, height + 0.01),
            roof,
            layer=2,
        ),
        block(
            points(-length / 2 - 0.01, -half - 0.01, 0.35),
            points(length / 2 + 0.01, half + 0.01, 0.65),
            skirt,
            sides="xXyY",
            layer=2,
        ),
        block(
            points(-length / 2, -0.43 * width, sill),
            points(length / 2 + 0.02, 0.43 * width, 0.9 * height),
            _GLASS,
            sides="X",
            layer=3,
        ),
        block(
            points(-length / 2 - 0.02, -0.36 * width, 1.1 * sill),
            points(length / 2, 0.36 * width, lintel),
            _GLASS,
            sides="x",
            layer=3,
        ),
        *windows,
        *_wheels(length, width, 0.48, (-0.55, 0.60)),
        *_lamps(length, width, 0.7, 0.95),
    )
    return mesh, np.stack([length / 2, half], axis=1)


def person(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """People in mid-step, and their half depth and half width [n, 2]."""
    size = (generator.uniform(1.50, 1.95, n) / 1.75).astype(np.float32)
    girth = size * generator.uniform(0.9, 1.25, n).astype(np.float32)
    step = generator.uniform(-0.30, 0.30, n).astype(np.float32) * size
    coat = generator.random(n) < 0.25
    shirt, trousers = _paint(generator, n), _paint(generator, n)
    skin = np.asarray(generator.uniform(0.3, 1.0, (n, 1)) * (0.92, 0.72, 0.58), np.float32)
    hem = np.where(coat, 0.50, 0.84) * size
    parts = []
    for sign in (1, -1):
        foot, hand = sign * step, -0.8 * sign * step
        parts.append(
            block(
                points(foot - 0.09 * girth, sign * 0.12 * girth - 0.09 * girth, 0.0),
                points(foot + 0.09 * girth, sign * 0.12 * girth + 0.09 * girth, 0.86 * size),
                trousers,
            )
        )
        parts.append(
            block(
                points(hand - 0.07 * girth, sign * 0.29 * girth - 0.06 * girth, 0.72 * size),
                points(hand + 0.07 * girth, sign * 0.29 * girth + 0.06 * girth, 1.40 * size),
                np.asarray(0.85 * shirt, np.float32),
            )
        )
    parts.append(
        block(
            points(-0.14 * girth, -0.23 * girth, hem),
            points(0.14 * girth, 0.23 * girth, 1.46 * size),
            shirt,
        )
    )
    parts.append(ball(points(0.0, 0.0, 1.60 * size), 0.15 * size, skin, layer=2))
    half = np.stack([0.35 * girth, 0.35 * girth], axis=1)
    return join(*parts), half


Builder = Callable[[np.random.Generator, int], tuple[Mesh, Floats]]
BUILDERS: tuple[Builder, ...] = (car, bus, person)
"""In the order of the classes."""


def by_class(generator: np.random.Generator, labels: NDArray[np.int32]) -> tuple[Mesh, Floats]:
    """For every sample a thing of its class, and its half extents [n, 2] on the ground.

    Things with fewer faces than the largest are filled with faces of no area.
    """
    built = [build(generator, len(labels)) for build in BUILDERS]
    faces, n = max(mesh.faces for mesh, _ in built), len(labels)
    vertices = np.zeros((n, faces, CORNERS, 3), np.float32)
    colours = np.zeros((n, faces, 3), np.float32)
    layers = np.zeros((n, faces), np.int16)
    two_sided = np.zeros((n, faces), np.bool_)
    halves = np.zeros((n, 2), np.float32)
    for number, (mesh, half) in enumerate(built):
        rows = labels == number
        vertices[rows, : mesh.faces] = mesh.vertices[rows]
        colours[rows, : mesh.faces] = mesh.colours[rows]
        layers[rows, : mesh.faces] = mesh.layers[rows]
        two_sided[rows, : mesh.faces] = mesh.two_sided[rows]
        halves[rows] = half[rows]
    return Mesh(vertices, colours, layers, two_sided), halves


def crate(generator: np.random.Generator, n: int) -> Mesh:
    """Bins, kiosks, crates, booths: boxes of the size of anything between a bin and a car."""
    x, y = generator.uniform(0.25, 1.3, (2, n))
    z = generator.uniform(0.6, 2.2, n)
    return block(points(-x, -y, 0.0), points(x, y, z), _paint(generator, n))


def pole(generator: np.random.Generator, n: int) -> Mesh:
    """Lamp posts and signs."""
    r = generator.uniform(0.07, 0.22, n)
    plate = generator.uniform(0.2, 0.5, n)
    z = generator.uniform(2.2, 4.0, n)
    return join(
        block(points(-r, -r, 0.0), points(r, r, z), (0.35, 0.36, 0.38), sides="xXyY"),
        disc(points(0.0, 0.0, z), plate, "X", _paint(generator, n), two_sided=True),
    )


def tree(generator: np.random.Generator, n: int) -> Mesh:
    """A trunk and a crown."""
    r = generator.uniform(0.12, 0.25, n)
    crown = generator.uniform(0.9, 1.7, n)
    z = generator.uniform(2.2, 3.4, n)
    green = np.asarray(generator.uniform(0.5, 1.1, (n, 1)) * (0.22, 0.42, 0.16), np.float32)
    return join(
        block(points(-r, -r, 0.0), points(r, r, z), (0.33, 0.24, 0.16), sides="xXyY"),
        ball(points(0.0, 0.0, z + 0.5 * crown), crown, green, layer=2),
    )


def wall(generator: np.random.Generator, n: int) -> Mesh:
    """A hedge, a fence or a parked trailer: long and as high as a car or a person."""
    x = generator.uniform(1.2, 3.0, n)
    z = generator.uniform(0.7, 1.9, n)
    kind = np.asarray(((0.20, 0.34, 0.15), (0.55, 0.42, 0.33), (0.6, 0.6, 0.58)), np.float32)
    return block(points(-x, -0.2, 0.0), points(x, 0.2, z), kind[generator.integers(0, 3, n)])


def building(x0: float, x1: float, y0: float, y1: float, height: float, colour: ArrayLike) -> Mesh:
    """One house (a mesh of one sample) with dark rows of windows and a doorway's plinth."""
    low, high = points(x0, y0, 0.0), points(x1, y1, height)
    rows = [
        block(
            low + points(-0.05, -0.05, z),
            points(x1 + 0.05, y1 + 0.05, z + 1.3),
            (0.38, 0.41, 0.45),
            sides="xXyY",
            layer=2,
        )
        for z in np.arange(1.4, height - 1.5, 3.0)
    ]
    return join(block(low, high, colour), *rows)
