"""Drawing of flat faces into small pictures: pin-hole projection, painter's order, convex fill.

The faces of all views of a batch are one list, and so are the rows that each face covers: a face is
filled row by row between its left and right edge, and of the faces that cover a pixel the one that
is painted last is the greatest number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .solids import CORNERS, Floats, Mesh

NEAR_M = 0.4
"""Faces nearer to a camera than this are not drawn."""
SUPERSAMPLE = 2
"""Sub-pixels along each side of a pixel."""
LEAST_RESOLUTION = 4


@dataclass(frozen=True, slots=True)
class Camera:
    """A calibrated pin-hole camera.

    position, target: metres; fov_deg: horizontal; width_px, height_px: of its sensor;
    noise: standard deviation of its sensor noise, of full scale; gain: mean exposure.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fov_deg: float
    width_px: int = 192
    height_px: int = 144
    noise: float = 0.02
    gain: float = 1.0

    @property
    def focal_px(self) -> float:
        return float(0.5 * self.width_px / np.tan(np.radians(self.fov_deg) / 2))

    @property
    def rotation(self) -> Floats:
        """float32 [3, 3]: rows are the world directions of image right, image down and ahead."""
        ahead = np.subtract(self.target, self.position)
        ahead = ahead / np.linalg.norm(ahead)
        right = np.cross(ahead, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(ahead, right), ahead]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Rig:
    """Several cameras as arrays: position [cameras, 3], rotation [cameras, 3, 3], focal
    [cameras]."""

    position: Floats
    rotation: Floats
    focal_px: Floats

    @classmethod
    def of(cls, cameras: tuple[Camera, ...]) -> Rig:
        return cls(
            np.array([camera.position for camera in cameras], np.float32),
            np.stack([camera.rotation for camera in cameras]),
            np.array([camera.focal_px for camera in cameras], np.float32),
        )


def project(points: Floats, camera: NDArray[np.intp], rig: Rig) -> tuple[Floats, Floats]:
    """Points [n, ..., 3] as the cameras with the numbers `camera` [n] see them.

    Returns pixels [n, ..., 2], right and down from the principal point, and depths [n, ...],
    metres.
    """
    wide = (len(camera), *(1,) * (points.ndim - 2))
    x, y, z = (points[..., i] - rig.position[camera, i].reshape(wide) for i in range(3))
    rotation = rig.rotation[camera]
    right, down, depth = (
        x * rotation[:, row, 0].reshape(wide)
        + y * rotation[:, row, 1].reshape(wide)
        + z * rotation[:, row, 2].reshape(wide)
        for row in range(3)
    )
    scale = rig.focal_px[camera].reshape(wide) / np.maximum(depth, NEAR_M)
    return np.stack([right * scale, down * scale], axis=-1), depth


def shade(mesh: Mesh, normals: Floats, towards_light: Floats, ambient: Floats) -> Floats:
    """Colours [n, faces, 3] under a distant light from `towards_light` [n, 3]."""
    facing = (normals @ towards_light[:, :, None])[..., 0]
    facing = np.where(mesh.two_sided, 0.35 + 0.5 * np.abs(facing), np.maximum(facing, 0.0))
    strength = ambient[:, None] + (1.0 - ambient[:, None]) * 1.25 * facing
    return np.asarray(mesh.colours * strength[..., None], np.float32)


def compute_normals(vertices: Floats) -> Floats:
    """Unit normals [..., 3] of faces [..., 6, 3]; zero for a face of no area."""
    (ax, ay, az), (bx, by, bz) = (
        np.moveaxis(vertices[..., end, :] - vertices[..., start, :], -1, 0)
        for start, end in ((0, 1), (1, 2))
    )
    normal = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
    length = np.sqrt((normal * normal).sum(axis=-1, keepdims=True))
    return np.asarray(normal / np.maximum(length, 1e-9), np.float32)


@dataclass(frozen=True, slots=True)
class Spans:
    """The rows that faces cover: per span its face, row, first column and number of columns > 0."""

    face: NDArray[np.intp]
    row: NDArray[np.intp]
    first: NDArray[np.int32]
    count: NDArray[np.int32]

    def take(self, kept: NDArray[np.bool_]) -> Spans:
        return Spans(self.face[kept], self.row[kept], self.first[kept], self.count[kept])


