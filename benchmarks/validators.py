# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which score without target labels picks good weights? Every validator against the truth, over many checkpoints.

``python benchmarks/validators.py classifier --benchmark digits --task usps --data DIGITS --json FILE``
``python benchmarks/validators.py surrogate --weights tools --simulation RENDERED --json FILE``

Checkpoints are snapshots of the averaged teacher along runs of several recipes and seeds, and the source model itself.
Each is scored by every validator on held-out source and unlabelled target samples, and by its labels on *other* target
samples; these labels decide nothing but the last column. For each validator: Spearman's rank correlation with the truth
over all checkpoints (0 where it says the same of all), and the regret of taking the checkpoint that it likes best
(truth of the best less truth of that one; the mean over those it likes equally).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import provenance
from rank_correlation import spearman
from torch import Tensor, nn

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.evidence import bundle_evidence, classifier_evidence, detector_score, find, pose_score
from sim2real_da.evaluation.validators import scores, source_validation
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import ClassTargets, to_images
from sim2real_da.objectives import Batch
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import Recipe, load_recipe
from sim2real_da.resources import weights_path
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame
from sim2real_da.tasks.pictures import digits, signs

log = logging.getLogger('validators')
HELD_OUT = 1000  # labelled source pictures that a classifier never trains on
MOST = 20000  # pictures of a domain that it trains on
ASKED = 2000  # unlabelled target pictures that validators look at
BENCHMARKS = {'digits': digits, 'signs': signs}
CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)


@dataclass(frozen=True)
class Checkpoint:
    """What is known of one set of weights.

    :param truth: its score on labelled target samples, higher = better
    :param scores: what each validator says of it
    """

    name: str
    truth: float
    scores: dict[str, float]


def regret(truth: Sequence[float], said: Sequence[float]) -> float:
    """Return how much worse than the best is what the validator likes best, on average over ties."""
    best = np.asarray(said) == np.max(said)
    return float(np.max(truth) - np.mean(np.asarray(truth)[best]))


