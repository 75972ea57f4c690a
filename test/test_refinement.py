# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Poses of one picture come to lie where outlines are seen, and the network that sees them learns what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_static_scene import CAMERA, FACING, OBJECTS, arrangement, cameras, painted, pose_of
from torch import nn

from sim2real_da.geometry import difference
from sim2real_da.networks import estimator as estimators
from sim2real_da.networks import outline_batches
from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.estimator import Estimator
from sim2real_da.networks.outline import OutlineNetwork, OutlineOutput, OutlineTargets, outline_loss
from sim2real_da.networks.outline_batches import displaced, nearest_equivalent, outline_batch
from sim2real_da.networks.pose import mean_pose
from sim2real_da.networks.refinement import Found, refined
from sim2real_da.outline_strips import COLOURS, HIDDEN, OFFSETS, POINTS, strip
from sim2real_da.outlines import silhouette
from sim2real_da.samples import LabelledFrame, ObjectLabel, ObjectModel, Pose


def labelled(count: int, seed: int) -> list[LabelledFrame]:
    """Pictures of flat objects before clutter, and where the objects are."""
    rng, frames = np.random.default_rng(seed), []
    for number, camera in enumerate(cameras(count, seed)):
        placed = arrangement(seed + number)
        frames.append(LabelledFrame(painted(placed, camera, rng), tuple(
            ObjectLabel(name, np.zeros(4), pose_of(camera @ m)) for name, m in placed.items())))
    return frames


OUTERMOST = 0.15  # pixels: from the middles of a silhouette's outermost cells to where its colour ends


