# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ADVENT: entropy, self-information, class prior and diversity in closed form; the adversary's turns; its recipes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import box_model, frame, labelled_frame
from recipe_runs import batches, changed, small_network, state, take_steps
from torch import nn

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import ClassifierOutput, ClassTargets
from sim2real_da.objectives import AdvEnt, ClassPrior, MinEnt, Outputs, joint_pass
from sim2real_da.objectives.advent import class_prior_loss, diversity_loss, entropy, self_information
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import RecipeError, load_recipe
from sim2real_da.samples import Pose

POSE = Pose(np.array([0.3, 0.5, 0.1, 0.8]), np.array([0.0, 0.0, 0.6]))


def outputs(source: torch.Tensor, target: torch.Tensor | None) -> Outputs:
    """Return what a classifier with these logits puts out."""
    return Outputs(ClassifierOutput(source, []), ClassTargets(source.argmax(1)), [], len(source), 0,
                   ClassifierOutput(target, []) if target is not None else None)


@pytest.mark.parametrize('shape', [(2, 5), (2, 5, 3, 4)])
def test_entropy_of_uniform_is_one_and_of_one_hot_zero(shape):
    uniform = torch.full(shape, 0.2)
    one_hot = torch.zeros(shape).index_fill_(1, torch.tensor([3]), 1.0)
    torch.testing.assert_close(entropy(uniform), torch.ones(shape[:1] + shape[2:]))
    assert float(entropy(one_hot).abs().max()) < 1e-5


def test_self_information_closed_form():
    maps = self_information(torch.tensor([[0.5, 0.25, 0.25, 0.0]]))
    torch.testing.assert_close(maps, torch.tensor([[0.25, 0.25, 0.25, 0.0]]), atol=1e-6, rtol=0)


def test_gradients():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    share = torch.tensor([0.9, 0.5, 0.4, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: entropy(x.softmax(1)), logits)
    assert torch.autograd.gradcheck(lambda x: diversity_loss(x.softmax(1)), logits)
    assert torch.autograd.gradcheck(lambda x: class_prior_loss(x.softmax(1), share, 0.9), logits)
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)  # a probability of exactly 0
    entropy(sure.softmax(1)).sum().backward()
    assert torch.isfinite(sure.grad).all()


def test_class_prior_closed_form():
    target = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.1, 0.2]])  # mean 0.8 0.1 0.1
    share = torch.tensor([0.2, 0.6, 0.2])
    assert float(class_prior_loss(target, share, 0.5)) == pytest.approx(0.3 - 0.1)
    assert float(class_prior_loss(target, share, 1.0)) == pytest.approx(0.5 + 0.1)
    assert float(class_prior_loss(target, share, 0.1)) == 0


def test_diversity_is_nothing_for_balanced_and_one_for_collapsed_predictions():
    assert float(diversity_loss(torch.eye(4))) == pytest.approx(0, abs=1e-5)
    assert float(diversity_loss(torch.eye(4)[[2, 2, 2]])) == pytest.approx(1, abs=1e-5)


def test_minent_counts_the_most_uncertain_places():
    target = torch.tensor([[0.0, 0.0]] * 3 + [[50.0, 0.0]] * 7)  # three of ten undecided
    losses = MinEnt((1,), weight=2.0).losses(outputs(target, target))
    assert set(losses) == {'entropy'} and float(losses['entropy']) == pytest.approx(2 * 0.3, abs=1e-5)
    assert float(MinEnt((1,), weight=2.0, top=0.3).losses(outputs(target, target))['entropy']) == pytest.approx(2.0)
    assert MinEnt((1,)).losses(outputs(target, None)) == {}
    with pytest.raises(ValueError, match='share above 0'):
        MinEnt((1,), top=0.0)


def descend(objective: MinEnt) -> torch.Tensor:
    """Return what gradient descent makes of logits that lean to class 0 on the whole."""
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([1.0, 0, 0])
    bias = torch.zeros(3, requires_grad=True)  # what can collapse: a push of all samples at once
    for _ in range(60):
        losses = objective.losses(outputs(logits, logits + bias))
        gradient, = torch.autograd.grad(torch.stack(list(losses.values())).sum(), bias)
        bias = (bias - 3.0 * gradient).detach().requires_grad_()
    return torch.bincount((logits + bias).argmax(1), minlength=3) / 60


def test_minent_alone_collapses_and_diversity_prevents_it():
    assert float(descend(MinEnt((1,), weight=1.0)).max()) > 0.99
    assert float(descend(MinEnt((1,), weight=1.0, diversity=1.0)).min()) > 0.2


