# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The gripper tells a right pose from a wrong one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import box_model
from scipy.spatial.transform import Rotation

from sim2real_da.simulation.gripper import DEPTH, WIDEST, Gripper, plan_grasp
from sim2real_da.simulation.objects import SimObject, tools
from sim2real_da.simulation.shapes import box


def lying(yaw: float = 0.0, x: float = 0.0, height: float = 0.02) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', yaw).as_matrix()
    pose[:3, 3] = x, 0.05, height
    return pose


@pytest.mark.parametrize('yaw', [0.0, 0.5, -1.2])
def test_a_box_is_grasped_across_its_narrow_side(yaw: float) -> None:
    grasp = plan_grasp(box_model('box'), lying(yaw))  # 10 x 6 x 4 cm
    assert grasp is not None
    assert grasp.width == pytest.approx(0.06, abs=0.012)
    across = (grasp.yaw - (yaw + np.pi / 2)) % np.pi
    assert min(across, np.pi - across) < np.radians(12)
    np.testing.assert_allclose(grasp.position, [0, 0.05, max(0.04 - DEPTH, 0.004)], atol=0.008)


def test_what_is_too_wide_is_grasped_at_a_corner_or_not_at_all() -> None:
    grasp = plan_grasp(box_model('slab', (WIDEST, WIDEST, 0.02)), lying())
    assert grasp is None or (grasp.width < WIDEST and np.abs(grasp.position[:2] - [0, 0.05]).max() > 0.08)


@pytest.fixture(scope='module')
def gripper() -> Gripper:
    return Gripper(SimObject('brick', box_model('brick'), (box([0.1, 0.06, 0.04], [0, 0, 0], (0.5, 0.5, 0.5)),)))


@pytest.mark.parametrize('yaw', [0.0, 0.9, 2.0])
def test_the_true_pose_lifts_the_object(gripper: Gripper, yaw: float) -> None:
    assert gripper.put(lying(yaw))
    grasp = plan_grasp(box_model('brick'), gripper.pose())
    assert grasp is not None and gripper.attempt(grasp)
    assert gripper.pose()[2, 3] > 0.1


@pytest.mark.parametrize('off', [
    np.array([0.0, 0.1, 0.0]), np.array([0.12, 0.0, 0.0]), np.array([0.0, 0.0, 0.06])])
def test_a_pose_beside_or_above_the_object_lifts_nothing(gripper: Gripper, off: np.ndarray) -> None:
    assert gripper.put(lying())
    believed = gripper.pose()
    believed[:3, 3] += off
    grasp = plan_grasp(box_model('brick'), believed)
    assert grasp is not None and not gripper.attempt(grasp)


def test_an_object_that_others_held_does_not_rest(gripper: Gripper) -> None:
    assert not gripper.put(lying(height=0.1))
    leaning = lying(height=0.06)
    leaning[:3, :3] = Rotation.from_euler('x', 45, degrees=True).as_matrix()
    assert not gripper.put(leaning)


def test_a_tool_of_many_parts_is_lifted() -> None:
    wrench = next(item for item in tools() if item.name == 'wrench')
    gripper = Gripper(wrench)
    assert gripper.put(lying(0.3, height=0.008))
    grasp = plan_grasp(wrench.model, gripper.pose())
    assert grasp is not None and gripper.attempt(grasp, record=True)
    assert gripper.pictures[0].shape == (360, 480, 3) and np.ptp(gripper.pictures[-1]) > 100
    assert np.abs(gripper.pictures[0].astype(int) - gripper.pictures[-1]).mean() > 1
    gripper.close()
