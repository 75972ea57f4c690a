# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Camera effects as an augmentation: what a sensor does to a picture and a renderer does not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def camera_effects(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture as one of many cameras could have taken it.

    Exposure, gamma, white balance, saturation, blur, noise and JPEG, each drawn anew; order as in a camera.

    :param image: uint8 RGB ``(H, W, 3)``
    """
    height, width = image.shape[:2]
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.15:
        length = int(rng.integers(2, 6))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    gains = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.12, 3))
    gamma, contrast, offset = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.06)
    levels = np.linspace(0, 1, 256)[:, None]
    table = ((levels**gamma * gains - 0.5) * contrast + 0.5 + offset).clip(0, 1)  # (256, 3)
    image = cv2.LUT(image, np.rint(table * 255).astype(np.uint8)[None])
    if rng.random() < 0.5:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        share = float(rng.uniform(0.4, 1.5))
        image = cv2.addWeighted(image, share, np.repeat(grey, 3, axis=2), 1 - share, 0)
    if rng.random() < 0.5:
        # one small table of noise, tiled with a random offset: drawing fresh normals per pixel costs more than a step
        noise = rng.normal(0, float(rng.uniform(2, 12)), (height // 2 + 1, width // 2 + 1, 3)).astype(np.int16)
        noise = np.tile(noise, (2, 2, 1))[:height, :width]
        image = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = int(rng.integers(40, 95))
        ok, coded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok:
            image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return image
