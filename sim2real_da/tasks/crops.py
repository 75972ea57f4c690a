# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Crops of rendered objects, on black or on photographs, to crops of photographs: PixelDA's own case.

Class and rotation, for the direct pose network that the robot runs. Boxes are the true ones on both sides. The
adaptation frames of LineMOD-Occluded give the unlabelled crops, the others are scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.data.digits import photographs
from sim2real_da.networks.crop_sets import CropBatches, CropSet, cut_crops, score
from sim2real_da.networks.direct_pose import DirectPoseNetwork
from sim2real_da.networks.network_weights import load_network, save_network
from sim2real_da.networks.pose import PoseNetwork
from sim2real_da.offline import Adapted, adapt_crops
from sim2real_da.recipes import Recipe
from sim2real_da.samples import ObjectModel
from sim2real_da.tasks.base import Task

SIZE = 64
BACKGROUNDS = ('black', 'photographs')


class CropTask(Task):
    """Rendered crops of one background to crops of photographs.

    :param target: crops to adapt to, labelled for target_only alone
    :param test: scored at the end
    :param objects: the label map
    """

    kind = 'pose'
    metrics = ('accuracy', 'mean_angle_deg')

    def __init__(self, name: str, source: CropSet, target: CropSet, test: CropSet, objects: Mapping[str, ObjectModel],
                 device: str = 'cpu') -> None:
        super().__init__(name, f'crops_{name}_{len(source)}', f'crops_{name}')
        self.source, self.target, self.test, self.objects, self.device = source, target, test, objects, device

    def network(self, seed: int) -> PoseNetwork:
        """Return an untrained network of direct poses."""
        torch.manual_seed(seed)
        return DirectPoseNetwork(len(self.objects), crop_size=self.source.images.shape[1]).to(self.device)

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train; the target is a bare array, no objective can read a label of it."""
        source = CropBatches(self.source, self.objects, self.device)
        return adapt_crops(network, recipe, source, self.target.images, steps, seed)

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train on labelled target crops."""
        return adapt_crops(network, recipe, CropBatches(self.target, self.objects, self.device), None, steps, seed)

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
        tasks.append(CropTask(background, source, target, test, objects, options.device))
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
