# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""From labelled frames to what the outline network learns from: outlines at poses that are wrong by a known error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from sim2real_da.geometry import project, transform_points
from sim2real_da.networks.batches import LEAST_VISIBLE, Effects
from sim2real_da.networks.outline import OutlineTargets
from sim2real_da.outline_strips import COLOURS, NORMAL, Strip, strip
from sim2real_da.outlines import FINE, Silhouette, silhouette
from sim2real_da.rectification import pinhole, straightened
from sim2real_da.samples import LabelledFrame, ObjectModel, Pose

Array = NDArray[np.float64]

# The errors of a pose network are small most of the time and large sometimes; so are those of poses on their way.
TURNS = (4.0, 9.0, 20.0)  # degrees about each axis, standard deviations
TURN_SHARES = (0.3, 0.5, 0.2)
DEPTH = (0.009, 0.036)  # share of the distance: smallest and largest scale of Student's t with four degrees of freedom
ASIDE = 0.025  # of the diameter, standard deviation
SETTLED, SETTLED_SHARE = 0.3, 1 / 3  # of these errors, in so many of the examples
UNKNOWN = 0.1  # of the objects that hide others are not known to
FARTHEST = 20.0  # pixels: an offset is asked for up to that
ERRORS = (0.01, 1.0)  # diameters: an error is asked for from and up to that
SYMMETRY_POINTS = 256  # by which the nearest of an object's equivalent poses is found
GAIN, SHIFT, NOISE = 0.2, 0.05, 0.01  # standard deviations, of colours 0..1


def outline_batch(frames: Sequence[LabelledFrame], objects: Mapping[str, ObjectModel], rng: np.random.Generator,
                  count: int, device: torch.device | str = 'cpu', effects: Effects | None = None,
                  log_sizes: Mapping[str, float] | None = None) -> tuple[Tensor, OutlineTargets] | None:
    """Return strips ``(count, C, P, O)`` and their targets; None where no frame shows an object.

    :param rng: draws the objects, their poses' errors, changes of colours, and which strips are mirrored
    :param effects: applied to every frame, for instance :func:`sim2real_da.data.augment.camera_effects`
    :param log_sizes: logarithms of how much larger than their models objects look, by name; others look as their models
    """
    pictures = [_Picture(labelled, objects, log_sizes or {}) for labelled in frames]
    if effects is not None:
        for picture in pictures:
            picture.image = effects(picture.image, rng)
    instances = [(picture, number) for picture in pictures for number in picture.visible]
    if not instances:
        return None
    strips: list[NDArray[np.float32]] = []
    offsets: list[Array] = []
    errors: list[float] = []
    misses = 0
    while len(strips) < count and misses < 10 * count:
        picture, number = instances[rng.integers(len(instances))]
        example = picture.example(number, rng)
        if example is None:
            misses += 1
            continue
        own, off, error = example
        strips.append(own)
        offsets.append(off)
        errors.append(error)
    if len(strips) < count:
        return None
    return (torch.from_numpy(np.stack(strips)).to(device), OutlineTargets(
        torch.from_numpy(np.stack(offsets)).float().clamp(-FARTHEST, FARTHEST).to(device),
        torch.tensor(errors).float().clamp(*ERRORS).log().to(device)))


