# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Things in front of objects as an augmentation: on a rendered table most objects are in full view, on a real one few.

Like random erasing (Zhong et al., AAAI 2020), but what hides is a piece of another picture, it comes from one side of
the object, and the visible box shrinks with what is left to see: a detector's box would.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.samples import ObjectLabel

OFTEN = 0.5  # share of the objects that something is put in front of
SHARE = 0.15, 0.6  # how far it reaches into the visible box
LEAST = 0.3  # of an object's pixels that have to stay in view; otherwise nothing is hidden


def occluded(image: NDArray[np.uint8], label: ObjectLabel, other: NDArray[np.uint8],
             rng: np.random.Generator) -> tuple[NDArray[np.uint8], ObjectLabel]:
    """Return the picture with a piece of another one in front of an object, and the object's label as it is then.

    Half of the time nothing is hidden, and both come back as they were; a picture is never changed in place.

    :param image: uint8 RGB ``(H, W, 3)``
    :param other: picture to take a piece of, of any size
    """
    if rng.random() >= OFTEN:
        return image, label
    height, width = image.shape[:2]
    corners = _quadrilateral(label.box, rng)
    x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    if x1 <= x0 or y1 <= y0:
        return image, label
    cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(cover, [np.rint(corners - (x0, y0)).astype(np.int32)], 1)
    shown = _seen(label, cover.astype(bool), (x0, y0))
    if shown is None:
        return image, label
    changed = image.copy()
    changed[y0:y1, x0:x1][cover > 0] = _piece(other, cover.shape, rng)[cover > 0]
    return changed, shown


def _quadrilateral(box: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return four corners ``(4, 2)`` of what comes from one side of a box: along the side, and from it inwards."""
    share, slant = rng.uniform(*SHARE), rng.uniform(-0.15, 0.15)
    first, last = rng.uniform(-0.3, 0.2), rng.uniform(0.8, 1.3)
    outside = -rng.uniform(0, 0.4)
    along = np.array([first, last, last, first])
    inwards = np.array([share + slant, share - slant, outside, outside])
    if rng.random() < 0.5:
        inwards = 1 - inwards
    places = np.stack([along, inwards] if rng.random() < 0.5 else [inwards, along], axis=1)  # (4, 2) of the box
    return np.asarray(box[:2] + places * (box[2:] - box[:2]))


def _seen(label: ObjectLabel, cover: NDArray[np.bool_], corner: tuple[int, int]) -> ObjectLabel | None:
    """Return the label of what is left to see, None when that is too little.

    Without a mask the object counts as its box.
    """
    x, y = corner
    rows, columns = slice(y, y + cover.shape[0]), slice(x, x + cover.shape[1])
    if label.mask is not None:
        before = label.mask
    else:
        x0, y0, x1, y1 = np.rint(label.box).astype(int)
        before = np.zeros((max(y1, rows.stop), max(x1, columns.stop)), bool)
        before[max(y0, 0):y1, max(x0, 0):x1] = True
    left = before.copy()
    left[rows, columns] &= ~cover
    share = left.sum() / max(before.sum(), 1)
    if share < LEAST:
        return None
    u, v, width, height = cv2.boundingRect(left.astype(np.uint8))
    return replace(label, box=np.array([u, v, u + width, v + height], np.float64),
                   visible=None if label.visible is None else label.visible * float(share),
                   mask=None if label.mask is None else left)


def _piece(other: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``(height, width, 3)`` from anywhere in a picture, which is enlarged where it is too small."""
    height, width = size
    scale = max(height / other.shape[0], width / other.shape[1], 1.0)
    if scale > 1:
        other = np.asarray(cv2.resize(other, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.uint8)
    y, x = (int(rng.integers(max(a - b, 0) + 1)) for a, b in zip(other.shape[:2], size))
    piece = other[y:y + height, x:x + width]
    return np.asarray(cv2.copyMakeBorder(piece, 0, height - piece.shape[0], 0, width - piece.shape[1],
                                         cv2.BORDER_REPLICATE), np.uint8)
