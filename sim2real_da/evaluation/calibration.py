# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da calibrate``: make the covariance of a pose as large as its errors are.

The covariance that perspective-n-point gives rests on guesses about the noise of dense coordinates. Here it is held
against the errors on labelled frames (:func:`sim2real_da.geometry.difference`), of translation and of
rotation: for a right covariance S, the squared Mahalanobis distance e' S^-1 e of an error e is chi-square distributed
with 3 degrees of freedom. The first half of the frames fits one factor a block, so that nine poses in ten lie within
the region that should hold nine in ten: errors have longer tails than a Gaussian, and who grasps needs to know how far
off a pose may be rather than how far off it usually is. The second half shows whether it holds. What one factor cannot
mend stays visible: ``outliers`` is the share of the poses beyond the 99.9 % quantile.

The factors are part of the weights file and go on with it through adaptation.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.command import Answer, answer, recorded, write_json
from sim2real_da.evaluation.metrics import SCORE, match
from sim2real_da.geometry import difference
from sim2real_da.networks.batches import CROP_VISIBLE
from sim2real_da.networks.bundle import Bundle, with_covariance_factors, write_atomically
from sim2real_da.networks.estimator import Estimator
from sim2real_da.networks.pose import scaled_covariance
from sim2real_da.resources import weights_path
from sim2real_da.samples import ObjectModel

Array = NDArray[np.float64]
log = logging.getLogger(__name__)

BLOCKS = {'translation': slice(0, 3), 'rotation': slice(3, 6)}
UNITS = {'translation': 'm', 'rotation': 'rad'}
LEVELS = (0.5, 0.68, 0.9, 0.95, 0.99)  # nominal coverages that are written down
CURVE = tuple(n / 100 for n in range(1, 100))  # those that are drawn
OUTLIER = 0.999  # quantile beyond which an error is a gross failure
BINS = 8
FITTED = 0.9  # the region that is to hold as many poses as it says
LEAST = 20  # poses in each half; a quantile of fewer says little


@dataclass(frozen=True)
class Errors:
    """Errors of N poses and the covariances they were announced with.

    :param errors: ``(N, 6)``, order x y z rx ry rz, metres and radians
    :param covariances: ``(N, 6, 6)``
    """

    errors: Array
    covariances: Array

    def scaled(self, factors: tuple[float, float]) -> Errors:
        """Return the same errors with the covariances multiplied."""
        return Errors(self.errors, scaled_covariance(self.covariances, factors))

    def distances(self, block: slice) -> Array:
        """Return the squared Mahalanobis distances of the translations or rotations, ``(N,)``."""
        error = self.errors[:, block, None]  # (N, 3, 1)
        return np.asarray((error * np.linalg.solve(self.covariances[:, block, block], error)).sum(axis=(1, 2)))


def observe(answers: Iterable[Answer], objects: Mapping[str, ObjectModel]) -> Errors:
    """Return the errors of all instances that were found with a pose."""
    errors, covariances = [], []
    for seen in answers:
        for label, found in match(seen.labels, seen.detections):
            if found is not None and found.pose is not None and found.covariance is not None:
                errors.append(difference(found.pose, label.pose, objects[label.name]))
                covariances.append(found.covariance)
    return Errors(np.reshape(errors, (-1, 6)), np.reshape(covariances, (-1, 6, 6)))


def fit(seen: Errors) -> tuple[float, float]:
    """Return what the variances of translation and rotation have to be multiplied by.

    :raises ValueError: for fewer than 20 poses
    """
    if len(seen.errors) < LEAST:
        raise ValueError(f'calibrate: {len(seen.errors)} poses found in one half of the frames, need {LEAST}; '
                         'give more frames, or weights that find more')
    translation, rotation = (
        float(np.quantile(seen.distances(block), FITTED) / chi2.ppf(FITTED, 3)) for block in BLOCKS.values())
    return translation, rotation


def describe(seen: Errors) -> dict[str, dict[str, Any]]:
    """Return for translation and rotation how well the covariance fits, ready for JSON.

    ``median_ratio`` is 1 for a right covariance and above it for one that is too small, ``coverage`` the share of the
    poses within the region of each nominal probability, ``curve`` the same for 0.01, 0.02 ... 0.99. ``bins`` has
    equally many samples each, a sample being one axis of one pose: the median predicted standard deviation, and the
    observed one (1.4826 times the median absolute error, which for a Gaussian is the standard deviation).
    """
    result = {}
    for name, block in BLOCKS.items():
        distances = seen.distances(block)
        predicted = np.sqrt(np.diagonal(seen.covariances, axis1=1, axis2=2)[:, block]).ravel()
        error = np.abs(seen.errors[:, block]).ravel()
        groups = np.array_split(np.argsort(predicted), BINS)
        result[name] = {
            'median_ratio': float(np.median(distances) / chi2.median(3)),
            'coverage': {str(level): _coverage(distances, level) for level in LEVELS},
            'curve': [_coverage(distances, level) for level in CURVE],
            'outliers': 1 - _coverage(distances, OUTLIER),
            'bins': [{'predicted': float(np.median(predicted[g])), 'observed': float(1.4826 * np.median(error[g]))}
                     for g in groups],
        }
    return result


