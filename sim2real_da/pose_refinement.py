# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Poses found in one picture moved until outlines lie on its edges.

A network says from a crop where an object is to a few per cent of the distance and many degrees; the picture's edges
are where they are to a fraction of a pixel. Each of the network's answers is a start, from which the outline is pulled
onto edges (:func:`sim2real_da.outlines.pull`) while the network's covariance holds it where the network saw the object.
Of where the starts end that is taken whose outline lies on the strongest edges and is not far from what the network
believes.

A scanned mesh, paint and a shadow can make an object look a few per cent larger or smaller than its model, and that
much nearer or farther; by how much is seen in pictures from known places (:mod:`sim2real_da.networks.scene_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import difference
from sim2real_da.outlines import FINE, Silhouette, edges, edges_along, pull, shown_outline, silhouette
from sim2real_da.samples import Intrinsics, ObjectModel, Pose

Array = NDArray[np.float64]

REACH = (8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.5, 1.5)  # pixels, standard deviation, of each step
SHARP = 2.5  # reach from which on outlines are drawn with more than a cell a pixel
NONE = 1e-3  # mean of squared edges that counts as none at all
BELIEF = 0.01  # what a unit of squared Mahalanobis distance from the network's pose weighs against log strength
AGREEING = 0.1  # log strength less than the best one's by which an end counts e times less in the covariance
HIDES = 0.4  # score from which an object hides those behind it


@dataclass(frozen=True)
class Found:
    """What the network says of one object.

    :param score: 0..1
    :param covariance: of the pose, ``(6, 6)``, order x y z rx ry rz
    :param views: its answers in single crops
    :param log_size: logarithm of how much larger than its model the object looks
    """

    model: ObjectModel
    score: float
    pose: Pose
    covariance: Array
    views: Sequence[Pose]
    log_size: float = 0.0

    def as_model(self) -> Found:
        """Return where an object of the model's own size looks like this one."""
        poses = [_at_distance(pose, self.model, np.exp(-self.log_size)) for pose in (self.pose, *self.views)]
        return replace(self, pose=poses[0], views=poses[1:], log_size=0.0)


def refined(found: Sequence[Found], image: NDArray[np.uint8], intrinsics: Intrinsics) -> list[tuple[Pose, Array]]:
    """Return poses on edges and their covariances ``(6, 6)``: what edges leave open, and how far other ends are.

    :param found: everything seen in the picture: nearer objects hide outlines of farther ones
    :param image: uint8 RGB ``(H, W, 3)``
    :param intrinsics: of a pinhole camera
    """
    gradient = edges(image)
    nearer: list[Silhouette] = []
    result: dict[int, tuple[Pose, Array]] = {}
    for number in np.argsort([np.linalg.norm(f.model.box_centre(f.pose)) for f in found]):
        one = found[number].as_model()
        ends = [_pulled(one, start, nearer, gradient, intrinsics) for start in (one.pose, *one.views)]
        likely = np.array([_likelihood(one, end, nearer, gradient, intrinsics) for end, _ in ends])
        pose, covariance = ends[int(likely.argmax())]
        others = np.array([difference(pose, end, one.model) for end, _ in ends])
        weights = np.exp((likely - likely.max()) / AGREEING)
        result[number] = (_at_distance(pose, one.model, np.exp(found[number].log_size)),
                          covariance + (others * weights[:, None]).T @ others / weights.sum())
        shape = silhouette(one.model, pose, intrinsics)
        if shape is not None and one.score >= HIDES:
            nearer.append(shape)
    return [result[number] for number in range(len(found))]


def _at_distance(pose: Pose, model: ObjectModel, factor: float) -> Pose:
    """Return a pose with the middle of the object's box at so many times its distance."""
    return Pose(pose.quaternion, pose.translation + (factor - 1) * model.box_centre(pose))


def _pulled(one: Found, start: Pose, nearer: Sequence[Silhouette], gradient: NDArray[np.float32],
            intrinsics: Intrinsics) -> tuple[Pose, Array]:
    """Return where edges pull an object from a start, and the covariance there."""
    believed = np.linalg.inv(one.covariance)
    pose, matrix, turn = start, believed, Rotation.identity()
    for reach in REACH:
        shape = silhouette(one.model, pose, intrinsics, FINE if reach <= SHARP else 1)
        asked = None if shape is None else pull(shape, nearer, intrinsics, gradient, reach)
        if asked is None:
            break
        own, right = asked.equations(
            np.concatenate([asked.along, np.cross(asked.rim - pose.translation, asked.along)], axis=1))
        matrix = believed + own
        moved = np.r_[pose.translation - start.translation, turn.as_rotvec()]
        step = np.linalg.solve(matrix, right - believed @ moved)
        turn = Rotation.from_rotvec(step[3:]) * turn
        pose = Pose((turn * Rotation.from_quat(start.quaternion)).as_quat(), pose.translation + step[:3])
    return pose, np.linalg.inv(matrix)


def _likelihood(one: Found, pose: Pose, nearer: Sequence[Silhouette], gradient: NDArray[np.float32],
                intrinsics: Intrinsics) -> float:
    """Return the logarithm of how strong the edges under the outline are, less what the network believes otherwise."""
    shape = silhouette(one.model, pose, intrinsics, FINE)
    line = None if shape is None else shown_outline(shape, nearer, intrinsics.width, intrinsics.height)
    strong = 0.0
    if line is not None:
        strength, _, whole = edges_along(*line, gradient, REACH[-1])
        strong = float(strength.sum(axis=1).mean() / whole)
    off = difference(one.pose, pose, one.model)
    return float(np.log(NONE + strong) - BELIEF * off @ np.linalg.solve(one.covariance, off))
