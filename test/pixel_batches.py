# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Small networks and batches for the tests of pixel-level techniques."""

from __future__ import annotations

import numpy as np
import torch
from helpers import box_model, labelled_frame
from torch import nn

from sim2real_da.networks.batches import PoseBatcher
from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.objectives import Batch
from sim2real_da.samples import Pose

NETWORKS = {
    'classifier': lambda: Classifier(3, size=16, channels=(8, 8), hidden=16),
    'direct': lambda: build_pose_network(1, 'direct', crop_size=32, width=16, hidden=32),
    'dense': lambda: build_pose_network(1, 'dense', crop_size=32, width=16),
}
SIDES = {'classifier': 16, 'direct': 32, 'dense': 32}


def kind(name: str) -> str:
    """Return what a recipe calls this network."""
    return 'classifier' if name == 'classifier' else 'pose'


def batches(name: str, network: nn.Module, count: int = 4) -> tuple[Batch, Batch]:
    """Return a labelled source batch with masks and an unlabelled target batch of other brightness."""
    side = SIDES[name]
    target = Batch(torch.rand(count, 3, side, side) * 0.4)
    mask = torch.zeros(count, 1, side, side)
    mask[..., 4:12, 4:12] = 1
    if name == 'classifier':
        return Batch(torch.rand(count, 3, side, side), ClassTargets(torch.arange(count) % 3), mask), target
    model, rng = box_model('box'), np.random.default_rng(0)
    poses = [Pose(rng.normal(size=4), np.array([0, 0, 0.6])) for _ in range(count)]
    frames = [labelled_frame(rng, model, pose) for pose in poses]
    return Batch(*PoseBatcher({'box': model}, network).batch(frames, rng, count), mask), target


def state(*modules: nn.Module) -> list[torch.Tensor]:
    """Return copies of all parameters and buffers."""
    return [tensor.detach().clone() for module in modules for tensor in module.state_dict().values()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Return whether nothing has changed."""
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
