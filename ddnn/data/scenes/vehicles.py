"""Vehicles of the scenes, many samples at a time: cars, vans, taxis, ambulances, pickups, buses,
lorries.

Kinds that are alike differ by parts that only some sides show: a taxi's sign is lit in front, its
band of squares is on its right side and its board at the rear; a lorry has the cab and the outline
of a bus, but no windows behind; an ambulance is a van with a cross at the rear, a band on its left
side and a beacon in front. Decoys carry one such part: cars with a roof box or a band, vans with a
band, lorries with a dark band, buses without windows on one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .solids import Floats, Mesh, build_block, build_disc, join, make_points

_GLASS = (0.10, 0.14, 0.19)
_TYRE = (0.05, 0.05, 0.06)
_HUB = (0.55, 0.55, 0.57)
_HEADLIGHT = (1.0, 0.97, 0.80)
_TAILLIGHT = (0.75, 0.05, 0.04)
_YELLOW = (0.95, 0.80, 0.10)
_RED = (0.85, 0.10, 0.10)
_BLUE = (0.15, 0.30, 0.95)
_WHITE = (0.95, 0.95, 0.95)
_BOX = (0.18, 0.18, 0.20)


def draw_paint(generator: np.random.Generator, n: int) -> Floats:
    """Random colours [n, 3] of vehicles and clothes."""
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


@dataclass(frozen=True, slots=True)
class _Body:
    """A vehicle without the parts that make its kind, and its measures [n], metres."""

    mesh: Mesh
    length: Floats
    half: Floats  # of its width
    waist: Floats
    height: Floats

    @property
    def outline(self) -> Floats:
        """Half length and half width [n, 2]."""
        return np.stack([self.length / 2, self.half], axis=1)


def _keep(mesh: Mesh, present: NDArray[np.bool_]) -> Mesh:
    """The mesh in the samples that have it; in the others its faces have no area."""
    return Mesh(
        mesh.vertices * present[:, None, None, None], mesh.colours, mesh.layers, mesh.two_sided
    )


def _build_car_body(generator: np.random.Generator, n: int, vans: float) -> _Body:
    """Cars; a share `vans` of them are as tall and long as vans."""
    van = generator.random(n) < vans
    length = generator.uniform(3.7, 4.8, n).astype(np.float32)
    width = generator.uniform(1.65, 1.9, n).astype(np.float32)
    waist = generator.uniform(0.80, 0.98, n).astype(np.float32)
    height = np.where(van, generator.uniform(1.8, 2.1, n), generator.uniform(1.38, 1.55, n))
    tail = np.where(van, -0.49, generator.uniform(-0.48, -0.36, n)) * length
    nose = np.where(van, 0.36, generator.uniform(0.20, 0.30, n)) * length
    taper = np.where(van, 0.15, generator.uniform(0.35, 0.55, n))
    colour = draw_paint(generator, n)
    half = np.asarray(width / 2, np.float32)

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
    return _Body(mesh, length, half, waist, height.astype(np.float32))


def _build_roof_box(body: _Body, front: ArrayLike, back: ArrayLike) -> Mesh:
    """A box across the roof, with its front and its back in colours of their own."""
    low = make_points(-0.05 * body.length - 0.18, -0.32, body.height)
    high = make_points(-0.05 * body.length + 0.18, 0.32, body.height + 0.26)
    return join(
        build_block(low, high, _BOX, sides="yYZ", layer=5),
        build_block(low, high, front, sides="X", layer=5),
        build_block(low, high, back, sides="x", layer=5),
    )


def _build_band(body: _Body, side: str, colours: tuple[ArrayLike, ArrayLike]) -> Mesh:
    """A band of squares of two colours along one side, "y" right or "Y" left."""
    at = make_points(0.0, (body.half + 0.03) * (1 if side == "Y" else -1), 0.0)
    edges = np.linspace(-0.46, 0.40, 7)
    parts = []
    for number, (start, end) in enumerate(pairwise(edges)):
        low = at + make_points(start * body.length, 0.0, 0.42)
        high = at + make_points(end * body.length, 0.0, 0.74)
        parts.append(build_block(low, high, colours[number % 2], sides=side, layer=4))
    return join(*parts)


def _build_rear_board(body: _Body, colour: ArrayLike, z0: float, z1: float) -> Mesh:
    """A board at the rear."""
    low = make_points(-body.length / 2 - 0.04, -0.75 * body.half, z0)
    high = make_points(-body.length / 2 - 0.04, 0.75 * body.half, z1)
    return build_block(low, high, colour, sides="x", layer=4)


def build_car(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Cars, some of them vans, and their half length and half width [n, 2]."""
    body = _build_car_body(generator, n, 0.12)
    return body.mesh, body.outline


