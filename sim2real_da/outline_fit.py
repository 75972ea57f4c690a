# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Objects of a static scene moved until their outlines lie on edges in all pictures at once; cameras are known.

Each point of an outline looks along its normal for edges (RAPID: Harris and Stennett, BMVC 1990), not for one but for
the mean of all, nearer ones first, and in a reach that shrinks from step to step. Clutter has edges on both sides of an
outline and not the same ones in other views; those of the object agree. How large an object is, is fitted as well: in
pictures from known places it does not hide behind a distance. What networks see wrong, photographs do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import project, quaternion_from_matrix, transform_points
from sim2real_da.outlines import FEWEST_POINTS, FINE, Silhouette, edges, outline, silhouette
from sim2real_da.samples import Frame, Intrinsics, ObjectModel, Pose
from sim2real_da.static_scene import StaticScene

Array = NDArray[np.float64]

REACH = (8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, *(1.5,) * 6)  # pixels, standard deviation, of each step
LAST = REACH[-6:]  # when the scene has its size
FARTHEST = 2.5  # in units of the reach
CLEAR = 0.1  # mean of squared edges along a normal from which a point counts in full
POINTS = 20.0  # that a view counts as: neighbouring points of an outline say the same
TURN, PLACE, SIZE = 0.3, 0.06, 0.2  # what is known before: radians, share of the distance, logarithm


@dataclass
class _Body:
    """An object in the scene: its box's middle, its rotation, and the logarithm of its size over the model's."""

    name: str
    model: ObjectModel
    rotation: Array  # (3, 3)
    middle: Array  # (3,)
    log_size: float
    views: list[int]

    def pose(self, camera: Array) -> Pose:
        """Return where the object at its true size looks like this one."""
        turn = camera[:3, :3] @ self.rotation
        middle = np.exp(-self.log_size) * (camera[:3, :3] @ self.middle + camera[:3, 3])
        return Pose(quaternion_from_matrix(turn), middle - turn @ self.model.middle)

    def distance(self, camera: Array) -> float:
        """Return how far from a camera it is."""
        return float(np.linalg.norm(camera[:3, :3] @ self.middle + camera[:3, 3]))


def fit_outlines(scene: StaticScene, frames: Sequence[Frame], objects: Mapping[str, ObjectModel],
                 sizes: bool) -> tuple[StaticScene, Array]:
    """Move each object until its outlines lie on edges in the frames that agree on it.

    :param scene: whose cameras are right, at least up to one factor
    :param frames: the scene's, of pinhole cameras
    :param sizes: whether objects have other sizes than their models, in a scene whose unit of length is not known
    :returns: the scene with its objects moved, and the logarithms of their sizes ``(K,)``: zero without ``sizes``.
        Divided by what most sizes are (:meth:`StaticScene.scaled`) the scene has the models' unit
    """
    bodies = []
    for name, placed, agrees in zip(scene.names, scene.objects, scene.agrees.T):
        middle = objects[name].middle
        bodies.append(_Body(name, objects[name], placed[:3, :3], placed[:3, :3] @ middle + placed[:3, 3], 0.0,
                            list(map(int, np.flatnonzero(agrees)))))
    start = [replace(body) for body in bodies]
    pictures = {number: edges(frames[number].image) for number in map(int, np.flatnonzero(scene.agrees.any(axis=1)))}
    for reach in REACH if sizes else LAST:
        shapes = {(body.name, number): silhouette(body.model, body.pose(scene.cameras[number]),
                                                  frames[number].intrinsics, FINE)
                  for body in bodies for number in body.views}
        for body, first in zip(bodies, start):
            if not body.views:
                continue
            matrix, gradient = _known_before(body, first, scene.cameras, sizes)
            for number in body.views:
                camera = scene.cameras[number]
                hiding = [shapes[other.name, number] for other in bodies
                          if other is not body and (other.name, number) in shapes
                          and other.distance(camera) < body.distance(camera)]
                shape = shapes[body.name, number]
                if shape is not None:
                    asked = _asked(body, camera, frames[number].intrinsics, shape,
                                   [other for other in hiding if other is not None], pictures[number], reach)
                    matrix, gradient = matrix + asked[0], gradient + asked[1]
            step = np.linalg.solve(matrix, gradient)
            body.rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ body.rotation
            body.middle = body.middle + step[3:6]
            body.log_size += float(step[6]) if sizes else 0.0
    placed = scene.objects.copy()
    for own, body in zip(placed, bodies):
        own[:3, :3] = body.rotation
        own[:3, 3] = body.middle - body.rotation @ body.model.middle
    return replace(scene, objects=placed), np.array([body.log_size for body in bodies])


