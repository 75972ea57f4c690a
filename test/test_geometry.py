# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Quaternion, frame and projection conventions against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim2real_da import geometry as g
from sim2real_da.samples import Intrinsics, Pose

H = math.sqrt(0.5)
CAMERA = Intrinsics(320, 240, 300.0, 310.0, 160.0, 120.0)


def test_quaternion_of_90_degrees_about_z_is_xyzw():
    # A quarter turn about z takes x to y. xyzw: the sine stands third, the cosine last.
    matrix = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(g.quaternion_from_matrix(matrix), [0, 0, H, H], atol=1e-12)
    np.testing.assert_allclose(g.matrix_from_quaternion([0, 0, H, H]), matrix, atol=1e-12)
    np.testing.assert_allclose(g.matrix_from_quaternion([0, 0, H, H]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(g.matrix_from_quaternion([H, 0, 0, H]) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_canonical_quaternion_has_unit_length_and_w_not_negative():
    np.testing.assert_allclose(g.canonical_quaternion([0, 0, -2, -2]), [0, 0, H, H], atol=1e-12)
    np.testing.assert_allclose(g.canonical_quaternion([0, 0, 0, -1]), [0, 0, 0, 1], atol=1e-12)
    rng = np.random.default_rng(0)
    for quaternion in rng.normal(size=(50, 4)):
        canonical = g.canonical_quaternion(quaternion)
        assert canonical[3] >= 0
        assert np.linalg.norm(canonical) == pytest.approx(1)
        np.testing.assert_allclose(canonical, g.canonical_quaternion(-quaternion), atol=1e-12)


@pytest.mark.parametrize('axis', range(3))
def test_half_turns_with_w_zero_have_one_form(axis):
    quaternion = np.zeros(4)
    quaternion[axis] = 1
    np.testing.assert_array_equal(g.canonical_quaternion(quaternion), quaternion)
    np.testing.assert_array_equal(g.canonical_quaternion(-quaternion), quaternion)
    assert not np.signbit(g.canonical_quaternion(-quaternion)[3])


@pytest.mark.parametrize('bad, said', [
    ([0, 0, 0, 0], 'all zero'),
    ([0, 0, float('nan'), 1], 'finite'),
    ([0, 0, 1], '4 finite numbers'),
])
def test_bad_quaternions_are_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        g.canonical_quaternion(bad)


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match='proper rotation'):
        g.quaternion_from_matrix(np.diag([1, 1, -1]))  # a reflection
    with pytest.raises(ValueError, match='proper rotation'):
        g.quaternion_from_matrix(np.full((3, 3), np.nan))


def test_orthonormalised_mends_printed_matrices():
    rounded = np.array([[0.8660, -0.5000, 0], [0.5000, 0.8660, 0], [0, 0, 1.0001]])  # 30 degrees, four digits
    mended = g.orthonormalised(rounded)
    np.testing.assert_allclose(mended @ mended.T, np.eye(3), atol=1e-12)
    exact = [0, 0, math.sin(math.pi / 12), math.cos(math.pi / 12)]
    assert g.angle_between(g.quaternion_from_matrix(rounded), exact) < 0.01


def test_angles():
    q = g.canonical_quaternion([0.1, -0.4, 0.3, 0.8])
    assert g.angle_between(q, q) == pytest.approx(0, abs=1e-6)
    assert g.angle_between(q, -q) == pytest.approx(0, abs=1e-6)
    assert g.angle_between([0, 0, 0, 1], [0, 0, H, H]) == pytest.approx(90)
    assert g.angle_between([0, 0, 0, 1], [0, 0, -H, H]) == pytest.approx(90)
    assert g.angle_between([0, 0, 0, 1], [1, 0, 0, 0]) == pytest.approx(180)
    assert g.angle_between([H, 0, 0, H], [0, H, 0, H]) == pytest.approx(120)  # two quarter turns about x and y
    tiny = math.radians(1e-5)
    assert g.angle_between([0, 0, 0, 1], [math.sin(tiny / 2), 0, 0, math.cos(tiny / 2)]) == pytest.approx(1e-5)


def test_symmetric_angle_takes_the_nearest_look():
    half_turn = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])  # 180 degrees about the object's z
    angle = math.radians(170)
    estimate = [0, 0, math.sin(angle / 2), math.cos(angle / 2)]
    assert g.symmetric_angle(estimate, [0, 0, 0, 1], np.eye(4)[None]) == pytest.approx(170)
    assert g.symmetric_angle(estimate, [0, 0, 0, 1], half_turn) == pytest.approx(10)
    # The symmetry belongs to the object, not to the camera: with the object lying down (90 degrees about x) it is a
    # half turn about the camera's -y, and one about the camera's z is an error.
    lying = np.array([H, 0, 0, H])
    about_y = g.quaternion_from_matrix(np.diag([-1.0, 1.0, -1.0]) @ g.matrix_from_quaternion(lying))
    about_z = g.quaternion_from_matrix(np.diag([-1.0, -1.0, 1.0]) @ g.matrix_from_quaternion(lying))
    assert g.symmetric_angle(about_y, lying, half_turn) == pytest.approx(0, abs=1e-5)
    assert g.symmetric_angle(about_z, lying, half_turn) == pytest.approx(180, abs=1e-5)


