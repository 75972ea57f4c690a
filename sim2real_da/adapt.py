# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da adapt``: own data in one command.

Networks are trained on the source, or ``--start`` names some that are, and adapted to the target. Pictures with classes
(folders of class sub-folders, ``.npz`` files): a classifier. BOP data: detector and pose network, as the robot's
session would, to one or more targets: BOP sets, recordings of cameras, folders of frames that robots kept
(``keep_buffer``). A recipe for stored crops alone (``pixelda``, ``cycada``, ``dsn``) adapts the pose network, on crops
where the detector finds something.

Several processes share the work under torchrun: ``torchrun --nproc-per-node 2 -m -- sim2real_da.cli adapt ...``.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.data.bop import BopDataset
from sim2real_da.data.camera_info import read_calibration
from sim2real_da.data.pictures import Pictures, load
from sim2real_da.data.recordings import Recording, Spread, is_bag, is_recording, open_recording
from sim2real_da.evaluation.classification import accuracy
from sim2real_da.evaluation.provenance import COMMIT
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.classifier_weights import load_classifier, save_classifier
from sim2real_da.networks.crop_sets import CropBatches, cut_crops, found_crops
from sim2real_da.networks.direct_pose import DirectPoseNetwork
from sim2real_da.networks.distributed import processes
from sim2real_da.networks.generators import ResidualGenerator, save_generator
from sim2real_da.offline import Adapted, Made, adapt, adapt_crops
from sim2real_da.online import stored
from sim2real_da.online.camera_evidence import FRAMES
from sim2real_da.online.frame_files import read_frames
from sim2real_da.online.gate import Gate
from sim2real_da.online.session import GAP
from sim2real_da.recipes import Recipe, load_recipe
from sim2real_da.resources import weights_path
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame
from sim2real_da.training import Plan, train

LOG = logging.getLogger(__name__)
HELD_OUT = 10  # every so many source pictures are kept back to see whether training worked
HELD_OUT_FRAMES = 24  # simulated frames for the gate
TRAINING_FRAMES = 300  # simulated frames beside them, at most
MOST_FRAMES = 400  # of a recording
STEPS, FRAME_STEPS = 2000, 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da adapt``."""
    parser.add_argument('--recipe', required=True, help='name of a recipe, or a YAML file')
    parser.add_argument('--source', type=Path, required=True,
                        help='labelled: folder of class sub-folders, .npz file, or BOP set with the split train')
    parser.add_argument('--target', type=Path, required=True, nargs='+',
                        help='labels are not read: folder of pictures, .npz file; with a BOP source one or more of: '
                        'BOP set, recording (rosbag2, MCAP, video, images), frames kept by an adaptation node')
    parser.add_argument('--camera-info', type=Path, help='calibration of videos and folders of images (YAML)')
    parser.add_argument('--rectified', action='store_true',
                        help='pictures of recordings are rectified: P of the calibration, or of camera_info, holds')
    parser.add_argument('--image-topic', default='', help='whose images of bags; needed where a bag has several')
    parser.add_argument('--out', type=Path, default=Path('adapted.safetensors'),
                        help='weights file to write (default: adapted.safetensors)')
    parser.add_argument('--generator', type=Path,
                        help='write the recipe\'s trained generator here, for `pixelda: {frozen: FILE}` and translate')
    parser.add_argument('--start', help="weights to start from, or the name of shipped ones ('tools'); default: some "
                        "are trained on the source, BOP data's are kept beside --out")
    parser.add_argument('--size', type=int, default=32, help='side that pictures are brought to (default: 32)')
    parser.add_argument('--steps', type=int, help=f'of adaptation (default: {STEPS}, BOP data {FRAME_STEPS})')
    parser.add_argument('--source-steps', type=int, default=2000, help='of training on the source (default: 2000)')
    parser.add_argument('--split', default='test', help='split of a BOP target (default: test)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads (0: as torch chooses)')


def run(options: argparse.Namespace) -> None:
    """Adapt as asked for on the command line and write the weights.

    :raises ValueError: for data, weights or a recipe that cannot be used; the message names the file
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    _check(options)
    recipe = load_recipe(options.recipe)
    if options.generator and not any(name == 'pixelda' or (name == 'cycada' and values.get('pixel', True))
                                     for own in recipe.objectives.values() for name, values in own):
        raise ValueError(f'--generator: recipe {recipe.name} trains no generator; pixelda and cycada do')
    posed = _is_bop(options.source)
    for path in options.target:
        if posed and not (_is_bop(path) or _kept(path) or is_recording(str(path))):
            raise ValueError(f'{path}: neither BOP data, nor a recording, nor frames kept by an adaptation node, as '
                             f'{options.source} needs them')
        if not posed and (_is_bop(path) or len(options.target) > 1):
            raise ValueError(f'{options.source} and {path}: expected one target of the source\'s kind; several targets '
                             'and BOP data go with a BOP source')
    # self-training has other losses in every process, so each divides by its own counts
    with processes(options.device, share_normalisers=False) as (rank, _, options.device):
        if rank:
            logging.disable(logging.INFO)
        make = _pictures if not posed else _frames if 'detector' in recipe.objectives else _crops
        made = make(options, recipe)
        if not rank:
            made(options.out)
            LOG.info('wrote %s; sim2real_da evaluate --weights %s --data LABELLED scores it', options.out, options.out)


