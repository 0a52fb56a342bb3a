"""Things of the scenes, many samples at a time: the kinds of each data set, clutter and houses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import vehicles
from .solids import CORNERS, Floats, Mesh, build_ball, build_block, build_disc, join, make_points
from .vehicles import draw_paint


def build_person(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """People in mid-step, and their half depth and half width [n, 2]."""
    size = (generator.uniform(1.50, 1.95, n) / 1.75).astype(np.float32)
    girth = size * generator.uniform(0.9, 1.25, n).astype(np.float32)
    step = generator.uniform(-0.30, 0.30, n).astype(np.float32) * size
    coat = generator.random(n) < 0.25
    shirt, trousers = draw_paint(generator, n), draw_paint(generator, n)
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
Kinds = dict[str, Builder]

_FIVE: Kinds = {
    "car": vehicles.build_private_car,
    "taxi": vehicles.build_taxi,
    "bus": vehicles.build_city_bus,
    "lorry": vehicles.build_lorry,
    "person": build_person,
}
KINDS: dict[str, Kinds] = {
    "scenes": {"car": vehicles.build_car, "bus": vehicles.build_bus, "person": build_person},
    "scenes5": _FIVE,
    "scenes8": {
        **_FIVE,
        "van": vehicles.build_van,
        "ambulance": vehicles.build_ambulance,
        "pickup": vehicles.build_pickup,
    },
}
"""The kinds of objects of each data set, by class in the order of labels."""


def build_by_class(
    generator: np.random.Generator, kinds: Kinds, labels: NDArray[np.int32]
) -> tuple[Mesh, Floats]:
    """A thing of its class for every sample, and its half length and half width [n, 2].

    Things with fewer faces than the largest are filled with faces of no area.
    """
    rows = [np.flatnonzero(labels == number) for number in range(len(kinds))]
    built = [
        (at, *build(generator, len(at)))
        for at, build in zip(rows, kinds.values(), strict=True)
        if len(at)
    ]
    faces, n = max(mesh.faces for _, mesh, _ in built), len(labels)
    vertices = np.zeros((n, faces, CORNERS, 3), np.float32)
    colours = np.zeros((n, faces, 3), np.float32)
    layers = np.zeros((n, faces), np.int16)
    two_sided = np.zeros((n, faces), np.bool_)
    halves = np.zeros((n, 2), np.float32)
    for at, mesh, half in built:
        vertices[at, : mesh.faces] = mesh.vertices
        colours[at, : mesh.faces] = mesh.colours
        layers[at, : mesh.faces] = mesh.layers
        two_sided[at, : mesh.faces] = mesh.two_sided
        halves[at] = half
    return Mesh(vertices, colours, layers, two_sided), halves


def build_crate(generator: np.random.Generator, n: int) -> Mesh:
    """Boxes from the size of a bin to that of a small car."""
    x, y = generator.uniform(0.25, 1.3, (2, n))
    z = generator.uniform(0.6, 2.2, n)
    return build_block(make_points(-x, -y, 0.0), make_points(x, y, z), draw_paint(generator, n))


def build_pole(generator: np.random.Generator, n: int) -> Mesh:
    """Lamp posts and signs."""
    r = generator.uniform(0.07, 0.22, n)
    plate = generator.uniform(0.2, 0.5, n)
    z = generator.uniform(2.2, 4.0, n)
    return join(
        build_block(
            make_points(-r, -r, 0.0), make_points(r, r, z), (0.35, 0.36, 0.38), sides="xXyY"
        ),
        build_disc(make_points(0.0, 0.0, z), plate, "X", draw_paint(generator, n), two_sided=True),
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
