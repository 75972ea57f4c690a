# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Domain Separation Networks: closed forms, gradients, when the terms start, and what each encoder learns from."""

from __future__ import annotations

import math

import pytest
import torch
from recipe_runs import batches, changed, small_network, state, take_steps

from sim2real_da.networks.dsn import PrivateEncoder, SharedDecoder
from sim2real_da.objectives import joint_pass
from sim2real_da.objectives.dsn import Dsn, difference, scale_invariant_error
from sim2real_da.recipes import RecipeError, load_recipe


def test_reconstruction_error_is_blind_to_a_constant():
    picture = torch.rand(2, 3, 4, 4)
    assert float(scale_invariant_error(picture, picture + 0.3)) == pytest.approx(0, abs=1e-7)
    # errors 1 and 0 in equal parts: mean square 1/2, less the squared mean 1/4
    half = torch.cat([torch.ones(1, 6), torch.zeros(1, 6)], dim=1)
    assert float(scale_invariant_error(half, torch.zeros(1, 12))) == pytest.approx(0.25)


def test_difference_closed_form():
    # each centred row is (1, 0) or (-1, 0) after scaling: H_c^T H_p is 2 x 2 and 2 where both use the same axis
    rows = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    assert float(difference(rows, rows)) == pytest.approx(1)
    assert float(difference(10 * rows + 5, rows)) == pytest.approx(1)  # blind to scale and to the mean
    one, other = torch.tensor([[1.0], [-1], [1], [-1]]), torch.tensor([[1.0], [1], [-1], [-1]])
    assert float(difference(one, other)) == 0
    wide = [torch.randn(32, n, generator=torch.Generator().manual_seed(n)) for n in (128, 64)]
    assert float(difference(*wide)) < 0.02  # whatever the width: of the order of the other terms

def test_gradients():
    made = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scale_invariant_error, (torch.rand(2, 5, dtype=torch.float64), made))
    pair = [torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (3, 2)]
    assert torch.autograd.gradcheck(difference, pair)


@pytest.mark.parametrize(('shape', 'size'), [((1, 1), (28, 28)), ((1, 1), (40, 33)), ((4, 4), (64, 64))])
def test_private_map_and_picture_have_the_asked_shapes(shape, size):
    code = PrivateEncoder(6)(torch.rand(2, 3, *size), shape)
    assert code.shape == (2, 6, *shape) and SharedDecoder(6)(code, size).shape == (2, 3, *size)


def losses_at(objective: Dsn, step: int, steps: int | None = None) -> dict[str, torch.Tensor]:
    return joint_pass(small_network('classifier'), [objective], *batches('classifier'), step, steps=steps)[1]


@pytest.mark.parametrize(('similarity', 'name'), [('dann', 'domain'), ('mmd', 'mmd')])
def test_all_terms_start_together(similarity, name):
    objective = Dsn((16,), similarity=similarity, start=5, steps=None)
    assert losses_at(objective, 4, 25) == {}
    assert set(losses_at(objective, 5, 25)) == {'reconstruction', 'difference', name}
    if similarity == 'dann':
        assert objective.metrics()['lambda'] == 0  # the clock starts with the terms
        losses_at(objective, 15, 25)
        assert objective.metrics()['lambda'] == pytest.approx(0.98661, abs=1e-5)
    source, _ = batches('classifier')
    assert joint_pass(small_network('classifier'), [objective], source, None, 9, steps=25)[1] == {}


def test_weights_of_the_terms():
    torch.manual_seed(0)
    plain = Dsn((16,), 1.0, 1.0, 'mmd', 1.0, 0)
    heavy = Dsn((16,), 2.0, 3.0, 'mmd', 4.0, 0)
    heavy.load_state_dict(plain.state_dict())
    outputs, _ = joint_pass(small_network('classifier').eval(), [], *batches('classifier'), 0)
    one, many = plain.losses(outputs), heavy.losses(outputs)
    for name, factor in (('reconstruction', 2), ('difference', 3), ('mmd', 4)):
        torch.testing.assert_close(many[name], factor * one[name])


def test_each_private_encoder_learns_from_its_own_domain_and_the_decoder_from_both():
    objective = Dsn((16,), start=0, similarity='mmd')
    seen = {}
    for name in ('source_encoder', 'target_encoder'):
        getattr(objective, name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    source, target = batches('classifier')
    pictures = [batch.images.requires_grad_() for batch in (source, target)]
    outputs, _ = joint_pass(small_network('classifier'), [], source, target, 0)
    outputs.features = [f.detach() for f in outputs.features]  # what is left comes through the private encoders
    losses = objective.losses(outputs)
    (losses['reconstruction'] + losses['difference']).backward()
    assert all(p.grad.abs().sum() > 0 for p in pictures)
    assert all(p.grad.abs().sum() > 0 for p in objective.decoder.parameters())
    assert all(p.grad.abs().sum() > 0 for name in seen for p in getattr(objective, name).parameters())
    assert torch.equal(seen['source_encoder'], source.images) and torch.equal(seen['target_encoder'], target.images)


@pytest.mark.parametrize('kind', ['classifier', 'pose'])
@pytest.mark.parametrize('similarity', ['dann', 'mmd'])
def test_a_step_of_the_recipe(tmp_path, kind, similarity):
    path = tmp_path / 'mine.yaml'
    text = load_recipe('dsn').objectives[kind]
    options = dict(text[1][1], start=0, similarity=similarity)
    path.write_text(f'{kind}: {{supervised: , dsn: {options}}}'.replace('None', 'null'))
    run, reports = take_steps(load_recipe(path), kind, 1)
    before = state(run.objectives[1])
    reports.append(run.step(*batches(kind)))
    assert {'reconstruction', 'difference'} <= set(reports[1]) and reports[1]['reconstruction'] > 0
    assert all(math.isfinite(v) for v in reports[1].values()) and 'skipped' not in reports[1]
    parts = {name.split('.')[0] for name in changed(before, run.objectives[1])}
    assert {'source_encoder', 'target_encoder', 'decoder'} <= parts


def test_what_it_is_not_made_for_is_named(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('detector: {supervised: , dsn: {}}')
    with pytest.raises(RecipeError, match='dsn is made for classifier, pose'):
        load_recipe(path)
    with pytest.raises(ValueError, match="expected 'dann' or 'mmd'"):
        Dsn((16,), similarity='coral')
