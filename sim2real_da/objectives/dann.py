# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""DANN, domain-adversarial training with gradient reversal (Ganin et al., JMLR 2016, arXiv 1505.07818).

A discriminator d tells source from target features; a reversal layer R between the feature extractor f and d is the
identity forward and multiplies the gradient by -lambda backward, so that one minimisation of

    L_task(source) + weight * L_domain(d(R(f(x))), domain)

trains d to tell the domains apart and f to make that hard. **Sign**: the domain loss is *added*; the minus sign is in
R alone. Lambda acts only on what reaches f; the discriminator always learns at its full rate.

Schedules: lambda = high * (2 / (1 + exp(-10 p)) - 1), and the learning rate mu = mu_0 / (1 + 10 p)^0.75. The paper's p
is the progress of a run of known length (``steps=None``); a stream has no end, so there p = step / steps, not capped:
lambda saturates by itself, mu goes on falling slowly. The learning rate is the recipe's: ``schedule: dann`` where a run
has an end, ``annealing: steps`` where it has none.

Dense form: d looks at places of the maps of strides 8 and 16, at most 192 of each domain and map, drawn anew in every
step: the mean over a random choice is the mean over all of them, for a fraction of the time. It has no batch
normalisation, but noise and dropout on its input (as PixelDA's discriminator), so that it does not win at once.
Instance form, for the detector: the same head on the mean inside each object's box (as in Chen et al., Domain Adaptive
Faster R-CNN, CVPR 2018): labelled boxes of the source, detected ones of the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.objectives.base import Objective, Outputs
from sim2real_da.objectives.features import check_levels, has_target, vectors

PLACES = 192  # of a domain and map that a discriminator looks at in a step


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """Return ``features``; the gradient that flows back is multiplied by ``-strength``."""
    return _Reverse.apply(features, strength)  # type: ignore[no-any-return, no-untyped-call]


def reversal_strength(progress: float, high: float = 1.0, gamma: float = 10.0) -> float:
    """Return lambda_p = high * (2 / (1 + exp(-gamma p)) - 1); 0 at p = 0, 0.98661 at p = 0.5."""
    return high * (2 / (1 + math.exp(-gamma * progress)) - 1)


def learning_rate_factor(progress: float, alpha: float = 10.0, beta: float = 0.75) -> float:
    """Return mu_p / mu_0 = 1 / (1 + alpha p)^beta, the paper's learning-rate annealing."""
    return float((1 + alpha * progress) ** -beta)


class _Dropout(nn.Dropout):
    """Dropout from 16 random bits a number; Bernoulli's take a CPU as long as a layer does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with a share p of its numbers dropped, the others scaled by 1 / (1 - p)."""
        if not self.training:
            return x
        words = torch.randint(-2**63, 2**63 - 1, (-(-x.numel() // 4),), device=x.device)  # 64 bits each
        bits = words.view(torch.int16)[:x.numel()].view(x.shape)  # -32768..32767
        return x * (1 / (1 - self.p)) * (bits >= (self.p - 0.5) * 2**16)


class MapDiscriminator(nn.Module):
    """Source or target, at every location of a feature map; channels are standardised before noise is added."""

    def __init__(self, channels: int, width: int = 64, noise: float = 0.2, dropout: float = 0.1) -> None:
        super().__init__()
        self.noise = noise
        self.norm = nn.GroupNorm(1, channels)
        self.head = nn.Sequential(
            nn.Linear(channels, width), nn.LeakyReLU(0.2), _Dropout(dropout),
            nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(B, 1, h, w)`` of ``(B, C, h, w)``; positive means source."""
        count, channels, height, width = features.shape
        # a row for every place: 1x1 convolutions as products of matrices, and random numbers in one piece are many
        # times faster on a CPU than those of a map with channels last
        if height * width > 1:
            rows = self.norm(features).permute(0, 2, 3, 1).reshape(count * height * width, -1)
        else:  # vectors: the same function, several times faster
            rows = F.layer_norm(features.flatten(1), (channels,), self.norm.weight, self.norm.bias, self.norm.eps)
        if self.training:
            rows = torch.add(rows, torch.randn_like(rows), alpha=self.noise)
        return self.head(rows).view(count, height, width, 1).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def _wrong_side(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the logits ``(n,)`` of being wrong, and the share of each in a mean that weighs both domains alike.

    :param count: how many are the source's, which come first
    """
    others = len(logits) - count
    signs, shares = torch.ones_like(logits), torch.full_like(logits, 0.5 / others)
    signs[:count], shares[:count] = -1.0, 0.5 / count
    return signs * logits, shares


class Dann(Objective):
    """Domain adversary on the network's feature maps (the detector's are those of strides 8 and 16).

    :param channels: channels of the network's feature maps
    :param weight: of the domain loss
    :param high: where lambda ends
    :param steps: learner steps that stand for progress 1 in the schedule; None: the length of the run
    :param levels: what the discriminators look at, see :data:`.features.LEVELS`
    """

    needs_target = True

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, high: float = 0.1, steps: int | None = 10000,
                 levels: Sequence[str] = ('location',)) -> None:
        super().__init__()
        self.weight, self.high, self.steps, self.levels = weight, high, steps, check_levels(levels)
        self.discriminators = nn.ModuleList(MapDiscriminator(c) for _ in self.levels for c in channels)
        self._metrics: dict[str, float] = {}

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``domain``: mean binary cross entropy over levels and maps, source = 1, target = 0, domains weighted
        alike.

        Nothing when the pass held no target sample (the teacher found no object to crop).

        :raises ValueError: when lambda shall follow the progress of a run that has no known length
        """
        if not has_target(outputs):
            return {}
        steps = self.steps or outputs.steps
        if not steps:
            raise ValueError('dann: a stream has no known end; expected steps, the number that stands for progress 1')
        strength = reversal_strength(outputs.step / steps, self.high)
        losses, right = [], []
        pairs = [pair for level in self.levels for pair in vectors(outputs, level, PLACES)]
        for (source, target), discriminator in zip(pairs, self.discriminators):
            if not len(source) or not len(target):
                continue  # no instance in one of the domains
            logits = discriminator(reverse_gradient(torch.cat([source, target]), strength)[:, :, None, None])
            wrong, shares = _wrong_side(logits.flatten(), len(source))
            losses.append(F.softplus(wrong) @ shares)
            right.append((wrong.detach() < 0).float() @ shares)
        if not losses:
            return {}
        self._metrics = {'lambda': strength, 'domain_accuracy': float(torch.stack(right).mean())}
        return {'domain': self.weight * torch.stack(losses).mean()}

    def metrics(self) -> dict[str, float]:
        """Return lambda and the discriminators' accuracy; 0.5 means that they cannot tell the domains apart."""
        return dict(self._metrics)
