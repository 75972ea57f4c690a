# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Colours of an object and of what is around it as an augmentation: a scanned mesh wears those of its scanning.

Light from the turntable on the base, a lid where the object is open, highlights baked in: a network takes them for
landmarks that the real object lacks. So colours change from place to place on the object, and so does its contrast; the
surroundings get the contrast of a printed page, or are those of another picture, half of the time in the object's own
colour, where its outline is hard to see. Shape and outline stay (domain randomisation, Tobin et al., IROS 2017, of a
picture that is already rendered).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

OFTEN = 0.7  # how often the object is changed, and, by itself, what is around it
PATCHES = 2, 6  # fewest and most patches across the picture whose colours change alike
LIGHTER, TINTED = 0.35, 0.12  # standard deviation of a patch's logarithmic brightness, and of each channel's on top
CONTRAST_ON, CONTRAST_AROUND = (-0.9, 0.4), (-0.4, 1.0)  # logarithm, from..to, around the mean colour
PIECE = 0.15, 0.8  # side of what is cut from another picture, of that picture's shorter side


def recoloured(crop: NDArray[np.uint8], mask: NDArray[np.uint8], other: NDArray[np.uint8],
               rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the crop with other colours on the object, and around it other contrast or another picture.

    :param crop: uint8 RGB ``(H, W, 3)``
    :param mask: how much of each pixel shows the object, 0..255, ``(H, W)``
    :param other: picture to take surroundings of, of any size
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
        elsewhere = mask.any() and rng.random() < 0.5  # an empty crop stays one: other pictures show objects
        around = _piece(other, crop.shape[:2], rng) if elsewhere else picture
        counts = np.ones_like(share) if elsewhere else 1 - share
        around = _contrast(around, counts, float(rng.uniform(*CONTRAST_AROUND)))
        if elsewhere and rng.random() < 0.5:
            around = around + _mean(on, share) - around.mean(axis=(0, 1))
    return np.rint((on * share + around * (1 - share)).clip(0, 255)).astype(np.uint8)


def _contrast(picture: NDArray[np.float32], share: NDArray[np.float32], by: float) -> NDArray[np.float32]:
    """Return the picture with contrast exp(``by``) around the mean colour of the weighted pixels."""
    mean = _mean(picture, share)
    return np.asarray((picture - mean) * np.float32(np.exp(by)) + mean)


def _mean(picture: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((picture * share).sum(axis=(0, 1)) / max(float(share.sum()), 1.0))


def _piece(other: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a square from anywhere in a picture, ``(height, width, 3)``."""
    height, width = other.shape[:2]
    side = max(round(float(rng.uniform(*PIECE)) * min(height, width)), 1)
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    piece = other[y:y + side, x:x + side]
    return np.asarray(cv2.resize(piece, size[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _patches(size: tuple[int, int], deviation: float, channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a smooth random map ``(height, width, channels)``."""
    count = int(rng.integers(*PATCHES, endpoint=True))
    coarse = rng.normal(0, deviation, (count, count, channels)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)).reshape(*size, channels)
