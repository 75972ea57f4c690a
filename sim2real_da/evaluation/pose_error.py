# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of one estimated pose: angle and position up to symmetry, ADD and ADD-S, MSSD and MSPD.

ADD and ADD-S: Hinterstoisser et al., "Model based training, detection and pose estimation of texture-less 3D objects
in heavily cluttered scenes", ACCV 2012. MSSD and MSPD: Hodan et al., "BOP Challenge 2020 on 6D object localization",
arXiv 2009.07378; both take the largest distance over the surface points and the smallest over the symmetries, in the
steps in which the object model has them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sim2real_da.geometry import difference, project, transform_points
from sim2real_da.samples import Intrinsics, ObjectModel, Pose


def angle_and_position(estimate: Pose, truth: Pose, model: ObjectModel) -> tuple[float, float]:
    """Return the angle in degrees (0..180) and the distance in metres between two poses of one object.

    Up to symmetry as :func:`sim2real_da.geometry.difference`.
    """
    error = difference(estimate, truth, model)
    return float(np.degrees(np.linalg.norm(error[3:]))), float(np.linalg.norm(error[:3]))


def add(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD in metres: the mean distance between the same surface points under the two poses."""
    moved = transform_points(model.points, estimate) - transform_points(model.points, truth)
    return float(np.linalg.norm(moved, axis=1).mean())


def add_s(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD-S in metres: the mean distance from each true surface point to the nearest estimated one."""
    distances, _ = cKDTree(transform_points(model.points, estimate)).query(transform_points(model.points, truth))
    return float(np.mean(distances))


def add_or_add_s(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return ADD-S for an object with symmetries, ADD for any other; metres."""
    return add_s(estimate, truth, model) if model.symmetric else add(estimate, truth, model)


def mssd(estimate: Pose, truth: Pose, model: ObjectModel) -> float:
    """Return BOP's maximum symmetry-aware surface distance in metres."""
    return float(_furthest(transform_points(model.points, estimate), _variants(truth, model)).min())


def mspd(estimate: Pose, truth: Pose, model: ObjectModel, camera: Intrinsics) -> float:
    """Return BOP's maximum symmetry-aware projection distance in pixels of the original image.

    Lens distortion is honoured. Infinite where a point of the estimate lies behind the camera.
    """
    variants = _variants(truth, model)
    pixels = project(variants.reshape(-1, 3), camera).reshape(*variants.shape[:2], 2)
    distances = _furthest(project(transform_points(model.points, estimate), camera), pixels)
    return float(np.nan_to_num(distances, nan=np.inf).min())


def _variants(truth: Pose, model: ObjectModel) -> NDArray[np.float64]:
    """Return the surface points at every pose that looks like the truth, in the camera frame, ``(K, N, 3)``."""
    alike = truth.matrix() @ np.asarray(model.symmetries, dtype=np.float64)
    points = np.asarray(model.points, dtype=np.float64)
    return np.asarray(points @ alike[:, :3, :3].transpose(0, 2, 1) + alike[:, None, :3, 3])


def _furthest(points: NDArray[np.float64], variants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each of K variants ``(K, N, D)`` the largest distance of a point to its partner ``(N, D)``."""
    return np.asarray(np.linalg.norm(variants - points, axis=2).max(axis=1))
