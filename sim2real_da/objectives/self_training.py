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

With a threshold, as DAFormer (Hoyer et al., CVPR 2022), the loss is also multiplied by

    q = share of pictures, crops or cells whose most probable class the teacher gives at least the threshold,

one number for the whole batch, and the detector's semantic map learns from the teacher's too.

With ``static_scene`` the labels are those that many pictures of an arrangement that stands still agree on, wherever
there is one: see :mod:`sim2real_da.networks.scene_labels`.
"""

from __future__ import annotations

from torch import Tensor

from sim2real_da.objectives.base import Objective, Outputs


class SelfTraining(Objective):
    """Task losses on the teacher's labels of target samples.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: factor on all of them, after the ramp
    :param steps: learner steps over which the factor rises from 0
    :param threshold: teacher's probability from which a label counts as sure (the paper's: 0.968); None: q is 1 and
        nothing is asked of the semantic map
    :param unique: detector: every object is in a picture at most once, see :func:`.pseudo_labels.pseudo_labels`
    :param static_scene: online: labels that hold in all views of what stands still, for both networks; there is one of
        each object
    """

    needs_target = True
    needs_pseudo_labels = True

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, steps: int = 50,
                 threshold: float | None = None, unique: bool = False, static_scene: bool = False) -> None:
        super().__init__()
        self.weight, self.steps, self.threshold, self.unique = weight, steps, threshold, unique
        self.static_scene = static_scene
        self.needs_confidence = threshold is not None
        self._metrics: dict[str, float] = {}

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the network's task losses as ``target_<name>``; nothing when the teacher was sure of nothing.

        :raises TypeError: when output and pseudo-labels are not of one network
        """
        target, pseudo = outputs.target, outputs.pseudo
        if target is None or pseudo is None or not (pseudo.count or self.threshold is not None):
            return {}
        found = target.loss(pseudo)
        if not pseudo.count:  # a teacher that is sure of no object still says what a cell shows
            found = {name: loss for name, loss in found.items() if name == 'semantic'}
        self._metrics = {'pseudo_labels': float(pseudo.count)}
        factor = self.weight * min((outputs.step + 1) / self.steps, 1.0)
        if self.threshold is not None:
            self._metrics['quality'] = quality = self._quality(outputs, self.threshold)
            factor *= quality
        return {f'target_{name}': factor * loss for name, loss in found.items()}

    @staticmethod
    def _quality(outputs: Outputs, threshold: float) -> float:
        """Return q; 1 for labels that did not come from a teacher."""
        target = outputs.batches[1] if outputs.batches is not None else None
        if target is None or target.confidence is None:
            return 1.0
        return float((target.confidence >= threshold).float().mean())

    def metrics(self) -> dict[str, float]:
        """Return how many pseudo-labels the last step had and, with a threshold, q."""
        return dict(self._metrics)
