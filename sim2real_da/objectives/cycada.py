# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""CyCADA, cycle-consistent adversarial domain adaptation (Hoffman et al., ICML 2018, arXiv 1711.03213).

Two stages, each of which can be left out, here side by side in every step:

- **pixel**: :class:`~sim2real_da.objectives.cycle.CyclePair` translates source pictures to the target's look and back,
  and the task network f_T learns from the translated ones with their labels. Semantic consistency: the source network
  f_S, a frozen copy of the network at the start, has to see in a translated picture what was there before. It only has
  a say while its own cross entropy on source pictures is below 1.
- **feature**: a discriminator per feature map (DANN's) tells translated source from target; the network learns to have
  its *target* features taken for source (inverted labels, as ADDA, Tzeng et al., CVPR 2017), and only while the
  discriminator is right about more than 60 % of the places: what it cannot tell apart teaches nothing.

**Signs**: every loss is minimised by the player whose turn it is; the feature discriminator says positive for source.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.classifier import ClassTargets
from sim2real_da.networks.outputs import NetworkOutput
from sim2real_da.networks.pose import PoseTargets
from sim2real_da.objectives.base import Batch, Objective, Outputs
from sim2real_da.objectives.cycle import BETAS, CLIP, RATE, CyclePair
from sim2real_da.objectives.dann import MapDiscriminator
from sim2real_da.objectives.turns import picture_side, take_turn

GOOD_ENOUGH = 1.0  # cross entropy of the source network on source pictures; a worse one has no say
GUARD = 0.6  # accuracy of the feature discriminator above which the network learns from it


class Cycada(Objective):
    """Pixel-level and feature-level adaptation.

    :param channels: channels of the network's feature maps
    :param pixel: whether pictures are translated
    :param feature: whether features are aligned
    :param weight: of the task losses on translated pictures
    :param cycle: weight of the cycle loss
    :param semantic: weight of semantic consistency
    :param confusion: weight of the loss that has target features taken for source
    :param blocks: residual blocks of a generator
    :param filters: channels within a generator
    :param width: channels of an image discriminator's first layer
    """

    needs_target = True
    networks = ('classifier', 'pose')
    online = False
    pair: CyclePair
    source_network: nn.Module

    def __init__(self, channels: tuple[int, ...], pixel: bool = True, feature: bool = True, weight: float = 1.0,
                 cycle: float = 10.0, semantic: float = 1.0, confusion: float = 0.1, blocks: int = 6,
                 filters: int = 64, width: int = 64) -> None:
        super().__init__()
        if not pixel and not feature:
            raise ValueError('pixel and feature are both false; expected at least one of them')
        self.pixel, self.feature, self.weight, self.cycle, self.semantic = pixel, feature, weight, cycle, semantic
        self.confusion, self.blocks, self.filters, self.width = confusion, blocks, filters, width
        self.discriminators = nn.ModuleList(MapDiscriminator(c) for c in channels if feature)
        if feature:
            self._optimiser = torch.optim.Adam(self.discriminators.parameters(), RATE, BETAS)
        self._made: Tensor | None = None
        self._metrics: dict[str, float] = {}

    def players(self) -> list[nn.Parameter]:
        """Return none: all players learn in :meth:`play`, each by its own optimiser."""
        return []

    def train(self, mode: bool = True) -> Cycada:
        """Switch the players to training mode; the frozen source network stays as it is."""
        super().train(mode)
        if 'source_network' in self._modules:
            self.source_network.eval()
        return self

    def start(self, network: nn.Module) -> None:
        """Make the pixel players for pictures of the network's size and keep a frozen copy of the network."""
        if self.pixel:
            device = next(network.parameters()).device
            self.pair = CyclePair(picture_side(network), self.cycle, self.blocks, self.filters, self.width).to(device)
            self.source_network = copy.deepcopy(network).eval().requires_grad_(False)

    def adapted(self, source: Batch, step: int) -> Tensor | None:
        """Return translated source pictures, without a way back for gradients: it is the task network's turn."""
        if not self.pixel:
            return None
        self._made = self.pair.to_target(source.images)
        return self._made.detach()

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the task losses on translated pictures, and ``confusion`` while its guard lets it."""
        found = {}
        if self.pixel and outputs.adapted is not None:
            found = {f'adapted_{name}': self.weight * loss
                     for name, loss in outputs.adapted.loss(outputs.targets).items()}
        if self.feature and outputs.source_count < len(outputs.features[0]):
            answers = self._answers(outputs)
            accuracy = float(torch.stack([((s > 0).float().mean() + (t <= 0).float().mean()) / 2
                                          for s, t in answers]).mean())
            self._metrics['domain_accuracy'] = accuracy
            if accuracy > GUARD:
                found['confusion'] = self.confusion * torch.stack([F.softplus(-t).mean() for _, t in answers]).mean()
        return found

    def play(self, outputs: Outputs) -> dict[str, float]:
        """Let generators, image discriminators and feature discriminators learn; nothing without target pictures."""
        made, self._made = self._made, None
        assert outputs.batches is not None
        source, target = outputs.batches
        if target is None or not len(target.images):
            return {}
        report = {}
        if self.pixel:
            report = self.pair.turn(source.images, target.images, made, self._judge(outputs, source, target))
            self._metrics['image_domain_accuracy'] = report.pop('image_domain_accuracy')
        if self.feature:
            losses = [F.softplus(-s).mean() + F.softplus(t).mean() for s, t in self._answers(outputs, detach=True)]
            loss = torch.stack(losses).mean() / 2
            take_turn(self._optimiser, loss, CLIP)
            report['feature_discriminator'] = float(loss.detach())
        return report

    def translator(self) -> nn.Module | None:
        """Return the generator that makes target pictures, where there is a pixel stage."""
        return self.pair.to_target if self.pixel else None

    def metrics(self) -> dict[str, float]:
        """Return how often the discriminators are right, and the source network's cross entropy."""
        return dict(self._metrics)

    def _answers(self, outputs: Outputs, detach: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Return the logits of each feature map: of (translated) source, without a way back, and of target."""
        answers = []
        for number, (features, discriminator) in enumerate(zip(outputs.features, self.discriminators)):
            source = outputs.adapted_features[number] if self.pixel else features[:outputs.source_count]
            target = features[outputs.source_count:]
            answers.append((discriminator(source.detach()), discriminator(target.detach() if detach else target)))
        return answers

    def _judge(self, outputs: Outputs, source: Batch, target: Batch) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return the semantic loss as a function of made target and made source pictures, None while f_S is weak.

        In made target pictures f_S has to see what the labels say, pose included; in made source pictures the class
        that it saw in the target picture.
        """
        targets = outputs.targets
        if not self.semantic or not isinstance(targets, (ClassTargets, PoseTargets)):
            return None
        with torch.no_grad():
            seen = self.source_network(torch.cat([source.images, target.images]))
        count = len(source.images)
        right = classes(seen.rows(0, count)).gather(1, targets.classes[:, None])
        self._metrics['source_cross_entropy'] = entropy = float(-right.log().mean())
        if not entropy < GOOD_ENOUGH:
            return None
        guess = classes(seen.rows(count)).argmax(dim=1)

        def judge(made_target: Tensor, made_source: Tensor) -> Tensor:
            output = self.source_network(torch.cat([made_target, made_source]))
            kept = torch.stack(list(output.rows(0, count).loss(targets).values())).sum()
            back = F.nll_loss(classes(output.rows(count)).log(), guess)
            return self.semantic * (kept + back)

        return judge


def classes(output: NetworkOutput) -> Tensor:
    """Return class probabilities ``(B, K)``, kept from 0 so that they have a logarithm."""
    return output.probabilities()['class'].clamp(min=1e-8)
