# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Mix Transformer: the hierarchical encoder of SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203), a small one.

Four stages; each embeds overlapping patches by a strided convolution (strides 4, 2, 2, 2), then alternates

    x <- x + attention(LN(x))     queries at every place, keys and values from a map shrunk by r x r convolution
    x <- x + mix_ffn(LN(x))       linear, 3x3 depthwise convolution, GELU, linear

There is no position code: zero padding of the depthwise convolutions tells places apart, so any input size will do.
Written from the papers. Deviations: narrower and shallower than the smallest published one (B0: 32 to 256 channels, two
blocks a stage) for two CPU cores; maps that r does not divide are padded with zeros; no stochastic depth; no weights
are shipped, it starts at random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CHANNELS = (24, 48, 96, 160)
BLOCKS = (1, 1, 2, 1)
HEADS = (1, 2, 3, 5)
REDUCTION = (8, 4, 2, 1)
EXPANSION = 4


class Attention(nn.Module):
    """Multi-head self-attention over a map with keys and values of r x r fewer places.

    :param reduction: r
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.shrink = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else nn.Identity()
        self.norm = nn.LayerNorm(channels) if reduction > 1 else nn.Identity()

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Run on tokens ``(B, height * width, C)``."""
        fewer = tokens
        if self.reduction > 1:
            grid = tokens.transpose(1, 2).unflatten(2, (height, width))
            grid = F.pad(grid, (0, -width % self.reduction, 0, -height % self.reduction))
            fewer = self.norm(self.shrink(grid).flatten(2).transpose(1, 2))  # (B, M, C)
        query, key, value = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N or M, C / heads)
            for t in (self.query(tokens), *self.key_value(fewer).chunk(2, dim=2)))
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MixFeedForward(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.expand = nn.Linear(channels, hidden)
        self.filter = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Run on tokens ``(B, height * width, C)``."""
        grid = self.expand(tokens).transpose(1, 2).unflatten(2, (height, width))
        return self.project(F.gelu(self.filter(grid)).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each on normalised tokens and added to them."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, reduction)
        self.feed = MixFeedForward(channels)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Run on tokens ``(B, height * width, C)``."""
        tokens = tokens + self.attention(self.before_attention(tokens), height, width)
        return tokens + self.feed(self.before_feed(tokens), height, width)  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Overlapping patch embedding, blocks, normalisation.

    :param stride: of the embedding; patches are of ``2 stride - 1`` pixels a side
    """

    def __init__(self, inputs: int, channels: int, stride: int, blocks: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(inputs, channels, 2 * stride - 1, stride, stride - 1)
        self.embedded, self.norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Block(channels, heads, reduction) for _ in range(blocks))

    def forward(self, image: Tensor) -> Tensor:
        """Return ``(B, channels, H / stride, W / stride)``, sizes rounded up."""
        grid = self.embed(image)
        height, width = grid.shape[-2:]
        tokens = self.embedded(grid.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, height, width)
        # as a convolution lays out its own: the backward pass of one over a transposed view crashes torch 2.11 on CPUs
        return self.norm(tokens).transpose(1, 2).contiguous().unflatten(2, (height, width))  # type: ignore[no-any-return]


class MixTransformer(nn.Module):
    """Stages of strides 4, 8, 16 and 32; 0.9 M parameters."""

    channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            Stage(inputs, channels, stride, blocks, heads, reduction) for inputs, channels, stride, blocks, heads,
            reduction in zip((3, *CHANNELS), CHANNELS, (4, 2, 2, 2), BLOCKS, HEADS, REDUCTION))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16, 32 of normalised images ``(B, 3, H, W)``."""
        features: list[Tensor] = []
        for stage in self.stages:
            features.append(stage(features[-1] if features else image))
        return features


class ContextFusion(nn.Module):
    """Context-aware fusion of DAFormer (Hoyer et al., CVPR 2022): all stages at once, seen at several widths.

    Every map is embedded by a 1x1 convolution and brought to the first's size (bilinear); all of them together pass
    parallel branches, a 1x1 convolution and depthwise-separable 3x3 ones of dilations 6, 12 and 18, which a 1x1
    convolution fuses. It stands where other backbones have :class:`sim2real_da.networks.backbones.Pyramid`.

    :param channels: of the maps
    :param width: of every embedding, every branch and the result (the paper's: 256)
    """

    def __init__(self, channels: tuple[int, ...], width: int, dilations: tuple[int, ...] = (6, 12, 18)) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        stacked = width * len(channels)
        self.branches = nn.ModuleList([_normalised(nn.Conv2d(stacked, width, 1, bias=False))])
        for d in dilations:
            self.branches.append(nn.Sequential(
                _normalised(nn.Conv2d(stacked, stacked, 3, padding=d, dilation=d, groups=stacked, bias=False)),
                _normalised(nn.Conv2d(stacked, width, 1, bias=False))))
        self.fuse = _normalised(nn.Conv2d(width * len(self.branches), width, 1, bias=False))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Merge maps of falling resolution into one of the first's: ``(B, width, H/4, W/4)``."""
        size = features[0].shape[-2:]
        stacked = torch.cat([F.interpolate(embed(f), size=size, mode='bilinear') if f.shape[-2:] != size else embed(f)
                             for embed, f in zip(self.embed, features)], dim=1)
        return self.fuse(torch.cat([branch(stacked) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))
