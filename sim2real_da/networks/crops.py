# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Square crops around boxes, and the object coordinates that are seen in them.

A crop is an affine picture of the image, so a pixel of the crop is a pixel of the image and no pose has to be
corrected: turning the crop in the plane is an augmentation that needs no new render.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

PADDING = 1.4  # side of the crop over the longer side of the box
CELL = 2  # crop pixels per cell of the coordinate map


def crop_transform(box: ArrayLike, size: int, angle: float = 0.0, padding: float = PADDING) -> NDArray[np.float64]:
    """Return the affine map image pixel -> crop pixel, ``(2, 3)``.

    :param box: xyxy in image pixels
    :param size: side of the crop in pixels
    :param angle: turn of the picture about the box's centre in radians
    """
    x0, y0, x1, y1 = np.asarray(box, dtype=np.float64)
    scale = size / max(x1 - x0, y1 - y0, 1.0) / padding
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return np.column_stack([linear, (size - 1) / 2 - linear @ centre])


def cut(image: NDArray[np.uint8], transform: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Return the crop ``(size, size, ...)`` of an image; outside of the image is black."""
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    # Shrinking by bilinear sampling alone aliases: sample at a whole multiple of the size, then average.
    factor = int(np.clip(round(1 / scale), 1, 4)) if scale < 1 else 1
    fine = transform * factor
    fine[:, 2] += (factor - 1) / 2
    crop = cv2.warpAffine(image, fine, (size * factor, size * factor), flags=cv2.INTER_LINEAR)
    if factor > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop)


def cell_centres(size: int) -> NDArray[np.float64]:
    """Return the crop pixel x, y of every cell of the coordinate map, ``(size / 2, size / 2, 2)``."""
    line = np.arange(size // CELL) * CELL + (CELL - 1) / 2
    return np.stack(np.meshgrid(line, line, indexing='xy'), axis=-1)


def coordinate_maps(
    points: Tensor, poses: Tensor, cameras: Tensor, transforms: Tensor, size: int, diameters: Tensor,
) -> tuple[Tensor, Tensor]:
    """Draw each object's own coordinates as the crop sees them, by splatting its surface points with a z-buffer.

    No renderer is needed, so the same targets come from a simulator's topics, a rendered folder or labelled pictures.

    :param points: surface points ``(B, N, 3)`` in the CAD frame, metres
    :param poses: object -> camera ``(B, 4, 4)``
    :param cameras: K ``(B, 3, 3)``
    :param transforms: image -> crop ``(B, 2, 3)``
    :param size: side of the crop in pixels
    :param diameters: ``(B,)`` metres
    :returns: coordinates ``(B, 3, s, s)`` in metres with ``s = size / 2`` and where they are known ``(B, s, s)`` bool
    """
    batch, count = points.shape[:2]
    side = size // CELL
    camera_points = points @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]  # (B, N, 3)
    depth = camera_points[..., 2]
    pixels = (camera_points @ cameras.transpose(1, 2))[..., :2] / depth.clamp(min=1e-6)[..., None]
    crop = pixels @ transforms[:, :, :2].transpose(1, 2) + transforms[:, None, :, 2]  # (B, N, 2)
    column, row = ((crop + 0.5) / CELL).floor().long().unbind(-1)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (depth > 1e-3)
    # one spare cell at the end takes what falls outside
    cell = torch.arange(batch, device=points.device)[:, None] * side * side + row * side + column
    cell = torch.where(inside, cell, batch * side * side).flatten()
    nearest = torch.full((batch * side * side + 1,), torch.inf, dtype=depth.dtype, device=points.device)
    nearest.scatter_reduce_(0, cell, depth.flatten(), 'amin')
    front = depth.flatten() == nearest[cell]
    coordinates = torch.zeros(batch * side * side + 1, 3, dtype=points.dtype, device=points.device)
    coordinates[cell[front]] = points.reshape(batch * count, 3)[front]
    z = nearest[:-1].view(batch, side, side)
    # A cell between two front points may show the back of the object: it is much farther than its neighbours.
    around = -F.max_pool2d(-z[:, None].clamp(max=1e6), 3, 1, 1)[:, 0]
    known = torch.isfinite(z) & (z < around + 0.15 * diameters[:, None, None])
    coordinates = coordinates[:-1].view(batch, side, side, 3).permute(0, 3, 1, 2)
    return coordinates * known[:, None], known
