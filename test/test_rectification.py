# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Real lenses: what OpenCV's own camera models show comes back as a pinhole picture, and poses come back with it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers import CAMERA, box_model, labelled_frame

from sim2real_da.geometry import angle_between, project, transform_points
from sim2real_da.online.buffer import FrameBuffer
from sim2real_da.rectification import original_box, pinhole, rectified, rectified_labels, straightened, through_lens
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectLabel, Pose

K = (640, 480, 420.0, 430.0, 322.0, 236.0)
LENSES = {
    'plumb_bob 4': Intrinsics(*K, (-0.28, 0.09, 0.001, -0.002)),
    'plumb_bob 5': Intrinsics(*K, (-0.28, 0.09, 0.001, -0.002, 0.01)),
    'rational 8': Intrinsics(*K, (0.4, -0.1, 0.001, 0.001, 0.02, 0.7, -0.05, 0.01)),
    'rational 12': Intrinsics(*K, (0.4, -0.1, 0.001, 0.001, 0.02, 0.7, -0.05, 0.01, 0.002, -0.001, 0.001, 0.002)),
    'equidistant': Intrinsics(640, 480, 250.0, 255.0, 322.0, 236.0, (0.03, -0.01, 0.004, -0.001), True),
    'equidistant, no coefficients': Intrinsics(640, 480, 250.0, 255.0, 322.0, 236.0, (0.0,) * 4, True),
}
POSE = Pose(np.array([0.8, 0.1, -0.2, 0.4]), np.array([0.1, -0.05, 0.6]))
DOTS = np.array([[x, y, z] for x in (-0.15, 0, 0.15) for y in (-0.1, 0.1) for z in (-0.08, 0.08)])


def taken_by_opencv(points, camera):
    """Return where OpenCV says that the lens shows points of the camera frame."""
    model = cv2.fisheye if camera.fisheye else cv2
    pixels, _ = model.projectPoints(points[:, None], np.zeros(3), np.zeros(3), camera.matrix(),
                                    np.array(camera.distortion))
    return pixels[:, 0]


def dotted(pixels):
    """Draw round dots at fractions of pixels, white on black."""
    image = np.zeros((480, 640, 3), np.uint8)
    for x, y in np.round(pixels * 64).astype(int):
        cv2.circle(image, (int(x), int(y)), 3 * 64, (255, 255, 255), -1, cv2.LINE_AA, 6)
    return image


def middles(image):
    """Return the centres of gravity of the dots."""
    grey = image[..., 0]
    count, marks = cv2.connectedComponents((grey > 40).astype(np.uint8))
    ys, xs = np.indices(grey.shape)
    return np.array([[np.average(axis[marks == i], weights=grey[marks == i]) for axis in (xs, ys)]
                     for i in range(1, count)])


@pytest.mark.parametrize('camera', LENSES.values(), ids=LENSES)
def test_the_pose_comes_back_from_a_picture_through_the_lens(camera):
    points = transform_points(DOTS, POSE)
    frame = rectified(Frame(dotted(taken_by_opencv(points, camera)), camera))
    assert frame.intrinsics.pinhole
    ideal = project(points, frame.intrinsics)
    found = middles(frame.image)
    assert len(found) == len(DOTS)
    found = found[np.linalg.norm(ideal[:, None] - found[None], axis=2).argmin(axis=1)]
    np.testing.assert_allclose(found, ideal, atol=0.3)
    _, turn, place = cv2.solvePnP(DOTS, found, frame.intrinsics.matrix(), None)
    back = Pose(np.append(turn[:, 0] / np.linalg.norm(turn) * np.sin(np.linalg.norm(turn) / 2),
                          np.cos(np.linalg.norm(turn) / 2)), place[:, 0])
    assert angle_between(back.quaternion, POSE.quaternion) < 0.5
    np.testing.assert_allclose(back.translation, POSE.translation, atol=0.003)
    # the picture as it came, taken for a pinhole's, is what goes wrong
    raw = middles(dotted(taken_by_opencv(points, camera)))
    assert np.abs(raw[np.linalg.norm(ideal[:, None] - raw[None], axis=2).argmin(axis=1)] - ideal).max() > 2


