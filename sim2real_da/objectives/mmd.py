# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""MMD: the maximum mean discrepancy of source and target features is minimised.

Gretton et al., JMLR 2012; for networks Long et al., ICML 2015 (arXiv 1502.02791) and Tzeng et al., arXiv 1412.3474.

    L = L_task(source) + weight * MMD^2,    MMD^2 = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)
    k(x, y) = sum_i exp(-||x - y||^2 / (2 sigma_i))

with the 19 widths sigma_i between 1e-6 and 1e6 (squared lengths) of Domain Separation Networks and PixelDA, each with
weight 1. The means are over all pairs, a sample with itself included (V-statistic: biased, never negative, and exactly
0 for equal sets).

**Sign**: the discrepancy is added and minimised. It is 2 * 19 at most, where no two samples of a domain differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sim2real_da.objectives.features import Distance

WIDTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)


def discrepancy(source: Tensor, target: Tensor, widths: Sequence[float] = WIDTHS) -> Tensor:
    """Return MMD^2 of two sets of vectors ``(n, C)`` and ``(m, C)``."""
    return _likeness(source, source, widths) + _likeness(target, target, widths) - 2 * _likeness(
        source, target, widths)


def _likeness(x: Tensor, y: Tensor, widths: Sequence[float]) -> Tensor:
    # by differences, not by a matrix product: the narrow kernels see an error of 1e-6 on the diagonal
    squared = torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist').square()
    return torch.stack([torch.exp(-squared / (2 * width)).mean() for width in widths]).sum()


class Mmd(Distance):
    """Maximum mean discrepancy of the features, mean over maps and levels.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the distance
    :param levels: which vectors are compared, see :data:`.features.LEVELS`
    """

    name = 'mmd'

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, levels: Sequence[str] = ('sample',)) -> None:
        super().__init__(channels, weight, levels)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Return :func:`discrepancy`."""
        return discrepancy(source, target)
