# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One network under a recipe: its objectives, their optimisers and the averaged teacher.

The online learner has one for the detector and one for the pose network; offline adaptation has one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from sim2real_da.networks.distributed import average_buffers, average_gradients, mean_of
from sim2real_da.networks.teacher_labels import teacher_labels
from sim2real_da.objectives import Batch, Outputs, joint_pass
from sim2real_da.objectives.dann import learning_rate_factor
from sim2real_da.recipes import Recipe

GRADIENT_NORM = 10.0
WEIGHT_DECAY = 0.01


@torch.no_grad()
def average(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the teacher towards the student: t = a t + (1 - a) s, a = min(1 - 1 / (step + 1), decay).

    Buffers are averaged as parameters are (whole numbers copied): the running statistics of batch normalisation belong
    to the weights. The first step (0) copies. Mean teacher (Tarvainen and Valpola, NeurIPS 2017).
    """
    alpha = min(1 - 1 / (step + 1), decay)
    for mine, other in zip(teacher.state_dict().values(), student.state_dict().values()):
        if mine.is_floating_point():
            mine.lerp_(other, 1 - alpha)
        else:
            mine.copy_(other)


def schedule(step: int, steps: int, warm_up: int, kind: str = 'cosine') -> float:
    """Return the factor on the learning rate: linear over the warm-up, then it falls.

    :param kind: 'cosine', half a wave down to 0, or 'dann', (1 + 10 p)^-0.75
    """
    if step < warm_up:
        return (step + 1) / warm_up
    progress = min((step - warm_up) / max(steps - warm_up, 1), 1.0)
    return learning_rate_factor(progress) if kind == 'dann' else 0.5 * (1 + math.cos(math.pi * progress))


class Adaptation:
    """Trains one network by a recipe.

    :param network: trained in place
    :param kind: 'detector', 'pose' or 'classifier'
    :param teacher: a copy to average into; default: one is made
    :param steps: length of an offline run, at the recipe's offline pace: rates rise over its warm-up and fall by its
        schedule; None: online, at a constant rate or annealed by steps, for a stream has no known end
    """

    def __init__(self, network: nn.Module, kind: str, recipe: Recipe, teacher: nn.Module | None = None,
                 steps: int | None = None) -> None:
        self.network, self.kind, self.recipe = network, kind, recipe
        self.teacher = (copy.deepcopy(network) if teacher is None else teacher).eval()
        device = next(network.parameters()).device
        channels: tuple[int, ...] = network.feature_channels  # type: ignore[assignment]
        self.objectives = [o.to(device) for o in recipe.build(kind, channels, offline=steps is not None)]
        for objective in self.objectives:
            objective.start(network)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        players = [p for o in self.objectives for p in o.players()]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self.parameters, recipe.learning_rate if steps is None else recipe.offline.learning_rate,
                              weight_decay=WEIGHT_DECAY)]
        if players:
            self.optimisers.append(torch.optim.Adam(players, recipe.discriminator_rate, betas=(0.5, 0.99)))
        self._peaks = [[group['lr'] for group in o.param_groups] for o in self.optimisers]
        self.steps, self.ema = steps, recipe.ema if steps is None else recipe.offline.ema
        self.step_count = 0
        self.pace = 1.0  # of the learning rates; a session that had to go back learns on more slowly
        self._outputs: Outputs | None = None
        self._statistics: list[Tensor] = []
        network.train()
        if steps is not None and kind in recipe.offline.frozen_statistics:
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                    layer.eval()

    @property
    def needs_target(self) -> bool:
        """Whether any objective looks at target samples."""
        return any(o.needs_target for o in self.objectives)

    @property
    def needs_pseudo_labels(self) -> bool:
        """Whether any objective wants the teacher's labels of target samples."""
        return any(o.needs_pseudo_labels for o in self.objectives)

    @property
    def needs_confidence(self) -> bool:
        """Whether any objective wants to know how sure the teacher is."""
        return any(o.needs_confidence for o in self.objectives)

    def losses(self, source: Batch, target: Batch | None) -> dict[str, Tensor]:
        """Run the joint pass and return all losses by name."""
        if target is not None and target.confidence is None and self.needs_pseudo_labels and (
                target.targets is None or self.needs_confidence):
            target = self._labelled(target)
        # a pass that is not finite spoils the running statistics, too
        self._statistics = [b.clone() for b in self.network.buffers()]
        self._outputs, losses = joint_pass(
            self.network, self.objectives, source, target, self.step_count, self.teacher, self.steps)
        return losses

    @torch.no_grad()
    def _labelled(self, target: Batch) -> Batch:
        """Return the target with what the teacher says of it as it is, before any objective hides or pastes."""
        labels, confidence = teacher_labels(self.teacher(target.images), target.targets)
        return replace(target, targets=labels, confidence=confidence)

    def backward(self, losses: dict[str, Tensor]) -> bool:
        """Compute clipped gradients; False when something is not finite: nothing is to be applied then."""
        return self.clip(self.gradients(losses))

    def gradients(self, losses: dict[str, Tensor]) -> Tensor:
        """Compute the gradients of the losses' sum, which is returned."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        return total

    def clip(self, total: Tensor) -> bool:
        """Shorten the gradients of a sum where they are too long; False when something is not finite."""
        average_gradients(p for o in self.optimisers for g in o.param_groups for p in g['params'])
        total = mean_of(total.detach())  # one answer for all processes
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if torch.isfinite(total) and torch.isfinite(norm):
            if norm > GRADIENT_NORM:  # most are not: scaling all gradients by one is left out
                nn.utils.clip_grads_with_norm_(self.parameters, GRADIENT_NORM, norm)
            return True
        self.restore()
        return False

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what the last joint pass changed: the running statistics of batch normalisation."""
        for buffer, before in zip(self.network.buffers(), self._statistics):
            buffer.copy_(before)
        self._outputs = None

    def apply(self) -> dict[str, float]:
        """Take the step that :meth:`backward` prepared, let players play, move the teacher; return what to watch."""
        factor = self._rate()
        for optimiser, peaks in zip(self.optimisers, self._peaks):
            for group, peak in zip(optimiser.param_groups, peaks):
                group['lr'] = peak * factor
        for optimiser in self.optimisers:
            optimiser.step()
        average_buffers(self.network)
        watched: dict[str, float] = {}
        assert self._outputs is not None, 'apply() before losses()'
        for objective in self.objectives:
            watched.update(objective.play(self._outputs))
            watched.update(objective.metrics())
        self._outputs = None  # it holds the whole graph
        average(self.teacher, self.network, self.ema, self.step_count)
        self.step_count += 1
        return watched

    def state(self) -> dict[str, Tensor]:
        """Return what a later run needs to go on from here: network, players, moments of all optimisers, step count.

        The averaged teacher is not among it: it is what gets published, and is stored as such.
        """
        found = {f'network.{k}': v for k, v in self.network.state_dict().items()}
        for i, objective in enumerate(self.objectives):
            found |= {f'objective.{i}.{k}': v for k, v in objective.state_dict().items()}
        for i, optimiser in enumerate(self._all_optimisers()):
            for p, moments in optimiser.state_dict()['state'].items():
                found |= {f'optimiser.{i}.{p}.{k}': v for k, v in moments.items()}
        return {**found, 'step_count': torch.tensor(self.step_count)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a :meth:`state` of the same network and recipe.

        :raises ValueError: when it is of others; nothing is to be used then
        """
        try:
            self.network.load_state_dict(_below(state, 'network.'))
            for i, objective in enumerate(self.objectives):
                objective.load_state_dict(_below(state, f'objective.{i}.'))
            for i, optimiser in enumerate(self._all_optimisers()):
                moments: dict[int, dict[str, Tensor]] = {}
                for name, value in _below(state, f'optimiser.{i}.').items():
                    number, key = name.split('.')
                    moments.setdefault(int(number), {})[key] = value
                optimiser.load_state_dict({'state': moments, 'param_groups': optimiser.state_dict()['param_groups']})
            self.step_count = int(state['step_count'])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f'{self.kind}: the stored state is of another network or recipe: {error}') from error

    def _all_optimisers(self) -> list[torch.optim.Optimizer]:
        return [*self.optimisers, *(own for o in self.objectives for own in o.optimisers())]

    def _rate(self) -> float:
        """Return the factor on the learning rates of this step."""
        if self.steps is not None:
            offline = self.recipe.offline
            return schedule(self.step_count, self.steps, round(offline.warm_up * self.steps), offline.schedule)
        factor = min((self.step_count + 1) / max(self.recipe.warm_up, 1), 1.0)
        if self.recipe.annealing is not None:
            factor *= learning_rate_factor(self.step_count / self.recipe.annealing)
        return factor * self.pace

    def step(self, source: Batch, target: Batch | None) -> dict[str, float]:
        """Train once and return losses and metrics by name; a step that is not finite changes nothing."""
        losses = self.losses(source, target)
        report = {name: float(loss.detach()) for name, loss in losses.items()}
        return report | (self.apply() if self.backward(losses) else {'skipped': 1.0})


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
