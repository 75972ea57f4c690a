# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Self-training: the student learns on real pictures what its averaged teacher is sure of.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017) with pseudo-labels as Unbiased Teacher has them for detectors (Liu et
al., ICLR 2021): the teacher sees the picture as it is, the student a changed copy (place, scale, turn, camera effects),
and the loss is the task's own,

    L_task(source) + weight * ramp(step) * L_task(student(changed target), teacher(target)).

Boxes are believed by their score; around weaker ones nothing is asked of the heat map. Poses are believed on geometry,
not on confidence: see :mod:`sim2real_da.networks.pseudo_labels`. The ramp is linear: the first labels come from a
teacher that has seen nothing real yet.
"""

from __future__ import annotations

from torch import Tensor

from sim2real_da.objectives.base import Objective, Outputs


class SelfTraining(Objective):
    """Task losses on the teacher's labels of target samples.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: factor on all of them, after the ramp
    :param steps: learner steps over which the factor rises from 0
    """

    needs_target = True
    needs_pseudo_labels = True

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, steps: int = 50) -> None:
        super().__init__()
        self.weight, self.steps = weight, steps
        self._metrics: dict[str, float] = {}

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the network's task losses as ``target_<name>``; nothing when the teacher was sure of nothing.

        :raises TypeError: when output and pseudo-labels are not of one network
        """
        target, pseudo = outputs.target, outputs.pseudo
        if target is None or pseudo is None or not pseudo.count:
            return {}
        found = target.loss(pseudo)
        self._metrics = {'pseudo_labels': float(pseudo.count)}
        factor = self.weight * min((outputs.step + 1) / self.steps, 1.0)
        return {f'target_{name}': factor * loss for name, loss in found.items()}

    def metrics(self) -> dict[str, float]:
        """Return how many pseudo-labels the last step had."""
        return dict(self._metrics)
