# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A BOP data set of two boxes on noise, written for a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import trimesh
from helpers import CAMERA, frame
from scipy.spatial.transform import Rotation

SIZES = {3: (100.0, 60.0, 40.0), 7: (80.0, 80.0, 50.0)}  # object id: millimetres


def bop_folder(folder: Path, scenes: Sequence[int] = (1,), frames: int = 2, split: str = 'test') -> Path:
    """Write models, pictures and ground truth; both boxes are in every picture, side by side and turned at random."""
    (folder / 'models').mkdir(parents=True)
    infos = {}
    for number, size in SIZES.items():
        trimesh.creation.box(size).export(str(folder / 'models' / f'obj_{number:06d}.ply'))
        low = {f'min_{axis}': -length / 2 for axis, length in zip('xyz', size)}
        infos[str(number)] = {'diameter': float(np.linalg.norm(size)), **low,
                              **{f'size_{axis}': length for axis, length in zip('xyz', size)}}
    (folder / 'models' / 'models_info.json').write_text(json.dumps(infos))
    rng = np.random.default_rng(0)
    for scene in scenes:
        place = folder / split / f'{scene:06d}'
        (place / 'rgb').mkdir(parents=True)
        for number in range(frames):
            cv2.imwrite(str(place / 'rgb' / f'{number:06d}.png'), frame(rng).image)
        truth = [{'obj_id': number, 'cam_t_m2c': [x, 0.0, 800.0]} for number, x in zip(SIZES, (-120.0, 120.0))]
        info = [{'bbox_visib': [x, 90, 60, 60], 'visib_fract': 1.0} for x in (80, 180)]
        content = {
            'scene_camera': [{'cam_K': CAMERA.matrix().ravel().tolist(), 'depth_scale': 1.0}] * frames,
            'scene_gt': [[{**t, 'cam_R_m2c': Rotation.from_quat(rng.normal(size=4)).as_matrix().ravel().tolist()}
                          for t in truth] for _ in range(frames)],
            'scene_gt_info': [info] * frames,
        }
        for name, entries in content.items():
            (place / f'{name}.json').write_text(json.dumps({str(i): e for i, e in enumerate(entries)}))
    return folder
