# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Dense single-stage detector: a class heat map, a box at every location and a semantic map.

Objects as points (Zhou et al., arXiv 1904.07850) with FCOS-like distances to the four sides (Tian et al., ICCV 2019).
No anchors and no proposals: every objective finds a dense map to hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import batched_nms, generalized_box_iou_loss

from sim2real_da.networks.backbones import Normalise, build_backbone, build_fusion
from sim2real_da.networks.distributed import shared_mean
from sim2real_da.networks.outputs import NetworkOutput, Targets

STRIDE = 4
BACKGROUND = 0.1  # its weight in the map's loss: objects cover a few per cent of a picture


@dataclass
class DetectorOutput(NetworkOutput):
    """What one forward pass gives.

    :param heat: class logits ``(B, C, h, w)``, ``h = H / 4``
    :param sides: distances left, top, right, bottom from the location to the box in input pixels, ``(B, 4, h, w)``
    :param semantic: logits ``(B, 1 + C, h, w)``, channel 0 is background, which they give ``BACKGROUND`` times its odds
    :param features: maps the domain adversary sees: the backbone's at strides 8 and 16, or the pyramid's when the
        backbone is frozen
    """

    heat: Tensor
    sides: Tensor
    semantic: Tensor
    features: list[Tensor]

    def rows(self, first: int, last: int | None = None) -> DetectorOutput:
        """Return the same for some of the pictures, without features."""
        return DetectorOutput(self.heat[first:last], self.sides[first:last], self.semantic[first:last], [])

    def loss(self, targets: Targets) -> dict[str, Tensor]:
        """Return :func:`detector_loss`."""
        if not isinstance(targets, DetectorTargets):
            raise TypeError(f'detector: expected DetectorTargets, got {type(targets).__name__}')
        return detector_loss(self, targets)

    def probabilities(self) -> dict[str, Tensor]:
        """Return ``semantic`` ``(B, 1 + C, h, w)`` and ``heat``, for each class and place whether an object's middle is
        there: ``(B * C, 2, h, w)``, yes first.

        A loss that weighs classes teaches odds that are as many times too high; without that, objects would grow over
        the background, above all where a network learns from its own labels (after Menon et al.,
        *Long-tail learning via logit adjustment*, ICLR 2021).
        """
        yes = self.heat.sigmoid().flatten(0, 1)
        background = self.semantic[:, :1] - math.log(BACKGROUND)
        semantic = torch.cat([background, self.semantic[:, 1:]], dim=1).softmax(dim=1)
        return {'semantic': semantic, 'heat': torch.stack([yes, 1 - yes], dim=1)}


@dataclass
class DetectorTargets:
    """Training targets, see :func:`detector_targets`.

    :param heat: Gaussian peaks ``(B, C, h, w)``
    :param sides: ``(B, 4, h, w)`` input pixels, valid where ``weight > 0``
    :param weight: ``(B, h, w)``
    :param semantic: class indices ``(B, h, w)`` int64, -1 where unknown
    :param objects: number of objects in the batch
    :param ignored: where the heat map is asked for nothing, bool ``(B, h, w)``; None: nowhere
    """

    heat: Tensor
    sides: Tensor
    weight: Tensor
    semantic: Tensor
    objects: int
    ignored: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of objects."""
        return self.objects


class Detector(nn.Module):
    """Backbone, pyramid (or context-aware fusion) at stride 4 and three heads.

    :param classes: number of object classes C
    :param backbone: see :mod:`sim2real_da.networks.backbones`
    :param input_size: (width, height) that frames are fitted into; multiples of 4
    :param frozen: the backbone's weights and statistics stay as they are
    """

    def __init__(self, classes: int, backbone: str = 'resnet_tiny', input_size: tuple[int, int] = (320, 240),
                 width: int = 40, frozen: bool = False) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            'classes': classes, 'backbone': backbone, 'input_size': list(input_size), 'width': width,
            'frozen': frozen}
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.normalise = Normalise()
        self.backbone = build_backbone(backbone, frozen)
        self.pyramid = build_fusion(backbone, self.backbone.channels, width)
        self.shared = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.heat = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        self.semantic = nn.Conv2d(width, classes + 1, 1)
        # Start at probability 0.01 so that the many empty locations do not drown the first steps (focal loss paper).
        nn.init.constant_(self.heat.get_parameter('bias'), -4.6)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in ``DetectorOutput.features``."""
        return (self.config['width'],) if self.config['frozen'] else tuple(self.backbone.channels[1:3])

    def forward(self, image: Tensor) -> DetectorOutput:
        """Run on images ``(B, 3, H, W)`` in [0, 1], H and W multiples of 4."""
        features = self.backbone(self.normalise(image))
        merged = self.pyramid(features)
        x = self.shared(merged)
        return DetectorOutput(
            # exp of a clamped value: positive, and no infinity from an untrained head
            self.heat(x), torch.exp(self.sides(x).clamp(-4, 4)) * STRIDE * 4, self.semantic(x),
            [merged] if self.config['frozen'] else features[1:3])


def locations(height: int, width: int, device: torch.device) -> Tensor:
    """Return the input-pixel coordinates x, y of a stride-4 map's cell centres, ``(2, height, width)``."""
    offset = (STRIDE - 1) / 2
    ys = torch.arange(height, device=device) * STRIDE + offset
    xs = torch.arange(width, device=device) * STRIDE + offset
    return torch.stack(torch.meshgrid(xs, ys, indexing='xy')).float()


