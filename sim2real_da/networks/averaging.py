# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da average``: one bundle whose numbers are the means of several trainings' numbers.

Trainings that go on from one another, or from a common start, end at different places around one wide minimum; their
mean lies nearer to its middle than any of them and is as fast as one (stochastic weight averaging, Izmailov et al.,
UAI 2018; model soups, Wortsman et al., ICML 2022). Networks that began with different random numbers have nothing in
common, and their mean is worth nothing: score it on simulated frames before you use it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from sim2real_da.networks.bundle import Bundle
from sim2real_da.resources import weights_path

log = logging.getLogger(__name__)


def average(bundles: Sequence[Bundle]) -> Bundle:
    """Return the mean of all parameters and running statistics, in the first bundle's objects.

    A network that is the same in all of them stays as it is, bit for bit. The covariance factors were fitted to
    other errors, so they are 1 again (``sim2real_da calibrate``).

    :raises ValueError: for fewer than two bundles, other objects or another architecture
    """
    if len(bundles) < 2:
        raise ValueError(f'average: {len(bundles)} bundle, expected at least two')
    whole = bundles[0].copy()
    for other in bundles[1:]:
        whole.require_same(other)
        whole.check_objects(other.objects, 'the weights to average with', every=True)
    for name, network in whole.networks().items():
        _average([b.networks()[name] for b in bundles], network)
    whole.covariance_factors = (1.0, 1.0)
    whole.created = {'average_of': [b.created for b in bundles]}
    return whole


@torch.no_grad()
def _average(networks: Sequence[nn.Module], into: nn.Module) -> None:
    states = [network.state_dict() for network in networks]
    # counters of batches are whole numbers: the first one's stay
    means = {name: torch.stack([s[name].double() for s in states]).mean(0).to(value.dtype)
             for name, value in into.state_dict().items() if value.is_floating_point()}
    into.load_state_dict(means, strict=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da average``."""
    parser.add_argument('weights', nargs='+', help='two or more weights files of trainings with a common start')
    parser.add_argument('--out', type=Path, required=True, help='the mean, to be calibrated')


def run(options: argparse.Namespace) -> None:
    """Write the mean of weights files.

    :raises ValueError: see :func:`average`
    """
    paths = [weights_path(name) for name in options.weights]
    first = Bundle.load(paths[0])
    whole = average([first, *(Bundle.load(path, like=first) for path in paths[1:])])
    whole.note = f'the mean of {", ".join(path.name for path in paths)}'
    whole.save(options.out)
    log.info('%s: %s; score it on simulated frames (sim2real_da evaluate), then sim2real_da calibrate', options.out,
             whole.note)
