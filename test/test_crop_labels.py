# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher's labels of crops: turning a crop turns its pose, agreement decides, and losses heed it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import rendered_set

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.crop_labels import crop_labels, in_plane, mean_rotation, turned
from sim2real_da.networks.crop_sets import CropBatches, cut_crops, score
from sim2real_da.networks.direct_pose import DirectOutput, DirectPoseNetwork
from sim2real_da.networks.pose import AGREEING, DirectTargets, PoseTargets
from sim2real_da.offline import adapt_crops, crop_target_batch
from sim2real_da.recipes import load_recipe

ANGLES = [angle for angle, _ in AGREEING]
FLIP = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


class Teacher(torch.nn.Module):
    """Gives the pose of two crops as every view of them shows it, with an error in one crop's last view."""

    def __init__(self, rotation: torch.Tensor, centre: torch.Tensor, error: float = 0.0, flip: bool = False) -> None:
        super().__init__()
        self.rotation, self.centre, self.error, self.flip = rotation, centre, error, flip

    def forward(self, images: torch.Tensor) -> DirectOutput:
        rotations = torch.stack([in_plane(a) @ self.rotation for a in ANGLES])  # (V, 2, 3, 3)
        rotations[-1, 1] = in_plane(self.error) @ rotations[-1, 1]
        if self.flip:
            rotations[1] = rotations[1] @ FLIP
        centres = torch.stack([self.centre @ in_plane(a)[:2, :2].T for a in ANGLES])
        count = len(images)
        logits = torch.tensor([[2.0, 1.0, 9.0], [1.0, 4.0, 0.0]]).repeat(len(ANGLES), 1)
        return DirectOutput(rotations.flatten(0, 1)[:, None].expand(-1, 2, -1, -1),
                            centres.flatten(0, 1)[:, None].expand(-1, 2, -1), torch.full((count, 2), -0.4),
                            torch.zeros(count, 2, 3), logits, [], 64)


def labels(teacher: torch.nn.Module, symmetric: bool = False):
    turns = torch.stack([torch.eye(3), FLIP if symmetric else torch.eye(3)]).expand(2, 2, 3, 3)
    return crop_labels(teacher, torch.rand(2, 3, 64, 64), turns, torch.rand(2, 8, 3))


@pytest.fixture
def rotation() -> torch.Tensor:
    from scipy.spatial.transform import Rotation
    return torch.from_numpy(Rotation.from_euler('xyz', [[20, 30, 40], [-70, 10, 120]], True).as_matrix()).float()


CENTRE = torch.tensor([[0.05, -0.02], [0.01, 0.04]])


def test_views_that_agree_give_the_pose_and_none_is_no_answer(rotation):
    found, confidence = labels(Teacher(rotation, CENTRE))
    assert found.classes.tolist() == [0, 1] and found.posed.tolist() == [True, True]
    torch.testing.assert_close(found.of.rotation, rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.of.centre, CENTRE, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.of.size, torch.full((2,), -0.4))
    assert confidence[0] == pytest.approx(math.exp(2) / (math.exp(2) + math.exp(1) + math.exp(9)), rel=1e-4)


@pytest.mark.parametrize(('degrees', 'agree'), [(12.0, True), (18.0, False)])
def test_a_view_that_differs_too_much_is_not_believed(rotation, degrees, agree):
    found, _ = labels(Teacher(rotation, CENTRE, math.radians(degrees)))
    assert found.posed.tolist() == [True, agree]


def test_symmetric_variants_agree(rotation):
    assert not labels(Teacher(rotation, CENTRE, flip=True))[0].posed.any()
    found, _ = labels(Teacher(rotation, CENTRE, flip=True), symmetric=True)
    assert found.posed.all()
    torch.testing.assert_close(found.of.rotation, rotation, atol=1e-5, rtol=0)


def test_mean_rotation_of_two_opposite_turns_is_between_them():
    found = mean_rotation(torch.stack([in_plane(0.3), in_plane(-0.3)])[:, None])
    torch.testing.assert_close(found[0], torch.eye(3), atol=1e-6, rtol=0)


