# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""CoGAN: what is shared, who learns in whose turn, and what the network is told."""

from __future__ import annotations

import math

import pytest
import torch
from recipe_runs import batches, changed, small_network, state, take_steps
from torch import nn

from sim2real_da.networks.classifier import ClassTargets
from sim2real_da.networks.cogan import NOISE, CoupledDiscriminators, CoupledGenerators
from sim2real_da.objectives import CoGan, joint_pass
from sim2real_da.recipes import RecipeError, load_recipe


def built(**options) -> CoGan:
    objective = CoGan((16,), **options)
    objective.start(small_network('classifier'))
    return objective


@pytest.mark.parametrize('size', [28, 33, 40])
def test_twins_share_all_but_the_last_layer(size):
    generators = CoupledGenerators(size, width=8)
    noise = torch.rand(3, NOISE)
    source, target = generators(noise)
    assert source.shape == target.shape == (3, 3, size, size)
    assert torch.cat([source, target]).detach().sub(0.5).abs().max() <= 0.5  # in [0, 1]
    torch.testing.assert_close(source, target)  # they begin alike, and nothing but the last layer can differ
    with torch.no_grad():
        generators.target.bias += 1
    assert not torch.equal(*generators(noise))
    source.sum().backward()
    assert generators.target.weight.grad is None and generators.first[0].weight.grad.abs().sum() > 0


def test_discriminators_share_all_but_the_first_layer():
    discriminators = CoupledDiscriminators(28, 5).eval()
    source, target = torch.rand(2, 3, 28, 28), torch.rand(3, 3, 28, 28)
    real, named = discriminators(source, target)
    assert real.shape == (5,) and named.shape == (5, 5)
    discriminators(source, target[:0])[1].sum().backward()
    assert discriminators.target.weight.grad.abs().sum() == 0 and discriminators.source.weight.grad.abs().sum() > 0
    twice = discriminators(source, source)[1]
    torch.testing.assert_close(twice[:2], twice[2:])  # they begin alike
    with torch.no_grad():
        discriminators.target.bias += 1
    twice = discriminators(source, source)[1]
    assert not torch.allclose(twice[:2], twice[2:])


def test_an_undecided_game_costs_log_two_a_player():
    objective = built()
    for head in (objective.discriminators.real, objective.discriminators.classify):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    source, target = batches('classifier')
    report = objective.discriminate(source.images, target.images, source.targets.classes)
    assert report['discriminator'] == pytest.approx(2 * math.log(2), abs=1e-6)  # log 2 for each domain
    assert report['discriminator_class'] == pytest.approx(math.log(2), abs=1e-6)
    objective = built()
    nn.init.zeros_(objective.discriminators.real.weight)
    nn.init.constant_(objective.discriminators.real.bias, 3.0)  # all is called real: the generators have won
    assert objective.generate(4)['generator'] == pytest.approx(math.log1p(math.exp(-3)), abs=1e-6)


def test_each_turn_touches_its_own_player_alone():
    objective = built()
    source, target = batches('classifier')
    before = state(objective)
    objective.discriminate(source.images, target.images, source.targets.classes)
    moved = {n for n in changed(before, objective) if 'running' not in n and 'num_batches' not in n}
    assert moved and {n.split('.')[0] for n in moved} == {'discriminators'}
    assert {n for n in before if n.startswith('discriminators')} <= moved
    before = state(objective)
    objective.generate(4)
    assert {n.split('.')[0] for n in changed(before, objective)} == {'generators'}


def test_playing_leaves_the_network_alone_and_the_network_the_players():
    run, _ = take_steps(load_recipe('cogan'), 'classifier', 1)
    objective = run.objectives[1]
    assert not list(objective.players())
    before, network = state(objective), state(run.network)
    outputs, _ = joint_pass(run.network, [], *batches('classifier'), 0)
    passed = state(run.network)
    objective.play(outputs)
    assert not changed(passed, run.network) and changed(before, objective) and changed(network, run.network)
    objective.first = 0
    objective.zero_grad()
    before = state(objective)
    run.losses(*batches('classifier'))['cogan'].backward()
    assert not changed(before, objective) and all(p.grad is None for p in objective.parameters())


def test_a_picture_that_is_not_finite_moves_no_player():
    objective = built()
    source, target = batches('classifier')
    before = [p.clone() for p in objective.parameters()]
    objective.discriminate(source.images * float('nan'), target.images, source.targets.classes)
    assert all(torch.equal(a, b) for a, b in zip(before, objective.parameters()))


def test_generators_win_against_a_still_discriminator():
    objective = built(learning_rate=2e-3)
    reports = [objective.generate(8)['generator'] for _ in range(20)]
    assert reports[-1] < reports[0]


def test_the_network_is_told_what_the_shared_classifier_is_sure_of(monkeypatch):
    objective = built(weight=2.0, start=3)
    outputs, _ = joint_pass(small_network('classifier'), [], *batches('classifier'), 2)
    assert objective.losses(outputs) == {}
    outputs.step = 3
    said = torch.tensor([[0.95, 0.05], [0.5, 0.5], [0.0, 1.0], [0.8, 0.2]])
    monkeypatch.setattr(objective, 'names', lambda pictures: said)
    expected = outputs.target.loss(ClassTargets(torch.tensor([0, 0, 1, 0]), torch.tensor([1.0, 0, 1, 0])))['class']
    torch.testing.assert_close(objective.losses(outputs)['cogan'], 2 * expected)
    assert objective.metrics() == {'sure': 0.5}


def test_names_of_target_pictures_come_from_what_source_pictures_taught():
    objective = built(learning_rate=2e-3)
    classes = torch.arange(8) % 2
    pictures = 0.2 * torch.rand(8, 3, 28, 28) + 0.8 * classes[:, None, None, None]
    for _ in range(12):
        objective.discriminate(pictures, pictures, classes)
    # all else is shared: a target whose first layer sees what the source's sees is named alike
    objective.discriminators.target.load_state_dict(objective.discriminators.source.state_dict())
    found = objective.names(pictures)
    torch.testing.assert_close(found.sum(1), torch.ones(8))
    assert found.argmax(1).eq(classes).all() and objective.discriminators.training


def test_steps_of_the_recipe_and_what_it_is_not_made_for(tmp_path):
    _, reports = take_steps(load_recipe('cogan'), 'classifier')
    assert {'generator', 'discriminator', 'discriminator_class', 'class'} <= set(reports[1])
    assert all(math.isfinite(v) for v in reports[1].values()) and 'cogan' not in reports[1]  # before its start
    path = tmp_path / 'mine.yaml'
    path.write_text('classifier: {supervised: , cogan: {start: 0}}')
    assert take_steps(load_recipe(path), 'classifier')[1][1]['cogan'] >= 0
    path.write_text('pose: {supervised: , cogan: {}}')
    with pytest.raises(RecipeError, match='cogan is made for classifier'):
        load_recipe(path)
    with pytest.raises(TypeError, match='made for the classifier, not for DirectPoseNetwork'):
        CoGan((16,)).start(small_network('pose'))
