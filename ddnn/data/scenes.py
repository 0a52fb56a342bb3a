"""scenes: small street scenes seen by six calibrated cameras around a square.

The data set that comes with ddnn. Every sample is one object (car, bus or person) on a square of
28 m, drawn in three dimensions and projected into six pin-hole cameras, each of which overlooks
only a part of the square. As in the data of the DDNN paper (A7) a view is the crop around the
object, scaled to 32x32, and a camera that does not see it gives a black image and the label -1.
Poles, trees, walls, passers-by, far objects of few pixels, noise and exposure make one camera
weak; six together are strong.

Everything follows from the seed. Samples are drawn in chunks that each have a child seed of their
own, so the first n samples of a split are the same whatever its size, and any part of it can be
drawn alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

from . import solids
from .dataset import ABSENT, Dataset, Images, Labels, Split
from .raster import (
    NEAR_M,
    SUPERSAMPLE,
    Camera,
    faces_camera,
    light,
    paint,
    painters_order,
    per_face,
    project,
    resolve,
    to_camera,
)
from .solids import Floats, Mesh

T = TypeVar("T", bound=np.generic)

CLASSES = ("car", "bus", "person")
SIZE_PX = 32
SAMPLES = (3000, 1000, 1000)
"""Of the training, validation and test split."""
MAX_SAMPLES = 100_000
CHUNK = 50
"""Samples that share a child seed."""

SQUARE_M = 14.0
"""Half the side of the square on which objects stand."""
MIN_SEEN = 0.45
"""A camera sees an object of which at least this share is not hidden ..."""
MIN_WIDTH_PX = 6
"""... and whose crop is at least this many sensor pixels wide."""
CROP_MARGIN = (1.05, 1.30)
"""Widths of crops, of the object's larger extent."""
CROP_SHIFT = 0.06
"""The most that a crop is off centre, of its width."""
NIGHTS = 0.3
"""The share of samples after sunset: sensors amplify, and their noise with it ..."""
DARKEST = 0.25
"""... by up to one over this."""
OVERLOOKING = 3
"""Objects stand only where at least so many cameras overlook the ground ..."""
MIN_VIEWS = 2
"""... and samples that in the end fewer cameras see are drawn again."""

CAMERAS = (
    Camera((-21.0, -15.0, 4.5), (-5.5, 2.0, 0.0), 21.0, noise=0.035, gain=0.95),
    Camera((2.0, -23.0, 6.0), (-4.5, -2.5, 0.0), 21.8, noise=0.030, gain=1.05),
    Camera((22.0, -12.0, 3.5), (2.0, -6.3, 0.0), 25.0, noise=0.020, gain=0.90),
    Camera((25.0, 21.0, 6.5), (5.0, 4.0, 0.0), 15.5, noise=0.030, gain=1.00),
    Camera((-3.0, 23.0, 4.0), (3.0, 2.0, 0.0), 28.5, noise=0.015, gain=1.10),
    Camera((-23.0, 10.0, 7.0), (-3.5, 1.5, 0.0), 18.3, 128, 96, noise=0.050, gain=1.00),
)
"""Each overlooks another part of the square; the last is a cheap one of fewer pixels."""

_BUILDINGS = (
    (-60, -34, -62, -30, 14, (0.62, 0.52, 0.44)),
    (-26, -4, -64, -36, 10, (0.70, 0.66, 0.58)),
    (4, 30, -60, -34, 17, (0.50, 0.47, 0.46)),
    (36, 62, -40, -8, 11, (0.66, 0.45, 0.36)),
    (34, 58, 0, 30, 15, (0.60, 0.61, 0.62)),
    (6, 34, 36, 60, 9, (0.72, 0.60, 0.46)),
    (-30, -2, 34, 62, 16, (0.55, 0.50, 0.52)),
    (-62, -36, 10, 40, 12, (0.68, 0.58, 0.52)),
    (-60, -38, -22, 4, 8, (0.58, 0.62, 0.56)),
)
_MAP_CELLS = 256
_CELL_M = 0.25
# Painted in this order.
_BUILDING, _SHADOW, _BEHIND, _SUBJECT, _BEFORE = range(5)


