# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Direct regression or dense coordinates and PnP? Both trained for the same time on the same renders.

``python benchmarks/pose_representation.py --data RENDERED --validation RENDERED_APART --photographs LMO --minutes 10``

The choice is made on the validation set alone: other scenes, other photographs behind them, and the sensor of the
surrogate world, whose blur, noise and colours training never drew. Crops are cut around the true boxes, so that no
detector speaks in it. The rows on photographs are reported beside that and decide nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmo import unseen_camera
from provenance import provenance
from torch import nn

from sim2real_da.data.augment import camera_effects
from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation.pose_error import add_or_add_s, angle_and_position
from sim2real_da.networks.backbones import EfficientNetLite0
from sim2real_da.networks.batches import PoseBatcher
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.pose import PoseNetwork, build_pose_network
from sim2real_da.samples import LabelledFrame, ObjectModel
from sim2real_da.training import CROPS, WEIGHT_DECAY, frames_of, schedule

log = logging.getLogger(__name__)
RATE = 2e-3  # as sim2real_da.training has it
VISIBLE = 0.25  # smallest visible fraction of a crop that is asked about


@torch.inference_mode()
def score(network: PoseNetwork, frames: Iterable[LabelledFrame], objects: dict[str, ObjectModel]) -> dict[str, Any]:
    """Return mean and median angle in degrees (no pose counts 180), ADD(-S) recall and the share without a pose."""
    network.eval()
    names, angles, good, missing = list(objects), [], [], 0
    for labelled in frames:
        labels = [x for x in labelled.labels if x.visible is None or x.visible >= VISIBLE]
        if not labels:
            continue
        camera = labelled.frame.intrinsics
        transforms = [crop_transform(x.box, network.crop_size) for x in labels]
        output = network(to_tensor([cut(labelled.frame.image, t, network.crop_size) for t in transforms]))
        models = [objects[x.name] for x in labels]
        found = output.poses(range(len(labels)), [names.index(x.name) for x in labels], transforms, models, camera)
        for label, solved, model in zip(labels, found, models):
            pose = solved[0] if solved else None
            missing += pose is None
            angles.append(180.0 if pose is None else angle_and_position(pose, label.pose, model)[0])
            good.append(pose is not None and add_or_add_s(pose, label.pose, model) < 0.1 * model.diameter)
    return {'mean_angle_deg': float(np.mean(angles)), 'median_angle_deg': float(np.median(angles)),
            'adds_recall': float(np.mean(good)), 'without_pose': missing / len(angles), 'crops': len(angles)}


def train(network: PoseNetwork, data: BopDataset, minutes: float, seed: int) -> int:
    """Train for so many minutes and return the number of crops seen."""
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    rng = np.random.default_rng(seed)
    batcher = PoseBatcher(data.objects(), network, 45.0, effects=camera_effects)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    begin, crops, step = time.monotonic(), 0, 0
    for frames in frames_of(data, data.ids(), seed):
        progress = (time.monotonic() - begin) / (60 * minutes)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group['lr'] = RATE * schedule(progress)
        batch = batcher.batch(frames, rng, CROPS)
        if batch is None:
            continue
        losses = network(batch[0]).loss(batch[1])
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        crops, step = crops + len(batch[0]), step + 1
        if step % 200 == 0:
            log.info('%3.0f %%  %d crops  %s', 100 * progress, crops,
                     '  '.join(f'{k} {float(v.detach()):.3f}' for k, v in losses.items()))
    return crops


def main() -> None:
    """Run the experiment and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='renders to train on')
    parser.add_argument('--validation', type=Path, required=True, help='renders with other scenes and photographs')
    parser.add_argument('--photographs', type=Path, help='LM-O, reported and not decided by')
    parser.add_argument('--arms', nargs='+', default=['dense', 'direct'])
    parser.add_argument('--minutes', type=float, default=10.0, help='of training, each')
    parser.add_argument('--backbone', default='resnet_tiny')
    parser.add_argument('--pretrained', action='store_true', help='ImageNet weights, kept frozen')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    data = BopDataset(options.data, 'train')
    objects = data.objects()
    apart = BopDataset(options.validation, 'train')
    validation = unseen_camera(apart, apart.ids()[:200])
    rows: dict[str, Any] = {}
    for arm in options.arms:
        torch.manual_seed(options.seed)
        network = build_pose_network(len(objects), arm, backbone=options.backbone, frozen=options.pretrained)
        if isinstance(network.backbone, EfficientNetLite0) and options.pretrained:
            network.backbone.load_imagenet()
        crops = train(network, data, options.minutes, options.seed)
        rows[arm] = {'crops_trained': crops, 'validation': score(network, validation, objects)}
        if options.photographs:
            real = BopDataset(options.photographs)
            frames = (real.frame(i) for i in lmo_split(real.ids())[1])
            rows[arm]['photographs'] = score(network, frames, objects)
        log.info('%s: %s', arm, rows[arm])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**provenance(), 'minutes': options.minutes, 'seed': options.seed,
                                            'backbone': options.backbone,
                                            'pretrained': options.pretrained, 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
