# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Gradient reversal: sign, schedule and who learns what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sim2real_da.networks.detector import DetectorOutput, DetectorTargets
from sim2real_da.objectives import Dann, Outputs
from sim2real_da.objectives.dann import learning_rate_factor, reversal_strength, reverse_gradient


def test_reversal_is_the_identity_forward():
    x = torch.randn(3, 4)
    assert torch.equal(reverse_gradient(x, 0.7), x)


@pytest.mark.parametrize('strength', [0.0, 0.3, 1.0])
def test_feature_gradient_is_minus_lambda_times_the_gradient_without_reversal(strength):
    torch.manual_seed(0)
    extractor, head = nn.Linear(5, 4).double(), nn.Linear(4, 1).double()
    x = torch.randn(6, 5, dtype=torch.float64)

    def gradients(reverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
        for module in (extractor, head):
            module.zero_grad()
        features = extractor(x)
        head(reverse_gradient(features, strength) if reverse else features).tanh().pow(2).sum().backward()
        return extractor.weight.grad.clone(), head.weight.grad.clone()

    plain_extractor, plain_head = gradients(False)
    reversed_extractor, reversed_head = gradients(True)
    torch.testing.assert_close(reversed_extractor, -strength * plain_extractor)
    # lambda acts on the extractor alone: the discriminator learns at its full rate
    torch.testing.assert_close(reversed_head, plain_head)
    assert plain_extractor.abs().max() > 0


def test_schedule_closed_form():
    assert reversal_strength(0.0) == 0
    assert reversal_strength(0.5) == pytest.approx(0.98661, abs=1e-5)
    assert reversal_strength(0.1) == pytest.approx(0.46212, abs=1e-5)
    assert reversal_strength(5.0, high=0.1) == pytest.approx(0.1)
    assert learning_rate_factor(0.5) * 0.01 == pytest.approx(0.002608, abs=1e-6)


def outputs(features: list[torch.Tensor], step: int) -> Outputs:
    empty = torch.zeros(1, 1, 1, 1)
    targets = DetectorTargets(empty, empty, empty[0], empty[0].long(), 0)
    return Outputs(DetectorOutput(empty, empty, empty, features), targets, features, 2, step)


def test_domain_loss_of_an_undecided_discriminator_is_log_two():
    objective = Dann((3,), steps=10).eval()
    last = objective.discriminators[0].head[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    loss = objective.losses(outputs([torch.randn(4, 3, 5, 5)], 0))['domain']
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)


def test_discriminator_learns_and_the_features_move_against_it():
    torch.manual_seed(0)
    objective = Dann((3,), high=1.0, steps=1)
    optimiser = torch.optim.Adam(objective.parameters(), 0.01)
    source, target = torch.randn(2, 3, 8, 8) + torch.tensor([2.0, 0, 0])[:, None, None], torch.randn(2, 3, 8, 8)
    for _ in range(60):
        optimiser.zero_grad()
        objective.losses(outputs([torch.cat([source, target])], 0))['domain'].backward()
        optimiser.step()
    assert objective.metrics()['domain_accuracy'] > 0.8
    features = torch.cat([source, target]).requires_grad_()
    objective.eval()
    before = objective.losses(outputs([features], 100))['domain']
    before.backward()
    moved = features.detach() - 5.0 * features.grad / features.grad.norm()
    after = objective.losses(outputs([moved], 100))['domain']
    assert float(after) > float(before)  # a descent step on the sum makes the domains harder to tell apart
