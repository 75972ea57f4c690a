# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a loss has to know about training in several processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


@torch.no_grad()
def shared_mean(normaliser: Tensor) -> Tensor:
    """Return the mean of a loss's normaliser over all training processes; the value itself in one process.

    Processes average their gradients. A sum divided by the *mean* normaliser therefore gives, over all of them, the sum
    of everything divided by the count of everything: the gradient of one process that sees the whole batch. Every
    process has to call it equally often.

    :param normaliser: scalar, for instance how many objects this process's share of the batch shows
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return normaliser
    total = normaliser.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
