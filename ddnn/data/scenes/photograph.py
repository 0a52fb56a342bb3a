"""The images of a layout: per camera the crop around the subject, as its sensor records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..dataset import Images
from .layout import Layout
from .raster import (
    NEAR_M,
    SUPERSAMPLE,
    find_front_faces,
    find_painting_order,
    paint,
    project,
    resolve,
    sort_faces,
    transform_to_camera,
)
from .scenery import THING_SHADOW, THING_SUBJECT, assemble
from .solids import Floats
from .square import CAMERAS, CELL_M, MAP_CELLS, colour_ground, find_overlooking

T = TypeVar("T", bound=np.generic)

SIZE_PX = 32
MIN_SEEN = 0.45
"""The least share of an object that must not be hidden for a camera to see it."""
MIN_WIDTH_PX = 6
"""The least width of its crop in sensor pixels."""
CROP_MARGIN = (1.05, 1.30)
"""Least and greatest width of a crop, as a multiple of the object's larger extent."""
CROP_SHIFT = 0.06
"""The greatest distance of a crop from the object's centre, as a share of its width."""
NIGHTS = 0.3
"""The share of samples taken in the dark, where sensors amplify their noise."""
DARKEST = 0.25
"""The least light in the dark; noise is amplified by its inverse."""


def photograph(generator: np.random.Generator, layout: Layout) -> tuple[Images, NDArray[np.bool_]]:
    """What the cameras record: images uint8 [n, 6, 32, 32, 3], and bool [n, 6], whether they see
    the subject. Images of cameras that do not are zeros."""
    n, fine = len(layout.labels), SIZE_PX * SUPERSAMPLE
    scenery = assemble(layout)
    in_camera = transform_to_camera(scenery.mesh.vertices, CAMERAS)
    pixels = project(in_camera, CAMERAS)
    crop = _draw_crop(generator, pixels[:, :, scenery.thing == THING_SUBJECT])
    scale = np.asarray(fine / crop.width, np.float32)[:, :, None, None, None]
    on_grid = (pixels - crop.corner[:, :, None, None]) * scale

    depth = in_camera[..., 2]
    drawn = scenery.present[:, None] & (depth > NEAR_M).all(axis=-1)
    drawn &= find_front_faces(in_camera) | scenery.mesh.two_sided[:, None]
    drawn &= (on_grid.max(axis=3) > 0).all(axis=-1) & (on_grid.min(axis=3) < fine).all(axis=-1)

    # From here on views of all samples are one axis: [views, faces, ...].
    views = n * len(CAMERAS)
    drawn = drawn.reshape(views, -1)
    order = find_painting_order(
        scenery.group[..., scenery.thing].reshape(views, -1),
        scenery.distance[..., scenery.thing].reshape(views, -1),
        np.repeat(scenery.mesh.layers, len(CAMERAS), axis=0),
        depth.mean(axis=-1).reshape(views, -1),
        drawn,
    )
    drawn = sort_faces(drawn, order)
    polygons = sort_faces(on_grid.reshape(views, -1, *on_grid.shape[3:]), order)
    polygons[~drawn] = -1.0  # outside the grid, so they cover no pixel
    thing = scenery.thing[order]
    seen, alone = paint(polygons, drawn & (thing == THING_SUBJECT), fine)

    colours = sort_faces(np.repeat(scenery.mesh.colours, len(CAMERAS), axis=0), order)
    pictures = _draw_backdrop(generator, layout, crop)
    shaded = _look_up(thing == THING_SHADOW, seen)
    pictures[shaded] *= layout.ambient.repeat(len(CAMERAS))[shaded.nonzero()[0], None]
    pictures = np.where(((seen == 0) | shaded)[..., None], pictures, _look_up(colours, seen))
    shown = _look_up(thing == THING_SUBJECT, seen).sum(axis=(1, 2))
    share = shown / np.maximum(alone.sum(axis=(1, 2)), 1)

    width = crop.width.reshape(views)
    overlooked = find_overlooking(layout.subject.position).reshape(views)
    visible = overlooked & (share >= MIN_SEEN) & (width >= MIN_WIDTH_PX)
    resolution = np.round(width).astype(np.intp)
    images = _expose(generator, resolve(pictures, resolution, SIZE_PX), n)
    images[~visible] = 0
    return images.reshape(n, len(CAMERAS), SIZE_PX, SIZE_PX, 3), visible.reshape(n, len(CAMERAS))


