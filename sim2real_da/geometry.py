# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Rotations, camera projection and symmetry-aware angles.

Quaternions are **xyzw** (ROS, scipy), unit length and ``w >= 0``. Rotation matrices act on column vectors.
Camera frames are optical: x right, y down, z forward (REP-103).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from sim2real_da.samples import Intrinsics, ObjectModel, Pose

Array = NDArray[np.float64]
PLAIN_LENS = 1e9  # tangent of the widest angle of a lens whose formula holds everywhere


def canonical_quaternion(quaternion: ArrayLike) -> Array:
    """Return the unit xyzw quaternion of the same rotation with ``w >= 0``.

    :param quaternion: ``(4,)`` xyzw of any length but zero
    :raises ValueError: for non-finite numbers, a wrong shape or zero length
    """
    q = np.asarray(quaternion, dtype=np.float64)
    if q.shape != (4,) or not np.all(np.isfinite(q)):
        raise ValueError(f'quaternion: expected 4 finite numbers x y z w, got {quaternion!r}')
    largest = float(np.abs(q).max())
    if largest < 1e-9:
        raise ValueError('quaternion: all zero; an unset pose is not a rotation')
    # the square of a large number overflows
    return np.asarray(Rotation.from_quat(q / largest).as_quat(canonical=True), dtype=np.float64)


def matrix_from_quaternion(quaternion: ArrayLike) -> Array:
    """Return the rotation matrix ``(3, 3)`` of an xyzw quaternion ``(4,)``."""
    return np.asarray(Rotation.from_quat(np.asarray(quaternion, dtype=np.float64)).as_matrix())


def quaternion_from_matrix(matrix: ArrayLike) -> Array:
    """Return the canonical xyzw quaternion of the rotation nearest to ``matrix`` ``(3, 3)``."""
    return canonical_quaternion(Rotation.from_matrix(orthonormalised(matrix)).as_quat())


def orthonormalised(matrix: ArrayLike) -> Array:
    """Return the rotation nearest to ``matrix`` ``(3, 3)`` in the Frobenius norm (SVD).

    :raises ValueError: for non-finite numbers or a matrix that is far from a rotation (determinant below 0.5)
    """
    m = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
    if not np.all(np.isfinite(m)) or np.linalg.det(m) < 0.5:
        raise ValueError(f'rotation matrix: expected a proper rotation, got {m.tolist()}')
    u, _, vt = np.linalg.svd(m)
    return np.asarray(u @ vt)


def angle_between(first: ArrayLike, second: ArrayLike) -> float:
    """Return the rotation angle between two xyzw quaternions in degrees, 0..180; q and -q are the same rotation."""
    a, b = canonical_quaternion(first), canonical_quaternion(second)
    # atan2 keeps full precision near 0 degrees, where acos of a dot product near 1 loses half the digits.
    half = np.arctan2(np.linalg.norm((Rotation.from_quat(a).inv() * Rotation.from_quat(b)).as_quat()[:3]),
                      abs(float(a @ b)))
    return float(np.degrees(2 * half))


def symmetric_angle(estimate: ArrayLike, truth: ArrayLike, symmetries: ArrayLike) -> float:
    """Return the smallest angle in degrees between ``estimate`` and ``truth`` turned by any of the symmetries.

    :param symmetries: ``(K, 4, 4)`` transforms of the object's own frame, identity included
    """
    true_rotation = matrix_from_quaternion(truth)
    turned = [quaternion_from_matrix(true_rotation @ s[:3, :3]) for s in np.asarray(symmetries, dtype=np.float64)]
    return min(angle_between(estimate, q) for q in turned)


def ray_rotation(direction: ArrayLike) -> Array:
    """Return the smallest rotation ``(3, 3)`` that turns the optical axis (0, 0, 1) into ``direction`` ``(3,)``."""
    d = np.asarray(direction, dtype=np.float64)
    d = d / np.linalg.norm(d)
    axis = np.array([-d[1], d[0], 0.0])  # (0, 0, 1) x d
    sine, cosine = np.linalg.norm(axis), d[2]
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return np.asarray(Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix())


