# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures through a real lens as a pinhole camera of the same K would have taken them.

Simulation draws pinhole pictures and the networks know no lens, so a distorted picture is straightened before they see
it, and boxes go back to the pixels of the original. What lies outside of the pinhole picture, the margins of a wide
lens, is not seen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.geometry import box_around, inside, project
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame

EDGE = 5  # points of a box's side that are followed through the lens


def pinhole(intrinsics: Intrinsics) -> Intrinsics:
    """Return the camera without its lens."""
    return replace(intrinsics, distortion=(), fisheye=False)


def rectified(frame: Frame) -> Frame:
    """Return the frame as a pinhole camera sees it; one of a pinhole camera as it is."""
    if frame.intrinsics.pinhole:
        return frame
    return replace(frame, image=straightened(frame.image, frame.intrinsics), intrinsics=pinhole(frame.intrinsics))


def rectified_labels(labelled: LabelledFrame) -> LabelledFrame:
    """Return a labelled frame as a pinhole camera sees it; boxes around the masks, else around what they surrounded.

    An object that leaves the picture is left out.
    """
    camera = labelled.frame.intrinsics
    if camera.pinhole:
        return labelled
    labels = []
    for label in labelled.labels:
        area = label.mask if label.mask is not None else inside(label.box, camera)
        mask = straightened(area.astype(np.uint8), camera, cv2.INTER_NEAREST).astype(bool)
        if mask.any():
            labels.append(replace(label, box=box_around(mask), mask=mask if label.mask is not None else None))
    return LabelledFrame(rectified(labelled.frame), tuple(labels))


def straightened(image: NDArray[Any], intrinsics: Intrinsics, interpolation: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """Return a picture ``(H, W, ...)`` without the lens of its camera; black where the camera did not see."""
    return np.asarray(cv2.remap(image, *_maps(intrinsics), interpolation))


def original_box(box: NDArray[np.float64], intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return the box ``(4,)`` xyxy in the camera's own picture around what a box shows in the straightened one."""
    if intrinsics.pinhole:
        return box
    xs, ys = (np.linspace(box[i], box[i + 2], EDGE) for i in range(2))
    around = np.concatenate([np.stack(np.meshgrid(xs, ys[[0, -1]]), -1).reshape(-1, 2),
                             np.stack(np.meshgrid(xs[[0, -1]], ys), -1).reshape(-1, 2)])
    seen = through_lens(around, intrinsics)
    low, high = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
    limits = [intrinsics.width, intrinsics.height]
    return np.concatenate([low.clip(0, limits), high.clip(0, limits)])


def through_lens(pixels: NDArray[np.float64], intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return where the camera shows pixels ``(N, 2)`` of the straightened picture; NaN where it shows them nowhere."""
    rays = (pixels - (intrinsics.cx, intrinsics.cy)) / (intrinsics.fx, intrinsics.fy)
    return project(np.column_stack([rays, np.ones(len(rays))]), intrinsics)


@lru_cache(maxsize=4)
def _maps(intrinsics: Intrinsics) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Return for each straightened pixel where the picture shows it, in OpenCV's fast fixed-point form."""
    size = (intrinsics.height, intrinsics.width)
    ys, xs = np.indices(size, dtype=np.float64)
    seen = through_lens(np.stack([xs, ys], -1).reshape(-1, 2), intrinsics).reshape(*size, 2)
    seen = np.nan_to_num(seen, nan=-10.0).astype(np.float32)  # far enough outside to stay black
    whole, fraction = cv2.convertMaps(seen[..., 0], seen[..., 1], cv2.CV_16SC2)
    return np.asarray(whole), np.asarray(fraction)

