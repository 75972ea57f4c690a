# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras from pictures of a place, against the cameras that took them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_static_scene import CAMERA, cameras

from sim2real_da import camera_motion as module
from sim2real_da.samples import Frame, Intrinsics

WIDE = Intrinsics(480, 360, 350.0, 352.0, 245.0, 170.0)


def pattern(seed: int) -> np.ndarray:
    """Blots of all sizes, for a square metre."""
    rng, image = np.random.default_rng(seed), np.zeros((800, 800, 3), np.float32)
    for cells in (20, 60, 200):
        image += cv2.resize(rng.uniform(0, 80, (cells, cells, 3)).astype(np.float32), (800, 800),
                            interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def camera_motion(frames):
    """All of it; a generator's return value is what stops it."""
    finding = module.camera_motion(frames, 1)
    while True:
        try:
            next(finding)
        except StopIteration as end:
            return end.value


# where the corner of a pattern lies in the scene, and where its sides go: a table and two walls behind it
PLANES = [([-0.6, -0.6, 0.0], [1.2, 0, 0], [0, 1.2, 0]), ([-0.6, 0.6, 0.6], [1.2, 0, 0], [0, 0, -0.6]),
          ([-0.6, -0.6, 0.6], [0, 1.2, 0], [0, 0, -0.6])]


def room(camera: np.ndarray, intrinsics: Intrinsics, stamp: int = 0) -> Frame:
    """What a camera sees of three patterned planes."""
    image = np.full((intrinsics.height, intrinsics.width, 3), 90, np.uint8)
    matrix = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy], [0, 0, 1]])
    for number in (2, 1, 0):
        corner, right, down = (np.array(x, float) for x in PLANES[number])
        plane = np.stack([right / 800, down / 800, corner], axis=1)  # of the pattern's pixels
        at = matrix @ (camera[:3, :3] @ plane + np.outer(camera[:3, 3], [0, 0, 1]))
        size = intrinsics.width, intrinsics.height
        seen = cv2.warpPerspective(pattern(number), at, size)
        where = cv2.warpPerspective(np.full((800, 800), 255, np.uint8), at, size, flags=cv2.INTER_NEAREST) > 0
        image[where] = seen[where]
    return Frame(image, intrinsics, stamp)


def around(count: int) -> list[np.ndarray]:
    """Cameras that go around the corner of the room, 10 degrees a step and up and down."""
    found = []
    for number in range(count):
        azimuth, height = np.radians(-70 + 10 * number), np.radians(35 + 10 * (number % 3))
        away = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        right = np.cross(-away, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        camera = np.eye(4)
        camera[:3, :3] = np.stack([right, np.cross(-away, right), -away])
        camera[:3, 3] = -camera[:3, :3] @ ((1.1 + 0.05 * (number % 2)) * away)
        found.append(camera)
    return found


def apart(found: list[np.ndarray], true: list[np.ndarray]) -> tuple[float, float]:
    """Largest errors, of turns between two cameras (degrees) and of centres (share of how far apart they are)."""
    turns = [np.linalg.norm(cv2.Rodrigues((a[:3, :3] @ found[0][:3, :3].T) @ (b[:3, :3] @ true[0][:3, :3].T).T)[0])
             for a, b in zip(found, true)]
    # seen from the first camera, one factor apart
    mine = np.stack([(found[0] @ np.linalg.inv(a))[:3, 3] for a in found])
    real = np.stack([(true[0] @ np.linalg.inv(b))[:3, 3] for b in true])
    mine = mine * (mine * real).sum() / (mine * mine).sum()
    return float(np.degrees(max(turns))), float(np.abs(mine - real).max() / np.abs(real).max())


@pytest.fixture
def colmap():
    pytest.importorskip('pycolmap', reason='structure from motion: pip install pycolmap')


def test_cameras_that_go_around_are_found_up_to_a_factor(colmap):
    true = around(9)
    frames = [room(camera, WIDE if number == 4 else CAMERA, number) for number, camera in enumerate(true)]
    found = camera_motion(frames)  # one through another lens
    assert all(camera is not None for camera in found)
    turn, shift = apart(found, true)
    assert turn < 0.15 and shift < 0.005


def test_a_picture_of_something_else_has_no_camera(colmap):
    rng = np.random.default_rng(0)
    frames = [room(camera, CAMERA, number) for number, camera in enumerate(around(5))]
    frames.insert(2, Frame(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), CAMERA))
    found = camera_motion(frames)
    assert [camera is None for camera in found] == [False, False, True, False, False, False]


def test_the_same_pictures_give_the_same_cameras(colmap):
    frames = [room(camera, CAMERA, number) for number, camera in enumerate(around(4))]
    first, second = camera_motion(frames), camera_motion(frames)
    np.testing.assert_array_equal(np.stack(first), np.stack(second))


def test_where_nothing_is_to_be_seen_no_camera_is_known(colmap):
    frames = [Frame(np.zeros((480, 640, 3), np.uint8), CAMERA, number) for number in range(4)]
    assert camera_motion(frames) == [None] * 4
    assert camera_motion([]) == []


def test_a_camera_that_only_turns_does_not_tell_where_it_is(colmap):
    true = cameras(1)[0]
    frames = []
    for number in range(5):
        turn = np.eye(4)
        turn[:3, :3] = cv2.Rodrigues(np.array([0, 0.06 * number, 0]))[0]
        frames.append(room(turn @ true, CAMERA, number))
    assert camera_motion(frames) == [None] * 5


def test_it_works_beside_whoever_asks_and_ends_when_it_is_closed(colmap, monkeypatch, tmp_path):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    finding = module.camera_motion([room(camera, CAMERA, number) for number, camera in enumerate(around(9))], 1)
    for _ in range(4):
        next(finding)  # before anything is found
    assert list(tmp_path.iterdir())
    finding.close()
    assert not list(tmp_path.iterdir())
    assert not any(thread.name == 'camera_motion' for thread in threading.enumerate())


def test_a_program_that_exits_meanwhile_ends_it(colmap, tmp_path):
    program = """
import sys
from test_camera_motion import CAMERA, around, module, room
finding = module.camera_motion([room(camera, CAMERA, number) for number, camera in enumerate(around(9))], 1)
next(finding)
sys.modules['kept'] = finding  # nothing closes it
"""
    environment = {**os.environ, 'TMPDIR': str(tmp_path),
                   'PYTHONPATH': os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=120,
                          cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob('camera_motion*'))


def test_what_goes_wrong_meanwhile_is_told(colmap, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module, '_cameras', full)
    with pytest.raises(OSError, match='No space left'):
        camera_motion([room(around(1)[0], CAMERA)])


def test_without_the_library_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycolmap', None)
    with pytest.raises(ModuleNotFoundError, match='pycolmap'):
        camera_motion([])
