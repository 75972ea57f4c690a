# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What Domain Separation Networks add to a network: private encoders and the decoder they share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class PrivateEncoder(nn.Module):
    """What is particular to one domain, as a map of the same shape as the network's own.

    Two convolutions of stride 2, then one of 4x4 cells: of a map of one cell that is a fully connected layer.

    :param channels: of the map it makes
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2), nn.ReLU(inplace=True), nn.Conv2d(width, 2 * width, 5, 2, 2),
            nn.ReLU(inplace=True))
        self.merge = nn.Conv2d(2 * width, channels, 4, 4)

    def forward(self, image: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return ``(B, C, h, w)`` of images ``(B, 3, H, W)`` in [0, 1]; ``shape`` is (h, w)."""
        x = F.adaptive_avg_pool2d(self.blocks(2 * image - 1), (4 * shape[0], 4 * shape[1]))
        return F.relu(self.merge(x))


class SharedDecoder(nn.Module):
    """The picture from the sum of shared and private map; the same weights for both domains.

    :param channels: of the maps
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.split = nn.ConvTranspose2d(channels, 2 * width, 4, 4)
        self.middle = nn.Conv2d(2 * width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 5, padding=2)

    def forward(self, code: Tensor, size: tuple[int, int]) -> Tensor:
        """Return images ``(B, 3, H, W)``, not limited to [0, 1], of codes ``(B, C, h, w)``; ``size`` is (H, W)."""
        x = F.relu(self.split(code))
        x = F.interpolate(x, (max(size[0] // 2, 1), max(size[1] // 2, 1)), mode='bilinear', align_corners=False)
        x = F.interpolate(F.relu(self.middle(x)), size, mode='bilinear', align_corners=False)
        made: Tensor = self.last(x)
        return made