def test_turned_pictures_turn_x_to_y():
    image = torch.zeros(1, 3, 65, 65)
    image[:, :, 30:35, 50:55] = 1  # right of the middle
    made = turned(image, math.pi / 2)  # x to y: below the middle
    assert made[0, 0, 52, 32] == pytest.approx(1) and float(made[0, 0, 32, 52]) == 0


def test_losses_ask_only_for_what_is_believed():
    output = DirectPoseNetwork(2, width=16, hidden=32)(torch.rand(3, 3, 64, 64))
    turns = torch.eye(3).expand(3, 1, 3, 3)

    def loss(rotation: torch.Tensor, classes: list[int], **kept: torch.Tensor) -> dict[str, torch.Tensor]:
        own = DirectTargets(rotation, torch.zeros(3, 2), torch.zeros(3), torch.rand(3, 8, 3, generator=generator()),
                            turns)
        return output.loss(PoseTargets(torch.tensor(classes), own, **kept))

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    right = torch.eye(3).repeat(3, 1, 1)
    wrong = right.clone()
    wrong[2] = FLIP
    kept = {'posed': torch.tensor([True, True, False]), 'sure': torch.tensor([True, False, True])}
    for name, value in loss(right, [0, 1, 0], **kept).items():
        torch.testing.assert_close(value, loss(wrong, [0, 1, 0], **kept)[name])
    assert loss(right, [0, 1, 0])['rotation'] != loss(wrong, [0, 1, 0])['rotation']
    cross_entropy = torch.nn.functional.cross_entropy(output.classes, torch.tensor([0, 1, 0]), reduction='none')
    torch.testing.assert_close(loss(right, [0, 1, 0], **kept)['class'], 0.5 * (cross_entropy[0] + cross_entropy[2]) / 3)


def test_another_network_is_refused():
    with pytest.raises(TypeError, match='network of direct rotations'):
        labels(Classifier(2, 64, (4, 8)))


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    from helpers import box_model
    dataset = BopDataset(rendered_set(tmp_path_factory.mktemp('set'), scenes=1, frames=8), 'train')
    objects = {'box': box_model('box')}
    dataset.objects = lambda: objects
    return cut_crops(dataset, dataset.ids(), 64, np.random.default_rng(0)), objects


def network(seed: int = 0) -> DirectPoseNetwork:
    torch.manual_seed(seed)
    return DirectPoseNetwork(1, width=16, hidden=32)


@pytest.mark.parametrize('name', ['source_continued', 'dann', 'self_training', 'daformer', 'mic', 'pixelda'])
def test_recipes_adapt_a_pose_network_to_bare_crops(name, crops):
    made = adapt_crops(network(), load_recipe(name), CropBatches(*crops), crops[0].images // 2, 2)
    assert not made.network.training and made.course[-1]['step'] == 2 and 'rotation' in made.course[-1]
    assert 0 <= score(made.network, *crops)['mean_angle_deg'] <= 180


def test_without_masks_or_targets_there_is_one_clear_error(crops):
    batches = CropBatches(*crops)
    with pytest.raises(ValueError, match='looks at target pictures, there are none'):
        adapt_crops(network(), load_recipe('dann'), batches, None, 1)
    with pytest.raises(ValueError, match='expected one size'):
        adapt_crops(network(), load_recipe('dann'), batches, crops[0].images[:, :32], 1)


def test_student_sees_a_relit_crop_with_the_labels_of_the_plain_one(crops):
    run = Adaptation(network(), 'pose', load_recipe('self_training'), steps=5)
    images = torch.rand(4, 3, 64, 64)
    batches = CropBatches(*crops)
    batch = crop_target_batch(run, images, batches)
    found, confidence = crop_labels(run.teacher, images, batches.turns, batches.clouds)
    assert not torch.equal(batch.images, images) and torch.equal(batch.targets.classes, found.classes)
    assert torch.equal(batch.targets.sure, confidence >= 0.95)
    assert torch.equal(batch.targets.posed, found.posed & batch.targets.sure)
    weighed = crop_target_batch(Adaptation(network(), 'pose', load_recipe('daformer'), steps=5), images, batches)
    assert weighed.targets.sure is None and torch.equal(weighed.targets.posed, found.posed)
    torch.testing.assert_close(weighed.confidence, confidence)
    control = Adaptation(network(), 'pose', load_recipe('source_continued'), steps=5)
    assert crop_target_batch(control, images, batches).targets is None
