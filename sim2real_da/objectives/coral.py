# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Deep CORAL: source and target features shall have the same covariance (Sun and Saenko, ECCV 2016 workshops).

arXiv 1607.01719. With the covariances C_s and C_t ``(d, d)`` of the two domains' feature vectors within a batch,

    L = L_task(source) + weight * ||C_s - C_t||_F^2 / (4 d^2).

The covariances are the unbiased ones (divisor n - 1). Means are left alone: the joint batch normalisation and the task
see to those. **Sign**: the distance is added and minimised.

The paper chooses the weight so that both terms are alike in the end; the distance is small (d^2 below), so the weight
is large.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sim2real_da.objectives.features import Distance


def covariance(rows: Tensor) -> Tensor:
    """Return the unbiased covariance ``(d, d)`` of at least two vectors ``(n, d)``."""
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / (len(rows) - 1)


def coral_distance(source: Tensor, target: Tensor) -> Tensor:
    """Return ||C_s - C_t||_F^2 / (4 d^2) of ``(n, d)`` and ``(m, d)``, two vectors of each at least."""
    return (covariance(source) - covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


class Coral(Distance):
    """Distance of the features' covariances, mean over maps and levels.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the distance
    :param levels: which vectors are compared, see :data:`.features.LEVELS`
    """

    name = 'coral'
    least = 2  # fewer have no covariance

    def __init__(self, channels: tuple[int, ...], weight: float = 50.0, levels: Sequence[str] = ('sample',)) -> None:
        super().__init__(channels, weight, levels)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Return :func:`coral_distance`."""
        return coral_distance(source, target)