def test_ray_rotation_turns_the_optical_axis_to_the_object():
    for direction in ([0.3, -0.2, 1.0], [0, 0, 2.0], [1.0, 0, 0], [0, 0, -1.0]):
        rotation = g.ray_rotation(direction)
        np.testing.assert_allclose(rotation @ [0, 0, 1], np.array(direction) / np.linalg.norm(direction), atol=1e-12)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)


def test_allocentric_by_hand():
    # An object 45 degrees to the right that keeps its front to the camera is turned by +45 degrees about y (down) in
    # the camera frame; a crop around it looks like one straight ahead.
    translation = np.array([1.0, 0, 1.0])
    facing = g.matrix_from_quaternion([0, math.sin(math.pi / 8), 0, math.cos(math.pi / 8)])
    np.testing.assert_allclose(facing @ [0, 0, 1], [H, 0, H], atol=1e-12)
    np.testing.assert_allclose(g.allocentric(facing, translation), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(g.egocentric(np.eye(3), translation), facing, atol=1e-12)
    np.testing.assert_allclose(g.allocentric(facing, [0, 0, 3.0]), facing, atol=1e-12)


def test_allocentric_round_trip():
    rng = np.random.default_rng(1)
    for _ in range(20):
        rotation = g.matrix_from_quaternion(g.canonical_quaternion(rng.normal(size=4)))
        translation = rng.normal(size=3) + (0, 0, 3)
        back = g.egocentric(g.allocentric(rotation, translation), translation)
        np.testing.assert_allclose(back, rotation, atol=1e-12)


def test_projection_by_hand():
    # x right, y down, z forward: 0.1 m right and 0.2 m down at 1 m.
    pixels = g.project([[0.1, 0.2, 1.0], [0, 0, 2.0], [-0.1, -0.2, 2.0]], CAMERA)
    np.testing.assert_allclose(pixels, [[160 + 30, 120 + 62], [160, 120], [160 - 15, 120 - 31]], atol=1e-9)


def test_projection_with_distortion_by_hand():
    # plumb_bob k1 k2 p1 p2 k3 at x' = 0.1, y' = 0.2, r2 = 0.05: radial 1 + 0.1 * 0.05 - 0.2 * 0.0025 + 4 * 0.000125;
    # x'' = x' radial + 2 p1 x' y' + p2 (r2 + 2 x'^2); y'' = y' radial + p1 (r2 + 2 y'^2) + 2 p2 x' y'.
    camera = Intrinsics(320, 240, 300.0, 310.0, 160.0, 120.0, (0.1, -0.2, 0.01, 0.02, 4.0))
    radial = 1 + 0.005 - 0.0005 + 0.0005
    x = 0.1 * radial + 2 * 0.01 * 0.02 + 0.02 * (0.05 + 0.02)
    y = 0.2 * radial + 0.01 * (0.05 + 0.08) + 2 * 0.02 * 0.02
    np.testing.assert_allclose(g.project([[0.1, 0.2, 1.0]], camera), [[160 + 300 * x, 120 + 310 * y]], atol=1e-9)


def test_points_behind_the_camera_have_no_pixel():
    pixels = g.project([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0]], CAMERA)
    assert np.isnan(pixels[:2]).all()
    np.testing.assert_allclose(pixels[2], [160, 120])


def test_transform_points_by_hand():
    pose = Pose(np.array([0, 0, H, H]), np.array([0.5, 0, 1.0]))
    np.testing.assert_allclose(g.transform_points([[0.1, 0, 0], [0, 0, 0.2]], pose), [[0.5, 0.1, 1], [0.5, 0, 1.2]],
                               atol=1e-12)
