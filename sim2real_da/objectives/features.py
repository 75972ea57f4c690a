# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which vectors of the feature maps alignment compares: whole samples, places, or what boxes hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from sim2real_da.networks.detector import STRIDE, DetectorOutput, DetectorTargets, decode, locations
from sim2real_da.objectives.base import Objective, Outputs

# sample: the mean over the map, one vector a picture or crop (a crop shows one instance, so this is its instance level)
# location: every place of the map, the detector's feature level
# instance: the mean inside the box of every object, for the detector
LEVELS = ('sample', 'location', 'instance')
LIMIT = 256  # vectors of a domain and map; comparing all places of a map with each other would need gigabytes
BOX_SCORE = 0.3  # detections in target pictures from which instances are taken


def check_levels(levels: Sequence[str]) -> tuple[str, ...]:
    """Return the levels.

    :raises ValueError: for none or one that is not in :data:`LEVELS`
    """
    if isinstance(levels, str) or not levels or not set(levels) <= set(LEVELS):
        raise ValueError(f'levels {levels!r}: expected a list with some of {LEVELS}')
    return tuple(levels)


def has_target(outputs: Outputs) -> bool:
    """Return whether the pass held target samples (it does not when the teacher found no object to crop)."""
    return outputs.source_count < len(outputs.features[0])


def vectors(outputs: Outputs, level: str, limit: int = LIMIT) -> list[tuple[Tensor, Tensor]]:
    """Return source ``(n, C)`` and target vectors ``(m, C)`` of every feature map.

    A random choice of about ``limit`` where there are more; n or m may be 0.

    :param level: one of :data:`LEVELS`
    :raises TypeError: 'instance' for a network that gives no boxes
    """
    count = outputs.source_count
    if level == 'sample':
        return [(f[:count].mean(dim=(2, 3)), f[count:].mean(dim=(2, 3))) for f in outputs.features]
    if level == 'location':
        return [_places(f, count, limit) for f in outputs.features]
    source, target = instances(outputs)
    width = outputs.source.heat.shape[-1] * STRIDE  # type: ignore[attr-defined]
    made = []
    for f in outputs.features:
        scale = f.shape[-1] / width
        made.append((_some(_inside(f[:count], source, scale), limit), _some(_inside(f[count:], target, scale), limit)))
    return made


@torch.no_grad()
def instances(outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    """Return the boxes of source and target pictures, ``(n, 4)`` xyxy in input pixels each.

    Source boxes are the labels'; target boxes what the network itself finds with a score of :data:`BOX_SCORE`.

    :raises TypeError: for another network than the detector
    """
    found, targets = outputs.target, outputs.targets
    if not isinstance(found, DetectorOutput) or not isinstance(targets, DetectorTargets):
        raise TypeError(f'level instance: made for the detector, not for {type(outputs.source).__name__}; '
                        'a crop is an instance already: level sample')
    height, width = targets.heat.shape[-2:]
    grid = locations(height, width, targets.heat.device).permute(1, 2, 0)  # (h, w, 2)
    source = []
    for heat, sides in zip(targets.heat, targets.sides):
        peaks = (heat == 1).any(dim=0)  # (h, w)
        centres, own = grid[peaks], sides.permute(1, 2, 0)[peaks]
        source.append(torch.cat([centres - own[:, :2], centres + own[:, 2:]], dim=1))
    return source, [boxes for boxes, _, _ in decode(found, BOX_SCORE)]


def _places(maps: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return source ``(n, C)`` and target vectors ``(m, C)`` of maps ``(B, C, h, w)``: of all places, or of some, the
    same ones in every map.

    One choice for both domains, before they part and places turn into rows: its gradient fills a map once.
    """
    places = maps.permute(0, 2, 3, 1).flatten(1, 2)  # (B, h * w, C); no copy where channels are last
    source, target = (max(1, limit // n) for n in (count, len(maps) - count))
    if max(source, target) < places.shape[1]:
        places = places.index_select(
            1, torch.randperm(places.shape[1], device=maps.device)[:max(source, target)])
    return places[:count, :source].flatten(0, 1), places[count:, :target].flatten(0, 1)


def _inside(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    """Return the mean inside each box ``(n, C)``; places are drawn at a grid of 4x4 in every box."""
    # pixel centres are integers here and halves there
    made: Tensor = roi_align(maps, [b + 0.5 for b in boxes], 1, scale, sampling_ratio=4, aligned=True)
    return made[:, :, 0, 0]


def _some(rows: Tensor, limit: int) -> Tensor:
    return rows if len(rows) <= limit else rows[torch.randperm(len(rows), device=rows.device)[:limit]]


class Distance(Objective):
    """Base of objectives that minimise a distance of source and target vectors, mean over maps and levels.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the distance
    :param levels: which vectors are compared, see :data:`LEVELS`
    """

    needs_target = True
    name: str  # of the loss
    least = 1  # vectors of each domain that the distance needs

    def __init__(self, channels: tuple[int, ...], weight: float, levels: Sequence[str] = ('sample',)) -> None:
        super().__init__()
        self.weight, self.levels = weight, check_levels(levels)

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the distance of ``(n, C)`` and ``(m, C)``."""
        raise NotImplementedError

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the distance by its name; nothing when a domain has too few vectors to compare."""
        if not has_target(outputs):
            return {}
        pairs = [pair for level in self.levels for pair in vectors(outputs, level)]
        found = [self.distance(s, t) for s, t in pairs if min(len(s), len(t)) >= self.least]
        return {self.name: self.weight * torch.stack(found).mean()} if found else {}
