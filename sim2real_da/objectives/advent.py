# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ADVENT: less entropy on the target, directly, through an adversary, or held by a class prior.

Vu et al., CVPR 2019, arXiv 1811.12833. Of every distribution P over C classes (of a picture, a crop, a cell of a map)

    I_c = -P_c log2 P_c / log2 C        weighted self-information, one channel a class
    H   = sum_c I_c                     normalised entropy, 0 for one-hot and 1 for uniform P

- **MinEnt** minimises the mean H of the target; optionally only over the most uncertain places (the paper's entropy
  range, top 30 %). Alone it is content with one class everywhere, so it has a diversity term,
  1 - H(mean P) (the marginal half of InfoMax; Krause et al., NeurIPS 2010), for distributions of whole pictures.
- **AdvEnt** makes the target's maps I look like the source's. A discriminator d (logit, positive = source) learns
  -log d(I_source) - log(1 - d(I_target)), alternately; the network minimises -log d(I_target). **Sign**: the network's
  loss is *added*, with the labels swapped; nothing is reversed. Source maps are left alone, as in the paper.
- **Class prior** sum_c max(0, mu p_s(c) - E[P_c]): no class may fall below mu times its share in the source.

Deviations: p_s is the network's own mean P on source samples, averaged over time, not counted labels, so that it serves
every head alike (heads that are not calibrated, too); the diversity term; the discriminator has three strided
convolutions, not five, since the maps have 48 cells a side, and 1x1 ones where a whole picture has one distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.objectives.base import Objective, Outputs
from sim2real_da.objectives.turns import take_turn

LEAST = 1e-8  # below it a probability has no gradient: that of -p log p is infinite at 0
CLIP = 5.0  # norm of the discriminators' gradients
MEMORY = 0.95  # of the running mean of the source's class shares


def self_information(probability: Tensor) -> Tensor:
    """Return I_c = -P_c log2 P_c / log2 C of distributions ``(N, C, ...)`` over dimension 1; the same shape."""
    return torch.special.entr(probability.clamp(min=LEAST)) / math.log(probability.shape[1])


def entropy(probability: Tensor) -> Tensor:
    """Return H of distributions ``(N, C, ...)`` over dimension 1, 0 to 1: ``(N, ...)``."""
    return self_information(probability).sum(dim=1)


def mean_distribution(probability: Tensor) -> Tensor:
    """Return the mean of distributions ``(N, C, ...)``: ``(C,)``."""
    return probability.transpose(0, 1).flatten(1).mean(dim=1)


def diversity_loss(probability: Tensor) -> Tensor:
    """Return 1 - H(mean P): 0 when all classes are predicted alike often, 1 when only one is."""
    return 1 - entropy(mean_distribution(probability)[None])[0]


def class_prior_loss(probability: Tensor, share: Tensor, mu: float) -> Tensor:
    """Return sum_c max(0, mu p_s(c) - E[P_c]).

    :param probability: ``(N, C, ...)``
    :param share: p_s ``(C,)``
    """
    return (mu * share - mean_distribution(probability)).clamp(min=0).sum()


class MinEnt(Objective):
    """Entropy of what the network says about the target.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the entropy, mean over places and over the network's distributions
    :param top: share of places with the highest entropy that count, 0..1
    :param diversity: weight of the diversity term; for distributions of whole pictures or crops only, since the places
        of a map are background in their great majority, and rightly so
    """

    needs_target = True

    def __init__(self, channels: tuple[int, ...], weight: float = 0.001, top: float = 1.0,
                 diversity: float = 0.0) -> None:
        super().__init__()
        if not 0 < top <= 1:
            raise ValueError(f'top: expected a share above 0 and up to 1, got {top}')
        self.weight, self.top, self.diversity = weight, top, diversity
        self._metrics: dict[str, float] = {}

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``entropy`` and, with a weight, ``diversity``; nothing without target samples."""
        if outputs.target is None:
            return {}
        found = outputs.target.probabilities()
        values = []
        for probability in found.values():
            h = entropy(probability).flatten()
            values.append(h.topk(max(round(self.top * len(h)), 1)).values.mean())
        mean = torch.stack(values).mean()
        self._metrics = {'target_entropy': float(mean.detach())}
        losses = {'entropy': self.weight * mean}
        whole = [p for p in found.values() if p.ndim == 2]
        if self.diversity and whole:
            losses['diversity'] = self.diversity * torch.stack([diversity_loss(p) for p in whole]).mean()
        return losses

    def metrics(self) -> dict[str, float]:
        """Return the last step's mean entropy, 0..1, of the places that count."""
        return dict(self._metrics)


