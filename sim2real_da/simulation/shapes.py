# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Small solids to model things from: convex hulls, boxes, turned and bent ones, as :class:`Part` s in metres."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from sim2real_da.simulation.objects import Part

Colour = tuple[float, float, float]
Array = NDArray[np.float64]


def hull(points: ArrayLike, colour: Colour, **look: Any) -> Part:
    """Return the convex hull of points ``(N, 3)``; ``look`` are further fields of :class:`Part`."""
    cloud = np.asarray(points, dtype=np.float64)
    found = ConvexHull(cloud)
    faces = found.simplices.copy()
    corners = cloud[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inwards = np.einsum('ij,ij->i', normals, found.equations[:, :3]) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    used, renumbered = np.unique(faces, return_inverse=True)
    return Part(cloud[used], renumbered.reshape(-1, 3).astype(np.int32), np.asarray(colour, dtype=float), **look)


def box(size: ArrayLike, centre: ArrayLike, colour: Colour, bevel: float = 0.15, **look: Any) -> Part:
    """Return a box with bevelled edges.

    :param size: extents ``(3,)``
    :param bevel: share of the smallest extent that the edges are cut back by
    """
    half = np.asarray(size, dtype=np.float64) / 2
    cut = bevel * half.min()
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    corners = [signs * (half - cut * (1 - np.eye(3)[axis])) for axis in range(3)]
    return hull(np.concatenate(corners) + np.asarray(centre), colour, **look)


def plate(outline: ArrayLike, thickness: float, colour: Colour, **look: Any) -> Part:
    """Return a convex polygon ``(N, 2)`` in the xy plane, thickened around z = 0."""
    flat = np.asarray(outline, dtype=np.float64)
    half = np.full((len(flat), 1), thickness / 2)
    return hull(np.concatenate([np.hstack([flat, half]), np.hstack([flat, -half])]), colour, **look)


def turned(profile: ArrayLike, colour: Colour, segments: int = 32, **look: Any) -> Part:
    """Return a profile turned about the z axis.

    :param profile: ``(N, 2)`` radius and height; the surface is to the right of the path seen along it
        (outside, walking up)
    """
    path = np.asarray(profile, dtype=np.float64)
    angles = 2 * np.pi * np.arange(segments) / segments
    rings = np.stack([
        np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(segments, height)], axis=1)
        for radius, height in path
    ])
    faces = []
    for ring in range(len(path) - 1):
        for step in range(segments):
            a, b = ring * segments + step, ring * segments + (step + 1) % segments
            c, d = a + segments, b + segments
            if path[ring, 0] > 0:
                faces.append([a, b, d if path[ring + 1, 0] > 0 else c])
            if path[ring + 1, 0] > 0:
                faces.append([a, d, c])
    return Part(rings.reshape(-1, 3), np.array(faces, dtype=np.int32), np.asarray(colour, dtype=float), **look)


def bent_rod(path: ArrayLike, radius: float, colour: Colour, **look: Any) -> list[Part]:
    """Return a round rod along a path ``(N, 3)``, one convex piece for each stretch."""
    points = np.asarray(path, dtype=np.float64)
    ball = np.array([[np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)]
                     for e in np.radians([-90, -45, 0, 45, 90]) for a in 2 * np.pi * np.arange(10) / 10])
    ball = np.unique(np.round(radius * ball, 7), axis=0)  # the poles were there ten times
    return [
        hull(np.concatenate([ball + start, ball + end]), colour, **look)
        for start, end in zip(points[:-1], points[1:], strict=True)
    ]


def moved(part: Part, offset: ArrayLike = (0, 0, 0), turn: Rotation | None = None) -> Part:
    """Return a part turned about the origin, then shifted."""
    vertices = part.vertices if turn is None else turn.apply(part.vertices)
    return replace(part, vertices=vertices + np.asarray(offset, dtype=np.float64))


def painted(part: Part, colours: NDArray[np.float64]) -> Part:
    """Return a part with one colour for each face, ``(F, 3)``."""
    return replace(part, colours=np.asarray(colours, dtype=np.float64))


def centres(part: Part) -> Array:
    """Return the middle of each face, ``(F, 3)``."""
    return np.asarray(part.vertices[part.faces].mean(axis=1))
