# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Gradient reversal: sign, schedule and who learns what."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from recipe_runs import BOXES, batches, small_network, take_steps
from torch import nn

from sim2real_da.adaptation import Adaptation, schedule
from sim2real_da.networks.classifier import ClassifierOutput
from sim2real_da.networks.detector import DetectorOutput, DetectorTargets, detector_targets
from sim2real_da.objectives import Dann, Outputs
from sim2real_da.objectives.dann import MapDiscriminator, learning_rate_factor, reversal_strength, reverse_gradient
from sim2real_da.objectives.features import instances, vectors
from sim2real_da.recipes import RecipeError, load_recipe


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


def test_annealing_has_a_run_form_and_a_step_form(tmp_path):
    assert schedule(0, 100, 0, 'dann') == 1 and schedule(50, 100, 0, 'dann') == pytest.approx(0.26084, abs=1e-5)
    assert schedule(100, 100, 0, 'dann') == pytest.approx(0.16557, abs=1e-5)  # mu(1) / mu(0) of the paper
    assert schedule(4, 110, 10, 'dann') == 0.5 and schedule(60, 110, 10, 'dann') == pytest.approx(0.26084, abs=1e-5)
    path = tmp_path / 'mine.yaml'
    text = 'classifier: {supervised: }\noffline: {schedule: dann, learning_rate: 0.01}\nlearner: {annealing: 4}'
    path.write_text(text)
    for length, factor in ((10, learning_rate_factor(0.2)), (None, learning_rate_factor(0.5))):
        run, _ = take_steps(load_recipe(path), 'classifier', 3, length)  # the third step is step 2
        rate = 0.01 if length else 1e-4
        assert run.optimisers[0].param_groups[0]['lr'] == pytest.approx(rate * factor)
    for key, wrong in (('dann', 'linear'), ('annealing: 4', 'annealing: 0')):
        path.write_text(text.replace(key, wrong))
        with pytest.raises(RecipeError, match="mine.yaml.*(schedule 'linear'|annealing 0): expected"):
            load_recipe(path)


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
    # a descent step on the sum makes the domains harder to tell apart
    assert float(after.detach()) > float(before.detach())


def test_discriminators_drop_a_tenth_and_keep_the_mean():
    drop = MapDiscriminator(3).head[2]
    made = drop(torch.ones(1001, 301))
    assert made.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float((made == 0).float().mean()) == pytest.approx(0.1, abs=0.003)  # five standard errors
    assert float((made[:, 1:] * made[:, :-1] == 0).float().mean()) == pytest.approx(0.19, abs=0.005)  # independently
    assert torch.equal(drop.eval()(made), made)


def test_a_discriminator_standardises_vectors_as_it_does_maps():
    torch.manual_seed(0)
    discriminator = MapDiscriminator(5).eval()
    rows = 3 * torch.randn(7, 5) + 2
    with torch.no_grad():
        discriminator.norm.weight.uniform_(0.5, 2), discriminator.norm.bias.uniform_(-1, 1)
        expected = discriminator.head(discriminator.norm(rows[:, :, None])[:, :, 0])
        torch.testing.assert_close(discriminator(rows[:, :, None, None])[:, :, 0, 0], expected)


def test_lambda_follows_the_run_or_counts_steps():
    features = [torch.randn(4, 3, 5, 5)]
    whole, steps = Dann((3,), high=1.0, steps=None), Dann((3,), high=1.0, steps=40)
    made = outputs(features, 20)
    made.steps = 40
    for objective in (whole, steps):
        objective.losses(made)
        assert objective.metrics()['lambda'] == pytest.approx(0.98661, abs=1e-5)
    made.steps = None
    steps.losses(made)
    with pytest.raises(ValueError, match='no known end; expected steps'):
        whole.losses(made)


def test_lambda_of_a_run_with_an_end_goes_with_it_on_every_network():
    recipe = load_recipe('dann')
    for kind in ('pose', 'detector', 'classifier'):
        run, reports = take_steps(recipe, kind, 2, 2)
        assert (run.objectives[1].high, run.objectives[1].steps) == (1.0, None)
        assert reports[1]['lambda'] == pytest.approx(0.98661, abs=1e-5)  # half of the way
    online = Adaptation(small_network('pose'), 'pose', recipe)
    assert (online.objectives[1].high, online.objectives[1].steps) == (0.5, 50)


