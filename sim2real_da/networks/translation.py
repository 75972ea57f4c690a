# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered set again, with its pictures as a trained generator translates them and its labels as they are.

This is how pixel-level adaptation serves the detector: offline. Train a generator (``sim2real_da adapt --recipe
cycada_pixel --generator FILE ...``), translate the rendered set with it (``sim2real_da translate``), train as usual on
the result. No layer of the generator changes the resolution, so boxes, masks and poses stay where they were.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.data.bop import read_image
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.generators import ResidualGenerator, load_generator

LOG = logging.getLogger(__name__)
PICTURES = ('.png', '.jpg', '.jpeg')
JPEG_QUALITY = 95


@torch.no_grad()
def translate_picture(generator: ResidualGenerator, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a uint8 RGB picture ``(H, W, 3)`` of any size as the generator translates it."""
    device = next(generator.parameters()).device
    made = generator(to_tensor([picture], device))[0].clamp(0, 1).mul(255).round()
    return np.asarray(made.permute(1, 2, 0).to(torch.uint8).cpu().numpy())


def translate_set(generator: ResidualGenerator, source: Path | str, destination: Path | str) -> int:
    """Copy a folder in BOP layout; pictures in its ``rgb`` folders are translated, everything else is kept.

    :param destination: must not exist yet
    :returns: number of pictures translated
    :raises ValueError: for a generator with a noise channel, which is bound to one size of picture
    :raises FileExistsError: when the destination is there already
    :raises FileNotFoundError: when the source has no picture in a folder ``rgb``
    """
    source, destination = Path(source), Path(destination)
    if generator.noise:
        raise ValueError(f'translation: expected a generator without noise, this one has {generator.noise} numbers of '
                         f'it and takes pictures of {generator.size} pixels only')
    if destination.exists():
        raise FileExistsError(f'{destination}: exists already; expected a new folder')
    pictures = [path for path in sorted(source.rglob('rgb/*')) if path.suffix.lower() in PICTURES]
    if not pictures:
        raise FileNotFoundError(f'{source}: no PNG or JPEG picture in a folder rgb; expected a set in BOP layout')
    shutil.copytree(source, destination, ignore=lambda folder, names: names if Path(folder).name == 'rgb' else [])
    generator.eval()
    for path in pictures:
        made = cv2.cvtColor(translate_picture(generator, read_image(path)), cv2.COLOR_RGB2BGR)
        written = destination / path.relative_to(source)
        options = [] if path.suffix.lower() == '.png' else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        if not cv2.imwrite(str(written), made, options):
            raise OSError(f'{written}: could not be written; is the disk full?')
    return len(pictures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da translate``."""
    parser.add_argument('--generator', type=Path, required=True, help='file that adapt --generator wrote')
    parser.add_argument('--data', type=Path, required=True, help='rendered set in BOP layout')
    parser.add_argument('--out', type=Path, required=True, help='folder to make')
    parser.add_argument('--device', default='cpu')


def run(options: argparse.Namespace) -> None:
    """Translate as asked for on the command line.

    :raises ValueError: for a generator or data that cannot be used
    """
    generator = load_generator(options.generator).to(options.device)
    LOG.info('%d pictures translated, labels as they are: %s', translate_set(generator, options.data, options.out),
             options.out)
