# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A camera's calibration as ROS has it: messages of sensor_msgs/CameraInfo, and the YAML files calibration writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from sim2real_da.samples import Intrinsics

# ROS name of a distortion model: possible counts of coefficients
LENSES: dict[str, tuple[int, ...]] = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12), 'equidistant': (4,)}


def intrinsics_of(message: Any, size: tuple[int, int] | None = None, rectified: bool = False) -> Intrinsics:
    """Return the intrinsics of the pictures a camera_info goes with, region of interest and binning applied.

    :param message: with the fields of sensor_msgs/CameraInfo
    :param size: width and height of the picture at hand; None to skip the comparison
    :param rectified: the pictures are rectified: P describes them and there is no distortion; else K and D do
    :raises ValueError: an uncalibrated camera (K or P all zero), NaN, a distortion model this package does not know,
        a region outside the image, or another size than the picture's
    """
    name = 'P' if rectified else 'K'
    k = np.reshape(message.p, (3, 4))[:, :3] if rectified else np.reshape(message.k, (3, 3))
    d = () if rectified else tuple(float(v) for v in message.d)
    if not (np.all(np.isfinite(k)) and np.all(np.isfinite(d))):
        raise ValueError(f'{name} or D is not finite ({name} = {k.tolist()}, D = {list(d)}); calibrate the camera')
    if k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ValueError(f'focal lengths fx = {k[0, 0]:g}, fy = {k[1, 1]:g} in {name}, expected positive ones; an '
                         f'all-zero {name} means an uncalibrated camera')
    if message.width < 1 or message.height < 1:
        raise ValueError(f'size {message.width}x{message.height}, expected at least 1x1')
    fisheye = not rectified and message.distortion_model == 'equidistant'
    if (any(d) or fisheye) and len(d) not in LENSES.get(message.distortion_model, ()):
        raise ValueError(
            f'distortion model {message.distortion_model!r} with {len(d)} coefficients, expected plumb_bob (4 or 5), '
            f'rational_polynomial (8 or 12) or equidistant (4); rectify the images or recalibrate')
    x0, y0, width, height = _region(message)
    bx, by = max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    try:
        # K and P are for the full picture (CameraInfo.msg); with pixel centres at integers, binning shifts by half a
        # pixel.
        intrinsics = Intrinsics(
            width // bx, height // by, float(k[0, 0]) / bx, float(k[1, 1]) / by,
            (float(k[0, 2]) - x0 + 0.5) / bx - 0.5, (float(k[1, 2]) - y0 + 0.5) / by - 0.5,
            d if any(d) or fisheye else (), fisheye)
    except ValueError as error:
        raise ValueError(f'region {width}x{height}, binning {bx}x{by}: {error}') from error
    if size is not None and size != (intrinsics.width, intrinsics.height):
        raise ValueError(f'describes images of {intrinsics.width}x{intrinsics.height} but the image is '
                         f'{size[0]}x{size[1]}; publish the camera_info of this image size')
    return intrinsics


def _region(message: Any) -> tuple[int, int, int, int]:
    """Return x, y, width, height of the region of interest in the full picture; all zero means the full picture."""
    roi = message.roi
    if roi.width == 0 or roi.height == 0:
        return 0, 0, int(message.width), int(message.height)
    if roi.x_offset + roi.width > message.width or roi.y_offset + roi.height > message.height:
        raise ValueError(f'region {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset}) lies outside the image '
                         f'of {message.width}x{message.height}')
    return int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)


def read_calibration(path: Path, rectified: bool = False) -> Intrinsics:
    """Read a calibration file as camera_calibration writes it (``image_width``, ``camera_matrix``, ...).

    :param rectified: the pictures are rectified: ``projection_matrix`` holds
    :raises ValueError: for a file that is not one
    """
    def numbers(name: str) -> list[float]:
        return [float(v) for v in read[name]['data']]

    try:
        read = yaml.safe_load(path.read_text(encoding='utf-8'))
        message = SimpleNamespace(
            width=int(read['image_width']), height=int(read['image_height']), k=numbers('camera_matrix'),
            d=numbers('distortion_coefficients'), distortion_model=str(read['distortion_model']),
            p=numbers('projection_matrix') if rectified else [], binning_x=0, binning_y=0,
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0))
        return intrinsics_of(message, rectified=rectified)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        what = ' '.join(f'{type(error).__name__}: {error}'.split())  # a YAML error has several lines
        raise ValueError(
            f'{path}: {what}; expected a calibration as camera_calibration writes it: image_width, image_height, '
            f'camera_matrix, distortion_model, distortion_coefficients') from error
