"""The faces of a layout, shaded, and the order in which each camera must draw its things."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import solids
from .layout import Layout, turn
from .raster import compute_normals, shade
from .solids import Floats, Mesh
from .square import RIG, build_houses

THING_SHADOW, THING_SUBJECT = 1, 2
"""Numbers of things."""

# Groups of things, in the order of painting.
HOUSES, _SHADOW, _BEHIND, _SUBJECT, _BEFORE = range(5)


@dataclass(frozen=True, slots=True)
class Scenery:
    """All faces of n samples, and the order of things in every view.

    The houses, which stand in every sample, are the faces `houses` of `square.build_houses`; their
    colours [n, faces, 3] are `house_colours`.

    thing: int [faces], the number of its thing: 1 shadow, 2 subject, 3 and more: others
    present: bool [n, faces]
    normals: [n, faces, 3]
    group, distance: [n, cameras, things], the painting order: by group, then from far to near
    """

    mesh: Mesh
    house_colours: Floats
    thing: NDArray[np.intp]
    present: NDArray[np.bool_]
    normals: Floats
    group: NDArray[np.intp]
    distance: Floats


def assemble(layout: Layout) -> Scenery:
    """Collect the faces of all things of the layout, placed on the square and shaded."""
    n = len(layout.labels)
    things = (layout.subject, *layout.others)
    placed = [solids.place(t.mesh, t.position, t.heading) for t in things]
    meshes = [_build_shadow(layout), *placed]
    thing = np.repeat(np.arange(1, len(meshes) + 1), [mesh.faces for mesh in meshes])
    mesh = solids.join(*meshes)
    here = np.stack([t.present for t in things], axis=1)
    present = np.concatenate([np.ones((n, 2), np.bool_), here], axis=1)[:, thing]

    cameras = RIG.position[:, :2]
    at = np.stack([t.position for t in things], axis=1)
    distance = np.zeros((n, len(cameras), len(meshes) + 1), np.float32)
    distance[..., 2:] = np.linalg.norm(cameras[:, None] - at[:, None], axis=-1)
    group = np.empty(distance.shape, np.intp)
    group[..., :3] = (HOUSES, _SHADOW, _SUBJECT)
    group[..., 3:] = np.where(_find_hiding(layout, cameras, at[:, 1:]), _BEFORE, _BEHIND)
    normals = compute_normals(mesh.vertices)
    lit = shade(mesh, normals, layout.towards_light, layout.ambient)
    houses = build_houses()
    house_colours = shade(
        solids.repeat(houses, n),
        np.repeat(compute_normals(houses.vertices), n, axis=0),
        layout.towards_light,
        layout.ambient,
    )
    return Scenery(
        replace(mesh, colours=lit), house_colours, thing, present, normals, group, distance
    )


def _find_hiding(layout: Layout, cameras: Floats, others: Floats) -> NDArray[np.bool_]:
    """Whether things at others [n, things, 2] stand between the subject and cameras [cameras, 2].

    A side of the subject's outline separates each thing from the subject; of two solids that a
    plane separates, the one on the camera's side of it is in front. Returns bool
    [n, cameras, things].
    """
    angle, centre = -layout.subject.heading[:, None], layout.subject.position[:, None]
    thing, camera = turn(others - centre, angle), turn(cameras - centre, angle)
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


def _build_shadow(layout: Layout) -> Mesh:
    """The subject's shadow on the ground: copies of its outline, moved away from the light."""
    x, y = layout.half.T
    outline = solids.place(
        solids.build_block(
            solids.make_points(-x, -y, 0.0), solids.make_points(x, y, 0.02), 0.0, sides="Z"
        ),
        layout.subject.position,
        layout.subject.heading,
    )
    top = layout.subject.mesh.vertices[..., 2].max(axis=(1, 2))
    away = -layout.towards_light[:, :2] / layout.towards_light[:, 2:] * top[:, None]
    copies = []
    for share in (0.0, 0.35, 0.7):
        shift = solids.make_points(share * away[:, 0], share * away[:, 1], 0.0)[:, None, None]
        copies.append(replace(outline, vertices=outline.vertices + shift))
    return solids.join(*copies)
