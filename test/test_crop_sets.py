# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Stored crops: what is behind the object, labels that fit, and a score that knows symmetries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import rendered_set

from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.crop_sets import CropBatches, cut_crops, of_classes, score
from sim2real_da.networks.direct_pose import DirectOutput
from sim2real_da.networks.pose import build_pose_network


@pytest.fixture(scope='module')
def dataset(tmp_path_factory) -> BopDataset:
    return BopDataset(rendered_set(tmp_path_factory.mktemp('set'), scenes=1, frames=4), 'train')


@pytest.fixture(scope='module')
def objects(dataset):
    from helpers import box_model
    return {'box': box_model('box')}


@pytest.fixture
def cutter(dataset, objects, monkeypatch):
    monkeypatch.setattr(dataset, 'objects', lambda: objects)
    return lambda **options: cut_crops(dataset, dataset.ids(), 64, np.random.default_rng(0), **options)


def test_backgrounds(cutter):
    black, rendered = cutter(background='black', jitter=False), cutter(jitter=False)
    photo = np.full((300, 300, 3), (10, 200, 30), np.uint8)
    green = cutter(background='photographs', photos=[photo], jitter=False)
    inside, outside = black.masks == 255, black.masks == 0
    assert len(black) == 4 and inside.any() and outside.any()
    assert black.images[outside].max() == 0 and np.array_equal(black.images[inside], rendered.images[inside])
    assert (green.images[outside] == (10, 200, 30)).all() and np.array_equal(green.images[inside], black.images[inside])
    assert len(cutter(limit=2)) == 2


@pytest.mark.parametrize(('options', 'says'), [
    ({'background': 'pink'}, "background 'pink', expected one of black"),
    ({'background': 'photographs'}, 'no photographs were given')])
def test_bad_input_is_named(cutter, options, says):
    with pytest.raises(ValueError, match=says):
        cutter(**options)


def test_batches_train_the_network_and_hold_masks(cutter, objects):
    crops = cutter()
    images, targets, masks = CropBatches(crops, objects, effects=True).batch(np.array([0, 2]), np.random.default_rng(0))
    assert images.shape == (2, 3, 64, 64) and masks.shape == (2, 1, 64, 64) and targets.count == 2
    losses = build_pose_network(1)(images).loss(targets)
    assert all(torch.isfinite(v) for v in losses.values())


class Knows(torch.nn.Module):
    """Says the truth, turned by some degrees, and the class."""

    def __init__(self, crops, degrees: float, wrong: bool = False) -> None:
        super().__init__()
        from scipy.spatial.transform import Rotation
        turned = crops.rotations @ Rotation.from_euler('z', degrees, degrees=True).as_matrix()
        self.rotation, self.wrong = torch.from_numpy(turned).float(), wrong

    def forward(self, images: torch.Tensor) -> DirectOutput:
        count = len(images)
        logits = torch.tensor([[0.0, 5.0, 9.0] if self.wrong else [5.0, 0.0, 9.0]] * count)
        return DirectOutput(self.rotation[:, None].expand(-1, 2, -1, -1), torch.zeros(count, 2, 2),
                            torch.zeros(count, 2), torch.zeros(count, 2, 3), logits, [], 64)


def test_score_counts_symmetric_rotations_as_right_and_none_is_no_answer(cutter, objects):
    crops = cutter(jitter=False)
    two = {**objects, 'other': objects['box']}
    found = score(Knows(crops, 30), crops, two)
    assert found['accuracy'] == 1 and found['mean_angle_deg'] == pytest.approx(30, abs=0.1)
    assert score(Knows(crops, 0, wrong=True), crops, two)['accuracy'] == 0
    flips = np.stack([np.eye(4), np.diag([-1.0, -1, 1, 1])])
    symmetric = {'box': replace(objects['box'], symmetries=flips), 'other': objects['box']}
    assert score(Knows(crops, 175), crops, symmetric)['mean_angle_deg'] == pytest.approx(5, abs=0.1)


def test_some_classes(cutter):
    crops = cutter()
    assert len(of_classes(crops, [0])) == len(crops) and len(of_classes(crops, [1])) == 0