@dataclass(frozen=True, slots=True)
class _Thing:
    """A mesh in its own frame, where it stands, and whether each sample has it."""

    mesh: Mesh
    position: Floats
    heading: Floats
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands where in each of n samples, and the light."""

    labels: Labels
    subject: _Thing
    half: Floats
    others: tuple[_Thing, ...]
    towards_light: Floats
    ambient: Floats


def scenes(*, seed: int = 0, samples: tuple[int, int, int] = SAMPLES) -> Dataset:
    """The data set; `samples` are the sizes of its training, validation and test split."""
    names = ("train", "validation", "test")
    train, validation, test = (
        draw_split(name, seed=seed, samples=count)
        for name, count in zip(names, samples, strict=True)
    )
    return Dataset("scenes", CLASSES, train, validation, test)


def draw_split(name: str, *, seed: int = 0, samples: int) -> Split:
    """The first `samples` samples of the split `name` of the data set with this seed."""
    if not 1 <= samples <= MAX_SAMPLES:
        raise ConfigError(f"scenes: {samples} samples asked for; expected 1 to {MAX_SAMPLES}")
    number = ("train", "validation", "test").index(name)
    chunks = np.random.SeedSequence(seed).spawn(3)[number].spawn(-(-samples // CHUNK))
    drawn = [render(np.random.default_rng(chunk), CHUNK) for chunk in chunks]
    images, labels, view_labels = (
        np.concatenate(part)[:samples] for part in zip(*drawn, strict=True)
    )
    return Split(name, images, labels, view_labels, np.full(samples, ABSENT, np.int32))


def render_sample(
    generator: np.random.Generator, size: int = 128, label: int | None = None
) -> tuple[Images, int, Labels]:
    """One sample for showing: images uint8 [6, size, size, 3], its class, view labels int32 [6].

    The sensors have size/32 times the pixels of the data set's.
    """
    images, labels, view_labels = render(generator, 1, size=size, label=label)
    return images[0], int(labels[0]), view_labels[0]


def render(
    generator: np.random.Generator, samples: int, *, size: int = SIZE_PX, label: int | None = None
) -> tuple[Images, Labels, Labels]:
    """Draw samples of random classes, or of the class `label`.

    Returns images uint8 [samples, 6, size, size, 3], labels int32 [samples] and view labels int32
    [samples, 6].
    """
    images = np.zeros((samples, len(CAMERAS), size, size, 3), np.uint8)
    labels = generator.integers(0, len(CLASSES), samples).astype(np.int32)
    if label is not None:
        labels[:] = label
    seen = np.zeros((samples, len(CAMERAS)), np.bool_)
    rows = np.arange(samples)
    while rows.size:
        layout = _draw_layout(generator, labels[rows])
        images[rows], seen[rows] = _photograph(generator, layout, size)
        rows = np.flatnonzero(seen.sum(axis=1) < MIN_VIEWS)
    return images, labels, np.where(seen, labels[:, None], ABSENT).astype(np.int32)


def contact_sheet(images: Images, path: str | Path, *, scale: int = 3) -> None:
    """Write samples [n, views, height, width, 3] to a PNG, one row for each sample."""
    from PIL import Image

    n, views, height, width, _ = images.shape
    gap = 2
    sheet = np.full((n, height + gap, views, width + gap, 3), 255, np.uint8)
    sheet[:, :height, :, :width] = images.transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(sheet.reshape(n * (height + gap), views * (width + gap), 3))
    size = (picture.width * scale, picture.height * scale)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


def _draw_layout(generator: np.random.Generator, labels: Labels) -> _Layout:
    n = len(labels)
    mesh, half = solids.by_class(generator, labels)
    place = _places(generator, n)
    subject = _Thing(mesh, place, _any_direction(generator, n), np.ones(n, np.bool_))

    def beside(mesh: Mesh, chance: float, near_m: float | Floats, far_m: float | Floats) -> _Thing:
        """A thing `near_m` to `far_m` off the subject's outline, in any direction, by chance."""
        angle = _any_direction(generator, n)
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        gap = generator.uniform(near_m, far_m, n)
        reach = 1.0 / np.max(np.abs(ray) / (half + gap[:, None]), axis=1)
        offset = _turn(ray * reach[:, None], subject.heading)
        return _Thing(
            mesh,
            np.asarray(place + offset, np.float32),
            _any_direction(generator, n),
            generator.random(n) < chance,
        )

    passer_by, passer_half = solids.by_class(
        generator, generator.integers(0, len(CLASSES), n).astype(np.int32)
    )
    clear = passer_half.max(axis=1)
    others = (
        beside(passer_by, 0.30, clear + 0.3, clear + 5.0),
        beside(solids.crate(generator, n), 0.45, 1.5, 4.0),
        beside(solids.crate(generator, n), 0.45, 1.5, 7.0),
        beside(solids.wall(generator, n), 0.4, 3.1, 5.0),
        beside(solids.pole(generator, n), 0.6, 0.6, 4.0),
        beside(solids.pole(generator, n), 0.6, 0.6, 6.0),
        beside(solids.tree(generator, n), 0.5, 1.8, 4.0),
        beside(solids.tree(generator, n), 0.5, 1.8, 8.0),
    )
    azimuth, height = _any_direction(generator, n), generator.uniform(0.45, 1.2, n)
    towards_light = solids.points(
        np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)
    )
    ambient = generator.uniform(0.50, 0.80, n).astype(np.float32)
    return _Layout(labels, subject, half, others, towards_light, ambient)


