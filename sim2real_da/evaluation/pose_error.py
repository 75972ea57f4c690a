# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of one estimated pose: angle and position up to symmetry, ADD and ADD-S.

ADD and ADD-S: Hinterstoisser et al., "Model based training, detection and pose estimation of texture-less 3D objects
in heavily cluttered scenes", ACCV 2012.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import matrix_from_quaternion, transform_points
from sim2real_da.samples import ObjectModel, Pose


def angle_and_position(estimate: Pose, truth: Pose, model: ObjectModel) -> tuple[float, float]:
    """Return the angle in degrees (0..180) and the distance in metres between two poses of one object.

    Of all poses that look like the truth, the one nearest in angle is compared with; the distance is taken to the same
    one, because a symmetry about an axis that misses the CAD origin moves the origin, too.
    """
    symmetries = np.asarray(model.symmetries, dtype=np.float64)  # (K, 4, 4)
    alike = truth.matrix() @ symmetries
    turned = matrix_from_quaternion(estimate.quaternion).T @ alike[:, :3, :3]
    angles = np.degrees(np.atleast_1d(Rotation.from_matrix(turned).magnitude()))
    distances = np.linalg.norm(alike[:, :3, 3] - estimate.translation, axis=1)
    # Several symmetries can be equally near in angle up to rounding; the nearest in position among them is meant.
    nearest = np.flatnonzero(angles <= angles.min() + 1e-6)
    return float(angles.min()), float(distances[nearest].min())


def add(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD in metres: the mean distance between the same surface points under the two poses."""
    difference = transform_points(model.points, estimate) - transform_points(model.points, truth)
    return float(np.linalg.norm(difference, axis=1).mean())


def add_s(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD-S in metres: the mean distance from each true surface point to the nearest estimated one."""
    distances, _ = cKDTree(transform_points(model.points, estimate)).query(transform_points(model.points, truth))
    return float(np.mean(distances))


def add_or_add_s(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD-S for an object with symmetries, ADD for any other; metres."""
    return add_s(estimate, truth, model) if model.symmetric else add(estimate, truth, model)
