"""The images of a layout: per camera the crop around the subject, as its sensor records it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dataset import Images
from .layout import Layout
from .raster import NEAR_M, SUPERSAMPLE, find_spans, paint, project, resolve
from .scenery import HOUSES, THING_SHADOW, THING_SUBJECT, Scenery, assemble
from .solids import Floats
from .square import CAMERAS, CELL_M, MAP_CELLS, RIG, colour_ground, find_overlooking, project_houses

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

_FINE = SIZE_PX * SUPERSAMPLE


@dataclass(frozen=True, slots=True)
class _Views:
    """Views of n samples that may show the subject, and the crops around it.

    sample, camera: int [views]; corner: [views, 2] and width: [views], in sensor pixels from the
    principal point
    """

    sample: NDArray[np.intp]
    camera: NDArray[np.intp]
    corner: Floats
    width: Floats

    def __len__(self) -> int:
        return len(self.sample)


@dataclass(frozen=True, slots=True)
class _Faces:
    """Faces that views show, in the order of views and of painting.

    view, thing: int [faces]; polygons: [faces, 6, 2], in sub-pixels; colours: [faces, 3]
    """

    view: NDArray[np.intp]
    thing: NDArray[np.intp]
    polygons: Floats
    colours: Floats


def photograph(generator: np.random.Generator, layout: Layout) -> tuple[Images, NDArray[np.bool_]]:
    """What the cameras record: images uint8 [n, 6, 32, 32, 3], and bool [n, 6], whether they see
    the subject. Images of cameras that do not are zeros."""
    n = len(layout.labels)
    images = np.zeros((n, len(CAMERAS), SIZE_PX, SIZE_PX, 3), np.uint8)
    seen = np.zeros((n, len(CAMERAS)), np.bool_)
    scenery = assemble(layout)
    views = _choose_views(generator, layout, scenery)
    if not len(views):
        return images, seen
    faces = _list_faces(scenery, views)
    visible, pictures = _compose(faces, layout, views, _draw_backdrop(generator, layout, views))
    resolution = np.round(views.width).astype(np.intp)
    exposed = _expose(generator, resolve(pictures, resolution, SIZE_PX), views, n)
    kept = views.sample[visible], views.camera[visible]
    images[kept] = exposed[visible]
    seen[kept] = True
    return images, seen


def _choose_views(generator: np.random.Generator, layout: Layout, scenery: Scenery) -> _Views:
    """The views of cameras that overlook the subject and show it large enough, with random squares
    around it, like a detector's."""
    sample, camera = np.nonzero(find_overlooking(layout.subject.position))
    subject = scenery.mesh.vertices[:, scenery.thing == THING_SUBJECT]
    pixels, _ = project(subject[sample], camera, RIG)
    low, high = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))
    middle, extent = (low + high) / 2, (high - low).max(axis=-1)
    width = extent * generator.uniform(*CROP_MARGIN, extent.shape)
    shift = generator.uniform(-CROP_SHIFT, CROP_SHIFT, middle.shape) * width[..., None]
    corner = middle + shift - width[..., None] / 2
    large = width >= MIN_WIDTH_PX
    return _Views(
        sample[large],
        camera[large],
        corner[large].astype(np.float32),
        width[large].astype(np.float32),
    )


def _list_faces(scenery: Scenery, views: _Views) -> _Faces:
    """The faces within the crops that are turned to the camera, in the order of painting."""
    mesh, sample, camera = scenery.mesh, views.sample, views.camera
    towards = mesh.vertices[:, :, 0][sample] - RIG.position[camera][:, None]
    facing = (scenery.normals[sample] * towards).sum(axis=-1) < 0
    view, face = np.nonzero(scenery.present[sample] & (facing | mesh.two_sided[sample]))
    pixels, depth = project(mesh.vertices[sample[view], face], camera[view], RIG)
    near = (depth > NEAR_M).all(axis=-1)
    view, face, pixels, depth = view[near], face[near], pixels[near], depth[near].mean(axis=-1)
    of, thing = sample[view], scenery.thing[face]
    lists = [
        (
            view,
            thing,
            pixels,
            mesh.colours[of, face],
            scenery.group[of, camera[view], thing],
            scenery.distance[of, camera[view], thing],
            mesh.layers[of, face],
            depth,
        )
    ]
    for number in range(len(CAMERAS)):
        here, houses = np.flatnonzero(camera == number), project_houses(number)
        corner, width = views.corner[here, None], views.width[here, None, None]
        within = (houses.high > corner) & (houses.low < corner + width)
        of, at = np.nonzero(within.all(axis=-1))
        blank = np.zeros(len(of), np.intp)
        lists.append(
            (
                here[of],
                blank,
                houses.pixels[at],
                scenery.house_colours[sample[here[of]], houses.face[at]],
                blank + HOUSES,
                blank.astype(np.float32),
                houses.layers[at],
                houses.depth[at],
            )
        )
    view, thing, pixels, colours, group, distance, layer, depth = (
        np.concatenate(parts) for parts in zip(*lists, strict=True)
    )
    scale = (_FINE / views.width)[view, None, None]
    polygons = np.asarray((pixels - views.corner[view, None]) * scale, np.float32)
    drawn = (polygons.max(axis=1) > 0).all(axis=-1) & (polygons.min(axis=1) < _FINE).all(axis=-1)
    drawn = np.flatnonzero(drawn)
    keys = (-depth, layer, -distance, group, view)
    order = drawn[np.lexsort([key[drawn] for key in keys])]
    return _Faces(view[order], thing[order], polygons[order], colours[order])