def _places(generator: np.random.Generator, n: int) -> Floats:
    """Points [n, 2] of the square that at least OVERLOOKING cameras overlook."""
    found = np.zeros((0, 2), np.float32)
    while len(found) < n:
        place = generator.uniform(-SQUARE_M, SQUARE_M, (4 * n, 2)).astype(np.float32)
        overlooking = _overlook(place).sum(axis=1)
        found = np.concatenate([found, place[overlooking >= OVERLOOKING]])
    return found[:n]


def _overlook(place: Floats) -> NDArray[np.bool_]:
    """Which cameras overlook points [n, 2] (a metre above them): bool [n, cameras]."""
    sensor = np.array([(c.width_px, c.height_px) for c in CAMERAS], np.float32)
    waist = solids.points(place[:, 0], place[:, 1], 1.0)
    pixels = project(to_camera(waist[:, None], CAMERAS), CAMERAS)[:, :, 0]
    return np.asarray((np.abs(pixels) < sensor / 2).all(axis=-1))


def _any_direction(generator: np.random.Generator, n: int) -> Floats:
    return generator.uniform(-np.pi, np.pi, n).astype(np.float32)


def _turn(vectors: Floats, angle: Floats) -> Floats:
    """Ground vectors [..., 2] turned by angle [...]."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1).astype(np.float32)


def _shadow(layout: _Layout) -> Mesh:
    """Where the subject keeps light off the ground: its outline moved along the light."""
    x, y = layout.half.T
    outline = solids.place(
        solids.block(solids.points(-x, -y, 0.0), solids.points(x, y, 0.02), 0.0, sides="Z"),
        layout.subject.position,
        layout.subject.heading,
    )
    top = layout.subject.mesh.vertices[..., 2].max(axis=(1, 2))
    away = -layout.towards_light[:, :2] / layout.towards_light[:, 2:] * top[:, None]
    copies = []
    for share in (0.0, 0.35, 0.7):
        shift = solids.points(share * away[:, 0], share * away[:, 1], 0.0)[:, None, None]
        copies.append(replace(outline, vertices=outline.vertices + shift))
    return solids.join(*copies)


@cache
def _buildings() -> Mesh:
    return solids.join(*(solids.building(*row[:5], row[5]) for row in _BUILDINGS))


@cache
def _ground() -> Floats:
    """Colours [cells, cells, 3] of the ground, 0.25 m a cell: two roads, crossings, pavement."""
    generator = np.random.default_rng(0x5CE7E)
    y, x = (np.mgrid[:_MAP_CELLS, :_MAP_CELLS] - _MAP_CELLS / 2) * _CELL_M
    colour = np.full((_MAP_CELLS, _MAP_CELLS, 3), (0.56, 0.54, 0.51))
    colour[(np.floor(x) + np.floor(y)) % 2 == 0] = (0.52, 0.50, 0.47)
    colour[(np.abs(x) > 17) & (np.abs(y) > 17)] = (0.30, 0.40, 0.20)
    for across, along in ((x, y), (y, x)):
        road = np.abs(across) < 5
        colour[road] = (0.38, 0.38, 0.40)
        colour[road & (np.abs(across) < 0.2) & (along % 4 < 2) & (np.abs(along) > 10)] = 0.62
        colour[road & (np.abs(np.abs(along) - 7.5) < 1.4) & (across % 1.5 < 0.75)] = 0.60
    colour[(np.abs(x) < 5) & (np.abs(y) < 5)] = (0.39, 0.39, 0.41)
    patches = generator.normal(0, 0.03, (32, 32, 1)).repeat(8, axis=0).repeat(8, axis=1)
    colour += patches + generator.normal(0, 0.02, (_MAP_CELLS, _MAP_CELLS, 1))
    return np.asarray(np.clip(colour, 0, 1), np.float32)


@dataclass(frozen=True, slots=True)
class _Scenery:
    """All faces of n samples, and the order of things in every view.

    thing: int [faces], the number of its thing: 0 buildings, 1 shadow, 2 subject, 3 and on others
    present: bool [n, faces]
    group, distance: [n, cameras, things], painting order: group first, then from far to near
    """

    mesh: Mesh
    thing: NDArray[np.intp]
    present: NDArray[np.bool_]
    group: NDArray[np.intp]
    distance: Floats


_THING_SHADOW, _THING_SUBJECT = 1, 2


def _assemble(layout: _Layout) -> _Scenery:
    """Put everything on the square, lit."""
    n = len(layout.labels)
    standing = (layout.subject, *layout.others)
    placed = [solids.place(t.mesh, t.position, t.heading) for t in standing]
    meshes = [solids.repeat(_buildings(), n), _shadow(layout), *placed]
    thing = np.repeat(np.arange(len(meshes)), [mesh.faces for mesh in meshes])
    mesh = solids.join(*meshes)
    here = np.stack([t.present for t in standing], axis=1)
    present = np.concatenate([np.ones((n, 2), np.bool_), here], axis=1)[:, thing]

    cameras = np.array([camera.position[:2] for camera in CAMERAS], np.float32)
    at = np.stack([t.position for t in standing], axis=1)
    distance = np.zeros((n, len(CAMERAS), len(meshes)), np.float32)
    distance[..., 2:] = np.linalg.norm(cameras[:, None] - at[:, None], axis=-1)
    group = np.empty(distance.shape, np.intp)
    group[..., :3] = (_BUILDING, _SHADOW, _SUBJECT)
    group[..., 3:] = np.where(_hides(layout, cameras, at[:, 1:]), _BEFORE, _BEHIND)
    lit = light(mesh, layout.towards_light, layout.ambient)
    return _Scenery(replace(mesh, colours=lit), thing, present, group, distance)


def _hides(layout: _Layout, cameras: Floats, others: Floats) -> NDArray[np.bool_]:
    """Whether things at others [n, things, 2] stand between the subject and cameras [cameras, 2].

    A side of the subject's outline parts each thing from the subject; of two solids parted by a
    plane, the one on the camera's side of it is in front. Returns bool [n, cameras, things].
    """
    turn, centre = -layout.subject.heading[:, None], layout.subject.position[:, None]
    thing, camera = _turn(others - centre, turn), _turn(cameras - centre, turn)
    half = layout.half[:, None]
    axis = np.argmax(np.abs(thing) - half, axis=-1)[..., None]
    sign = np.sign(np.take_along_axis(thing, axis, axis=-1))[..., 0]
    edge = np.take_along_axis(np.broadcast_to(half, thing.shape), axis, axis=-1)[..., 0]
    along = np.take_along_axis(
        np.broadcast_to(camera[:, :, None], (*camera.shape[:2], thing.shape[1], 2)),
        np.broadcast_to(axis[:, None], (*camera.shape[:2], thing.shape[1], 1)),
        axis=-1,
    )[..., 0]
    return np.asarray(sign[:, None] * along > edge[:, None])


def _photograph(
    generator: np.random.Generator, layout: _Layout, size: int
) -> tuple[Images, NDArray[np.bool_]]:
    """What the cameras see: images [n, 6, size, size, 3], and whether they see the subject."""
    n, fine = len(layout.labels), size * SUPERSAMPLE
    scenery = _assemble(layout)
    in_camera = to_camera(scenery.mesh.vertices, CAMERAS)
    pixels = project(in_camera, CAMERAS)
    crop = _crop(generator, pixels[:, :, scenery.thing == _THING_SUBJECT])
    scale = np.asarray(fine / crop.width, np.float32)[:, :, None, None, None]
    on_grid = (pixels - crop.corner[:, :, None, None]) * scale

    depth = in_camera[..., 2]
    drawn = scenery.present[:, None] & (depth > NEAR_M).all(axis=-1)
    drawn &= faces_camera(in_camera) | scenery.mesh.two_sided[:, None]
    drawn &= (on_grid.max(axis=3) > 0).all(axis=-1) & (on_grid.min(axis=3) < fine).all(axis=-1)

    # From here on every view of every sample for itself: [views, faces, ...].
    views = n * len(CAMERAS)
    drawn = drawn.reshape(views, -1)
    order = painters_order(
        scenery.group[..., scenery.thing].reshape(views, -1),
        scenery.distance[..., scenery.thing].reshape(views, -1),
        np.repeat(scenery.mesh.layers, len(CAMERAS), axis=0),
        depth.mean(axis=-1).reshape(views, -1),
        drawn,
    )
    drawn = per_face(drawn, order)
    polygons = per_face(on_grid.reshape(views, -1, *on_grid.shape[3:]), order)
    polygons[~drawn] = -1.0  # off the grid: covers no pixel
    thing = scenery.thing[order]
    seen, alone = paint(polygons, drawn & (thing == _THING_SUBJECT), fine)

    colours = per_face(np.repeat(scenery.mesh.colours, len(CAMERAS), axis=0), order)
    pictures = _backdrop(generator, layout, crop, size)
    shaded = _look_up(thing == _THING_SHADOW, seen)
    pictures[shaded] *= layout.ambient.repeat(len(CAMERAS))[shaded.nonzero()[0], None]
    pictures = np.where(((seen == 0) | shaded)[..., None], pictures, _look_up(colours, seen))
    shown = _look_up(thing == _THING_SUBJECT, seen).sum(axis=(1, 2))
    share = shown / np.maximum(alone.sum(axis=(1, 2)), 1)

    width = crop.width.reshape(views)
    overlooked = _overlook(layout.subject.position).reshape(views)
    visible = overlooked & (share >= MIN_SEEN) & (width >= MIN_WIDTH_PX)
    resolution = np.round(width * (size / SIZE_PX)).astype(np.intp)
    images = _expose(generator, resolve(pictures, resolution, size), n)
    images[~visible] = 0
    return images.reshape(n, len(CAMERAS), size, size, 3), visible.reshape(n, len(CAMERAS))


def _look_up(values: NDArray[T], seen: NDArray[np.unsignedinteger]) -> NDArray[T]:
    """Per pixel the value of the face seen there: values [views, faces, ...] by seen [views, side,
    side], numbered from 1; zero where there is no face."""
    none = np.zeros((len(values), 1, *values.shape[2:]), values.dtype)
    padded: NDArray[T] = np.concatenate([none, values], axis=1)
    found: NDArray[T] = padded[np.arange(len(seen))[:, None, None], seen]
    return found


@dataclass(frozen=True, slots=True)
class _Crop:
    """Squares cut from the sensors: corner [n, cameras, 2] and width [n, cameras] in sensor pixels
    from the principal point."""

    corner: Floats
    width: Floats


def _crop(generator: np.random.Generator, pixels: Floats) -> _Crop:
    """A loose square around the subject's pixels [n, cameras, faces, 6, 2], as a detector cuts."""
    low, high = pixels.min(axis=(2, 3)), pixels.max(axis=(2, 3))
    middle, extent = (low + high) / 2, (high - low).max(axis=-1)
    width = extent * generator.uniform(*CROP_MARGIN, extent.shape)
    shift = generator.uniform(-CROP_SHIFT, CROP_SHIFT, middle.shape) * width[..., None]
    corner = middle + shift - width[..., None] / 2
    return _Crop(corner.astype(np.float32), width.astype(np.float32))