def _check(options: argparse.Namespace) -> None:
    """Refuse now what would be refused after the training."""
    for name in ('steps', 'source_steps', 'size'):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")} {value}: expected 1 or more')
    for path in (options.source, *options.target):
        if not path.exists():
            raise FileNotFoundError(f'{path}: no such folder or file')
    for out in (options.out, options.generator):
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out.parent).close()  # says what is wrong with the folder


def _kept(path: Path) -> bool:
    return path.is_dir() and any(path.glob('*.safetensors'))


def target_frames(path: Path, split: str, intrinsics: Intrinsics | None, topic: str = '',
                  rectified: bool = False) -> list[Frame]:
    """Return the frames of a BOP set, a recording or a buffer that an adaptation node kept, without labels.

    Of a recording at most :data:`MOST_FRAMES`, spread over it.

    :param intrinsics: of videos and folders of images; a bag brings its own
    :param topic: of a bag: whose images; may be empty where there is one
    :param rectified: a bag's pictures are rectified: P of its camera_info holds
    :raises ValueError: for one without frames, or a bag that leaves open whose images are meant
    """
    if _is_bop(path):
        dataset = BopDataset(path, split)
        frames = [dataset.frame(i).frame for i in dataset.ids()]  # frames carry no labels
    elif _kept(path):
        frames = list(read_frames(path))
    else:
        frames = _recorded(open_recording(str(path), None if is_bag(path) else intrinsics, topic, rectified))
    if not frames:
        raise ValueError(f'{path}: no frames')
    return frames


def _recorded(recording: Recording) -> list[Frame]:
    """Read a recording to its end."""
    frames = Spread[Frame](MOST_FRAMES)
    while True:
        try:
            frame = recording.read()
        except ValueError as error:
            LOG.warning('frame left out: %s', error)
            continue
        if frame is None:
            break
        if frames.wanted():
            frames.add(frame)
    recording.close()
    return frames.kept


def _is_bop(path: Path) -> bool:
    return path.is_dir() and any(path.glob('*/*/scene_camera.json'))


def _pictures(options: argparse.Namespace, recipe: Recipe) -> Callable[[Path], object]:
    steps = options.steps or STEPS
    recipe.build('classifier', (8,), offline=True)  # an error now, not after the training on the source
    recipe.check_length('classifier', steps)
    network = load_classifier(weights_path(options.start), options.device)[0] if options.start else None
    size = network.size if network is not None else options.size
    source, target = load(options.source, size), load(options.target[0], size, labelled=False)
    if source.labels is None:
        raise ValueError(f'{options.source}: no labels; expected a sub-folder for each class, or an array labels')
    names = source.names or tuple(str(n) for n in range(int(source.labels.max()) + 1))
    if network is not None and list(names) != network.config['names']:
        raise ValueError(f'{options.start}: made for the classes {network.config["names"]}, {options.source} has '
                         f'{list(names)}')
    apart = held_out_rows(source.labels)
    if len(names) < 2 or not apart.any():
        raise ValueError(f'{options.source}: {len(source)} pictures of {len(names)} classes; expected two classes or '
                         'more, and two pictures or more of one')
    held_out = Pictures(source.images[apart], source.labels[apart], names)
    training = Pictures(source.images[~apart], source.labels[~apart], names)
    if network is None:
        torch.manual_seed(options.seed)
        fresh = Classifier(len(names), size, (16, 32, 64) if size >= 32 else (16, 32), names=names).to(options.device)
        network = adapt(fresh, load_recipe('source_continued'), training, None, options.source_steps,
                        options.seed).network
    LOG.info('held-out source pictures before: %.3f right', accuracy(network, held_out)['accuracy'])
    made = adapt(network, recipe, training, target.images, steps, options.seed)
    LOG.info('held-out source pictures after: %.3f right', accuracy(made.network, held_out)['accuracy'])
    _save_generator(options, made)
    note = f'{options.source.name} to {options.target[0].name}'
    return lambda out: save_classifier(out, made.network, recipe.name, note, _created(options, steps))


