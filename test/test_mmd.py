# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Maximum mean discrepancy: closed forms, gradient, what is compared, and that it brings two sets together."""

from __future__ import annotations

import math

import pytest
import torch
from recipe_runs import batches, take_steps

from sim2real_da.networks.classifier import ClassifierOutput
from sim2real_da.objectives import Mmd, Outputs
from sim2real_da.objectives.features import LIMIT, vectors
from sim2real_da.objectives.mmd import WIDTHS, discrepancy
from sim2real_da.recipes import load_recipe


def outputs(features: list[torch.Tensor], source_count: int) -> Outputs:
    return Outputs(ClassifierOutput(torch.zeros(0, 2), []), batches('classifier')[0].targets, features, source_count, 0)


def test_equal_sets_give_exactly_zero():
    for rows in (torch.randn(7, 5), torch.randn(60, 128)):
        assert float(discrepancy(rows, rows.clone())) == 0


def test_single_vectors_closed_form():
    # mean k = 1 within each set; between them exp(-25 / 2w) at distance 5
    near, far = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert float(discrepancy(near, far, [2.0])) == pytest.approx(2 - 2 * math.exp(-25 / 4), abs=1e-6)
    expected = sum(2 - 2 * math.exp(-25 / (2 * width)) for width in WIDTHS)
    assert float(discrepancy(near, far)) == pytest.approx(expected, rel=1e-5) and len(WIDTHS) == 19


def test_pairs_of_a_sample_with_itself_count():
    source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0]])
    k = math.exp(-4 / 2)
    assert float(discrepancy(source, target, [1.0])) == pytest.approx((1 + k) / 2 + 1 - (1 + k), abs=1e-6)


def test_gradient_and_direction():
    source, target = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    wide = WIDTHS[5:]  # finite differences cannot follow kernels narrower than their step
    assert torch.autograd.gradcheck(
        lambda s, t: discrepancy(s, t, wide), (source.requires_grad_(), target.requires_grad_()))
    apart = (torch.randn(30, 3) + 4).requires_grad_()
    fixed = torch.randn(30, 3)
    before = discrepancy(apart, fixed)
    before.backward()
    assert torch.isfinite(apart.grad).all()
    assert discrepancy(apart.detach() - 0.5 * apart.grad / apart.grad.norm(), fixed) < before.detach()


def test_samples_are_means_of_maps_and_places_are_limited():
    features = torch.randn(5, 3, 4, 4)
    (source, target), = vectors(outputs([features], 2), 'sample')
    torch.testing.assert_close(torch.cat([source, target]), features.mean(dim=(2, 3)))
    large = torch.arange(3.0 * 400).reshape(3, 1, 20, 20)
    (source, target), = vectors(outputs([large], 2), 'location')
    assert source.shape == target.shape == (LIMIT, 1)
    assert source.max() < 800 <= target.min() and len(source.unique()) == LIMIT
    objective = Mmd((3,), weight=2.0)
    pair = features[:2].mean(dim=(2, 3)), features[2:].mean(dim=(2, 3))
    assert float(objective.losses(outputs([features], 2))['mmd']) == pytest.approx(2 * float(discrepancy(*pair)))
    assert objective.losses(outputs([features], 5)) == {}  # no target sample


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
def test_a_step_of_the_recipe(kind):
    _, reports = take_steps(load_recipe('mmd'), kind)
    assert reports[1]['mmd'] > 0 and all(math.isfinite(v) for v in reports[1].values())
    assert 'skipped' not in reports[1]