def _compose(
    faces: _Faces, layout: Layout, views: _Views, backdrop: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """Whether views show enough of the subject, and the pictures [views, 3, fine, fine]."""
    n = len(views)
    counts = np.bincount(faces.view, minlength=n)
    begin = np.cumsum(counts) - counts
    rank = np.arange(len(faces.view)) - begin[faces.view] + 1
    spans = find_spans(faces.polygons, _FINE)
    seen = paint(faces.view, rank, spans, n, _FINE)
    subject = faces.thing == THING_SUBJECT
    own = spans.take(subject[spans.face])
    alone = (paint(faces.view, rank, own, n, _FINE) > 0).sum(axis=(1, 2))

    # Tables of what a view's pixels show, by rank; 0 is the backdrop.
    shape = (n, int(counts.max(initial=0)) + 1)
    colours, clear = np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
    shows = np.zeros(shape, np.bool_)
    shadow = faces.thing == THING_SHADOW
    colours[:, faces.view, rank] = np.where(shadow, 0, faces.colours.T)
    clear[:, 0] = 1
    clear[faces.view[shadow], rank[shadow]] = layout.ambient[views.sample[faces.view[shadow]]]
    shows[faces.view, rank] = subject
    at = seen + (np.arange(n) * shape[1])[:, None, None]
    share = shows.ravel().take(at, mode="clip").sum(axis=(1, 2)) / np.maximum(alone, 1)
    pictures = np.empty((n, 3, _FINE, _FINE), np.float32)
    through = clear.ravel().take(at, mode="clip")
    for channel in range(3):
        behind = backdrop[:, channel].repeat(SUPERSAMPLE, axis=1).repeat(SUPERSAMPLE, axis=2)
        np.multiply(through, behind, out=behind)
        np.add(behind, colours[channel].ravel().take(at, mode="clip"), out=pictures[:, channel])
    return share >= MIN_SEEN, pictures


def _draw_backdrop(generator: np.random.Generator, layout: Layout, views: _Views) -> Floats:
    """Ground and sky: [views, 3, size, size]."""
    grid = (np.arange(SIZE_PX, dtype=np.float32) + np.float32(0.5)) / SIZE_PX
    focal = RIG.focal_px[views.camera, None]
    right = (views.corner[:, 0, None] + grid * views.width[:, None]) / focal
    down = (views.corner[:, 1, None] + grid * views.width[:, None]) / focal
    rotation, position = RIG.rotation[views.camera], RIG.position[views.camera]

    def compute_ray(axis: int) -> Floats:
        """World coordinate of the direction of every pixel: [views, height, width]."""
        r, d, ahead = (rotation[:, row, axis, None] for row in range(3))
        return np.asarray((r * right)[:, None, :] + (d * down + ahead)[:, :, None], np.float32)

    slope = compute_ray(2)
    reach = -position[:, 2, None, None] / np.minimum(slope, np.float32(-1e-3))
    x, y = (
        ((position[:, axis, None, None] + reach * compute_ray(axis)) / CELL_M).astype(np.intp)
        + MAP_CELLS // 2
        for axis in (0, 1)
    )
    cell = (y & (MAP_CELLS - 1)) * MAP_CELLS + (x & (MAP_CELLS - 1))
    sun = layout.ambient + (1 - layout.ambient) * 1.25 * layout.towards_light[:, 2]
    light = sun.astype(np.float32)[views.sample, None, None]
    blue = generator.uniform(0.55, 1.0, len(layout.labels)).astype(np.float32)
    above = slope > -1e-2
    pictures = np.empty((len(views), 3, SIZE_PX, SIZE_PX), np.float32)
    for channel, sky in enumerate((0.78, 0.88, 1.0)):
        ground = colour_ground()[..., channel].ravel().take(cell, mode="clip") * light
        of_sky = (blue * np.float32(sky))[views.sample, None, None]
        pictures[:, channel] = np.where(above, of_sky, ground)
    return pictures


def _expose(generator: np.random.Generator, pictures: Floats, views: _Views, n: int) -> Images:
    """Pictures [views, size, size, 3] as the sensors record them: uint8, never zero."""
    count = len(views)
    mean = np.array([camera.gain for camera in CAMERAS])[views.camera]
    noise = np.array([camera.noise for camera in CAMERAS])[views.camera]
    own, shared = generator.normal(0, 0.10, count), generator.normal(0, 0.15, n)
    gain = mean * np.exp(own + shared[views.sample])
    cast = 1 + generator.normal(0, 0.03, (count, 3))
    night = generator.uniform(np.log(DARKEST), 0.0, n) * (generator.random(n) < NIGHTS)
    level = np.exp(night)[views.sample]
    noise = noise * generator.uniform(0.5, 2.0, count) / level
    gain = gain * level**0.25
    haze = generator.uniform(0.0, 0.15, n)[views.sample]

    def spread(values: NDArray[np.float64]) -> Floats:
        return (255 * values).astype(np.float32).reshape(count, 1, 1, -1)

    exposed = pictures * spread(gain[:, None] * cast * (1 - haze[:, None]))
    exposed += generator.standard_normal(exposed.shape, np.float32) * spread(noise)
    exposed += spread(0.7 * haze)
    # Zero marks cameras that do not see the object.
    return np.clip(exposed, 1, 255, out=exposed).astype(np.uint8)
