# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Instances keep their numbers, and smoothing does what its formula says."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import box_model
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import angle_between
from sim2real_da.samples import Detection, ObjectModel, Pose
from sim2real_da.tracking import Tracker, blended, moved

MODELS = {'mug': box_model('mug'), 'tool': box_model('tool')}
SECOND = 1_000_000_000


def at(x: float, name: str = 'mug', yaw: float = 0.0, y: float = 0.0, covariance: float = 1.0) -> Detection:
    pose = Pose(Rotation.from_euler('z', yaw, degrees=True).as_quat(), np.array([x, y, 0.5]))
    return Detection(name, 0.9, np.zeros(4), pose, covariance * np.eye(6))


def numbers(found: list[Detection]) -> list[tuple[str, int | None]]:
    return [(d.name, d.track) for d in found]


def test_instances_keep_their_numbers_whatever_their_order():
    tracker = Tracker(MODELS)
    assert numbers(tracker.update([at(0.0), at(0.3), at(0.0, 'tool')], 0)) == [('mug', 1), ('mug', 2), ('tool', 1)]
    found = tracker.update([at(0.0, 'tool'), at(0.33), at(0.03)], SECOND // 10)
    assert numbers(found) == [('tool', 1), ('mug', 2), ('mug', 1)]


def test_all_tracks_together_move_least():
    """Both have moved to the right: the second is now where the first was, yet the pairs stay."""
    tracker = Tracker(MODELS)
    tracker.update([at(0.0), at(0.1)], 0)
    assert numbers(tracker.update([at(0.16), at(0.06)], 1)) == [('mug', 2), ('mug', 1)]


def test_a_number_is_never_used_again():
    tracker = Tracker(MODELS, forget_s=1.0)
    tracker.update([at(0.0)], 0)
    assert tracker.update([at(0.0)], SECOND)[0].track == 1  # not seen for just so long
    assert tracker.update([at(0.0)], 2 * SECOND + 1)[0].track == 2
    assert tracker.update([at(0.5)], 2 * SECOND + 2)[0].track == 3, 'too far for one object'
    assert tracker.update([at(0.5)], SECOND)[0].track == 4, 'the clock went back'


def test_what_has_no_pose_has_no_number():
    lost = Detection('mug', 0.4, np.zeros(4))
    assert Tracker(MODELS).update([lost], 0) == [lost]


def test_smoothing_by_hand():
    tracker = Tracker(MODELS, smoothing=0.75)
    tracker.update([at(0.0, yaw=0, covariance=4)], 0)
    found = tracker.update([at(0.04, yaw=20, covariance=8)], 1)[0]
    np.testing.assert_allclose(found.pose.translation, [0.01, 0, 0.5], atol=1e-12)
    assert angle_between(found.pose.quaternion, at(0, yaw=5).pose.quaternion) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.covariance, 5 * np.eye(6))
    # a steady motion of 1 cm a picture is shown 0.75 / 0.25 = 3 pictures late
    for step in range(1, 60):
        found = tracker.update([at(0.04 + 0.01 * step)], 1 + step)[0]
    assert found.pose.translation[0] == pytest.approx(0.04 + 0.01 * (59 - 3), abs=1e-6)


def test_an_object_that_comes_back_is_shown_where_it_is():
    tracker = Tracker(MODELS, smoothing=0.75)
    tracker.update([at(0.0, covariance=4)], 0)
    tracker.update([], 1)
    found = tracker.update([at(0.04, covariance=8)], 2)[0]
    np.testing.assert_allclose(found.pose.translation, [0.04, 0, 0.5])
    np.testing.assert_allclose(found.covariance, 8 * np.eye(6))
    assert found.track == 1, 'it keeps its number'


def test_without_smoothing_a_pose_is_what_was_measured():
    tracker = Tracker(MODELS)
    tracker.update([at(0.0)], 0)
    now = at(0.04, yaw=20)
    assert tracker.update([now], 1)[0].pose is now.pose


def test_a_jump_of_the_rotation_is_not_blended():
    before, now = at(0.0).pose, at(0.01, yaw=80).pose
    assert blended(before, now, MODELS['mug'], 0.9) is now


def test_of_symmetric_looks_the_nearest_is_blended():
    half_turn = np.eye(4)
    half_turn[:2, :2] *= -1
    base = MODELS['mug']
    model = ObjectModel('mug', base.points, base.minimum, base.size, base.diameter, np.stack([np.eye(4), half_turn]))
    found = blended(at(0.0).pose, at(0.0, yaw=190).pose, model, 0.5)
    assert angle_between(found.quaternion, at(0, yaw=5).pose.quaternion) == pytest.approx(0, abs=1e-6)


def test_an_odd_symmetry_moves_no_object() -> None:
    """The box of a three-sided prism is not in its middle: two poses that look alike have two box centres."""
    third = np.eye(4)
    third[:3, :3] = Rotation.from_euler('z', 120, degrees=True).as_matrix()
    corners = np.array([[np.cos(a), np.sin(a), z] for a in np.radians([0, 120, 240]) for z in (-1, 1)]) * 0.05
    model = ObjectModel('prism', corners.astype(np.float32), corners.min(0), np.ptp(corners, axis=0), 0.1,
                        np.stack([np.eye(4), third, third @ third]))
    before, now = (Pose(Rotation.from_euler('z', yaw, degrees=True).as_quat(), np.array([0, 0, 1.0]))
                   for yaw in (0, 120))
    np.testing.assert_allclose(blended(before, now, model, 0.5).translation, [0, 0, 1], atol=1e-9)


def test_the_middle_of_the_box_moves_straight():
    """The CAD frame's origin may lie far from the object: smoothed about it, the object would swing."""
    base = MODELS['mug']
    model = ObjectModel('mug', base.points, base.minimum + np.array([0.3, 0, 0]), base.size, base.diameter)
    before, now = at(0.0, yaw=0).pose, at(0.0, yaw=40).pose
    middle = model.box_centre(blended(before, now, model, 0.5))
    np.testing.assert_allclose(middle, (model.box_centre(before) + model.box_centre(now)) / 2, atol=1e-12)


def test_another_frame_turns_pose_and_covariance():
    spread = np.diag([1.0, 2, 3, 4, 5, 6])
    spread[0, 4] = spread[4, 0] = 0.5
    detection = Detection('mug', 1.0, np.zeros(4), Pose(np.array([0, 0, 0, 1.0]), np.array([1.0, 2, 3])), spread)
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # x becomes y, y becomes -x
    turn[:3, 3] = 0, 0, 10
    found = moved(detection, turn)
    np.testing.assert_allclose(found.pose.translation, [-2, 1, 13])
    np.testing.assert_allclose(np.diag(found.covariance), [2, 1, 3, 5, 4, 6])
    assert found.covariance[1, 3] == pytest.approx(-0.5)  # x with ry becomes y with -rx
    assert moved(Detection('mug', 1.0, np.zeros(4)), turn).pose is None
