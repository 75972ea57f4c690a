# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da benchmark``: adaptation measured in rows, over seeds, with everything needed to judge a number.

Rows: **source_only** is trained on the source; **source_continued** goes on from there for the same extra steps as a
technique and sees nothing of the target; a **technique** (the name of a recipe) starts where source_only ended;
**target_only** learns from labelled target training pictures, as many steps as the others together. Nobody but
target_only reads a label of the target before the test pictures are scored, once, at the end.

A benchmark is an entry of :data:`BENCHMARKS`; it returns its tasks.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim2real_da.data.digits import load_digits, photographs
from sim2real_da.data.pictures import Pictures
from sim2real_da.data.signs import real_signs, synthetic_signs, templates
from sim2real_da.evaluation.classification import accuracy
from sim2real_da.evaluation.provenance import provenance
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.classifier_weights import load_classifier, save_classifier
from sim2real_da.networks.weights_file import write_atomically
from sim2real_da.offline import adapt
from sim2real_da.recipes import load_recipe

LOG = logging.getLogger(__name__)
CONTROL = 'source_continued'
SIGN_COUNT, SIGN_SIZE = 20000, 32
METRICS = ('accuracy', 'accuracy_all', 'seconds')


@dataclass(frozen=True)
class Task:
    """One source and one target.

    :param name: of the target, in file names and tables
    :param source_name: tasks of one source share their source_only models
    :param target: training split, labelled for target_only alone
    :param test: scored at the end
    :param network: keyword arguments of the classifier
    """

    name: str
    source_name: str
    source: Pictures
    target: Pictures
    test: Pictures
    network: dict[str, Any] = field(default_factory=dict)

    def classifier(self, seed: int) -> Classifier:
        """Return an untrained network."""
        torch.manual_seed(seed)
        return Classifier(len(self.source.names), names=self.source.names, **self.network)


def digits(options: argparse.Namespace) -> list[Task]:
    """Return MNIST -> USPS and MNIST -> MNIST-M."""
    source, network = load_digits(options.data, 'mnist', 'train'), {'size': 28, 'channels': (16, 32)}
    return [Task(name, 'mnist', source, load_digits(options.data, name, 'train'),
                 load_digits(options.data, name, 'test'), network) for name in ('usps', 'mnistm')]


def signs(options: argparse.Namespace) -> list[Task]:
    """Return synthetic signs -> GTSRB; target_only learns from the classes that have a template."""
    photos = photographs(options.photos or options.data.parent / 'digits' / 'bsds', 'train')
    source = synthetic_signs(templates(options.data), photos, SIGN_COUNT).resized(SIGN_SIZE)
    real = {split: real_signs(options.data, split).resized(SIGN_SIZE) for split in ('train', 'test')}
    return [Task('gtsrb', 'signs', source, real['train'], real['test'],
                 {'size': SIGN_SIZE, 'channels': (16, 32, 64)})]


BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[Task]]] = {'digits': digits, 'signs': signs}


def source_model(task: Task, seed: int, steps: int, work: Path, device: str) -> tuple[Classifier, float]:
    """Return source_only and its seconds; from the work folder where it was trained before."""
    path = work / f'{task.source_name}_{steps}_{seed}.safetensors'
    if not path.is_file():
        made = adapt(task.classifier(seed).to(device), load_recipe(CONTROL), task.source, None, steps, seed)
        save_classifier(path, made.network, 'source_only', created={'seed': seed, 'seconds': made.seconds})
    network, manifest = load_classifier(path, device)
    return network, float(manifest['created']['seconds'])


def row(task: Task, method: str, seed: int, options: argparse.Namespace) -> tuple[Classifier, dict[str, Any]]:
    """Make one row's network for one seed; return it and its entry in the result file."""
    course: list[dict[str, float]] = []
    if method == 'source_only':
        network, seconds = source_model(task, seed, options.source_steps, options.work, options.device)
    else:
        if method == 'target_only':
            start, source, steps = task.classifier(seed).to(options.device), _known(task), \
                options.source_steps + options.steps
        else:
            start, _ = source_model(task, seed, options.source_steps, options.work, options.device)
            source, steps = task.source, options.steps
        recipe = load_recipe(CONTROL if method == 'target_only' else method)
        # a bare array: no objective can read a label of the target
        made = adapt(start, recipe, source, task.target.images if method != 'target_only' else None, steps, seed)
        network, seconds, course = made.network, made.seconds, made.course
    entry = {'seed': seed, **accuracy(network, task.test), 'seconds': round(seconds, 1), 'course': course}
    return network, entry


