# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The nouns refuse what cannot be, and say what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from sim2real_da.geometry import project
from sim2real_da.samples import Frame, Intrinsics, ObjectModel, Pose

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)


def test_scaled_intrinsics_by_hand():
    # Half the size: the focal length halves; a centre at 159.5 (the middle of 320 pixels) goes to 79.5 (the middle of
    # 160), because a pixel's centre, not its corner, has integer coordinates.
    half = CAMERA.scaled(160, 120)
    assert (half.width, half.height) == (160, 120)
    assert (half.fx, half.fy, half.cx, half.cy) == pytest.approx((150, 150, 79.5, 59.5))
    wide = Intrinsics(640, 480, 600.0, 610.0, 300.0, 250.0, (0.1, 0.0, 0.0, 0.0)).scaled(320, 480)
    assert (wide.fx, wide.fy, wide.cx, wide.cy) == pytest.approx((300, 610, 149.75, 250.0))
    assert wide.distortion == (0.1, 0.0, 0.0, 0.0)


def test_scaled_intrinsics_project_to_scaled_pixels():
    point = [[0.05, -0.03, 0.4]]
    full = project(point, CAMERA)
    half = project(point, CAMERA.scaled(160, 120))
    np.testing.assert_allclose(half, (full + 0.5) / 2 - 0.5)


def test_intrinsics_matrix():
    np.testing.assert_array_equal(CAMERA.matrix(), [[300, 0, 159.5], [0, 300, 119.5], [0, 0, 1]])


@pytest.mark.parametrize('values, said', [
    ({'width': 0}, 'image size 0x240'),
    ({'fx': float('nan')}, 'finite'),
    ({'cx': float('inf')}, 'finite'),
    ({'distortion': (0.1, float('nan'))}, 'finite'),
    ({'fy': 0.0}, 'positive focal lengths'),
    ({'fx': -300.0}, 'positive focal lengths'),
])
def test_bad_intrinsics(values, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CAMERA, **values)


def test_pose_is_canonical_and_has_a_matrix():
    pose = Pose(np.array([0, 0, -2.0, -2.0]), np.array([0.1, 0.2, 0.3]))
    half = math.sqrt(0.5)
    np.testing.assert_allclose(pose.quaternion, [0, 0, half, half])
    np.testing.assert_allclose(pose.matrix(), [[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]],
                               atol=1e-12)


@pytest.mark.parametrize('quaternion, translation, said', [
    ([0, 0, 0, 0], [0, 0, 1], 'all zero'),
    ([0, 0, 0, 1], [0, 0, float('nan')], 'finite translation'),
    ([0, 0, 0, 1], [0, 1], 'translation of 3 numbers'),
])
def test_there_is_no_default_pose(quaternion, translation, said):
    with pytest.raises(ValueError, match=said):
        Pose(np.array(quaternion, dtype=float), np.array(translation, dtype=float))


@pytest.mark.parametrize('image', [
    np.zeros((240, 320, 3), dtype=np.float32),
    np.zeros((240, 320), dtype=np.uint8),
    np.zeros((240, 320, 4), dtype=np.uint8),
    np.zeros((0, 320, 3), dtype=np.uint8),
])
def test_a_frame_is_uint8_rgb(image):
    with pytest.raises(ValueError, match='uint8 RGB'):
        Frame(image, CAMERA)


def test_a_frame_has_the_size_of_its_camera():
    with pytest.raises(ValueError, match='image is 640x480 but its camera_info is for 320x240'):
        Frame(np.zeros((480, 640, 3), dtype=np.uint8), CAMERA)


def test_a_target_frame_cannot_carry_labels():
    assert not {f.name for f in dataclasses.fields(Frame)} & {'labels', 'pose', 'box', 'name'}


def test_object_model_box_and_round_trip():
    points = np.array([[0, 0, 0], [0.2, 0.1, 0.4]], dtype=np.float32)
    symmetries = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
    model = ObjectModel('can', points, np.zeros(3), np.array([0.2, 0.1, 0.4]), 0.46, symmetries)
    assert model.symmetric
    assert not dataclasses.replace(model, symmetries=np.eye(4)[None]).symmetric
    # Centre (0.1, 0.05, 0.2) turned by 90 degrees about z and moved by 1 m along z.
    half = math.sqrt(0.5)
    centre = model.box_centre(Pose(np.array([0, 0, half, half]), np.array([0, 0, 1.0])))
    np.testing.assert_allclose(centre, [-0.05, 0.1, 1.2], atol=1e-12)
    again = ObjectModel.from_dict(json.loads(json.dumps(model.to_dict())), points)
    assert again.to_dict() == model.to_dict()
    np.testing.assert_array_equal(again.points, points)
    with pytest.raises(KeyError, match='diameter'):
        ObjectModel.from_dict({k: v for k, v in model.to_dict().items() if k != 'diameter'}, points)
