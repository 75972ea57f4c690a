# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""CyCADA: least-squares game and picture pool in closed form, guards, modes, whose turn moves what; translated sets."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from helpers import rendered_set
from pixel_batches import NETWORKS, batches, kind, same, state

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset, read_image
from sim2real_da.networks.classifier import ClassTargets
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.generators import ResidualGenerator
from sim2real_da.networks.translation import translate_picture, translate_set
from sim2real_da.objectives import Cycada, joint_pass
from sim2real_da.objectives.cycle import CyclePair, ImagePool, discriminator_loss, generator_loss
from sim2real_da.objectives.turns import take_turn
from sim2real_da.recipes import RecipeError, load_recipe

SMALL = {'blocks': 1, 'filters': 8, 'width': 4}


def started(name='classifier', **options):
    network = NETWORKS[name]()
    objective = Cycada(network.feature_channels, **(SMALL | options))
    objective.start(network)
    return network, objective


# the least-squares game and its pool


def test_least_squares_closed_form():
    assert float(discriminator_loss(torch.ones(3), torch.zeros(3))) == 0
    assert float(discriminator_loss(torch.full((3,), 0.5), torch.full((2,), 0.5))) == 0.25
    assert float(discriminator_loss(torch.zeros(3), torch.ones(3))) == 1
    assert float(generator_loss(torch.ones(3))) == 0 and float(generator_loss(torch.tensor([0.0, 2.0]))) == 1
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(generator_loss, (x,)) and torch.autograd.gradcheck(
        lambda v: discriminator_loss(v, v), (x,))


def test_the_pool_fills_and_then_gives_earlier_pictures_half_of_the_time():
    pool = ImagePool(50)
    first = torch.arange(50.0)[:, None, None, None]
    assert torch.equal(pool.exchange(first), first)  # while it fills nothing is exchanged
    new = torch.arange(50.0, 1050.0)[:, None, None, None]
    out = pool.exchange(new)
    kept = (out == new).flatten().float().mean()
    assert 0.4 < float(kept) < 0.6 and len(pool._kept) == 50
    # nothing is given twice, nothing is lost
    everything = torch.cat([out, torch.stack(pool._kept)]).flatten().sort().values
    assert torch.equal(everything, torch.arange(1050.0))


