# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Crops of rendered objects, on black or on photographs, to crops of photographs: PixelDA's own case.

Class and rotation, for the direct pose network that the robot runs. Boxes are the true ones on both sides. The
adaptation frames of LineMOD-Occluded give the unlabelled crops, the others are scored.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.data.digits import photographs
from sim2real_da.data.pictures import Pictures
from sim2real_da.networks.crop_sets import CropBatches, CropSet, cut_crops, of_classes, score
from sim2real_da.networks.direct_pose import DirectPoseNetwork
from sim2real_da.networks.generators import ResidualGenerator, save_generator
from sim2real_da.networks.network_weights import load_network, save_network
from sim2real_da.networks.pose import PoseNetwork
from sim2real_da.offline import Adapted, adapt_crops
from sim2real_da.recipes import Recipe
from sim2real_da.samples import ObjectModel
from sim2real_da.tasks.base import Task, fingerprint, labelled_rows
from sim2real_da.tasks.figures import figures

SIZE = 64
HIDDEN = 384  # less than the robot's 512, so that weights stay below 5 MB in 16 bits
BACKGROUNDS = ('black', 'photographs')


class CropTask(Task):
    """Rendered crops of one background to crops of photographs.

    :param target: crops to adapt to, labelled for target_only alone
    :param test: scored at the end
    :param objects: the label map
    :param labelled: so many target crops show their labels to every row (semi-supervised)
    """

    kind = 'pose'
    metrics = ('accuracy', 'mean_angle_deg')

    def __init__(self, name: str, source: CropSet, target: CropSet, test: CropSet, objects: Mapping[str, ObjectModel],
                 device: str = 'cpu', labelled: int = 0, variant: str = '') -> None:
        super().__init__(name, f'crops_{name}_{fingerprint(source.images)}',
                         variant or (f'{labelled}_labelled' if labelled else ''), 'crops_')
        self.source, self.target, self.test, self.objects, self.device = source, target, test, objects, device
        self.labelled = self._batches(target[labelled_rows(len(target), labelled)]) if labelled else None

    def network(self, seed: int) -> PoseNetwork:
        """Return an untrained network of direct poses."""
        torch.manual_seed(seed)
        size = self.source.images.shape[1]
        return DirectPoseNetwork(len(self.objects), crop_size=size, hidden=HIDDEN).to(self.device)

    def pretrain(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train on the source alone."""
        return adapt_crops(network, recipe, self._batches(self.source), None, steps, seed)

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train; the target is a bare array, no objective can read a label of it."""
        return adapt_crops(network, recipe, self._batches(self.source), self.target.images, steps, seed, self.labelled)

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train on labelled target crops."""
        return adapt_crops(network, recipe, self._batches(self.target), None, steps, seed)

    def _batches(self, crops: CropSet) -> CropBatches:
        return CropBatches(crops, self.objects, self.device)

    def figures(self, before: nn.Module, made: Adapted[nn.Module]) -> dict[str, Any]:
        """Return what figures show."""
        source, test = (Pictures(part.images, part.classes) for part in (self.source, self.test))
        return figures(before, made, source, self.target.images, test)

    def score(self, network: nn.Module) -> dict[str, Any]:
        """Return :func:`.crop_sets.score`."""
        assert isinstance(network, PoseNetwork)
        return {**score(network, self.test, self.objects, self.device), 'crops': len(self.test)}

    def save(self, path: Path, network: nn.Module, recipe: str, note: str = '', created: dict[str, Any] | None = None,
             half: bool = False) -> None:
        """Write a pose network's weights file."""
        save_network(path, 'pose', network, list(self.objects), recipe, note, created, half)

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """Return a pose network and its manifest."""
        return load_network(path, 'pose', self.device)


class UnseenTask(CropTask):
    """What a generator learns on some classes, used on others: PixelDA's test of generalisation.

    A recipe with a generator runs on source and target crops of the *seen* classes; its generator, frozen, then stands
    before the training of the network on source crops of all classes. Other recipes get source crops of all classes and
    target crops of the seen ones. Crops of the unseen classes are scored.

    :param unseen: how many classes, the last ones of the label map
    """

    def __init__(self, name: str, source: CropSet, target: CropSet, test: CropSet, objects: Mapping[str, ObjectModel],
                 unseen: int, device: str = 'cpu') -> None:
        if not 0 < unseen < len(objects):
            raise ValueError(f'--unseen {unseen}: expected 1 to {len(objects) - 1} of {len(objects)} classes')
        self.seen = range(len(objects) - unseen)
        hidden = range(len(objects) - unseen, len(objects))
        super().__init__(name, source, of_classes(target, self.seen), of_classes(test, hidden), objects, device,
                         variant=f'{unseen}_unseen')
        self.all_target = target

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train; with a recipe that has a generator in two stages of so many steps each."""
        options = dict(recipe.objectives['pose']).get('pixelda')
        if options is None:
            return super().adapt(network, recipe, steps, seed)
        some = self._batches(of_classes(self.source, self.seen))
        first = adapt_crops(copy.deepcopy(network), recipe, some, self.target.images, steps, seed)
        assert isinstance(first.generator, ResidualGenerator)
        with tempfile.TemporaryDirectory() as folder:
            generator = save_generator(first.generator, Path(folder) / 'generator.safetensors')
            own = {**dict(recipe.objectives['pose']), 'pixelda': {'frozen': str(generator)}}
            frozen = replace(recipe, objectives={'pose': tuple(own.items())})
            second = adapt_crops(network, frozen, self._batches(self.source), None, steps, seed)
        return replace(second, seconds=first.seconds + second.seconds)

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train on labelled target crops of all classes."""
        return adapt_crops(network, recipe, self._batches(self.all_target), None, steps, seed)


def crops(options: argparse.Namespace) -> list[Task]:
    """Return the tasks ``black`` and ``photographs``; those that ``--task`` leaves out are not cut.

    :raises ValueError: for an unknown task, without rendered frames, or for objects that are not the photographs'
    """
    if options.task and (unknown := set(options.task) - set(BACKGROUNDS)):
        raise ValueError(f'--task {sorted(unknown)[0]}: expected some of {list(BACKGROUNDS)}')
    rendered, real, objects = rendered_and_real(options)
    adaptation, scoring = lmo_split(real.ids())
    target = cut_crops(real, adaptation, SIZE, np.random.default_rng(1))
    test = cut_crops(real, scoring, SIZE, np.random.default_rng(2), jitter=False)
    tasks: list[Task] = []
    for background in BACKGROUNDS:
        if options.task and background not in options.task:
            continue
        photos = photographs(options.photos or real.folder.parent / 'digits' / 'bsds', 'train') \
            if background == 'photographs' else ()
        rng = np.random.default_rng(0)
        ids = [rendered.ids()[i] for i in rng.permutation(len(rendered.ids()))]
        source = cut_crops(rendered, ids, SIZE, rng, options.crops, background, photos)
        if options.unseen:
            tasks.append(UnseenTask(background, source, target, test, objects, options.unseen, options.device))
        else:
            tasks.append(CropTask(background, source, target, test, objects, options.device, options.labelled))
    return tasks


def rendered_and_real(options: argparse.Namespace) -> tuple[BopDataset, BopDataset, dict[str, ObjectModel]]:
    """Return the rendered set, the photographs and the label map of both.

    :raises ValueError: without rendered frames, for frames of one half of the split only, or for two label maps
    """
    if not options.rendered:
        raise ValueError(f'benchmark {options.benchmark}: --rendered is missing, a folder of sim2real_da render')
    rendered, real = BopDataset(options.rendered, 'train'), BopDataset(options.data, 'test')
    objects = real.objects()
    if list(rendered.objects()) != list(objects):
        raise ValueError(f'{options.rendered}: shows {list(rendered.objects())}, {options.data} has {list(objects)}; '
                         'expected the same objects')
    if not all(lmo_split(real.ids())):
        raise ValueError(f'{options.data}: expected frames to adapt to (ids up to 611) and to score (above)')
    return rendered, real, objects
