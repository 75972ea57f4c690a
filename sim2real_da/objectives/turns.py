# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What players that take turns have in common: one step of one of them, with everybody else held still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.distributed import average_gradients
from sim2real_da.networks.pose import PoseNetwork


def take_turn(optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> bool:
    """Step the optimiser's own parameters down the gradient of ``loss``; nobody else gets a gradient.

    :param clip: largest norm of the gradient
    :returns: False when the gradient is not finite: nothing has changed then
    """
    own = [p for group in optimiser.param_groups for p in group['params']]
    for parameter, gradient in zip(own, torch.autograd.grad(loss, own)):
        parameter.grad = gradient
    average_gradients(own)
    if not torch.isfinite(nn.utils.clip_grad_norm_(own, clip)):
        return False
    optimiser.step()
    return True


@contextmanager
def held_still(network: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation mode: no dropout, and no pass moves its running statistics."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def picture_side(network: nn.Module) -> int:
    """Return the side of the square pictures that a network takes, in pixels.

    :raises TypeError: for one that takes whole frames
    """
    if isinstance(network, PoseNetwork):
        return network.crop_size
    if isinstance(network, Classifier):
        return network.size
    raise TypeError(f'pixel-level adaptation: expected a classifier or a pose network, got {type(network).__name__}')
