# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Detections drawn over a picture: box, class and score, and with a pose the oriented 3-D box and the CAD axes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.geometry import project, transform_points
from sim2real_da.samples import Detection, Intrinsics, ObjectLabel, ObjectModel, Pose

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Bright and apart from each other on wood, metal and skin; a class keeps its colour from run to run.
PALETTE: tuple[Colour, ...] = (
    (255, 176, 0), (66, 206, 255), (255, 92, 138), (120, 230, 80), (190, 140, 255), (255, 240, 80), (0, 220, 170),
    (255, 130, 60), (150, 190, 255), (240, 120, 240),
)
AXES: tuple[Colour, ...] = ((240, 50, 50), (60, 210, 60), (70, 110, 255))  # x red, y green, z blue, as in RViz
TRUTH: Colour = (255, 255, 255)
# Corners of the unit cube as bits x y z; an edge joins two that differ in one bit.
CORNERS = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)], dtype=np.float64)
EDGES = [(i, i | (1 << axis)) for i in range(8) for axis in range(3) if not i & (1 << axis)]
SMALL = 480  # pixels; text and thin lines cannot be read on a picture that is less wide


def draw(
    image: Image,
    detections: Sequence[Detection],
    intrinsics: Intrinsics,
    objects: Mapping[str, ObjectModel],
    truth: Sequence[ObjectLabel] = (),
    scale: int | None = None,
    caption: str = '',
) -> Image:
    """Return a picture with the detections drawn over it.

    :param image: uint8 RGB ``(H, W, 3)``, left as it is
    :param objects: sizes of the 3-D boxes; a class that is not among them gets axes of 5 cm and no 3-D box
    :param truth: drawn as thin white 3-D boxes
    :param caption: written into the lower left corner
    :param scale: whole-number enlargement; None doubles a picture that is less than 480 pixels wide
    :return: uint8 RGB ``(scale * H, scale * W, 3)``
    """
    factor = scale if scale is not None else (2 if image.shape[1] < SMALL else 1)
    canvas = np.ascontiguousarray(image).copy()
    if factor != 1:
        canvas = cv2.resize(canvas, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    painter = _Painter(canvas, intrinsics, factor)
    for label in truth:
        if model := objects.get(label.name):
            painter.cuboid(label.pose, model, TRUTH, 1)
        else:
            painter.box(label.box, TRUTH)
    ordered = sorted(detections, key=lambda d: d.score)  # the surest on top
    for detection in ordered:
        colour = class_colour(detection.name, objects)
        painter.box(detection.box, colour)
        if detection.pose is not None:
            model = objects.get(detection.name)
            if model is not None:
                painter.cuboid(detection.pose, model, colour, 2)
            painter.axes(detection.pose, model)
    for detection in ordered:
        painter.tag(detection, class_colour(detection.name, objects))
    if caption:
        painter.label(caption, 0, canvas.shape[0], TRUTH)
    return canvas


def class_colour(name: str, objects: Mapping[str, ObjectModel]) -> Colour:
    """Return the colour of a class: by its place among ``objects``, by its name where it has none."""
    names = list(objects)
    return PALETTE[(names.index(name) if name in names else zlib.crc32(name.encode())) % len(PALETTE)]


class _Painter:
    """Draws in the pixels of the original image onto a canvas enlarged by ``factor``."""

    def __init__(self, canvas: Image, intrinsics: Intrinsics, factor: int) -> None:
        self.canvas, self.intrinsics, self.factor = canvas, intrinsics, factor
        # Far outside the picture OpenCV's fixed-point coordinates overflow and lines appear where none are.
        self.limit = 4.0 * max(canvas.shape[:2])
        self.text = max(0.42, canvas.shape[1] / 1600)

    def box(self, box: NDArray[np.float64], colour: Colour) -> None:
        corners = self._pixels(np.asarray(box, dtype=np.float64).reshape(2, 2))
        if np.isfinite(corners).all():
            first, second = np.clip(corners, -self.limit, self.limit).round().astype(int)
            cv2.rectangle(self.canvas, tuple(first), tuple(second), colour, 1)

    def cuboid(self, pose: Pose, model: ObjectModel, colour: Colour, width: int) -> None:
        corners = self._project(model.minimum + CORNERS * model.size, pose)
        for start, end in EDGES:
            self._line(corners[start], corners[end], colour, width)

    def axes(self, pose: Pose, model: ObjectModel | None) -> None:
        length = 0.05 if model is None else 0.5 * model.diameter
        centre = np.zeros(3) if model is None else model.middle
        # Of the CAD frame's directions, but at the box's centre: the origin may lie outside the object.
        tips = self._project(np.vstack([centre, centre + length * np.eye(3)]), pose)
        for tip, colour in zip(tips[1:], AXES, strict=True):
            self._line(tips[0], tip, colour, 2)

    def tag(self, detection: Detection, colour: Colour) -> None:
        left, top = self._pixels(np.asarray(detection.box, dtype=np.float64)[None, :2])[0]
        if np.isfinite([left, top]).all():
            self.label(f'{detection.name} {detection.score:.2f}', left, top, colour)

    def label(self, text: str, left: float, top: float, colour: Colour) -> None:
        """Write above a place, within the picture."""
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self.text, 1)
        rows, columns = self.canvas.shape[:2]
        x = int(np.clip(left, 0, max(columns - width - 4, 0)))
        y = int(np.clip(top - height - base - 2, 0, max(rows - height - base - 3, 0)))
        cv2.rectangle(self.canvas, (x, y), (x + width + 4, y + height + base + 2), colour, -1)
        cv2.putText(self.canvas, text, (x + 2, y + height + 1), cv2.FONT_HERSHEY_SIMPLEX, self.text, (0, 0, 0), 1,
                    cv2.LINE_AA)

    def _project(self, points: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
        return self._pixels(project(transform_points(points, pose), self.intrinsics))

    def _pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return (pixels + 0.5) * self.factor - 0.5

    def _line(self, start: NDArray[np.float64], end: NDArray[np.float64], colour: Colour, width: int) -> None:
        ends = np.stack([start, end])
        if np.isfinite(ends).all() and np.abs(ends).max() <= self.limit:
            first, second = ends.round().astype(int)
            cv2.line(self.canvas, tuple(first), tuple(second), colour, width, cv2.LINE_AA)