class Seeing(nn.Module):
    """In the network's place where objects are of one colour: an outline is where the colour inside ends."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, strips: torch.Tensor) -> OutlineOutput:
        colours, offsets = strips[:, :COLOURS], torch.tensor(OFFSETS, dtype=torch.float32)
        inside = colours[..., offsets < -3].flatten(2).median(dim=2).values
        other = (colours - inside[:, :, None, None]).abs().amax(dim=1)  # (B, P, O)
        half = other[..., -3:].mean(dim=2, keepdim=True) / 2
        ends = (other[..., :-1] < half) & (other[..., 1:] >= half)  # between an offset and the next
        where = offsets[:-1] + (half - other[..., :-1]) / (other[..., 1:] - other[..., :-1])
        nearest = torch.where(ends, where.abs(), np.inf).argmin(dim=2, keepdim=True)
        found = where.gather(2, nearest)[..., 0] - OUTERMOST
        seen = ends.any(dim=2) & (half[..., 0] > 0.05) & (strips[:, HIDDEN].sum(dim=2) == 0)
        away = (found.abs() * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        return OutlineOutput(torch.where(seen, found, 0.0), torch.where(seen, 0.0, 5.0), torch.log(0.1 + away / 20))


@pytest.fixture()
def network() -> Seeing:
    return Seeing().eval()


def answers(true: Pose, model: ObjectModel, rng: np.random.Generator) -> Found:
    """What a network says: four views 10 degrees, 3 per cent of the distance and 5 mm off, and their mean."""
    views = []
    for _ in range(4):
        turn, shift = rng.normal(size=3), rng.normal(size=2)
        rotation = Rotation.from_rotvec(np.radians(10) * turn / np.linalg.norm(turn)) * Rotation.from_quat(
            true.quaternion)
        middle = model.box_centre(true) * np.exp(0.03 * rng.normal()) + [*0.005 * shift, 0]
        views.append(Pose(rotation.as_quat(), middle - rotation.as_matrix() @ model.middle))
    covariance = np.diag([0.01, 0.01, 0.04, 0.3, 0.3, 0.3])**2
    return Found(model, 0.9, mean_pose(views, model), covariance, views)


def off(pose: Pose, true: Pose, model: ObjectModel) -> np.ndarray:
    """Angle, radians, and distance, share of the true one."""
    error = difference(pose, true, model)
    return np.array([np.linalg.norm(error[3:]), abs(np.linalg.norm(model.box_centre(pose)) / np.linalg.norm(
        model.box_centre(true)) - 1)])


def test_poses_of_one_picture_come_to_lie_on_its_outlines(network):
    rng, before, after = np.random.default_rng(30), [], []
    for frame in labelled(6, 7):
        true = {label.name: label.pose for label in frame.labels}
        found = [answers(true[n], OBJECTS[n], rng) for n in true]
        refinements = refined(found, frame.frame.image, CAMERA, network)
        for one, (pose, covariance) in zip(found, refinements, strict=True):
            before.append(off(one.pose, true[one.model.name], one.model))
            after.append(off(pose, true[one.model.name], one.model))
            assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert (np.median(after, axis=0) < np.median(before, axis=0) * [0.5, 0.7]).all()


def test_an_object_that_looks_larger_than_its_model_is_not_taken_for_nearer(network):
    model, rng = OBJECTS['b'], np.random.default_rng(31)
    # what is larger looks like the model when that is nearer
    larger = replace(FACING, translation=FACING.translation + (1 / 1.06 - 1) * model.box_centre(FACING))
    frame = painted({'b': larger.matrix()}, np.eye(4), rng)
    one = answers(FACING, model, rng)
    depths = [model.box_centre(refined([replace(one, log_size=size)], frame.image, CAMERA, network)[0][0])[2]
              for size in (0.0, np.log(1.06))]
    assert depths[1] == pytest.approx(1.0, abs=0.02)
    assert depths[0] < depths[1] - 0.02


def test_a_pose_whose_outline_cannot_be_seen_stays_as_it_was_found(network):
    model = OBJECTS['b']
    one = answers(FACING, model, np.random.default_rng(32))
    close = Pose(one.pose.quaternion, np.array([0.0, 0.0, 0.06]))  # nearer than its own size
    one = replace(one, pose=close, views=[close])
    grey = np.full((480, 640, 3), 120, np.uint8)
    ((pose, covariance),) = refined([one], grey, CAMERA, network)
    assert difference(pose, close, model) == pytest.approx(np.zeros(6), abs=1e-9)
    assert covariance == pytest.approx(one.covariance)
    assert refined([], grey, CAMERA, network) == []


# what the network sees

def test_a_strip_shows_what_is_along_the_outline():
    model = OBJECTS['b']
    image = np.full((480, 640, 3), (200, 0, 100), np.uint8)
    shape, before = silhouette(model, FACING, CAMERA, 2), silhouette(OBJECTS['c'], FACING, CAMERA)
    own = strip(shape, [], image)
    assert own.channels.shape[1:] == (POINTS, len(OFFSETS))
    assert (own.channels[:COLOURS] == (np.array([200, 0, 100], np.float32) / np.float32(255))[:, None, None]).all()
    assert not own.channels[HIDDEN].any()
    covered = own.channels[HIDDEN + 1]
    assert covered[:, OFFSETS < -1].mean() > 0.99 and covered[:, OFFSETS > 1].mean() < 0.01
    assert (np.linalg.norm(own.normals, axis=1) == pytest.approx(1.0))
    middle = shape.pixels.mean(axis=0)
    assert (((shape.pixels[own.nearest] - middle) * own.normals).sum(axis=1) > 0).all(), 'normals point outward'
    assert 0.05 < strip(shape, [before], image).channels[HIDDEN].mean() < 1
    cut = silhouette(model, replace(FACING, translation=np.array([0.56, 0, 1.0])), CAMERA, 2)
    assert 0.1 < strip(cut, [], image).channels[HIDDEN].mean() < 0.9, 'the picture ends'


def test_targets_are_how_far_the_outline_has_to_move(monkeypatch):
    model, far = OBJECTS['b'], 0.01
    frame = LabelledFrame(painted({'b': FACING.matrix()}, np.eye(4), np.random.default_rng(0)),
                          (ObjectLabel('b', np.zeros(4), FACING),))
    aside = replace(FACING, translation=FACING.translation - [far, 0, 0])
    monkeypatch.setattr(outline_batches, 'displaced', lambda *_: aside)
    strips, targets = outline_batch([frame], OBJECTS, np.random.default_rng(1), 8)
    front = CAMERA.fx * far / (1.0 - model.size[2] / 2)  # pixels, of the face that makes the outline
    # to the right, in the picture or in its mirror image: where the normal says so
    assert targets.offsets.abs().numpy() == pytest.approx(
        front * strips[:, HIDDEN + 2, :, 0].abs().numpy(), abs=0.1 * front)
    right = strips[:, HIDDEN + 2, :, 0] * targets.offsets
    assert ((right > 0.5).any(1) ^ (right < -0.5).any(1)).all() and (right > 0.5).any() and (right < -0.5).any()
    assert targets.log_errors.exp().numpy() == pytest.approx(far / model.diameter)
    # an object that looks a tenth larger than its model looks like that where it is a tenth nearer
    asked = []
    monkeypatch.setattr(outline_batches, 'displaced', lambda true, *_: asked.append(true) or true)
    _, targets = outline_batch([frame], OBJECTS, np.random.default_rng(1), 2, log_sizes={'b': float(np.log(1.1))})
    assert model.box_centre(asked[0]) == pytest.approx(model.box_centre(FACING) / 1.1)
    assert targets.offsets.abs().max() < 1e-3
    hidden = LabelledFrame(frame.frame, (replace(frame.labels[0], visible=0.05),))
    assert outline_batch([hidden], OBJECTS, np.random.default_rng(1), 8) is None


def test_of_poses_that_look_alike_the_nearest_is_asked_for():
    model, rng = OBJECTS['e'], np.random.default_rng(2)
    wrong = displaced(FACING, model, rng)
    turned = wrong.matrix() @ model.symmetries[1]
    equivalent = nearest_equivalent(FACING, pose_of(turned), model)
    assert equivalent.matrix() == pytest.approx(FACING.matrix() @ model.symmetries[1])
    assert nearest_equivalent(FACING, wrong, model).matrix() == pytest.approx(FACING.matrix())


def test_the_network_learns_what_outlines_look_like():
    torch.manual_seed(0)
    rng, frames, small, losses = np.random.default_rng(40), labelled(4, 100), OutlineNetwork(width=4), []
    optimiser = torch.optim.AdamW(small.parameters(), 5e-3)
    for _ in range(40):
        strips, targets = outline_batch(frames, OBJECTS, rng, 24)
        parts = outline_loss(small(strips), targets)
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
        losses.append([float(part.detach()) for part in parts.values()])
    first, last = np.mean(losses[:8], axis=0), np.mean(losses[-8:], axis=0)
    assert (last < first - [0.2, 0.1]).all()


def test_the_loss_is_a_laplace_distributions_and_of_the_error():
    output = OutlineOutput(torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, float(np.log(2))]]), torch.tensor([-1.0]))
    losses = outline_loss(output, OutlineTargets(torch.tensor([[3.0, 1.0]]), torch.tensor([-3.0])))
    assert losses['offsets'] == pytest.approx(((2 / 1 + 0) + (4 / 2 + np.log(2))) / 2)
    assert losses['error'] == pytest.approx(2 - 0.3 / 2)


def test_an_outline_is_closed_wherever_its_first_point_is():
    torch.manual_seed(1)
    network, strips = OutlineNetwork(width=4).eval(), torch.rand(2, 8, POINTS, len(OFFSETS))
    first, turned = network(strips), network(strips.roll(17, dims=2))
    torch.testing.assert_close(turned.offsets, first.offsets.roll(17, dims=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned.log_errors, first.log_errors, rtol=1e-4, atol=1e-4)


# in the weights

def small_bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle.create({'b': OBJECTS['b']}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})


def test_weights_may_have_an_outline_network_and_say_how_large_objects_look(monkeypatch):
    bundle = small_bundle()
    bundle.outline, bundle.log_sizes, bundle.covariance_factors = OutlineNetwork(width=4), {'b': 0.03}, (4.0, 4.0)
    kept = Bundle.from_bytes(bundle.to_bytes())
    assert kept.log_sizes == {'b': 0.03} and kept.outline.config == {'width': 4} and not kept.outline.training
    for name, tensor in bundle.outline.state_dict().items():
        assert torch.equal(kept.outline.state_dict()[name], tensor), name
    asked = []

    def answer(found, image, intrinsics, network):
        assert network is kept.outline
        asked.extend(found)
        return [(FACING, np.eye(6)) for _ in found]

    pose, sure = answers(FACING, OBJECTS['b'], np.random.default_rng(33)).pose, np.eye(6)
    monkeypatch.setattr(estimators, 'refined', answer)
    monkeypatch.setattr(estimators, 'POSE_SCORE', 0.0)
    monkeypatch.setattr(estimators, 'seen', lambda *_: [((pose, sure), None, (pose, sure)) for _ in _[4]])
    image = np.random.default_rng(34).integers(0, 255, (480, 640, 3), np.uint8)
    found = Estimator(kept, score_threshold=0.0).estimate(image, CAMERA)
    assert len(asked) == len(found) > 0 and asked[0].log_size == 0.03 and asked[0].views == [pose, pose]
    assert all((d.pose.translation == FACING.translation).all() for d in found)
    assert found[0].covariance == pytest.approx(4 * np.eye(6)), 'factors are of what is published'
    asked.clear()
    plain = Estimator(kept, score_threshold=0.0, outlines=False).estimate(image, CAMERA)
    assert not asked and plain[0].pose.translation == pytest.approx(pose.translation)


def test_weights_with_an_outline_network_are_not_those_without():
    plain, more = small_bundle(), small_bundle()
    more.outline = OutlineNetwork(width=4)
    with pytest.raises(WeightsError, match=r"another outline architecture \(none\), expected \{'width': 4\}"):
        more.require_same(plain)
    with pytest.raises(WeightsError, match=r"another outline architecture \{'width': 4\}, expected \(none\)"):
        plain.require_same(more)
    more.outline.offset.weight.data.fill_(float('nan'))
    with pytest.raises(WeightsError, match='not finite'):
        Bundle.from_bytes(more.to_bytes())
    more.outline = OutlineNetwork(width=4)
    more.outline.config = {'width': 6}
    with pytest.raises(WeightsError, match='the outline does not fit its manifest'):
        Bundle.from_bytes(more.to_bytes())


@pytest.mark.parametrize('wrong', [{'b': 0.5}, {'b': float('nan')}, {'b': 'large'}, ['b']])
def test_sizes_that_are_none_are_refused(wrong):
    bundle = Bundle.create({'b': OBJECTS['b']}, {'width': 8}, {'width': 8, 'hidden': 16})
    bundle.log_sizes = wrong
    with pytest.raises(WeightsError, match='the manifest is incomplete or not understood'):
        Bundle.from_bytes(bundle.to_bytes())
