# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Colours of an object and of what is around it as an augmentation: a scanned mesh wears those of its scanning.

Light from the turntable on the base, a lid where the object is open, highlights baked in: a network takes them for
landmarks that the real object lacks. So colours change from place to place on the object, their contrast with them,
and the surroundings get the contrast of a printed page. Shape and outline stay (domain randomisation, Tobin et al.,
IROS 2017, of a picture that is already rendered).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

OFTEN = 0.7  # how often the object is changed, and, by itself, what is around it
PATCHES = 2, 7  # fewest and, exclusive, most patches across the picture whose colours change alike
LIGHTER, TINTED = 0.35, 0.12  # standard deviation of a patch's logarithmic brightness, and of each channel's on top
CONTRAST_ON, CONTRAST_AROUND = (-0.9, 0.4), (-0.4, 1.0)  # logarithm, from..to, around the mean colour


def recoloured(crop: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the crop with other colours on the object, and other contrast around it.

    :param crop: uint8 RGB ``(H, W, 3)``
    :param mask: how much of each pixel shows the object, 0..255, ``(H, W)``
    """
    object_too, around_too = rng.random(2) < OFTEN
    if not (object_too or around_too):
        return crop
    picture, share = crop.astype(np.float32), mask.astype(np.float32)[..., None] / np.float32(255)
    on = around = picture
    if object_too:
        on = _contrast(picture, share, float(rng.uniform(*CONTRAST_ON)))
        on = on * np.exp(_patches(crop.shape[:2], LIGHTER, 1, rng) + _patches(crop.shape[:2], TINTED, 3, rng))
    if around_too:
        around = _contrast(picture, 1 - share, float(rng.uniform(*CONTRAST_AROUND)))
    return np.rint((on * share + around * (1 - share)).clip(0, 255)).astype(np.uint8)


def _contrast(picture: NDArray[np.float32], share: NDArray[np.float32], by: float) -> NDArray[np.float32]:
    """Return the picture with contrast exp(``by``) around the mean colour of the weighted pixels."""
    mean = (picture * share).sum(axis=(0, 1)) / max(float(share.sum()), 1.0)
    return np.asarray((picture - mean) * np.float32(np.exp(by)) + mean)


def _patches(size: tuple[int, int], deviation: float, channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a smooth random map ``(height, width, channels)``."""
    count = int(rng.integers(*PATCHES))
    coarse = rng.normal(0, deviation, (count, count, channels)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)).reshape(*size, channels)