class _Picture:
    """A frame without a lens, with the silhouettes of what is in it, at poses where models look as large as objects."""

    def __init__(self, labelled: LabelledFrame, objects: Mapping[str, ObjectModel], log_sizes: Mapping[str, float],
                 ) -> None:
        frame = labelled.frame
        self.intrinsics = pinhole(frame.intrinsics)
        self.image = frame.image if frame.intrinsics.pinhole else straightened(frame.image, frame.intrinsics)
        self.labels = labelled.labels
        self.models = [objects[label.name] for label in labelled.labels]
        self.poses = [model.at_distance(label.pose, np.exp(-log_sizes.get(label.name, 0.0)))
                      for label, model in zip(self.labels, self.models)]
        self.distances = [np.linalg.norm(model.box_centre(pose)) for pose, model in zip(self.poses, self.models)]
        self.visible = [number for number, label in enumerate(self.labels)
                        if label.visible is None or label.visible >= LEAST_VISIBLE]
        self._shapes: dict[int, Silhouette | None] = {}

    def _shape(self, number: int) -> Silhouette | None:
        if number not in self._shapes:
            self._shapes[number] = silhouette(self.models[number], self.poses[number], self.intrinsics)
        return self._shapes[number]

    def example(self, number: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Array, float] | None:
        """Return a strip around a wrong pose of an object, the offsets ``(P,)`` of its points, and its error."""
        model, true = self.models[number], self.poses[number]
        pose = displaced(true, model, rng)
        shape = silhouette(model, pose, self.intrinsics, FINE)
        if shape is None:
            return None
        nearer = [other for n in range(len(self.labels)) if self.distances[n] < self.distances[number]
                  and rng.random() >= UNKNOWN and (other := self._shape(n)) is not None]
        own = strip(shape, nearer, self.image)
        if own is None:
            return None
        there = transform_points(model.points, nearest_equivalent(true, pose, model))
        asked = project(there[own.nearest], self.intrinsics) - shape.pixels[own.nearest]
        offsets = (asked * own.normals).sum(axis=1)
        if not np.isfinite(offsets).all():
            return None
        channels, offsets = _changed(own, offsets, rng)
        return channels, offsets, float(np.linalg.norm(there - shape.surface, axis=1).mean() / model.diameter)


def displaced(true: Pose, model: ObjectModel, rng: np.random.Generator) -> Pose:
    """Return a pose that is wrong as a pose network's are, or less: as those on their way to the truth."""
    much = SETTLED if rng.random() < SETTLED_SHARE else 1.0
    turn = Rotation.from_rotvec(much * np.radians(rng.choice(TURNS, p=TURN_SHARES)) * rng.normal(size=3))
    middle = model.box_centre(true)
    farther = much * rng.uniform(*DEPTH) * rng.standard_t(4)
    middle = middle * np.exp(farther) + much * ASIDE * model.diameter * rng.normal(size=3)
    rotation = turn * Rotation.from_quat(true.quaternion)
    return Pose(rotation.as_quat(), middle - rotation.apply(model.middle))


def nearest_equivalent(true: Pose, pose: Pose, model: ObjectModel) -> Pose:
    """Return that of the poses that look like the true one whose surface is nearest to a pose's, point by point."""
    if not model.symmetric:
        return true
    points = model.points[::max(len(model.points) // SYMMETRY_POINTS, 1)].astype(np.float64)
    here, matrix = transform_points(points, pose), true.matrix()
    equivalent = [matrix @ symmetry for symmetry in model.symmetries]
    far = [np.linalg.norm(points @ m[:3, :3].T + m[:3, 3] - here, axis=1).mean() for m in equivalent]
    nearest = equivalent[int(np.argmin(far))]
    return Pose(Rotation.from_matrix(nearest[:3, :3]).as_quat(), nearest[:3, 3])


def _changed(own: Strip, offsets: Array, rng: np.random.Generator) -> tuple[NDArray[np.float32], Array]:
    """Return a strip with other colours, half of them mirrored, and its offsets."""
    channels = own.channels
    colours = channels[rng.permutation(COLOURS)]
    channels[:COLOURS] = (colours * (1 + GAIN * rng.normal(size=(COLOURS, 1, 1))) + SHIFT * rng.normal(
        size=(COLOURS, 1, 1)) + NOISE * rng.normal(size=colours.shape))
    if rng.random() < 0.5:
        channels = channels[:, ::-1].copy()
        channels[NORMAL] *= -1  # its x
        offsets = offsets[::-1]
    return channels, offsets
