# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What each technique costs: a training step of every recipe over a bare forward and backward of the same network.

``python benchmarks/objectives.py --weights tools --data RENDERED --json benchmarks/results/objectives_cpu.json``

*Bare* is one forward pass over the same pictures (of both domains, put together) in training mode, the task loss on the
labelled ones, and backward; recipes that look at no target are held against a pass over the source alone. Two times of
each recipe: ``gradients`` (joint pass with all losses, and backward: what a technique adds to the same work) and
``step`` (that, plus clipping, optimisers, players that take turns, the averaged teacher, bookkeeping). The control
``source_continued`` shows what of ``step`` is of no technique.

Every lap of a recipe has a bare lap right before it, recipes take turns, and a ratio is the median over laps of one
over the other, so that all share what else the machine does. Pseudo-labels of frames are given: what the teacher needs
to make them is not in the time, except where a network's own pass makes them.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import provenance
from speed import candidates
from torch import nn

from sim2real_da.adaptation import Adaptation
from sim2real_da.networks.batches import PoseBatcher, detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.objectives import Batch
from sim2real_da.online.learner import WINDOW
from sim2real_da.recipes import Recipe, load_recipe
from sim2real_da.resources import config_folder, weights_path
from sim2real_da.samples import LabelledFrame

log = logging.getLogger('objectives')
PICTURES, CROPS, FRAMES = 64, 16, 4  # of a batch and domain, as recipes have them
STEPS = 2000  # length of the pretended run
LATE = 1500  # its step at which recipes are timed: ramps have risen, every loss is at work


@dataclass(frozen=True)
class Case:
    """A network with a batch of both domains; the target's labels are those a teacher could have given."""

    network: nn.Module
    source: Batch
    target: Batch


def cases(bundle: Bundle, frames: Sequence[LabelledFrame], device: str, pictures: int = PICTURES, crops: int = CROPS,
          windows: int = FRAMES) -> dict[str, Case]:
    """Return a classifier, and the bundle's pose network and detector, with batches of the recipes' sizes.

    :param frames: labelled simulated frames, the first half stands for the source
    """
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    digits = [Batch(torch.rand(pictures, 3, 28, 28, generator=generator).to(device),
                    ClassTargets(torch.randint(10, (pictures,), generator=generator).to(device))) for _ in range(2)]
    batcher, half = PoseBatcher(bundle.objects, bundle.pose, device=device), len(frames) // 2
    cut = [batcher.batch(part, rng, crops) for part in (frames[:half], frames[half:])]
    seen = [Batch(*detector_batch(part[:windows], bundle.classes, bundle.detector.input_size, rng, WINDOW, device))
            for part in (frames[:half], frames[half:])]
    if cut[0] is None or cut[1] is None:
        raise SystemExit('objectives: the frames show no object; give others with --data')
    return {'classifier': Case(Classifier(10).to(device), *(_masked(b) for b in digits)),
            'pose': Case(bundle.pose.to(device), *(_masked(Batch(*c)) for c in cut if c is not None)),
            'detector': Case(bundle.detector.to(device), *(_masked(b) for b in seen))}


def _masked(batch: Batch) -> Batch:
    """Return the batch with a square in the middle as mask; what is hidden makes no difference to the time."""
    count, _, height, width = batch.images.shape
    masks = torch.zeros(count, 1, height, width, device=batch.images.device)
    masks[:, :, height // 4:-(height // 4), width // 4:-(width // 4)] = 1
    return replace(batch, masks=masks)


def bare(network: nn.Module, case: Case, with_target: bool) -> Callable[[], None]:
    """Return a forward and backward pass without any objective."""
    pictures = [case.source.images, case.target.images] if with_target else [case.source.images]
    count, targets = len(case.source.images), case.source.targets
    assert targets is not None, 'the source has labels'
    network.train()

    def run() -> None:
        network.zero_grad(set_to_none=True)
        losses = network(torch.cat(pictures)).rows(0, count).loss(targets)
        torch.stack(list(losses.values())).sum().backward()

    return run


class Timed:
    """A recipe on a network, its two times and the bare pass's.

    :raises Exception: whatever the recipe's first step raises
    """

    def __init__(self, recipe: Recipe, kind: str, case: Case) -> None:
        torch.manual_seed(0)
        self.case, self.device = case, case.source.images.device
        self.run = Adaptation(copy.deepcopy(case.network), kind, recipe, steps=STEPS)
        self.target = case.target if self.run.needs_target else None
        self.bare = bare(copy.deepcopy(case.network), case, self.run.needs_target)
        self.laps: dict[str, list[float]] = defaultdict(list)
        self.run.step(case.source, self.target)  # the first is slower, and a broken recipe shows here
        self.run.step_count = LATE
        self.bare()

    def lap(self) -> None:
        """Time the bare pass and, right after it, one step."""
        now = self._now()
        self.bare()
        then, now = now, self._now()
        self.laps['bare'].append(now - then)
        total = self.run.gradients(self.run.losses(self.case.source, self.target))
        then, now = now, self._now()
        self.laps['gradients'].append(now - then)
        if self.run.clip(total):
            self.run.apply()
        self.laps['step'].append(self._now() - then)

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter()

    def result(self) -> dict[str, Any]:
        """Return medians in milliseconds, and ratios to the bare pass."""
        laps = {name: np.array(seconds) for name, seconds in self.laps.items()}
        return {'target': self.run.needs_target, **{f'{k}_ms': round(1e3 * float(np.median(v)), 3)
                                                    for k, v in laps.items()},
                **{f'{k}_ratio': round(float(np.median(laps[k] / laps['bare'])), 3) for k in ('gradients', 'step')},
                'laps': len(laps['bare'])}


def measure(case_of: dict[str, Case], recipes: Sequence[Recipe], repetitions: int) -> dict[str, dict[str, Any]]:
    """Return for each network the times of each recipe that trains it; what cannot be run is named."""
    result: dict[str, dict[str, Any]] = {}
    for kind, case in case_of.items():
        timed: dict[str, Timed] = {}
        result[kind] = {}
        for recipe in recipes:
            if kind not in recipe.objectives:
                continue
            try:
                timed[recipe.name] = Timed(recipe, kind, case)
            except Exception as error:  # one recipe that cannot be run is no reason to lose the others
                result[kind][recipe.name] = {'failed': f'{type(error).__name__}: {error}'.splitlines()[0]}
                log.exception('%s on the %s', recipe.name, kind)
        names = list(timed)
        for lap in range(repetitions if names else 0):
            for name in names[lap % len(names):] + names[:lap % len(names)]:
                timed[name].lap()
        for name in names:
            result[kind][name] = timed[name].result()
            log.info('%s on the %s: %s', name, kind, result[kind][name])
    return result


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', default='tools', help='file, or name of shipped ones, with detector and pose')
    parser.add_argument('--data', type=Path, help='set written by sim2real_da render; without: rendered here')
    parser.add_argument('--recipes', nargs='+', help='default: all of config/recipes')
    parser.add_argument('--repetitions', type=int, default=40, help='laps of each recipe')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    names = options.recipes or sorted(p.stem for p in (config_folder() / 'recipes').glob('*.yaml'))
    path = weights_path(options.weights)
    about = {**provenance(), 'cores': os.cpu_count(), 'device': options.device, 'load_before': os.getloadavg()[0]}
    made = cases(Bundle.load(path), candidates(options.data)[:4 * FRAMES], options.device)
    result = {**about, 'networks': measure(made, [load_recipe(n) for n in names], options.repetitions)}
    result['load_after'] = os.getloadavg()[0]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