@pytest.mark.parametrize('camera', LENSES.values(), ids=LENSES)
def test_boxes_go_back_to_the_pixels_of_the_original(camera):
    points = transform_points(box_model('box').points, POSE)
    straight, seen = project(points, pinhole(camera)), taken_by_opencv(points, camera)
    box = original_box(np.concatenate([straight.min(axis=0), straight.max(axis=0)]), camera)
    np.testing.assert_allclose(box[:2], seen.min(axis=0), atol=4)  # a box around a box's image is a little larger
    np.testing.assert_allclose(box[2:], seen.max(axis=0), atol=4)
    assert np.all(box[:2] <= seen.min(axis=0) + 0.01) and np.all(box[2:] >= seen.max(axis=0) - 0.01)


def test_projection_through_a_fisheye_by_hand():
    # at 45 degrees to the right: theta = pi / 4, theta_d = theta (1 + 0.1 theta^2)
    camera = Intrinsics(640, 480, 200.0, 200.0, 320.0, 240.0, (0.1, 0.0, 0.0, 0.0), True)
    theta = np.pi / 4
    np.testing.assert_allclose(project([[1.0, 0.0, 1.0]], camera), [[320 + 200 * theta * (1 + 0.1 * theta**2), 240]])


def test_a_lens_shows_nothing_twice():
    # r (1 - 0.4 r^2) grows up to r = sqrt(1 / 1.2) = 0.913 and turns back then
    camera = Intrinsics(640, 480, 300.0, 300.0, 320.0, 240.0, (-0.4, 0.0, 0.0, 0.0))
    pixels = project([[0.90, 0, 1], [0.93, 0, 1], [0, 1.5, 1]], camera)
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1:]).all()
    white = straightened(np.full((480, 640, 3), 255, np.uint8), camera)
    assert white[240, 320, 0] == 255 and white[240, 640 - 40, 0] == 0  # 280 / 300 = 0.933 from the middle


def test_a_pinhole_picture_is_left_alone():
    frame = Frame(np.zeros((240, 320, 3), np.uint8), CAMERA)
    assert rectified(frame) is frame
    box = np.array([1.0, 2, 3, 4])
    assert original_box(box, CAMERA) is box
    pixels = np.random.default_rng(0).uniform(0, 200, (20, 2))
    np.testing.assert_allclose(through_lens(pixels, CAMERA), pixels, atol=1e-9)


def test_labels_follow_their_pictures():
    camera = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5, (-0.3, 0.1, 0.0, 0.0))
    model, pose = box_model('box'), Pose(np.array([0, 0, 0, 1.0]), np.array([0.1, 0.05, 0.5]))
    drawn = labelled_frame(np.random.default_rng(0), model, pose)
    ideal = drawn.labels[0]
    seen = project(transform_points(model.points, pose), camera)
    hull = cv2.convexHull(seen.astype(np.float32)).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros((240, 320), np.uint8), hull, 1).astype(bool)
    box = np.concatenate([seen.min(axis=0), seen.max(axis=0)])
    gone = ObjectLabel('box', np.array([0.0, 0.0, 6.0, 5.0]), pose)  # a corner that the straightened picture has lost
    labels = (replace(ideal, mask=mask, box=box), replace(ideal, mask=None, box=box), gone)
    found = rectified_labels(LabelledFrame(Frame(drawn.frame.image, camera), labels))
    assert len(found.labels) == 2
    for label in found.labels:
        np.testing.assert_allclose(label.box, ideal.box, atol=2)
        assert label.pose is pose
    assert (found.labels[0].mask & ideal.mask).sum() > 0.93 * ideal.mask.sum()
    assert found.labels[1].mask is None


def test_the_buffer_keeps_straight_pictures():
    camera = LENSES['plumb_bob 5']
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    buffer = FrameBuffer(10_000_000)
    assert buffer.admit(Frame(image, camera, 7, 'lens'))
    kept = buffer.sample(1, np.random.default_rng(0))[0]
    assert kept.intrinsics == pinhole(camera) and (kept.stamp, kept.frame_id) == (7, 'lens')
    np.testing.assert_array_equal(kept.image, straightened(image, camera))