def compare(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return correlation and regret of every validator that scored all checkpoints.

    :raises ValueError: for fewer than three checkpoints, which have no order to speak of
    """
    if len(checkpoints) < 3:
        raise ValueError(f'validators: {len(checkpoints)} checkpoints, need at least three')
    truth = [c.truth for c in checkpoints]
    names = [n for n in checkpoints[0].scores if all(n in c.scores for c in checkpoints)]
    rows = {}
    for name in names:
        said = [c.scores[name] for c in checkpoints]
        rows[name] = {'spearman': spearman(said, truth), 'regret': regret(truth, said)}
    return {'checkpoints': len(checkpoints), 'truth': {'best': max(truth), 'mean': float(np.mean(truth)),
                                                       'worst': min(truth)}, 'validators': rows}


# --- classifiers ----------------------------------------

@dataclass(frozen=True)
class Pictures:
    """Pictures ``(N, 3, H, W)`` in [0, 1] and classes ``(N,)``; None where labels are not to be seen."""

    images: Tensor
    labels: Tensor | None = None


def classifier_checkpoints(networks: Mapping[str, nn.Module], held_out: Pictures, target: Pictures, scored: Pictures,
                           source_model: nn.Module) -> list[Checkpoint]:
    """Score classifiers of the same classes.

    :param held_out: labelled source pictures that no step saw
    :param target: unlabelled target pictures
    :param scored: labelled target pictures apart from these, for the truth alone
    :param source_model: what they are compared with by ``teacher_agreement``
    """
    assert held_out.labels is not None and scored.labels is not None, 'held-out source and scored target have labels'
    found = []
    for name, network in networks.items():
        asked = classifier_evidence(network, held_out.images, held_out.labels, target.images, source_model)
        # the accuracy of "source" rows, which are the labelled ones
        truth = source_validation(classifier_evidence(network, scored.images, scored.labels, target.images[:1]))
        found.append(Checkpoint(name, truth, scores(asked)))
        log.info('%s: accuracy %.3f', name, truth)
    return found


def classifier_runs(make: Callable[[int], nn.Module], recipes: Sequence[Recipe], seeds: int, source: Pictures,
                    target: Pictures, steps: int, every: int) -> dict[str, nn.Module]:
    """Return snapshots of classifiers trained from nothing by each recipe.

    :param make: returns an untrained one for a seed
    """
    assert source.labels is not None, 'the source has labels'
    found: dict[str, nn.Module] = {}
    for recipe in recipes:
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            run = Adaptation(make(seed), 'classifier', recipe, steps=steps)
            for step in range(1, steps + 1):
                rows = rng.integers(len(source.images), size=recipe.offline.batch)
                seen = rng.integers(len(target.images), size=recipe.offline.batch)
                run.step(Batch(source.images[rows], ClassTargets(source.labels[rows])),
                         Batch(target.images[seen]) if run.needs_target else None)
                if step % every == 0:
                    result = run.teacher if recipe.offline.averaged else run.network
                    found[f'{recipe.name}/{seed}/{step}'] = copy.deepcopy(result).eval()
            log.info('%s, seed %d: trained', recipe.name, seed)
    return found


def classifiers(options: argparse.Namespace) -> dict[str, list[Checkpoint]]:
    """Train, score and return the checkpoints of one task of the benchmarks digits and signs.

    :raises ValueError: for a task that the benchmark does not have
    """
    known = {t.name: t for t in BENCHMARKS[options.benchmark](options)}
    if options.task not in known:
        raise ValueError(f'validators: no task {options.task}, {options.benchmark} has {list(known)}')
    task = known[options.task]
    numbers = task.numbers(task.test)
    scored = pictures(task.test.images[numbers >= 0], numbers[numbers >= 0])
    # every class is everywhere in the source, which may be sorted
    order = np.random.default_rng(0).permutation(len(task.source))[:MOST + HELD_OUT]
    assert task.source.labels is not None
    held_out, source = (pictures(task.source.images[part], task.source.labels[part])
                        for part in (order[:HELD_OUT], order[HELD_OUT:]))
    chosen = np.random.default_rng(1).permutation(len(task.target))[:MOST]
    target = pictures(task.target.images[chosen])
    recipes = [load_recipe(name) for name in options.recipes]
    if lacking := [r.name for r in recipes if 'classifier' not in r.objectives]:
        raise ValueError(f'validators: {", ".join(lacking)}: recipes without a classifier')
    networks = classifier_runs(task.network, recipes, options.seeds, source, target, options.steps, options.every)
    # the end of the first recipe's first run: source alone, unless another recipe is asked for
    reference = [n for name, n in networks.items() if name.startswith(f'{recipes[0].name}/0/')][-1]
    asked = Pictures(target.images[:ASKED])
    return {options.task: classifier_checkpoints(networks, held_out, asked, scored, reference)}


def pictures(images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> Pictures:
    """Return uint8 ``(N, H, W, 3)`` as tensors."""
    return Pictures(to_images(images), None if labels is None else torch.from_numpy(labels))


# --- detectors and pose networks ----------------------------------------

def bundle_checkpoints(bundles: Mapping[str, Bundle], held_out: Sequence[LabelledFrame], target: Sequence[Frame],
                       scored: Sequence[LabelledFrame], source_model: Bundle) -> dict[str, list[Checkpoint]]:
    """Score bundles of the same objects, all asked at the same places of the target frames.

    :param held_out: simulation that no step saw
    :param scored: labelled target frames apart from ``target``, for the truth alone
    :param source_model: what they are compared with by ``teacher_agreement``
    """
    places = find([source_model, *bundles.values()], target)
    found: dict[str, list[Checkpoint]] = {'detector': [], 'pose': []}
    for name, bundle in bundles.items():
        asked = bundle_evidence(bundle, held_out, target, places, source_model)
        truth = {'detector': detector_score(bundle, scored), 'pose': pose_score(bundle, scored)}
        for part, evidence in asked.items():
            found[part].append(Checkpoint(name, truth[part], scores(evidence)))
        log.info('%s: AP50 %.3f, pose score %.3f', name, truth['detector'], truth['pose'])
    return found


def bundle_runs(bundle: Bundle, recipes: Sequence[Recipe], seeds: int, source: Sequence[LabelledFrame],
                target: Sequence[Frame], steps: int, every: int) -> dict[str, Bundle]:
    """Return snapshots of the averaged teacher along online runs, without a gate: bad ones belong to the study."""
    found = {'source': bundle}
    for recipe in recipes:
        for seed in range(seeds):
            learner, rng = Learner(bundle, recipe, seed=seed), np.random.default_rng(seed)
            for step in range(1, steps + 1):
                simulated = [source[i] for i in rng.integers(len(source), size=recipe.source_frames)]
                real = [target[i] for i in rng.integers(len(target), size=recipe.target_frames)]
                learner.step(simulated, real)
                if step % every == 0:
                    found[f'{recipe.name}/{seed}/{step}'] = learner.candidate()
            log.info('%s, seed %d: trained', recipe.name, seed)
    return found


def surrogate(options: argparse.Namespace) -> dict[str, list[Checkpoint]]:
    """Adapt, score and return the checkpoints of detector and pose network in the surrogate world."""
    from sim2real_da.simulation.surrogate import SurrogateWorld

    given = {Path(name).stem: Bundle.load(weights_path(name)) for name in options.weights}
    source_model = next(iter(given.values()))
    dataset = BopDataset(options.simulation, 'train')
    simulated = [dataset.frame(i) for i in dataset.ids()[:options.frames * 4]]
    held_out, source = simulated[:options.frames], simulated[options.frames:]
    worlds = [SurrogateWorld(CAMERA, seed) for seed in options.worlds]
    stream, scored = ([world.sample() for _ in range(options.frames)] for world in worlds)
    for world in worlds:
        world.close()
    target = [f.frame for f in stream]
    made = bundle_runs(source_model, [load_recipe(r) for r in options.recipes], options.seeds, source, target,
                       options.steps, options.every)
    return bundle_checkpoints({**made, **dict(list(given.items())[1:])}, held_out, target, scored, source_model)


def main() -> None:
    """Run the study and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest='kind', required=True)
    on_pictures = kinds.add_parser('classifier', help='digits and signs')
    on_pictures.add_argument('--benchmark', choices=list(BENCHMARKS), required=True)
    on_pictures.add_argument('--task', required=True, help='usps, mnistm, gtsrb; labels of its test split are for the '
                             'truth')
    on_pictures.add_argument('--data', type=Path, required=True, help='as for sim2real_da benchmark')
    on_pictures.add_argument('--photos', type=Path, help='signs: photographs for backgrounds')
    on_pictures.set_defaults(device='cpu', labelled=0)
    on_frames = kinds.add_parser('surrogate', help='detector and pose network in the surrogate world')
    on_frames.add_argument('--weights', nargs='+', default=['tools'], help='the first is where runs start')
    on_frames.add_argument('--simulation', type=Path, required=True, help='set written by sim2real_da render')
    on_frames.add_argument('--frames', type=int, default=60, help='held out, of the stream, and scored: each')
    on_frames.add_argument('--worlds', type=int, nargs=2, default=[101, 102], help='seeds of stream and scored frames')
    for sub, recipes, steps, every in ((on_pictures, ['source_continued', 'dann', 'mmd', 'minent'], 1000, 100),
                                       (on_frames, ['source_continued', 'dann', 'self_training'], 150, 25)):
        sub.add_argument('--recipes', nargs='+', default=recipes)
        sub.add_argument('--seeds', type=int, default=3)
        sub.add_argument('--steps', type=int, default=steps)
        sub.add_argument('--every', type=int, default=every, help='steps between two checkpoints')
        sub.add_argument('--threads', type=int, default=1)
        sub.add_argument('--json', type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    found = classifiers(options) if options.kind == 'classifier' else surrogate(options)
    result = {**provenance(), 'sets': {
        name: {**compare(checkpoints), 'all': [vars(c) for c in checkpoints]} for name, checkpoints in found.items()}}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
