# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Traffic signs: synthetic ones from templates over photographs, and real crops of GTSRB.

A synthetic sign is a template (RGBA, named by its GTSRB class) seen from somewhere (turn, tilt in perspective, scale,
place) over a piece of a photograph, in some light (contrast, brightness, a colour cast), through some lens and sensor
(blur, low resolution, noise). The ranges were set by eye beside unlabelled crops of the training split, and not tuned.
All classes are equally frequent; the real ones are not.

A folder has ``signs/NN.png`` (38 of the 43 classes have a template) and ``real.npz``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.digits import read_split
from sim2real_da.data.pictures import Pictures

SIZE = 40
CLASSES = 43
REAL_NAMES = tuple(f'{n:02d}' for n in range(CLASSES))


def templates(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the RGBA templates of ``signs/`` by class name, sorted.

    :raises FileNotFoundError: without any
    :raises ValueError: for a picture without an alpha channel
    """
    found: dict[str, NDArray[np.uint8]] = {}
    for path in sorted((folder / 'signs').glob('*.png')):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
            raise ValueError(f'{path}: expected a PNG picture with an alpha channel')
        found[path.stem] = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA), dtype=np.uint8)
    if not found:
        raise FileNotFoundError(f'{folder / "signs"}: no templates; expected NN.png, RGBA, named by class')
    return found


def real_signs(folder: Path, split: str) -> Pictures:
    """Return the real crops of all 43 classes.

    :param split: 'train' (to adapt to) or 'test'
    """
    return read_split(folder / 'real.npz', split, REAL_NAMES)


def synthetic_signs(signs: Mapping[str, NDArray[np.uint8]], photos: Sequence[NDArray[np.uint8]], count: int,
                    seed: int = 0) -> Pictures:
    """Return ``count`` synthetic crops of 40 x 40 pixels, classes in turn.

    :param signs: RGBA templates by class name
    :param photos: backgrounds, RGB
    """
    rng = np.random.default_rng([11, seed])
    names = tuple(signs)
    labels = np.arange(count) % len(names)
    images = np.stack([draw(signs[names[label]], photos, rng) for label in labels])
    return Pictures(images, labels, names)


def draw(sign: NDArray[np.uint8], photos: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one crop ``(40, 40, 3)`` with the sign in it."""
    work = 2 * SIZE  # drawn twice as large, then seen through the lens
    background = _piece(photos[int(rng.integers(len(photos)))], work, rng)
    warped = cv2.warpPerspective(sign, _view(sign.shape[0], work, rng), (work, work), flags=cv2.INTER_AREA)
    alpha = warped[..., 3:].astype(np.float32) / 255
    # a sign reflects more or less than what is behind it
    picture = alpha * (warped[..., :3] * rng.uniform(0.5, 1.1)) + (1 - alpha) * (background * rng.uniform(0.4, 1.2))
    return _seen(np.asarray(picture, np.float64), rng)


def _piece(photo: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    side = int(rng.integers(size // 2, min(photo.shape[:2]) // 2))
    top, left = rng.integers(photo.shape[0] - side + 1), rng.integers(photo.shape[1] - side + 1)
    piece = photo[top:top + side, left:left + side]
    return np.asarray(cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _view(side: int, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the map of template pixels to picture pixels: turn, tilt, scale, place."""
    half = 0.5 * size * rng.uniform(0.65, 0.95)  # crops of detectors leave a rim
    angle = np.radians(rng.normal(0, 6))
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    corners = corners * (1 + rng.uniform(-0.12, 0.12, (4, 2)))
    corners[:, 0] *= rng.uniform(0.8, 1.0)  # seen from the side
    turned = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = 0.5 * size + rng.uniform(-0.06, 0.06, 2) * size
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(square, (turned * half + middle).astype(np.float32)))


def _seen(picture: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return what a camera makes of it: blur, resolution, light, noise."""
    if rng.random() < 0.6:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 3.0))), np.float64)
    seen = int(rng.integers(SIZE // 2, SIZE + 1))  # pixels it was taken with
    small = cv2.resize(picture, (seen, seen), interpolation=cv2.INTER_AREA)
    picture = np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.float64)
    brightness = np.exp(rng.uniform(np.log(0.12), np.log(1.6)))
    cast = np.exp(rng.normal(0, 0.08, 3))
    contrast = rng.uniform(0.6, 1.2)
    mean = picture.mean()
    picture = ((picture - mean) * contrast + mean) * brightness * cast + rng.uniform(-10, 25)
    picture = picture + rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.asarray(np.rint(picture).clip(0, 255), dtype=np.uint8)
