# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which detection of this picture is which of the last one, and poses smoothed over pictures.

Detections of a class are given to the tracks whose box middles lie nearest; a track that was not seen for a while is
forgotten and its number is not used again. Works in whatever frame the poses are in: best in one in which the objects
rest, not in a moving camera's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation, Slerp

from sim2real_da.geometry import canonical_quaternion, matrix_from_quaternion, quaternion_from_matrix
from sim2real_da.samples import Detection, ObjectModel, Pose

GATE = 1.0  # of the object's diameter: how far it may have moved between two pictures
JUMP_DEG = 45.0  # a rotation that differs by more is another estimate, not a movement: poses between the two are wrong


@dataclass
class _Track:
    name: str
    number: int
    pose: Pose
    covariance: NDArray[np.float64] | None
    stamp: int


class Tracker:
    """Numbers instances and smooths their poses.

    :param objects: models by class
    :param smoothing: share of the pose so far in the new one, 0 (none) to below 1; a moving object is shown
        ``smoothing / (1 - smoothing)`` pictures late. One that was not seen in the picture before is shown where it is
    :param forget_s: a track that was not seen for so many seconds ends
    """

    def __init__(self, objects: Mapping[str, ObjectModel], smoothing: float = 0.0, forget_s: float = 2.0) -> None:
        self.objects, self.smoothing, self.forget_s = objects, smoothing, forget_s
        self._tracks: list[_Track] = []
        self._before = 0  # stamp of the picture before
        self._numbers: dict[str, int] = {}

    def update(self, detections: Sequence[Detection], stamp: int) -> list[Detection]:
        """Return the detections of a picture with their numbers and smoothed poses; those without a pose as they are.

        :param stamp: of the picture in nanoseconds; one before the last picture's begins anew (a clock that jumped)
        """
        if any(stamp < track.stamp for track in self._tracks):
            self._tracks.clear()
        self._tracks = [t for t in self._tracks if stamp - t.stamp <= self.forget_s * 1e9]
        before, self._before = self._before, stamp
        found = list(detections)
        for name in {d.name for d in found if d.pose is not None}:
            rows = [i for i, d in enumerate(found) if d.name == name and d.pose is not None]
            for i, track in zip(rows, self._given([found[i] for i in rows], name)):
                found[i] = self._seen(found[i], track, stamp, before)
        return found

    def _given(self, detections: list[Detection], name: str) -> list[_Track | None]:
        """Return for each detection of a class the track that it continues."""
        tracks = [t for t in self._tracks if t.name == name]
        given: list[_Track | None] = [None] * len(detections)
        if not tracks:
            return given
        model = self.objects[name]
        here = np.array([model.box_centre(d.pose) for d in detections if d.pose is not None])
        before = np.array([model.box_centre(t.pose) for t in tracks])
        apart = np.linalg.norm(here[:, None] - before[None], axis=2)  # (detections, tracks)
        near = apart <= GATE * model.diameter
        # what is too far apart costs so much that as many as possible near ones are given
        for row, column in zip(*linear_sum_assignment(np.where(near, apart, 1e6))):
            if near[row, column]:
                given[row] = tracks[column]
        return given

    def _seen(self, detection: Detection, track: _Track | None, stamp: int, before: int) -> Detection:
        assert detection.pose is not None
        if track is None:
            number = self._numbers.get(detection.name, 0) + 1
            self._numbers[detection.name] = number
            self._tracks.append(_Track(detection.name, number, detection.pose, detection.covariance, stamp))
            return replace(detection, track=number)
        smoothing = self.smoothing if track.stamp == before else 0.0
        track.pose = blended(track.pose, detection.pose, self.objects[detection.name], smoothing)
        if detection.covariance is not None:
            # pictures of one scene err together: no less than the mean of what each of them says
            so_far = track.covariance if track.covariance is not None else detection.covariance
            track.covariance = smoothing * so_far + (1 - smoothing) * detection.covariance
        track.stamp = stamp
        return replace(detection, pose=track.pose, covariance=track.covariance, track=track.number)


def blended(before: Pose, now: Pose, model: ObjectModel, smoothing: float) -> Pose:
    """Return the pose between two of one object, about its box's middle; ``now`` where the rotation jumps.

    Of all rotations that look like ``now``'s, the one nearest to ``before``'s counts.

    :param smoothing: share of ``before``
    """
    if smoothing <= 0:
        return now
    old = matrix_from_quaternion(before.quaternion)
    alike = now.matrix() @ model.symmetries  # (K, 4, 4)
    # largest trace of the difference; the middle of a box may move under a symmetry, so the whole pose is taken
    whole = alike[np.einsum('kij,ij->k', alike[:, :3, :3], old).argmax()]
    nearest, half = whole[:3, :3], model.middle
    turns = Rotation.from_matrix(np.stack([old, nearest]))
    if np.degrees((turns[0].inv() * turns[1]).magnitude()) > JUMP_DEG:
        return now
    rotation = Slerp([0, 1], turns)(1 - smoothing)
    centre = smoothing * model.box_centre(before) + (1 - smoothing) * (nearest @ half + whole[:3, 3])
    return Pose(canonical_quaternion(rotation.as_quat()), centre - rotation.apply(half))


def moved(detection: Detection, transform: NDArray[np.float64]) -> Detection:
    """Return a detection whose pose is given in another frame.

    :param transform: frame so far -> other frame, ``(4, 4)``
    """
    if detection.pose is None:
        return detection
    whole = transform @ detection.pose.matrix()
    covariance = detection.covariance
    if covariance is not None:
        both = np.kron(np.eye(2), transform[:3, :3])  # translation and rotation are about the same axes
        covariance = both @ covariance @ both.T
    return replace(detection, pose=Pose(quaternion_from_matrix(whole[:3, :3]), whole[:3, 3]), covariance=covariance)
