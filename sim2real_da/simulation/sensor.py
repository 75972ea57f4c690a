# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a real camera does to light: blur, vignetting, colour cast, noise, tone curve, JPEG.

The order is that of the light's way: lens, sensor, processing, compression. Blur and noise act on linear light.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

DISPLAY_GAMMA = 2.2  # MuJoCo draws for a display
REFERENCE_WIDTH = 640  # lengths are given for pictures of this width

Span = tuple[float, float]


@dataclass(frozen=True)
class Sensor:
    """Constants of a camera; a span is drawn from for each frame. Meaning and units: config/surrogate.yaml."""

    exposure: Span
    gain: float
    white_balance: tuple[float, float, float]
    white_balance_jitter: float
    glare: float
    vignetting: float
    chromatic: float
    defocus: Span
    motion: Span
    shot_noise: float
    read_noise: float
    grain: float
    gamma: Span
    contrast: float
    jpeg_quality: Span

    def capture(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the picture this camera takes of an ideal one, both RGB ``(H, W, 3)``."""
        height, width = image.shape[:2]
        scale = width / REFERENCE_WIDTH
        light = np.asarray((image.astype(np.float32) / 255) ** DISPLAY_GAMMA, dtype=np.float32)
        light = self._lens(light, scale, rng)
        light = np.asarray((1 - self.glare) * light + self.glare * (light.mean() + 0.25), dtype=np.float32)
        balance = np.asarray(self.white_balance) * (1 + rng.normal(0, self.white_balance_jitter, 3))
        gain = min(self.gain, rng.uniform(*self.exposure) / max(float(light.mean()), 1e-4))
        light *= (gain * balance).astype(np.float32)
        light = self._noise(light, scale, rng)
        tone = np.clip(light, 0, 1) ** (1 / rng.uniform(*self.gamma))
        tone += self.contrast * (tone * tone * (3 - 2 * tone) - tone)
        picture = cv2.cvtColor(np.round(255 * tone).astype(np.uint8), cv2.COLOR_RGB2BGR)
        quality = round(float(rng.uniform(*self.jpeg_quality)))
        _, packed = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.cvtColor(cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def _lens(self, light: NDArray[np.float32], scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
        height, width = light.shape[:2]
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        for channel, zoom in ((0, 1 + self.chromatic), (2, 1 - self.chromatic)):
            stretch = np.array([[zoom, 0, middle[0] * (1 - zoom)], [0, zoom, middle[1] * (1 - zoom)]])
            light[..., channel] = cv2.warpAffine(
                np.ascontiguousarray(light[..., channel]), stretch, (width, height), borderMode=cv2.BORDER_REPLICATE)
        sigma = scale * rng.uniform(*self.defocus)
        light = cv2.GaussianBlur(light, (0, 0), max(sigma, 0.05))
        length, angle = scale * rng.uniform(*self.motion), rng.uniform(0, np.pi)
        if length > 1:
            size = 2 * int(np.ceil(length / 2)) + 1
            kernel = np.zeros((size, size), dtype=np.float32)
            reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
            centre = np.array([size // 2, size // 2])
            sixteenths = [tuple(int(v) for v in np.round(16 * (centre + sign * reach))) for sign in (-1, 1)]
            cv2.line(kernel, sixteenths[0], sixteenths[1], 1.0, 1, cv2.LINE_AA, 4)
            light = cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        radius = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / float(middle @ middle)
        return np.asarray(light * (1 - self.vignetting * radius)[..., None], dtype=np.float32)

    def _noise(self, light: NDArray[np.float32], scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        sigma = scale * self.grain / 2
        if sigma > 0.3:
            noise = cv2.GaussianBlur(noise, (0, 0), sigma)
            noise /= noise.std()
        spread = np.sqrt(self.shot_noise * np.clip(light, 0, None) + self.read_noise ** 2)
        return np.asarray(light + spread * noise, dtype=np.float32)
