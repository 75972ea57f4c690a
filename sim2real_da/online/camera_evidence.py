# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What unlabelled camera frames say for or against a candidate: InfoMax, the validator that ranks as the truth does.

Candidate, running and source model are asked at the same places of the same frames (whatever any of them finds), and

    InfoMax = H(mean p) - mean H(p)

of their class probabilities there has to stay: answers as sure and as diverse as before. In the study of validators
(docs/benchmarks.md) it ranked the detectors of a run in the surrogate world as their labels do, while held-out
simulation ranked them the wrong way round. Of the poses of a run it says nothing; for the pose network it is a guard
against collapse: a network that gives one sure answer everywhere has an InfoMax of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
            what: str = 'camera frames') -> CameraEvidence:
    """Compare a candidate with the running and the source model, and these two, on unlabelled frames.

    :param what: the frames, in a sentence
    """
    count, rows, resamples = _asked({'running': running, 'source': source, 'candidate': candidate}, frames, seed)
    numbers = {'places': float(count)}
    if count < LEAST:
        return CameraEvidence((f'{len(frames)} {what} show {count} places with an object, expected {LEAST} to '
                               'judge by',), '', numbers)
    failures = []
    for part, own in rows['candidate'].items():
        now = mutual_information(own)
        numbers[f'candidate_{part}_infomax'] = now
        for name in ('running', 'source'):
            other = rows[name][part]
            before = mutual_information(other)
            numbers[f'{name}_{part}_infomax'] = before
            if now >= before:
                continue
            error = _standard_error(own, other, resamples)
            if before - now > error:
                failures.append(f'InfoMax of the {part} on {what} {now:.3f}, {name} model {before:.3f}, '
                                f'standard error {error:.3f}')
    return CameraEvidence(tuple(failures), _worse(rows['running'], rows['source'], resamples), numbers)


def worse(bundle: Bundle, source: Bundle, frames: Sequence[Frame], seed: int = 0) -> str:
    """Return why a model is worse than the source model on unlabelled frames; empty when nothing says so."""
    count, rows, resamples = _asked({'own': bundle, 'source': source}, frames, seed)
    return _worse(rows['own'], rows['source'], resamples) if count >= LEAST else ''


def _asked(models: Mapping[str, Bundle], frames: Sequence[Frame], seed: int,
           ) -> tuple[int, dict[str, dict[str, Array]], NDArray[np.int64]]:
    """Return how many places any of the models finds, what each says there, and resamples of the places.

    Nothing but the number where there are fewer than :data:`LEAST`.
    """
    places = find(list(models.values()), frames)
    count = sum(len(p.boxes) for p in places)
    if count < LEAST:
        return count, {}, np.empty((0, 0), np.int64)
    rows = {name: target_rows(bundle, frames, places) for name, bundle in models.items()}
    return count, rows, np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def _worse(rows: Mapping[str, Array], source: Mapping[str, Array], resamples: NDArray[np.int64]) -> str:
    """Return which networks are worse than the source model's, by how much; empty when none is."""
    found = []
    for part in rows:
        now, before = mutual_information(rows[part]), mutual_information(source[part])
        if now >= before:
            continue
        error = _standard_error(rows[part], source[part], resamples)
        if before - now > DECLINE * error:
            found.append(f'InfoMax of the {part} on camera frames {now:.3f}, source model {before:.3f}, more than '
                         f'{DECLINE:g} standard errors of {error:.3f} below')
    return '; '.join(found)


def _standard_error(first: Array, second: Array, resamples: NDArray[np.int64]) -> float:
    """Return the bootstrap error (Efron) of the paired difference of two models' InfoMax."""
    return float(np.std([mutual_information(first[r]) - mutual_information(second[r]) for r in resamples]))
