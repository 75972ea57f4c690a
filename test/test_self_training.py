# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Self-training: what a teacher may label, what the student is asked for, and that it learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, labelled_frame
from scipy.spatial.transform import Rotation
from torch import nn

from sim2real_da.geometry import project, transform_points
from sim2real_da.networks.batches import pseudo_detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform
from sim2real_da.networks.detector import DetectorOutput, detector_loss, detector_targets
from sim2real_da.networks.direct_pose import DirectOutput, crop_pose
from sim2real_da.networks.pseudo_labels import AGREEING, SURE, PseudoLabels, pseudo_labels
from sim2real_da.objectives import Outputs, SelfTraining
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import load_recipe
from sim2real_da.samples import Pose

MODEL = box_model('box')
POSE = Pose(Rotation.from_euler('xyz', [200, 20, 40], degrees=True).as_quat(), np.array([0.02, -0.03, 0.6]))
PIXELS = project(transform_points(MODEL.points, POSE), CAMERA)
BOX = np.concatenate([PIXELS.min(axis=0), PIXELS.max(axis=0)])


class Seer(nn.Module):
    """A detector that finds one box with a given probability."""

    input_size = (320, 240)

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = float(np.log(probability / (1 - probability)))

    def forward(self, image: torch.Tensor) -> DetectorOutput:
        targets = detector_targets([BOX[None]], [np.array([0])], (320, 240), 1, [None])
        heat = torch.where(targets.heat == 1, self.logit, -12.0)
        return DetectorOutput(heat, targets.sides, torch.zeros(1, 2, 60, 80), [])


class Guesser(nn.Module):
    """A pose network that knows the truth in the first view and says it ``wrong`` degrees off in the others."""

    crop_size = 64

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, crops: torch.Tensor) -> DirectOutput:
        said = []
        for (turn, padding), off in zip(AGREEING, (0.0, self.wrong, -self.wrong)):
            transform = crop_transform(BOX, 64, turn, padding)
            rotation, centre, size = crop_pose(POSE.matrix()[None], CAMERA.matrix()[None], transform[None],
                                               np.zeros((1, 3)), np.array([MODEL.diameter]), 64)
            said.append((rotation[0] @ Rotation.from_euler('x', off, degrees=True).as_matrix(), centre[0], size[0]))
        rotation, centre, size = (torch.from_numpy(np.stack(a)).float()[:, None] for a in zip(*said))
        sure, box = torch.full((3, 1, 3), -3.0), torch.tensor([[9.0, -9.0]] * 3)
        return DirectOutput(rotation, centre, size, sure, box, [], 64)


def labels(probability: float, wrong: float) -> PseudoLabels:
    teacher = Bundle(Seer(probability), Guesser(wrong), {'box': MODEL})
    return pseudo_labels(teacher, frame(np.random.default_rng(0)))


def test_a_pose_that_all_views_agree_on_is_a_label_and_it_is_their_mean():
    found = labels(0.9, 4.0)
    np.testing.assert_allclose(found.boxes, BOX[None], atol=0.1)
    assert found.names == ('box',) and len(found.doubtful) == 0
    assert len(found.posed) == 1
    # four degrees to one side and four to the other
    np.testing.assert_allclose(found.posed[0].pose.matrix(), POSE.matrix(), atol=1e-3)


def test_a_pose_that_views_disagree_on_is_none():
    found = labels(0.9, 40.0)
    assert found.names == ('box',) and found.posed == ()


def test_a_weak_box_is_doubtful_and_no_label():
    found = labels(0.5 * SURE**2, 0.0)
    assert len(found.boxes) == 0 and len(found.doubtful) == 1 and found.posed == ()