def find_spans(corners: Floats, side: int) -> Spans:
    """The pixels of convex polygons [faces, 6, 2] (x, y in pixels) on a square grid."""
    x, y = (np.ascontiguousarray(corners[..., axis].T) for axis in (0, 1))  # [6, faces]
    begin = np.ceil(np.clip(y.min(axis=0), 0, side) - 0.5).astype(np.intp)
    end = np.ceil(np.clip(y.max(axis=0), 0, side) - 0.5).astype(np.intp)
    rows = np.maximum(end - begin, 0)
    face = np.repeat(np.arange(len(corners)), rows)
    row = np.arange(len(face)) - np.repeat(np.cumsum(rows) - rows - begin, rows)
    middle = row.astype(np.float32) + np.float32(0.5)
    step = np.roll(y, -1, axis=0) - y
    slope = (np.roll(x, -1, axis=0) - x) / np.where(step == 0, np.float32(1), step)
    left = np.full(len(face), np.inf, np.float32)
    right = np.full(len(face), -np.inf, np.float32)
    above = [line <= middle for line in (edge[face] for edge in y)]
    for number in range(CORNERS):
        crossed = above[number] != above[(number + 1) % CORNERS]
        at = x[number][face] + (middle - y[number][face]) * slope[number][face]
        np.minimum(left, at, out=left, where=crossed)
        np.maximum(right, at, out=right, where=crossed)
    first = np.ceil(np.clip(left, 0, side) - 0.5).astype(np.int32)
    count = np.ceil(np.clip(right, 0, side) - 0.5).astype(np.int32) - first
    return Spans(face, row, first, count).take(count > 0)


def paint(
    view: NDArray[np.intp], rank: NDArray[np.intp], spans: Spans, views: int, side: int
) -> NDArray[np.unsignedinteger]:
    """The rank of the visible face at every pixel, [views, side, side], 0 where there is none.

    view, rank: of each face; of faces that cover a pixel the one with the greatest rank is visible
    """
    seen = np.zeros((views * side, side), np.min_scalar_type(int(rank.max(initial=1))))
    if not len(spans.face):
        return seen.reshape(views, side, side)
    key = (view[spans.face] * side + spans.row).astype(np.uint16 if views * side < 65536 else int)
    order = np.argsort(key, kind="stable")  # a radix sort for 16 bits
    key = key[order]
    counter = np.uint8 if side < 256 else np.uint16
    # Unsigned numbers wrap, so one comparison tests both ends of the span.
    painted = np.arange(side, dtype=counter) - spans.first[order, None].astype(counter)
    inside = painted < spans.count[order, None].astype(counter)
    painted = painted if painted.dtype == seen.dtype else np.empty(inside.shape, seen.dtype)
    np.multiply(inside, rank[spans.face[order], None].astype(seen.dtype), out=painted)
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    seen[key[starts]] = np.maximum.reduceat(painted, starts, axis=0)
    return seen.reshape(views, side, side)


@cache
def _make_resampling(resolution: int, fine: int, size: int) -> Floats:
    """Matrix [size, fine]: means over `resolution` sensor pixels, interpolated to `size`."""
    edges = np.linspace(0, fine, resolution + 1)
    cells = np.arange(fine)
    overlap = np.minimum(cells + 1, edges[1:, None]) - np.maximum(cells, edges[:-1, None])
    down = np.maximum(overlap, 0) * resolution / fine
    place = np.clip((np.arange(size) + 0.5) * resolution / size - 0.5, 0, resolution - 1)
    up = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(resolution)))
    return np.asarray(up @ down, np.float32)


def resolve(pictures: Floats, resolution: NDArray[np.integer], size: int) -> Floats:
    """Pictures [views, 3, fine, fine] as a sensor resolves them, scaled to [views, size, size, 3].

    resolution: int [views], the width of each picture in sensor pixels
    """
    fine = pictures.shape[-1]
    clipped = np.clip(resolution, LEAST_RESOLUTION, size)
    table = np.stack([_make_resampling(r, fine, size) for r in range(LEAST_RESOLUTION, size + 1)])
    matrices = table[clipped - LEAST_RESOLUTION][:, None]
    small = matrices @ pictures @ matrices.swapaxes(-1, -2)
    return np.ascontiguousarray(np.moveaxis(small, 1, -1))