class ClassPrior(Objective):
    """No class of the target may become rarer than a share of what it is in the source; goes with the other two.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the prior
    :param mu: how far the shares may fall: to mu times the source's
    """

    needs_target = True

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, mu: float = 0.5) -> None:
        super().__init__()
        self.weight, self.mu = weight, mu
        self._shares: dict[str, Tensor] = {}

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``class_prior``, the mean over the network's distributions; nothing without target samples."""
        if outputs.target is None:
            return {}
        for name, probability in outputs.source.probabilities().items():
            now = mean_distribution(probability.detach())
            before = self._shares.get(name, now)
            # a step that is not finite is thrown away and must not stay in the mean
            self._shares[name] = torch.where(torch.isfinite(now), now, before).lerp(before, MEMORY)
        values = [class_prior_loss(probability, self._shares[name], self.mu)
                  for name, probability in outputs.target.probabilities().items()]
        return {'class_prior': self.weight * torch.stack(values).mean()}


def discriminator(channels: int, dense: bool, width: int = 32) -> nn.Sequential:
    """Return a discriminator of maps I ``(N, C, h, w)`` or, not dense, of ``(N, C, 1, 1)``: logits, positive = source.

    No batch normalisation: the two domains come in batches of their own.
    """
    size, stride, padding = (4, 2, 1) if dense else (1, 1, 0)
    return nn.Sequential(
        nn.Conv2d(channels, width, size, stride, padding), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, size, stride, padding), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, size, stride, padding))


class AdvEnt(Objective):
    """Adversary on weighted self-information; the discriminators take turns with the network.

    :param channels: feature channels of the network; not used: what is looked at is its output
    :param weight: lambda_adv, of the network's loss
    :param rate: Adam's, of the discriminators (betas 0.9, 0.99)
    """

    needs_target = True

    def __init__(self, channels: tuple[int, ...], weight: float = 0.001, rate: float = 1e-4) -> None:
        super().__init__()
        self.weight, self.rate = weight, rate
        self.discriminators = nn.ModuleDict()
        self._optimiser: torch.optim.Optimizer | None = None

    def players(self) -> list[nn.Parameter]:
        """Return none: the discriminators do not learn from the sum of all losses."""
        return []

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Return the discriminators'."""
        return [] if self._optimiser is None else [self._optimiser]

    def start(self, network: nn.Module) -> None:
        """Make a discriminator for each kind of distribution that the network puts out."""
        training, device = network.training, next(network.parameters()).device
        size = int(getattr(network, 'crop_size', 64))
        with torch.no_grad():
            found = network.eval()(torch.zeros(1, 3, size, size, device=device)).probabilities()
        network.train(training)
        for name, probability in found.items():
            # a module cannot be called "class"
            self.discriminators[f'of_{name}'] = discriminator(probability.shape[1], probability.ndim > 2).to(device)
        self._optimiser = torch.optim.Adam(self.discriminators.parameters(), self.rate, betas=(0.9, 0.99))

    def _judge(self, name: str, probability: Tensor) -> Tensor:
        maps = self_information(probability)
        return self.discriminators[f'of_{name}'](  # type: ignore[no-any-return]
            maps if maps.ndim > 2 else maps[:, :, None, None])

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``adversary``: how clearly target maps are told to be target; nothing without target samples."""
        if outputs.target is None:
            return {}
        values = [F.softplus(-self._judge(name, p)).mean() for name, p in outputs.target.probabilities().items()]
        return {'adversary': self.weight * torch.stack(values).mean()}

    def play(self, outputs: Outputs) -> dict[str, float]:
        """Train the discriminators once; return their loss and accuracy (0.5: they cannot tell)."""
        if outputs.target is None or self._optimiser is None:
            return {}
        source, target = outputs.source.probabilities(), outputs.target.probabilities()
        losses, right = [], []
        for name in source:
            real, other = self._judge(name, source[name].detach()), self._judge(name, target[name].detach())
            losses.append((F.softplus(-real).mean() + F.softplus(other).mean()) / 2)
            right.append(((real > 0).float().mean() + (other <= 0).float().mean()) / 2)
        loss = torch.stack(losses).mean()
        take_turn(self._optimiser, loss, CLIP)
        return {'discriminator': float(loss.detach()), 'discriminator_accuracy': float(torch.stack(right).mean())}
