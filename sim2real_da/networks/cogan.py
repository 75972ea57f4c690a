# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Coupled generators and discriminators (CoGAN): what two domains have in common is one set of weights.

What is each domain's own begins alike in both. Drawn apart, as in the paper, the shared layers understand nothing of
the target's first one until the game has brought the two together: tens of thousands of steps.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

NOISE = 100  # numbers a pair of pictures is made from


class CoupledGenerators(nn.Module):
    """Twin pictures of both domains from the same noise.

    What decides first, what is shown, is shared; only the last layer, how it looks, is each domain's own.

    :param size: side of the pictures in pixels
    """

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        self.size, self.width, self.cells = size, width, -(-size // 4)
        self.first = nn.Sequential(
            nn.Linear(NOISE, 2 * width * self.cells**2, bias=False), nn.BatchNorm1d(2 * width * self.cells**2),
            nn.ReLU(inplace=True))
        self.shared = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.source = nn.ConvTranspose2d(width, 3, 4, 2, 1)
        self.target = copy.deepcopy(self.source)

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return source and target pictures ``(B, 3, size, size)`` in [0, 1] of noise ``(B, NOISE)``."""
        x = self.shared(self.first(noise).unflatten(1, (2 * self.width, self.cells, self.cells)))
        source, target = (last(x)[..., :self.size, :self.size].sigmoid() for last in (self.source, self.target))
        return source, target


class CoupledDiscriminators(nn.Module):
    """Real or made, of either domain, and which class.

    Only the first layer is each domain's own; the layers behind it and both heads are shared, so that what names
    classes in source pictures names them in target pictures.

    :param size: side of the pictures in pixels, at least 8
    :param classes: number of classes
    """

    def __init__(self, size: int, classes: int, widths: tuple[int, int, int] = (20, 50, 500)) -> None:
        super().__init__()
        first, second, hidden = widths
        self.source = nn.Conv2d(3, first, 5, padding=2)
        self.target = copy.deepcopy(self.source)
        self.shared = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(first, second, 5, padding=2), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(second * (size // 4) ** 2, hidden), nn.LeakyReLU(0.2), nn.Dropout(0.5))
        self.real = nn.Linear(hidden, 1)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, source first: positive means real ``(B,)``, and classes ``(B, C)``.

        :param source: pictures ``(n, 3, size, size)`` in [0, 1]
        :param target: ``(m, 3, size, size)``, B = n + m
        """
        own = torch.cat([self.source(2 * source - 1), self.target(2 * target - 1)])
        hidden = self.shared(F.leaky_relu(own, 0.2))
        return self.real(hidden)[:, 0], self.classify(hidden)
