# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Silhouettes of objects at their poses, how well their outlines lie on edges of a picture, and where to these are.

A silhouette is drawn from the surface points that every weights file has: no mesh and no renderer is needed. Each point
of an outline looks along its normal for edges (RAPID: Harris and Stennett, BMVC 1990), not for one but for the mean of
all, nearer ones first, and in a reach that a fit shrinks from step to step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sim2real_da.geometry import project, transform_points
from sim2real_da.samples import Frame, Intrinsics, ObjectModel, Pose

Array = NDArray[np.float64]

FINE = 2  # cells a pixel, for outlines
LARGEST = 1200  # cells a side; an object that is larger in the picture has no outline
GAP = 2.0  # of the mean distance between two drawn points: holes up to twice that are closed
MARGIN = 4  # cells around the points
FEWEST_POINTS = 12  # of an outline
SMOOTH = 1.0  # pixels, of the picture before its edges are looked for
FAINT = 4.0  # grey levels a pixel: an edge much stronger than this counts as one, whatever its contrast
SIZES = np.linspace(-0.1, 0.1, 41)  # logarithms of sizes that are tried
FARTHEST = 2.5  # in units of the reach
CLEAR = 0.1  # mean of squared edges along a normal from which a point counts in full
POINTS = 20.0  # that a view counts as: neighbouring points of an outline say the same


@dataclass(frozen=True)
class Silhouette:
    """Which cells an object covers.

    :param cells: uint8, 255 where it is, ``(h, w)``
    :param corner: pixel coordinates of the first cell's middle ``(2,)``
    :param fine: cells a pixel
    :param surface: the model's points in the camera frame, metres, ``(M, 3)``
    :param pixels: of these points, ``(M, 2)``
    """

    cells: NDArray[np.uint8]
    corner: Array
    fine: int
    surface: Array
    pixels: Array

    def covers(self, points: Array) -> NDArray[np.bool_]:
        """Return which points of the picture ``(N, 2)`` it covers."""
        columns, rows = np.rint((points - self.corner) * self.fine).astype(int).T
        height, width = self.cells.shape
        inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
        return inside & (self.cells[rows.clip(0, height - 1), columns.clip(0, width - 1)] > 0)

    def nearest(self, points: Array) -> NDArray[np.intp]:
        """Return which of the model's points are nearest in the picture to points of it ``(N, 2)``, ``(N,)``."""
        return np.asarray(cKDTree(self.pixels, balanced_tree=False, compact_nodes=False).query(points)[1])


def silhouette(model: ObjectModel, pose: Pose, intrinsics: Intrinsics, fine: int = 1) -> Silhouette | None:
    """Draw an object; None where it is behind the camera, or larger than anything that is looked at as a whole.

    :param intrinsics: of a pinhole camera
    :param fine: cells a pixel
    """
    points = transform_points(model.points, pose)
    if points[:, 2].min() < 0.01:
        return None
    pixels = project(points, intrinsics)
    each = np.ascontiguousarray(pixels.T)  # rows are far faster to go through than columns
    low, high = each.min(axis=1), each.max(axis=1)
    if (high - low).max() * fine > LARGEST:
        return None
    # a cell's middle has integer pixel coordinates where cells are pixels
    low = np.floor(low)
    size = np.ceil((high - low) * fine).astype(int) + 1
    reach = max(int(np.ceil(GAP * np.sqrt(size.prod() / len(points)))), 1)
    margin = reach + MARGIN
    cells = np.zeros((size[1] + 2 * margin, size[0] + 2 * margin), np.uint8)
    columns, rows = np.rint((each - low[:, None]) * fine).astype(int) + margin
    cells[rows, columns] = 255
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return Silhouette(np.asarray(cv2.morphologyEx(cells, cv2.MORPH_CLOSE, kernel), dtype=np.uint8),
                      low - margin / fine, fine, points, pixels)


def mask(shape: Silhouette, width: int, height: int) -> NDArray[np.bool_]:
    """Return a silhouette whose cells are pixels in a picture ``(height, width)``."""
    out = np.zeros((height, width), bool)
    x, y = np.rint(shape.corner).astype(int)
    rows, columns = shape.cells.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + columns, width), min(y + rows, height)
    if x0 < x1 and y0 < y1:
        out[y0:y1, x0:x1] = shape.cells[y0 - y:y1 - y, x0 - x:x1 - x] > 0
    return out


def outline(shape: Silhouette) -> tuple[Array, Array] | None:
    """Return points of the outer outline about a pixel apart and their normals, both ``(N, 2)``; None of a speck."""
    found, _ = cv2.findContours(shape.cells, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    line = max(found, key=len)[:, 0].astype(np.float64) / shape.fine + shape.corner
    line = line[::shape.fine]
    if len(line) < FEWEST_POINTS:
        return None
    along = np.roll(line, -2, axis=0) - np.roll(line, 2, axis=0)
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return line, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)


def shown_outline(shape: Silhouette, hiding: Sequence[Silhouette], width: int, height: int,
                  ) -> tuple[Array, Array] | None:
    """Return the part of :func:`outline` that lies in a picture and that nothing hides; None where next to none does.

    :param hiding: what is nearer
    """
    line = outline(shape)
    if line is None:
        return None
    points, normals = line
    x, y = points.T
    free = (x >= 1) & (y >= 1) & (x <= width - 2) & (y <= height - 2)
    for other in hiding:
        free &= ~other.covers(points)
    return (points[free], normals[free]) if free.sum() >= FEWEST_POINTS else None