def allocentric(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """Turn an egocentric rotation ``(3, 3)`` into the allocentric one: what a crop around the object looks like."""
    return np.asarray(ray_rotation(translation).T @ np.asarray(rotation, dtype=np.float64))


def egocentric(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """Turn an allocentric rotation ``(3, 3)`` back into the egocentric one; inverse of :func:`allocentric`."""
    return np.asarray(ray_rotation(translation) @ np.asarray(rotation, dtype=np.float64))


def transform_points(points: ArrayLike, pose: Pose) -> Array:
    """Return object points ``(N, 3)`` in the camera frame, ``(N, 3)`` metres."""
    transform = pose.matrix()
    return np.asarray(points, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]


def difference(estimate: Pose, truth: Pose, model: ObjectModel) -> Array:
    """Return what has to be added to an estimate to get the truth: x y z rx ry rz, ``(6,)``, metres and radians.

    The convention of the covariance: translation along the camera's axes, then a rotation vector about them, applied
    from the left (``R_true = exp(r) R_estimate``) while the CAD origin stays where it is. Of all poses that look like
    the truth, the one nearest in angle is meant; the translation is taken to the same one, because a symmetry about an
    axis that misses the CAD origin moves the origin, too.
    """
    alike = truth.matrix() @ np.asarray(model.symmetries, dtype=np.float64)  # (K, 4, 4)
    turns = Rotation.from_matrix(alike[:, :3, :3] @ matrix_from_quaternion(estimate.quaternion).T).as_rotvec()
    shifts = alike[:, :3, 3] - estimate.translation
    angles = np.linalg.norm(turns, axis=1)
    # Several symmetries can be equally near in angle up to rounding; the nearest in position among them is meant.
    nearest = np.flatnonzero(angles <= angles.min() + 1e-8)
    best = nearest[np.linalg.norm(shifts[nearest], axis=1).argmin()]
    return np.concatenate([shifts[best], turns[best]])


def project(points: ArrayLike, intrinsics: Intrinsics) -> Array:
    """Project camera-frame points ``(N, 3)`` metres to pixels ``(N, 2)``, through the camera's lens.

    NaN behind the camera, and beyond the angle up to which the lens formula holds: a polynomial turns back
    somewhere, and would show there once more what is far outside of the picture.
    """
    p = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if not len(p):
        return np.zeros((0, 2))
    if intrinsics.pinhole:
        x, y, z = p.T
        depth = np.where((z > 0) & (np.hypot(x, y) <= PLAIN_LENS * z), z, np.nan)
        return np.stack([x / depth * intrinsics.fx + intrinsics.cx, y / depth * intrinsics.fy + intrinsics.cy], axis=1)
    model = cv2.fisheye if intrinsics.fisheye else cv2
    pixels, _ = model.projectPoints(
        p[:, None], np.zeros(3), np.zeros(3), intrinsics.matrix(), np.asarray(intrinsics.distortion, dtype=np.float64))
    pixels = pixels.reshape(-1, 2)
    slope = np.hypot(p[:, 0], p[:, 1])
    pixels[(p[:, 2] <= 0) | (slope > _widest(intrinsics.distortion, intrinsics.fisheye) * p[:, 2])] = np.nan
    return np.asarray(pixels)


@lru_cache(maxsize=16)
def _widest(distortion: tuple[float, ...], fisheye: bool) -> float:
    """Return the tangent of the angle from the axis up to which a lens moves points outwards as the angle grows."""
    if not any(distortion):
        return PLAIN_LENS
    angle = np.linspace(0, np.radians(89.5), 5000)
    if fisheye:
        image = angle * np.polyval([*distortion[::-1], 1.0], angle**2)
    else:
        k1, k2, _, _, k3, k4, k5, k6 = (*distortion, *[0.0] * 8)[:8]
        square = np.tan(angle) ** 2
        image = np.tan(angle) * np.polyval([k3, k2, k1, 1.0], square) / np.polyval([k6, k5, k4, 1.0], square)
    turns = np.flatnonzero(np.diff(image) <= 0)
    return float(np.tan(angle[turns[0]])) if len(turns) else PLAIN_LENS


def inside(box: ArrayLike, intrinsics: Intrinsics) -> NDArray[np.bool_]:
    """Return which pixels ``(H, W)`` of a camera's picture lie in a box xyxy, whose edges lie between pixels."""
    area = np.zeros((intrinsics.height, intrinsics.width), bool)
    edges = np.clip(np.asarray(box) + 0.5, 0, np.tile([intrinsics.width, intrinsics.height], 2))
    x0, y0, x1, y1 = np.round(edges).astype(int)  # edges to slices
    area[y0:y1, x0:x1] = True
    return area


def box_around(mask: NDArray[np.bool_]) -> Array:
    """Return the box xyxy, edges between pixels, around what is true in a mask ``(H, W)`` that is not empty."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5])


def box_iou(first: ArrayLike, second: ArrayLike) -> float:
    """Return intersection over union of two xyxy boxes; 0 for boxes without area."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    overlap = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    union = np.prod(np.clip(a[2:] - a[:2], 0, None)) + np.prod(np.clip(b[2:] - b[:2], 0, None)) - overlap
    return float(overlap / union) if union > 0 else 0.0
