# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Train source models on rendered frames: both networks from the same pictures, on CPU cores or GPUs.

``sim2real_da train --data RENDERED --out weights.safetensors --minutes 40``. A checkpoint beside the weights lets a
stopped run go on; the weights file is valid at every moment. ``OUT.curves/`` is for TensorBoard and ``OUT.look.png``
shows early what the networks see. Several processes (GPUs, machines) share the work under torchrun:
``torchrun --nproc-per-node 2 -m -- sim2real_da.training --data RENDERED --out weights.safetensors``.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sim2real_da.data.augment import camera_effects
from sim2real_da.data.bop import BopDataset
from sim2real_da.data.occlusion import occluded
from sim2real_da.data.rare_classes import draw
from sim2real_da.data.recolouring import recoloured
from sim2real_da.networks.backbones import EfficientNetLite0
from sim2real_da.networks.batches import CROP_VISIBLE, PoseBatcher, detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.detector import DetectorTargets, detector_loss
from sim2real_da.networks.distributed import processes, same_everywhere
from sim2real_da.networks.outline import OutlineNetwork, OutlineTargets, outline_loss
from sim2real_da.networks.outline_batches import outline_batch
from sim2real_da.networks.pose import PoseTargets
from sim2real_da.resources import weights_path
from sim2real_da.samples import LabelledFrame

log = logging.getLogger(__name__)
_T = TypeVar('_T')

FRAMES = 8  # frames of a step
FRESH = 4  # of them read anew; the others stay from the step before and are cut elsewhere: reading costs as training
CROPS = 48  # crops of a step
WINDOW = (192, 192)  # the detector trains on windows: less empty picture in every step
WEIGHT_DECAY = 0.01
BACKBONE_RATE = 0.2  # of a pre-trained backbone, relative to what starts from nothing
WARM_UP = 0.05  # share of the run over which the rate rises; it falls as half a cosine wave afterwards
NETWORKS = ('detector', 'pose')  # that perception needs
OUTLINE = 'outline'
STRIPS = 96  # outlines of a step
LOOK_FRAMES = 6
STEPS = 6000  # where nobody says how long


@dataclass
class Plan:
    """What to train and for how long.

    :param steps: length of the learning-rate schedule
    :param minutes: if above 0, the schedule ends after so much time, even if ``steps`` are not reached; needed where
        these are 0
    :param networks: which of 'detector', 'pose' and 'outline' to train; the others are left as they are
    :param backbone: of both networks, see :mod:`sim2real_da.networks.backbones`
    :param pretrained: start from ImageNet; the backbone then learns at :data:`BACKBONE_RATE` of the rate
    :param frozen: keep the backbone as it starts; False lets one that was frozen before learn (fine-tuning)
    :param representation: of poses, see :mod:`sim2real_da.networks.pose`
    :param crop_size: side of the pose network's crops in pixels, a multiple of 32; of a fresh network
    :param looks: how often it looks at an object, see :class:`sim2real_da.networks.pose.PoseNetwork`; of a fresh one
    :param effects: draw blur, noise, exposure and colour casts for every window and crop, and for frames with outlines
    :param turn: crops are turned in the plane by up to this many degrees
    :param half: mixed precision, bfloat16 where it is safe
    :param rate: peak of the learning rate (AdamW); the default was chosen on simulated validation loss
    """

    steps: int = STEPS
    minutes: float = 0.0
    seed: int = 0
    networks: tuple[str, ...] = NETWORKS
    backbone: str = 'resnet_tiny'
    pretrained: bool = False
    frozen: bool = False
    representation: str = 'direct'
    crop_size: int = 64
    looks: int = 1
    effects: bool = False
    turn: float = 20.0
    device: str = 'cpu'
    half: bool = False
    rate: float = 2e-3
    save_every: int = 250
    note: str = ''


@dataclass
class Batch:
    """One step's tensors; None for a network that is not trained."""

    windows: tuple[Tensor, DetectorTargets] | None
    crops: tuple[Tensor, PoseTargets, Tensor | None] | None
    strips: tuple[Tensor, OutlineTargets] | None = None


