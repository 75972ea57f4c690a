# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Feature distance: what the encoder knew of things when adaptation began is not to be forgotten.

Hoyer et al., DAFormer, CVPR 2022, arXiv 2111.14887. On *source* images, over the places M that show things,

    L_FD = weight * sum_M || F(x_s) - F_frozen(x_s) ||_2 / |M|

with the norm over channels; a cell belongs to M when 75 % of it show an object. **Sign**: a distance, minimised; 0 at
the first step.

Deviations: the frozen encoder is a copy of the *source-trained* network, as it was when adaptation began, not an
ImageNet one (there may be none for this architecture): it keeps what simulation taught, not what photographs taught.
Who has weights of the same network that photographs taught names their file.
The maps are those of strides 8 and 16 that all objectives look at, not the last stage's. The copy sees the very same
pass (target images too, batch statistics of both domains), so the distance is that of the weights alone.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier_weights import load_classifier
from sim2real_da.networks.detector import Detector, DetectorTargets
from sim2real_da.networks.network_weights import load_network
from sim2real_da.networks.pose import DenseTargets, PoseTargets
from sim2real_da.networks.weights_file import kind_of, manifest_of
from sim2real_da.objectives.base import Batch, Objective, Outputs

LEAST_SHARE = 0.75  # of a cell that has to show an object


def things(batch: Batch) -> Tensor:
    """Return where the objects are, 0 or 1, ``(B, 1, h, w)`` at any resolution; everywhere where nobody knows.

    Masks of the batch; else the detector's semantic map, without one the middles of its boxes; the masks of dense pose
    targets. Crops and pictures without masks show one thing: all of it counts.
    """
    targets = batch.targets
    if batch.masks is not None:
        return (batch.masks > 0.5).float()
    if isinstance(targets, DetectorTargets):
        known = (targets.semantic >= 0).flatten(1).any(dim=1)[:, None, None]
        return torch.where(known, targets.semantic > 0, targets.weight > 0).float()[:, None]
    if isinstance(targets, PoseTargets) and isinstance(targets.of, DenseTargets):
        known = (targets.of.mask >= 0).flatten(1).any(dim=1)[:, None, None]
        return torch.where(known, targets.of.mask > 0.5, True).float()[:, None]
    return torch.ones(len(batch.images), 1, 1, 1, device=batch.images.device)


def feature_distance(mine: Tensor, theirs: Tensor, where: Tensor) -> Tensor:
    """Return the mean L2 distance of two maps ``(B, C, h, w)`` over the cells that ``where`` ``(B, 1, H, W)`` fills."""
    mask = F.interpolate(where, mine.shape[-2:], mode='area')[:, 0] >= LEAST_SHARE  # (B, h, w)
    distance = torch.linalg.vector_norm(mine - theirs, dim=1)
    return (distance * mask).sum() / mask.sum().clamp(min=1)


def _read(path: Path, like: nn.Module) -> nn.Module:
    """Return the network of a weights file that is of this one's kind.

    :raises WeightsError: for a file that is missing or damaged
    """
    kind = kind_of(manifest_of(path))
    if kind == 'bundle':
        bundle = Bundle.load(path)
        return bundle.detector if isinstance(like, Detector) else bundle.pose
    return load_classifier(path)[0] if kind == 'classifier' else load_network(path, kind)[0]


class FeatureDistance(Objective):
    """Distance of the source samples' features from those of a frozen copy.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: lambda_FD
    :param encoder: weights file of a network of the same architecture, whose features are kept instead; it normalises
        by its own statistics
    """

    def __init__(self, channels: tuple[int, ...], weight: float = 0.005, encoder: str | None = None) -> None:
        super().__init__()
        self.weight, self.encoder = weight, encoder
        self.frozen: nn.Module | None = None

    def players(self) -> list[nn.Parameter]:
        """Return none: the copy stays as it is."""
        return []

    def start(self, network: nn.Module) -> None:
        """Keep a copy, or read the file.

        :raises ValueError: when the file has another architecture
        """
        if self.encoder is None:
            self.frozen = copy.deepcopy(network).requires_grad_(False)
            return
        other = _read(Path(self.encoder), network).requires_grad_(False)
        if other.config != network.config:
            raise ValueError(f'feature_distance: {self.encoder} has another architecture {other.config}, expected '
                             f'{network.config}')
        self.frozen = other.to(next(network.parameters()).device)

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``feature_distance``, the mean over the feature maps."""
        assert self.frozen is not None and outputs.batches is not None, 'feature distance: start() was not called'
        source, target = outputs.batches
        images = torch.cat([source.images, *([target.images] if target is not None else [])])
        with torch.no_grad():
            # a copy in the student's mode: batch statistics are those of this pass, its running ones are never used
            training = self.encoder is None and (outputs.network is None or outputs.network.training)
            features = self.frozen.train(training)(images).features
        where, count = things(source), outputs.source_count
        values = [feature_distance(mine[:count], theirs[:count], where)
                  for mine, theirs in zip(outputs.features, features)]
        return {'feature_distance': self.weight * torch.stack(values).mean()}