def detector_targets(
    boxes: Sequence[np.ndarray], classes: Sequence[np.ndarray], size: tuple[int, int], class_count: int,
    semantic: Sequence[np.ndarray | None], device: torch.device | str = 'cpu',
) -> DetectorTargets:
    """Build the targets of a batch.

    :param boxes: for each image ``(n, 4)`` xyxy in *input* pixels
    :param classes: for each image ``(n,)`` class indices
    :param size: input (width, height)
    :param semantic: for each image the class map ``(h, w)`` (0 background, 1 + class) or None where unknown
    """
    width, height = size[0] // STRIDE, size[1] // STRIDE
    batch = len(boxes)
    heat = np.zeros((batch, class_count, height, width), np.float32)
    sides = np.zeros((batch, 4, height, width), np.float32)
    weight = np.zeros((batch, height, width), np.float32)
    labels = np.full((batch, height, width), -1, np.int64)
    offset = (STRIDE - 1) / 2
    ys, xs = (np.arange(height) * STRIDE + offset)[:, None], (np.arange(width) * STRIDE + offset)[None]
    total = 0
    for b in range(batch):
        known = semantic[b]
        if known is not None:
            labels[b] = known
        order = np.argsort([-(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes[b]])  # small ones drawn last, on top
        for i in order:
            x0, y0, x1, y1 = (float(v) for v in boxes[b][i])
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            if x1 <= x0 or y1 <= y0 or not (0 <= cx < size[0] and 0 <= cy < size[1]):
                continue
            total += 1
            sx, sy = max((x1 - x0) / 8, STRIDE / 2), max((y1 - y0) / 8, STRIDE / 2)
            gauss = np.exp(-((xs - cx) ** 2 / (2 * sx**2) + (ys - cy) ** 2 / (2 * sy**2))).astype(np.float32)
            row = min(max(int(round((cy - offset) / STRIDE)), 0), height - 1)
            column = min(max(int(round((cx - offset) / STRIDE)), 0), width - 1)
            gauss[row, column] = 1.0
            channel = heat[b, int(classes[b][i])]
            np.maximum(channel, gauss, out=channel)
            near = gauss > 0.4
            weight[b][near] = gauss[near]
            for k, distance in enumerate((xs - x0, ys - y0, x1 - xs, y1 - ys)):
                sides[b, k][near] = np.broadcast_to(distance, near.shape)[near]
    to = [torch.from_numpy(a).to(device) for a in (heat, sides, weight, labels)]
    return DetectorTargets(to[0], to[1], to[2], to[3], total)


def detector_loss(output: DetectorOutput, targets: DetectorTargets) -> dict[str, Tensor]:
    """Return the supervised losses ``heat`` (penalty-reduced focal), ``box`` (GIoU) and ``semantic`` (cross entropy).

    Focal exponents 2 and 4 as in CornerNet / CenterNet; normalised by the number of objects of the batch.
    """
    count = shared_mean(torch.tensor(float(targets.objects), device=output.heat.device)).clamp(min=1)
    log_p, log_q = F.logsigmoid(output.heat), F.logsigmoid(-output.heat)
    p = output.heat.sigmoid()
    positive = targets.heat == 1
    focal = torch.where(positive, (1 - p) ** 2 * log_p, (1 - targets.heat) ** 4 * p**2 * log_q)
    if targets.ignored is not None:
        focal = focal * ~targets.ignored[:, None]
    heat = -focal.sum() / count
    where = targets.weight > 0
    grid = locations(output.heat.shape[2], output.heat.shape[3], output.heat.device)
    centres = grid.permute(1, 2, 0).expand(len(targets.weight), -1, -1, -1)[where]  # (P, 2)
    found = output.sides.permute(0, 2, 3, 1)[where]  # (P, 4)
    true = targets.sides.permute(0, 2, 3, 1)[where]
    weights = targets.weight[where]
    overlap = generalized_box_iou_loss(_corners(centres, found), _corners(centres, true))
    box = (overlap * weights).sum() / shared_mean(weights.sum()).clamp(min=1e-6)
    balance = torch.ones(output.semantic.shape[1], device=output.semantic.device)
    balance[0] = BACKGROUND
    known = targets.semantic >= 0
    mass = (balance[targets.semantic.clamp(min=0)] * known).sum()
    semantic = F.cross_entropy(output.semantic, targets.semantic, weight=balance, ignore_index=-1, reduction='sum')
    semantic = semantic / shared_mean(mass).clamp(min=1)
    return {'heat': heat, 'box': 2 * box, 'semantic': 0.5 * semantic}


def _corners(centres: Tensor, sides: Tensor) -> Tensor:
    """Turn locations ``(P, 2)`` and distances ``(P, 4)`` into xyxy ``(P, 4)``."""
    return torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], dim=1)


@torch.no_grad()
def decode(output: DetectorOutput, threshold: float, limit: int = 50) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each image boxes ``(n, 4)`` in input pixels, scores ``(n,)`` and class indices ``(n,)``.

    Peaks of the heat map (3x3 maxima) above ``threshold``, best first, at most ``limit``; a non-maximum suppression
    within each class at IoU 0.5 removes the second peak of a long object.
    """
    probability = output.heat.sigmoid()
    peaks = probability * (F.max_pool2d(probability, 3, 1, 1) == probability)
    grid = locations(probability.shape[2], probability.shape[3], probability.device)
    results = []
    for peak, sides in zip(peaks, output.sides):
        scores, index = peak.flatten().topk(min(limit, peak.numel()))
        keep = scores > threshold
        scores, index = scores[keep], index[keep]
        plane = peak.shape[1] * peak.shape[2]
        classes, cell = index // plane, index % plane
        centres = grid.flatten(1)[:, cell].T  # (n, 2)
        boxes = _corners(centres, sides.flatten(1)[:, cell].T)
        keep = batched_nms(boxes, scores, classes, 0.5)
        results.append((boxes[keep], scores[keep], classes[keep]))
    return results