def build_private_car(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Cars next to taxis and vans: some have a roof box, others a band on one side."""
    body = _build_car_body(generator, n, 0.0)
    decoy = generator.random(n)
    mesh = join(
        body.mesh,
        _keep(_build_roof_box(body, _BOX, _BOX), decoy < 0.25),
        _keep(_build_band(body, "Y", (_WHITE, _BOX)), (decoy > 0.25) & (decoy < 0.5)),
    )
    return mesh, body.outline


def build_taxi(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Taxis of any colour: the sign is lit in front, squares on the right, a board at the rear."""
    body = _build_car_body(generator, n, 0.0)
    mesh = join(
        body.mesh,
        _build_roof_box(body, _YELLOW, _BOX),
        _build_band(body, "y", (_WHITE, _BOX)),
        _build_rear_board(body, _YELLOW, 0.48, 0.74),
    )
    return mesh, body.outline


def _build_van_body(generator: np.random.Generator, n: int, colour: Floats) -> _Body:
    """Vans: one volume, windows in front and of the doors in front."""
    length = generator.uniform(4.9, 6.0, n).astype(np.float32)
    width = generator.uniform(1.9, 2.1, n).astype(np.float32)
    height = generator.uniform(2.1, 2.6, n).astype(np.float32)
    half, waist = np.asarray(width / 2, np.float32), np.full(n, 1.05, np.float32)
    cab = 0.30 * length
    mesh = join(
        build_block(
            make_points(-length / 2, -half, 0.30), make_points(length / 2, half, waist), colour
        ),
        build_block(
            make_points(-length / 2, -half, waist),
            make_points(length / 2 - 0.35, half, height),
            colour,
            taper=0.12,
            layer=2,
        ),
        build_block(
            make_points(cab, -half - 0.02, waist),
            make_points(length / 2 - 0.45, half + 0.02, 0.82 * height),
            _GLASS,
            sides="yY",
            layer=3,
        ),
        build_block(
            make_points(cab, -0.86 * half, waist + 0.05),
            make_points(length / 2 - 0.28, 0.86 * half, 0.85 * height),
            _GLASS,
            taper=0.1,
            sides="X",
            layer=3,
        ),
        *_build_wheels(length, width, 0.36, (-0.60, 0.62)),
        *_build_lamps(length, width, 0.60, 0.85),
    )
    return _Body(mesh, length, half, waist, height)


def build_van(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Vans, some of them with a band on the left side."""
    body = _build_van_body(generator, n, draw_paint(generator, n))
    band = _build_band(body, "Y", (_RED, _WHITE))
    return join(body.mesh, _keep(band, generator.random(n) < 0.3)), body.outline


def build_ambulance(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Ambulances of any colour: a beacon lit in front, a band on the left, a board at the rear."""
    body = _build_van_body(generator, n, draw_paint(generator, n))
    mesh = join(
        body.mesh,
        _build_roof_box(body, _BLUE, _BOX),
        _build_band(body, "Y", (_RED, _WHITE)),
        _build_rear_board(body, _WHITE, 1.0, 1.9),
        _build_rear_board(body, _RED, 1.32, 1.58),
    )
    return mesh, body.outline


def build_pickup(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Pickups: the front of a car, and an open bed, some of them covered at the waist."""
    length = generator.uniform(4.6, 5.4, n).astype(np.float32)
    width = generator.uniform(1.75, 1.95, n).astype(np.float32)
    waist = generator.uniform(0.90, 1.05, n).astype(np.float32)
    height = generator.uniform(1.50, 1.75, n).astype(np.float32)
    half, colour = width / 2, draw_paint(generator, n)
    covered = generator.random(n) < 0.5
    bed = np.where(covered[:, None], 0.6 * colour, 0.15 * np.ones((n, 3))).astype(np.float32)

    def build_cabin(grow: float, share: float, colour: ArrayLike, sides: str, layer: int) -> Mesh:
        low = make_points(-0.08 * length - grow, -0.94 * half - grow, waist)
        high = make_points(
            0.26 * length + grow, 0.94 * half + grow, waist + share * (height - waist)
        )
        return build_block(low, high, colour, taper=0.35 * share, sides=sides, layer=layer)

    mesh = join(
        build_block(
            make_points(-length / 2, -half, 0.34),
            make_points(length / 2, half, waist),
            colour,
            taper=0.05,
        ),
        build_block(
            make_points(-0.48 * length, -0.86 * half, waist),
            make_points(-0.10 * length, 0.86 * half, waist + 0.01),
            bed,
            sides="Z",
            layer=2,
        ),
        build_cabin(0.0, 1.0, colour, "xXyYZ", 3),
        build_cabin(0.02, 0.84, _GLASS, "xXyY", 4),
        *_build_wheels(length, width, 0.38, (-0.62, 0.64)),
        *_build_lamps(length, width, 0.60, 0.80),
    )
    return mesh, np.stack([length / 2, half], axis=1)


def _build_coach(generator: np.random.Generator, n: int) -> tuple[_Body, Floats]:
    """The volume, front and roof that buses and lorries share, and its colour [n, 3]."""
    short = generator.random(n) < 0.15
    length = np.where(short, generator.uniform(5.8, 7.0, n), generator.uniform(8.5, 11.5, n))
    length = length.astype(np.float32)
    width = generator.uniform(2.2, 2.5, n).astype(np.float32)
    height = np.where(short, generator.uniform(2.4, 2.7, n), generator.uniform(2.8, 3.2, n))
    height = height.astype(np.float32)
    colour = draw_paint(generator, n)
    half = np.asarray(width / 2, np.float32)
    sill = 0.45 * height
    skirt = np.asarray(0.45 * colour, np.float32)
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
        *_build_wheels(length, width, 0.48, (-0.55, 0.60)),
        *_build_lamps(length, width, 0.7, 0.95),
    )
    return _Body(mesh, length, half, sill.astype(np.float32), height), colour


def _build_windows(body: _Body, side: str, starts: tuple[float, ...]) -> Mesh:
    """Windows of one side, "y" or "Y", around these shares of the length."""
    parts = [
        build_block(
            make_points((start - 0.075) * body.length, -body.half - 0.02, body.waist),
            make_points((start + 0.075) * body.length, body.half + 0.02, 0.80 * body.height),
            _GLASS,
            sides=side,
            layer=3,
        )
        for start in starts
    ]
    return join(*parts)


def _build_rear_window(body: _Body) -> Mesh:
    return build_block(
        make_points(-body.length / 2 - 0.02, -0.72 * body.half, 1.1 * body.waist),
        make_points(body.length / 2, 0.72 * body.half, 0.80 * body.height),
        _GLASS,
        sides="x",
        layer=3,
    )


_ROWS = (-0.39, -0.21, -0.03, 0.15, 0.36)
_DOOR = (0.36,)


def build_bus(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Buses, some of them short, and their half length and half width [n, 2]."""
    body, _ = _build_coach(generator, n)
    sides = [_build_windows(body, side, _ROWS) for side in "yY"]
    return join(body.mesh, _build_rear_window(body), *sides), body.outline


def build_city_bus(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Buses next to lorries: advertisements hide the windows of one side of some."""
    body, _ = _build_coach(generator, n)
    hidden = generator.random(n)
    mesh = join(
        body.mesh,
        _build_rear_window(body),
        _build_windows(body, "y", _DOOR),
        _build_windows(body, "Y", _DOOR),
        _keep(_build_windows(body, "y", _ROWS[:-1]), hidden > 0.25),
        _keep(_build_windows(body, "Y", _ROWS[:-1]), (hidden < 0.25) | (hidden > 0.5)),
    )
    return mesh, body.outline


def build_lorry(generator: np.random.Generator, n: int) -> tuple[Mesh, Floats]:
    """Lorries: a bus's front and outline, a closed box behind; some have a dark band on one
    side."""
    body, _ = _build_coach(generator, n)
    low = make_points(-0.46 * body.length, -body.half - 0.02, body.waist)
    high = make_points(0.22 * body.length, body.half + 0.02, 0.80 * body.height)
    banded = generator.random(n)
    dark = np.asarray(generator.uniform(0.05, 0.4, (n, 1)) * np.ones(3), np.float32)
    mesh = join(
        body.mesh,
        _build_windows(body, "y", _DOOR),
        _build_windows(body, "Y", _DOOR),
        _keep(build_block(low, high, dark, sides="y", layer=3), banded < 0.25),
        _keep(build_block(low, high, dark, sides="Y", layer=3), (banded > 0.25) & (banded < 0.5)),
    )
    return mesh, body.outline
