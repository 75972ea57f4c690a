# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What unlabelled camera frames say for or against a candidate: InfoMax, the validator that ranks as the truth does.

Candidate, running and source model are asked at the same places of the same frames (whatever any of them finds), and

    InfoMax = H(mean p) - mean H(p)

of their class probabilities there has to stay: answers as sure and as diverse as before. In the study of validators
(docs/benchmarks.md) it ranked detectors and pose networks in the surrogate world as their labels do, while held-out
simulation ranked them the wrong way round. A network that gives one sure answer everywhere has an InfoMax of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim2real_da.evaluation.evidence import find, target_rows
from sim2real_da.evaluation.validators import Array, mutual_information
from sim2real_da.networks.bundle import Bundle
from sim2real_da.samples import Frame

FRAMES = 12  # of the buffer, drawn anew for every candidate
LEAST = 6  # places without which nothing can be said
RESAMPLES = 50  # of the places, for the standard error of a difference
DECLINE = 2.0  # standard errors below the source model from which published weights are called worse


@dataclass(frozen=True)
class CameraEvidence:
    """What was found.

    :param failures: why the candidate may not be published; empty when nothing speaks against it
    :param decline: why the running model should not be published any more; empty when nothing speaks against it
    :param numbers: InfoMax by model and network, and how many places were asked about
    """

    failures: tuple[str, ...]
    decline: str
    numbers: dict[str, float]


def compare(candidate: Bundle, running: Bundle, source: Bundle, frames: Sequence[Frame], seed: int = 0,
            ) -> CameraEvidence:
    """Compare a candidate with the running and the source model, and these two, on unlabelled frames."""
    others = {'running': running, 'source': source}
    places = find([running, source, candidate], frames)
    count = sum(len(p.boxes) for p in places)
    numbers = {'places': float(count)}
    if count < LEAST:
        return CameraEvidence((f'{len(frames)} camera frames show {count} places with an object, expected {LEAST} to '
                               'judge by',), '', numbers)
    new = target_rows(candidate, frames, places)
    old = {name: target_rows(bundle, frames, places) for name, bundle in others.items()}
    resamples = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    failures = []
    for part, rows in new.items():
        now = mutual_information(rows)
        numbers[f'candidate_{part}_infomax'] = now
        for name in others:
            before = mutual_information(old[name][part])
            numbers[f'{name}_{part}_infomax'] = before
            if now >= before:
                continue
            error = _standard_error(rows, old[name][part], resamples)
            if before - now > error:
                failures.append(f'InfoMax of the {part} on camera frames {now:.3f}, {name} model {before:.3f}, '
                                f'standard error {error:.3f}')
    decline = '; '.join(_worse(part, old['running'][part], old['source'][part], resamples) for part in new).strip('; ')
    return CameraEvidence(tuple(failures), decline, numbers)


def worse(bundle: Bundle, source: Bundle, frames: Sequence[Frame], seed: int = 0) -> str:
    """Return why a model is worse than the source model on unlabelled frames; empty when nothing says so."""
    places = find([bundle, source], frames)
    count = sum(len(p.boxes) for p in places)
    if count < LEAST:
        return ''
    resamples = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    own, first = (target_rows(model, frames, places) for model in (bundle, source))
    return '; '.join(_worse(part, own[part], first[part], resamples) for part in own).strip('; ')


def _worse(part: str, rows: Array, source: Array, resamples: NDArray[np.int64]) -> str:
    now, before = mutual_information(rows), mutual_information(source)
    if before - now <= 0 or before - now <= DECLINE * (error := _standard_error(rows, source, resamples)):
        return ''
    return (f'InfoMax of the {part} on camera frames {now:.3f}, source model {before:.3f}, more than {DECLINE:g} '
            f'standard errors of {error:.3f} below')


def _standard_error(first: Array, second: Array, resamples: NDArray[np.int64]) -> float:
    """Return the bootstrap error (Efron) of the paired difference of two models' InfoMax."""
    return float(np.std([mutual_information(first[r]) - mutual_information(second[r]) for r in resamples]))
