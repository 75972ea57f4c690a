# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes to photographs, for the detector's semantic map: the task that ADVENT and DAFormer were made for.

The detector trains on windows, all its heads learn, the map is scored: mIoU over background and classes on whole
photographs. Their masks are drawn from the true poses (:mod:`sim2real_da.simulation.pose_masks`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation.segmentation import score_segmentation
from sim2real_da.networks.batches import detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.network_weights import load_network, save_network
from sim2real_da.networks.teacher_labels import teacher_labels
from sim2real_da.objectives import Batch
from sim2real_da.offline import Adapted, relit, train, wants_labels
from sim2real_da.recipes import Recipe
from sim2real_da.samples import Frame, LabelledFrame
from sim2real_da.tasks.base import Task, fingerprint
from sim2real_da.tasks.crops import rendered_and_real
from sim2real_da.training import FRAMES, WINDOW, frames_of


class SegmentationTask(Task):
    """Windows of rendered frames to windows of photographs.

    :param rendered: labelled frames with masks
    :param target: unlabelled photographs to adapt to
    :param labelled: the same with masks, for target_only alone
    :param test: photographs with masks, scored at the end
    :param start: weights of the same objects to start from; None: an untrained detector
    :raises ValueError: for weights of other objects
    """

    kind = 'detector'
    metrics = ('miou',)

    def __init__(self, rendered: BopDataset, target: Sequence[Frame], labelled: Sequence[LabelledFrame],
                 test: Sequence[LabelledFrame], names: Sequence[str], start: Bundle | None = None,
                 device: str = 'cpu') -> None:
        super().__init__('lmo', f'segmentation_{fingerprint(str(rendered.folder.resolve()).encode())}',
                         prefix='segmentation_')
        if start is not None and start.classes != tuple(names):
            raise ValueError(f'--start: weights for {list(start.classes)}, the data have {list(names)}')
        self.rendered, self.target, self.labelled, self.test = rendered, target, labelled, test
        self.names, self.start, self.device = tuple(names), start, device

    @property
    def trained(self) -> bool:
        """Whether there are weights to start from."""
        return self.start is not None

    def network(self, seed: int) -> Detector:
        """Return an untrained detector, or a copy of the one to start from."""
        torch.manual_seed(seed)
        network = Detector(len(self.names)) if self.start is None else self.start.copy().detector
        return network.to(self.device)

    def pretrain(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Detector]:
        """Train on rendered windows alone."""
        assert isinstance(network, Detector)
        return train(network, 'detector', recipe, self._rendered_windows(network, seed), None, steps, seed)

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Detector]:
        """Train; the photographs come without labels."""
        assert isinstance(network, Detector)
        rng = np.random.default_rng([seed, 1])
        windows = self._windows([LabelledFrame(frame, ()) for frame in self.target], network, rng)

        def target_batches(run: Adaptation) -> Batch:
            return window_target_batch(run, next(windows).images)

        rendered = self._rendered_windows(network, seed, recipe.rare_classes)
        return train(network, 'detector', recipe, rendered, target_batches, steps, seed)

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Detector]:
        """Train on windows of labelled photographs."""
        assert isinstance(network, Detector)
        windows = self._windows(self.labelled, network, np.random.default_rng([seed, 0]))
        return train(network, 'detector', recipe, windows, None, steps, seed)

    def _windows(self, frames: Sequence[LabelledFrame], network: Detector,
                 rng: np.random.Generator) -> Iterator[Batch]:
        while True:
            chosen = [frames[i] for i in rng.choice(len(frames), FRAMES, replace=len(frames) < FRAMES)]
            yield Batch(*detector_batch(chosen, self.names, network.input_size, rng, WINDOW, self.device))

    def _rendered_windows(self, network: Detector, seed: int, rare: bool = False) -> Iterator[Batch]:
        rng, ids = np.random.default_rng([seed, 0]), self.rendered.ids()
        for frames in frames_of(self.rendered, ids, seed, shares=self.rendered.shares(ids) if rare else None):
            yield Batch(*detector_batch(frames, self.names, network.input_size, rng, WINDOW, self.device))

    def score(self, network: nn.Module) -> dict[str, Any]:
        """Return :func:`.score_segmentation`."""
        assert isinstance(network, Detector)
        return score_segmentation(network, self.test, self.names, self.device)

    def save(self, path: Path, network: nn.Module, recipe: str, note: str = '', created: dict[str, Any] | None = None,
             half: bool = False) -> None:
        """Write a detector's weights file."""
        save_network(path, 'detector', network, self.names, recipe, note, created, half)

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """Return a detector and its manifest."""
        return load_network(path, 'detector', self.device)


def window_target_batch(run: Adaptation, images: torch.Tensor) -> Batch:
    """Return what the student sees of target windows: relit, with the teacher's labels where an objective wants them.

    The teacher looks once, at the windows as they are.
    """
    if not wants_labels(run):
        return Batch(images)
    with torch.no_grad():
        labels, confidence = teacher_labels(run.teacher(images), None)
    return Batch(relit(images), labels, confidence=confidence)


def segmentation(options: argparse.Namespace) -> list[Task]:
    """Return rendered scenes -> LineMOD-Occluded.

    :raises ValueError: without rendered frames, or for objects that are not those of the photographs
    """
    from sim2real_da.simulation.pose_masks import PoseMasks  # MuJoCo is loaded where masks are drawn, not before

    rendered, real, objects = rendered_and_real(options)
    adaptation, scoring = lmo_split(real.ids())
    start = Bundle.load(options.start) if options.start else None
    masks = PoseMasks(real.drawn_objects())
    labelled, test = ([masks.masked(real.frame(i)) for i in ids] for ids in (adaptation, scoring))
    masks.close()
    return [SegmentationTask(rendered, [x.frame for x in labelled], labelled, test, list(objects), start,
                             options.device)]
