# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The classifier, and a network under a recipe."""

from __future__ import annotations

import pytest
import torch

from sim2real_da.adaptation import Adaptation, schedule
from sim2real_da.networks.classifier import Classifier, ClassifierOutput, ClassTargets, to_images
from sim2real_da.objectives import Batch, joint_pass
from sim2real_da.recipes import RecipeError, load_recipe


def batch(count: int = 6, labelled: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(count)
    return Batch(torch.rand(count, 3, 28, 28, generator=generator),
                 ClassTargets(torch.arange(count) % 3) if labelled else None)


def recipe(tmp_path, text: str):
    path = tmp_path / 'own.yaml'
    path.write_text(text)
    return load_recipe(path)


def test_shapes_and_grey_pictures():
    network = Classifier(10)
    output = network(to_images(torch.zeros(4, 28, 28, dtype=torch.uint8).numpy()))
    assert output.logits.shape == (4, 10) and output.features[0].shape == (4, *network.feature_channels, 1, 1)
    assert network(torch.rand(2, 3, 16, 16)).logits.shape == (2, 10)
    torch.testing.assert_close(output.probabilities()['class'].sum(1), torch.ones(4))


def test_weighted_loss_counts_every_picture():
    output = ClassifierOutput(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), [])
    full = output.loss(ClassTargets(torch.tensor([0, 0])))['class']
    first = output.loss(ClassTargets(torch.tensor([0, 0]), torch.tensor([1.0, 0.0])))['class']
    assert float(full) == pytest.approx((0.126928 + 2.126928) / 2, abs=1e-5)
    assert float(first) == pytest.approx(0.126928 / 2, abs=1e-5)


def test_too_small_pictures_are_refused():
    with pytest.raises(ValueError, match='at least 4 pixels'):
        Classifier(3, size=8, channels=(8, 8))


def test_joint_pass_splits_rows_and_needs_labels():
    network = Classifier(3).eval()
    outputs, losses = joint_pass(network, [], batch(), batch(4, labelled=False), 0)
    assert len(outputs.source.logits) == 6 and len(outputs.target.logits) == 4 and outputs.source_count == 6
    assert len(outputs.features[0]) == 10 and losses == {}
    torch.testing.assert_close(outputs.target.logits, network(batch(4).images).logits)
    with pytest.raises(ValueError, match='no labels'):
        joint_pass(network, [], batch(labelled=False), None, 0)


def test_a_run_lowers_the_loss_and_the_teacher_follows(tmp_path):
    torch.manual_seed(0)
    network = Classifier(3)
    run = Adaptation(network, 'classifier', recipe(tmp_path, 'classifier: {supervised: }\noffline: {warm_up: 0.2}'),
                     steps=30)
    reports = [run.step(batch(), None) for _ in range(30)]
    assert reports[-1]['class'] < 0.2 * reports[0]['class']
    assert not torch.equal(next(run.teacher.parameters()), next(network.parameters()))


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    network = Classifier(3)
    run = Adaptation(network, 'classifier', recipe(tmp_path, 'classifier: {supervised: , dann: {}}'), steps=10)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    bad = batch(4, labelled=False)
    bad.images[0, 0, 0, 0] = float('nan')
    assert run.step(batch(), bad)['skipped'] == 1
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_schedule_closed_form():
    assert schedule(0, 100, 10) == 0.1 and schedule(9, 100, 10) == 1
    assert schedule(10, 100, 10) == 1 and schedule(55, 100, 10) == pytest.approx(0.5) and schedule(100, 100, 10) == 0


def test_warm_up_is_a_share_of_the_run(tmp_path):
    made = recipe(tmp_path, 'classifier: {supervised: }\noffline: {warm_up: 0.25}')
    assert Adaptation(Classifier(3), 'classifier', made, steps=8)._rate() == 0.5  # the first of two steps
    with pytest.raises(RecipeError, match='share of the run'):
        recipe(tmp_path, 'classifier: {supervised: }\noffline: {warm_up: 200}')


def test_self_training_counts_pseudo_labels_by_their_weights():
    torch.manual_seed(0)
    network, target = Classifier(3, hidden=16), batch(4, labelled=False)
    run = Adaptation(network, 'classifier', load_recipe('self_training'), steps=2000)
    run.step_count = 1999  # the ramp is over
    reports = []
    for weight in (torch.ones(4), torch.zeros(4)):
        target.targets = ClassTargets(torch.tensor([0, 1, 2, 0]), weight)
        reports.append({k: float(v.detach()) for k, v in run.losses(batch(), target).items()})
        run.restore()
    assert reports[0]['target_class'] > 0.1 and reports[1]['target_class'] == 0
