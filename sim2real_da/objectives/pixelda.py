# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""PixelDA, unsupervised pixel-level domain adaptation (Bousmalis et al., CVPR 2017, arXiv 1612.05424).

A generator G changes labelled source pictures x_s so that a discriminator D takes them for target pictures x_t; the
task network T learns from the source pictures as they are *and* as they were changed, with the same labels:

    min_{G,T} max_D  adversarial * L_d(D, G) + task * L_t(G, T) + content * L_c(G)

- L_d = E log D(x_t) + E log(1 - D(G(x_s, z))). G minimises -log D(G(x_s, z)) instead (non-saturating).
- L_t is the network's own loss; networks that answer with a rotation also get the paper's log(1e-4 + 1 - |q.q'|).
- L_c, masked pairwise mean squared error: 1/k |d m|^2 - 1/k^2 (d.m)^2 for the difference d of x_s and G(x_s, z), the
  mask m of the objects and k, all numbers of a picture.

Every step has three turns: T learns with all other losses of the recipe (G held still); D; G with T held still, whose
weights and statistics do not move. G runs once a step, what it made serves all three. z ~ U(-1, 1)^10.

**Signs**: every loss is minimised by the player whose turn it is; D says positive for target pictures. The log
quaternion loss is negative, down to log(1e-4) = -9.21.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.direct_pose import DirectOutput
from sim2real_da.networks.discriminators import ImageDiscriminator
from sim2real_da.networks.generators import ResidualGenerator, load_generator
from sim2real_da.networks.outputs import NetworkOutput, Targets
from sim2real_da.networks.pose import DirectTargets, PoseTargets
from sim2real_da.objectives.base import Batch, Objective, Outputs
from sim2real_da.objectives.turns import held_still, picture_side, take_turn

RATE, BETAS, WEIGHT_DECAY = 1e-3, (0.5, 0.999), 1e-5  # Adam of G and D
DECAY, DECAY_STEPS = 0.95, 20000  # the rate is multiplied every so many steps
CLIP = 5.0  # norm of their gradients
FLOOR = 1e-4  # keeps the logarithm finite


def quaternion_loss(found: Tensor, true: Tensor) -> Tensor:
    """Return log(1e-4 + 1 - |q.q'|) of unit quaternions ``(..., 4)``, any order of numbers; q and -q are the same."""
    return _log_loss((found * true).sum(-1).abs())


def rotation_loss(found: Tensor, true: Tensor) -> Tensor:
    """Return :func:`quaternion_loss` of rotation matrices ``(..., 3, 3)``: |q.q'| = sqrt(1 + trace(R' R^T)) / 2."""
    trace = (found * true).sum(dim=(-2, -1))
    return _log_loss((1 + trace).clamp(min=1e-6).sqrt() / 2)  # the root has no gradient at 180 degrees


def _log_loss(agreement: Tensor) -> Tensor:
    return torch.log(FLOOR + 1 - agreement.clamp(max=1))


def pose_loss(output: NetworkOutput, targets: Targets) -> Tensor | None:
    """Return the mean of :func:`rotation_loss` over crops that show an object, nearest symmetric variant each.

    None when the network does not answer with a rotation, or no crop shows an object.
    """
    if not isinstance(output, DirectOutput) or not isinstance(targets, PoseTargets):
        return None
    if not isinstance(targets.of, DirectTargets):
        return None
    rows = (targets.classes < output.classes.shape[1] - 1).nonzero()[:, 0]
    if not len(rows):
        return None
    alike = targets.of.rotation[rows, None] @ targets.of.turns[rows]  # (B, K, 3, 3)
    found = output.rotation[rows, targets.classes[rows]]
    return rotation_loss(found[:, None], alike).amin(dim=1).mean()


def pairwise_error(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Return the masked pairwise mean squared error, averaged over the pictures.

    It asks that pixels within the mask differ from each other as they did before; a shift that all of a picture's
    pixels have in common costs nothing where the mask is full. (k counts all numbers, not those within the mask.)

    :param first: ``(B, C, H, W)``
    :param second: the same shape
    :param mask: ``(B, 1, H, W)`` in 0..1
    """
    difference = ((first - second) * mask).flatten(1)
    return (difference.square().mean(dim=1) - difference.mean(dim=1).square()).mean()


class PixelDa(Objective):
    """Generator and discriminator beside the task network.

    :param channels: feature channels of the network; not used, every objective is built the same way
    :param weight: of T's losses on adapted pictures
    :param adversarial: of L_d in G's turn
    :param task: of L_t in G's turn
    :param content: of L_c; needs masks of the source pictures
    :param rotation: of the log quaternion loss on source pictures and on adapted ones
    :param labelled: of T's losses on target pictures that a person labelled (the paper's semi-supervised case)
    :param blocks: of G
    :param filters: channels within G
    :param width: channels of D's first layer
    :param frozen: file of a trained generator; nothing but T learns then, and no target picture is needed
    """

    needs_target = True
    networks = ('classifier', 'pose')
    generator: ResidualGenerator
    discriminator: ImageDiscriminator

    def __init__(self, channels: tuple[int, ...], weight: float = 1.0, adversarial: float = 1.0, task: float = 1.0,
                 content: float = 0.0, rotation: tuple[float, float] = (0.25, 0.125), labelled: float = 1.0,
                 blocks: int = 6, filters: int = 64, width: int = 64, frozen: str | None = None) -> None:
        super().__init__()
        self.weight, self.adversarial, self.task, self.content = weight, adversarial, task, content
        self.source_rotation, self.adapted_rotation = rotation
        self.labelled, self.blocks, self.filters, self.width = labelled, blocks, filters, width
        self.frozen = self.online = frozen is not None
        if frozen is not None:
            self.generator = load_generator(frozen)
            self.needs_target = False
        self._made: Tensor | None = None
        self._metrics: dict[str, float] = {}

    def players(self) -> list[nn.Parameter]:
        """Return none: generator and discriminator learn in :meth:`play`, each by its own optimiser."""
        return []

    def train(self, mode: bool = True) -> PixelDa:
        """Switch the players to training mode; a frozen generator stays as it is."""
        super().train(mode)
        if self.frozen:
            self.generator.eval()
        return self

    def start(self, network: nn.Module) -> None:
        """Make the players for pictures of the network's size.

        :raises ValueError: when a frozen generator was made for another size
        """
        side = picture_side(network)
        if self.frozen:
            if self.generator.noise and self.generator.size != side:
                raise ValueError(f'pixelda: the frozen generator was made for {self.generator.size} pixels, the '
                                 f'network takes {side}')
            return
        device = next(network.parameters()).device
        self.generator = ResidualGenerator(side, self.blocks, self.filters).to(device)
        self.discriminator = ImageDiscriminator(side, self.width).to(device)
        self._optimisers = [torch.optim.Adam(player.parameters(), RATE, BETAS, weight_decay=WEIGHT_DECAY)
                            for player in (self.discriminator, self.generator)]
        self._schedules = [torch.optim.lr_scheduler.StepLR(o, DECAY_STEPS, DECAY) for o in self._optimisers]

    def adapted(self, source: Batch, step: int) -> Tensor | None:
        """Return what G makes of the source pictures, without a way back for gradients: it is T's turn.

        None for pictures that are not finite, which would spoil G's running statistics; nobody learns from those.

        :raises ValueError: when the content loss is wanted and the source pictures have no masks
        """
        self._made = None
        if self.content and not self.frozen and source.masks is None:
            raise ValueError('pixelda: the content loss needs masks of the source pictures; expected Batch.masks, or '
                             'content: 0 in the recipe')
        if not torch.isfinite(source.images).all():
            return None
        self._made = self.generator(source.images)
        return self._made.detach()

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return T's losses on adapted pictures and on labelled target pictures, and of rotations on both domains."""
        if self._made is None or outputs.adapted is None:
            return {}
        found = {f'adapted_{name}': self.weight * loss for name, loss in outputs.adapted.loss(outputs.targets).items()}
        for name, weight, output in (('quaternion', self.source_rotation, outputs.source),
                                     ('adapted_quaternion', self.weight * self.adapted_rotation, outputs.adapted)):
            loss = pose_loss(output, outputs.targets) if weight else None
            if loss is not None:
                found[name] = weight * loss
        seen = outputs.batches[1] if outputs.batches is not None else None
        # a teacher's labels are for the objectives that weigh them
        if (self.labelled and seen is not None and seen.labelled and outputs.target is not None
                and outputs.pseudo is not None and outputs.pseudo.count):
            for name, loss in outputs.target.loss(outputs.pseudo).items():
                found[f'labelled_{name}'] = self.labelled * loss
        return found

    def play(self, outputs: Outputs) -> dict[str, float]:
        """Let the discriminator learn, then the generator; nothing when frozen or without target pictures."""
        made, self._made = self._made, None
        assert outputs.batches is not None and outputs.network is not None
        source, target = outputs.batches
        if self.frozen or made is None or target is None or not len(target.images):
            return {}
        real, fake = self.discriminator(target.images), self.discriminator(made.detach())
        discriminator = F.softplus(-real).mean() + F.softplus(fake).mean()
        self._metrics = {'image_domain_accuracy': float(((real > 0).float().mean() + (fake <= 0).float().mean()) / 2)}
        take_turn(self._optimisers[0], discriminator, CLIP)

        with held_still(outputs.network):
            seen: NetworkOutput = outputs.network(made)
        task = torch.stack(list(seen.loss(outputs.targets).values())).sum()
        rotation = pose_loss(seen, outputs.targets) if self.adapted_rotation else None
        if rotation is not None:
            task = task + self.adapted_rotation * rotation
        fooled = F.softplus(-self.discriminator(made)).mean()
        total = self.adversarial * fooled + self.task * task
        report = {'discriminator': float(discriminator.detach()), 'generator': float(fooled.detach()),
                  'generator_task': float(task.detach())}
        if self.content and source.masks is not None:
            # the paper's pictures are in [-1, 1], ours in [0, 1]
            content = pairwise_error(2 * source.images, 2 * made, source.masks)
            report['content'] = float(content.detach())
            total = total + self.content * content
        take_turn(self._optimisers[1], total, CLIP)
        for schedule in self._schedules:
            schedule.step()
        return report

    def translator(self) -> nn.Module:
        """Return the generator."""
        return self.generator

    def metrics(self) -> dict[str, float]:
        """Return the discriminator's accuracy; 0.5 means that it cannot tell made from real pictures."""
        return dict(self._metrics)
