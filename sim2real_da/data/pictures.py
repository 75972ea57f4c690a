# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Sets of small pictures for classifiers, with or without labels: from folders, from ``.npz`` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from sim2real_da.data.bop import read_image

ENDINGS = ('.png', '.jpg', '.jpeg')


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size.

    :param images: uint8 RGB ``(N, H, W, 3)``
    :param labels: class indices ``(N,)``; None without any
    :param names: of the classes, by index; empty where nobody named them
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that shapes and labels fit together.

        :raises ValueError: when they do not
        """
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f'pictures: {self.images.dtype} {self.images.shape}, expected uint8 (N, H, W, 3)')
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            raise ValueError(f'pictures: {self.labels.shape} labels of {len(self.images)} pictures')
        if len(self.labels) and (self.labels.min() < 0 or (self.names and self.labels.max() >= len(self.names))):
            raise ValueError(f'pictures: labels from {self.labels.min()} to {self.labels.max()}, expected indices of '
                             f'{len(self.names) or "the"} classes')

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Pictures:
        """Return some of the pictures."""
        return replace(self, images=self.images[index], labels=None if self.labels is None else self.labels[index])

    def resized(self, size: int) -> Pictures:
        """Return the same with ``size`` x ``size`` pixels, as the classifier itself resizes (bilinear, antialias)."""
        if self.images.shape[1:3] == (size, size):
            return self
        made = np.empty((len(self), size, size, 3), np.uint8)
        for first in range(0, len(self), 1000):  # floats of all at once would not fit
            rows = torch.from_numpy(self.images[first:first + 1000]).permute(0, 3, 1, 2).float()
            rows = F.interpolate(rows, (size, size), mode='bilinear', antialias=True)
            made[first:first + 1000] = rows.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return replace(self, images=made)


def from_arrays(images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None,
                names: Sequence[str] = ()) -> Pictures:
    """Return pictures of arrays; grey ones ``(N, H, W)`` or ``(N, H, W, 1)`` get three equal channels."""
    if images.ndim == 3 or images.shape[3:] == (1,):
        images = np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=3)
    return Pictures(images, None if labels is None else labels.astype(np.int64), tuple(names))


def load(path: Path | str, size: int | None = None, labelled: bool = True) -> Pictures:
    """Read a folder or an ``.npz`` file.

    :param size: side in pixels that every picture is resized to; None: as they are, which has to be one size
    :param labelled: false: pictures alone, whatever sub-folders and arrays say of classes
    :raises FileNotFoundError: when there is nothing
    :raises ValueError: when it cannot be used; the message names the file and what was expected
    """
    path = Path(path)
    if path.is_dir():
        return load_folder(path, size, labelled)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such folder or file; expected a folder of pictures or an .npz file')
    if path.suffix != '.npz':
        raise ValueError(f'{path}: expected a folder of pictures or an .npz file with the arrays images and labels')
    found = load_npz(path, labelled)
    return found if size is None else found.resized(size)


def load_folder(folder: Path, size: int | None = None, labelled: bool = True) -> Pictures:
    """Read PNG and JPEG pictures; the names of sub-folders are their classes, without sub-folders there are no labels.

    :param labelled: false: pictures alone, those of sub-folders too
    :raises ValueError: without pictures, with pictures beside the sub-folders, or with several sizes and no ``size``
    """
    files = _files(folder) if labelled else sorted(p for p in folder.rglob('*') if _is_picture(p))
    places = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.')) if labelled else []
    beside = [place.name for place in places if _files(place)]
    classes = [] if files else places
    if files and beside:
        raise ValueError(f'{folder}: has pictures ({files[0].name}) and folders of pictures ({beside[0]}); expected '
                         'one sub-folder for each class, or pictures alone')
    found = [(path, label) for label, place in enumerate(classes) for path in _files(place)] or [(p, 0) for p in files]
    if not found:
        raise ValueError(f'{folder}: no PNG or JPEG pictures; expected folder/CLASS/NAME.png, or folder/NAME.png '
                         'without labels')
    if empty := [place.name for place in classes if not _files(place)]:
        raise ValueError(f'{folder / empty[0]}: no PNG or JPEG pictures of this class')
    images: list[NDArray[np.uint8]] = []
    for path, _ in found:
        image = read_image(path)
        if size is None and images and image.shape != images[0].shape:
            raise ValueError(f'{path}: {image.shape[1]}x{image.shape[0]} pixels, {found[0][0].name} has '
                             f'{images[0].shape[1]}x{images[0].shape[0]}; expected one size, or a size to bring all to')
        images.append(image if size is None else Pictures(image[None]).resized(size).images[0])
    if not classes:
        return Pictures(np.stack(images))
    return Pictures(np.stack(images), np.array([label for _, label in found]), tuple(p.name for p in classes))


def load_npz(path: Path, labelled: bool = True) -> Pictures:
    """Read the arrays ``images`` (uint8, ``(N, H, W)`` or ``(N, H, W, 1 or 3)``) and, where there, ``labels`` ``(N,)``.

    Labels are class numbers, or names.

    :param labelled: false: the images alone
    :raises ValueError: when arrays are missing or do not fit together; the message names the file
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = ('images', 'labels') if labelled else ('images',)
            arrays = {name: file[name] for name in wanted if name in file.files}
            present = ', '.join(file.files) or 'nothing'
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'{path}: damaged, or not an .npz file of plain arrays; write it anew with '
                         'numpy.savez_compressed') from error
    if 'images' not in arrays:
        raise ValueError(f'{path}: no array images, it has {present}; expected images (N, H, W[, 3]) and labels (N,)')
    labels, names = arrays.get('labels'), np.array([], str)
    if labels is not None and labels.dtype.kind == 'S':
        labels = np.char.decode(labels, 'utf-8', 'replace')
    if labels is not None and labels.dtype.kind == 'U':
        names, labels = np.unique(labels, return_inverse=True)
    elif labels is not None and labels.dtype.kind not in 'iu':
        raise ValueError(f'{path}: labels are {labels.dtype}, expected class numbers or names')
    try:
        return from_arrays(arrays['images'], labels, [str(name) for name in names])
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _is_picture(p))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()
