# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da evaluate``: score weights on frames with ground truth, frame by frame and without ROS."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim2real_da.data.bop import BopDataset
from sim2real_da.data.pictures import Pictures, load
from sim2real_da.evaluation.bop_csv import write_csv
from sim2real_da.evaluation.classification import accuracy
from sim2real_da.evaluation.metrics import evaluate
from sim2real_da.evaluation.provenance import provenance
from sim2real_da.evaluation.report import METRICS, Metric
from sim2real_da.evaluation.segmentation import score_segmentation
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.classifier_weights import load_classifier
from sim2real_da.networks.crop_sets import cut_crops
from sim2real_da.networks.crop_sets import score as score_crops
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.estimator import Estimator
from sim2real_da.networks.network_weights import load_network
from sim2real_da.networks.pose import PoseNetwork
from sim2real_da.networks.weights_file import kind_of, manifest_of
from sim2real_da.resources import weights_path
from sim2real_da.samples import Detection, Intrinsics, LabelledFrame, ObjectLabel, ObjectModel

LOG = logging.getLogger(__name__)
SCORE_THRESHOLD = 0.05  # average precision needs the weak detections; recall and pose errors start at 0.3 themselves
WIDTH, HEIGHT = 640, 480  # of the surrogate camera, as the camera node has it
SCORING_SEED = 1_000_003  # the camera node's scoring frames for its seed 0; its adaptation frames have seed 0
SHOWN = (
    *METRICS,
    Metric('mssd_ar', 'BOP AR, MSSD', '', 3, True, 'share of instances found, mean over 0.05 to 0.50 diameters'),
    Metric('mspd_ar', 'BOP AR, MSPD', '', 3, True, 'the same, mean over 5 to 50 pixels of a picture 640 wide'),
)


