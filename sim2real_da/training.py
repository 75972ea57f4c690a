# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Train source models from scratch on rendered frames: both networks from the same pictures, on one CPU core or a GPU.

``sim2real_da train --data RENDERED --out weights.safetensors --minutes 40``. A checkpoint beside the weights lets a
stopped run go on; the weights file is valid at every moment.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sim2real_da.data.augment import camera_effects
from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.batches import PoseBatcher, detector_batch
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.detector import detector_loss
from sim2real_da.networks.pose import pose_loss
from sim2real_da.samples import Frame, LabelledFrame

log = logging.getLogger(__name__)

FRAMES = 8  # frames of a step
CROPS = 48  # crops of a step
WINDOW = (192, 192)  # the detector trains on windows: less empty picture in every step
PEAK_RATE = 2e-3  # AdamW, one cycle; chosen on simulated validation loss in runs of 300 steps
WEIGHT_DECAY = 0.01


def frames_of(dataset: BopDataset, ids: list[int], seed: int, effects: bool) -> Iterator[list[LabelledFrame]]:
    """Yield batches of :data:`FRAMES` frames for ever, loaded one batch ahead in a thread.

    :param effects: draw camera effects (:mod:`sim2real_da.data.augment`) anew for every frame
    """
    rng = np.random.default_rng(seed)

    def load(chosen: list[int], batch_seed: int) -> list[LabelledFrame]:
        own = np.random.default_rng(batch_seed)
        frames = []
        for i in chosen:
            labelled = dataset.frame(i)
            if effects:
                frame = labelled.frame
                image = camera_effects(frame.image, own)
                labelled = LabelledFrame(Frame(image, frame.intrinsics, frame.stamp, frame.frame_id), labelled.labels)
            frames.append(labelled)
        return frames

    def draw() -> tuple[list[int], int]:
        return [ids[i] for i in rng.integers(len(ids), size=FRAMES)], int(rng.integers(2**31))

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, *draw())
        while True:
            ready = ahead.result()
            ahead = pool.submit(load, *draw())
            yield ready


def train(
    dataset: BopDataset, out: Path, *, steps: int, minutes: float = 0.0, seed: int = 0, effects: bool = False,
    turn: float = 20.0, device: str = 'cpu', resume: bool = True, save_every: int = 250, note: str = '',
) -> Bundle:
    """Train both networks and keep ``out`` and ``out`` + ``.resume.pt`` up to date.

    :param steps: planned steps; the learning rate's one cycle spans them
    :param minutes: stop after this long though the cycle is not over (0: no limit)
    :param turn: crops are turned in the plane by up to this many degrees
    :raises ValueError: for a data set without frames or labels
    """
    ids = dataset.ids()
    if not ids or not dataset.has_ground_truth:
        raise ValueError(
            f'{dataset.folder}: expected rendered frames with ground truth; make some with sim2real_da render')
    torch.manual_seed(seed)
    bundle = Bundle.create(dataset.objects()).to(device)
    bundle.note = note
    batcher = PoseBatcher(bundle.objects, bundle.pose.crop_size, turn, device)
    networks: list[nn.Module] = [bundle.detector, bundle.pose]
    for network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.train()
    parameters = [p for network in networks for p in network.parameters()]
    optimiser = torch.optim.AdamW(parameters, PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.1)
    checkpoint, first = out.with_suffix('.resume.pt'), 0
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        bundle.detector.load_state_dict(state['detector'])
        bundle.pose.load_state_dict(state['pose'])
        optimiser.load_state_dict(state['optimiser'])
        schedule.load_state_dict(state['schedule'])
        first = int(state['step'])
        log.info('resumed %s at step %d', checkpoint, first)
    bundle.created = {'frames_rendered': len(ids), 'steps': first, 'planned_steps': steps, 'seed': seed,
                      'camera_effects': effects, 'frames_per_step': FRAMES, 'crops_per_step': CROPS}
    rng = np.random.default_rng([seed, first])
    begin, recent = time.monotonic(), deque[dict[str, float]](maxlen=100)
    batches = frames_of(dataset, ids, seed + first, effects)
    out.parent.mkdir(parents=True, exist_ok=True)
    for step in range(first, steps):
        frames = next(batches)
        images, targets = detector_batch(frames, bundle.classes, bundle.detector.input_size, rng, WINDOW, device)
        losses = {f'detector/{k}': v for k, v in detector_loss(bundle.detector(images), targets).items()}
        crops = batcher.batch(frames, rng, CROPS)
        if crops is not None:
            losses.update({f'pose/{k}': v for k, v in pose_loss(bundle.pose(crops[0]), crops[1]).items()})
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        schedule.step()
        recent.append({k: float(v.detach()) for k, v in losses.items()})
        done, spent = step + 1 - first, time.monotonic() - begin
        if done % 50 == 0:
            means = {k: float(np.mean([r[k] for r in recent if k in r])) for k in recent[-1]}
            left = spent / done * (steps - step - 1) / 60
            log.info('step %d/%d, %.0f min left: %s', step + 1, steps, left,
                     '  '.join(f'{k} {v:.3f}' for k, v in means.items()))
        over = minutes > 0 and spent > minutes * 60
        if over or step + 1 == steps or (step + 1) % save_every == 0:
            bundle.created['steps'] = step + 1
            bundle.save(out)
            temporary = checkpoint.with_suffix('.tmp')
            torch.save({'detector': bundle.detector.state_dict(), 'pose': bundle.pose.state_dict(), 'step': step + 1,
                        'optimiser': optimiser.state_dict(), 'schedule': schedule.state_dict()}, temporary)
            temporary.replace(checkpoint)
        if over:
            log.info('stopped after %.0f minutes at step %d of %d', minutes, step + 1, steps)
            break
    for network in networks:
        network.eval()
    return bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da train``."""
    parser.add_argument('--data', type=Path, required=True, help='folder written by sim2real_da render')
    parser.add_argument('--out', type=Path, required=True, help='weights file to write (.safetensors)')
    parser.add_argument('--steps', type=int, default=6000, help='length of the learning-rate cycle')
    parser.add_argument('--minutes', type=float, default=0.0, help='stop after this long (0: no limit)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--camera-effects', action='store_true', help='draw blur, noise, exposure and colour casts')
    parser.add_argument('--turn', type=float, default=20.0, help='in-plane turns of crops, degrees')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads (0: as torch chooses)')
    parser.add_argument('--half', action='store_true', help='store the finished weights in 16 bits, for shipping')
    parser.add_argument('--note', default='', help='where these weights come from, kept in the file')


def run(options: argparse.Namespace) -> None:
    """Train as asked for on the command line."""
    if options.threads:
        torch.set_num_threads(options.threads)
    bundle = train(
        BopDataset(options.data, 'train'), options.out, steps=options.steps, minutes=options.minutes, seed=options.seed,
        effects=options.camera_effects, turn=options.turn, device=options.device, note=options.note)
    bundle.save(options.out, half=options.half)
    log.info('wrote %s', options.out)


def main() -> None:
    """Run as ``python -m sim2real_da.training``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    run(parser.parse_args())


if __name__ == '__main__':
    main()
