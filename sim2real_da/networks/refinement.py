# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Poses found in one picture moved until outlines lie where the outline network sees them.

The pose network says from a crop where an object is to a few per cent of the distance and many degrees. Each of its
answers is a start: the silhouette is drawn there, the outline network (:mod:`sim2real_da.networks.outline`) says how
far outward each point of the outline should move, and the pose makes the step that brings this about, while the pose
network's covariance holds it where that saw the object. Of where the starts end that is taken which the outline network
thinks least wrong.

A scanned mesh, paint and a shadow can make an object look a few per cent larger or smaller than its model, and that
much nearer or farther; by how much is seen in pictures from known places (:mod:`sim2real_da.networks.scene_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import difference
from sim2real_da.networks.outline import OutlineNetwork, OutlineOutput
from sim2real_da.outline_strips import POINTS, Strip, strip
from sim2real_da.outlines import FINE, Pull, Silhouette, outward, silhouette
from sim2real_da.samples import Intrinsics, ObjectModel, Pose

Array = NDArray[np.float64]

STEPS = 6
ALL = 2  # steps that every start makes; afterwards only the likeliest go on
LIKELIEST = 4
TOGETHER = 20.0  # points that a strip counts as: neighbours say the same
BELIEF = 0.005  # what a unit of squared Mahalanobis distance from the network's pose weighs against the log error
AGREEING = 1.0  # log error more than the best one's by which an end counts e times less in the covariance
HIDES = 0.4  # score from which an object hides those behind it


@dataclass(frozen=True)
class Found:
    """What the pose network says of one object.

    :param score: 0..1
    :param covariance: of the pose, ``(6, 6)``, order x y z rx ry rz
    :param views: its answers in single crops
    :param log_size: logarithm of how much larger than its model the object looks
    """

    model: ObjectModel
    score: float
    pose: Pose
    covariance: Array
    views: Sequence[Pose]
    log_size: float = 0.0

    def as_model(self) -> Found:
        """Return where an object of the model's own size looks like this one."""
        poses = [self.model.at_distance(pose, np.exp(-self.log_size)) for pose in (self.pose, *self.views)]
        return replace(self, pose=poses[0], views=poses[1:], log_size=0.0)


@dataclass
class _Candidate:
    """A pose on its way, and what is known of it there.

    :param matrix: inverse of its covariance
    :param log_error: that the outline network sees there
    :param likelihood: minus that, less what the pose network believes otherwise
    """

    start: Pose
    pose: Pose
    turn: Rotation
    matrix: Array
    log_error: float = 0.0
    likelihood: float = -np.inf

    def move(self, asked: Pull, believed: Array) -> None:
        """Make the step that is asked for, as far as the network's belief lets it."""
        own, right = asked.equations(
            np.concatenate([asked.along, np.cross(asked.rim - self.pose.translation, asked.along)], axis=1))
        self.matrix = believed + own
        moved = np.r_[self.pose.translation - self.start.translation, self.turn.as_rotvec()]
        step = np.linalg.solve(self.matrix, right - believed @ moved)
        self.turn = Rotation.from_rotvec(step[3:]) * self.turn
        self.pose = Pose((self.turn * Rotation.from_quat(self.start.quaternion)).as_quat(),
                         self.pose.translation + step[:3])


def refined(found: Sequence[Found], image: NDArray[np.uint8], intrinsics: Intrinsics,
            network: OutlineNetwork) -> list[tuple[Pose, Array]]:
    """Return poses on outlines and their covariances ``(6, 6)``: what outlines leave open, how far other ends are.

    An outline network that thinks a pose wrong by a share of the diameter gives the pose network that share in the
    covariance: where it fails, it fails by far.

    Where an object's outline cannot be seen, its pose stays as it was found.

    :param found: everything seen in the picture: nearer objects hide outlines of farther ones
    :param image: uint8 RGB ``(H, W, 3)``
    :param intrinsics: of a pinhole camera
    :param network: in evaluation mode
    """
    nearer: list[Silhouette] = []
    result: dict[int, tuple[Pose, Array]] = {}
    for number in np.argsort([np.linalg.norm(f.model.box_centre(f.pose)) for f in found]):
        one = found[number].as_model()
        ends = _settled(one, nearer, image, intrinsics, network)
        best = max(ends, key=lambda end: end.likelihood)
        result[number] = (one.model.at_distance(best.pose, np.exp(found[number].log_size)),
                          _covariance(one, best, ends))
        shape = silhouette(one.model, best.pose, intrinsics)
        if shape is not None and one.score >= HIDES:
            nearer.append(shape)
    return [result[number] for number in range(len(found))]


def _covariance(one: Found, best: _Candidate, ends: Sequence[_Candidate]) -> Array:
    """Return the covariance of the end that is taken, ``(6, 6)``."""
    if not np.isfinite(best.likelihood):  # no outline was seen
        return one.covariance
    weights = np.exp([(end.likelihood - best.likelihood) / AGREEING for end in ends])
    others = np.array([difference(best.pose, end.pose, one.model) for end in ends])
    covariance = np.linalg.inv(best.matrix) + (others * weights[:, None]).T @ others / weights.sum()
    failing = min(np.exp(best.log_error), 1.0)
    return np.asarray((1 - failing) * covariance + failing * one.covariance)


def _settled(one: Found, nearer: Sequence[Silhouette], image: NDArray[np.uint8], intrinsics: Intrinsics,
             network: OutlineNetwork) -> list[_Candidate]:
    """Return where an object's starts end; the start alone where no outline can be looked at."""
    believed = np.asarray(np.linalg.inv(one.covariance), dtype=np.float64)
    candidates = [_Candidate(start, start, Rotation.identity(), believed) for start in (one.pose, *one.views)]
    for step in range(STEPS + 1):
        shapes = [silhouette(one.model, candidate.pose, intrinsics, FINE) for candidate in candidates]
        strips = [None if shape is None else strip(shape, nearer, image) for shape in shapes]
        seen = [(candidate, shape, own) for candidate, shape, own in zip(candidates, shapes, strips)
                if shape is not None and own is not None]
        if not seen:
            return [_Candidate(one.pose, one.pose, Rotation.identity(), believed)]
        output = _looked([own for *_, own in seen], network)
        offsets, scales, log_errors = (t.double().numpy() for t in (
            output.offsets, output.log_scales.exp(), output.log_errors))
        for (candidate, *_), log_error in zip(seen, log_errors):
            off = difference(one.pose, candidate.pose, one.model)
            candidate.log_error = float(log_error)
            candidate.likelihood = -candidate.log_error - float(BELIEF * off @ believed @ off)
        if step == STEPS:
            break
        for (candidate, shape, own), offset, scale in zip(seen, offsets, scales):
            rim = shape.surface[own.nearest]
            # a Laplace distribution's variance is twice the square of its scale
            candidate.move(Pull(rim, outward(rim, own.normals, intrinsics), offset,
                                TOGETHER / POINTS / (2 * scale**2)), believed)
        candidates = [candidate for candidate, *_ in seen]
        if step == ALL:
            candidates = sorted(candidates, key=lambda candidate: -candidate.likelihood)[:LIKELIEST]
    return [candidate for candidate, *_ in seen]


@torch.inference_mode()
def _looked(strips: Sequence[Strip], network: OutlineNetwork) -> OutlineOutput:
    """Return what the network says of strips, on the CPU."""
    device = next(network.parameters()).device
    output = network(torch.from_numpy(np.stack([own.channels for own in strips])).to(device))
    return OutlineOutput(output.offsets.cpu(), output.log_scales.cpu(), output.log_errors.cpu())
