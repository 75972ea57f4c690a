# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Direct regression: what a crop shows of a pose and back again, and a loss that is blind to symmetries."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, labelled_frame
from scipy.spatial.transform import Rotation

from sim2real_da.evaluation.pose_error import angle_and_position
from sim2real_da.geometry import project, transform_points
from sim2real_da.networks.batches import PoseBatcher
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform
from sim2real_da.networks.direct_pose import DirectOutput, DirectPoseNetwork, crop_pose, pose_of, rotation_from_6d
from sim2real_da.networks.estimator import poses
from sim2real_da.networks.pose import (
    AGREEING,
    VIEWS,
    DirectTargets,
    PoseTargets,
    apparent_box,
    build_pose_network,
    combined,
    mean_pose,
)
from sim2real_da.samples import Pose

POSE = Pose(Rotation.from_euler('xyz', [200, 20, 40], degrees=True).as_quat(), np.array([0.12, -0.07, 0.6]))
SURE = np.log([0.01, 0.02, 0.05])  # centre in crop sides, size, rotation in radians


def cut_around(model, pose, turn=0.0):
    pixels = project(transform_points(model.points, pose), CAMERA)
    return crop_transform(np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]), 64, turn)


def shown(model, pose, transform):
    return crop_pose(pose.matrix()[None], CAMERA.matrix()[None], transform[None],
                     (model.minimum + model.size / 2)[None], np.array([model.diameter]), 64)


@pytest.mark.parametrize('turn', [0.0, 0.6, -1.2])
def test_the_pose_comes_back_from_what_the_crop_shows(turn):
    model = box_model('box')
    transform = cut_around(model, POSE, turn)
    rotation, centre, size = (a[0] for a in shown(model, POSE, transform))
    back, _ = pose_of(rotation, centre, float(size), SURE, transform, model, CAMERA, 64)
    angle, position = angle_and_position(back, POSE, model)
    assert angle < 1e-4 and position < 1e-6


def test_an_object_that_keeps_its_look_keeps_its_allocentric_rotation():
    """Carried around the camera and turned with the ray, an object looks the same, and the crop says the same."""
    model = box_model('box')
    transform = crop_transform([150, 60, 230, 120], 64)
    carry = Rotation.from_euler('y', 0.2)
    moved = Pose((carry * Rotation.from_quat(POSE.quaternion)).as_quat(), carry.apply([0, 0, 0.6]))
    ahead = Pose(POSE.quaternion, np.array([0, 0, 0.6]))
    np.testing.assert_allclose(shown(model, moved, transform)[0], shown(model, ahead, transform)[0], atol=1e-9)


def test_six_numbers_always_make_a_rotation():
    made = rotation_from_6d(torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    torch.testing.assert_close(made @ made.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(made), torch.ones(50, dtype=torch.float64))


def answer(model, pose, transform, turn=None, spread=SURE):
    """Return an output that says exactly this pose, its rotation turned in the object's frame, and its targets."""
    rotation, centre, size = shown(model, pose, transform)
    said = rotation if turn is None else rotation @ turn[:3, :3]
    to = [torch.from_numpy(np.asarray(a)).float() for a in (said, rotation, centre, size, model.points[::32], spread)]
    output = DirectOutput(to[0][:, None], to[2][:, None], to[3][:, None], to[5][None, None],
                          torch.tensor([[9.0, -9.0]]), [], 64)
    turns = torch.from_numpy(model.symmetries[:, :3, :3]).float()
    return output, PoseTargets(torch.tensor([0]), DirectTargets(to[1], to[2], to[3], to[4][None], turns[None]))


@pytest.mark.parametrize('symmetric', [True, False])
def test_the_loss_forgives_a_symmetry_and_nothing_else(symmetric):
    half = np.eye(4)
    half[:3, :3] = Rotation.from_euler('z', 180, degrees=True).as_matrix()
    model = replace(box_model('box'), symmetries=np.stack([np.eye(4), half]) if symmetric else np.eye(4)[None])
    output, targets = answer(model, POSE, cut_around(model, POSE), half)
    losses = output.loss(targets)
    assert float(losses['centre']) < 1e-5 and float(losses['size']) < 1e-5
    assert (float(losses['rotation']) < 1e-4) == symmetric


def test_the_likelihood_is_best_at_the_error_made():
    model = box_model('box')
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.3, 0, 0]).as_matrix()
    spreads = np.linspace(0.05, 0.6, 56)
    values = []
    for spread in spreads:
        output, targets = answer(model, POSE, cut_around(model, POSE), turn, np.log([0.01, 0.02, spread]))
        values.append(float(output.loss(targets)['spread']))
    assert spreads[int(np.argmin(values))] == pytest.approx(0.3 / 3**0.5, abs=0.011)  # three axes share the variance


