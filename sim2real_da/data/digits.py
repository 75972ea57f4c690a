# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Digits: MNIST, USPS, and MNIST-M made from MNIST and photographs.

MNIST-M (Ganin et al., JMLR 2016): every digit over a random crop of a random photograph, |crop - digit| in every
channel. Of the photographs 150 are behind training digits and the others behind test digits, so that a background that
was trained on never stands in a test.

A folder has ``mnist.npz``, ``usps.npz`` (arrays ``train_images``, ``train_labels``, ``test_images``, ``test_labels``)
and photographs in ``bsds/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.bop import read_image
from sim2real_da.data.pictures import Pictures, from_arrays

SIZE = 28
NAMES = tuple('0123456789')
TRAINING_PHOTOGRAPHS = 150
SPLITS = ('train', 'test')


def load_digits(folder: Path, name: str, split: str) -> Pictures:
    """Return digits of 28 x 28 pixels.

    :param name: 'mnist', 'usps' (16 x 16, enlarged) or 'mnistm'
    :param split: 'train' or 'test'
    :raises FileNotFoundError: when the file is not there
    :raises ValueError: when it has not the arrays it should have
    """
    if name == 'mnistm':
        digits = read_split(folder / 'mnist.npz', split, NAMES)
        seed = SPLITS.index(split)  # other crops for the test
        images = blend(digits.images[..., 0], photographs(folder / 'bsds', split), np.random.default_rng([7, seed]))
        return Pictures(images, digits.labels, NAMES)
    return read_split(folder / f'{name}.npz', split, NAMES).resized(SIZE)


def read_split(path: Path, split: str, names: Sequence[str]) -> Pictures:
    """Return the arrays ``<split>_images`` and ``<split>_labels`` of a file.

    :raises FileNotFoundError: when it is not there
    :raises ValueError: when they are missing
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; expected the arrays {split}_images and {split}_labels in it')
    with np.load(path, allow_pickle=False) as file:
        wanted = [f'{split}_images', f'{split}_labels']
        if missing := [name for name in wanted if name not in file.files]:
            raise ValueError(f'{path}: no array {missing[0]}, it has {", ".join(file.files)}')
        return from_arrays(file[wanted[0]], file[wanted[1]], names)


def photographs(folder: Path, split: str, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Return the photographs of one split, RGB; which ones depends on the sorted names and the seed alone.

    :raises FileNotFoundError: when there are too few to split
    """
    files = sorted(folder.glob('*.jpg'))
    if len(files) <= TRAINING_PHOTOGRAPHS:
        raise FileNotFoundError(f'{folder}: {len(files)} photographs (*.jpg), expected more than '
                                f'{TRAINING_PHOTOGRAPHS}: so many for training, the others for tests')
    order = np.random.default_rng(seed).permutation(len(files))
    chosen = order[:TRAINING_PHOTOGRAPHS] if split == 'train' else order[TRAINING_PHOTOGRAPHS:]
    return [read_image(files[i]) for i in sorted(chosen)]


def blend(digits: NDArray[np.uint8], photos: Sequence[NDArray[np.uint8]],
          rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``(N, H, W, 3)``, |crop - digit| of ``(N, H, W)`` digits, each with a crop of its own."""
    made = np.empty((*digits.shape, 3), np.uint8)
    height, width = digits.shape[1:]
    for image, digit in zip(made, digits):
        photo = photos[int(rng.integers(len(photos)))]
        top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
        crop = photo[top:top + height, left:left + width].astype(np.int16)
        image[:] = np.abs(crop - digit[..., None])
    return made