def _backdrop(generator: np.random.Generator, layout: _Layout, crop: _Crop, size: int) -> Floats:
    """Ground and sky behind everything: [views, fine, fine, 3]."""
    n, cameras = crop.width.shape
    grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size
    focal = np.array([camera.focal_px for camera in CAMERAS], np.float32)[None, :, None]
    right = (crop.corner[..., 0, None] + grid * crop.width[..., None]) / focal
    down = (crop.corner[..., 1, None] + grid * crop.width[..., None]) / focal
    turn = np.stack([camera.rotation for camera in CAMERAS])
    at = np.array([camera.position for camera in CAMERAS], np.float32)

    def ray(axis: int) -> Floats:
        """World coordinate of the direction of every pixel: [n, cameras, size, size]."""
        r, d, ahead = (turn[None, :, row, axis, None, None] for row in range(3))
        return np.asarray(r * right[:, :, None, :] + d * down[:, :, :, None] + ahead, np.float32)

    slope = ray(2)
    reach = -at[None, :, 2, None, None] / np.minimum(slope, -1e-3)
    cell = [
        ((at[None, :, axis, None, None] + reach * ray(axis)) / _CELL_M + _MAP_CELLS / 2).astype(
            np.intp
        )
        % _MAP_CELLS
        for axis in (0, 1)
    ]
    sun = layout.ambient + (1 - layout.ambient) * 1.25 * layout.towards_light[:, 2]
    picture = _ground()[cell[1], cell[0]] * sun[:, None, None, None, None]
    sky = generator.uniform(0.55, 1.0, (n, 1, 1, 1, 1)) * np.array((0.78, 0.88, 1.0))
    picture = np.where((slope > -1e-2)[..., None], sky, picture).astype(np.float32)
    picture = picture.reshape(n * cameras, size, size, 3)
    return picture.repeat(SUPERSAMPLE, axis=1).repeat(SUPERSAMPLE, axis=2)


def _expose(generator: np.random.Generator, pictures: Floats, n: int) -> Images:
    """Pictures [views, size, size, 3] as the sensors record them: uint8, never all zero."""
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

    def per_view(values: NDArray[np.float64]) -> Floats:
        return values.astype(np.float32).reshape(views, 1, 1, -1)

    exposed = pictures * per_view(gain[:, None] * cast * (1 - haze[:, None])) + per_view(0.7 * haze)
    exposed += generator.standard_normal(exposed.shape, np.float32) * per_view(noise)
    # Zero is kept for cameras that see nothing.
    return np.asarray(np.clip(exposed * 255, 1, 255), np.uint8)
