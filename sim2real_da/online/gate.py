# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Is a candidate fit to be published? Compared with the running and the source model on simulation and camera frames.

On held-out simulation two numbers between 0 and 1 are compared, frame by frame on one frozen set: AP50, and the pose
score 1 - mean angle / 180 (a miss counts 180 degrees). The candidate passes when its weights are finite, neither number
falls below the source model's by more than the tolerance, nor below the running model's by more than that and the
standard error of the difference (a running model that was lucky once must not keep out its equals), and when what
unlabelled camera frames say (:mod:`.camera_evidence`) does not fall either. Simulation bounds the harm; it cannot tell
what is better on the camera. Frames that the camera showed earlier, and by which earlier versions were judged, are
asked as well: a learner that follows a covered lens or a foreign camera forgets them. A small set of labelled camera
frames can tell: where there is one, the two numbers are measured on it, and it alone decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim2real_da.evaluation.metrics import VISIBLE, evaluate
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.estimator import Estimator
from sim2real_da.online import camera_evidence
from sim2real_da.samples import Detection, Frame, LabelledFrame, ObjectLabel, ObjectModel

BOOTSTRAP = 24  # resamples of the frames; enough for a standard error to one digit
SCORE_THRESHOLD = 0.05  # AP needs the weak detections as well


@dataclass(frozen=True)
class Decision:
    """What the gate says of one candidate, with the numbers it rests on.

    :param decline: why the running model, too, should not be published any more; empty when nothing speaks against it
    """

    promote: bool
    reason: str
    numbers: dict[str, float] = field(default_factory=dict)
    decline: str = ''


@dataclass
class _Score:
    """What a model found on the frames, its AP50 and pose score, and both again for every resample (when asked for)."""

    found: list[list[Detection]]
    ap50: float
    pose: float
    resampled: NDArray[np.float64] | None = None


class Gate:
    """Holds the frozen validation frames and what earlier models scored on them.

    :param frames: labelled simulation that no training step ever sees, or labelled camera frames
    :param tolerance: how far AP50 and the pose score may fall, 0..1 (0.01 is one point)
    :param real: the frames are a camera's, and decide alone
    :raises ValueError: for frames without any object
    """

    def __init__(self, frames: Sequence[LabelledFrame], objects: Mapping[str, ObjectModel], tolerance: float,
                 device: str = 'cpu', seed: int = 0, real: bool = False) -> None:
        self.where = 'labelled camera frames' if real else 'simulation'
        if not _judged(frames):
            kind = self.where if real else f'held-out {self.where}'
            raise ValueError(f'gate: {kind} with no object in view; check the labels')
        self.frames, self.objects, self.tolerance, self.device = list(frames), dict(objects), tolerance, device
        self.seed, self.real = seed, real
        # paired: every model is judged on the same resamples of the same frames
        self._resamples = np.random.default_rng(seed).integers(len(self.frames), size=(BOOTSTRAP, len(self.frames)))
        self._known: dict[int, _Score] = {}

    def score(self, bundle: Bundle, key: int | None = None) -> dict[str, float]:
        """Return ``ap50`` and ``pose_score`` of a bundle; remembered under ``key``."""
        score = self._score(bundle, key)
        return {'ap50': score.ap50, 'pose_score': score.pose}

    def decide(self, candidate: Bundle, running: Bundle, source: Bundle,
               camera: Sequence[Frame] | None = None, reference: Sequence[Frame] = ()) -> Decision:
        """Judge a candidate. Running and source model are measured once each and remembered by version.

        :param camera: unlabelled frames, of which too few are a reason to reject; None: the labelled ones decide alone
        :param reference: unlabelled frames of earlier, of which too few say nothing
        """
        if not candidate.finite():
            return Decision(False, 'rejected: weights are not finite')
        new = self._score(candidate, None)
        numbers = {'candidate_ap50': new.ap50, 'candidate_pose_score': new.pose}
        failures: list[str] = []
        self._known = {k: v for k, v in self._known.items() if k in (running.version, source.version)}
        for name, bundle in (('running', running), ('source', source)):
            old = self._score(bundle, bundle.version)
            numbers |= {f'{name}_ap50': old.ap50, f'{name}_pose_score': old.pose}
            for column, (what, before, now) in enumerate((
                    ('AP50', old.ap50, new.ap50), ('pose score', old.pose, new.pose))):
                if before - now <= self.tolerance:
                    continue
                error = self._standard_error(old, new, column)
                numbers[f'{name}_{what.replace(" ", "_").lower()}_error'] = error
                slack = error if name == 'running' else 0.0
                if before - now > self.tolerance + slack:
                    failures.append(f'{what} on {self.where} {now:.3f}, {name} model {before:.3f}, '
                                    f'tolerance {self.tolerance:.3f}, standard error {error:.3f}')
        decline = ''
        if camera is not None:
            seen = camera_evidence.compare(candidate, running, source, camera, self.seed)
            numbers |= {f'camera_{k}': v for k, v in seen.numbers.items()}
            if not self.real:
                failures += seen.failures
                decline = seen.decline
        if reference and not self.real:
            past = camera_evidence.compare(candidate, running, source, reference, self.seed, 'earlier camera frames')
            numbers |= {f'reference_{k}': v for k, v in past.numbers.items()}
            failures += past.failures if past.numbers['places'] >= camera_evidence.LEAST else ()
        if failures:
            return Decision(False, 'rejected: ' + '; '.join(failures), numbers, decline)
        return Decision(True, f'passed: AP50 on {self.where} {new.ap50:.3f}, source model '
                        f'{numbers["source_ap50"]:.3f}', numbers, decline)

    def _score(self, bundle: Bundle, key: int | None) -> _Score:
        if key is not None and key in self._known:
            return self._known[key]
        # what networks have unlearnt shows before edges mend it, and sooner
        estimator = Estimator(bundle, self.device, SCORE_THRESHOLD, outlines=False)
        found = [estimator.estimate(f.frame.image, f.frame.intrinsics) for f in self.frames]
        score = _Score(found, *self._numbers(found, range(len(self.frames))))
        if key is not None:
            self._known[key] = score
        return score

    def _numbers(self, found: list[list[Detection]], rows: Sequence[int] | range) -> tuple[float, float]:
        truth: list[Sequence[ObjectLabel]] = [self.frames[i].labels for i in rows]
        result = evaluate(truth, [found[i] for i in rows], self.objects)
        return float(result['ap50']), 1 - float(result['mean_angle_deg']) / 180

    def _standard_error(self, old: _Score, new: _Score, column: int) -> float:
        """Bootstrap over frames of the paired difference (Efron); column 0 is AP50, 1 the pose score."""
        return float(np.std(self._resampled(old)[:, column] - self._resampled(new)[:, column]))

    def _resampled(self, score: _Score) -> NDArray[np.float64]:
        """Return AP50 and pose score of every resample, ``(BOOTSTRAP, 2)``, computed once a model."""
        if score.resampled is None:
            rows = [[int(i) for i in r] for r in self._resamples]
            score.resampled = np.array([
                self._numbers(score.found, r) for r in rows if _judged([self.frames[i] for i in r])])
        return score.resampled


def _judged(frames: Sequence[LabelledFrame]) -> bool:
    """Whether the metrics have anything to judge: an instance that is visible enough to count."""
    return any(label.visible is None or label.visible >= VISIBLE for f in frames for label in f.labels)