def _known(task: Task) -> Pictures:
    """Return the labelled target pictures of the source's classes, by the source's class numbers."""
    assert task.target.labels is not None
    number = np.array([task.source.names.index(n) if n in task.source.names else -1 for n in task.target.names])
    labels = number[task.target.labels]
    return Pictures(task.target.images[labels >= 0], labels[labels >= 0], task.source.names)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of every metric, and the runs."""
    return {**{key: {'mean': float(np.mean([r[key] for r in runs])), 'std': float(np.std([r[key] for r in runs]))}
               for key in METRICS}, 'runs': runs}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da benchmark``."""
    parser.add_argument('benchmark', choices=list(BENCHMARKS))
    parser.add_argument('--data', type=Path, required=True,
                        help='digits: folder with mnist.npz, usps.npz, bsds/*.jpg; signs: with signs/NN.png, real.npz')
    parser.add_argument('--photos', type=Path, help='signs: photographs for backgrounds (default: DATA/../digits/bsds)')
    parser.add_argument('--method', nargs='+', required=True,
                        help='source_only, source_continued, target_only, or recipes')
    parser.add_argument('--task', nargs='+', help='only these targets (usps, mnistm)')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds (default: 3)')
    parser.add_argument('--steps', type=int, default=2000, help='of adaptation (default: 2000)')
    parser.add_argument('--source-steps', type=int, default=2000, help='of training on the source (default: 2000)')
    parser.add_argument('--work', type=Path, default=Path('runs/benchmark'), help='source models of these commands')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1, small networks gain nothing)')
    parser.add_argument('--json', type=Path, help='write the rows here, after each')
    parser.add_argument('--weights', type=Path, help='folder for the networks of seed 0, TASK_METHOD.safetensors')


def run(options: argparse.Namespace) -> None:
    """Measure and write the rows that the command line asks for.

    :raises ValueError: for an unknown recipe, task or file
    """
    if options.seeds < 1 or options.steps < 1 or options.source_steps < 1:
        raise ValueError('benchmark: --seeds, --steps and --source-steps are at least 1')
    for method in options.method:
        if method not in ('source_only', 'target_only'):
            load_recipe(method).build('classifier', (8,))  # an error now, not in an hour
    torch.set_num_threads(options.threads)
    tasks = BENCHMARKS[options.benchmark](options)
    if options.task and (unknown := set(options.task) - {t.name for t in tasks}):
        raise ValueError(f'--task {sorted(unknown)[0]}: expected some of {[t.name for t in tasks]}')
    found: dict[str, dict[str, Any]] = {}
    result = {**provenance(), 'benchmark': options.benchmark, 'steps': options.steps,
              'source_steps': options.source_steps, 'tasks': found}
    for task in (t for t in tasks if not options.task or t.name in options.task):
        for method in options.method:
            runs = []
            for seed in range(options.seeds):
                network, entry = row(task, method, seed, options)
                runs.append(entry)
                LOG.info('%s %s seed %d: accuracy %.4f, %.0f s', task.name, method, seed, entry['accuracy'],
                         entry['seconds'])
                if options.weights and seed == 0:
                    created = {'task': task.name, 'method': method, 'seed': 0, 'steps': options.steps,
                               'source_steps': options.source_steps, 'commit': result['commit']}
                    save_classifier(options.weights / f'{task.name}_{method}.safetensors', network, method,
                                    f'benchmark {options.benchmark}, {task.source_name} to {task.name}', created, True)
            found.setdefault(task.name, {})[method] = summary(runs)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(options.json, (json.dumps(result, indent=1) + '\n').encode())
