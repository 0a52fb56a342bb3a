"""Drawing of flat faces into small pictures: pin-hole projection, painter's order, convex fill.

All views of a batch are drawn together. A face is filled row by row between its left and right
edge, which is less work than a test of every pixel against every edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .solids import CORNERS, Floats, Mesh

T = TypeVar("T", bound=np.generic)

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


def transform_to_camera(vertices: Floats, cameras: tuple[Camera, ...]) -> Floats:
    """World points [n, ..., 3] in the frame of each camera: [n, cameras, ..., 3], metres."""
    frames = [(vertices - np.array(c.position, np.float32)) @ c.rotation.T for c in cameras]
    return np.stack(frames, axis=1)


def project(in_camera: Floats, cameras: tuple[Camera, ...]) -> Floats:
    """Points [n, cameras, ..., 3] in the cameras' frames to pixels [n, cameras, ..., 2], right and
    down from the principal point."""
    focal = np.array([camera.focal_px for camera in cameras], np.float32).reshape(
        1, -1, *(1,) * (in_camera.ndim - 3)
    )
    scale = focal / np.maximum(in_camera[..., 2], NEAR_M)
    return np.asarray(in_camera[..., :2] * scale[..., None], np.float32)


def find_front_faces(in_camera: Floats) -> NDArray[np.bool_]:
    """Which faces [..., 6, 3] in a camera's frame have their outside towards it: bool [...]."""
    return np.asarray((compute_normals(in_camera) * in_camera[..., 0, :]).sum(axis=-1) < 0)


def shade(mesh: Mesh, towards_light: Floats, ambient: Floats) -> Floats:
    """Colours [n, faces, 3] under a distant light from `towards_light` [n, 3]."""
    normal = compute_normals(mesh.vertices)
    facing = np.einsum("nfc,nc->nf", normal, towards_light)
    facing = np.where(mesh.two_sided, 0.35 + 0.5 * np.abs(facing), np.maximum(facing, 0.0))
    strength = ambient[:, None] + (1.0 - ambient[:, None]) * 1.25 * facing
    return np.asarray(mesh.colours * strength[..., None], np.float32)


def compute_normals(vertices: Floats) -> Floats:
    """Unit normals [..., 3] of faces [..., 6, 3]; zero for a face of no area."""
    normal = np.cross(
        vertices[..., 1, :] - vertices[..., 0, :], vertices[..., 2, :] - vertices[..., 1, :]
    )
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.asarray(normal / np.maximum(length, 1e-9), np.float32)


def find_painting_order(
    group: NDArray[np.integer],
    distance: Floats,
    layer: NDArray[np.integer],
    depth: Floats,
    drawn: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """The order [views, most] in which to paint faces [views, faces].

    Faces are sorted by group, then far things before near ones, then by layer, then far faces
    before near ones; faces that are not drawn come last, and `most` is the largest count of drawn
    ones.
    """
    order = np.lexsort((-depth, layer, -distance, group, ~drawn), axis=-1)
    most = max(1, int(drawn.sum(axis=1).max()))
    return order[:, :most]


def sort_faces(values: NDArray[T], order: NDArray[np.intp]) -> NDArray[T]:
    """Values [views, faces, ...] in the order [views, most]."""
    return np.take_along_axis(values, order.reshape(*order.shape, *(1,) * (values.ndim - 2)), 1)


def find_spans(corners: Floats, side: int) -> tuple[NDArray[np.unsignedinteger], ...]:
    """The pixels of convex polygons [views, faces, 6, 2] (x, y in pixels) on a square grid.

    Returns for every row the first column and the number of columns: [views, faces, side] each.
    """
    rows = np.arange(side, dtype=np.float32) + np.float32(0.5)
    left = np.full((*corners.shape[:2], side), np.inf, np.float32)
    right = np.full_like(left, -np.inf)
    for number in range(CORNERS):
        x0, y0 = np.moveaxis(corners[:, :, number, :, None], 2, 0)
        x1, y1 = np.moveaxis(corners[:, :, (number + 1) % CORNERS, :, None], 2, 0)
        crossed = (y0 <= rows) != (y1 <= rows)
        slope = (x1 - x0) / np.where(y1 == y0, 1.0, y1 - y0)
        x = x0 + (rows - y0) * slope
        np.minimum(left, x, out=left, where=crossed)
        np.maximum(right, x, out=right, where=crossed)
    counter = np.uint8 if side < 256 else np.uint16
    first = np.ceil(np.clip(left, 0, side) - 0.5)
    past = np.ceil(np.clip(right, 0, side) - 0.5)
    return first.astype(counter), np.maximum(past - first, 0).astype(counter)


def paint(
    corners: Floats, is_subject: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
    """Paint faces [views, faces, 6, 2] one over the other.

    Returns the number of the visible face at every pixel, [views, side, side], counted from 1, or
    0 where there is none; and bool [views, side, side], the pixels that the subject covers,
    hidden or not.
    """
    first, count = find_spans(corners, side)
    columns = np.arange(side, dtype=first.dtype)
    seen = np.zeros((len(corners), side, side), np.min_scalar_type(corners.shape[1]))
    subject = np.zeros(seen.shape, np.bool_)
    offset = np.empty(seen.shape, first.dtype)
    inside = np.empty(seen.shape, np.bool_)
    for face in range(corners.shape[1]):
        views = np.flatnonzero(count[:, face].any(axis=1))
        if len(views) == 0:
            continue
        # Unsigned numbers wrap, so one comparison tests both ends of the row.
        np.subtract(columns, first[:, face, :, None], out=offset)
        np.less(offset, count[:, face, :, None], out=inside)
        np.copyto(seen, face + 1, where=inside)
        if is_subject[:, face].any():
            inside &= is_subject[:, face, None, None]
            subject |= inside
    return seen, subject


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
    """Pictures [views, fine, fine, 3] as a sensor resolves them, scaled to [views, size, size, 3].

    resolution: int [views], the width of each picture in sensor pixels
    """
    views, fine = pictures.shape[:2]
    clipped = np.clip(resolution, LEAST_RESOLUTION, size)
    matrices = np.stack([_make_resampling(int(r), fine, size) for r in clipped])
    rows = (matrices @ pictures.reshape(views, fine, fine * 3)).reshape(views, size, fine, 3)
    return np.asarray(matrices[:, None] @ rows, np.float32)
