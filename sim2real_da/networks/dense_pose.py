# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Dense pose network: from a square crop to the object's dense coordinates, its mask and its class; PnP makes the pose.

Dense object coordinates (Brachmann et al., ECCV 2014; Pix2Pose, Park et al., ICCV 2019): every visible pixel says
which point of the CAD frame it shows. Rotation and translation follow from the camera by perspective-n-point, so
nothing has to be learnt about rotations as such, and a crop turned in the plane is a correct training sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.geometry import project, quaternion_from_matrix, transform_points
from sim2real_da.networks.backbones import Normalise, build_backbone, build_fusion
from sim2real_da.networks.crops import cell_centres
from sim2real_da.networks.distributed import shared_mean
from sim2real_da.networks.outputs import Targets
from sim2real_da.networks.pose import DenseTargets, PoseNetwork, PoseOutput, PoseTargets, Solved
from sim2real_da.samples import Intrinsics, ObjectModel, Pose

# A pose is believed only if the picture agrees with it: enough cells have to be inliers of perspective-n-point, and the
# object drawn at that pose has to cover the cells that the mask calls its own (intersection over union of the boxes).
LEAST_INLIERS = 0.2
LEAST_COVER = 0.3


@dataclass
class DenseOutput(PoseOutput):
    """What one forward pass gives.

    :param coordinates: for every class, position in the object's box, -1..1 along each axis, ``(B, C, 3, s, s)``
    :param mask: logits of "this cell shows the object", ``(B, C, s, s)``
    """

    coordinates: Tensor
    mask: Tensor
    classes: Tensor
    features: list[Tensor]

    def rows(self, first: int, last: int | None = None) -> DenseOutput:
        """Return the same for some of the crops, without features."""
        return DenseOutput(self.coordinates[first:last], self.mask[first:last], self.classes[first:last], [])

    def loss(self, targets: Targets) -> dict[str, Tensor]:
        """Return :func:`dense_loss`: the best symmetric variant counts for symmetric objects."""
        if not isinstance(targets, PoseTargets):
            raise TypeError(f'pose network: expected PoseTargets, got {type(targets).__name__}')
        return dense_loss(self, targets)

    def poses(self, rows: Sequence[int], classes: Sequence[int], transforms: Sequence[NDArray[np.float64]],
              models: Sequence[ObjectModel], intrinsics: Intrinsics) -> list[Solved | None]:
        """Return :func:`solve_pose` of some crops."""
        coordinates = self.coordinates[rows, classes].float().cpu().numpy()
        return [solve_pose(c, m, t, model, intrinsics) for c, m, t, model in zip(
            coordinates, self._masks(rows, classes), transforms, models)]

    def masks(self, rows: Sequence[int], classes: Sequence[int]) -> list[NDArray[np.float32] | None]:
        """Return which cells show the object, probability ``(s, s)``."""
        return list(self._masks(rows, classes))

    def _masks(self, rows: Sequence[int], classes: Sequence[int]) -> NDArray[np.float32]:
        return np.asarray(self.mask[rows, classes].float().sigmoid().cpu().numpy())


