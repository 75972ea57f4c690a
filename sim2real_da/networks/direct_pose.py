# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Direct pose network: from a square crop to rotation, projected middle, apparent size, class, and how sure it is.

Rotation in the continuous 6-D form (Zhou et al., CVPR 2019), allocentric (Kundu et al., CVPR 2018: what the crop looks
like, whichever way the camera has to turn to see it); translation as the projected middle of the object within the
crop and a depth relative to the crop's scale (CDPN, Li et al., ICCV 2019). The rotation's loss is the mean distance of
surface points, over the best symmetric variant (GDR-Net, Wang et al., CVPR 2021). Three variances are learnt beside
that, each by the likelihood of the error made (Kendall and Gal, NeurIPS 2017), which does not touch the pose itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.resnet import BasicBlock

from sim2real_da.geometry import project, quaternion_from_matrix, ray_rotation, transform_points
from sim2real_da.networks.backbones import Normalise, build_backbone, build_fusion
from sim2real_da.networks.crops import PADDING
from sim2real_da.networks.distributed import shared_mean
from sim2real_da.networks.outputs import Targets
from sim2real_da.networks.pose import VIEWS, DirectTargets, PoseNetwork, PoseOutput, PoseTargets, Solved
from sim2real_da.samples import Intrinsics, ObjectModel, Pose

POINTS = 128  # surface points in the rotation's loss
NUMBERS = 12  # of each class: six of the rotation, two of the centre, one of the size, three logarithms of spreads
# A pose is believed only if the network expects its rotation to be right within so much, and the object drawn at that
# pose covers enough of where the crop was cut (share of the smaller of the two boxes).
WORST_ROTATION_DEG = 60.0
LEAST_COVER = 0.25


@dataclass
class DirectOutput(PoseOutput):
    """What one forward pass gives.

    :param rotation: allocentric, as the crop shows it, ``(B, C, 3, 3)``
    :param centre: the object's middle, from the crop's middle in units of its side, ``(B, C, 2)``
    :param size: logarithm of the diameter's share of the crop's side, ``(B, C)``
    :param spread: logarithms of the standard deviations of centre, size and rotation (radians), ``(B, C, 3)``
    :param crop_size: side of the crops in pixels
    """

    rotation: Tensor
    centre: Tensor
    size: Tensor
    spread: Tensor
    classes: Tensor
    features: list[Tensor]
    crop_size: int

    def rows(self, first: int, last: int | None = None) -> DirectOutput:
        """Return the same for some of the crops, without features."""
        return DirectOutput(self.rotation[first:last], self.centre[first:last], self.size[first:last],
                            self.spread[first:last], self.classes[first:last], [], self.crop_size)

    def loss(self, targets: Targets) -> dict[str, Tensor]:
        """Return :func:`direct_loss`: the best symmetric variant counts for symmetric objects."""
        if not isinstance(targets, PoseTargets):
            raise TypeError(f'pose network: expected PoseTargets, got {type(targets).__name__}')
        return direct_loss(self, targets)

    def poses(self, rows: Sequence[int], classes: Sequence[int], transforms: Sequence[NDArray[np.float64]],
              models: Sequence[ObjectModel], intrinsics: Intrinsics) -> list[Solved | None]:
        """Return :func:`pose_of` of some crops."""
        numbers = [t[rows, classes].double().cpu().numpy() for t in (
            self.rotation, self.centre, self.size, self.spread)]
        return [pose_of(r, c, float(s), e, t, model, intrinsics, self.crop_size)
                for r, c, s, e, t, model in zip(*numbers, transforms, models)]


