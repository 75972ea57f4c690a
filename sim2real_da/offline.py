# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The offline loop: labelled source samples, unlabelled target samples, a recipe, an adapted network.

:func:`train` is the loop for any network; it draws source batches from an iterator and asks for a target batch, which
the teacher may label. Beside it stand the batches of classifiers (:func:`adapt`) and of crops with poses
(:func:`adapt_crops`). Target pictures come as a bare array, which cannot carry labels. Where an objective wants the
teacher's labels, the teacher looks at the pictures as they are and the student at changed copies: place, scale, turn,
light, noise for classes; light and noise alone where labels have a place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.batches import rows
from sim2real_da.data.pictures import Pictures
from sim2real_da.data.rare_classes import rare_rows
from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.networks.crop_labels import crop_labels
from sim2real_da.networks.crop_sets import CropBatches
from sim2real_da.networks.distributed import own_seed
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.pose import PoseTargets, joined
from sim2real_da.objectives import Batch
from sim2real_da.recipes import Recipe

LOG = logging.getLogger(__name__)
SURE = 0.95  # the teacher's probability from which its label counts (FixMatch, Sohn et al., NeurIPS 2020)
LABELLED_SHARE = 0.25  # of a target batch, where a few target pictures are labelled
REPORTS = 20  # a run's course has about so many entries


Network = TypeVar('Network', bound=nn.Module)
Made = TypeVar('Made', bound=nn.Module, covariant=True)
#: makes a target batch, with labels of the run's teacher where an objective wants them
TargetBatches = Callable[[Adaptation], Batch]


@dataclass(frozen=True)
class Adapted(Generic[Made]):
    """What a run made.

    :param network: the averaged teacher or the network itself, as the recipe says; in evaluation mode
    :param course: losses and metrics on the way, means since the last entry, with ``step``
    :param generator: gives source pictures ``(B, 3, H, W)`` the target's look, where the recipe has one; in evaluation
        mode
    """

    network: Made
    course: list[dict[str, float]]
    seconds: float
    generator: nn.Module | None = None


