# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Small made-up objects and frames for tests that need no simulator, and a way to import scripts."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from sim2real_da.data.bop import write_scene
from sim2real_da.geometry import project, transform_points
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectLabel, ObjectModel, Pose

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)


def box_model(name: str, half: tuple[float, float, float] = (0.05, 0.03, 0.02), count: int = 4000) -> ObjectModel:
    """Return a solid box with points on its surface."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (count, 3))
    side = rng.integers(3, size=count)
    points[np.arange(count), side] = rng.choice([-1.0, 1.0], count)
    size = 2 * np.array(half)
    return ObjectModel(name, (points * half).astype(np.float32), -size / 2, size, float(np.linalg.norm(size)))


def frame(rng: np.random.Generator, camera: Intrinsics = CAMERA) -> Frame:
    """Return a frame of noise."""
    return Frame(rng.integers(0, 255, (camera.height, camera.width, 3)).astype(np.uint8), camera)


def labelled_frame(rng: np.random.Generator, model: ObjectModel, pose: Pose) -> LabelledFrame:
    """Return a frame in which the object is a white silhouette on noise."""
    picture = frame(rng)
    pixels = project(transform_points(model.points, pose), CAMERA)
    hull = cv2.convexHull(pixels.astype(np.float32)).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros((240, 320), np.uint8), hull, 1).astype(bool)
    picture.image[mask] = 255
    box = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
    return LabelledFrame(picture, (ObjectLabel(model.name, box, pose, 1.0, mask),))


def rendered_set(folder: Path, scenes: int, frames: int, name: str = 'box') -> Path:
    """Write a set as ``sim2real_da render`` does, with one object at random poses."""
    rng, model = np.random.default_rng(0), box_model(name)
    for scene in range(scenes):
        poses = [Pose(rng.normal(size=4), np.array([*rng.normal(0, 0.05, 2), 0.5])) for _ in range(frames)]
        write_scene(folder / 'train' / f'{scene:06d}', [labelled_frame(rng, model, pose) for pose in poses], {name: 1})
    (folder / 'dataset.json').write_text(json.dumps({'names': {'1': name}}))
    return folder


def load_script(path: Path) -> ModuleType:
    """Import a Python file that is in no package (tools, launch files), its folder searched as when it is run."""
    spec = importlib.util.spec_from_file_location(path.name.split('.')[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