def held_out_rows(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pictures are kept back ``(N,)``: a tenth of each class, at least one where it has two or more."""
    apart = np.zeros(len(labels), bool)
    rng = np.random.default_rng(0)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        apart[rows[:max(round(len(rows) / HELD_OUT), 1) if len(rows) > 1 else 0]] = True
    return apart


def _created(options: argparse.Namespace, steps: int) -> dict[str, object]:
    return {'source': options.source.name, 'target': ', '.join(path.name for path in options.target), 'steps': steps,
            'seed': options.seed, 'commit': COMMIT}


def _save_generator(options: argparse.Namespace, made: Adapted[Made]) -> None:
    if options.generator is not None and int(os.environ.get('RANK', '0')) == 0:
        assert isinstance(made.generator, ResidualGenerator)
        LOG.info('wrote %s', save_generator(made.generator, options.generator))


def _posed(options: argparse.Namespace,
           recipe: Recipe) -> tuple[Bundle, BopDataset, list[LabelledFrame], list[Frame]]:
    """Return the weights to start from, the rendered set, its first frames, for the gate, and the target's frames."""
    bundle = Bundle.load(weights_path(options.start)) if options.start else None
    simulation = BopDataset(options.source, 'train')
    if bundle is not None:
        bundle.check_sizes(simulation.diameters(), str(options.source))
    camera = read_calibration(options.camera_info, options.rectified) if options.camera_info else None
    least = HELD_OUT_FRAMES + GAP + recipe.source_frames
    if not simulation.has_ground_truth or len(simulation.ids()) < least:
        raise ValueError(f'{options.source}: {len(simulation.ids())} rendered frames, expected {least} or more, with '
                         'ground truth (sim2real_da render)')
    target = [frame for path in options.target
              for frame in target_frames(path, options.split, camera, options.image_topic, options.rectified)]
    if bundle is None:
        options.start = options.out.with_name(f'{options.out.stem}_source{options.out.suffix}')
        LOG.info('%d steps on the source; --start %s goes on from there another time', options.source_steps,
                 options.start)
        bundle = train(_Training(options.source, 'train'), options.start, Plan(
            steps=options.source_steps, seed=options.seed, device=options.device))
    return bundle, simulation, [simulation.frame(i) for i in simulation.ids()[:HELD_OUT_FRAMES]], target


class _Training(BopDataset):
    """A rendered set without the frames that the gate judges by."""

    def ids(self) -> list[int]:
        return super().ids()[HELD_OUT_FRAMES + GAP:]


def _frames(options: argparse.Namespace, recipe: Recipe) -> Callable[[Path], object]:
    steps = options.steps or FRAME_STEPS
    if steps < stored.GATE_EVERY:
        raise ValueError(f'--steps {steps}: the gate judges every {stored.GATE_EVERY} steps, expected at least so many')
    bundle, simulation, held_out, target = _posed(options, recipe)
    source = held_out + [simulation.frame(i) for i in simulation.ids()[HELD_OUT_FRAMES:][:TRAINING_FRAMES]]
    try:
        made, course = stored.adapt(bundle, options.recipe, options.seed, source, target, steps=steps,
                                    holdout=HELD_OUT_FRAMES, device=options.device)
    except RuntimeError as error:  # too few frames, or too much alike: the reason says of which
        raise ValueError(f'{error} ({options.source}: {len(source)} simulated frames, the first {HELD_OUT_FRAMES} for '
                         f'the gate; targets: {len(target)} frames)') from error
    LOG.info('%d candidates passed the gate, %d did not', course['promotions'], course['rejections'])
    if not course['promotions']:
        _refuse(options, f'{course["rejections"]:.0f} candidates; the last was {course["reason"]}')
    return made.save


def _crops(options: argparse.Namespace, recipe: Recipe) -> Callable[[Path], object]:
    steps = options.steps or FRAME_STEPS
    recipe.build('pose', (8,), offline=True)
    recipe.check_length('pose', steps)
    bundle, simulation, held_out, target = _posed(options, recipe)
    if not isinstance(bundle.pose, DirectPoseNetwork) or not simulation.classes() <= set(bundle.classes):
        raise ValueError(f'{options.start}: {type(bundle.pose).__name__} for {list(bundle.classes)}, expected direct '
                         f'poses of what {options.source} shows, {sorted(simulation.classes())}')
    rng, size = np.random.default_rng(options.seed), bundle.pose.crop_size
    source = cut_crops(simulation, simulation.ids()[HELD_OUT_FRAMES + GAP:][:TRAINING_FRAMES], size, rng,
                       objects=bundle.objects)
    seen = found_crops(bundle, target, options.device)
    if not len(seen):
        raise ValueError(f'{options.start}: finds nothing in {len(target)} target frames; there are no crops to adapt '
                         'to')
    LOG.info('%d rendered crops, %d of the target', len(source), len(seen))
    made = adapt_crops(copy.deepcopy(bundle.pose).to(options.device), recipe,
                       CropBatches(source, bundle.objects, options.device), seen, steps, options.seed)
    _save_generator(options, made)  # whatever the gate says of the pose network: it translates, and nobody runs it
    candidate = bundle.copy()
    candidate.pose = made.network.cpu()
    candidate.version, candidate.parent = bundle.version + 1, bundle.version
    candidate.recipe, candidate.created = recipe.name, _created(options, steps)
    camera = [target[i] for i in rng.permutation(len(target))[:FRAMES]]
    decision = Gate(held_out, bundle.objects, stored.TOLERANCE, options.device, options.seed).decide(
        candidate, bundle, bundle, camera)
    LOG.info('%s', decision.reason)
    if not decision.promote:
        _refuse(options, decision.reason)
    return candidate.save


def _refuse(options: argparse.Namespace, reason: str) -> NoReturn:
    raise ValueError(f'{options.out}: not written, for nothing passed the gate and the weights it started from are the '
                     f'best there are ({reason})')