def scene(features: list[torch.Tensor], score: float = 0.9) -> Outputs:
    """One source picture with two labelled boxes, one target picture with one found box of that score."""
    true = detector_targets([BOXES], [np.array([0, 1])], (64, 64), 2, [None])
    seen = detector_targets([BOXES[:1]], [np.array([0])], (64, 64), 2, [None])
    heat = torch.where(seen.heat == 1, math.log(score / (1 - score)), -12.0)
    return Outputs(DetectorOutput(true.heat, true.sides, torch.zeros(1, 3, 16, 16), []), true, features, 1, 0,
                   DetectorOutput(heat, seen.sides, torch.zeros(1, 3, 16, 16), []))


def test_instances_are_labelled_boxes_of_the_source_and_found_ones_of_the_target():
    source, target = instances(scene([]))
    order = source[0][:, 0].argsort()
    torch.testing.assert_close(source[0][order], torch.from_numpy(BOXES).float())
    torch.testing.assert_close(target[0], torch.from_numpy(BOXES[:1]).float())
    assert [len(boxes) for boxes in instances(scene([], score=0.2))[1]] == [0]


def test_an_instance_is_the_mean_inside_its_box():
    # a map of stride 8 whose first channel is the column's place in pixels and whose second is the row's
    places = torch.arange(8) * 8.0 + 3.5
    features = torch.stack([places.expand(8, 8), places[:, None].expand(8, 8)])[None].repeat(2, 1, 1, 1)
    (source, target), = vectors(scene([features]), 'instance')
    middles = torch.from_numpy((BOXES[:, :2] + BOXES[:, 2:]) / 2).float()
    torch.testing.assert_close(source[source[:, 0].argsort()], middles, atol=0.3, rtol=0)
    torch.testing.assert_close(target, middles[:1], atol=0.3, rtol=0)


def test_the_instance_adversary_sees_nothing_outside_the_boxes():
    objective = Dann((3,), high=1.0, steps=1, levels=['instance'])
    features = torch.randn(2, 3, 16, 16, requires_grad=True)
    made = scene([features])
    made.step = 5
    objective.losses(made)['domain'].backward()
    assert features.grad[0, :, 2:10, 2:10].abs().sum() > 0 and features.grad[1, :, 2:10, 2:10].abs().sum() > 0
    assert features.grad[:, :, :, 0].abs().max() == 0 and features.grad[1, :, 12:].abs().max() == 0
    assert objective.losses(scene([features], score=0.2)) == {}  # nothing found in the target


def test_levels_that_do_not_fit_are_named():
    for levels in ('location', [], ['place']):
        with pytest.raises(ValueError, match='expected a list with some of'):
            Dann((3,), levels=levels)
    pictures = ClassifierOutput(torch.zeros(2, 3), [])
    with pytest.raises(TypeError, match='made for the detector, not for ClassifierOutput'):
        vectors(Outputs(pictures, batches('classifier')[0].targets, [torch.zeros(4, 3, 1, 1)], 2, 0, pictures),
                'instance')


@pytest.mark.parametrize(('kind', 'levels'), [
    ('classifier', '[location]'), ('pose', '[location]'), ('detector', '[location, instance]')])
def test_a_step_on_every_network(tmp_path, kind, levels):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'{kind}: {{supervised: , dann: {{levels: {levels}, steps: 5}}}}')
    for recipe in (load_recipe('dann'), load_recipe(path)):
        run, reports = take_steps(recipe, kind)
        assert reports[1]['domain'] > 0 and reports[1]['lambda'] > 0 and run.step_count == 2
        assert all(math.isfinite(v) for v in reports[1].values()) and 'skipped' not in reports[1]


@pytest.mark.parametrize('name', ['dann', 'source_continued', 'self_training'])
def test_the_classifier_is_trained_at_the_same_pace_by_all_three(name):
    recipe = load_recipe(name)
    assert 'supervised' in dict(recipe.objectives['classifier'])
    assert 'classifier' not in recipe.offline.frozen_statistics
    assert replace(recipe.offline, frozen_statistics=()) == load_recipe('source_continued').offline
