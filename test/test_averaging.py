# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The mean of several trainings' weights: every number, nothing else, and only of networks that are alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import box_model

from sim2real_da.cli import main
from sim2real_da.networks.averaging import average
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.weights_file import WeightsError


@pytest.fixture
def bundles():
    """Return three bundles: one detector, three pose networks."""
    first = Bundle.create({'box': box_model('box')}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    first.covariance_factors, first.created = (2.0, 3.0), {'steps': 1}
    others = [first.copy() for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for number, other in enumerate(others):
        other.created = {'steps': number + 2}
        for tensor in other.pose.state_dict().values():
            if tensor.is_floating_point():
                tensor += torch.rand(tensor.shape, generator=generator)
            else:
                tensor += 7
    return [first, *others]


def test_every_number_is_the_mean_and_what_is_alike_stays(bundles):
    before = [{k: v.clone() for k, v in b.pose.state_dict().items()} for b in bundles]
    whole = average(bundles)
    for name, value in whole.pose.state_dict().items():
        if value.is_floating_point():  # running statistics, too
            torch.testing.assert_close(value, sum(b[name] for b in before) / 3)
        else:
            assert torch.equal(value, before[0][name])
    for name, value in whole.detector.state_dict().items():
        assert torch.equal(value, bundles[0].detector.state_dict()[name])
    assert whole.covariance_factors == (1.0, 1.0)  # those were fitted to other errors
    assert whole.created == {'average_of': [{'steps': 1}, {'steps': 2}, {'steps': 3}]}
    for bundle, state in zip(bundles, before):
        assert all(torch.equal(v, state[k]) for k, v in bundle.pose.state_dict().items())


def test_the_command_writes_weights_that_say_what_they_are_of(bundles, tmp_path, capsys):
    paths = [str(bundle.save(tmp_path / f'{n}.safetensors')) for n, bundle in enumerate(bundles)]
    assert main(['average', *paths, '--out', str(tmp_path / 'mean.safetensors')]) == 0
    mean = Bundle.load(tmp_path / 'mean.safetensors')
    torch.testing.assert_close(mean.pose.state_dict(), average(bundles).pose.state_dict())
    assert mean.note == 'the mean of 0.safetensors, 1.safetensors, 2.safetensors'


def test_what_has_no_mean_is_refused(bundles, tmp_path, capsys):
    with pytest.raises(ValueError, match='1 bundle, expected at least two'):
        average(bundles[:1])
    closer = bundles[0].copy()
    closer.look_closer(96, looks=2)
    with pytest.raises(WeightsError, match='another pose architecture'):
        average([bundles[0], closer])
    paths = [str(bundle.save(tmp_path / f'{n}.safetensors')) for n, bundle in enumerate((bundles[0], closer))]
    assert main(['average', *paths, '--out', str(tmp_path / 'mean.safetensors')]) == 2
    assert '1.safetensors: weights: another pose architecture' in capsys.readouterr().err
    assert not (tmp_path / 'mean.safetensors').exists()
    larger = bundles[0].copy()
    larger.objects['box'] = replace(larger.objects['box'], diameter=2 * larger.objects['box'].diameter)
    with pytest.raises(ValueError, match='diameter'):
        average([bundles[0], larger])
