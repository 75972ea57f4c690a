# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Deep CORAL: closed forms, gradient, and silence where there is no covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from recipe_runs import batches, take_steps

from sim2real_da.networks.classifier import ClassifierOutput
from sim2real_da.objectives import Coral, Outputs
from sim2real_da.objectives.coral import coral_distance, covariance
from sim2real_da.recipes import load_recipe


def outputs(features: torch.Tensor, source_count: int) -> Outputs:
    return Outputs(ClassifierOutput(torch.zeros(0, 2), []), batches('classifier')[0].targets,
                   [features[:, :, None, None]], source_count, 0)


def test_covariance_is_the_unbiased_one():
    rows = torch.randn(9, 4, dtype=torch.float64)
    np.testing.assert_allclose(covariance(rows).numpy(), np.cov(rows.numpy(), rowvar=False), rtol=1e-10)


def test_closed_forms():
    rows = torch.randn(6, 3)
    assert float(coral_distance(rows, rows.clone())) == 0
    assert float(coral_distance(rows, rows + 5)) == pytest.approx(0, abs=1e-9)  # means are left alone
    # variances 2 and 8 along the first of two axes: (2 - 8)^2 / (4 * 2^2)
    short, long = torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[2.0, 0], [-2, 0]])
    assert float(coral_distance(short, long)) == pytest.approx(36 / 16)


def test_gradient():
    pair = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5)]
    assert torch.autograd.gradcheck(coral_distance, pair)


def test_weight_and_silence_without_two_samples_of_each():
    features = torch.randn(6, 3)
    loss = Coral((3,), weight=7.0).losses(outputs(features, 4))['coral']
    assert float(loss) == pytest.approx(7 * float(coral_distance(features[:4], features[4:])))
    for count in (1, 5, 6):
        assert Coral((3,)).losses(outputs(features, count)) == {}


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
def test_a_step_of_the_recipe(kind):
    _, reports = take_steps(load_recipe('coral'), kind)
    assert reports[1]['coral'] > 0 and all(math.isfinite(v) for v in reports[1].values())
    assert 'skipped' not in reports[1]
