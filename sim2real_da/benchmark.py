# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da benchmark``: adaptation measured in rows, over seeds, with everything needed to judge a number.

Rows: **source_only** is trained on the source; **source_continued** goes on from there for the same extra steps as a
technique and sees nothing of the target; a **technique** (the name of a recipe) starts where source_only ended;
**target_only** learns from labelled target training pictures, as many steps as the others together. Nobody but
target_only reads a label of the target before the test pictures are scored, once, at the end.

A benchmark is an entry of :data:`BENCHMARKS`; it returns its tasks (:mod:`sim2real_da.tasks`).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real_da.evaluation.provenance import provenance
from sim2real_da.networks.weights_file import write_atomically
from sim2real_da.offline import Adapted
from sim2real_da.recipes import load_recipe
from sim2real_da.tasks.base import Task
from sim2real_da.tasks.crops import crops
from sim2real_da.tasks.pictures import digits, signs
from sim2real_da.tasks.segmentation import segmentation

LOG = logging.getLogger(__name__)
CONTROL = 'source_continued'

BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[Task]]] = {
    'digits': digits, 'signs': signs, 'crops': crops, 'segmentation': segmentation}


def source_model(task: Task, seed: int, steps: int, work: Path) -> tuple[nn.Module, float]:
    """Return source_only and its seconds; from the work folder where it was trained before."""
    if task.trained:
        return task.network(seed), 0.0
    path = work / f'{task.source_name}_{steps}_{seed}.safetensors'
    if not path.is_file():
        made = task.pretrain(task.network(seed), load_recipe(CONTROL), steps, seed)
        task.save(path, made.network, 'source_only', created={'seed': seed, 'seconds': made.seconds})
    network, manifest = task.load(path)
    return network, float(manifest['created']['seconds'])


def row(task: Task, method: str, seed: int, options: argparse.Namespace) -> tuple[Adapted[nn.Module], dict[str, Any]]:
    """Make one row's network for one seed; return what was made and its entry in the result file."""
    if method == 'source_only':
        network, seconds = source_model(task, seed, options.source_steps, options.work)
        made = Adapted(network, [], seconds)
    elif method == 'target_only':
        made = task.supervise(task.network(seed), load_recipe(CONTROL), options.source_steps + options.steps, seed)
    else:
        start, _ = source_model(task, seed, options.source_steps, options.work)
        made = task.adapt(start, load_recipe(method), options.steps, seed)
    return made, {'seed': seed, **task.score(made.network), 'seconds': round(made.seconds, 1), 'course': made.course}


def summary(runs: list[dict[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """Return mean and standard deviation of every metric and of the seconds, and the runs."""
    return {**{key: {'mean': float(np.mean([r[key] for r in runs])), 'std': float(np.std([r[key] for r in runs]))}
               for key in (*metrics, 'seconds')}, 'runs': runs}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da benchmark``."""
    parser.add_argument('benchmark', choices=list(BENCHMARKS))
    parser.add_argument('--data', type=Path, required=True,
                        help='digits: folder with mnist.npz, usps.npz, bsds/*.jpg; signs: with signs/NN.png, real.npz; '
                        'crops, segmentation: LineMOD-Occluded as a BOP data set')
    parser.add_argument('--photos', type=Path,
                        help='signs, crops: photographs for backgrounds (default: DATA/../digits/bsds)')
    parser.add_argument('--rendered', type=Path, help='crops, segmentation: source, a folder of sim2real_da render')
    parser.add_argument('--crops', type=int, default=8000, help='crops: size of the source (default: 8000)')
    parser.add_argument('--start', type=Path,
                        help='segmentation: bundle whose detector is source_only (default: one is trained)')
    parser.add_argument('--method', nargs='+', required=True,
                        help='source_only, source_continued, target_only, or recipes')
    parser.add_argument('--task', nargs='+', help='only these (usps, mnistm; black, photographs)')
    parser.add_argument('--labelled', type=int, default=0,
                        help='digits, signs, crops: so many target samples show their labels to every row')
    parser.add_argument('--unseen', type=int, default=0,
                        help='crops: so many classes have no target samples, and are scored')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds (default: 3)')
    parser.add_argument('--steps', type=int, default=2000, help='of adaptation (default: 2000)')
    parser.add_argument('--source-steps', type=int, default=2000, help='of training on the source (default: 2000)')
    parser.add_argument('--work', type=Path, default=Path('runs/benchmark'), help='source models of these commands')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=1,
                        help='CPU threads (default: 1, as small networks gain nothing; 0: as torch chooses)')
    parser.add_argument('--json', type=Path, help='write the rows here, after each')
    parser.add_argument('--figures', type=Path, help='write what the figures of seed 0 show here, as JSON')
    parser.add_argument('--weights', type=Path, help='folder for the networks of seed 0, TASK_METHOD.safetensors')


def run(options: argparse.Namespace) -> None:
    """Measure and write the rows that the command line asks for.

    :raises ValueError: for an unknown recipe, task or file
    """
    if options.seeds < 1 or options.steps < 1 or options.source_steps < 1:
        raise ValueError('benchmark: --seeds, --steps and --source-steps are at least 1')
    if options.labelled and options.unseen:
        raise ValueError('benchmark: --labelled and --unseen: expected one of them')
    recipes = [load_recipe(m) for m in options.method if m not in ('source_only', 'target_only')]
    if options.threads:
        torch.set_num_threads(options.threads)
    tasks = BENCHMARKS[options.benchmark](options)
    for recipe in recipes:
        recipe.build(tasks[0].kind, (8,), offline=True)  # an error now, not in an hour
        recipe.check_length(tasks[0].kind, options.steps)
    if options.task and (unknown := set(options.task) - {t.name for t in tasks}):
        raise ValueError(f'--task {sorted(unknown)[0]}: expected some of {[t.name for t in tasks]}')
    found: dict[str, dict[str, Any]] = {}
    drawn: dict[str, dict[str, Any]] = {}
    result = {**provenance(), 'benchmark': options.benchmark, 'steps': options.steps,
              'source_steps': options.source_steps, 'tasks': found}
    for task in (t for t in tasks if not options.task or t.name in options.task):
        for method in options.method:
            runs = []
            for seed in range(options.seeds):
                made, entry = row(task, method, seed, options)
                runs.append(entry)
                LOG.info('%s %s seed %d: %s, %.0f s', task.key, method, seed,
                         ', '.join(f'{key} {entry[key]:.4f}' for key in task.metrics), entry['seconds'])
                if options.weights and seed == 0:
                    created = {'task': task.key, 'method': method, 'seed': 0, 'steps': options.steps,
                               'source_steps': options.source_steps, 'commit': result['commit']}
                    task.save(options.weights / f'{task.file_name}_{method}.safetensors', made.network, method,
                              f'benchmark {options.benchmark}, {task.source_name} to {task.key}', created, True)
                if options.figures and seed == 0 and method not in ('source_only', CONTROL, 'target_only'):
                    before, _ = source_model(task, seed, options.source_steps, options.work)
                    drawn.setdefault(task.key, {})[method] = task.figures(before, made)
                    _write(options.figures, {**result, 'tasks': drawn})
            found.setdefault(task.key, {})[method] = summary(runs, task.metrics)
            if options.json:
                _write(options.json, result)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + '\n').encode())