def test_the_cycle_is_paid_in_the_papers_range():
    """Generators that are the identity but for a shift of 0.1 in [0, 1] are 0.2 away in the paper's [-1, 1]."""
    pair = CyclePair(16, **SMALL)

    class Shift(torch.nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = torch.nn.Parameter(torch.tensor(by))

        def forward(self, images):
            return images + self.by

    pair.to_target, pair.to_source = Shift(0.1), Shift(0.0)
    pair._generators = torch.optim.SGD([*pair.to_target.parameters(), *pair.to_source.parameters()], 0.0)
    report = pair.turn(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    assert report['cycle'] == pytest.approx(0.4, abs=1e-5)  # 0.2 there and back, for each of the two domains


def test_generators_and_critics_take_turns(monkeypatch):
    pair = CyclePair(16, **SMALL)
    moved = []

    def watch(optimiser, loss, clip):
        players = (pair.to_target, pair.to_source, pair.target_critic, pair.source_critic)
        before = [state(p) for p in players]
        result = take_turn(optimiser, loss, clip)
        moved.append([not same(b, state(p)) for b, p in zip(before, players)])
        return result

    monkeypatch.setattr('sim2real_da.objectives.cycle.take_turn', watch)
    pair.turn(torch.rand(4, 3, 16, 16), torch.rand(3, 3, 16, 16))
    assert moved == [[True, True, False, False], [False, False, True, True]]


def test_all_players_have_the_papers_rates():
    _, objective = started()
    for optimiser in (objective._optimiser, objective.pair._generators, objective.pair._critics):
        assert optimiser.param_groups[0]['lr'] == 2e-4 and optimiser.param_groups[0]['betas'][0] == 0.5
    assert Cycada((8,)).cycle == 10 and objective.pair._pools[0].size == 50


def test_the_pair_learns_the_brightness_of_the_target():
    pair = CyclePair(8, cycle=0.0, **SMALL)
    for optimiser in (pair._generators, pair._critics):
        optimiser.param_groups[0]['lr'] = 2e-3
    source, target = torch.rand(8, 3, 8, 8) * 0.2, 0.8 + torch.rand(8, 3, 8, 8) * 0.2
    for _ in range(25):
        pair.turn(source, target)
    with torch.no_grad():
        assert float(pair.to_target(source).mean()) > float(pair.to_source(target).mean()) + 0.05


# semantic consistency


def semantic(wanted):
    """Return the report of a step whose source network has this cross entropy on the source pictures."""
    network, objective = started(feature=False)
    # logits (a, 0, 0) of the right class 0: cross entropy log(1 + 2 exp(-a))
    a = -math.log((math.exp(wanted) - 1) / 2)
    with torch.no_grad():
        last = objective.source_network.classify
        last.weight.zero_()
        last.bias.copy_(torch.tensor([a, 0.0, 0.0]))
    source, target = batches('classifier', network)
    source.targets = ClassTargets(torch.zeros(4, dtype=torch.long))
    report = objective.play(joint_pass(network, [objective], source, target, 0)[0])
    assert objective.metrics()['source_cross_entropy'] == pytest.approx(wanted, abs=1e-4)
    return report


def test_the_source_network_has_a_say_only_while_it_is_good():
    assert 'semantic' not in semantic(1.01)
    # it answers alike whatever it sees: the label costs 0.9, and so does its own answer
    assert semantic(0.9)['semantic'] == pytest.approx(1.8, abs=1e-3)


def test_the_source_network_stays_as_it_was_at_the_start():
    network, objective = started()
    before = state(objective.source_network)
    run = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(2):
        outputs, losses = joint_pass(network, [objective], *batches('classifier', network), step)
        run.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        run.step()
        objective.train()
        objective.play(outputs)
    assert same(before, state(objective.source_network)) and not same(before, state(network))


# the feature adversary and its guard


@pytest.mark.parametrize(('right', 'heeded'), [(True, True), (False, False)])
def test_the_network_learns_from_features_only_above_the_guard(right, heeded):
    network, objective = started(pixel=False, confusion=0.5)
    objective.eval()
    outputs, _ = joint_pass(network, [], *batches('classifier', network), 0)
    sign = 1.0 if right else -1.0
    apart = torch.cat([torch.full((4, 16, 1, 1), sign), torch.full((4, 16, 1, 1), -sign)])

    class Critic(torch.nn.Module):
        def forward(self, features):
            return features[:, :1]

    objective.discriminators = torch.nn.ModuleList([Critic()])
    outputs.features = [apart]
    losses = objective.losses(outputs)
    assert objective.metrics()['domain_accuracy'] == float(right) and ('confusion' in losses) == heeded
    if heeded:  # target logits of -1 are to become positive
        assert float(losses['confusion']) == pytest.approx(0.5 * math.log(1 + math.e), abs=1e-5)


def test_target_features_move_towards_source_and_source_features_stay():
    network, objective = started(pixel=False)
    outputs, _ = joint_pass(network, [], *batches('classifier', network), 0)
    features = torch.cat([torch.full((4, 16, 1, 1), 2.0), torch.full((4, 16, 1, 1), -2.0)])
    features[:, ::2] *= -1  # the discriminator standardises over channels
    for _ in range(300):
        outputs.features = [features]
        objective.play(outputs)
    outputs.features = [features.clone().requires_grad_()]
    loss = objective.losses(outputs)['confusion']
    gradient, = torch.autograd.grad(loss, outputs.features)
    assert torch.equal(gradient[:4], torch.zeros_like(gradient[:4])) and gradient[4:].abs().sum() > 0
    objective.eval()
    before = objective.discriminators[0](features)[4:].mean()
    assert objective.discriminators[0](features - gradient / gradient.norm())[4:].mean() > before


def test_with_pictures_translated_it_is_their_features_that_count():
    network, objective = started()
    outputs, _ = joint_pass(network, [objective], *batches('classifier', network), 0)
    assert len(outputs.adapted_features[0]) == 4 and len(outputs.features[0]) == 8
    objective.eval()
    with torch.no_grad():
        expected = objective.discriminators[0](outputs.adapted_features[0])
        torch.testing.assert_close(objective._answers(outputs)[0][0], expected)


# modes, recipes, networks


@pytest.mark.parametrize('recipe', ['cycada', 'cycada_pixel', 'cycada_feature'])
@pytest.mark.parametrize('name', list(NETWORKS))
def test_every_recipe_trains_every_network_it_is_made_for(recipe, name):
    network = NETWORKS[name]()
    run = Adaptation(network, kind(name), load_recipe(recipe), steps=10)
    source, target = batches(name, network)
    before = state(network)
    report = run.step(source, target)
    assert 'skipped' not in report and all(math.isfinite(v) for v in report.values())
    assert ({'adapted_class', 'generators', 'cycle'} <= set(report)) == (recipe != 'cycada_feature')
    assert ({'feature_discriminator', 'domain_accuracy'} <= set(report)) == (recipe != 'cycada_pixel')
    assert not same(before, state(network)) and len(run.optimisers) == 1
    objective = run.objectives[1]
    if recipe == 'cycada_feature':
        assert objective.translator() is None
    else:
        assert objective.translator()(source.images).shape == source.images.shape


@pytest.mark.parametrize('name', list(NETWORKS))
def test_turns_of_the_players_leave_the_network_alone(name):
    network, objective = started(name)
    outputs, losses = joint_pass(network, [objective], *batches(name, network), 0)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None for p in objective.pair.parameters())
    before = state(network)
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    players = state(objective.pair), state(objective.discriminators)
    objective.play(outputs)
    assert same(before, state(network))
    assert all(g is None and p.grad is None or torch.equal(g, p.grad)
               for g, p in zip(gradients, network.parameters()))
    assert not same(players[0], state(objective.pair)) and not same(players[1], state(objective.discriminators))


def test_without_target_pictures_nobody_plays():
    network, objective = started()
    source, _ = batches('classifier', network)
    outputs, losses = joint_pass(network, [objective], source, None, 0)
    before = state(objective)
    assert objective.play(outputs) == {} and same(before, state(objective)) and list(losses) == ['adapted_class']


def test_neither_stage_and_a_detector_are_refused(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('classifier: {supervised: , cycada: {pixel: false, feature: false}}')
    with pytest.raises(RecipeError, match='both false'):
        load_recipe(path).build('classifier', (8,))
    path.write_text('detector: {supervised: , cycada: }')
    with pytest.raises(RecipeError, match='cycada is made for classifier, pose'):
        load_recipe(path)
    with pytest.raises(TypeError, match='got Detector'):
        Cycada((8,), **SMALL).start(Detector(1))


# the detector's pixel stage: translated sets


def test_a_translated_set_has_its_labels_and_other_pictures(tmp_path):
    source = rendered_set(tmp_path / 'plain', 1, 2)
    generator = ResidualGenerator(16, 1, 8, noise=0, norm='instance')
    assert translate_set(generator, source, tmp_path / 'real') == 2
    before, after = BopDataset(source, 'train'), BopDataset(tmp_path / 'real', 'train')
    for frame_id in before.ids():
        old, new = before.frame(frame_id), after.frame(frame_id)
        assert [x.name for x in new.labels] == [x.name for x in old.labels]
        np.testing.assert_array_equal(new.labels[0].box, old.labels[0].box)
        assert new.frame.image.shape == old.frame.image.shape
        # noise does not survive JPEG, its mean over some pixels does
        expected, found, before_it = (cv2.blur(picture, (9, 9)).astype(int) for picture in (
            translate_picture(generator, old.frame.image), new.frame.image, old.frame.image))
        assert np.abs(found - expected).mean() < 3 < 10 < np.abs(found - before_it).mean()


def test_a_lossless_picture_is_translated_to_the_last_bit(tmp_path):
    generator = ResidualGenerator(16, 1, 8, noise=0, norm='instance')
    picture = np.random.default_rng(0).integers(0, 255, (12, 20, 3)).astype(np.uint8)
    (tmp_path / 'in' / 'rgb').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'in' / 'rgb' / '0.png'), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (tmp_path / 'in' / 'scene_gt.json').write_text('{}')
    translate_set(generator, tmp_path / 'in', tmp_path / 'out')
    np.testing.assert_array_equal(read_image(tmp_path / 'out' / 'rgb' / '0.png'), translate_picture(generator, picture))
    assert (tmp_path / 'out' / 'scene_gt.json').read_text() == '{}'


def test_sets_and_generators_that_cannot_be_used_are_named(tmp_path):
    generator = ResidualGenerator(16, 1, 8, noise=0, norm='instance')
    with pytest.raises(ValueError, match='without noise'):
        translate_set(ResidualGenerator(16, 1, 8), tmp_path, tmp_path / 'out')
    with pytest.raises(FileNotFoundError, match='no PNG or JPEG'):
        translate_set(generator, tmp_path, tmp_path / 'out')
    (tmp_path / 'rgb').mkdir()
    cv2.imwrite(str(tmp_path / 'rgb' / '0.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FileExistsError, match='exists already'):
        translate_set(generator, tmp_path, tmp_path)
