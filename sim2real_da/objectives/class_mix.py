# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ClassMix: half of the classes of a simulated window are pasted onto a camera window, with their labels.

Olsson et al., WACV 2021, arXiv 2007.07936; across domains DACS (Tranheden et al., WACV 2021), as in DAFormer. The
student then sees true labels and the teacher's on one picture, and objects of simulation before a real background.

For the detector, all at the cells of its output (stride 4; a cell carries its 4x4 pixels): the semantic map of the
pasted cells is the source's; heat peaks, sides and weights of the pasted objects come along whole, since the middle of
a bent object need not lie on it; peaks and sides of target objects whose cells are covered are gone, and nothing stays
ignored there. Deviation: only objects are pasted, background never: it would be nearly the whole picture.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim2real_da.networks.detector import STRIDE, DetectorTargets
from sim2real_da.objectives.base import Batch, Objective, Outputs


def drawn_classes(semantic: Tensor) -> Tensor:
    """Return half (rounded up) of the object classes of one semantic map ``(h, w)``, 1 + index each, drawn anew."""
    present = semantic[semantic > 0].unique()
    return present[torch.randperm(len(present), device=present.device)[:(len(present) + 1) // 2]]


def mix(source: Batch, target: Batch, chosen: list[Tensor]) -> Batch:
    """Return target windows with objects of the source windows pasted in.

    :param source: row i goes onto target row i; it starts again from its first row where the target has more
    :param chosen: for each target row the classes to paste, 1 + index
    """
    mine, theirs = source.targets, target.targets
    assert isinstance(mine, DetectorTargets) and isinstance(theirs, DetectorTargets)
    rows = torch.arange(len(target.images), device=target.images.device) % len(source.images)
    channels = torch.arange(1, mine.heat.shape[1] + 1, device=rows.device)
    picked = torch.stack([torch.isin(channels, c) for c in chosen])  # (B, C)
    semantic = mine.semantic[rows]
    pasted = torch.stack([torch.isin(s, c) for s, c in zip(semantic, chosen)])  # (B, h, w)
    heat = mine.heat[rows] * picked[:, :, None, None]
    weight = mine.weight[rows]
    # a cell's sides belong to the object whose peak gave the weight
    own = (weight > 0) & ((heat == weight[:, None]) & picked[:, :, None, None]).any(dim=1)
    mixed_heat = torch.maximum(heat, theirs.heat.masked_fill(pasted[:, None], 0))
    ignored = None
    if theirs.ignored is not None:
        ignored = theirs.ignored & ~pasted & (mixed_heat.amax(dim=1) < 1)
    targets = DetectorTargets(
        mixed_heat, torch.where(own[:, None], mine.sides[rows], theirs.sides),
        torch.where(own, weight, theirs.weight.masked_fill(pasted, 0)), torch.where(pasted, semantic, theirs.semantic),
        int((mixed_heat == 1).sum()), ignored)
    pixels = pasted.repeat_interleave(STRIDE, dim=1).repeat_interleave(STRIDE, dim=2)[:, None]
    return replace(target, images=torch.where(pixels, source.images[rows], target.images), targets=targets)


class ClassMix(Objective):
    """Pastes; the loss on the mixed window is that of ``self_training``, which stands beside it in a recipe.

    :param channels: feature channels of the network; not used, every objective is built the same way
    """

    needs_target = True
    needs_pseudo_labels = True
    beside = 'self_training'
    networks = ('detector',)

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self._pasted = 0.0

    def mixed(self, source: Batch, target: Batch, step: int) -> Batch:
        """Return the mixed windows.

        :raises ValueError: without detector targets on both sides, or for pictures of two sizes
        """
        if not isinstance(source.targets, DetectorTargets) or not isinstance(target.targets, DetectorTargets):
            raise ValueError('class_mix: expected detector targets of source and target, got '
                             f'{type(source.targets).__name__} and {type(target.targets).__name__}')
        if source.images.shape[1:] != target.images.shape[1:]:
            raise ValueError(f'class_mix: source pictures are {tuple(source.images.shape[1:])} and target pictures '
                             f'{tuple(target.images.shape[1:])}; expected one size')
        maps = source.targets.semantic
        chosen = [drawn_classes(maps[i % len(maps)]) for i in range(len(target.images))]
        self._pasted = sum(map(len, chosen)) / len(chosen)
        return mix(source, target, chosen)

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return nothing: the mixed window is the target."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Return how many classes the last step pasted into a window, on average."""
        return {'pasted_classes': self._pasted}
