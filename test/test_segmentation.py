# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union, worked by hand, and masks drawn from poses against the simulator's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import box_model, labelled_frame

from sim2real_da.evaluation.segmentation import confusion, intersection_over_union, score_segmentation
from sim2real_da.networks.detector import BACKGROUND, Detector, DetectorOutput, detector_targets
from sim2real_da.samples import Intrinsics, LabelledFrame, Pose

# unequal focal lengths and a principal point far from the middle: a sign or axis mixed up cannot pass
CAMERA = Intrinsics(320, 240, 290.0, 310.0, 190.0, 95.0)


def test_a_hand_worked_map():
    true = np.array([[0, 0, 1, 1], [0, 2, 2, -1]])
    said = np.array([[0, 1, 1, 1], [0, 2, 0, 2]])
    counts = confusion(said, true, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    found = intersection_over_union(counts)
    # background: 2 of 3 + 1 said wrongly; class 1: 2 of 2 + 1; class 2: 1 of 2; class 3 is neither there nor said
    assert found[:3].tolist() == [2 / 4, 2 / 3, 1 / 2] and np.isnan(found[3])


class Says(Detector):
    """Says one class everywhere."""

    def forward(self, image: torch.Tensor) -> DetectorOutput:
        height, width = image.shape[-2] // 4, image.shape[-1] // 4
        semantic = torch.zeros(len(image), 2, height, width)
        semantic[:, 1] = 3  # odds of 20; the background's are ten times what logits say
        return DetectorOutput(torch.zeros(len(image), 1, height, width), torch.ones(len(image), 4, height, width),
                              semantic, [])


def test_where_the_loss_rests_the_map_says_how_often_a_class_is_there():
    """Nine cells in ten are background, whose weight is a tenth: logits end at even odds, probabilities at nine."""
    true = np.eye(1, 10, dtype=int).reshape(2, 5)
    targets = detector_targets([np.zeros((0, 4))], [np.zeros(0, int)], (20, 8), 1, [true])
    share = torch.tensor([BACKGROUND * 0.9, 0.1]).log()[None, :, None, None].expand(1, 2, 2, 5).clone()
    share.requires_grad_()
    resting = DetectorOutput(torch.zeros(1, 1, 2, 5), torch.ones(1, 4, 2, 5), share, [])
    resting.loss(targets)['semantic'].backward()
    assert share.grad.sum(dim=(0, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(resting.probabilities()['semantic'][0, :, 0, 0], torch.tensor([0.9, 0.1]))


def test_the_detectors_map_is_scored_at_its_own_resolution():
    model = box_model('box')
    pose = Pose(np.array([0, 0, 0, 1.0]), np.array([0, 0, 0.5]))
    labelled = labelled_frame(np.random.default_rng(0), model, pose)
    mask = np.zeros((240, 320), bool)
    mask[:120] = True  # half of the picture: IoU 1/2 for the class that is said everywhere, 0 for background
    half = LabelledFrame(labelled.frame, (replace(labelled.labels[0], mask=mask),))
    found = score_segmentation(Says(1), [half], ['box'])
    assert found == {'miou': 0.25, 'frames': 1, 'iou': {'background': 0.0, 'box': 0.5}}
    bare = LabelledFrame(labelled.frame, (replace(labelled.labels[0], mask=None),))
    with pytest.raises(ValueError, match='a label without a mask'):
        score_segmentation(Says(1), [bare], ['box'])
    with pytest.raises(ValueError, match='no frames'):
        score_segmentation(Says(1), [], ['box'])


@pytest.fixture(scope='module')
def drawn():
    """Frames of the tools that nothing unlabelled hides."""
    pytest.importorskip('mujoco', reason='the simulator needs MuJoCo: pip install mujoco')
    from sim2real_da.simulation.objects import load_objects
    from sim2real_da.simulation.randomisation import Randomisation
    from sim2real_da.simulation.simulator import Simulator

    objects = load_objects('tools')
    simulator = Simulator(objects, CAMERA, seed=(3, 0), randomisation=Randomisation(distractors=False))
    frames = [simulator.sample() for _ in range(3)]
    simulator.close()
    return objects, frames


def test_masks_from_poses_are_those_of_the_simulator(drawn):
    from sim2real_da.simulation.pose_masks import PoseMasks

    objects, frames = drawn
    masks, seen = PoseMasks(objects), 0
    for labelled in frames:
        bare = LabelledFrame(labelled.frame, tuple(replace(label, mask=None) for label in labelled.labels))
        for label, truth in zip(masks.masked(bare).labels, labelled.labels):
            if truth.mask.sum() < 100:
                continue
            assert (label.mask & truth.mask).sum() / (label.mask | truth.mask).sum() > 0.9, label.name
            seen += 1
    assert seen >= 5
    # objects of the frame before are gone
    alone = LabelledFrame(frames[0].frame, frames[0].labels[:1])
    assert masks.masked(alone).labels[0].mask.sum() >= frames[0].labels[0].mask.sum()
    masks.close()


def test_objects_are_drawn_over_a_picture_where_they_are(drawn):
    from sim2real_da.simulation.pose_masks import PoseMasks

    objects, frames = drawn
    masks, pink = PoseMasks(objects), np.full_like(frames[0].frame.image, (255, 0, 255))
    labelled = LabelledFrame(replace(frames[0].frame, image=pink), frames[0].labels)
    painted = masks.drawn(labelled)
    on = np.any([label.mask for label in painted.labels], axis=0)
    assert (painted.frame.image[~on] == pink[~on]).all() and (pink == (255, 0, 255)).all()
    # colours are the objects' own: as in the simulator's picture of the same scene, whatever its light
    seen = on & np.any([label.mask for label in labelled.labels], axis=0)
    real, shown = (x[seen].astype(float) - x[seen].mean(axis=0) for x in (frames[0].frame.image, painted.frame.image))
    assert (real * shown).sum() > 0.6 * np.sqrt((real**2).sum() * (shown**2).sum())
    for label, other in zip(painted.labels, masks.masked(labelled).labels):
        np.testing.assert_array_equal(label.mask, other.mask)
    empty = LabelledFrame(labelled.frame, ())
    assert masks.drawn(empty).frame.image is pink
    masks.close()


def test_labels_that_cannot_be_drawn_are_named(drawn):
    from sim2real_da.simulation.pose_masks import PoseMasks

    objects, frames = drawn
    masks, label = PoseMasks(objects), frames[0].labels[0]
    with pytest.raises(ValueError, match="object 'spoon' is not known"):
        masks.masked(LabelledFrame(frames[0].frame, (replace(label, name='spoon'),)))
    with pytest.raises(ValueError, match='labelled twice'):
        masks.masked(LabelledFrame(frames[0].frame, (label, label)))
