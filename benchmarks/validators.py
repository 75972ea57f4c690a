# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which score without target labels picks good weights? Every validator against the truth, over many checkpoints.

``python benchmarks/validators.py classifier --name digits --source mnist.npz --target usps.npz --json FILE``
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import provenance
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.evidence import bundle_evidence, classifier_evidence, detector_score, find, pose_score
from sim2real_da.evaluation.validators import scores, source_validation
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier, ClassTargets, to_images
from sim2real_da.objectives import Batch
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import Recipe, load_recipe
from sim2real_da.resources import weights_file
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame

log = logging.getLogger('validators')
HELD_OUT = 1000  # labelled source pictures that a classifier never trains on
ASKED = 2000  # unlabelled target pictures that validators look at
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


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of the ranks, equal values sharing their mean rank; 0 when either says nothing."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


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


def classifier_runs(recipes: Sequence[Recipe], seeds: int, source: Pictures, target: Pictures, classes: int, size: int,
                    steps: int, every: int) -> dict[str, nn.Module]:
    """Return snapshots of classifiers trained from nothing by each recipe."""
    assert source.labels is not None, 'the source has labels'
    found: dict[str, nn.Module] = {}
    for recipe in recipes:
        for seed in range(seeds):
            torch.manual_seed(seed)
            rng = np.random.default_rng(seed)
            run = Adaptation(Classifier(classes, size), 'classifier', recipe, steps=steps)
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


def pictures(path: Path, split: str, size: int, limit: int | None = None) -> Pictures:
    """Read ``images`` and ``labels`` of an .npz file, or its ``<split>_images`` and ``<split>_labels``.

    :param size: side in pixels that they are brought to
    :raises ValueError: when it has neither
    """
    with np.load(path) as arrays:
        prefix = f'{split}_' if f'{split}_images' in arrays else ''
        if f'{prefix}images' not in arrays or f'{prefix}labels' not in arrays:
            raise ValueError(f'{path}: arrays {sorted(arrays)}, expected images and labels, or {split}_images and '
                             f'{split}_labels')
        images = to_images(arrays[f'{prefix}images'][:limit])
        return Pictures(F.interpolate(images, (size, size), mode='bilinear', antialias=True),
                        torch.from_numpy(arrays[f'{prefix}labels'][:limit]).long())


def classifiers(options: argparse.Namespace) -> dict[str, list[Checkpoint]]:
    """Train, score and return the checkpoints of one pair of data sets."""
    labelled, real, scored = (pictures(path, split, options.size, options.limit) for path, split in (
        (options.source, 'train'), (options.target, 'train'), (options.target, 'test')))
    assert labelled.labels is not None
    count = min(HELD_OUT, len(labelled.images) // 5)
    order = torch.randperm(len(labelled.images), generator=torch.Generator().manual_seed(0))
    held_out = Pictures(labelled.images[order[:count]], labelled.labels[order[:count]])
    source = Pictures(labelled.images[order[count:]], labelled.labels[order[count:]])
    recipes = [load_recipe(name) for name in options.recipes]
    if lacking := [r.name for r in recipes if 'classifier' not in r.objectives]:
        raise SystemExit(f'validators: {", ".join(lacking)}: recipes without a classifier')
    networks = classifier_runs(recipes, options.seeds, source, Pictures(real.images), int(labelled.labels.max()) + 1,
                               options.size, options.steps, options.every)
    # the end of the first recipe's first run: source alone, unless another recipe is asked for
    reference = [n for name, n in networks.items() if name.startswith(f'{recipes[0].name}/0/')][-1]
    return {options.name: classifier_checkpoints(
        networks, held_out, Pictures(real.images[:ASKED]), scored, reference)}


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

    given = {Path(name).stem: Bundle.load(Path(name) if Path(name).suffix else weights_file(name))
             for name in options.weights}
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
    on_pictures = kinds.add_parser('classifier', help='two .npz files of pictures and labels')
    on_pictures.add_argument('--name', required=True, help='of the pair of data sets, for the table')
    on_pictures.add_argument('--source', type=Path, required=True)
    on_pictures.add_argument('--target', type=Path, required=True, help='labels of its test split are for the truth')
    on_pictures.add_argument('--size', type=int, default=28, help='side of the pictures')
    on_pictures.add_argument('--limit', type=int, help='use the first so many pictures of each split')
    on_frames = kinds.add_parser('surrogate', help='detector and pose network in the surrogate world')
    on_frames.add_argument('--weights', nargs='+', default=['tools'], help='the first is where runs start')
    on_frames.add_argument('--simulation', type=Path, required=True, help='set written by sim2real_da render')
    on_frames.add_argument('--frames', type=int, default=60, help='held out, of the stream, and scored: each')
    on_frames.add_argument('--worlds', type=int, nargs=2, default=[101, 102], help='seeds of stream and scored frames')
    for sub, recipes, steps, every in ((on_pictures, ['source_continued', 'dann'], 2000, 200),
                                       (on_frames, ['source_continued', 'dann', 'self_training'], 150, 25)):
        sub.add_argument('--recipes', nargs='+', default=recipes)
        sub.add_argument('--seeds', type=int, default=3)
        sub.add_argument('--steps', type=int, default=steps)
        sub.add_argument('--every', type=int, default=every, help='steps between two checkpoints')
        sub.add_argument('--json', type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    found = classifiers(options) if options.kind == 'classifier' else surrogate(options)
    result = {**provenance(), 'sets': {
        name: {**compare(checkpoints), 'all': [vars(c) for c in checkpoints]} for name, checkpoints in found.items()}}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
