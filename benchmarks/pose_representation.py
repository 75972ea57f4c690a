# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Direct regression or dense coordinates and PnP? Both trained for the same time on the same renders.

``python benchmarks/pose_representation.py --data RENDERED --validation RENDERED_APART --photographs LMO --work DIR``

The choice is made on the validation set alone: other scenes, other photographs behind them, and the sensor of the
surrogate world, whose blur, noise and colours training never drew. Crops are cut around the true boxes, so that no
detector speaks in it. The rows on photographs are reported beside that and decide nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmo import unseen_camera
from pose_errors import posed
from provenance import provenance

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation.pose_error import add_or_add_s, angle_and_position
from sim2real_da.networks.pose import PoseNetwork
from sim2real_da.samples import LabelledFrame, ObjectModel
from sim2real_da.training import CROPS, Plan, train

log = logging.getLogger(__name__)
VISIBLE = 0.25  # smallest visible fraction of a crop that is asked about


@torch.inference_mode()
def score(network: PoseNetwork, frames: Iterable[LabelledFrame], objects: dict[str, ObjectModel]) -> dict[str, Any]:
    """Return mean and median angle in degrees (no pose counts 180), ADD(-S) recall and the share without a pose."""
    network.eval()
    network.views = 1  # beside dense coordinates, which have one
    angles, good, missing = [], [], 0
    for label, model, pose in posed(network, frames, objects, VISIBLE):
        missing += pose is None
        angles.append(180.0 if pose is None else angle_and_position(pose, label.pose, model)[0])
        good.append(pose is not None and add_or_add_s(pose, label.pose, model) < 0.1 * model.diameter)
    return {'mean_angle_deg': float(np.mean(angles)), 'median_angle_deg': float(np.median(angles)),
            'adds_recall': float(np.mean(good)), 'without_pose': missing / len(angles), 'crops': len(angles)}


def main() -> None:
    """Run the experiment and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='renders to train on')
    parser.add_argument('--validation', type=Path, required=True, help='renders with other scenes and photographs')
    parser.add_argument('--photographs', type=Path, help='LM-O, reported and not decided by')
    parser.add_argument('--work', type=Path, required=True, help='folder for weights and checkpoints')
    parser.add_argument('--arms', nargs='+', default=['dense', 'direct'])
    parser.add_argument('--minutes', type=float, default=10.0, help='of training, each')
    parser.add_argument('--backbone', default='resnet_tiny')
    parser.add_argument('--pretrained', action='store_true', help='start from ImageNet (efficientnet_lite0)')
    parser.add_argument('--frozen', action='store_true', help='keep the backbone as it starts')
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
        plan = Plan(steps=10**6, minutes=options.minutes, seed=options.seed, networks=('pose',), representation=arm,
                    backbone=options.backbone, pretrained=options.pretrained, frozen=options.frozen, effects=True,
                    turn=45.0)
        bundle = train(data, options.work / f'{arm}.safetensors', plan)
        rows[arm] = {'crops_trained': CROPS * bundle.created['steps'],
                     'validation': score(bundle.pose, validation, objects)}
        if options.photographs:
            real = BopDataset(options.photographs)
            frames = (real.frame(i) for i in lmo_split(real.ids())[1])
            rows[arm]['photographs'] = score(bundle.pose, frames, objects)
        log.info('%s: %s', arm, rows[arm])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({
            **provenance(), 'minutes': options.minutes, 'seed': options.seed, 'backbone': options.backbone,
            'pretrained': options.pretrained, 'frozen': options.frozen, 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
