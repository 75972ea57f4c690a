# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every pose network has in common: targets, outputs that know their loss and their poses, covariances.

Two representations: :mod:`sim2real_da.networks.direct_pose` and :mod:`sim2real_da.networks.dense_pose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim2real_da.geometry import project, quaternion_from_matrix, transform_points
from sim2real_da.networks.crops import PADDING
from sim2real_da.networks.outputs import NetworkOutput
from sim2real_da.samples import Intrinsics, ObjectModel, Pose

Solved = tuple[Pose, NDArray[np.float64]]
# Turn (radians) and padding of the crops of one object; a network's error differs from one to the next.
VIEWS = (
    (0.0, PADDING), (np.radians(30.0), 1.5), (np.radians(-30.0), 1.3), (np.radians(15.0), 1.2),
    (np.radians(-15.0), 1.6), (np.radians(45.0), PADDING), (np.radians(-45.0), PADDING), (np.radians(8.0), 1.3),
    (np.radians(-8.0), 1.5))
AGREEING = VIEWS[:3]  # those that have to agree before a pose is a label


@dataclass
class DenseTargets:
    """What dense coordinates are trained with.

    :param coordinates: -1..1, ``(B, 3, s, s)``
    :param known: where the coordinates hold, bool ``(B, s, s)``
    :param mask: visible object, ``(B, s, s)`` float, -1 where unknown
    :param symmetries: transforms of the normalised coordinates, ``(B, K, 3, 4)``, padded by repeating the identity
    """

    coordinates: Tensor
    known: Tensor
    mask: Tensor
    symmetries: Tensor


@dataclass
class DirectTargets:
    """What regression is trained with: the pose as the crop shows it (:func:`.direct_pose.crop_pose`).

    :param rotation: ``(B, 3, 3)``
    :param centre: ``(B, 2)``
    :param size: ``(B,)``
    :param cloud: surface points around the middle of the object's box in diameters, ``(B, N, 3)``
    :param turns: rotations that leave the object's look as it is, ``(B, K, 3, 3)``, padded by repeating the identity
    """

    rotation: Tensor
    centre: Tensor
    size: Tensor
    cloud: Tensor
    turns: Tensor


@dataclass
class PoseTargets:
    """Training targets of a batch of crops.

    :param classes: index ``(B,)``; C means "none of them"
    :param of: the representation's own targets
    :param posed: regression: whose pose counts, bool ``(B,)``; None: of all that show an object
    :param sure: regression: whose class counts, bool ``(B,)``; None: all
    """

    classes: Tensor
    of: DenseTargets | DirectTargets
    posed: Tensor | None = None
    sure: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of crops."""
        return len(self.classes)

    def taken(self, index: Tensor) -> PoseTargets:
        """Return the targets of some crops ``(n,)``."""
        of = type(self.of)(*(getattr(self.of, f.name)[index] for f in fields(self.of)))
        return PoseTargets(self.classes[index], of, *(None if t is None else t[index] for t in (self.posed, self.sure)))

    def repeated(self, count: int) -> PoseTargets:
        """Return the first crop's targets for ``count`` crops."""
        values = [getattr(self.of, f.name) for f in fields(self.of)]
        of = type(self.of)(*(v[:1].expand(count, *[-1] * (v.ndim - 1)) for v in values))
        return PoseTargets(self.classes[:1].expand(count), of)


def joined(first: PoseTargets, second: PoseTargets) -> PoseTargets:
    """Return the targets of two batches of one representation as those of one."""
    def whole(name: str) -> Tensor | None:
        parts = [getattr(t, name) for t in (first, second)]
        if all(p is None for p in parts):
            return None
        return torch.cat([torch.ones_like(t.classes, dtype=torch.bool) if p is None else p
                          for p, t in zip(parts, (first, second))])

    of = type(first.of)(*(torch.cat([getattr(t.of, f.name) for t in (first, second)]) for f in fields(first.of)))
    return PoseTargets(torch.cat([first.classes, second.classes]), of, whole('posed'), whole('sure'))


class PoseOutput(NetworkOutput):
    """What one forward pass over crops gives; one subclass a representation.

    ``classes`` are logits ``(B, C + 1)``, the last one is "none of them". ``features`` are the maps the domain
    adversary sees: the backbone's at strides 8 and 16 of the crop, or the first trained one's when it is frozen.
    """

    classes: Tensor

    def probabilities(self) -> dict[str, Tensor]:
        """Return ``class``: ``(B, C + 1)``."""
        return {'class': self.classes.softmax(dim=1)}

    def poses(self, rows: Sequence[int], classes: Sequence[int], transforms: Sequence[NDArray[np.float64]],
              models: Sequence[ObjectModel], intrinsics: Intrinsics) -> list[Solved | None]:
        """Return pose and covariance of some crops, None where no pose can be trusted.

        :param rows: which crops; the other lists have one entry for each of these
        :param classes: index of the class to ask for
        :param transforms: image -> crop, ``(2, 3)``
        :returns: covariance ``(6, 6)`` in the order x y z rx ry rz (metres, radians); rx ry rz is a small rotation
            about the camera's axes, applied from the left, as geometry_msgs/PoseWithCovariance has it
        """
        raise NotImplementedError

    def masks(self, rows: Sequence[int], classes: Sequence[int]) -> list[NDArray[np.float32] | None]:
        """Return which cells show the object, probability ``(s, s)``, or None where a network does not say."""
        return [None] * len(rows)


class PoseNetwork(nn.Module):
    """Base of the pose networks.

    :param config: keyword arguments of :func:`build_pose_network` that make the same network
    :param targets: what it is trained with
    :param views: how many crops of one object a pose is the mean of, see :data:`VIEWS`
    :param looks: 2: these are cut around the pose that a first crop gave (:func:`apparent_box`)
    """

    targets: type[DenseTargets] | type[DirectTargets]
    views = 1
    looks = 1

    def __init__(self, config: dict[str, Any], crop_size: int) -> None:
        super().__init__()
        if crop_size < 32 or crop_size % 32:
            raise ValueError(f'pose network: crops of {crop_size} pixels, expected a multiple of 32')
        self.config, self.crop_size = config, crop_size

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in ``PoseOutput.features``."""
        raise NotImplementedError

    def state_at(self, crop_size: int) -> dict[str, Tensor]:
        """Return the weights as a network of the same form for crops of another side would start from them."""
        return self.state_dict()

    def forward(self, crop: Tensor) -> PoseOutput:
        """Run on crops ``(B, 3, size, size)`` in [0, 1]."""
        raise NotImplementedError


def build_pose_network(classes: int, representation: str = 'direct', **options: Any) -> PoseNetwork:
    """Return an untrained pose network.

    :param representation: 'direct' or 'dense'
    :raises ValueError: for another one, or for options that it does not know how to follow
    """
    from sim2real_da.networks.dense_pose import DensePoseNetwork
    from sim2real_da.networks.direct_pose import DirectPoseNetwork

    known: dict[str, type[PoseNetwork]] = {'direct': DirectPoseNetwork, 'dense': DensePoseNetwork}
    if representation not in known:
        raise ValueError(f'pose representation {representation!r}: expected one of {sorted(known)}')
    for name in ('looks', 'views'):
        if representation == 'dense' and options.pop(name, 1) != 1:
            raise ValueError(f'pose network: dense coordinates look once, at one crop; expected {name} 1')
    return known[representation](classes, **options)  # type: ignore[arg-type]


def scaled_covariance(covariance: NDArray[np.float64], factors: tuple[float, float]) -> NDArray[np.float64]:
    """Multiply the variances of translation and rotation; what is between them by the geometric mean.

    Rows and columns are scaled alike, so what was positive definite stays it.

    :param covariance: ``(..., 6, 6)``, order x y z rx ry rz
    """
    scale = np.repeat(np.sqrt(factors), 3)
    return np.asarray(covariance * np.outer(scale, scale))


def apparent_box(pose: Pose, model: ObjectModel, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return the square around an object's projected middle, its side the apparent diameter; xyxy, image pixels.

    It depends on the pose alone, not on what hides the object or how it is turned.
    """
    middle = transform_points(model.middle[None], pose)
    half = intrinsics.fx * model.diameter / middle[0, 2] / 2
    return np.concatenate([project(middle, intrinsics)[0] - half, project(middle, intrinsics)[0] + half])


def mean_pose(poses: Sequence[Pose], model: ObjectModel) -> Pose:
    """Return the mean of poses of one object: of the middle of its box, and of the rotations in the chordal sense.

    Of all rotations that look like a pose's, the one nearest to the first pose's counts.

    :raises ValueError: without a pose
    """
    if not poses:
        raise ValueError('mean_pose: no poses')
    middle, first = model.middle[None], poses[0].matrix()[:3, :3]
    alike = np.stack([p.matrix()[:3, :3] for p in poses])[:, None] @ model.symmetries[None, :, :3, :3]  # (P, K, 3, 3)
    nearest = np.einsum('pkij,ij->pk', alike, first).argmax(axis=1)  # largest trace of the difference
    left, _, right = np.linalg.svd(alike[np.arange(len(poses)), nearest].mean(axis=0))
    rotation = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    centre = np.mean([transform_points(middle, pose)[0] for pose in poses], axis=0)
    return Pose(quaternion_from_matrix(rotation), centre - rotation @ middle[0])


def combined(views: Sequence[Solved | None], model: ObjectModel) -> Solved | None:
    """Return the mean pose of an object's views; None when less than half of them give one.

    The covariance is the mean of theirs: views of one picture err together.
    """
    known = [solved for solved in views if solved is not None]
    if not known or 2 * len(known) < len(views):
        return None
    return mean_pose([pose for pose, _ in known], model), np.asarray(np.mean([c for _, c in known], axis=0))
