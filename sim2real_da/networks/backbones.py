# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Feature extractors by name: maps at strides 4, 8, 16 and 32.

``resnet_tiny`` is a residual network (He et al., CVPR 2016) small enough to train on two CPU cores: 0.7 M parameters.
Any torchvision ResNet or MobileNetV3 may be named instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock

STRIDES = (4, 8, 16, 32)
TINY_CHANNELS = (24, 48, 96, 160)
TINY_BLOCKS = (1, 2, 2, 1)
# Names of the torchvision modules whose outputs have strides 4, 8, 16 and 32.
TORCHVISION_NODES = {
    'resnet': ('layer1', 'layer2', 'layer3', 'layer4'),
    'mobilenet_v3_small': ('features.1', 'features.3', 'features.8', 'features.12'),
    'mobilenet_v3_large': ('features.3', 'features.6', 'features.12', 'features.16'),
}


class ResNetTiny(nn.Module):
    """Stem of stride 2, then four stages of :data:`TINY_BLOCKS` residual blocks, each of stride 2."""

    channels = TINY_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True))
        stages, previous = [], 24
        for width, count in zip(TINY_CHANNELS, TINY_BLOCKS):
            shortcut = nn.Sequential(nn.Conv2d(previous, width, 1, 2, bias=False), nn.BatchNorm2d(width))
            blocks = [BasicBlock(previous, width, stride=2, downsample=shortcut)]
            blocks += [BasicBlock(width, width) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            previous = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16, 32 of normalised images ``(B, 3, H, W)``."""
        features, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class TorchvisionBackbone(nn.Module):
    """A torchvision classification network cut at strides 4, 8, 16 and 32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        family = 'resnet' if name.startswith('resnet') else name
        if family not in TORCHVISION_NODES or name not in models.list_models():
            raise ValueError(f'backbone {name!r}: expected resnet_tiny, a torchvision resnet or one of '
                             f'{sorted(set(TORCHVISION_NODES) - {"resnet"})}')
        nodes = {node: str(i) for i, node in enumerate(TORCHVISION_NODES[family])}
        self.body = create_feature_extractor(models.get_model(name, weights=None), nodes)
        with torch.no_grad():
            self.channels = tuple(f.shape[1] for f in self.body.eval()(torch.zeros(1, 3, 64, 64)).values())
        self.train()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16, 32 of normalised images ``(B, 3, H, W)``."""
        return list(self.body(image).values())


def build_backbone(name: str) -> ResNetTiny | TorchvisionBackbone:
    """Return a randomly initialised backbone.

    :raises ValueError: for an unknown name
    """
    return ResNetTiny() if name == 'resnet_tiny' else TorchvisionBackbone(name)


class Pyramid(nn.Module):
    """Top-down feature pyramid (Lin et al., CVPR 2017) with one output, at the finest stride.

    Sums of 1x1-projected maps; a single 3x3 convolution at the end, which is where its time goes.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Merge maps of falling resolution into one of the first's: ``(B, width, H/4, W/4)``."""
        x = self.lateral[-1](features[-1])
        for lateral, feature in zip(reversed(self.lateral[:-1]), reversed(features[:-1])):
            x = nn.functional.interpolate(x, size=feature.shape[-2:], mode='nearest') + lateral(feature)
        return self.smooth(x)


class Normalise(nn.Module):
    """Images in [0, 1] to roughly zero mean and unit variance; part of the network, so callers always see [0, 1]."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised ``(B, 3, H, W)``."""
        return (image - 0.45) / 0.25
