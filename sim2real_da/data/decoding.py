# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Coded pictures (JPEG, PNG and what else OpenCV knows) as arrays."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def decoded(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return a coded picture as uint8 RGB ``(H, W, 3)``, or None when it cannot be decoded."""
    coded = np.frombuffer(data, np.uint8)
    if not coded.size:
        return None
    try:
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    except cv2.error:  # a header with a size beyond reason is an exception, other damage is None
        return None
    return None if picture is None else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
