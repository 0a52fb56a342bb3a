"""Things of the scenes, many samples at a time: cars, buses, people, clutter and houses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .solids import CORNERS, Floats, Mesh, build_ball, build_block, build_disc, join, make_points

CLASSES = ("car", "bus", "person")

_GLASS = (0.10, 0.14, 0.19)
_TYRE = (0.05, 0.05, 0.06)
_HUB = (0.55, 0.55, 0.57)
_HEADLIGHT = (1.0, 0.97, 0.80)
_TAILLIGHT = (0.75, 0.05, 0.04)


def _draw_paint(generator: np.random.Generator, n: int) -> Floats:
    """Random colours [n, 3] of cars, buses and clothes."""
    grey = generator.uniform(0.08, 0.90, (n, 1))
    bright = generator.uniform(0.04, 0.95, (n, 3))
    share = generator.uniform(0.0, 1.0, (n, 1)) ** 0.6
    return np.asarray(grey + share * (bright - grey), np.float32)


def _build_wheels(
    length: Floats, width: Floats, radius: float, at: tuple[float, ...]
) -> tuple[Mesh, ...]:
    """Wheels on both sides; `at`: their places as shares of the half length."""
    parts = []
    for share in at:
        for side, sign in (("Y", 1), ("y", -1)):
            centre = make_points(share * length / 2, sign * (width / 2 + 0.02), radius)
            parts.append(build_disc(centre, radius, side, _TYRE, layer=2))
            parts.append(build_disc(centre, radius * 0.5, side, _HUB, layer=3))
    return tuple(parts)


def _build_lamps(length: Floats, width: Floats, z0: float, z1: float) -> tuple[Mesh, ...]:
    """Head and tail lights at the four corners."""
    parts = []
    for side, sign, colour in (("X", 1, _HEADLIGHT), ("x", -1, _TAILLIGHT)):
        end = sign * (length / 2 + 0.02)
        for inner, outer in ((0.28, 0.46), (-0.46, -0.28)):
            low, high = make_points(end, inner * width, z0), make_points(end, outer * width, z1)
            parts.append(build_block(low, high, colour, sides=side, layer=2))
    return tuple(parts)


def build_car(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Cars, some of them vans, and their half length and half width [n, 2]."""
    van = generator.random(n) < 0.12
    length = generator.uniform(3.7, 4.8, n).astype(np.float32)
    width = generator.uniform(1.65, 1.9, n).astype(np.float32)
    waist = generator.uniform(0.80, 0.98, n).astype(np.float32)
    height = np.where(van, generator.uniform(1.8, 2.1, n), generator.uniform(1.38, 1.55, n))
    tail = np.where(van, -0.49, generator.uniform(-0.48, -0.36, n)) * length
    nose = np.where(van, 0.36, generator.uniform(0.20, 0.30, n)) * length
    taper = np.where(van, 0.15, generator.uniform(0.35, 0.55, n))
    colour = _draw_paint(generator, n)
    half = width / 2

    def build_cabin(grow: float, share: float, colour: ArrayLike, sides: str, layer: int) -> Mesh:
        top = waist + share * (height - waist)
        low = make_points(tail - grow, -0.94 * half - grow, waist + 0.03 * (layer - 3))
        high = make_points(nose + grow, 0.94 * half + grow, top)
        return build_block(low, high, colour, taper=taper * share, sides=sides, layer=layer)

    mesh = join(
        build_block(
            make_points(-length / 2, -half, 0.28),
            make_points(length / 2, half, waist),
            colour,
            taper=0.06,
        ),
        build_cabin(0.0, 1.0, colour, "xXyYZ", 3),
        build_cabin(0.02, 0.84, _GLASS, "xXyY", 4),
        *_build_wheels(length, width, 0.34, (-0.62, 0.64)),
        *_build_lamps(length, width, 0.55, 0.75),
    )
    return mesh, np.stack([length / 2, half], axis=1)


