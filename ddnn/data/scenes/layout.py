"""The layout of samples: which things stand where on the square, and the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dataset import Labels
from . import solids, things
from .solids import Floats, Mesh
from .square import SQUARE_M, find_overlooking
from .things import Kinds

OVERLOOKING = 3
"""Objects stand only where at least this many cameras overlook the ground."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing of n samples.

    mesh: in its own frame; position: [n, 2], metres; heading: [n], radians; present: [n], whether
    the sample has it
    """

    mesh: Mesh
    position: Floats
    heading: Floats
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands where in each of n samples, and the light.

    subject: the object that gives the sample its label; half: [n, 2], its half length and half
    width, metres; towards_light: [n, 3], unit vectors; ambient: [n], the share of light in shadow
    """

    labels: Labels
    subject: Thing
    half: Floats
    others: tuple[Thing, ...]
    towards_light: Floats
    ambient: Floats


def draw_layout(generator: np.random.Generator, kinds: Kinds, labels: Labels) -> Layout:
    """Random subjects of the kinds with the numbers `labels`, other things near them, and a
    light."""
    n = len(labels)
    mesh, half = things.build_by_class(generator, kinds, labels)
    place = _draw_places(generator, n)
    subject = Thing(mesh, place, _draw_directions(generator, n), np.ones(n, np.bool_))

    def place_near(
        mesh: Mesh, chance: float, near_m: float | Floats, far_m: float | Floats
    ) -> Thing:
        """Place the mesh `near_m` to `far_m` from the subject's outline, in a share of samples."""
        angle = _draw_directions(generator, n)
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        gap = generator.uniform(near_m, far_m, n)
        reach = 1.0 / np.max(np.abs(ray) / (half + gap[:, None]), axis=1)
        offset = turn(ray * reach[:, None], subject.heading)
        return Thing(
            mesh,
            np.asarray(place + offset, np.float32),
            _draw_directions(generator, n),
            generator.random(n) < chance,
        )

    other, other_half = things.build_by_class(
        generator, kinds, generator.integers(0, len(kinds), n).astype(np.int32)
    )
    clear = other_half.max(axis=1)
    others = (
        place_near(other, 0.30, clear + 0.3, clear + 5.0),
        place_near(things.build_crate(generator, n), 0.45, 1.5, 4.0),
        place_near(things.build_crate(generator, n), 0.45, 1.5, 7.0),
        place_near(things.build_wall(generator, n), 0.4, 3.1, 5.0),
        place_near(things.build_pole(generator, n), 0.6, 0.6, 4.0),
        place_near(things.build_pole(generator, n), 0.6, 0.6, 6.0),
        place_near(things.build_tree(generator, n), 0.5, 1.8, 4.0),
        place_near(things.build_tree(generator, n), 0.5, 1.8, 8.0),
    )
    azimuth, height = _draw_directions(generator, n), generator.uniform(0.45, 1.2, n)
    towards_light = solids.make_points(
        np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)
    )
    ambient = generator.uniform(0.50, 0.80, n).astype(np.float32)
    return Layout(labels, subject, half, others, towards_light, ambient)


def _draw_places(generator: np.random.Generator, n: int) -> Floats:
    """Random points [n, 2] of the square that at least OVERLOOKING cameras overlook."""
    found = np.zeros((0, 2), np.float32)
    while len(found) < n:
        place = generator.uniform(-SQUARE_M, SQUARE_M, (4 * n, 2)).astype(np.float32)
        overlooking = find_overlooking(place).sum(axis=1)
        found = np.concatenate([found, place[overlooking >= OVERLOOKING]])
    return found[:n]


def _draw_directions(generator: np.random.Generator, n: int) -> Floats:
    """Random angles [n], radians."""
    return generator.uniform(-np.pi, np.pi, n).astype(np.float32)


def turn(vectors: Floats, angle: Floats) -> Floats:
    """Ground vectors [..., 2] turned by `angle` [...], radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1).astype(np.float32)
