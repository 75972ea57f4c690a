# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Image discriminator: is this picture of the one domain or of the other?

PixelDA's (Bousmalis et al., CVPR 2017, arXiv 1612.05424): a 3x3 convolution of stride 1, then ones of stride 2 that
double the channels until the map has at most 4x4 cells, leaky ReLU of 0.2, one logit. Every hidden layer gets dropout
(a tenth is dropped) and Gaussian noise of 0.2, the input neither, so that it does not win at once.

Batch normalisation, except after the first layer, always takes its statistics from the batch at hand and keeps none:
real and made pictures go through it one after the other, and a generator's turn moves nothing in here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST_MAP = 4  # cells a side of the last map


class Noise(nn.Module):
    """Adds Gaussian noise while training."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus noise of standard deviation sigma."""
        if not self.training or not self.sigma:
            return x
        count, channels, height, width = x.shape
        # drawn in one piece with channels last, which is many times faster on a CPU than randn_like of such a map
        noise = torch.randn(count, height, width, channels, device=x.device, dtype=x.dtype)
        return x + self.sigma * noise.permute(0, 3, 1, 2)


class ImageDiscriminator(nn.Module):
    """Pictures to logits; positive means real (of the domain that the made pictures should look like).

    :param size: side of the square pictures in pixels
    :param filters: channels of the first layer
    :param noise: standard deviation of the noise on hidden layers
    :param dropout: share of the hidden numbers dropped
    """

    def __init__(self, size: int, filters: int = 64, noise: float = 0.2, dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, filters, 3, padding=1), nn.LeakyReLU(0.2), nn.Dropout(dropout),
                                   Noise(noise)]
        while size > LARGEST_MAP:
            layers += [nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1, bias=False),
                       nn.BatchNorm2d(2 * filters, track_running_stats=False), nn.LeakyReLU(0.2), nn.Dropout(dropout),
                       Noise(noise)]
            size, filters = (size + 1) // 2, 2 * filters
        self.layers = nn.Sequential(*layers)
        self.decide = nn.Sequential(nn.Flatten(), nn.Linear(filters * size * size, 1))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B,)`` of pictures ``(B, 3, size, size)`` in [0, 1]."""
        return self.decide(self.layers(2 * images - 1))[:, 0]  # type: ignore[no-any-return]
