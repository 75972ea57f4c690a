# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da evaluate``: score weights on frames with ground truth, frame by frame and without ROS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.metrics import evaluate
from sim2real_da.evaluation.report import METRICS
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.estimator import Estimator
from sim2real_da.resources import weights_file
from sim2real_da.samples import Detection, LabelledFrame, ObjectLabel, ObjectModel

SCORE_THRESHOLD = 0.05  # average precision needs the weak detections; recall and pose errors start at 0.3 themselves
WIDTH, HEIGHT = 640, 480  # of the surrogate camera, as the camera node has it
SCORING_SEED = 1_000_003  # the camera node's scoring frames for its seed 0; its adaptation frames have seed 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da evaluate``."""
    parser.add_argument('--weights', required=True, help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--data', required=True, help="BOP data set, or 'surrogate' for the built-in surrogate world")
    parser.add_argument('--split', default='test', help='split of the BOP data set (default: test)')
    parser.add_argument('--ids', type=Path, help='text file with the frame ids to score, separated by white space')
    parser.add_argument('--count', type=int, default=40, help='frames of the surrogate world (default: 40)')
    parser.add_argument('--seed', type=int, default=SCORING_SEED, help='of the surrogate world')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path, help='write all numbers here')


def run(options: argparse.Namespace) -> None:
    """Score as asked for on the command line, print the numbers and write them.

    :raises ValueError: for data without ground truth, ids that are not there, weights that cannot be used
    """
    path = Path(options.weights)
    bundle = Bundle.load(path if path.suffix else weights_file(options.weights))
    if options.data == 'surrogate':
        objects, frames = dict(bundle.objects), _surrogate(options.count, options.seed)
    else:
        dataset = BopDataset(Path(options.data), options.split)
        # An object that the weights do not know counts as missed, one that the data do not have as never there.
        objects, frames = {**bundle.objects, **dataset.objects()}, _recorded(dataset, options.ids)
    result = score(Estimator(bundle, options.device, SCORE_THRESHOLD), frames, objects)
    write = sys.stdout.write
    for metric in METRICS:
        write(f'{metric.title:22} {metric.text(result[metric.key])}\n')
    write(f'{"Instances":22} {result["instances"]} in {result["frames"]} frames\n')
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        about = {'weights': options.weights, 'version': bundle.version, 'data': options.data}
        options.json.write_text(json.dumps({**about, **result}, indent=2) + '\n', encoding='utf-8')


def score(estimator: Estimator, frames: Iterator[LabelledFrame], objects: dict[str, ObjectModel]) -> dict[str, Any]:
    """Return the metrics (:func:`sim2real_da.evaluation.metrics.evaluate`) of an estimator over labelled frames."""
    truth: list[tuple[ObjectLabel, ...]] = []
    found: list[list[Detection]] = []
    for labelled in frames:
        truth.append(labelled.labels)
        found.append(estimator.estimate(labelled.frame.image, labelled.frame.intrinsics))
    return evaluate(truth, found, objects)


def read_ids(path: Path) -> list[int]:
    """Read frame ids separated by white space.

    :raises ValueError: when the file is not there, is empty or holds anything else; the message names it
    """
    if not path.is_file():
        raise ValueError(f'{path}: no such file of frame ids')
    words = path.read_text(encoding='utf-8').split()
    wrong = [word for word in words if not word.isdigit()]
    if wrong or not words:
        raise ValueError(f'{path}: expected frame ids separated by white space, got {wrong[0]!r}' if wrong
                         else f'{path}: no frame ids in it')
    return [int(word) for word in words]


def _recorded(dataset: BopDataset, ids_file: Path | None) -> Iterator[LabelledFrame]:
    if not dataset.has_ground_truth:
        raise ValueError(f'{dataset.folder}: no ground truth (scene_gt.json), nothing to score against')
    known = dataset.ids()
    ids = read_ids(ids_file) if ids_file else known
    if missing := sorted(set(ids) - set(known)):
        raise ValueError(f'{ids_file}: frame {missing[0]} is not in {dataset.folder}')
    return (dataset.frame(number) for number in ids)


def _surrogate(count: int, seed: int) -> Iterator[LabelledFrame]:
    from sim2real_da.simulation.render import default_intrinsics
    from sim2real_da.simulation.surrogate import SurrogateWorld

    world = SurrogateWorld(default_intrinsics('tools', WIDTH, HEIGHT), seed)
    try:
        for _ in range(count):
            yield world.sample()
    finally:
        world.close()