def build_bus(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Buses, some of them short, and their half length and half width [n, 2]."""
    short = generator.random(n) < 0.15
    length = np.where(short, generator.uniform(5.8, 7.0, n), generator.uniform(8.5, 11.5, n))
    length = length.astype(np.float32)
    width = generator.uniform(2.2, 2.5, n).astype(np.float32)
    height = np.where(short, generator.uniform(2.4, 2.7, n), generator.uniform(2.8, 3.2, n))
    colour = _draw_paint(generator, n)
    half = width / 2
    sill, lintel = 0.45 * height, 0.80 * height
    skirt = np.asarray(0.45 * colour, np.float32)
    windows = [
        build_block(
            make_points((start - 0.075) * length, -half - 0.02, sill),
            make_points((start + 0.075) * length, half + 0.02, lintel),
            _GLASS,
            sides="yY",
            layer=3,
        )
        for start in (-0.39, -0.21, -0.03, 0.15, 0.36)
    ]
    roof = np.asarray(0.3 * colour + 0.65, np.float32)
    mesh = join(
        build_block(
            make_points(-length / 2, -half, 0.35), make_points(length / 2, half, height), colour
        ),
        build_block(
            make_points(-length / 2 - 0.01, -half - 0.01, 0.84 * height),
            make_points(length / 2 + 0.01, half + 0.01, height + 0.01),
            roof,
            layer=2,
        ),
        build_block(
            make_points(-length / 2 - 0.01, -half - 0.01, 0.35),
            make_points(length / 2 + 0.01, half + 0.01, 0.65),
            skirt,
            sides="xXyY",
            layer=2,
        ),
        build_block(
            make_points(-length / 2, -0.43 * width, sill),
            make_points(length / 2 + 0.02, 0.43 * width, 0.9 * height),
            _GLASS,
            sides="X",
            layer=3,
        ),
        build_block(
            make_points(-length / 2 - 0.02, -0.36 * width, 1.1 * sill),
            make_points(length / 2, 0.36 * width, lintel),
            _GLASS,
            sides="x",
            layer=3,
        ),
        *windows,
        *_build_wheels(length, width, 0.48, (-0.55, 0.60)),
        *_build_lamps(length, width, 0.7, 0.95),
    )
    return mesh, np.stack([length / 2, half], axis=1)


def build_person(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """People in mid-step, and their half depth and half width [n, 2]."""
    size = (generator.uniform(1.50, 1.95, n) / 1.75).astype(np.float32)
    girth = size * generator.uniform(0.9, 1.25, n).astype(np.float32)
    step = generator.uniform(-0.30, 0.30, n).astype(np.float32) * size
    coat = generator.random(n) < 0.25
    shirt, trousers = _draw_paint(generator, n), _draw_paint(generator, n)
    skin = np.asarray(generator.uniform(0.3, 1.0, (n, 1)) * (0.92, 0.72, 0.58), np.float32)
    hem = np.where(coat, 0.50, 0.84) * size
    parts = []
    for sign in (1, -1):
        foot, hand = sign * step, -0.8 * sign * step
        parts.append(
            build_block(
                make_points(foot - 0.09 * girth, sign * 0.12 * girth - 0.09 * girth, 0.0),
                make_points(foot + 0.09 * girth, sign * 0.12 * girth + 0.09 * girth, 0.86 * size),
                trousers,
            )
        )
        parts.append(
            build_block(
                make_points(hand - 0.07 * girth, sign * 0.29 * girth - 0.06 * girth, 0.72 * size),
                make_points(hand + 0.07 * girth, sign * 0.29 * girth + 0.06 * girth, 1.40 * size),
                np.asarray(0.85 * shirt, np.float32),
            )
        )
    parts.append(
        build_block(
            make_points(-0.14 * girth, -0.23 * girth, hem),
            make_points(0.14 * girth, 0.23 * girth, 1.46 * size),
            shirt,
        )
    )
    parts.append(build_ball(make_points(0.0, 0.0, 1.60 * size), 0.15 * size, skin, layer=2))
    half = np.stack([0.35 * girth, 0.35 * girth], axis=1)
    return join(*parts), half


Builder = Callable[[np.random.Generator, int], tuple[Mesh, Floats]]
BUILDERS: tuple[Builder, ...] = (build_car, build_bus, build_person)
"""In the order of CLASSES."""


def build_by_class(
    generator: np.random.Generator, labels: NDArray[np.int32]
) -> tuple[Mesh, Floats]:
    """A thing of its class for every sample, and its half length and half width [n, 2].

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


def build_crate(generator: np.random.Generator, n: int) -> Mesh:
    """Boxes from the size of a bin to that of a small car."""
    x, y = generator.uniform(0.25, 1.3, (2, n))
    z = generator.uniform(0.6, 2.2, n)
    return build_block(make_points(-x, -y, 0.0), make_points(x, y, z), _draw_paint(generator, n))


def build_pole(generator: np.random.Generator, n: int) -> Mesh:
    """Lamp posts and signs."""
    r = generator.uniform(0.07, 0.22, n)
    plate = generator.uniform(0.2, 0.5, n)
    z = generator.uniform(2.2, 4.0, n)
    return join(
        build_block(
            make_points(-r, -r, 0.0), make_points(r, r, z), (0.35, 0.36, 0.38), sides="xXyY"
        ),
        build_disc(make_points(0.0, 0.0, z), plate, "X", _draw_paint(generator, n), two_sided=True),
    )


def build_tree(generator: np.random.Generator, n: int) -> Mesh:
    """Trees: a trunk and a crown."""
    r = generator.uniform(0.12, 0.25, n)
    crown = generator.uniform(0.9, 1.7, n)
    z = generator.uniform(2.2, 3.4, n)
    green = np.asarray(generator.uniform(0.5, 1.1, (n, 1)) * (0.22, 0.42, 0.16), np.float32)
    return join(
        build_block(
            make_points(-r, -r, 0.0), make_points(r, r, z), (0.33, 0.24, 0.16), sides="xXyY"
        ),
        build_ball(make_points(0.0, 0.0, z + 0.5 * crown), crown, green, layer=2),
    )


def build_wall(generator: np.random.Generator, n: int) -> Mesh:
    """Hedges, fences or trailers: long, and as high as a car or a person."""
    x = generator.uniform(1.2, 3.0, n)
    z = generator.uniform(0.7, 1.9, n)
    kind = np.asarray(((0.20, 0.34, 0.15), (0.55, 0.42, 0.33), (0.6, 0.6, 0.58)), np.float32)
    return build_block(
        make_points(-x, -0.2, 0.0), make_points(x, 0.2, z), kind[generator.integers(0, 3, n)]
    )


def build_house(
    x0: float, x1: float, y0: float, y1: float, height: float, colour: ArrayLike
) -> Mesh:
    """A house with dark rows of windows, a mesh of one sample."""
    low, high = make_points(x0, y0, 0.0), make_points(x1, y1, height)
    rows = [
        build_block(
            low + make_points(-0.05, -0.05, z),
            make_points(x1 + 0.05, y1 + 0.05, z + 1.3),
            (0.38, 0.41, 0.45),
            sides="xXyY",
            layer=2,
        )
        for z in np.arange(1.4, height - 1.5, 3.0)
    ]
    return join(build_block(low, high, colour), *rows)