def test_the_prior_takes_its_shares_from_the_source():
    objective = ClassPrior((1,), weight=2.0, mu=0.5)
    source = torch.tensor([[0.0, 50.0], [0.0, 50.0], [50.0, 0.0], [0.0, 50.0]])  # shares 0.25 0.75
    all_first = torch.tensor([[50.0, 0.0]] * 3)
    assert float(objective.losses(outputs(source, all_first))['class_prior']) == pytest.approx(2 * 0.375, abs=1e-4)
    assert float(objective.losses(outputs(source, source))['class_prior']) == 0
    # one odd batch hardly moves the mean: 0.95 of the old share, 0.05 of the new
    found = float(objective.losses(outputs(all_first, all_first))['class_prior'])
    assert found == pytest.approx(2 * 0.5 * 0.95 * 0.75, abs=1e-4)


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
def test_discriminators_and_network_take_turns(kind):
    network = small_network(kind)
    objective = AdvEnt((1,), rate=0.01)
    objective.start(network)
    assert list(objective.players()) == [] and network.training
    source, target = batches(kind)
    made, losses = joint_pass(network.train(), [objective], source, target, 0)
    discriminators, before = state(objective), state(network)
    losses['adversary'].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    own = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    assert not changed(discriminators, objective)
    report = objective.play(made)
    # its turn changes every discriminator, and neither the network nor its gradients
    assert changed(discriminators, objective) == set(discriminators)
    assert not changed(before, network)
    assert all(p.grad is None if g is None else torch.equal(p.grad, g) for p, g in zip(network.parameters(), own))
    assert report['discriminator'] == pytest.approx(math.log(2), abs=0.1)


@pytest.mark.parametrize('says', [0.0, 1.5, -2.0])
def test_the_game_closed_form(says):
    network = nn.Linear(2, 3)
    network.forward = lambda x: ClassifierOutput(x.flatten(1)[:, :3], [])  # type: ignore[method-assign]
    objective = AdvEnt((1,), weight=0.5)
    objective.start(network)
    last = objective.discriminators['of_class'][-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, says)  # the same logit for every map
    seen = outputs(torch.randn(4, 3), torch.randn(4, 3))
    real, other = math.log1p(math.exp(-says)), math.log1p(math.exp(says))
    # log 2 where it cannot tell; the network wants target maps called source, the discriminator its mean to be small
    assert float(objective.losses(seen)['adversary'].detach()) == pytest.approx(0.5 * real, rel=1e-5)
    assert objective.play(seen)['discriminator'] == pytest.approx((real + other) / 2, rel=1e-5)


def test_the_network_moves_target_maps_to_where_the_discriminator_says_source():
    network = nn.Linear(2, 3)
    network.forward = lambda x: ClassifierOutput(x.flatten(1)[:, :3], [])  # type: ignore[method-assign]
    objective = AdvEnt((1,), weight=1.0, rate=0.01)
    objective.start(network)
    source, target = torch.randn(64, 3) * 8, torch.randn(64, 3) * 0.1  # sure and unsure
    for _ in range(60):
        report = objective.play(outputs(source, target))
    assert report['discriminator_accuracy'] > 0.8
    moved = target.clone().requires_grad_()
    loss = objective.losses(outputs(source, moved))['adversary']
    loss.backward()
    with torch.no_grad():
        step = moved - 20 * moved.grad / moved.grad.norm()
        assert float(objective.losses(outputs(source, step))['adversary']) < float(loss)
        assert float(entropy(step.softmax(1)).mean()) < float(entropy(target.softmax(1)).mean())  # surer, as the source


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
@pytest.mark.parametrize(('name', 'expected'), [
    ('minent', {'entropy', 'target_entropy'}), ('advent', {'adversary', 'discriminator', 'class_prior'})])
def test_a_step_of_the_recipe(name, expected, kind):
    run, reports = take_steps(load_recipe(name), kind)
    assert run.step_count == 2 and expected <= set(reports[-1])
    assert all(np.isfinite(v) for v in reports[-1].values())


@pytest.mark.parametrize(('name', 'expected'), [('minent', 'entropy'), ('advent', 'adversary')])
def test_a_learner_with_the_recipe_takes_a_step(name, expected, monkeypatch):
    model = box_model('box')
    learner = Learner(Bundle.create({'box': model}), load_recipe(name))
    monkeypatch.setattr('sim2real_da.online.learner.FOUND_SCORE', 0.0)  # an untrained teacher's boxes will do
    rng = np.random.default_rng(0)
    report = learner.step([labelled_frame(rng, model, POSE) for _ in range(2)], [frame(rng) for _ in range(2)])
    assert {f'detector/{expected}', f'pose/{expected}', 'detector/class_prior', 'pose/class_prior'} <= set(report)
    assert all(np.isfinite(v) for v in report.values()) and learner.step_count == 1


def test_a_bad_share_names_recipe_and_objective(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('classifier: {supervised: , minent: {top: 2}}')
    with pytest.raises(RecipeError, match=r'own: classifier: minent: top: expected a share'):
        load_recipe(path).build('classifier', (1,))
