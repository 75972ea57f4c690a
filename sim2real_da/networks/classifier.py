# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Classifier of small square pictures (digits, traffic signs): what the adaptation literature measures itself on.

Convolutions with batch normalisation and pooling, one hidden layer. Sources and targets go through it in one pass while
adapting, so its statistics are those of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.outputs import NetworkOutput, Targets


@dataclass
class ClassTargets:
    """Class indices ``(B,)``; an optional weight for each sample ``(B,)``, 1 where None."""

    classes: Tensor
    weight: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.classes)


@dataclass
class ClassifierOutput(NetworkOutput):
    """What one forward pass gives.

    :param logits: ``(B, C)``
    :param features: the hidden layer as a map of one cell, ``[(B, hidden, 1, 1)]``
    """

    logits: Tensor
    features: list[Tensor]

    def rows(self, first: int, last: int | None = None) -> ClassifierOutput:
        """Return the same for some of the pictures, without features."""
        return ClassifierOutput(self.logits[first:last], [])

    def loss(self, targets: Targets) -> dict[str, Tensor]:
        """Return ``class``, the mean cross entropy; with weights the weighted sum over the number of pictures."""
        if not isinstance(targets, ClassTargets):
            raise TypeError(f'classifier: expected ClassTargets, got {type(targets).__name__}')
        if targets.weight is None:
            return {'class': F.cross_entropy(self.logits, targets.classes)}
        return {'class': (targets.weight * F.cross_entropy(self.logits, targets.classes, reduction='none')).mean()}

    def probabilities(self) -> dict[str, Tensor]:
        """Return ``class``: ``(B, C)``."""
        return {'class': self.logits.softmax(dim=1)}


class Classifier(nn.Module):
    """Blocks of 5x5 convolution, batch normalisation, ReLU and 2x2 pooling, then one hidden layer.

    :param classes: number of classes C
    :param size: side of the pictures in pixels; others are resized to it (bilinear) before anything else
    :param channels: of the blocks
    :param hidden: width of the hidden layer, which is where objectives align
    :param names: of the classes, for a weights file that speaks for itself; default: their numbers
    """

    def __init__(self, classes: int, size: int = 28, channels: Sequence[int] = (32, 48), hidden: int = 128,
                 names: Sequence[str] = ()) -> None:
        super().__init__()
        if size < 4 * 2 ** len(channels) or (names and len(names) != classes):
            raise ValueError(f'classifier: {size} pixels, {len(channels)} blocks, {len(names)} names of {classes} '
                             'classes; expected at least 4 pixels after the last block and a name for every class')
        self.config: dict[str, Any] = {'classes': classes, 'size': size, 'channels': list(channels), 'hidden': hidden,
                                       'names': list(names)}
        self.size = size
        layers: list[nn.Module] = []
        for before, width in zip((3, *channels), channels):
            layers += [nn.Conv2d(before, width, 5, padding=2, bias=False), nn.BatchNorm2d(width),
                       nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(channels[-1] * (size // 2 ** len(channels)) ** 2, hidden), nn.ReLU())
        self.classify = nn.Linear(hidden, classes)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in ``ClassifierOutput.features``."""
        return (self.config['hidden'],)

    def forward(self, image: Tensor) -> ClassifierOutput:
        """Run on pictures ``(B, 3, H, W)`` in [0, 1]; grey ones have three equal channels."""
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode='bilinear', antialias=True)
        hidden = self.hidden(self.blocks((image - 0.5) / 0.3))
        return ClassifierOutput(self.classify(hidden), [hidden[:, :, None, None]])


def to_images(pictures: Any, device: torch.device | str = 'cpu') -> Tensor:
    """Return uint8 pictures ``(N, H, W)`` or ``(N, H, W, 3)`` as float ``(N, 3, H, W)`` in [0, 1]."""
    tensor = torch.as_tensor(pictures, device=device)
    if tensor.ndim == 3:
        tensor = tensor[..., None].expand(-1, -1, -1, 3)
    return tensor.permute(0, 3, 1, 2).float().div(255).contiguous()
