# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Objects of a static scene moved until their outlines lie on edges in all pictures at once; cameras are known.

Clutter has edges on both sides of an outline and not the same ones in other views; those of the object agree. How large
an object is, is fitted as well: in pictures from known places it does not hide behind a distance. What networks see
wrong, photographs do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import quaternion_from_matrix
from sim2real_da.outlines import FINE, Pull, edges, pull, silhouette
from sim2real_da.samples import Frame, ObjectModel, Pose
from sim2real_da.static_scene import StaticScene

Array = NDArray[np.float64]

REACH = (8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, *(1.5,) * 6)  # pixels, standard deviation, of each step
LAST = REACH[-6:]  # when the scene has its size
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

    def _seen(self, camera: Array) -> Array:
        """Return where its middle is before a camera, ``(3,)``."""
        return np.asarray(camera[:3, :3] @ self.middle + camera[:3, 3])

    def pose(self, camera: Array) -> Pose:
        """Return where the object at its true size looks like this one."""
        turn = camera[:3, :3] @ self.rotation
        return Pose(quaternion_from_matrix(turn),
                    np.exp(-self.log_size) * self._seen(camera) - turn @ self.model.middle)

    def jacobian(self, camera: Array, asked: Pull) -> Array:
        """Return by how many pixels the outline moves outward for turn, place and size, ``(N, 7)``."""
        turn = camera[:3, :3]
        middle = np.exp(-self.log_size) * self._seen(camera)
        in_scene = asked.along @ turn
        return np.concatenate([np.cross((asked.rim - middle) @ turn, in_scene), np.exp(-self.log_size) * in_scene,
                               -(asked.along @ middle)[:, None]], axis=1)

    def distance(self, camera: Array) -> float:
        """Return how far from a camera it is."""
        return float(np.linalg.norm(self._seen(camera)))


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
                asked = None if shape is None else pull(
                    shape, [other for other in hiding if other is not None], frames[number].intrinsics,
                    pictures[number], reach)
                if asked is not None:
                    own = asked.equations(body.jacobian(camera, asked))
                    matrix, gradient = matrix + own[0], gradient + own[1]
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