def _known_before(body: _Body, first: _Body, cameras: Array, sizes: bool) -> tuple[Array, Array]:
    """Return the normal equations of staying near to where the object was: of turn, place and size."""
    place = PLACE * np.median([first.distance(cameras[number]) for number in first.views])
    weight = np.r_[np.full(3, TURN**-2), np.full(3, place**-2), SIZE**-2 if sizes else 1e12]
    moved = np.r_[Rotation.from_matrix(body.rotation @ first.rotation.T).as_rotvec(), body.middle - first.middle,
                  body.log_size]
    return np.diag(weight), -weight * moved


def _asked(body: _Body, camera: Array, intrinsics: Intrinsics, shape: Silhouette, hiding: Sequence[Silhouette],
           picture: NDArray[np.float32], reach: float) -> tuple[Array, Array]:
    """Return the normal equations of what one view's outline asks for, ``(7, 7)`` and ``(7,)``."""
    nothing = np.zeros((7, 7)), np.zeros(7)
    line = outline(shape)
    if line is None:
        return nothing
    points, normals = line
    free = ((points >= 1) & (points <= np.array(picture.shape[1::-1]) - 2)).all(axis=1)
    for other in hiding:
        free &= ~_covers(other, points)
    if free.sum() < FEWEST_POINTS:
        return nothing
    points, normals = points[free], normals[free]
    offsets = np.arange(-np.ceil(FARTHEST * reach), np.ceil(FARTHEST * reach) + 0.1, max(reach / 4, 0.5))
    near = np.exp(-(offsets**2) / (2 * reach**2))
    where = (points[:, None] + offsets[None, :, None] * normals[:, None]).astype(np.float32)  # (N, O, 2)
    found = cv2.remap(picture, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    strength = np.square((found * normals[:, None]).sum(axis=-1)) * near  # (N, O)
    mass = strength.sum(axis=1)
    off = strength @ offsets / np.maximum(mass, 1e-9)
    weight = np.minimum(mass / (CLEAR * near.sum()), 1.0) * POINTS / len(points) / reach**2
    # the surface points that make the outline
    pose = body.pose(camera)
    surface = transform_points(body.model.points, pose)
    rim = surface[cKDTree(project(surface, intrinsics)).query(points)[1]]
    x, y, depth = rim.T
    along = np.stack([normals[:, 0] * intrinsics.fx / depth, normals[:, 1] * intrinsics.fy / depth,
                      -(normals[:, 0] * intrinsics.fx * x + normals[:, 1] * intrinsics.fy * y) / depth**2], axis=1)
    middle = body.model.box_centre(pose)
    turn = camera[:3, :3]
    in_scene = along @ turn
    whole = np.concatenate([np.cross((rim - middle) @ turn, in_scene), np.exp(-body.log_size) * in_scene,
                            -(along @ middle)[:, None]], axis=1)  # (N, 7)
    weighted = whole * weight[:, None]
    return weighted.T @ whole, weighted.T @ off


def _covers(shape: Silhouette, points: Array) -> NDArray[np.bool_]:
    """Return whether a silhouette covers points of the picture ``(N, 2)``."""
    columns, rows = np.rint((points - shape.corner) * shape.fine).astype(int).T
    inside = (columns >= 0) & (rows >= 0) & (columns < shape.cells.shape[1]) & (rows < shape.cells.shape[0])
    out = np.zeros(len(points), bool)
    out[inside] = shape.cells[rows[inside], columns[inside]] > 0
    return out