def train(network: Network, kind: str, recipe: Recipe, source: Iterator[Batch], target: TargetBatches | None,
          steps: int, seed: int = 0) -> Adapted[Network]:
    """Train a network by a recipe, on the device where it is.

    Steps that are not finite change nothing; a run of such steps only is an error.

    :param network: where to start; it is trained in place
    :param kind: 'classifier', 'pose' or 'detector'
    :param source: labelled batches, without an end
    :param target: called once a step; None for recipes that do not look at any
    :param seed: of changes and of the objectives' players; sets torch's generator
    :raises ValueError: when the recipe looks at target pictures and there are none
    """
    torch.manual_seed(seed)
    run = Adaptation(network, kind, recipe, steps=steps)
    if run.needs_target and target is None:
        raise ValueError(f'recipe {recipe.name}: looks at target pictures, there are none')
    course: list[dict[str, float]] = []
    recent: list[dict[str, float]] = []
    begin, skipped = time.monotonic(), 0
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for step in range(steps):
        batch = next(source)
        report = run.step(batch, target(run) if run.needs_target and target is not None else None)
        skipped += 'skipped' in report
        recent.append(report)
        if (step + 1) % max(steps // REPORTS, 1) == 0:
            course.append({'step': step + 1.0, **_means(recent)})
            recent.clear()
            LOG.info('%s step %d/%d: %s', recipe.name, step + 1, steps,
                     '  '.join(f'{k} {v:.3f}' for k, v in course[-1].items() if k != 'step'))
    if skipped == steps and steps:
        raise ValueError(f'recipe {recipe.name}: no step had a finite loss; lower its learning rate')
    made = run.teacher if recipe.offline.averaged else run.network
    generators = (o.translator() for o in run.objectives)
    generator = next((g.eval() for g in generators if g is not None), None)
    return Adapted(cast(Network, made.eval()), course, time.monotonic() - begin, generator)


def adapt(network: Classifier, recipe: Recipe, source: Pictures, target: NDArray[np.uint8] | None, steps: int,
          seed: int = 0, labelled: Pictures | None = None) -> Adapted[Classifier]:
    """Train a classifier by a recipe, see :func:`train`.

    :param network: where to start; it is trained in place
    :param source: labelled
    :param target: uint8 RGB ``(N, H, W, 3)``; None for recipes that do not look at any
    :param seed: of batches, changes, and of the objectives' players; sets torch's generator
    :param labelled: a few labelled target pictures (semi-supervised), with the source's class numbers; a quarter of
        each target batch is of them, for objectives that learn from labels of the target; a quarter of each source
        batch for recipes that do not look at the target
    :raises ValueError: for pictures without labels or with other classes, a missing target, sizes that do not match
    """
    device = next(network.parameters()).device
    _check(network, source, target, labelled)
    count = recipe.offline.batch
    few = 0 if labelled is None else max(round(LABELLED_SHARE * count), 1)
    known = _labelled_batches(labelled, few, own_seed(seed, 2), device) if labelled is not None else None
    pictures = None
    if target is not None and len(target):
        pictures = _batches(target, rows(len(target), count - few, own_seed(seed, 1)), device)
    rare = recipe.rare_classes

    def target_batches(run: Adaptation) -> Batch:
        assert pictures is not None
        return target_batch(run, next(pictures)[0], next(known) if known is not None else None)

    if known is not None and not recipe.looks_at_target('classifier'):
        sources = (Batch(torch.cat([a[0], b[0]]), ClassTargets(torch.cat([a[1], b[1]]))) for a, b in zip(
            _labelled_batches(source, count - few, own_seed(seed, 0), device, rare), known))
    else:
        sources = (Batch(images, ClassTargets(classes))
                   for images, classes in _labelled_batches(source, count, own_seed(seed, 0), device, rare))
    return train(network, 'classifier', recipe, sources, None if pictures is None else target_batches, steps, seed)


def adapt_crops(network: Network, recipe: Recipe, source: CropBatches, target: NDArray[np.uint8] | None, steps: int,
                seed: int = 0, labelled: CropBatches | None = None) -> Adapted[Network]:
    """Train a network of direct poses by a recipe, on the device where it and the source crops are.

    :param source: labelled crops, with masks for objectives that look at them
    :param target: crops, uint8 RGB ``(N, S, S, 3)``; None for recipes that do not look at any
    :param labelled: a few labelled target crops (semi-supervised), as in :func:`adapt`
    :raises ValueError: for a missing target or crops of two sizes
    """
    if target is not None and target.shape[1:] != source.crops.images.shape[1:]:
        raise ValueError(f'target: crops are {target.shape[1:]}, those of the source {source.crops.images.shape[1:]}; '
                         'expected one size')
    count = recipe.offline.batch
    few = 0 if labelled is None else max(round(LABELLED_SHARE * count), 1)
    known = labelled.batches(few, own_seed(seed, 2)) if labelled is not None else None
    if known is not None and not recipe.looks_at_target('pose'):
        sources = (Batch(torch.cat([a[0], b[0]]), joined(a[1], b[1])) for a, b in zip(
            source.batches(count - few, own_seed(seed, 0), recipe.rare_classes), known))
    else:
        sources = (Batch(*batch) for batch in source.batches(count, own_seed(seed, 0), recipe.rare_classes))
    if target is None or not len(target):
        return train(network, 'pose', recipe, sources, None, steps, seed)
    indices = rows(len(target), count - few, own_seed(seed, 1))

    def target_batches(run: Adaptation) -> Batch:
        return crop_target_batch(run, to_tensor(list(target[next(indices)]), source.device), source,
                                 next(known)[:2] if known is not None else None)

    return train(network, 'pose', recipe, sources, target_batches, steps, seed)


def target_batch(run: Adaptation, images: Tensor, known: tuple[Tensor, Tensor] | None = None) -> Batch:
    """Return what the student sees of the target, with the teacher's labels where an objective wants them.

    Labels count 1 where the teacher is sure and 0 elsewhere; objectives that weigh by confidence themselves get all of
    them and the confidence.

    :param known: further pictures and their true labels
    """
    whole = images if known is None else torch.cat([images, known[0]])
    if not wants_labels(run):
        if known is None:
            return Batch(whole)
        counts = torch.cat([whole.new_zeros(len(images)), whole.new_ones(len(known[1]))])
        return Batch(whole, ClassTargets(torch.cat([known[1].new_zeros(len(images)), known[1]]), counts), labelled=True)
    with torch.no_grad():
        probability: Tensor = run.teacher(images).probabilities()['class']
        confidence, classes = probability.max(dim=1)
    if known is not None:
        confidence = torch.cat([confidence, confidence.new_ones(len(known[1]))])
        classes = torch.cat([classes, known[1]])
    weight = None if run.needs_confidence else (confidence >= SURE).float()
    return Batch(changed(whole), ClassTargets(classes, weight), confidence=confidence)


def crop_target_batch(run: Adaptation, images: Tensor, objects: CropBatches,
                      known: tuple[Tensor, PoseTargets] | None = None) -> Batch:
    """Return what the student sees of target crops: relit, since a pose has a place.

    :param objects: has the symmetries and surfaces that labels carry
    :param known: further crops and their true labels
    """
    if not wants_labels(run):
        if known is None:
            return Batch(images)
        silent = known[1].repeated(len(images))  # labels that do not count
        silent.posed = silent.sure = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return Batch(torch.cat([images, known[0]]), joined(silent, known[1]), labelled=True)
    targets, confidence = crop_labels(run.teacher, images, objects.turns, objects.clouds)
    if not run.needs_confidence:
        assert targets.posed is not None
        targets.sure = confidence >= SURE
        targets.posed = targets.posed & targets.sure
    if known is not None:
        images, targets = torch.cat([images, known[0]]), joined(targets, known[1])
        confidence = torch.cat([confidence, confidence.new_ones(known[1].count)])
    return Batch(relit(images), targets, confidence=confidence)


def wants_labels(run: Adaptation) -> bool:
    """Return whether the teacher is to label the target."""
    return run.needs_pseudo_labels or run.needs_confidence


def changed(images: Tensor) -> Tensor:
    """Return copies ``(B, 3, H, W)`` in [0, 1], each moved, turned, scaled and :func:`relit` a little.

    Up to 10 % of the side, 10 degrees, 10 % of the size; digits and signs are not mirrored.
    """
    angle, scale = _drawn(images, torch.pi / 18), 1 + _drawn(images, 0.1)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine, _drawn(images, 0.2)], 1),
                        torch.stack([sine, cosine, _drawn(images, 0.2)], 1)], 1)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return relit(F.grid_sample(images, grid, padding_mode='border', align_corners=False))