@dataclass(frozen=True)
class Answer:
    """What was found in a frame, and its ground truth.

    :param frame_id: of the data set
    :param seconds: time of the estimation
    """

    frame_id: int
    camera: Intrinsics
    labels: tuple[ObjectLabel, ...]
    detections: list[Detection]
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da evaluate``."""
    parser.add_argument('--weights', required=True, help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--data', required=True,
                        help="BOP data set, or 'surrogate' for the built-in surrogate world; for a classifier an .npz "
                        'file with the arrays images and labels (crops for the classes of a pose network, too), or a '
                        'folder of class sub-folders')
    parser.add_argument('--split', default='test', help='split of the BOP data set (default: test)')
    parser.add_argument('--ids', type=Path, help='text file with the frame ids to score, separated by white space')
    parser.add_argument('--count', type=int, default=40, help='frames of the surrogate world (default: 40)')
    parser.add_argument('--seed', type=int, default=SCORING_SEED, help='of the surrogate world')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path, help='write all numbers here')
    parser.add_argument('--csv', type=Path, help='write the poses here, as a results file of the BOP challenge')


def run(options: argparse.Namespace) -> None:
    """Score as asked for on the command line, print the numbers and write them.

    :raises ValueError: for data without ground truth, ids that are not there, weights that cannot be used
    """
    path = weights_path(options.weights)
    kind = kind_of(manifest_of(path)) if path.is_file() else 'bundle'
    if kind == 'classifier':
        return _run_classifier(path, options)
    if kind in ('pose', 'detector'):
        return _run_network(path, kind, options)
    bundle = Bundle.load(path)
    dataset = None
    if options.data == 'surrogate':
        if options.csv:
            raise ValueError('--csv: the surrogate world has no BOP ids; name a BOP data set with --data')
        objects, frames = dict(bundle.objects), _surrogate(options.count, options.seed)
    else:
        dataset = BopDataset(Path(options.data), options.split)
        # An object that the weights do not know counts as missed, one that the data do not have as never there.
        objects, frames = {**bundle.objects, **dataset.objects()}, recorded(dataset, bundle, options.ids)
    answers = list(answer(Estimator(bundle, options.device, SCORE_THRESHOLD), frames))
    result = score(answers, objects)
    write = sys.stdout.write
    for metric in SHOWN:
        write(f'{metric.title:22} {metric.text(result[metric.key])}\n')
    write(f'{"Instances":22} {result["instances"]} in {result["frames"]} frames\n')
    if options.json:
        about = {'weights': options.weights, 'version': bundle.version, 'data': options.data}
        write_json(options.json, {**about, **result})
    if options.csv and dataset:
        write_csv(options.csv, dataset, ((a.frame_id, a.detections, a.seconds) for a in answers))


def _run_classifier(path: Path, options: argparse.Namespace) -> None:
    network, manifest = load_classifier(path, options.device)
    if options.csv or options.ids:
        raise ValueError(f'{path}: a classifier; --csv and --ids are for detector and pose network')
    _run_pictures(network, load(options.data, None if options.data.endswith('.npz') else network.size), manifest,
                  options)


def _run_pictures(network: Classifier | PoseNetwork, pictures: Pictures, manifest: dict[str, Any],
                  options: argparse.Namespace) -> None:
    try:
        result = accuracy(network, pictures, manifest.get('names', ()))
    except ValueError as error:
        raise ValueError(f'{options.data}: {error}') from error
    write = sys.stdout.write
    write(f'{"Accuracy":22} {result["accuracy"]:.4f} of {result["pictures"]} pictures\n')
    if result['pictures_all'] != result['pictures']:
        write(f'{"Accuracy, all classes":22} {result["accuracy_all"]:.4f} of {result["pictures_all"]} pictures\n')
    if options.json:
        write_json(options.json, {'weights': options.weights, 'recipe': manifest['recipe'], 'data': options.data,
                                  **result})


def _run_network(path: Path, kind: str, options: argparse.Namespace) -> None:
    """Score one network of a benchmark: crops around the true boxes, or semantic maps of whole frames.

    An ``.npz`` of crops has no poses, and gives the accuracy alone.
    """
    network, manifest = load_network(path, kind, options.device)
    if isinstance(network, PoseNetwork) and options.data.endswith('.npz') and not options.ids and not options.csv:
        return _run_pictures(network, load(options.data, network.crop_size), manifest, options)
    if options.csv or options.data == 'surrogate':
        raise ValueError(f'{path}: a {kind} network alone; expected a BOP data set with --data, and no --csv')
    dataset = BopDataset(Path(options.data), options.split)
    objects = dataset.objects()
    if list(objects) != manifest['names']:
        raise ValueError(f'{path}: made for {", ".join(manifest["names"])}; {options.data} has {", ".join(objects)}')
    ids = frame_ids(dataset, options.ids)
    result: dict[str, Any]
    if isinstance(network, PoseNetwork):
        crops = cut_crops(dataset, ids, network.crop_size, np.random.default_rng(0), jitter=False)
        result = {**score_crops(network, crops, objects, options.device), 'crops': len(crops)}
        text = f'{"Accuracy":22} {result["accuracy"]:.4f} of {len(crops)} crops\n' \
            f'{"Mean angle":22} {result["mean_angle_deg"]:.1f} degrees\n'
    else:
        assert isinstance(network, Detector)
        from sim2real_da.simulation.pose_masks import PoseMasks  # only here a renderer is needed

        masks = PoseMasks(dataset.drawn_objects())
        frames = (masks.masked(dataset.frame(i)) for i in ids)
        result = score_segmentation(network, frames, list(objects), options.device)
        masks.close()
        text = f'{"mIoU":22} {result["miou"]:.4f} of {result["frames"]} frames\n' + ''.join(
            f'{f"IoU, {name}":22} {value:.4f}\n' for name, value in result['iou'].items())
    sys.stdout.write(text)
    if options.json:
        write_json(options.json, {'weights': options.weights, 'recipe': manifest['recipe'], 'data': options.data,
                                  **result})


def answer(estimator: Estimator, frames: Iterable[LabelledFrame]) -> Iterator[Answer]:
    """Look at frames one by one; the ground truth is only handed through."""
    for labelled in frames:
        begin = time.perf_counter()
        frame = labelled.frame
        detections = estimator.estimate(frame.image, frame.intrinsics)
        yield Answer(frame.stamp, frame.intrinsics, labelled.labels, detections, time.perf_counter() - begin)


def score(answers: Sequence[Answer], objects: dict[str, ObjectModel]) -> dict[str, Any]:
    """Return the metrics (:func:`sim2real_da.evaluation.metrics.evaluate`) of an estimator's answers."""
    return evaluate([a.labels for a in answers], [a.detections for a in answers], objects, [a.camera for a in answers])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write numbers and what made them: command, commit, hardware. The folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**provenance(), **content}, indent=2, allow_nan=False) + '\n', encoding='utf-8')


def recorded(dataset: BopDataset, bundle: Bundle, ids_file: Path | None = None) -> Iterator[LabelledFrame]:
    """Return the frames of a data set, all or those of a file of ids, to try these weights on.

    :raises ValueError: without ground truth, for ids that are not there, for weights made for other objects
    """
    ids = frame_ids(dataset, ids_file)
    objects = dataset.objects()
    bundle.check_objects(objects, str(dataset.folder))
    for names, whose in ((set(objects) - set(bundle.classes), 'the weights do not know'),
                         (set(bundle.classes) - set(objects), f'{dataset.folder} does not have')):
        if names:
            LOG.warning('%s %s', whose, ', '.join(sorted(names)))
    return (dataset.frame(number) for number in ids)


def frame_ids(dataset: BopDataset, ids_file: Path | None = None) -> list[int]:
    """Return the ids of a data set's frames, all or those of a file.

    :raises ValueError: without ground truth, for ids that are not there
    """
    if not dataset.has_ground_truth:
        raise ValueError(f'{dataset.folder}: no ground truth (scene_gt.json), nothing to score against')
    known = dataset.ids()
    ids = read_ids(ids_file) if ids_file else known
    if missing := sorted(set(ids) - set(known)):
        raise ValueError(f'{ids_file}: frame {missing[0]} is not in {dataset.folder}')
    return ids


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


def _surrogate(count: int, seed: int) -> Iterator[LabelledFrame]:
    from sim2real_da.simulation.render import default_intrinsics
    from sim2real_da.simulation.surrogate import SurrogateWorld

    world = SurrogateWorld(default_intrinsics('tools', WIDTH, HEIGHT), seed)
    try:
        for _ in range(count):
            yield world.sample()
    finally:
        world.close()
