# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The picture along the outline of an object at a pose, unrolled: what :mod:`sim2real_da.networks.outline` looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.outlines import Silhouette, outline

Array = NDArray[np.float64]

POINTS = 64  # of an outline, evenly along it
OFFSETS = np.arange(-12.0, 13.0)  # pixels outward
COLOURS = 3
CHANNELS = COLOURS + 5  # red, green, blue, whether hidden, whether of the object, the normal (2), the size
HIDDEN, COVERED, NORMAL = COLOURS, COLOURS + 1, COLOURS + 2  # first channels of what follows the colours
SIZE = 50.0  # pixels: of a silhouette whose last channel is zero


@dataclass(frozen=True)
class Strip:
    """The picture along an outline.

    :param channels: float32 ``(C, P, O)``: colours 0..1; 1 where something nearer hides it or the picture ends; 1 where
        the silhouette is; the outward normal's x and y; the logarithm of the silhouette's longer side
    :param normals: of the points, outward, ``(P, 2)``
    :param nearest: which points of the model make the outline, ``(P,)``
    """

    channels: NDArray[np.float32]
    normals: Array
    nearest: NDArray[np.intp]


def strip(shape: Silhouette, hiding: Sequence[Silhouette], image: NDArray[np.uint8]) -> Strip | None:
    """Unroll a picture along an outline; None of a speck.

    :param hiding: what is nearer
    :param image: uint8 RGB ``(H, W, 3)`` of a pinhole camera
    """
    line = outline(shape)
    if line is None:
        return None
    chosen = np.arange(POINTS) * len(line[0]) // POINTS
    points, normals = line[0][chosen], line[1][chosen]
    where = points[:, None] + OFFSETS[:, None] * normals[:, None]  # (P, O, 2)
    x, y = np.moveaxis(where.astype(np.float32), -1, 0)
    colours = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    flat = where.reshape(-1, 2)
    hidden = (flat < 0).any(axis=1) | (flat > np.array(image.shape[1::-1]) - 1).any(axis=1)
    for other in hiding:
        hidden |= other.covers(flat)
    channels = np.empty((CHANNELS, POINTS, len(OFFSETS)), np.float32)
    channels[:COLOURS] = np.moveaxis(colours, -1, 0) / np.float32(255)
    channels[HIDDEN] = hidden.reshape(POINTS, -1)
    channels[COVERED] = shape.covers(flat).reshape(POINTS, -1)
    channels[NORMAL:NORMAL + 2] = normals.T[:, :, None]
    channels[-1] = np.log(np.ptp(shape.pixels, axis=0).max() / SIZE)
    return Strip(channels, normals, shape.nearest(points))