def _look_up(values: NDArray[T], seen: NDArray[np.unsignedinteger]) -> NDArray[T]:
    """Per pixel the value of the face seen there, zero where there is no face.

    values: [views, faces, ...]; seen: [views, side, side], numbers of faces from 1.
    """
    none = np.zeros((len(values), 1, *values.shape[2:]), values.dtype)
    padded: NDArray[T] = np.concatenate([none, values], axis=1)
    found: NDArray[T] = padded[np.arange(len(seen))[:, None, None], seen]
    return found


@dataclass(frozen=True, slots=True)
class _Crop:
    """Squares of the sensors: corner [n, cameras, 2] and width [n, cameras] in sensor pixels
    from the principal point."""

    corner: Floats
    width: Floats


def _draw_crop(generator: np.random.Generator, pixels: Floats) -> _Crop:
    """Random squares around the subject's pixels [n, cameras, faces, 6, 2], like a detector's."""
    low, high = pixels.min(axis=(2, 3)), pixels.max(axis=(2, 3))
    middle, extent = (low + high) / 2, (high - low).max(axis=-1)
    width = extent * generator.uniform(*CROP_MARGIN, extent.shape)
    shift = generator.uniform(-CROP_SHIFT, CROP_SHIFT, middle.shape) * width[..., None]
    corner = middle + shift - width[..., None] / 2
    return _Crop(corner.astype(np.float32), width.astype(np.float32))


def _draw_backdrop(generator: np.random.Generator, layout: Layout, crop: _Crop) -> Floats:
    """Ground and sky: [views, fine, fine, 3]."""
    n, cameras = crop.width.shape
    grid = (np.arange(SIZE_PX, dtype=np.float32) + np.float32(0.5)) / SIZE_PX
    focal = np.array([camera.focal_px for camera in CAMERAS], np.float32)[None, :, None]
    right = (crop.corner[..., 0, None] + grid * crop.width[..., None]) / focal
    down = (crop.corner[..., 1, None] + grid * crop.width[..., None]) / focal
    rotation = np.stack([camera.rotation for camera in CAMERAS])
    at = np.array([camera.position for camera in CAMERAS], np.float32)

    def compute_ray(axis: int) -> Floats:
        """World coordinate of the direction of every pixel: [n, cameras, height, width]."""
        r, d, ahead = (rotation[None, :, row, axis, None, None] for row in range(3))
        return np.asarray(r * right[:, :, None, :] + d * down[:, :, :, None] + ahead, np.float32)

    slope = compute_ray(2)
    reach = -at[None, :, 2, None, None] / np.minimum(slope, -1e-3)
    cell = [
        (
            (at[None, :, axis, None, None] + reach * compute_ray(axis)) / CELL_M + MAP_CELLS / 2
        ).astype(np.intp)
        % MAP_CELLS
        for axis in (0, 1)
    ]
    sun = layout.ambient + (1 - layout.ambient) * 1.25 * layout.towards_light[:, 2]
    picture = colour_ground()[cell[1], cell[0]] * sun[:, None, None, None, None]
    sky = generator.uniform(0.55, 1.0, (n, 1, 1, 1, 1)) * np.array((0.78, 0.88, 1.0))
    picture = np.where((slope > -1e-2)[..., None], sky, picture).astype(np.float32)
    picture = picture.reshape(n * cameras, SIZE_PX, SIZE_PX, 3)
    return picture.repeat(SUPERSAMPLE, axis=1).repeat(SUPERSAMPLE, axis=2)


def _expose(generator: np.random.Generator, pictures: Floats, n: int) -> Images:
    """Pictures [views, size, size, 3] as the sensors record them: uint8, never zero."""
    cameras, views = len(CAMERAS), len(pictures)
    mean = np.tile([camera.gain for camera in CAMERAS], n)
    noise = np.tile([camera.noise for camera in CAMERAS], n)
    gain = (
        mean
        * np.exp(generator.normal(0, 0.10, views))
        * np.exp(generator.normal(0, 0.15, n)).repeat(cameras)
    )
    cast = 1 + generator.normal(0, 0.03, (views, 3))
    night = generator.uniform(np.log(DARKEST), 0.0, n) * (generator.random(n) < NIGHTS)
    level = np.exp(night).repeat(cameras)
    noise = noise * generator.uniform(0.5, 2.0, views) / level
    gain = gain * level**0.25
    haze = generator.uniform(0.0, 0.15, n).repeat(cameras)

    def spread(values: NDArray[np.float64]) -> Floats:
        return values.astype(np.float32).reshape(views, 1, 1, -1)

    exposed = pictures * spread(gain[:, None] * cast * (1 - haze[:, None])) + spread(0.7 * haze)
    exposed += generator.standard_normal(exposed.shape, np.float32) * spread(noise)
    # Zero marks cameras that do not see the object.
    return np.asarray(np.clip(exposed * 255, 1, 255), np.uint8)
