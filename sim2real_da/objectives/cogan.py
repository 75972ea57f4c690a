# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""CoGAN, Coupled Generative Adversarial Networks (Liu and Tuzel, NeurIPS 2016, arXiv 1606.07536).

Generators g_s, g_t with shared first layers make twins of both domains from one noise z; discriminators f_s, f_t with
shared last layers tell real from made. No picture of one domain has a partner in the other: that the twins show the
same thing follows from the shared weights. A classifier c on the discriminators' shared features is trained on the
labelled source; because they are shared, c(f_t(x)) names target pictures. The players take turns, after the network's
own step:

    discriminators:  - log f(x) - log(1 - f(g(z))) of both domains  +  cross entropy(c(f_s(x_s)), y_s)
    generators:      - log f(g(z)) of both domains (the form that does not saturate)
    the network:     L_task(source) + weight * cross entropy(network(x_t), argmax c(f_t(x_t))), from step ``start`` on

**Sign**: every line is minimised by its own player; discriminator logits are positive for real.

Deviations: in the paper c o f_t is the adapted classifier itself. Here the network to adapt is given, so it learns from
what c says of real target pictures, where c gives at least 0.9 to one class (:data:`SURE`). Layers are fewer and
narrower than the paper's, batch normalisation is in the generators only, and both domains' own layers begin alike
(:mod:`sim2real_da.networks.cogan` says why).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.networks.cogan import NOISE, CoupledDiscriminators, CoupledGenerators
from sim2real_da.objectives.base import Objective, Outputs
from sim2real_da.objectives.turns import take_turn

SURE = 0.9
CLIP = 5.0  # norm of a player's gradients


class CoGan(Objective):
    """Coupled generators and discriminators, and a classifier on what the discriminators share.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of the network's loss on target pictures
    :param start: steps before the network believes c
    :param learning_rate: Adam of the players
    """

    needs_target = True
    networks = ('classifier',)
    online = False
    generators: CoupledGenerators
    discriminators: CoupledDiscriminators

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, start: int = 1000,
                 learning_rate: float = 2e-4) -> None:
        super().__init__()
        self.weight, self.first, self.learning_rate = weight, start, learning_rate
        self._metrics: dict[str, float] = {}

    def players(self) -> Iterable[nn.Parameter]:
        """Return none: all of them take turns in :meth:`play`."""
        return ()

    def start(self, network: nn.Module) -> None:
        """Build the players for the network's classes and size.

        :raises TypeError: for another network than the classifier
        """
        if not isinstance(network, Classifier):
            raise TypeError(f'cogan: made for the classifier, not for {type(network).__name__}')
        device = next(network.parameters()).device
        self.generators = CoupledGenerators(network.size).to(device)
        self.discriminators = CoupledDiscriminators(network.size, network.config['classes']).to(device)
        self._make, self._judge = (torch.optim.Adam(player.parameters(), self.learning_rate, betas=(0.5, 0.999))
                                   for player in (self.generators, self.discriminators))

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``cogan``: the network's loss on the target pictures that c is sure of; nothing before the start."""
        if outputs.step < self.first or outputs.target is None or outputs.batches is None:
            return {}
        probabilities, labels = self.names(self._pictures(outputs)[1]).max(dim=1)
        sure = (probabilities >= SURE).float()
        self._metrics = {'sure': float(sure.mean())}
        return {'cogan': self.weight * outputs.target.loss(ClassTargets(labels, sure))['class']}

    @torch.no_grad()
    def names(self, pictures: Tensor) -> Tensor:
        """Return what c says of target pictures ``(B, 3, size, size)``: probabilities ``(B, C)``."""
        self.discriminators.eval()
        found: Tensor = self.discriminators(pictures[:0], pictures)[1].softmax(dim=1)
        self.discriminators.train()
        return found

    def play(self, outputs: Outputs) -> dict[str, float]:
        """Train discriminators and c, then the generators, once each."""
        if outputs.target is None or outputs.batches is None:
            return {}
        targets = outputs.targets
        if not isinstance(targets, ClassTargets):
            raise TypeError(f'cogan: expected ClassTargets, got {type(targets).__name__}')
        source, target = self._pictures(outputs)
        return {**self.discriminate(source, target, targets.classes), **self.generate(len(source))}

    def discriminate(self, source: Tensor, target: Tensor, classes: Tensor) -> dict[str, float]:
        """Train the discriminators and c on real pictures ``(n, ...)``, ``(m, ...)`` and as many made ones."""
        count = len(source)
        with torch.no_grad():
            made = self.generators(self._noise(max(count, len(target))))
        real, named = self.discriminators(source, target)
        fake, _ = self.discriminators(made[0][:count], made[1][:len(target)])
        # each domain counts alike, however many pictures it has
        game = [(F.softplus(-real[part]).mean() + F.softplus(fake[part]).mean()) / 2
                for part in (slice(0, count), slice(count, None))]
        naming = F.cross_entropy(named[:count], classes)
        take_turn(self._judge, game[0] + game[1] + naming, CLIP)
        right = ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2
        return {'discriminator': float((game[0] + game[1]).detach()), 'discriminator_class': float(naming.detach()),
                'discriminator_accuracy': float(right)}

    def generate(self, count: int) -> dict[str, float]:
        """Train the generators on ``count`` twins."""
        verdict, _ = self.discriminators(*self.generators(self._noise(count)))
        loss = F.softplus(-verdict).mean()
        take_turn(self._make, loss, CLIP)
        return {'generator': float(loss.detach())}

    def metrics(self) -> dict[str, float]:
        """Return the share of target pictures that c is sure of."""
        return dict(self._metrics)

    def _noise(self, count: int) -> Tensor:
        return torch.rand(count, NOISE, device=self.generators.source.weight.device) * 2 - 1

    def _pictures(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return source and target pictures at the players' size."""
        assert outputs.batches is not None
        size = (self.generators.size, self.generators.size)
        source, target = (
            b.images if b.images.shape[-2:] == size else F.interpolate(b.images, size, mode='bilinear', antialias=True)
            for b in outputs.batches if b is not None)
        return source, target
