# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a teacher's single look at a batch says about its labels, and how sure it is of them.

Labels that need more than one look (poses, on geometry) are in :mod:`sim2real_da.networks.pseudo_labels`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sim2real_da.networks.classifier import ClassifierOutput, ClassTargets
from sim2real_da.networks.detector import STRIDE, DetectorOutput, DetectorTargets, decode, detector_targets
from sim2real_da.networks.outputs import NetworkOutput, Targets
from sim2real_da.networks.pseudo_labels import DOUBTFUL, SURE


def teacher_labels(output: NetworkOutput, given: Targets | None) -> tuple[Targets | None, Tensor]:
    """Complete labels by a teacher's output for the same batch.

    Classifier: the most probable class. Detector: where the semantic map is unknown, the most probable class of each
    cell; without any labels, boxes of scores from ``SURE`` (the heat map is asked for nothing near doubtful ones). Pose
    network: nothing is added, a pose has to hold in several views.

    :param given: labels that are known already; they stay
    :returns: the labels, and the teacher's largest class probability of each sample ``(B,)`` or cell ``(B, h, w)``
    """
    probability = output.probabilities()
    if isinstance(output, DetectorOutput):
        confidence, semantic = probability['semantic'].max(dim=1)
        targets = given if isinstance(given, DetectorTargets) else _boxes(output)
        return replace(targets, semantic=torch.where(targets.semantic < 0, semantic, targets.semantic)), confidence
    confidence, classes = probability['class'].max(dim=1)
    if isinstance(output, ClassifierOutput) and given is None:
        return ClassTargets(classes), confidence
    return given, confidence


def _boxes(output: DetectorOutput) -> DetectorTargets:
    """Return targets with the teacher's own boxes and an unknown semantic map."""
    batch, classes, rows, columns = output.heat.shape
    found = [[t.cpu().numpy() for t in image] for image in decode(output, DOUBTFUL, 30)]
    sure = [scores >= SURE for _, scores, _ in found]
    targets = detector_targets(
        [boxes[s] for (boxes, _, _), s in zip(found, sure)], [names[s] for (_, _, names), s in zip(found, sure)],
        (columns * STRIDE, rows * STRIDE), classes, [None] * batch, output.heat.device)
    ignored = np.zeros((batch, rows, columns), bool)
    for b, ((boxes, _, _), s) in enumerate(zip(found, sure)):
        for x0, y0, x1, y1 in np.rint(boxes[~s] / STRIDE).astype(int):
            ignored[b, max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)] = True
    targets.ignored = torch.from_numpy(ignored).to(output.heat.device) & (targets.heat.amax(dim=1) < 1)
    return targets
