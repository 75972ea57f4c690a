# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of cameras as arrays: coded ones (JPEG, PNG and what else OpenCV knows), and the plain encodings of ROS."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# encoding: (channels, cv2 conversion to RGB or None)
PLAIN_ENCODINGS: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),  # what OpenCV's own drivers mean by it
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
}
DEPTH = ('16UC1', '32FC1')


def is_depth(coded: str) -> bool:
    """Whether the ``format`` of a CompressedImage is that of a depth image, which is no picture."""
    return coded.split(';')[0].strip() in DEPTH


def decoded(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return a coded picture as uint8 RGB ``(H, W, 3)``, or None when it cannot be decoded.

    Pixels stay where the camera's intrinsics have them, whatever a file says of its orientation.
    """
    coded = np.frombuffer(data, np.uint8)
    if not coded.size:
        return None
    try:
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # a header with a size beyond reason is an exception, other damage is None
        return None
    return None if picture is None else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def rgb(pixels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """Return pixels ``(H, W)`` or ``(H, W, C)`` of one of :data:`PLAIN_ENCODINGS` as uint8 RGB ``(H, W, 3)``."""
    conversion = PLAIN_ENCODINGS[encoding][1]
    return pixels if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
