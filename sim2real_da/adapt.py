# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da adapt``: own data in one command.

Pictures with classes (folders of class sub-folders, ``.npz`` files): a classifier is trained on the source and adapted
to the target. BOP data: detector and pose network of a weights file are adapted as the robot's session would, to one or
more targets: BOP sets, recordings of cameras, folders of frames that robots kept (``keep_buffer``).

Several processes share the work under torchrun: ``torchrun --nproc-per-node 2 -m -- sim2real_da.cli adapt ...``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sim2real_da.data.bop import BopDataset
from sim2real_da.data.camera_info import read_calibration
from sim2real_da.data.pictures import Pictures, load
from sim2real_da.data.recordings import Recording, Spread, is_bag, is_recording, open_recording
from sim2real_da.evaluation.classification import accuracy
from sim2real_da.evaluation.provenance import COMMIT
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.classifier_weights import load_classifier, save_classifier
from sim2real_da.networks.distributed import processes
from sim2real_da.offline import adapt
from sim2real_da.online import stored
from sim2real_da.online.frame_files import read_frames
from sim2real_da.recipes import load_recipe
from sim2real_da.samples import Frame, Intrinsics

LOG = logging.getLogger(__name__)
HELD_OUT = 10  # every so many source pictures are kept back to see whether training worked
HELD_OUT_FRAMES = 24  # simulated frames for the gate
MOST_FRAMES = 400  # of a recording


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
    parser.add_argument('--out', type=Path, required=True, help='weights file to write (.safetensors)')
    parser.add_argument('--start', type=Path, help='weights to start from; BOP data need some')
    parser.add_argument('--size', type=int, default=32, help='side that pictures are brought to (default: 32)')
    parser.add_argument('--steps', type=int, help='of adaptation (default: 2000, BOP data 150)')
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
        made = _frames(options) if posed else _pictures(options)
        if not rank:
            made(options.out)
            LOG.info('wrote %s; sim2real_da evaluate --weights %s --data LABELLED scores it', options.out, options.out)


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


def _pictures(options: argparse.Namespace) -> Callable[[Path], object]:
    recipe = load_recipe(options.recipe)
    network = load_classifier(options.start, options.device)[0] if options.start else None
    size = network.size if network is not None else options.size
    source, target = load(options.source, size), load(options.target[0], size)
    if source.labels is None:
        raise ValueError(f'{options.source}: no labels; expected a sub-folder for each class, or an array labels')
    names = source.names or tuple(str(n) for n in range(int(source.labels.max()) + 1))
    if network is not None and list(names) != network.config['names']:
        raise ValueError(f'{options.start}: made for the classes {network.config["names"]}, {options.source} has '
                         f'{list(names)}')
    apart = np.random.default_rng(0).permutation(len(source)) % HELD_OUT == 0
    held_out = Pictures(source.images[apart], source.labels[apart], names)
    training = Pictures(source.images[~apart], source.labels[~apart], names)
    if network is None:
        torch.manual_seed(options.seed)
        fresh = Classifier(len(names), size, (16, 32, 64) if size >= 32 else (16, 32), names=names).to(options.device)
        network = adapt(fresh, load_recipe('source_continued'), training, None, options.source_steps,
                        options.seed).network
    LOG.info('held-out source pictures before: %.3f right', accuracy(network, held_out)['accuracy'])
    steps = options.steps or 2000
    made = adapt(network, recipe, training, target.images, steps, options.seed).network
    LOG.info('held-out source pictures after: %.3f right', accuracy(made, held_out)['accuracy'])
    created = {'source': options.source.name, 'target': options.target[0].name, 'steps': steps, 'seed': options.seed,
               'commit': COMMIT}
    note = f'{options.source.name} to {options.target[0].name}'
    return lambda out: save_classifier(out, made, recipe.name, note, created)


def _frames(options: argparse.Namespace) -> Callable[[Path], object]:
    if not options.start:
        raise ValueError('--start: BOP data need weights to start from; train some with sim2real_da train')
    bundle = Bundle.load(options.start)
    simulation = BopDataset(options.source, 'train')
    camera = read_calibration(options.camera_info, options.rectified) if options.camera_info else None
    if not simulation.has_ground_truth or len(simulation.ids()) <= HELD_OUT_FRAMES:
        raise ValueError(f'{options.source}: expected more than {HELD_OUT_FRAMES} rendered frames with ground truth '
                         '(sim2real_da render)')
    source = [simulation.frame(i) for i in simulation.ids()[:HELD_OUT_FRAMES + 300]]
    target = [frame for path in options.target
              for frame in target_frames(path, options.split, camera, options.image_topic, options.rectified)]
    try:
        made, course = stored.adapt(bundle, options.recipe, options.seed, source, target, steps=options.steps or 150,
                                    holdout=HELD_OUT_FRAMES, device=options.device)
    except RuntimeError as error:  # too few frames, or too much alike: the reason says of which
        raise ValueError(f'{error} ({options.source}: {len(source)} simulated frames, the first {HELD_OUT_FRAMES} for '
                         f'the gate; targets: {len(target)} frames)') from error
    LOG.info('%d candidates passed the gate, %d did not', course['promotions'], course['rejections'])
    return made.save
