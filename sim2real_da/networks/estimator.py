# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""From a picture to detections with poses: find with the detector, look closely with the pose network, see outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import decode
from sim2real_da.networks.pose import VIEWS, PoseNetwork, PoseOutput, Solved, apparent_box, combined, scaled_covariance
from sim2real_da.networks.refinement import Found, refined
from sim2real_da.rectification import original_box, pinhole, straightened
from sim2real_da.samples import Detection, Intrinsics, ObjectModel

# A weaker detection is reported (average precision needs it) but not posed: perspective-n-point is most of the time of
# a picture, and nobody grasps at a guess.
POSE_SCORE = 0.2


def fit(image: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
    """Resize an image to fit into (width, height), keep its aspect and pad right and below with black.

    :returns: the picture ``(height, width, 3)`` and the scale input pixel / image pixel
    """
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (min(round(width * scale), size[0]), min(round(height * scale), size[1]))
    if inner != (width, height):
        image = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if inner != size:
        image = cv2.copyMakeBorder(image, 0, size[1] - inner[1], 0, size[0] - inner[0], cv2.BORDER_CONSTANT)
    return image, scale


def to_tensor(images: list[NDArray[np.uint8]], device: str | torch.device = 'cpu') -> Tensor:
    """Stack uint8 images ``(H, W, 3)`` to floats ``(B, 3, H, W)`` in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return stacked.permute(0, 3, 1, 2).float().div_(255)


def poses(network: PoseNetwork, output: PoseOutput, image: NDArray[np.uint8], intrinsics: Intrinsics,
          rows: Sequence[int], boxes: Sequence[NDArray[np.float64]], transforms: Sequence[NDArray[np.float64]],
          classes: Sequence[int], models: Sequence[ObjectModel]) -> list[Solved | None]:
    """Return poses as the mean of the network's views, None where most of them give none.

    :param output: of the first view, of whose rows ``rows`` are asked for; the other lists have an entry for each
    :param models: of all classes
    """
    views = seen(network, output, image, intrinsics, rows, boxes, transforms, classes, models)
    return [combined(own, models[c]) for own, c in zip(views, classes)]


def seen(network: PoseNetwork, output: PoseOutput, image: NDArray[np.uint8], intrinsics: Intrinsics,
         rows: Sequence[int], boxes: Sequence[NDArray[np.float64]], transforms: Sequence[NDArray[np.float64]],
         classes: Sequence[int], models: Sequence[ObjectModel]) -> list[tuple[Solved | None, ...]]:
    """Return the poses of each of the network's views; parameters as of :func:`poses`.

    A network that looks twice takes these views around the poses of its first look.
    """
    own = [models[c] for c in classes]
    first = output.poses(rows, classes, transforms, own, intrinsics)
    if network.looks == 1:
        more = _views(network, image, intrinsics, boxes, classes, own, VIEWS[1:network.views])
        return list(zip(first, *more))
    known = {i: solved[0] for i, solved in enumerate(first) if solved is not None}
    around = [apparent_box(pose, own[i], intrinsics) for i, pose in known.items()]
    again = _views(network, image, intrinsics, around, [classes[i] for i in known], [own[i] for i in known],
                   VIEWS[:network.views])
    looks = dict(zip(known, zip(*again)))
    return [looks.get(i, ()) for i in range(len(first))]


def _views(network: PoseNetwork, image: NDArray[np.uint8], intrinsics: Intrinsics,
           boxes: Sequence[NDArray[np.float64]], classes: Sequence[int], models: Sequence[ObjectModel],
           views: Sequence[tuple[float, float]]) -> list[list[Solved | None]]:
    """Return for each view the poses that crops around the boxes give."""
    size, count = network.crop_size, len(boxes)
    cuts = [crop_transform(box, size, *view) for view in views for box in boxes]
    if not cuts:
        return []
    device = next(network.parameters()).device
    output = network(to_tensor([cut(image, t, size) for t in cuts], device))
    return [output.poses(range(first, first + count), classes, cuts[first:first + count], models, intrinsics)
            for first in range(0, len(cuts), count)]


class Estimator:
    """Runs a bundle on pictures.

    :param score_threshold: weaker detections are dropped
    :param max_detections: best ones kept
    :param outlines: whether poses are put on outlines where the weights have a network for it
    """

    def __init__(self, bundle: Bundle, device: str = 'cpu', score_threshold: float = 0.3,
                 max_detections: int = 20, outlines: bool = True) -> None:
        self.device = torch.device(device)
        self.score_threshold, self.max_detections = score_threshold, max_detections
        self.bundle, self._outline = bundle, bundle.outline if outlines else None
        bundle.to(self.device).eval()

    def estimate(self, image: NDArray[np.uint8], intrinsics: Intrinsics) -> list[Detection]:
        """Return what is in a uint8 RGB image ``(H, W, 3)``, best first; without a trusted pose one has none.

        A picture through a lens is straightened first; boxes are pixels of the image as it came.
        """
        straight = image if intrinsics.pinhole else straightened(image, intrinsics)
        found = self._estimate(straight, pinhole(intrinsics))
        return found if intrinsics.pinhole else [replace(d, box=original_box(d.box, intrinsics)) for d in found]

    @torch.inference_mode()
    def _estimate(self, image: NDArray[np.uint8], intrinsics: Intrinsics) -> list[Detection]:
        bundle = self.bundle
        boxes, scores, classes = self._detect(bundle, image)
        if not len(boxes):
            return []
        size = bundle.pose.crop_size
        transforms = [crop_transform(box, size) for box in boxes]
        output = bundle.pose(to_tensor([cut(image, t, size) for t in transforms], self.device))
        # The crop sees what the detector could not: both have to agree for a high score.
        agreement = output.classes.softmax(1)[torch.arange(len(classes)), classes].cpu().numpy()
        scores = np.sqrt(scores * agreement)
        models = list(bundle.objects.values())
        order = [int(i) for i in np.argsort(-scores)[:self.max_detections] if scores[i] >= self.score_threshold]
        posed = [i for i in order if scores[i] >= POSE_SCORE]
        indices = classes.tolist()
        views = seen(bundle.pose, output, image, intrinsics, posed, [boxes[i] for i in posed],
                     [transforms[i] for i in posed], [indices[i] for i in posed], models) if posed else []
        found = {i: solved for i, own in zip(posed, views)
                 if (solved := combined(own, models[indices[i]])) is not None}
        if self._outline is not None and found:
            looks = dict(zip(posed, views))
            found = dict(zip(found, refined(
                [Found(models[indices[i]], float(scores[i]), *solved, [v[0] for v in looks[i] if v is not None],
                       bundle.log_sizes.get(models[indices[i]].name, 0.0))
                 for i, solved in found.items()], image, intrinsics, self._outline)))
        detections = []
        for i in order:
            pose, covariance = found.get(i) or (None, None)
            if covariance is not None:
                covariance = scaled_covariance(covariance, bundle.covariance_factors)
            detections.append(Detection(models[indices[i]].name, float(scores[i]), boxes[i], pose, covariance))
        return detections

    def _detect(self, bundle: Bundle, image: NDArray[np.uint8]) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Return boxes in image pixels ``(n, 4)``, scores ``(n,)`` and class indices ``(n,)``."""
        fitted, scale = fit(image, bundle.detector.input_size)
        output = bundle.detector(to_tensor([fitted], self.device))
        # the geometric mean with the crop's verdict is taken later, so weaker peaks are let through here
        boxes, scores, classes = decode(output, self.score_threshold**2, 2 * self.max_detections)[0]
        height, width = image.shape[:2]
        # input pixel centres are integers: undo the half-pixel shift of resizing
        pixels = (boxes.cpu().numpy().astype(np.float64) + 0.5) / scale - 0.5
        pixels[:, 0::2] = pixels[:, 0::2].clip(0, width)
        pixels[:, 1::2] = pixels[:, 1::2].clip(0, height)
        keep = (pixels[:, 2] - pixels[:, 0] >= 2) & (pixels[:, 3] - pixels[:, 1] >= 2)
        return pixels[keep], scores.cpu().numpy()[keep], classes.cpu()[torch.from_numpy(keep)]