def relit(images: Tensor) -> Tensor:
    """Return copies ``(B, 3, H, W)`` in [0, 1] of other contrast and brightness, with noise; nothing moves."""
    contrast, brightness = 1 + _drawn(images, 0.2), _drawn(images, 0.1)
    lit = (images - 0.5) * contrast[:, None, None, None] + 0.5 + brightness[:, None, None, None]
    noise = 0.05 * torch.rand(len(images), 1, 1, 1, device=images.device) * torch.randn_like(lit)
    return (lit + noise).clamp(0, 1)


def _drawn(images: Tensor, span: float) -> Tensor:
    """Return a number between -span and span for each picture ``(B,)``."""
    return (2 * torch.rand(len(images), device=images.device) - 1) * span


def _labelled_batches(pictures: Pictures, count: int, seed: list[int], device: torch.device,
                      rare: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures in [0, 1] and their labels for ever, rare classes more often where asked for."""
    assert pictures.labels is not None
    known = torch.from_numpy(pictures.labels).to(device)
    order = rare_rows(pictures.labels, count, seed) if rare else rows(len(pictures), count, seed)
    for images, chosen in _batches(pictures.images, order, device):
        yield images, known[chosen]


def _batches(images: NDArray[np.uint8], order: Iterator[NDArray[np.int64]],
             device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures in [0, 1] and which they are for ever."""
    stored = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    for index in order:
        chosen: Tensor = torch.from_numpy(index).to(device)
        # a permuted view keeps the channels last, which convolutions on a CPU like
        yield stored[chosen].permute(0, 3, 1, 2).float().div(255), chosen


def _check(network: Classifier, source: Pictures, target: NDArray[np.uint8] | None, labelled: Pictures | None) -> None:
    classes = network.config['classes']
    for name, pictures in (('source', source), ('labelled target', labelled)):
        if pictures is None:
            continue
        if pictures.labels is None:
            raise ValueError(f'{name}: these pictures have no labels')
        if not len(pictures) or pictures.labels.max() >= classes:
            raise ValueError(f'{name}: {len(pictures)} pictures, expected some, of {classes} classes')
    if target is not None and target.shape[1:] != source.images.shape[1:]:
        raise ValueError(f'target: pictures are {target.shape[1:]}, those of the source {source.images.shape[1:]}; '
                         'expected one size')
    if labelled is not None and labelled.images.shape[1:] != source.images.shape[1:]:
        raise ValueError(f'labelled target: pictures are {labelled.images.shape[1:]}, expected those of the source, '
                         f'{source.images.shape[1:]}')


def _means(reports: list[dict[str, float]]) -> dict[str, float]:
    names = {name for report in reports for name in report}
    return {name: float(np.mean([r[name] for r in reports if name in r])) for name in sorted(names)}
