# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every objective sees and gives, and one joint forward pass with the losses of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sim2real_da.networks.outputs import NetworkOutput, Targets


@dataclass
class Batch:
    """Samples of one domain as a network takes them.

    :param images: ``(B, 3, H, W)`` in [0, 1]
    :param targets: labels in the network's own form: simulation's, or of real samples a teacher's or, where a few real
        samples are labelled, a person's; None without any
    :param masks: where the objects are, ``(B, 1, H, W)`` in 0..1; None where unknown
    :param confidence: the teacher's largest class probability, of every sample ``(B,)`` or cell ``(B, h, w)``; None
        where no objective asked for it
    :param labelled: of real samples, whether all targets that count are a person's
    """

    images: Tensor
    targets: Targets | None = None
    masks: Tensor | None = None
    confidence: Tensor | None = None
    labelled: bool = False


@dataclass
class Outputs:
    """One joint forward pass of a network over a source and a target batch.

    :param source: the network's output for the labelled source samples
    :param targets: their labels
    :param features: feature maps of source *and* target samples, source first
    :param source_count: how many of the rows of ``features`` are source
    :param step: learner steps taken before this one; a stream has no known end, so schedules count steps
    :param target: the network's output for the target samples; None without any
    :param pseudo: the teacher's labels of these
    :param adapted: the network's output for the source samples as an objective changed them; None without any. Their
        labels are ``targets``
    :param network: the network itself, for objectives that run it on something else
    :param teacher: its average over time, in evaluation mode; None where nobody keeps one
    :param batches: source and target batch the pass was made of
    :param steps: length of the run, for schedules over its progress; None for a stream, which has no known end
    :param adapted_features: feature maps of the changed source samples
    """

    source: NetworkOutput
    targets: Targets
    features: list[Tensor]
    source_count: int
    step: int
    target: NetworkOutput | None = None
    pseudo: Targets | None = None
    adapted: NetworkOutput | None = None
    network: nn.Module | None = None
    teacher: nn.Module | None = None
    batches: tuple[Batch, Batch | None] | None = field(default=None, repr=False)
    steps: int | None = None
    adapted_features: list[Tensor] = field(default_factory=list)


class Objective(nn.Module):
    """Base of all objectives.

    One with players of its own (a discriminator, a generator) registers them as sub-modules. Those that learn from the
    sum of all losses are returned by :meth:`players`; whoever takes the step gives them an optimiser apart from the
    network's. Those that play alternately have their own optimiser and learn in :meth:`play`.
    """

    #: whether target samples have to be forwarded with the source samples
    needs_target = False
    #: whether the teacher has to label them
    needs_pseudo_labels = False
    #: whether it has to say how sure it is, and to complete its labels by what one look at the batch tells
    needs_confidence = False
    #: networks it is made for
    networks: tuple[str, ...] = ('classifier', 'pose', 'detector')
    #: the objective without which it does nothing; empty when there is none
    beside = ''
    #: whether it can learn beside a running robot, on a stream
    online = True

    def players(self) -> Iterable[nn.Parameter]:
        """Return the parameters that learn from the sum of all losses."""
        return self.parameters()

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers of players that take turns, whose state outlives a restart of an online learner."""
        return []

    def start(self, network: nn.Module) -> None:
        """Look once at the network before the first step, for instance to keep a frozen copy."""

    def adapted(self, source: Batch, step: int) -> Tensor | None:
        """Return source images changed to look like the target's ``(B, 3, H, W)``, for the same joint pass; or None."""
        return None

    def mixed(self, source: Batch, target: Batch, step: int) -> Batch:
        """Return what the network is to see of the target, for instance with parts hidden or pasted in."""
        return target

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return named losses, already weighted; their sum is minimised."""
        raise NotImplementedError

    def play(self, outputs: Outputs) -> dict[str, float]:
        """Train players that take turns, after the network's own step; return their losses for people to watch."""
        return {}

    def translator(self) -> nn.Module | None:
        """Return the generator that gives source pictures ``(B, 3, H, W)`` in [0, 1] the target's look, if any."""
        return None

    def metrics(self) -> dict[str, float]:
        """Return what a person should watch besides the losses (schedules, accuracies) of the last step."""
        return {}


def joint_pass(
    network: nn.Module, objectives: Sequence[Objective], source: Batch, target: Batch | None, step: int,
    teacher: nn.Module | None = None, steps: int | None = None,
) -> tuple[Outputs, dict[str, Tensor]]:
    """Run the network once over source, adapted source and target samples and return all losses.

    One pass, in training mode: batch normalisation takes its statistics from all samples together. Two passes would
    normalise each domain by itself while training and then publish statistics that fit neither.

    :param target: None when nothing of the target is to be seen
    :param steps: length of the run where it has one
    :raises ValueError: without labels of the source
    """
    if source.targets is None:
        raise ValueError('joint pass: the source batch has no labels')
    if target is not None:
        for objective in objectives:
            target = objective.mixed(source, target, step)
    changed = [made for made in (o.adapted(source, step) for o in objectives) if made is not None]
    if len(changed) > 1:
        raise ValueError('joint pass: two objectives change the source images; a recipe can have one')
    images = [source.images, *([target.images] if target is not None else []), *changed]
    output = network(torch.cat(images))
    first = len(source.images)
    last = first + (len(target.images) if target is not None else 0)
    # a slice of everything, too, would cost a copy of each map's gradient
    features = [f[:last] for f in output.features] if changed else output.features
    outputs = Outputs(
        output.rows(0, first), source.targets, features, first, step,
        output.rows(first, last) if target is not None else None, target.targets if target is not None else None,
        output.rows(last) if changed else None, network, teacher, (source, target), steps,
        [f[last:] for f in output.features] if changed else [])
    losses: dict[str, Tensor] = {}
    for objective in objectives:
        losses.update(objective.losses(outputs))
    return outputs, losses