def test_beside_an_object_that_is_there_once_the_others_of_its_class_are_background():
    class Twice(Seer):
        def forward(self, image: torch.Tensor) -> DetectorOutput:
            targets = detector_targets([np.stack([BOX, BOX + 80])], [np.array([0, 0])], (320, 240), 1, [None])
            heat = torch.where(targets.heat == 1, self.logit, -12.0)
            heat[..., 40:] -= 0.5  # the second one is a little less likely, and still believed
            return DetectorOutput(heat, targets.sides, torch.zeros(1, 2, 60, 80), [])

    class Silent(Guesser):
        def forward(self, crops: torch.Tensor) -> DirectOutput:
            count = len(crops)
            return DirectOutput(torch.eye(3).expand(count, 1, 3, 3), torch.zeros(count, 1, 2), torch.zeros(count, 1),
                                torch.full((count, 1, 3), 9.0), torch.tensor([[9.0, -9.0]] * count), [], 64)

    teacher = Bundle(Twice(0.9), Silent(0), {'box': MODEL})
    picture = frame(np.random.default_rng(0))
    both, one = pseudo_labels(teacher, picture), pseudo_labels(teacher, picture, unique=True)
    assert len(both.boxes) == 2 and len(one.boxes) == 1 and len(one.doubtful) == 0
    np.testing.assert_allclose(one.boxes[0], BOX, atol=0.5)


def test_nothing_is_asked_of_the_heat_map_near_a_doubtful_box():
    picture = frame(np.random.default_rng(0))
    none = np.zeros((0, 4))
    rng = np.random.default_rng(3)
    for doubtful, costs in ((none, True), (np.array([[0.0, 0, 320, 240]]), False)):
        _, targets = pseudo_detector_batch(
            [PseudoLabels(picture, none, (), doubtful, ())], ['box'], (320, 240), rng, (320, 240))
        loud = DetectorOutput(torch.full((1, 1, 60, 80), 3.0), torch.ones(1, 4, 60, 80), torch.zeros(1, 2, 60, 80), [])
        assert (float(detector_loss(loud, targets)['heat']) > 100) == costs


def test_the_ramp_and_silence_without_labels():
    output = DetectorOutput(torch.zeros(1, 1, 60, 80), torch.ones(1, 4, 60, 80), torch.zeros(1, 2, 60, 80), [])
    targets = detector_targets([BOX[None]], [np.array([0])], (320, 240), 1, [None])
    objective = SelfTraining((1,), weight=2.0, steps=10)
    plain = detector_loss(output, targets)
    for step, factor in ((0, 0.2), (4, 1.0), (9, 2.0), (99, 2.0)):
        made = objective.losses(Outputs(output, targets, [], 1, step, output, targets))
        assert float(made['target_heat']) == pytest.approx(factor * float(plain['heat']), rel=1e-5)
    empty = detector_targets([np.zeros((0, 4))], [np.zeros(0, int)], (320, 240), 1, [None])
    assert objective.losses(Outputs(output, targets, [], 1, 5, output, empty)) == {}
    assert objective.losses(Outputs(output, targets, [], 1, 5)) == {}
    with pytest.raises(TypeError, match='expected PoseTargets'):
        objective.losses(Outputs(output, targets, [], 1, 5, DirectOutput(*[torch.zeros(1)] * 5, [], 64), targets))


def test_a_learner_with_this_recipe_takes_a_step_and_uses_the_labels(monkeypatch):
    torch.manual_seed(0)
    learner = Learner(Bundle.create({'box': MODEL}), load_recipe('self_training'))
    assert learner.needs_target and learner.needs_pseudo_labels
    sure = labels(0.9, 0.0)
    monkeypatch.setattr('sim2real_da.online.learner.pseudo_labels', lambda *_: sure)
    rng = np.random.default_rng(0)
    report = learner.step([labelled_frame(rng, MODEL, POSE) for _ in range(2)], [frame(rng) for _ in range(2)])
    assert {'detector/target_heat', 'detector/target_box', 'pose/target_rotation'} <= set(report)
    assert all(np.isfinite(v) for v in report.values()) and learner.step_count == 1