def test_the_covariance_is_what_noise_on_the_numbers_makes():
    model = replace(box_model('box'), minimum=np.array([0.1, -0.03, -0.02]))  # the CAD origin lies outside the object
    model = replace(model, points=model.points + np.float32([0.15, 0, 0]))
    transform = cut_around(model, POSE)
    rotation, centre, size = (a[0] for a in shown(model, POSE, transform))
    spread = np.log([0.004, 0.01, 0.02])
    pose, covariance = pose_of(rotation, centre, float(size), spread, transform, model, CAMERA, 64)
    rng, errors = np.random.default_rng(0), []
    for _ in range(4000):
        noisy = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix() @ rotation
        other, _ = pose_of(noisy, centre + rng.normal(0, 0.004, 2), float(size) + rng.normal(0, 0.01), spread,
                           transform, model, CAMERA, 64)
        turn = Rotation.from_quat(other.quaternion) * Rotation.from_quat(pose.quaternion).inv()
        errors.append(np.concatenate([other.translation - pose.translation, turn.as_rotvec()]))
    seen = np.cov(np.array(errors).T)
    assert np.abs(seen - covariance).max() < 0.08 * np.abs(covariance).max()
    np.testing.assert_allclose(np.diag(seen), np.diag(covariance), rtol=0.12)
    assert np.linalg.eigvalsh(covariance)[0] > 0


def test_what_cannot_be_trusted_has_no_pose():
    model = box_model('box')
    transform = cut_around(model, POSE)
    rotation, centre, size = (a[0] for a in shown(model, POSE, transform))
    guess = np.log([0.01, 0.02, np.radians(80)])
    assert pose_of(rotation, centre, float(size), guess, transform, model, CAMERA, 64) is None
    assert pose_of(rotation, centre + 2, float(size), SURE, transform, model, CAMERA, 64) is None
    assert pose_of(rotation, centre, float(size) - 9, SURE, transform, model, CAMERA, 64) is None
    assert pose_of(rotation, centre, float(size), SURE * np.nan, transform, model, CAMERA, 64) is None


def test_a_batch_and_its_labels_agree():
    """What the batcher calls the truth is the pose it was cut from, through jitter and turn."""
    model = box_model('box')
    frames = [labelled_frame(np.random.default_rng(0), model, Pose(POSE.quaternion, np.array([0.02, -0.03, 0.6])))]
    network = DirectPoseNetwork(1)
    crops, targets, _ = PoseBatcher({'box': model}, network, turn=45).batch(frames, np.random.default_rng(1), 4)
    assert crops.shape == (1, 3, 64, 64) and isinstance(targets.of, DirectTargets)
    bright = (crops[0].min(dim=0).values > 0.95).nonzero().float().mean(dim=0)  # row, column of the silhouette's middle
    centre = targets.of.centre[0] * 64 + 31.5
    assert abs(float(bright[1] - centre[0])) < 3 and abs(float(bright[0] - centre[1])) < 3


def test_colours_change_in_every_crop_with_what_shows_the_object():
    model, asked = box_model('box'), []

    def grey(crop, mask, other, rng):
        asked.append((crop, mask, other))
        return np.full_like(crop, 128)

    frames = [labelled_frame(np.random.default_rng(n), model, Pose(POSE.quaternion, np.array([0.0, 0, 0.6])))
              for n in range(10)]
    batcher = PoseBatcher({'box': model}, DirectPoseNetwork(1), turn=45, recolouring=grey)
    crops, targets, masks = batcher.batch(frames, np.random.default_rng(1), 10)
    assert len(asked) == 10 and float(crops.min()) == float(crops.max()) == pytest.approx(128 / 255)
    assert targets.classes.tolist() == [0] * 9 + [1]
    for (crop, mask, other), kind in zip(asked, targets.classes.tolist()):
        white = crop.min(axis=2) > 250
        assert ((mask > 127) & white).sum() > 0.9 * white.sum() if kind == 0 else not mask.any()
        assert any(other is x.frame.image for x in frames)
    np.testing.assert_allclose(masks[:, 0].numpy() * 255, np.stack([mask for _, mask, _ in asked]), atol=1e-3)
    # without masks nothing is known of what is object and what is not
    bare = [replace(x, labels=tuple(replace(label, mask=None) for label in x.labels)) for x in frames]
    assert batcher.batch(bare, np.random.default_rng(1), 10)[2] is None
    assert len(asked) == 10


def test_the_mean_of_poses_counts_symmetric_ones_as_alike():
    half_turn = np.stack([np.eye(4), np.diag([-1.0, -1, 1, 1])])
    plain = box_model('box')
    model = replace(plain, symmetries=half_turn, minimum=plain.minimum + [0.01, 0, 0])
    truth = Rotation.from_euler('xyz', [100, 20, 30], degrees=True)

    def pose(off: float, flipped: bool) -> Pose:
        turned = truth * Rotation.from_euler('x', off, degrees=True)
        turned = turned * Rotation.from_euler('z', 180.0 * flipped, degrees=True)
        middle = model.minimum + model.size / 2
        return Pose(turned.as_quat(), np.array([0.1, 0.2, 0.7]) - turned.apply(middle))

    mean = mean_pose([pose(8, False), pose(-8, True), pose(0, True)], model)
    middle = transform_points((model.minimum + model.size / 2)[None], mean)[0]
    np.testing.assert_allclose(mean.matrix()[:3, :3], truth.as_matrix(), atol=1e-3)
    np.testing.assert_allclose(middle, [0.1, 0.2, 0.7], atol=1e-9)
    with pytest.raises(ValueError, match='no poses'):
        mean_pose([], model)


