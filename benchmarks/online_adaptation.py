# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's three rows without ROS: source only, source continued (the control) and a recipe, over several seeds.

``python benchmarks/online_adaptation.py --weights W --simulation RENDERED --target BOP_OR_RENDERED ...``

Target frames are split into adaptation frames (their labels are never read) and scoring frames.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from provenance import provenance

from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.metrics import evaluate
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.estimator import Estimator
from sim2real_da.online.stored import adapt
from sim2real_da.samples import LabelledFrame

KEYS = ('ap50', 'ap', 'recall', 'adds_recall', 'bop_ar', 'mean_angle_deg', 'mean_angle_matched_deg', 'mean_position_m')


def score(bundle: Bundle, frames: list[LabelledFrame], device: str) -> dict[str, float]:
    """Return the metrics of a bundle on labelled frames."""
    estimator = Estimator(bundle, device, score_threshold=0.05)
    found = [estimator.estimate(f.frame.image, f.frame.intrinsics) for f in frames]
    result = evaluate([f.labels for f in frames], found, bundle.objects, [f.frame.intrinsics for f in frames])
    return {key: result[key] for key in KEYS}


def spread(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of every metric over runs."""
    return {key: {'mean': float(np.mean([r[key] for r in runs])), 'std': float(np.std([r[key] for r in runs]))}
            for key in KEYS}


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--simulation', type=Path, required=True, help='rendered source frames')
    parser.add_argument('--target', type=Path, required=True, help='target frames with labels for scoring')
    parser.add_argument('--recipes', nargs='+', default=['source_continued', 'dann'])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--holdout', type=int, default=24)
    parser.add_argument('--gate-every', type=int, default=25)
    parser.add_argument('--tolerance', type=float, default=0.01)
    parser.add_argument('--adaptation-frames', type=int, default=100, help='first frames, or LM-O: ids <= 611')
    parser.add_argument('--scoring-frames', type=int, default=100)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    simulation, real = BopDataset(options.simulation, 'train'), BopDataset(options.target)
    source = [simulation.frame(i) for i in simulation.ids()[:options.holdout + 300]]
    ids = real.ids()
    target = [real.frame(i) for i in ids[:options.adaptation_frames]]
    scoring = [real.frame(i) for i in ids[options.adaptation_frames:][:options.scoring_frames]]
    source_only = score(Bundle.load(options.weights), scoring, options.device)
    logging.info('source_only: %s', source_only)
    logging.info('on simulation: %s', score(Bundle.load(options.weights), source[:options.holdout], options.device))
    weights = Bundle.load(options.weights)
    runs: dict[str, list[dict[str, float]]] = {}
    for recipe in options.recipes:
        runs[recipe] = []
        for seed in range(options.seeds):
            bundle, course = adapt(
                weights, recipe, seed, source, [f.frame for f in target], steps=options.steps,
                holdout=options.holdout, gate_every=options.gate_every, tolerance=options.tolerance,
                device=options.device, evidence=False)
            runs[recipe].append({**score(bundle, scoring, options.device), **course})
            logging.info('%s seed %d: %s', recipe, seed, runs[recipe][-1])
    if options.json:
        result = {**provenance(), 'rows': {'source_only': source_only, **{k: spread(v) for k, v in runs.items()}},
                  'runs': runs}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