class DensePoseNetwork(PoseNetwork):
    """Backbone and pyramid at stride 4, one upsampling to stride 2, class-conditional output channels.

    :param classes: number of object classes C
    :param crop_size: side of the square crop in pixels, a multiple of 32
    :param frozen: the backbone's weights and statistics stay as they are
    """

    targets = DenseTargets

    def __init__(self, classes: int, backbone: str = 'resnet_tiny', crop_size: int = 64, width: int = 48,
                 frozen: bool = False) -> None:
        super().__init__({'representation': 'dense', 'classes': classes, 'backbone': backbone, 'crop_size': crop_size,
                          'width': width, 'frozen': frozen}, crop_size)
        self.classes = classes
        self.normalise = Normalise()
        self.backbone = build_backbone(backbone, frozen)
        self.pyramid = build_fusion(backbone, self.backbone.channels, width)
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.dense = nn.Conv2d(width, classes * 4, 1)
        self.classify = nn.Linear(self.backbone.channels[-1], classes + 1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the maps in ``PoseOutput.features``."""
        return (self.config['width'],) if self.config['frozen'] else tuple(self.backbone.channels[1:3])

    def forward(self, crop: Tensor) -> DenseOutput:
        """Run on crops ``(B, 3, size, size)`` in [0, 1]."""
        maps = self.backbone(self.normalise(crop))
        merged = self.pyramid(maps)
        dense = self.dense(self.upsample(merged)).unflatten(1, (self.classes, 4))  # (B, C, 4, s, s)
        return DenseOutput(dense[:, :, :3], dense[:, :, 3], self.classify(maps[-1].mean(dim=(2, 3))),
                           [merged] if self.config['frozen'] else maps[1:3])


def normalised_symmetries(model: ObjectModel) -> NDArray[np.float64]:
    """Return the symmetries ``(K, 3, 4)`` acting on coordinates scaled to -1..1 in the object's box."""
    to_metres = np.eye(4)
    to_metres[:3, :3] = np.diag(model.size / 2)
    to_metres[:3, 3] = model.middle
    return np.asarray((np.linalg.inv(to_metres) @ model.symmetries @ to_metres)[:, :3])


def dense_loss(output: DenseOutput, targets: PoseTargets) -> dict[str, Tensor]:
    """Return the supervised losses ``coordinates`` (L1, best symmetric variant), ``mask`` and ``class``.

    A symmetric object has several right answers; the loss counts the nearest, for the whole crop at once.
    """
    own = targets.of
    if not isinstance(own, DenseTargets):
        raise TypeError(f'dense coordinates: expected DenseTargets, got {type(own).__name__}')
    device = output.classes.device
    shown = targets.classes < output.classes.shape[1] - 1
    classification = F.cross_entropy(output.classes, targets.classes, reduction='sum')
    classification = classification / shared_mean(torch.tensor(float(len(shown)), device=device))
    rows = shown.nonzero()[:, 0]
    index = targets.classes[rows]
    found, mask = output.coordinates[rows, index], output.mask[rows, index]  # (B, 3, s, s), (B, s, s)
    true, known = own.coordinates[rows], own.known[rows]
    s = own.symmetries[rows]
    # (B, K, 3, s, s): every symmetric variant of the true coordinates
    variants = torch.einsum('bkij,bjhw->bkihw', s[..., :3], true) + s[..., 3, None, None]
    error = (found[:, None] - variants).abs().sum(dim=2)  # (B, K, s, s)
    cells = known.sum(dim=(1, 2)).clamp(min=1)
    per_variant = (error * known[:, None]).sum(dim=(2, 3)) / cells[:, None]  # (B, K)
    count = shared_mean(torch.tensor(float(len(rows)), device=device)).clamp(min=1)
    coordinates = per_variant.amin(dim=1).sum() / count
    where = own.mask[rows] >= 0
    mask_loss = F.binary_cross_entropy_with_logits(mask[where], own.mask[rows][where], reduction='sum')
    mask_loss = mask_loss / shared_mean(where.sum().float()).clamp(min=1)
    return {'coordinates': coordinates, 'mask': 0.5 * mask_loss, 'class': 0.5 * classification}


def solve_pose(
    coordinates: NDArray[np.float32], mask: NDArray[np.float32], transform: NDArray[np.float64],
    model: ObjectModel, intrinsics: Intrinsics,
) -> Solved | None:
    """Return the pose and its covariance from one crop's dense coordinates, or None where no pose can be trusted.

    RANSAC over the visible cells (OpenCV), then Levenberg-Marquardt on the inliers.

    :param coordinates: -1..1, ``(3, s, s)``
    :param mask: probability ``(s, s)``
    :param transform: image -> crop, ``(2, 3)``
    :returns: pose, covariance ``(6, 6)`` in the order x y z rx ry rz (metres, radians), or None; rx ry rz is a small
        rotation about the camera's axes, applied from the left, as geometry_msgs/PoseWithCovariance has it
    """
    seen = mask > 0.5
    if seen.sum() < 8:
        return None
    size = mask.shape[0] * 2
    crop_pixels = cell_centres(size)[seen]  # (n, 2)
    linear_inverse = np.linalg.inv(transform[:, :2])
    pixels = (crop_pixels - transform[:, 2]) @ linear_inverse.T
    points = coordinates[:, seen].T.astype(np.float64) * (model.size / 2) + model.minimum + model.size / 2
    camera = intrinsics.matrix()
    cell = 2 * float(np.sqrt(abs(np.linalg.det(linear_inverse))))  # image pixels per cell of the map
    cv2.setRNGSeed(0)
    try:
        ok, rvec, tvec, inliers = cv2.solvePnPRansac(
            points, pixels, camera, None, iterationsCount=60, reprojectionError=1.5 * cell, confidence=0.999,
            flags=cv2.SOLVEPNP_EPNP)
        if not ok or inliers is None or len(inliers) < max(8, LEAST_INLIERS * len(points)):
            return None
        inliers = inliers[:, 0]
        rvec, tvec = cv2.solvePnPRefineLM(points[inliers], pixels[inliers], camera, None, rvec, tvec)
    except cv2.error:  # degenerate point sets (all cells on one line) make OpenCV's solvers raise
        return None
    translation = tvec[:, 0]
    inside = np.all(np.isfinite(rvec)) and np.all(np.isfinite(translation))
    if not inside or not 0.5 * model.diameter < translation[2] < 100 * model.diameter:
        return None
    rotation = cv2.Rodrigues(rvec)[0]
    pose = Pose(quaternion_from_matrix(rotation), translation)
    if not _covers(pose, model, intrinsics, pixels):
        return None
    # OpenCV differentiates by the rotation vector, which is no rotation about fixed axes, but at zero it is one: the
    # points are turned beforehand.
    turned = points[inliers] @ rotation.T
    projected, jacobian = cv2.projectPoints(turned, np.zeros(3), tvec, camera, None)
    residual = (projected[:, 0] - pixels[inliers]).ravel()
    jacobian = jacobian[:, :6]  # derivatives by rotation, then translation
    information = jacobian.T @ jacobian
    # Neighbouring cells err together: one independent measurement in a patch of 4 x 4 cells.
    variance = 16 * max(float(residual @ residual) / max(len(residual) - 6, 1), (0.1 * cell) ** 2)
    try:
        covariance = np.linalg.inv(information) * variance
    except np.linalg.LinAlgError:
        return None
    order = [3, 4, 5, 0, 1, 2]
    covariance = covariance[np.ix_(order, order)]
    covariance = (covariance + covariance.T) / 2
    if not np.all(np.isfinite(covariance)) or np.linalg.eigvalsh(covariance)[0] <= 0:
        return None
    return pose, covariance


def _covers(pose: Pose, model: ObjectModel, intrinsics: Intrinsics, seen: NDArray[np.float64]) -> bool:
    """Whether the object at this pose lies where it is seen.

    :param seen: image pixels of the cells inside the mask, ``(n, 2)``
    """
    drawn = project(transform_points(model.points[::16], pose), intrinsics)
    if not np.all(np.isfinite(drawn)):
        return False
    low = np.stack([drawn.min(axis=0), seen.min(axis=0)])
    high = np.stack([drawn.max(axis=0), seen.max(axis=0)])
    common = np.maximum(high.min(axis=0) - low.max(axis=0), 0).prod()
    both = (high - low).prod(axis=1).sum() - common
    return bool(common >= LEAST_COVER * both)
