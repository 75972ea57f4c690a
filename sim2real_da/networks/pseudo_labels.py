# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a teacher is sure of in a real picture, as labels a student can be trained with.

A box is believed by its score. A pose is believed on geometry: it has to lie where the object is seen, and the same
object, cut wider and turned in the plane, has to come out in the same pose in every view. A network that guesses gives
different guesses; a symmetric object agrees up to its symmetries. The label is the mean of the views, which is nearer
to the truth than what the student sees in one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.geometry import project, symmetric_angle, transform_points
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import CELL, crop_transform, cut
from sim2real_da.networks.detector import decode
from sim2real_da.networks.estimator import fit, to_tensor
from sim2real_da.networks.pose import AGREEING, mean_pose
from sim2real_da.samples import Frame, Intrinsics, ObjectLabel, ObjectModel, Pose

SURE = 0.4  # score (detector and crop together) from which a box is a label
DOUBTFUL = 0.1  # between the two nothing is asked
AGREE_DEG = 15.0
AGREE_PIXELS = 0.1  # distance of the projected middles, as a share of the box's longer side


@dataclass(frozen=True)
class PseudoLabels:
    """The teacher's labels of one frame.

    :param boxes: believed boxes ``(n, 4)`` xyxy in image pixels
    :param names: their classes
    :param doubtful: boxes ``(m, 4)`` that may be objects
    :param posed: those of the believed ones that have a believed pose, with their visible masks
    """

    frame: Frame
    boxes: NDArray[np.float64]
    names: tuple[str, ...]
    doubtful: NDArray[np.float64]
    posed: tuple[ObjectLabel, ...]


@torch.inference_mode()
def pseudo_labels(teacher: Bundle, frame: Frame, device: torch.device | str = 'cpu',
                  unique: bool = False) -> PseudoLabels:
    """Label one frame; the teacher is in evaluation mode.

    :param unique: every object is in a picture at most once, as on a desk with one of each: beside a believed box the
        others of its class are background, not doubtful
    """
    fitted, scale = fit(frame.image, teacher.detector.input_size)
    boxes, scores, classes = decode(teacher.detector(to_tensor([fitted], device)), DOUBTFUL**2, 30)[0]
    found = (boxes.cpu().numpy().astype(np.float64) + 0.5) / scale - 0.5
    height, width = frame.image.shape[:2]
    found = np.clip(found, 0, [width, height, width, height])
    kept = np.flatnonzero((found[:, 2:] - found[:, :2]).min(axis=1, initial=np.inf) >= 4)
    found, index = found[kept], classes.cpu().numpy()[kept]
    if not len(found):
        return PseudoLabels(frame, found, (), found, ())
    size = teacher.pose.crop_size
    views = [[crop_transform(box, size, turn, padding) for box in found] for turn, padding in AGREEING]
    output = teacher.pose(to_tensor([cut(frame.image, t, size) for view in views for t in view], device))
    rows = torch.arange(len(found))
    agreement = output.classes[:len(found)].softmax(1)[rows, index].cpu().numpy()
    together = np.sqrt(scores.cpu().numpy()[kept] * agreement)
    models, posed = list(teacher.objects.values()), []
    sure = together >= SURE
    doubtful = ~sure & (together >= DOUBTFUL)
    if unique:
        for c in np.unique(index[sure]):
            others = index == c
            others[np.argmax(np.where(others, together, -1))] = False
            sure &= ~others
            doubtful &= ~others
    believed = [int(i) for i in np.flatnonzero(sure)]
    names = [int(index[i]) for i in believed]
    if believed:
        poses = [output.poses([i + view * len(found) for i in believed], names, [views[view][i] for i in believed],
                              [models[c] for c in names], frame.intrinsics) for view in range(len(AGREEING))]
        for i, c, mask, solved in zip(believed, names, output.masks(believed, names), zip(*poses)):
            agreed = _consensus([s[0] for s in solved if s], found[i], frame, models[c]) if all(solved) else None
            if agreed is not None:
                shown = None if mask is None else _in_image(mask, views[0][i], frame)
                posed.append(ObjectLabel(models[c].name, found[i], agreed, None, shown))
    return PseudoLabels(
        frame, found[sure], tuple(models[c].name for c in names), found[doubtful], tuple(posed))


def disagreement(first: Pose, second: Pose, box: NDArray[np.float64], intrinsics: Intrinsics,
                 model: ObjectModel) -> tuple[float, float]:
    """Return how far two views' poses of one object are apart.

    :param box: of the object, xyxy in image pixels
    :returns: angle in degrees up to the object's symmetries, and the distance of the projected middles as a share of
        the box's longer side
    """
    middle = model.middle[None]
    places = [project(transform_points(middle, pose), intrinsics)[0] for pose in (first, second)]
    apart = float(np.linalg.norm(places[0] - places[1])) / float((box[2:] - box[:2]).max())
    return float(symmetric_angle(first.quaternion, second.quaternion, model.symmetries)), apart


def _consensus(poses: list[Pose], box: NDArray[np.float64], frame: Frame, model: ObjectModel) -> Pose | None:
    """Return the mean of the views' poses, or None when one of them is far from the first."""
    for pose in poses[1:]:
        degrees, apart = disagreement(poses[0], pose, box, frame.intrinsics, model)
        if not (degrees < AGREE_DEG and apart < AGREE_PIXELS):  # also when one is not a number
            return None
    return mean_pose(poses, model)


def _in_image(mask: NDArray[np.float32], transform: NDArray[np.float64], frame: Frame) -> NDArray[np.bool_]:
    """Return a crop's mask ``(s, s)`` in the picture ``(H, W)``."""
    cells = transform / CELL
    cells[:, 2] -= (CELL - 1) / 2 / CELL
    height, width = frame.image.shape[:2]
    spread = cv2.warpAffine(mask, cells, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(spread > 0.5)
