# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ClassMix: objects of simulation are pasted onto camera pictures, with their labels.

Olsson et al., WACV 2021, arXiv 2007.07936; across domains DACS (Tranheden et al., WACV 2021), as in DAFormer. The
student then sees true labels and the teacher's on one picture, and objects of simulation before a real background.

For the detector half of the classes of a simulated window, all at the cells of its output (stride 4; a cell carries its
4x4 pixels): the semantic map of the pasted cells is the source's; heat peaks, sides and weights of the pasted objects
come along whole, since the middle of a bent object need not lie on it; peaks and sides of target objects whose cells
are covered are gone, and nothing stays ignored there. Deviation: only objects are pasted, background never: it would be
nearly the whole picture.

A crop has one class and one pose, so for the pose network every second crop of the camera becomes one of simulation's
objects before what the camera saw there: the pixels of its mask, its class and its whole pose, in the place of what the
teacher said.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim2real_da.networks.detector import STRIDE, DetectorTargets
from sim2real_da.networks.pose import PoseTargets, joined
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


def mix_crops(source: Batch, target: Batch, places: Tensor, objects: Tensor) -> Batch:
    """Return target crops, some of them with an object of a source crop pasted in and that object's labels.

    :param places: rows of the target ``(n,)``
    :param objects: rows of the source ``(n,)``, crops that show an object
    """
    mine, theirs = source.targets, target.targets
    assert isinstance(mine, PoseTargets) and isinstance(theirs, PoseTargets) and source.masks is not None
    images, masks = target.images.clone(), source.masks[objects]
    images[places] = masks * source.images[objects] + (1 - masks) * images[places]
    rows = torch.arange(len(images), device=images.device)
    rows[places] = len(images) + objects
    return replace(target, images=images, targets=joined(theirs, mine).taken(rows))


class ClassMix(Objective):
    """Pastes; the loss on what is mixed is that of ``self_training``, which stands beside it in a recipe.

    Pose networks need masks of the source crops; without them nothing is pasted, which the metric shows.

    :param channels: feature channels of the network; not used, every objective is built the same way
    """

    needs_target = True
    needs_pseudo_labels = True
    beside = 'self_training'
    networks = ('pose', 'detector')

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self._pasted = 0.0

    def mixed(self, source: Batch, target: Batch, step: int) -> Batch:
        """Return the mixed pictures.

        :raises ValueError: without targets of one network on both sides, or for pictures of two sizes
        """
        mine, theirs = source.targets, target.targets
        if isinstance(mine, PoseTargets) and theirs is None:  # the teacher was sure of no pose
            self._pasted = 0.0
            return target
        if type(mine) is not type(theirs) or not isinstance(mine, DetectorTargets | PoseTargets):
            raise ValueError('class_mix: expected targets of a detector or a pose network on both sides, got '
                             f'{type(mine).__name__} and {type(theirs).__name__}')
        if source.images.shape[1:] != target.images.shape[1:]:
            raise ValueError(f'class_mix: source pictures are {tuple(source.images.shape[1:])} and target pictures '
                             f'{tuple(target.images.shape[1:])}; expected one size')
        count = len(target.images)
        if isinstance(mine, DetectorTargets):
            chosen = [drawn_classes(mine.semantic[i % len(mine.semantic)]) for i in range(count)]
            self._pasted = sum(map(len, chosen)) / count
            return mix(source, target, chosen)
        self._pasted = 0.0
        if source.masks is None or not source.masks.any():
            return target
        shown = source.masks.flatten(1).any(dim=1).nonzero()[:, 0]
        places = torch.randperm(count, device=target.images.device)[:(count + 1) // 2]
        self._pasted = len(places) / count
        return mix_crops(source, target, places, shown[torch.randint(len(shown), places.shape, device=places.device)])

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return nothing: what is mixed is the target."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Return how many classes the last step pasted into a window or crop, on average."""
        return {'pasted_classes': self._pasted}