def schedule(progress: float) -> float:
    """Return the factor on the peak learning rate after a share 0..1 of the run."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min((progress - WARM_UP) / (1 - WARM_UP), 1.0)))


def parameter_groups(networks: Sequence[nn.Module], rate: float, pretrained: bool) -> list[dict[str, Any]]:
    """Return the optimiser's groups with their ``peak`` learning rates; a pre-trained backbone moves more slowly."""
    groups: list[dict[str, Any]] = []
    for network in networks:
        backbone = {id(p) for p in network.backbone.parameters()  # type: ignore[union-attr, operator]
                    } if hasattr(network, 'backbone') else set()
        for inside, factor in ((True, BACKBONE_RATE if pretrained else 1.0), (False, 1.0)):
            parameters = [p for p in network.parameters() if p.requires_grad and (id(p) in backbone) is inside]
            if parameters:
                groups.append({'params': parameters, 'lr': rate * factor, 'peak': rate * factor})
    return groups


def frames_of(dataset: BopDataset, ids: list[int], seed: int, first: int = 0,
              shares: NDArray[np.float64] | None = None) -> Iterator[list[LabelledFrame]]:
    """Yield :data:`FRAMES` frames for ever, :data:`FRESH` of them new, read ahead in a thread.

    What a step sees depends on the seed and its number alone: a run that goes on sees what it would have seen.

    :param first: the number of the first step
    :param shares: of every class in every frame ``(N, C)``: frames with rare classes are drawn more often, see
        :mod:`sim2real_da.data.rare_classes`
    """
    def load(number: int) -> list[LabelledFrame]:
        rng = np.random.default_rng([seed, number])
        chosen = rng.integers(len(ids), size=FRESH) if shares is None else draw(shares, FRESH, rng)
        return [dataset.frame(ids[i]) for i in chosen]

    begin = FRAMES // FRESH  # draws that a step's frames are of
    pool: deque[LabelledFrame] = deque((f for n in range(begin) for f in load(first + n)), maxlen=FRAMES)
    with ThreadPoolExecutor(1) as reader:
        for number in itertools.count(first + begin):
            ahead = reader.submit(load, number)
            yield list(pool)
            pool.extend(ahead.result())


