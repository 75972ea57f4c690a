# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher's labels of stored crops: a class each, and a pose where its views of the crop agree.

As :mod:`sim2real_da.networks.pseudo_labels` for frames: a pose is believed on geometry. The crop is turned in the plane
by the same angles, every view has to give the same rotation, up to the object's symmetries, and the same middle; the
label is their mean. Views cannot be cut wider here, a stored crop has no more picture around it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.crops import PADDING
from sim2real_da.networks.direct_pose import DirectOutput
from sim2real_da.networks.pose import AGREEING, DirectTargets, PoseTargets
from sim2real_da.networks.pseudo_labels import AGREE_DEG, AGREE_PIXELS


@torch.no_grad()
def crop_labels(teacher: nn.Module, images: Tensor, turns: Tensor, clouds: Tensor) -> tuple[PoseTargets, Tensor]:
    """Label crops; the teacher is in evaluation mode.

    A crop shows one of the objects: "none of them" is no answer.

    :param images: ``(B, 3, S, S)`` in [0, 1]
    :param turns: rotations that leave each object's look as it is, ``(C, K, 3, 3)``
    :param clouds: surface points of each object, ``(C, N, 3)``
    :returns: the labels, with ``posed`` where the views agree, and the probability of the class ``(B,)``
    :raises TypeError: for a network that does not give rotations
    """
    angles = [angle for angle, _ in AGREEING]
    output = teacher(torch.cat([turned(images, angle) for angle in angles]))
    if not isinstance(output, DirectOutput):
        raise TypeError('crops: expected a network of direct rotations')
    count = len(images)
    confidence, classes = output.classes[:count].softmax(dim=1)[:, :-1].max(dim=1)
    rows = torch.arange(len(output.classes), device=images.device)
    asked = classes.repeat(len(angles))
    shape = (len(angles), count)
    rotations = output.rotation[rows, asked].unflatten(0, shape)  # (V, B, 3, 3)
    middles = output.centre[rows, asked].unflatten(0, shape)
    size = output.size[rows, asked].unflatten(0, shape).mean(dim=0)
    back = torch.stack([in_plane(-angle) for angle in angles]).to(rotations)[:, None]
    own = turns.to(rotations)[classes]
    rotations, middles = back @ rotations, (back[..., :2, :2] @ middles[..., None])[..., 0]
    # of all rotations that look alike, the one nearest to the first view's
    alike = rotations[:, :, None] @ own  # (V, B, K, 3, 3)
    trace = (alike * rotations[0, :, None]).sum(dim=(-2, -1))
    largest, nearest = trace.max(dim=2)
    apart = torch.rad2deg(torch.arccos(((largest - 1) / 2).clamp(-1, 1)))
    shift = (middles - middles[0]).norm(dim=2) * PADDING  # in sides of the box
    agree = ((apart < AGREE_DEG) & (shift < AGREE_PIXELS)).all(dim=0)
    kept = alike.gather(2, nearest[..., None, None, None].expand(-1, -1, 1, 3, 3))[:, :, 0]
    targets = DirectTargets(
        mean_rotation(kept), middles.mean(dim=0), size, clouds.to(images)[classes], turns.to(images)[classes])
    return PoseTargets(classes, targets, posed=agree), confidence


def in_plane(angle: float) -> Tensor:
    """Return the turn about the optical axis that turning a crop by ``angle`` (radians, x to y) is, ``(3, 3)``."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def turned(images: Tensor, angle: float) -> Tensor:
    """Return square pictures ``(B, 3, S, S)`` turned about their middle, x to y; the border goes on outside."""
    if not angle:
        return images
    where = in_plane(-angle)[:2].clone()  # from the turned picture to this one
    where[:, 2] = 0
    grid = F.affine_grid(where.to(images).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode='border', align_corners=False)


def mean_rotation(rotations: Tensor) -> Tensor:
    """Return the mean in the chordal sense of ``(V, B, 3, 3)``: ``(B, 3, 3)``."""
    left, _, right = torch.linalg.svd(rotations.mean(dim=0))
    sign = torch.ones_like(left[:, 0])
    sign[:, 2] = torch.linalg.det(left @ right)
    return left @ torch.diag_embed(sign) @ right
