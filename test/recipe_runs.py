# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Small networks and batches of noise, to take steps of a recipe with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sim2real_da.adaptation import Adaptation
from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.networks.detector import Detector, detector_targets
from sim2real_da.networks.direct_pose import DirectPoseNetwork
from sim2real_da.networks.pose import DirectTargets, PoseTargets
from sim2real_da.objectives import Batch
from sim2real_da.recipes import Recipe

BOXES = np.array([[8.0, 8.0, 40.0, 40.0], [24.0, 32.0, 60.0, 56.0]])


def small_network(kind: str) -> nn.Module:
    """Return an untrained network for two classes."""
    if kind == 'classifier':
        return Classifier(2, channels=(4, 8), hidden=16)
    return DirectPoseNetwork(2, width=16, hidden=32) if kind == 'pose' else Detector(2, input_size=(64, 64), width=16)


def batches(kind: str, count: int = 4) -> tuple[Batch, Batch]:
    """Return a labelled source and an unlabelled, darker target batch."""
    generator = torch.Generator().manual_seed(0)
    side = 28 if kind == 'classifier' else 64
    source, target = torch.rand(2, count, 3, side, side, generator=generator)
    classes = torch.arange(count) % 2
    if kind == 'classifier':
        return Batch(source, ClassTargets(classes)), Batch(0.5 * target)
    if kind == 'pose':
        turns = torch.eye(3).expand(count, 1, 3, 3)
        cloud = torch.rand(count, 16, 3, generator=generator) - 0.5
        own = DirectTargets(turns[:, 0], torch.zeros(count, 2), torch.zeros(count), cloud, turns)
        return Batch(source, PoseTargets(classes, own)), Batch(0.5 * target)
    labels = detector_targets([BOXES] * count, [np.array([0, 1])] * count, (64, 64), 2, [None] * count)
    return Batch(source, labels), Batch(0.5 * target)


def take_steps(recipe: Recipe, kind: str, count: int = 2, length: int | None = 10,
               network: nn.Module | None = None) -> tuple[Adaptation, list[dict[str, float]]]:
    """Take some steps and return the run and what it reported.

    :param length: of the run; None for a stream
    """
    run = Adaptation(network or small_network(kind), kind, recipe, steps=length)
    source, target = batches(kind)
    return run, [run.step(source, target) for _ in range(count)]


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    """Return which parameters and buffers differ from a copy of the state."""
    return {name for name, now in module.state_dict().items() if not torch.equal(now, before[name])}


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}
