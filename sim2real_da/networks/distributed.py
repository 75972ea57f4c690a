# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes at one training, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

_sharing = [False]  # whether losses divide by normalisers of all processes


@contextmanager
def processes(device: str, share_normalisers: bool = True) -> Iterator[tuple[int, int, str]]:
    """Join the process group that torchrun describes, if there is one; give rank, number of processes, own device.

    Whatever holds on to the group (``DistributedDataParallel``) has to be gone when the context ends: threads of a
    group that lives on abort the process when the interpreter ends.

    :param share_normalisers: losses divide by the counts of all processes (:func:`shared_mean`). Then every process has
        to compute the same losses in every step, which self-training does not promise
    """
    if 'RANK' not in os.environ:
        yield 0, 1, device
        return
    if _together():  # a training within a command that has joined already
        before, _sharing[0] = _sharing[0], share_normalisers
        try:
            yield distributed.get_rank(), distributed.get_world_size(), device
        finally:
            _sharing[0] = before
        return
    if device.startswith('cuda'):
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
        torch.cuda.set_device(device)
    distributed.init_process_group('nccl' if device.startswith('cuda') else 'gloo')
    _sharing[0] = share_normalisers
    try:
        yield distributed.get_rank(), distributed.get_world_size(), device
    finally:
        _sharing[0] = False
        distributed.destroy_process_group()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def own_seed(*seed: int) -> list[int]:
    """Return a seed of this process's own for what it draws; the seed itself in the first and in a lone one."""
    rank = distributed.get_rank() if _together() else 0
    return [*seed, *([rank] if rank else [])]


@torch.no_grad()
def shared_mean(normaliser: Tensor) -> Tensor:
    """Return the mean of a loss's normaliser over all training processes; the value itself in one process.

    Processes average their gradients. A sum divided by the *mean* normaliser therefore gives, over all of them, the sum
    of everything divided by the count of everything: the gradient of one process that sees the whole batch. Every
    process has to call it equally often.

    :param normaliser: scalar, for instance how many objects this process's share of the batch shows
    """
    return mean_of(normaliser.detach()) if _sharing[0] else normaliser


@torch.no_grad()
def mean_of(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes; the value itself in one."""
    if not _together():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def everywhere(true: bool, device: torch.device) -> bool:
    """Whether something holds in every process."""
    return bool(mean_of(torch.tensor(float(true), device=device)) == 1)


def same_everywhere(number: int, device: str) -> bool:
    """Whether all processes have the same number."""
    value = torch.tensor([float(number)], dtype=torch.float64, device=device)
    return everywhere(bool(mean_of(value) == number), value.device)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make gradients the mean over all processes; one that a process does not have counts as zero."""
    if not _together():
        return
    own = list(parameters)
    for parameter in own:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _average([p.grad for p in own if p.grad is not None])


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Make running statistics the mean over all processes, so that all have one network."""
    if _together():
        _average([b for b in network.buffers() if b.is_floating_point()])


def _average(tensors: list[Tensor]) -> None:
    """Make tensors the mean over all processes, by one message."""
    if not tensors:
        return
    whole = mean_of(torch.cat([t.flatten() for t in tensors]))
    for tensor, mean in zip(tensors, whole.split([t.numel() for t in tensors])):
        tensor.copy_(mean.view(tensor.shape))
