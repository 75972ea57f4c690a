# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Two generators and two discriminators that translate between two piles of pictures (CycleGAN, Zhu et al., ICCV 2017).

G makes target pictures of source pictures x_s, F source pictures of target pictures x_t:

    2 * LSGAN(D_t, G) + LSGAN(D_s, F) + cycle * (|F(G(x_s)) - x_s|_1 + |G(F(x_t)) - x_t|_1) + semantic

LSGAN (Mao et al., ICCV 2017): D minimises ((D(real) - 1)^2 + D(made)^2) / 2, a generator (D(made) - 1)^2. D sees made
pictures of earlier steps, too: half of them come from a pool of 50 (Shrivastava et al., CVPR 2017). No identity loss.
The factor 2, the weight 10 of the cycle and Adam at 2e-4 with beta1 0.5 are CyCADA's (Hoffman et al., ICML 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.discriminators import ImageDiscriminator
from sim2real_da.networks.generators import ResidualGenerator
from sim2real_da.objectives.turns import take_turn

RATE, BETAS = 2e-4, (0.5, 0.999)  # Adam of all players
CLIP = 5.0  # norm of their gradients; the papers have no limit
POOL = 50
TO_TARGET = 2.0  # on LSGAN(D_t, G)


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return the least-squares loss ((D(real) - 1)^2 + D(made)^2) / 2 of answers ``(B,)``; 0.25 when all are 0.5."""
    return ((real - 1).square().mean() + made.square().mean()) / 2


def generator_loss(made: Tensor) -> Tensor:
    """Return (D(made) - 1)^2 of answers ``(B,)``; 0 when D takes all for real."""
    return (made - 1).square().mean()


class ImagePool:
    """Made pictures of earlier steps.

    :param size: how many it keeps
    """

    def __init__(self, size: int = POOL) -> None:
        self.size = size
        self._kept: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Return as many pictures ``(B, 3, H, W)``: while the pool fills these, then about half of them earlier ones.

        A picture that is given out is replaced by the one that came for it.
        """
        out = []
        for image in images.detach():
            if len(self._kept) < self.size:
                self._kept.append(image.clone())
            elif torch.rand(()) < 0.5:
                index = int(torch.randint(self.size, ()))
                image, self._kept[index] = self._kept[index], image.clone()
            out.append(image)
        return torch.stack(out)


class CyclePair(nn.Module):
    """The four players. It needs no task network, so it also translates windows of frames for a detector.

    :param side: of the square pictures it learns from, pixels; the trained generators take pictures of any size
    :param cycle: weight of the cycle loss
    :param blocks: residual blocks of a generator
    :param filters: channels within a generator
    :param width: channels of a discriminator's first layer
    """

    def __init__(self, side: int, cycle: float = 10.0, blocks: int = 6, filters: int = 64, width: int = 64) -> None:
        super().__init__()
        self.cycle = cycle
        self.to_target, self.to_source = (
            ResidualGenerator(side, blocks, filters, noise=0, norm='instance') for _ in range(2))
        self.target_critic, self.source_critic = (
            ImageDiscriminator(side, width, noise=0, dropout=0) for _ in range(2))
        self._pools = (ImagePool(), ImagePool())
        self._generators, self._critics = (torch.optim.Adam(parameters, RATE, BETAS) for parameters in (
            _of(self.to_target, self.to_source), _of(self.target_critic, self.source_critic)))

    def turn(self, source: Tensor, target: Tensor, made_target: Tensor | None = None,
             judge: Callable[[Tensor, Tensor], Tensor] | None = None) -> dict[str, float]:
        """Let the generators learn, then the discriminators; return their losses.

        :param source: ``(B, 3, side, side)`` in [0, 1]
        :param target: ``(N, 3, side, side)``
        :param made_target: what ``to_target`` has just made of ``source``; None: it is made here
        :param judge: gives a loss of made target and made source pictures that the generators minimise as well
        """
        if made_target is None:
            made_target = self.to_target(source)
        made_source = self.to_source(target)
        fooled = TO_TARGET * generator_loss(self.target_critic(made_target)) + generator_loss(
            self.source_critic(made_source))
        # the papers' pictures are in [-1, 1], ours in [0, 1]
        there_and_back = 2 * (F.l1_loss(self.to_source(made_target), source)
                              + F.l1_loss(self.to_target(made_source), target))
        total = fooled + self.cycle * there_and_back
        report = {'generators': float(fooled.detach()), 'cycle': float(there_and_back.detach())}
        if judge is not None:
            semantic = judge(made_target, made_source)
            report['semantic'] = float(semantic.detach())
            total = total + semantic
        take_turn(self._generators, total, CLIP)

        answers = [(critic(real), critic(pool.exchange(made))) for critic, pool, real, made in (
            (self.target_critic, self._pools[0], target, made_target),
            (self.source_critic, self._pools[1], source, made_source))]
        loss = torch.stack([discriminator_loss(*pair) for pair in answers]).sum()
        take_turn(self._critics, loss, CLIP)
        right = [((real > 0.5).float().mean() + (made <= 0.5).float().mean()) / 2 for real, made in answers]
        return report | {'discriminators': float(loss.detach()),
                         'image_domain_accuracy': float(torch.stack(right).mean())}


def _of(*modules: nn.Module) -> Iterable[nn.Parameter]:
    return [p for module in modules for p in module.parameters()]