class DirectPoseNetwork(PoseNetwork):
    """Backbone, residual blocks over its maps of strides 8 to 32 brought to stride 16, one hidden layer.

    :param classes: number of object classes C
    :param crop_size: side of the square crop in pixels, a multiple of 32
    :param frozen: the backbone's weights and statistics stay as they are
    :param views: how many crops of one object a pose is the mean of: on held-out renders three were worth a quarter of
        the ADD recall of one
    :param looks: 2: cut these around the pose that a first crop gave, and train on such crops, too
    :raises ValueError: for more views or looks than there are
    """

    targets = DirectTargets

    def __init__(self, classes: int, backbone: str = 'resnet_tiny', crop_size: int = 64, width: int = 128,
                 hidden: int = 512, frozen: bool = False, views: int = 3,
                 looks: int = 1) -> None:
        super().__init__(
            {'representation': 'direct', 'classes': classes, 'backbone': backbone, 'crop_size': crop_size,
             'width': width, 'hidden': hidden, 'frozen': frozen, 'views': views, 'looks': looks}, crop_size)
        if not 1 <= views <= len(VIEWS):
            raise ValueError(f'pose network: {views} views, expected 1 to {len(VIEWS)}')
        if looks not in (1, 2):
            raise ValueError(f'pose network: {looks} looks, expected 1 or 2')
        self.classes, self.views, self.looks = classes, views, looks
        self.normalise = Normalise()
        self.backbone = build_backbone(backbone, frozen)
        _, fine, middle, coarse = self.backbone.channels
        self.fusion: nn.Module | None = None
        if backbone == 'mix_transformer':  # its own fusion works at stride 4, the sum of other backbones' maps at 16
            self.fusion = nn.Sequential(build_fusion(backbone, self.backbone.channels, width), nn.AvgPool2d(4))
        else:
            self.fine = nn.Conv2d(fine, width, 3, 2, 1)
            self.middle = nn.Conv2d(middle, width, 1)
            self.coarse = nn.Conv2d(coarse, width, 1)
            self.merge = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.mix = nn.Sequential(BasicBlock(width, width), BasicBlock(width, width))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(width * (crop_size // 16) ** 2, hidden), nn.ReLU())
        self.pose = nn.Linear(hidden, classes * NUMBERS)
        self.classify = nn.Linear(coarse, classes + 1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in ``PoseOutput.features``."""
        return (self.config['width'],) if self.config['frozen'] else tuple(self.backbone.channels[1:3])

    def state_at(self, crop_size: int) -> dict[str, Tensor]:
        """Return the weights for crops of another side: the hidden layer's, which know each place, are resampled."""
        state, old, new = self.state_dict(), self.crop_size // 16, crop_size // 16
        places = state['hidden.1.weight'].unflatten(1, (-1, old, old))  # (hidden, width, old, old)
        places = F.interpolate(places, size=(new, new), mode='bilinear') * (old / new) ** 2
        return {**state, 'hidden.1.weight': places.flatten(1)}

    def forward(self, crop: Tensor) -> DirectOutput:
        """Run on crops ``(B, 3, size, size)`` in [0, 1]."""
        maps = self.backbone(self.normalise(crop))
        if self.fusion is not None:
            merged = self.fusion(maps)  # (B, width, size / 16, size / 16)
        else:
            coarse = F.interpolate(self.coarse(maps[3]), size=maps[2].shape[-2:], mode='nearest')
            merged = self.merge(self.fine(maps[1]) + self.middle(maps[2]) + coarse)  # the same shape
        numbers = self.pose(self.hidden(self.mix(merged))).unflatten(1, (self.classes, NUMBERS))
        return DirectOutput(
            rotation_from_6d(numbers[..., :6]), 0.25 * numbers[..., 6:8], numbers[..., 8] - 0.3,
            numbers[..., 9:].clamp(-6, 3) - 1.0, self.classify(maps[3].mean(dim=(2, 3))),
            [merged] if self.config['frozen'] else maps[1:3], self.crop_size)


def rotation_from_6d(numbers: Tensor) -> Tensor:
    """Return the rotations ``(..., 3, 3)`` whose first two columns are nearest to six numbers ``(..., 6)``."""
    first = F.normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def crop_pose(poses: NDArray[np.float64], cameras: NDArray[np.float64], transforms: NDArray[np.float64],
              middles: NDArray[np.float64], diameters: NDArray[np.float64], size: int,
              ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return rotation ``(B, 3, 3)``, centre ``(B, 2)`` and log size ``(B,)`` that the crops show.

    :param poses: ``(B, 4, 4)``
    :param cameras: ``(B, 3, 3)``
    :param transforms: image -> crop ``(B, 2, 3)``
    :param middles: of the objects' boxes in their own frames, ``(B, 3)`` metres
    :param diameters: ``(B,)`` metres
    """
    places = np.einsum('bij,bj->bi', poses[:, :3, :3], middles) + poses[:, :3, 3]
    pixels = np.einsum('bij,bj->bi', cameras, places)
    pixels = pixels / pixels[:, 2:]
    crop = np.einsum('bij,bj->bi', transforms, pixels)
    scale = np.sqrt(np.linalg.det(transforms[:, :, :2]))
    turns = np.zeros_like(poses[:, :3, :3])
    turns[:, :2, :2], turns[:, 2, 2] = transforms[:, :, :2] / scale[:, None, None], 1
    rotations = np.stack([t @ ray_rotation(place).T @ pose[:3, :3] for t, place, pose in zip(turns, places, poses)])
    sizes = np.log(cameras[:, 0, 0] * diameters * scale / places[:, 2] / size)
    return rotations, (crop - (size - 1) / 2) / size, sizes


def symmetric_turns(models: Sequence[ObjectModel]) -> Tensor:
    """Return the rotations of each object's symmetries ``(C, K, 3, 3)``, padded by repeating the identity."""
    count = max(len(m.symmetries) for m in models)
    return torch.from_numpy(np.stack([
        np.concatenate([m.symmetries[:, :3, :3], np.repeat(np.eye(3)[None], count - len(m.symmetries), 0)])
        for m in models])).float()


def surface_clouds(models: Sequence[ObjectModel]) -> Tensor:
    """Return points of each object's surface around the middle of its box, in diameters, ``(C, N, 3)``."""
    return torch.from_numpy(np.stack([
        (m.points[::max(len(m.points) // POINTS, 1)][:POINTS] - m.middle) / m.diameter
        for m in models])).float()


def direct_loss(output: DirectOutput, targets: PoseTargets) -> dict[str, Tensor]:
    """Return the losses ``rotation``, ``centre``, ``size``, ``spread`` and ``class``.

    :raises TypeError: for the targets of another representation
    """
    own = targets.of
    if not isinstance(own, DirectTargets):
        raise TypeError(f'direct regression: expected DirectTargets, got {type(own).__name__}')
    device = output.classes.device
    shown = targets.classes < output.classes.shape[1] - 1
    if targets.posed is not None:
        shown = shown & targets.posed
    classification = F.cross_entropy(output.classes, targets.classes, reduction='none')
    classification = (classification if targets.sure is None else classification * targets.sure).sum()
    classification = classification / shared_mean(torch.tensor(float(len(shown)), device=device))
    rows = shown.nonzero()[:, 0]
    index = targets.classes[rows]
    count = shared_mean(torch.tensor(float(len(rows)), device=device)).clamp(min=1)
    alike = own.rotation[rows, None] @ own.turns[rows]  # (B, K, 3, 3)
    found = output.rotation[rows, index]
    difference = (found[:, None] - alike) @ own.cloud[rows].transpose(1, 2)[:, None]  # (B, K, 3, N)
    distance, nearest = difference.abs().sum(dim=2).mean(dim=2).min(dim=1)
    off_centre = output.centre[rows, index] - own.centre[rows]
    off_size = output.size[rows, index] - own.size[rows]
    with torch.no_grad():
        # ||A - B|| of two rotations is 2 sqrt(2) sin(angle / 2)
        apart = (found - alike[torch.arange(len(rows), device=device), nearest]).flatten(1).norm(dim=1)
        angle = 2 * torch.asin((apart / 8**0.5).clamp(max=1))
        errors = torch.stack([off_centre.square().sum(1) / 2, off_size.square(), angle.square() / 3], dim=1)  # (B, 3)
    spread = output.spread[rows, index]
    # negative log likelihood of normal errors, one, two and three of them sharing a variance
    likelihood = (0.5 * errors * torch.exp(-2 * spread) + spread).sum(dim=1)
    return {
        'rotation': 3 * distance.sum() / count, 'centre': 3 * off_centre.abs().sum() / count,
        'size': off_size.abs().sum() / count, 'spread': 0.05 * likelihood.sum() / count, 'class': 0.5 * classification}


def pose_of(rotation: NDArray[np.float64], centre: NDArray[np.float64], log_size: float, spread: NDArray[np.float64],
            transform: NDArray[np.float64], model: ObjectModel, intrinsics: Intrinsics, size: int) -> Solved | None:
    """Turn what the network says about one crop into pose and covariance; inverse of :func:`crop_pose`.

    The covariance follows from the three variances: of the middle across and along its ray, and of the rotation, which
    turns the CAD frame's origin about the middle. The camera is a pinhole (:mod:`sim2real_da.rectification`).

    :returns: None where the network itself does not trust the rotation, or the object would not lie in its crop
    """
    spreads = np.exp(spread)
    if not np.all(np.isfinite(spreads)) or np.degrees(spreads[2]) > WORST_ROTATION_DEG:
        return None
    camera = intrinsics.matrix()
    scale = float(np.sqrt(np.linalg.det(transform[:, :2])))
    pixel = np.linalg.inv(transform[:, :2]) @ (centre * size + (size - 1) / 2 - transform[:, 2])
    depth = camera[0, 0] * model.diameter * scale / (np.exp(log_size) * size)
    place = depth * np.linalg.inv(camera) @ np.array([pixel[0], pixel[1], 1.0])
    turn = np.eye(3)
    turn[:2, :2] = transform[:, :2] / scale
    whole = ray_rotation(place) @ turn.T @ rotation
    arm = whole @ model.middle
    pose = Pose(quaternion_from_matrix(whole), place - arm)
    if not 0.5 * model.diameter < depth < 100 * model.diameter or not _covers(pose, model, intrinsics, transform, size):
        return None
    across = depth / camera[0, 0] * spreads[0] * size / scale  # metres
    middle = across**2 * np.eye(3) + np.outer(place, place) * spreads[1] ** 2
    # turning about the middle by w moves the origin by -(w x arm) = [arm]x w
    cross = np.array([[0, -arm[2], arm[1]], [arm[2], 0, -arm[0]], [-arm[1], arm[0], 0]])
    covariance = np.zeros((6, 6))
    covariance[3:, 3:] = spreads[2] ** 2 * np.eye(3)
    covariance[:3, 3:] = spreads[2] ** 2 * cross
    covariance[3:, :3] = covariance[:3, 3:].T
    covariance[:3, :3] = middle + spreads[2] ** 2 * cross @ cross.T
    return pose, covariance


def _covers(pose: Pose, model: ObjectModel, intrinsics: Intrinsics, transform: NDArray[np.float64], size: int) -> bool:
    """Whether the object at this pose lies where the crop was cut: in the box that the crop's padding surrounds."""
    drawn = project(transform_points(model.points[::16], pose), intrinsics)
    if not np.all(np.isfinite(drawn)):
        return False
    inside = drawn @ transform[:, :2].T + transform[:, 2]
    margin = size * (1 - 1 / PADDING) / 2
    low = np.stack([inside.min(axis=0), [margin, margin]])
    high = np.stack([inside.max(axis=0), [size - margin, size - margin]])
    common = np.maximum(high.min(axis=0) - low.max(axis=0), 0).prod()
    # a box cut to the crop's square is longer than the object one way: only what is drawn is asked for
    return bool(common >= LEAST_COVER * min((high - low).prod(axis=1)))
