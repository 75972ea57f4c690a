# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The network that looks along an outline: where the object's own outline lies, and how far off the pose is.

The strongest edge near an outline is often that of a shadow, of paint or of what is behind. A network that sees the
picture along the whole outline tells them apart: it says for each point how far outward the outline should move and how
sure that is, and for the pose how wrong it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sim2real_da.outline_strips import CHANNELS, COLOURS, OFFSETS

FAR = 6.0  # pixels: unit of the offsets that the last layer gives
SURE = (-4.0, 5.0)  # limits of the logarithm of an offset's scale
CONTRAST = 0.02  # of a strip, added to its own: a grey one stays grey
DILATIONS, AFTER = (1, 2, 4, 8), (1, 2)  # of the layers along the outline, before and after all points are seen
ERROR = 0.3  # of a logarithm: where the loss of an error turns from a square to a line


@dataclass(frozen=True)
class OutlineOutput:
    """What the network says of strips; P points each.

    :param offsets: by how many pixels the outline should move outward, ``(B, P)``
    :param log_scales: logarithms of these offsets' mean errors, pixels, ``(B, P)``
    :param log_errors: logarithm of how far the surface is on average from where it should be, diameters, ``(B,)``
    """

    offsets: Tensor
    log_scales: Tensor
    log_errors: Tensor


@dataclass(frozen=True)
class OutlineTargets:
    """The truth of strips: ``offsets`` ``(B, P)`` and ``log_errors`` ``(B,)`` of :class:`OutlineOutput`."""

    offsets: Tensor
    log_errors: Tensor


class OutlineNetwork(nn.Module):
    """Layers across the outline, then along it, where it is closed: neighbours of the last point are the first ones.

    :param width: channels of the first layer
    """

    across: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.config = {'width': width}
        self.register_buffer('across', torch.tensor(OFFSETS, dtype=torch.float32) / OFFSETS[-1], persistent=False)
        left = (len(OFFSETS) - 3) // 2  # offsets after both layers across
        inner = 4 * width
        self.first = nn.Sequential(nn.Conv2d(CHANNELS + 1, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=(1, 2)), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.joined = nn.Conv1d(2 * width * left, inner, 1)
        self.along = nn.Sequential(*(_Along(inner, d) for d in DILATIONS))
        self.whole = nn.Linear(2 * inner, inner)
        self.after = nn.Sequential(*(_Along(inner, d) for d in AFTER))
        self.offset = nn.Conv1d(inner, 2, 1)
        self.error = nn.Sequential(nn.Linear(2 * inner, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, strips: Tensor) -> OutlineOutput:
        """Look at strips ``(B, C, P, O)``, see :func:`sim2real_da.outline_strips.strip`."""
        colours = strips[:, :COLOURS]
        contrast = colours.std(dim=(2, 3)).mean(dim=1)[:, None, None, None] + CONTRAST
        x = torch.cat([(colours - colours.mean(dim=(2, 3), keepdim=True)) / contrast, strips[:, COLOURS:],
                       self.across.to(strips.dtype).expand(len(strips), 1, strips.shape[2], -1)], dim=1)
        x = self.second(_closed(self.first(_closed(x))))  # (B, 2 W, P, left)
        x = functional.relu(self.joined(x.transpose(2, 3).flatten(1, 2)))  # (B, 4 W, P)
        x = self.along(x)
        x = self.after(x + self.whole(_of_all(x))[:, :, None])
        offsets, log_scales = self.offset(functional.relu(x)).unbind(dim=1)
        return OutlineOutput(FAR * offsets, log_scales.clamp(*SURE), self.error(_of_all(x))[:, 0])


class _Along(nn.Module):
    """A residual layer along the closed outline."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation, padding_mode='circular'),
            nn.BatchNorm1d(width), nn.ReLU(), nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _closed(x: Tensor) -> Tensor:
    """Return maps ``(B, C, P + 2, O)`` whose first and last points are followed by each other."""
    return functional.pad(x, (0, 0, 1, 1), mode='circular')


def _of_all(x: Tensor) -> Tensor:
    """Return mean and maximum over the points ``(B, 2 C)``."""
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


def outline_loss(output: OutlineOutput, targets: OutlineTargets) -> dict[str, Tensor]:
    """Return the losses by name: a Laplace distribution's likelihood of the offsets, and the error of the error."""
    off = (output.offsets - targets.offsets).abs()
    return {'offsets': (off * torch.exp(-output.log_scales) + output.log_scales).mean(),
            'error': functional.smooth_l1_loss(output.log_errors, targets.log_errors, beta=ERROR)}
