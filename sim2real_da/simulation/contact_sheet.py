# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One picture of a rendered set, to see at a glance whether it shows what it should: many frames with their labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.drawing import class_colour
from sim2real_da.samples import LabelledFrame

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

COLUMNS, ROWS = 6, 4
TILE = 400  # pixels wide
GAP = 6
HEAD = 58  # height of the line above the pictures
PAPER: Colour = (24, 26, 30)
FONT, TEXT = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def write_contact_sheet(folder: Path, split: str, out: Path) -> None:
    """Write a grid of frames spread evenly over a set: boxes with class and visible fraction, every third with masks.

    :raises FileNotFoundError: when there are no frames
    """
    dataset = BopDataset(folder, split)
    ids = dataset.ids()
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, COLUMNS * ROWS).round().astype(int))]
    names = list(dataset.objects())
    colours = {name: class_colour(name, dataset.objects()) for name in names}
    tiles = [_tile(dataset.frame(i), colours, with_masks=place % 3 == 2) for place, i in enumerate(chosen)]
    height = max(tile.shape[0] for tile in tiles)
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((HEAD + rows * (height + GAP), GAP + columns * (TILE + GAP), 3), PAPER, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        top, left = HEAD + row * (height + GAP), GAP + column * (TILE + GAP)
        sheet[top:top + tile.shape[0], left:left + TILE] = tile
    title = f'{folder.resolve().name}: {len(tiles)} of {len(ids)} frames, boxes with class and visible share'
    cv2.putText(sheet, title, (GAP, 22), FONT, 0.55, (235, 235, 235), 1, cv2.LINE_AA)
    left = GAP
    for name in names:
        left = _tag(sheet, name, left, 32, colours[name]) + GAP
    if not cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OSError(f'{out}: could not be written; is the disk full?')


def _tile(labelled: LabelledFrame, colours: dict[str, Colour], with_masks: bool) -> Image:
    image = labelled.frame.image
    scale = TILE / image.shape[1]
    canvas = cv2.resize(image, (TILE, round(scale * image.shape[0])), interpolation=cv2.INTER_AREA)
    for label in labelled.labels:
        if with_masks and label.mask is not None:
            mask = cv2.resize(label.mask.astype(np.uint8), canvas.shape[1::-1], interpolation=cv2.INTER_AREA)
            edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
            tint = 0.45 * canvas[mask > 0] + 0.55 * np.array(colours[label.name])
            canvas[mask > 0] = tint.astype(np.uint8)
            canvas[edge > 0] = colours[label.name]
    if with_masks:
        return np.asarray(canvas, dtype=np.uint8)
    corners = {id(label): ((label.box + 0.5) * scale - 0.5).round().astype(int) for label in labelled.labels}
    for label in labelled.labels:
        x0, y0, x1, y1 = corners[id(label)].tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colours[label.name], 1)
    for label in labelled.labels:  # over all boxes
        x0, y0, _, _ = corners[id(label)].tolist()
        # the line above the pictures has the whole name in the same colour
        short = label.name.removeprefix('obj_').lstrip('0')
        share = '' if label.visible is None else f' {100 * label.visible:.0f}%'
        _tag(canvas, f'{short}{share}', x0, y0 - 15, colours[label.name])
    return np.asarray(canvas, dtype=np.uint8)


def _tag(canvas: Image, text: str, left: int, top: int, colour: Colour) -> int:
    """Write black on a coloured ground, moved into the picture; return where it ends."""
    (width, _), _ = cv2.getTextSize(text, FONT, TEXT, 1)
    left = int(np.clip(left, 0, max(canvas.shape[1] - width - 6, 0)))
    top = int(np.clip(top, 0, canvas.shape[0] - 16))
    cv2.rectangle(canvas, (left, top), (left + width + 5, top + 15), colour, -1)
    cv2.putText(canvas, text, (left + 3, top + 12), FONT, TEXT, (0, 0, 0), 1, cv2.LINE_AA)
    return left + width + 5