def losses_of(networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
    """Return the supervised losses of one batch by name (``network/loss``)."""
    losses: dict[str, Tensor] = {}
    if batch.windows is not None:
        output = networks['detector'](batch.windows[0])
        losses.update({f'detector/{k}': v for k, v in detector_loss(output, batch.windows[1]).items()})
    if batch.crops is not None:
        losses.update({f'pose/{k}': v for k, v in networks['pose'](batch.crops[0]).loss(batch.crops[1]).items()})
    if batch.strips is not None:
        output = networks[OUTLINE](batch.strips[0])
        losses.update({f'{OUTLINE}/{k}': v for k, v in outline_loss(output, batch.strips[1]).items()})
    return losses


def shared_networks(bundle: Bundle, names: tuple[str, ...], world: int) -> dict[str, nn.Module]:
    """Return the networks to train; over several processes their gradients are averaged.

    On GPUs batch statistics are synchronised. On CPUs, where PyTorch cannot, every process normalises by its own.
    """
    networks: dict[str, nn.Module] = {}
    for name in names:
        network = getattr(bundle, name)
        if world > 1 and next(network.parameters()).is_cuda:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            setattr(bundle, name, network)
        networks[name] = DistributedDataParallel(network) if world > 1 else network
    return networks


def start(dataset: BopDataset, plan: Plan) -> Bundle:
    """Return the networks before the first step."""
    torch.manual_seed(plan.seed)
    form: dict[str, Any] = {'backbone': plan.backbone, 'frozen': plan.frozen}
    bundle = Bundle.create(dataset.objects(), form, {
        **form, 'representation': plan.representation, 'crop_size': plan.crop_size, 'looks': plan.looks})
    for network in (bundle.detector, bundle.pose):
        if not plan.pretrained:
            continue
        if not isinstance(network.backbone, EfficientNetLite0):
            raise ValueError(f'--pretrained: there are no ImageNet weights for {plan.backbone}, only for '
                             'efficientnet_lite0')
        network.backbone.load_imagenet()
    return bundle


def train(dataset: BopDataset, out: Path, plan: Plan, resume: bool = True, bundle: Bundle | None = None) -> Bundle:
    """Train and keep ``out`` and ``out`` + ``.resume.pt`` up to date.

    :param bundle: where to start (fine-tuning); default: fresh networks
    :raises ValueError: for a data set without frames or labels, or of other objects than ``bundle`` knows; for an
        ``out`` beside which another run's checkpoint lies, or a checkpoint that not all machines see
    """
    ids = dataset.ids()
    if not ids or not dataset.has_ground_truth:
        raise ValueError(
            f'{dataset.folder}: expected rendered frames with ground truth; make some with sim2real_da render')
    if not dataset.instances(CROP_VISIBLE):
        raise ValueError(f'{dataset.folder}: empty split: no object is a quarter visible in {len(ids)} frames')
    if not plan.steps and not plan.minutes:
        raise ValueError('training: neither steps nor minutes say when it ends')
    if bundle is not None:
        bundle.check_objects(dataset.objects(), str(dataset.folder), every=True)
    with processes(plan.device) as (rank, world, device):
        return _train(dataset, ids, out, plan, resume, bundle or start(dataset, plan), rank, world, device)


def _train(dataset: BopDataset, ids: list[int], out: Path, plan: Plan, resume: bool, bundle: Bundle, rank: int,
           world: int, device: str) -> Bundle:
    if OUTLINE in plan.networks and bundle.outline is None:
        torch.manual_seed(plan.seed)
        bundle.outline = OutlineNetwork()
    for name in plan.networks:
        if getattr(bundle, name).config.get('frozen') and not plan.frozen:
            bundle.thaw(name)
    bundle.to(device)
    run_of = _identity(dataset, ids, plan, bundle)
    bundle.note = plan.note or bundle.note
    if 'pose' in plan.networks or OUTLINE in plan.networks:
        bundle.covariance_factors = (1.0, 1.0)  # those of the weights it starts from were fitted to other errors
    for name in plan.networks:
        getattr(bundle, name).to(memory_format=torch.channels_last).train()
    networks = shared_networks(bundle, plan.networks, world)
    effects = camera_effects if plan.effects else None
    batcher = PoseBatcher(bundle.objects, bundle.pose, plan.turn, device, effects, occluded, recoloured)
    parameters = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
    groups = parameter_groups([getattr(bundle, name) for name in plan.networks], plan.rate, plan.pretrained)
    optimiser = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    checkpoint, first, before = out.with_suffix('.resume.pt'), 0, 0.0
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        _same_run(checkpoint, state.get('run', {}), run_of)
        for name in plan.networks:
            getattr(bundle, name).load_state_dict(state[name])
        optimiser.load_state_dict(state['optimiser'])
        torch.set_rng_state(state['random'].cpu())
        first, before = int(state['step']), float(state['seconds'])
        log.info('resumed %s at step %d', checkpoint, first)
    if not same_everywhere(first, device):
        raise ValueError(f'{checkpoint}: process {rank} of {world} would begin at step {first}, another one elsewhere; '
                         'over several machines --out has to be in a folder that all of them share')
    bundle.created |= {
        'frames_rendered': len(ids), 'planned_steps': plan.steps, 'minutes': plan.minutes, 'seed': plan.seed,
        'networks': list(plan.networks), 'pretrained': plan.pretrained, 'camera_effects': plan.effects,
        'frames_per_step': FRAMES * world, 'crops_per_step': CROPS * world, 'processes': world}
    begin, recent = time.monotonic(), deque[dict[str, float]](maxlen=100)
    batches = frames_of(dataset, ids, plan.seed + 100003 * rank, first)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = _curves(out) if rank == 0 else None
    look = [dataset.frame(i) for i in ids[::max(len(ids) // LOOK_FRAMES, 1)][:LOOK_FRAMES]]
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=plan.half)
    for step in itertools.count(first):
        spent = time.monotonic() - begin
        share = (before + spent) / (plan.minutes * 60) if plan.minutes else 0.0
        progress = _agreed(max(step / plan.steps if plan.steps else 0.0, share), device)
        over = progress >= 1
        if rank == 0 and step > first and (over or step % plan.save_every == 0):
            bundle.created |= {'steps': step, 'trained_minutes': round((before + spent) / 60, 1)}
            bundle.save(out)
            temporary = checkpoint.with_suffix('.tmp')
            torch.save({**{name: getattr(bundle, name).state_dict() for name in plan.networks}, 'step': step,
                        'seconds': before + spent, 'optimiser': optimiser.state_dict(), 'run': run_of,
                        'random': torch.get_rng_state()}, temporary)
            temporary.replace(checkpoint)
            _look(bundle, look, out, writer, step, device)
        if over:
            break
        rng = np.random.default_rng([plan.seed, step, rank])
        for group in optimiser.param_groups:
            group['lr'] = group['peak'] * schedule(progress)
        frames = next(batches)
        windows = crops = strips = None
        if 'detector' in networks:
            windows = detector_batch(
                frames, bundle.classes, bundle.detector.input_size, rng, WINDOW, device, effects)
        if 'pose' in networks:
            crops = _of_frames(partial(batcher.batch, rng=rng, limit=CROPS), frames, dataset, ids, rng)
        if OUTLINE in networks:
            strips = _of_frames(partial(
                outline_batch, objects=bundle.objects, rng=rng, count=STRIPS, device=device, effects=effects,
                log_sizes=bundle.log_sizes), frames, dataset, ids, rng)
        with autocast:
            losses = losses_of(networks, Batch(windows, crops, strips))
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        recent.append({k: float(v.detach()) for k, v in losses.items()})
        done, spent = step + 1 - first, time.monotonic() - begin
        if rank == 0 and (done % 50 == 0 or step + 1 == plan.steps):
            means = {k: float(np.mean([r[k] for r in recent])) for k in recent[-1]}
            left = spent / done * (plan.steps - step - 1) / 60 if plan.steps else math.inf
            if plan.minutes:
                left = min(left, plan.minutes - (before + spent) / 60)
            log.info('step %d%s, %.0f min left: %s', step + 1, f'/{plan.steps}' if plan.steps else '', max(left, 0),
                     '  '.join(f'{k} {v:.3f}' for k, v in means.items()))
            if writer is not None:
                for name, value in means.items():
                    writer.add_scalar(name, value, step + 1)
                writer.add_scalar('learning_rate', optimiser.param_groups[0]['lr'], step + 1)
    if writer is not None:
        writer.close()
    for name in plan.networks:
        getattr(bundle, name).eval()
    return bundle


def _of_frames(make: Callable[[list[LabelledFrame]], _T | None], frames: list[LabelledFrame], dataset: BopDataset,
               ids: list[int], rng: np.random.Generator) -> _T:
    """Return what is made of the frames, or of others where they show nothing: all processes take part in all steps."""
    made = make(frames)
    while made is None:
        made = make([dataset.frame(ids[i]) for i in rng.integers(len(ids), size=FRAMES)])
    return made


def _identity(dataset: BopDataset, ids: list[int], plan: Plan, bundle: Bundle) -> dict[str, Any]:
    """Return what a run that goes on has to have in common with the one before; its length may be another."""
    weights = b''.join(p.detach().cpu().numpy().tobytes() for network in bundle.networks().values()
                       for p in network.parameters())
    return {'--networks': list(plan.networks), '--data': f'{dataset.folder.name}, {len(ids)} frames',
            'the weights it starts from': f'{zlib.crc32(weights):08x}', '--seed': plan.seed,
            '--pretrained': plan.pretrained, '--frozen': plan.frozen, '--camera-effects': plan.effects,
            '--turn': plan.turn, '--mixed-precision': plan.half, 'the rate': plan.rate}


def _same_run(checkpoint: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on from another run's checkpoint.

    :raises ValueError: naming what differs
    """
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(f'{checkpoint}: of another run: {name} was {before.get(name, "not written down")}, is '
                             f'{value}; give another --out, or remove that file to begin again')


def _agreed(progress: float, device: str) -> float:
    """Return the first process's progress: all have to stop after the same step."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return progress
    value = torch.tensor([progress], dtype=torch.float64, device=device)
    distributed.broadcast(value, 0)
    return float(value)


def _curves(out: Path) -> Any:
    """Return a TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info('TensorBoard is not installed: no curves are written (pip install tensorboard)')
        return None
    return SummaryWriter(out.with_suffix('.curves'))


def _look(bundle: Bundle, frames: list[LabelledFrame], out: Path, writer: Any, step: int, device: str) -> None:
    """Write what the networks see now in a few training frames, as one picture."""
    from sim2real_da.evaluation.drawing import draw
    from sim2real_da.networks.estimator import Estimator

    seen = bundle.copy()
    estimator = Estimator(seen, device, 0.3)
    pictures = []
    for labelled in frames:
        found = estimator.estimate(labelled.frame.image, labelled.frame.intrinsics)
        drawn = draw(labelled.frame.image, found, labelled.frame.intrinsics, seen.objects)
        pictures.append(cv2.resize(drawn, (480, 360), interpolation=cv2.INTER_AREA))
    rows = [np.concatenate(pictures[i:i + 3], axis=1) for i in range(0, len(pictures) - len(pictures) % 3, 3)]
    if not rows:
        return
    sheet = np.concatenate(rows)
    cv2.imwrite(str(out.with_suffix('.look.png')), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if writer is not None:
        writer.add_image('look', sheet, step, dataformats='HWC')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da train``."""
    parser.add_argument('--data', type=Path, required=True, help='folder written by sim2real_da render')
    parser.add_argument('--out', type=Path, required=True, help='weights file to write (.safetensors)')
    parser.add_argument('--steps', type=int,
                        help=f'length of the learning-rate schedule (default: {STEPS}, with --minutes no limit)')
    parser.add_argument('--minutes', type=float, default=0.0, help='end the schedule after so much time (0: no limit)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--networks', nargs='+', choices=(*NETWORKS, OUTLINE), default=list(NETWORKS),
                        help='which ones to train; outline: puts poses on outlines that it sees, more exact and slower')
    parser.add_argument('--start', help="weights to start from, or the name of shipped ones ('tools'); default: fresh "
                        'networks')
    parser.add_argument('--backbone', default='resnet_tiny', help='resnet_tiny, efficientnet_lite0, resnet18, …')
    parser.add_argument('--pretrained', action='store_true', help='start from ImageNet (efficientnet_lite0)')
    parser.add_argument('--frozen', action='store_true', help='keep the backbone as it starts (efficientnet_lite0)')
    parser.add_argument('--representation', choices=('direct', 'dense'),
                        help='of poses; default: that of --start, else direct. Another than that of --start keeps its '
                        'backbone')
    parser.add_argument('--crop-size', type=int,
                        help='side of the crops that poses are read from, in pixels, a multiple of 32; default: that '
                        'of --start, else 64. Larger ones are slower and see depth better; train on small ones first')
    parser.add_argument('--looks', type=int, choices=(1, 2),
                        help='2: a first crop says where the object is, and crops around that give its pose; default: '
                        'that of --start, else 1')
    parser.add_argument('--camera-effects', action='store_true', help='draw blur, noise, exposure and colour casts')
    parser.add_argument('--turn', type=float, default=20.0, help='in-plane turns of crops, degrees')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--mixed-precision', action='store_true', help='compute in bfloat16 where it is safe')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads (0: as torch chooses)')
    parser.add_argument('--half', action='store_true', help='store the finished weights in 16 bits, for shipping')
    parser.add_argument('--note', default='', help='where these weights come from, kept in the file')


def run(options: argparse.Namespace) -> None:
    """Train as asked for on the command line."""
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in ('steps', 'minutes'):
        if (getattr(options, name) or 0) < 0:
            raise ValueError(f'--{name} {getattr(options, name)}: expected more than 0')
    steps = options.steps if options.steps is not None else 0 if options.minutes else STEPS
    plan = Plan(
        steps=steps, minutes=options.minutes, seed=options.seed, networks=tuple(options.networks),
        backbone=options.backbone, pretrained=options.pretrained, frozen=options.frozen,
        representation=options.representation or 'direct', crop_size=options.crop_size or 64,
        looks=options.looks or 1, effects=options.camera_effects, turn=options.turn,
        device=options.device, half=options.mixed_precision, note=options.note)
    bundle = Bundle.load(weights_path(options.start)) if options.start else None
    if bundle is not None and options.representation:
        torch.manual_seed(options.seed)
        bundle.represent(options.representation)
    if bundle is not None and (options.crop_size or options.looks):
        bundle.look_closer(options.crop_size or bundle.pose.crop_size, options.looks or bundle.pose.looks)
    bundle = train(BopDataset(options.data, 'train'), options.out, plan, bundle=bundle)
    if int(os.environ.get('RANK', '0')) == 0:
        bundle.save(options.out, half=options.half)
        log.info('wrote %s', options.out)


def main() -> int:
    """Run as ``python -m sim2real_da.training`` or under torchrun: ``sim2real_da train`` with the same options."""
    from sim2real_da.cli import main as command  # it imports the commands, this one among them

    return command(['train', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
