# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""MIC, masked image consistency: recognise from the context what the teacher saw in the open.

Hoyer et al., CVPR 2023, arXiv 2212.01322. A picture is cut into square blocks and each is hidden with probability
``ratio``; the student has to give the labels that the teacher gave for the whole picture. The loss is the one of
``self_training``, which stands beside it in a recipe.

Deviations: every second target picture is masked and the others stay whole, so that one pass holds the paper's loss on
whole and on masked pictures, each with half the samples; the paper passes all of them twice. Hidden blocks are grey,
the colour that the networks' normalisation turns to about 0. The block's side is a share of the picture's, an eighth
as 64 pixels of the paper's 512.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim2real_da.objectives.base import Batch, Objective, Outputs

GREY = 0.45


def blocks_mask(count: int, size: tuple[int, int], block: int, ratio: float,
                device: torch.device | str = 'cpu') -> Tensor:
    """Return which pixels are hidden, bool ``(count, 1, H, W)``.

    :param size: (H, W)
    :param block: side in pixels; blocks at the right and lower border are cut off
    :param ratio: probability that a block is hidden
    """
    rows, columns = (-(-side // block) for side in size)
    hidden = torch.rand(count, 1, rows, columns, device=device) < ratio
    return hidden.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)[:, :, :size[0], :size[1]]


class MaskedConsistency(Objective):
    """Hides blocks of the target pictures.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param ratio: share of blocks that are hidden
    :param blocks: blocks along the shorter side
    """

    needs_target = True
    needs_pseudo_labels = True
    beside = 'self_training'

    def __init__(self, channels: tuple[int, ...], ratio: float = 0.7, blocks: int = 8) -> None:
        super().__init__()
        self.ratio, self.blocks = ratio, blocks

    def mixed(self, source: Batch, target: Batch, step: int) -> Batch:
        """Return the target with every second picture masked, the first among them; the labels stay."""
        images = target.images.clone()
        height, width = images.shape[-2:]
        block = max(round(min(height, width) / self.blocks), 1)
        hidden = blocks_mask(len(images[::2]), (height, width), block, self.ratio, images.device)
        images[::2] = images[::2].masked_fill(hidden, GREY)
        return replace(target, images=images)

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return nothing: the masked pictures are the target."""
        return {}