def edges_along(points: Array, normals: Array, gradient: NDArray[np.float32], reach: float,
                ) -> tuple[Array, Array, float]:
    """Return what edges there are along the normals of points.

    :param gradient: of a picture, see :func:`edges`
    :param reach: pixels, the standard deviation with which nearer edges count more
    :returns: squared edges along the normal, times what their distance makes them count, ``(N, O)``; the distances,
        pixels ``(O,)``; and what these count together
    """
    farthest = np.ceil(FARTHEST * reach)
    offsets = np.arange(-farthest, farthest + 0.1, max(reach / 4, 0.5))
    near = np.exp(-(offsets**2) / (2 * reach**2))
    where = (points[:, None] + offsets[None, :, None] * normals[:, None]).astype(np.float32)  # (N, O, 2)
    found = cv2.remap(gradient, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    across = found[..., 0] * normals[:, :1] + found[..., 1] * normals[:, 1:]
    return np.square(across) * near, offsets, float(near.sum())


@dataclass(frozen=True)
class Pull:
    """Where edges pull an outline.

    :param rim: points of the surface that make the outline, camera frame, metres, ``(N, 3)``
    :param along: by how many pixels the outline moves outward where its point of the surface moves, for each metre
        along each axis of the camera, ``(N, 3)``
    :param offsets: by how many pixels it should, ``(N,)``
    :param weights: inverse variances of these, ``(N,)``
    """

    rim: Array
    along: Array
    offsets: Array
    weights: Array

    def equations(self, jacobian: Array) -> tuple[Array, Array]:
        """Return the normal equations of a step, ``(P, P)`` and ``(P,)``.

        :param jacobian: by how many pixels the outline moves outward for each parameter, ``(N, P)``
        """
        weighted = jacobian * self.weights[:, None]
        return weighted.T @ jacobian, weighted.T @ self.offsets


def pull(shape: Silhouette, hiding: Sequence[Silhouette], intrinsics: Intrinsics, gradient: NDArray[np.float32],
         reach: float) -> Pull | None:
    """Return where edges pull an outline; None where next to nothing of it is shown.

    :param hiding: what is nearer
    :param intrinsics: of a pinhole camera
    :param gradient: of its picture, see :func:`edges`
    """
    line = shown_outline(shape, hiding, intrinsics.width, intrinsics.height)
    if line is None:
        return None
    points, normals = line
    strength, offsets, whole = edges_along(points, normals, gradient, reach)
    mass = strength.sum(axis=1)
    weights = np.minimum(mass / (CLEAR * whole), 1.0) * POINTS / len(points) / reach**2
    rim = shape.surface[shape.nearest(points)]
    return Pull(rim, outward(rim, normals, intrinsics), strength @ offsets / np.maximum(mass, 1e-9), weights)


def outward(rim: Array, normals: Array, intrinsics: Intrinsics) -> Array:
    """Return by how many pixels an outline moves outward where a point of the surface moves along the camera's axes.

    :param rim: points that make the outline, camera frame, metres, ``(N, 3)``
    :param normals: of the outline there, ``(N, 2)``
    :returns: pixels a metre, ``(N, 3)``
    """
    x, y, depth = rim.T
    return np.stack([normals[:, 0] * intrinsics.fx / depth, normals[:, 1] * intrinsics.fy / depth,
                     -(normals[:, 0] * intrinsics.fx * x + normals[:, 1] * intrinsics.fy * y) / depth**2], axis=1)


def edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the gradient of the colour that changes most, less than 1 long, ``(H, W, 2)``."""
    smooth = cv2.GaussianBlur(image, (0, 0), SMOOTH).astype(np.float32)
    both = np.stack([cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1))], axis=-1)
    # (H, W, 3, 2)
    strength = np.square(both).sum(axis=-1)
    most = np.take_along_axis(both, strength.argmax(axis=-1)[..., None, None], axis=2)[:, :, 0]
    return np.asarray(most / (np.linalg.norm(most, axis=-1, keepdims=True) + FAINT), dtype=np.float32)


def log_size(seen: Iterable[tuple[Frame, list[tuple[ObjectModel, Pose]]]]) -> float | None:
    """Return by how much all objects are larger in their pictures than at these poses: the logarithm of one factor.

    Outlines are made larger and smaller about the objects' middles until they lie best on edges. Clutter and patterns
    have edges everywhere, but only those of outlines agree over many objects and pictures.

    :param seen: pictures, and which objects are where in them
    :returns: -0.1 to 0.1; None where no outline lies in a picture, or the best one is as large or small as is tried
    """
    found = np.zeros(len(SIZES))
    for frame, objects in seen:
        if not objects:
            continue
        gradient = edges(frame.image)
        for model, pose in objects:
            shape = silhouette(model, pose, frame.intrinsics, FINE)
            line = None if shape is None else outline(shape)
            if line is None:
                continue
            points, normals = line
            middle = project(model.box_centre(pose)[None], frame.intrinsics)
            where = (middle + np.exp(SIZES)[:, None, None] * (points - middle)).astype(np.float32)  # (S, N, 2)
            inside = ((where >= 0) & (where <= np.array(gradient.shape[1::-1]) - 1)).all(axis=(0, 2))  # at every size
            if inside.sum() < FEWEST_POINTS:
                continue
            there = cv2.remap(gradient, where[:, inside, 0], where[:, inside, 1], cv2.INTER_LINEAR)  # (S, n, 2)
            found += np.abs((there * normals[inside]).sum(axis=-1)).mean(axis=1)
    best = int(found.argmax())
    if not 0 < best < len(SIZES) - 1:
        return None
    before, at, after = found[best - 1:best + 2]
    return float(SIZES[best] + (SIZES[1] - SIZES[0]) * (before - after) / (2 * (before - 2 * at + after)))