def test_a_pose_needs_half_of_the_views():
    pose = Pose(np.array([0, 0, 0, 1.0]), np.array([0, 0, 0.5]))
    solved = (pose, np.eye(6))
    assert combined([solved, None, None], box_model('box')) is None
    found = combined([solved, None, (pose, 3 * np.eye(6))], box_model('box'))
    np.testing.assert_allclose(found[0].matrix(), pose.matrix())
    np.testing.assert_allclose(found[1], 2 * np.eye(6))


def test_the_number_of_views_is_kept():
    network = build_pose_network(1, 'direct', views=1)
    assert network.views == 1 and build_pose_network(**network.config).views == 1
    assert build_pose_network(1, 'direct').views == 3 and build_pose_network(1, 'dense').views == 1
    with pytest.raises(ValueError, match='10 views, expected 1 to 9'):
        build_pose_network(1, 'direct', views=10)
    with pytest.raises(ValueError, match='at one crop; expected views 1'):
        build_pose_network(1, 'dense', views=3)


def test_views_are_different_crops_and_teachers_ask_the_first_three():
    assert len({(round(turn, 3), padding) for turn, padding in VIEWS}) == len(VIEWS) == 9
    assert VIEWS[:3] == AGREEING, 'a mean of more crops does not change which poses become labels'


def test_weights_look_from_more_views_without_training():
    bundle = Bundle.create({'box': box_model('box')})
    bundle.covariance_factors, before = (2.0, 2.0), bundle.pose
    crop = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    bundle.look_from(9)
    assert bundle.pose.views == bundle.pose.config['views'] == 9 and before.views == 3
    assert bundle.covariance_factors == (1.0, 1.0), 'they were fitted to the errors of three'
    torch.testing.assert_close(bundle.pose.eval()(crop).rotation, before.eval()(crop).rotation)


def test_the_apparent_box_is_as_large_as_the_diameter_at_that_distance():
    model = box_model('box')
    ahead = Pose(POSE.quaternion, np.array([0, 0, 0.5]) - Rotation.from_quat(POSE.quaternion).apply(
        model.minimum + model.size / 2))
    box = apparent_box(ahead, model, CAMERA)
    np.testing.assert_allclose(box[2:] - box[:2], CAMERA.fx * model.diameter / 0.5)
    np.testing.assert_allclose((box[2:] + box[:2]) / 2, [CAMERA.cx, CAMERA.cy])


@pytest.mark.parametrize('views', [2, 9])
def test_a_second_look_is_cut_around_the_first_pose(views: int):
    model, image = box_model('box'), np.zeros((240, 320, 3), np.uint8)
    better = Pose(POSE.quaternion, POSE.translation * 1.01)
    asked = []

    class Output:
        def poses(self, rows, classes, transforms, models, intrinsics):
            asked.extend(transforms)
            return [(better, np.eye(6)) for _ in rows]

    network = build_pose_network(1, 'direct', views=views, looks=2)
    first = SimpleNamespace(poses=lambda rows, *rest: [(POSE, np.eye(6)), None])
    network.forward = lambda crops: Output()
    boxes = [np.array([0.0, 0, 50, 50])] * 2
    cuts = [crop_transform(box, 64) for box in boxes]
    seen, nothing = poses(network, first, image, CAMERA, [0, 1], boxes, cuts, [0, 0], [model])
    np.testing.assert_allclose(seen[0].matrix(), better.matrix(), atol=1e-12)
    assert nothing is None, 'an object without a first pose is not looked at again'
    around = apparent_box(POSE, model, CAMERA)
    np.testing.assert_allclose(asked, [crop_transform(around, 64, *view) for view in VIEWS[:views]])


def test_a_network_that_looks_twice_is_trained_on_both_kinds_of_crops():
    model = box_model('box')
    frames = [labelled_frame(np.random.default_rng(0), model, Pose(POSE.quaternion, np.array([0.02, -0.03, z])))
              for z in (0.5, 0.6)]
    network = build_pose_network(1, 'direct', looks=2)
    assert build_pose_network(**network.config).looks == 2
    batcher = PoseBatcher({'box': model}, network, turn=0)
    boxes = [batcher.batch(frames, np.random.default_rng(seed), 2)[1].of for seed in range(40)]
    # the size around the pose says what was drawn: evenly up to 1.5 times, neither larger nor smaller on average
    again = np.array([float(of.size[1]) for of in boxes]) + np.log(1.4)
    assert 0.2 < np.abs(again).max() <= 0.4001 and abs(again.mean()) < 0.1
    assert np.abs(np.array([of.centre[1].numpy() for of in boxes])).max() <= 0.1 / 1.4 * np.exp(0.4) + 1e-6
    with pytest.raises(ValueError, match='3 looks, expected 1 or 2'):
        build_pose_network(1, 'direct', looks=3)
