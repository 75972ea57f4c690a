# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every objective sees and gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sim2real_da.networks.detector import DetectorOutput, DetectorTargets
from sim2real_da.networks.pose import PoseOutput, PoseTargets


@dataclass
class Outputs:
    """One joint forward pass of a network over a source and a target batch.

    :param source: the network's output for the labelled source samples
    :param targets: their labels
    :param features: feature maps of source *and* target samples, source first
    :param source_count: how many of the rows of ``features`` are source
    :param target: the network's output for the target samples that the teacher labelled; None without any
    :param pseudo: the teacher's labels of these
    :param step: learner steps taken before this one; a stream has no known end, so schedules count steps
    """

    source: DetectorOutput | PoseOutput
    targets: DetectorTargets | PoseTargets
    features: list[Tensor]
    source_count: int
    step: int
    target: DetectorOutput | PoseOutput | None = None
    pseudo: DetectorTargets | PoseTargets | None = None


class Objective(nn.Module):
    """Base of all objectives.

    One with players of its own (a discriminator) registers them as sub-modules; the learner gives their parameters an
    optimiser of their own, apart from the network's.
    """

    #: whether target samples have to be forwarded with the source samples
    needs_target = False
    #: whether the teacher has to label them
    needs_pseudo_labels = False

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return named losses, already weighted; their sum is minimised."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """Return what a person should watch besides the losses (schedules, accuracies) of the last step."""
        return {}
