# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The task losses on labelled simulation. Replaying them is what keeps an adapting network from forgetting."""

from __future__ import annotations

from torch import Tensor

from sim2real_da.objectives.base import Objective, Outputs


class Supervised(Objective):
    """Detector: focal heat map, GIoU boxes, semantic cross entropy. Pose: what its representation has, and the class.

    Classifier: cross entropy.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: factor on all of them
    """

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the network's own task losses.

        :raises TypeError: when output and targets are not of one network
        """
        return {name: self.weight * loss for name, loss in outputs.source.loss(outputs.targets).items()}
