# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for tables, floors, walls and distractors: procedural ones and photographs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

LOG = logging.getLogger(__name__)
Picture = NDArray[np.uint8]
SUFFIXES = ('.jpg', '.jpeg', '.png')
# Photographs inside the scikit-image package that anybody may use (docs/surrogate.md names their licences). Two sets
# that share nothing: the surrogate reality shows pictures no simulated scene has.
PACKAGED = (
    'astronaut.png', 'chelsea.png', 'hubble_deep_field.jpg', 'ihc.png', 'retina.jpg', 'rocket.jpg', 'camera.png',
)
PACKAGED_SURROGATE = ('brick.png', 'grass.png', 'gravel.png', 'coffee.png', 'coins.png', 'clock_motion.png')


def read_picture(path: Path) -> Picture:
    """Read a picture as RGB ``(H, W, 3)``.

    :raises ValueError: when the file is not a readable picture
    """
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if stored is None:
        raise ValueError(f'{path}: not readable as a picture; expected a complete JPEG or PNG')
    return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def packaged_photographs(names: Sequence[str] = PACKAGED) -> list[Path]:
    """Return photographs of the installed scikit-image, none where it is not installed."""
    found = importlib.util.find_spec('skimage')
    if found is None or found.origin is None:
        LOG.info('scikit-image is not installed: procedural textures only')
        return []
    folder = Path(found.origin).parent / 'data'
    return [folder / name for name in names if (folder / name).is_file()]


def photograph_paths(folder: Path | None) -> list[Path]:
    """Return the pictures of a folder by name, or the packaged ones without a folder.

    :raises FileNotFoundError: when the folder holds no picture
    """
    if folder is None:
        return packaged_photographs()
    paths = sorted(p for p in Path(folder).glob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{folder}: no {" ".join(SUFFIXES)} picture here; expected a folder of photographs')
    return paths


def square(picture: Picture, size: int, rng: np.random.Generator | None = None) -> Picture:
    """Return a square cut of a picture, ``(size, size, 3)``; the middle, or a random one."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if rng is not None:
        side = int(side * rng.uniform(0.6, 1.0))
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    cut = picture[top:top + side, left:left + side]
    return np.asarray(cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def photographs(folder: Path | None, size: int, count: int, rng: np.random.Generator) -> list[Picture]:
    """Return ``count`` square cuts of photographs, each photograph once before any comes again.

    :param folder: pictures of the user's own, drawn at random; None: those packaged with scikit-image
    """
    paths = photograph_paths(folder)
    if folder is not None:
        paths = [paths[i] for i in rng.permutation(len(paths))]
    if not paths:
        return procedural(size, count, rng)
    pictures = {path: read_picture(path) for path in paths[:count]}
    order = list(pictures)
    return [square(pictures[order[i % len(order)]], size, rng) for i in range(count)]


def noise(size: int, octaves: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise in 0..1, ``(size, size)``; each octave is a grid of so many cells stretched over it."""
    field = np.zeros((size, size), dtype=np.float32)
    for cells in octaves:
        grid = rng.random((cells, cells)).astype(np.float32)
        field += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / np.sqrt(cells)
    low, high = np.percentile(field, [1, 99])
    return np.asarray(np.clip((field - low) / max(float(high - low), 1e-6), 0, 1), dtype=np.float32)


def _mix(field: NDArray[np.float32], first: NDArray[np.float64], second: NDArray[np.float64]) -> Picture:
    return np.asarray(255 * (first + field[..., None] * (second - first)), dtype=np.uint8)


def procedural(size: int, count: int, rng: np.random.Generator) -> list[Picture]:
    """Draw pictures: clouds, wood, checks, stripes, speckles, blocks and plain walls, in random colours."""
    return [_draw(size, kind % 7, rng) for kind in range(count)]


def _draw(size: int, kind: int, rng: np.random.Generator) -> Picture:
    first, second = rng.random(3), rng.random(3)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if kind == 0:  # clouds
        return _mix(noise(size, (4, 9, 21, 60), rng), first, second)
    if kind == 1:  # wood: stretched noise bends parallel lines
        brown = np.array([0.62, 0.43, 0.25]) * rng.uniform(0.5, 1.4)
        grain = np.sin(2 * np.pi * (x * rng.uniform(6, 20) + 1.5 * noise(size, (2, 5), rng)))
        field = 0.5 + 0.35 * grain + 0.3 * (noise(size, (50, 110), rng) - 0.5)
        return _mix(np.clip(field, 0, 1).astype(np.float32), np.clip(brown, 0, 1), np.clip(brown * 0.7, 0, 1))
    if kind == 2:  # checks
        cells = int(rng.integers(2, 12))
        return _mix(((np.floor(x * cells) + np.floor(y * cells)) % 2).astype(np.float32), first, second)
    if kind == 3:  # stripes
        angle, lines = rng.uniform(0, np.pi), rng.uniform(2, 15)
        wave = np.sin(2 * np.pi * lines * (x * np.cos(angle) + y * np.sin(angle)))
        return _mix((wave > rng.uniform(-0.7, 0.7)).astype(np.float32), first, second)
    if kind == 4:  # speckles
        return _mix((noise(size, (40, 100), rng) > rng.uniform(0.3, 0.7)).astype(np.float32), first, second)
    if kind == 5:  # blocks: printed matter, markers
        picture = _mix(noise(size, (3, 7), rng), first, first * 0.8)
        for _ in range(int(rng.integers(10, 40))):
            corner = rng.integers(0, size, 2)
            end = corner + rng.integers(size // 40 + 2, size // 4, 2)
            shade = rng.integers(0, 256, 3) if rng.random() < 0.6 else rng.choice([20, 240]) * np.ones(3)
            cv2.rectangle(picture, corner.tolist(), end.tolist(), [int(v) for v in shade], -1)
        return picture
    # a plain surface with a little dirt
    return _mix(noise(size, (3, 30), rng), first, np.clip(first + rng.uniform(-0.08, 0.08, 3), 0, 1))