def draw(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> None:
    """Draw coverage and spread before and after, each for translation and rotation.

    :param before: what :func:`describe` says, as the command's JSON has it under this name
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    style = {'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
             'grid.alpha': 0.25, 'legend.frameon': False}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(2, 2, figsize=(9, 8), layout='constrained')
        for column, name in enumerate(BLOCKS):
            coverage, spread = axes[:, column]
            for seen, label, colour in ((before, 'before', '#e07b00'), (after, 'after', '#1f6fb4')):
                coverage.plot(CURVE, seen[name]['curve'], color=colour, label=label)
                bins = seen[name]['bins']
                spread.loglog([b['predicted'] for b in bins], [b['observed'] for b in bins], 'o-', color=colour,
                              label=label)
            coverage.plot([0, 1], [0, 1], color='grey', linewidth=1, linestyle='--')
            limits = [*spread.get_xlim(), *spread.get_ylim()]
            spread.plot([min(limits), max(limits)], [min(limits), max(limits)], color='grey', linewidth=1,
                        linestyle='--')
            coverage.set(title=f'{name.capitalize()}: share within the region', xlabel='expected',
                         ylabel='observed', xlim=(0, 1), ylim=(0, 1))
            spread.set(title=f'{name.capitalize()}: standard deviation, {UNITS[name]}', xlabel='predicted',
                       ylabel='observed')
            coverage.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        pyplot.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da calibrate``."""
    parser.add_argument('--weights', required=True, help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--data', type=Path, required=True, help='simulated frames that no training step saw (BOP)')
    parser.add_argument('--split', default='train', help='split of the data set (default: train)')
    parser.add_argument('--count', type=int, help='use the first so many frames; default: all')
    parser.add_argument('--views', type=int,
                        help='of how many crops of an object a pose is the mean, from now on: 1 to 9, more are more '
                        'precise and slower; default: as many as in the weights (3)')
    parser.add_argument('--no-outlines', action='store_true',
                        help='leave the outline network out: poses are less exact and faster found')
    parser.add_argument('--out', type=Path, required=True, help='weights file to write, with the factors in it')
    parser.add_argument('--figure', type=Path, required=True, help='PNG to draw')
    parser.add_argument('--json', type=Path, required=True, help='write all numbers here')
    parser.add_argument('--device', default='cpu')


def run(options: argparse.Namespace) -> None:
    """Calibrate as asked for on the command line.

    :raises ValueError: for data or weights that cannot be used, or too few poses
    """
    path = weights_path(options.weights)
    bundle = Bundle.load(path)
    bundle.covariance_factors = (1.0, 1.0)  # of an earlier calibration; the new factors replace them
    if options.views is not None:
        bundle.look_from(options.views)
    if options.no_outlines:
        bundle.outline = None
    dataset = BopDataset(options.data, options.split)
    if dataset.has_ground_truth and not dataset.instances(CROP_VISIBLE):
        raise ValueError(f'{options.data}: empty split: no object is a quarter visible in {len(dataset.ids())} frames')
    frames = islice(recorded(dataset, bundle), options.count)
    answers = list(answer(Estimator(bundle, options.device, SCORE), frames))
    objects, half = {**bundle.objects, **dataset.objects()}, (len(answers) + 1) // 2
    fitted, checked = observe(answers[:half], objects), observe(answers[half:], objects)
    factors = fit(fitted)
    if len(checked.errors) < LEAST:
        raise ValueError(f'calibrate: {len(checked.errors)} poses found in the second half, need {LEAST}; '
                         'give more frames')
    after = checked.scaled(factors)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, with_covariance_factors(
        path.read_bytes(), factors, options.views, outline=not options.no_outlines))
    result = {'before': describe(checked), 'after': describe(after)}
    draw(result['before'], result['after'], options.figure)
    write_json(options.json, {
        'weights': options.weights, 'data': str(options.data), 'frames': len(answers), 'views': bundle.pose.views,
        'outlines': bundle.outline is not None,
        'poses_fitted': len(fitted.errors), 'poses_checked': len(checked.errors),
        'factors': dict(zip(BLOCKS, factors, strict=True)), **result})
    for name, factor in zip(BLOCKS, factors, strict=True):
        before_one, after_one = result['before'][name], result['after'][name]
        log.info('%-12s variance times %.3g; within the 90 %% region %.2f before, %.2f after; outliers %.3f', name,
                 factor, before_one['coverage']['0.9'], after_one['coverage']['0.9'], after_one['outliers'])


def _coverage(distances: Array, level: float) -> float:
    return float(np.mean(distances <= chi2.ppf(level, 3)))
