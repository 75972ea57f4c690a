# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Residual generator: makes a picture of one domain look like one of another, at the same resolution.

PixelDA's (Bousmalis et al., CVPR 2017, arXiv 1612.05424): a noise vector z ~ U(-1, 1)^10 becomes one more input channel
(fully connected layer, batch normalisation, ReLU), then a 3x3 convolution, residual blocks and a 3x3 convolution with
tanh. No layer changes the resolution, so whatever the labels say of places stays true. Without noise and with instance
normalisation it is a CycleGAN generator (Zhu et al., ICCV 2017) without that one's down- and upsampling; such a one
takes pictures of any size.

A trained generator is stored as a weights file with its arguments, ready to be used frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sim2real_da.networks.weights_file import load_network, save_network

KIND = 'generator'
NORMS: dict[str, Callable[..., nn.Module]] = {
    'batch': nn.BatchNorm2d, 'instance': partial(nn.InstanceNorm2d, affine=True)}


class ResidualGenerator(nn.Module):
    """Pictures in [0, 1] to pictures in [0, 1] of the same size; inside they are in [-1, 1], as in the paper.

    :param size: side of the square pictures in pixels; the noise channel needs it, without noise any size will do
    :param blocks: residual blocks
    :param filters: channels between the first and the last layer
    :param noise: numbers in z; 0 leaves the noise channel out
    :param norm: 'batch' (PixelDA) or 'instance' (CycleGAN)
    """

    def __init__(self, size: int, blocks: int = 6, filters: int = 64, noise: int = 10, norm: str = 'batch') -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f'generator: norm {norm!r}, expected one of {sorted(NORMS)}')
        self.config: dict[str, Any] = {'size': size, 'blocks': blocks, 'filters': filters, 'noise': noise,
                                       'norm': norm}
        self.size, self.noise = size, noise
        make = NORMS[norm]
        if noise:
            self.from_noise = nn.Sequential(
                nn.Linear(noise, size * size, bias=False), nn.BatchNorm1d(size * size), nn.ReLU())
        self.first = nn.Sequential(
            nn.Conv2d(4 if noise else 3, filters, 3, padding=1, bias=False), make(filters), nn.ReLU())
        self.blocks = nn.Sequential(*(BasicBlock(filters, filters, norm_layer=make) for _ in range(blocks)))
        self.last = nn.Conv2d(filters, 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, images: Tensor, z: Tensor | None = None) -> Tensor:
        """Return adapted pictures ``(B, 3, H, W)`` of ``(B, 3, H, W)``.

        :param z: noise ``(B, noise)``; default: drawn from U(-1, 1)
        :raises ValueError: for pictures of another size than the noise channel has
        """
        x = 2 * images - 1
        if self.noise:
            if images.shape[-2:] != (self.size, self.size):
                raise ValueError(f'generator: expected pictures of {self.size} x {self.size} pixels, '
                                 f'found {images.shape[-1]} x {images.shape[-2]}')
            if z is None:
                z = 2 * torch.rand(len(images), self.noise, device=images.device) - 1
            x = torch.cat([x, self.from_noise(z).view(-1, 1, self.size, self.size)], dim=1)
        return (self.last(self.blocks(self.first(x))).tanh() + 1) / 2  # type: ignore[no-any-return]


def save_generator(generator: ResidualGenerator, path: Path | str) -> Path:
    """Write weights and arguments as a weights file of the kind 'generator', atomically."""
    return save_network(path, KIND, generator, {'generator': generator.config})


def load_generator(path: Path | str) -> ResidualGenerator:
    """Read a file of :func:`save_generator`; the generator is in evaluation mode and learns nothing.

    :raises WeightsError: for a file that is missing, damaged, not finite or no generator; the message names it
    """
    generator, _ = load_network(
        path, KIND, lambda manifest: ResidualGenerator(**manifest['generator']), what='generator')
    return generator.requires_grad_(False)
