# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe of config/recipes takes a step on every network that it trains, and on both backbones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipe_runs import batches, changed, small_network, state
from torch import nn

from sim2real_da.adaptation import Adaptation
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.recipes import load_recipe

RECIPES = [load_recipe(path)
           for path in sorted((Path(__file__).parent.parent / 'config' / 'recipes').glob('*.yaml'))]
CASES = [(recipe, kind, backbone) for recipe in RECIPES for kind in recipe.objectives
         for backbone in ('resnet_tiny', *(('mix_transformer',) if kind != 'classifier' else ()))]


def network_of(kind: str, backbone: str) -> nn.Module:
    if backbone == 'resnet_tiny':
        return small_network(kind)
    if kind == 'detector':
        return Detector(2, backbone, (64, 64), 16)
    return build_pose_network(2, 'direct', backbone=backbone, width=16, hidden=32)


@pytest.mark.parametrize('recipe, kind, backbone', CASES, ids=[f'{r.name}-{k}-{b}' for r, k, b in CASES])
def test_a_step_trains_the_network(recipe, kind, backbone):
    torch.manual_seed(0)
    own = tuple((name, {**options, 'start': 0} if 'start' in options else options)  # all of it, from the first step on
                for name, options in recipe.objectives[kind])
    network = network_of(kind, backbone)
    run = Adaptation(network, kind, replace(recipe, objectives={kind: own}), steps=10)
    source, target = batches(kind, 2)
    source.masks = torch.ones(len(source.images), 1, *source.images.shape[-2:])
    before = state(network)
    report = run.step(source, target if run.needs_target else None)
    assert 'skipped' not in report and report and all(math.isfinite(value) for value in report.values())
    assert any(name.endswith('weight') for name in changed(before, network))
