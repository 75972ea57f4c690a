# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""From labelled frames to the tensors one training step needs; offline training and the online learner share it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim2real_da.networks.crops import CELL, coordinate_maps, crop_transform, cut
from sim2real_da.networks.detector import STRIDE, DetectorTargets, detector_targets
from sim2real_da.networks.estimator import fit, to_tensor
from sim2real_da.networks.pose import PoseTargets, normalised_symmetries
from sim2real_da.samples import Frame, LabelledFrame, ObjectModel

LEAST_VISIBLE = 0.1  # below it an object is neither wanted nor counted (the recall of the metrics starts there)


def class_map(labelled: LabelledFrame, classes: Sequence[str]) -> NDArray[np.uint8] | None:
    """Return 0 for background and 1 + class index ``(H, W)``, or None when a label has no mask."""
    if any(label.mask is None for label in labelled.labels):
        return None
    out = np.zeros(labelled.frame.image.shape[:2], np.uint8)
    for label in labelled.labels:
        out[label.mask] = 1 + classes.index(label.name)
    return out


def window(frame: Frame, size: tuple[int, int], rng: np.random.Generator | None,
           full: tuple[int, int]) -> NDArray[np.float64]:
    """Return the affine map image -> input ``(2, 3)``.

    :param size: (width, height) of the input
    :param rng: None fits the whole frame; else scale and place are drawn around that
    :param full: (width, height) the whole frame is fitted into at run time, which gives the scale its middle
    """
    height, width = frame.image.shape[:2]
    scale = min(full[0] / width, full[1] / height)
    shift = np.zeros(2)
    if rng is not None:
        scale *= float(np.exp(rng.uniform(np.log(0.75), np.log(1.45))))
        room = np.array([width * scale - size[0], height * scale - size[1]])
        shift = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    # pixel centres are integers: a resize also shifts by half a pixel
    return np.column_stack([np.eye(2) * scale, (scale - 1) / 2 - shift])


def detector_batch(
    frames: Sequence[LabelledFrame], classes: Sequence[str], full: tuple[int, int],
    rng: np.random.Generator | None = None, size: tuple[int, int] | None = None, device: torch.device | str = 'cpu',
) -> tuple[Tensor, DetectorTargets]:
    """Return images ``(B, 3, h, w)`` in [0, 1] and the detector's targets.

    :param full: the detector's input (width, height)
    :param rng: draws scale and place anew for every frame; None takes whole frames as perception does
    :param size: train on windows of this (width, height); the input size when None
    """
    size = size or full
    images, boxes, indices, maps = [], [], [], []
    for labelled in frames:
        transform = window(labelled.frame, size, rng, full)
        scale = transform[0, 0]
        images.append(_warp(labelled.frame.image, transform, size, cv2.INTER_LINEAR))
        kept, names = [], []
        for label in labelled.labels:
            if label.visible is not None and label.visible < LEAST_VISIBLE:
                continue
            whole = label.box * scale + np.tile(transform[:, 2], 2)
            inside = np.clip(whole, 0, [size[0], size[1], size[0], size[1]])
            area = np.prod(np.maximum(inside[2:] - inside[:2], 0))
            if area > 0.35 * np.prod(whole[2:] - whole[:2]) and area > 9:
                kept.append(inside)
                names.append(classes.index(label.name))
        boxes.append(np.array(kept).reshape(-1, 4))
        indices.append(np.array(names, dtype=np.int64))
        semantic = class_map(labelled, classes)
        if semantic is not None:
            grid = transform / STRIDE
            grid[:, 2] -= (STRIDE - 1) / 2 / STRIDE
            semantic = _warp(semantic, grid, (size[0] // STRIDE, size[1] // STRIDE), cv2.INTER_NEAREST)
        maps.append(semantic)
    targets = detector_targets(boxes, indices, size, len(classes), maps, device)
    return to_tensor(images, device), targets


def target_images(frames: Sequence[Frame], full: tuple[int, int], device: torch.device | str = 'cpu') -> Tensor:
    """Return unlabelled frames as the detector's input ``(B, 3, h, w)`` in [0, 1]."""
    return to_tensor([fit(frame.image, full)[0] for frame in frames], device)


def _warp(image: NDArray[np.uint8], transform: NDArray[np.float64], size: tuple[int, int],
          interpolation: int) -> NDArray[np.uint8]:
    """Warp; when it shrinks a picture (not a label map) by half or more it averages first, as perception's resize."""
    scale = transform[0, 0]
    if interpolation == cv2.INTER_LINEAR and scale <= 0.75:
        height, width = image.shape[:2]
        inner = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
        transform = np.array([[1.0, 0, transform[0, 2] - (scale - 1) / 2], [0, 1.0, transform[1, 2] - (scale - 1) / 2]])
    return np.asarray(cv2.warpAffine(image, transform, size, flags=interpolation))


class PoseBatcher:
    """Cuts labelled crops and makes their targets.

    :param objects: the label map
    :param crop_size: side of the crop in pixels
    :param turn: crops are turned in the plane by up to this many degrees
    """

    def __init__(self, objects: dict[str, ObjectModel], crop_size: int, turn: float = 20.0,
                 device: torch.device | str = 'cpu') -> None:
        self.names, self.crop_size, self.turn, self.device = list(objects), crop_size, turn, torch.device(device)
        models = list(objects.values())
        count = max(len(m.symmetries) for m in models)
        symmetries = np.stack([
            np.concatenate([normalised_symmetries(m), np.repeat(np.eye(4)[None, :3], count - len(m.symmetries), 0)])
            for m in models])  # (C, K, 3, 4)
        # the last row stands for "none of them"
        self.symmetries = torch.from_numpy(np.concatenate([symmetries, symmetries[:1]])).float().to(self.device)
        least = min(len(m.points) for m in models)
        self.points = torch.from_numpy(np.stack([m.points[:least] for m in models])).float().to(self.device)
        self.diameters = torch.tensor([m.diameter for m in models]).to(self.device)
        self.half = torch.from_numpy(np.stack([m.size / 2 for m in models])).float().to(self.device)
        self.middle = torch.from_numpy(np.stack([m.minimum + m.size / 2 for m in models])).float().to(self.device)

    def batch(
        self, frames: Sequence[LabelledFrame], rng: np.random.Generator, limit: int, least_visible: float = 0.25,
    ) -> tuple[Tensor, PoseTargets] | None:
        """Return crops ``(B, 3, size, size)`` in [0, 1] and targets, at most ``limit``, or None when nothing is seen.

        About one crop in ten shows none of the objects.
        """
        pairs = [(labelled, label) for labelled in frames for label in labelled.labels
                 if label.visible is None or label.visible >= least_visible]
        if not pairs:
            return None
        chosen = [pairs[i] for i in rng.permutation(len(pairs))[:limit]]
        images, masks, classes, poses, cameras, transforms = [], [], [], [], [], []
        side = self.crop_size // CELL
        for number, (labelled, label) in enumerate(chosen):
            frame = labelled.frame
            index = self.names.index(label.name)
            box, mask = label.box, label.mask
            if number % 10 == 9:
                away = _empty_box(labelled, rng)
                if away is not None:
                    box, mask, index = away, None, len(self.names)
            box = _jittered(box, rng)
            angle = float(np.radians(rng.uniform(-self.turn, self.turn)))
            transform = crop_transform(box, self.crop_size, angle)
            images.append(cut(frame.image, transform, self.crop_size))
            if mask is None:
                masks.append(np.full((side, side), -1, np.float32))
            else:
                shown = cut(mask.astype(np.uint8) * 255, transform, self.crop_size)
                share = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
                masks.append((share > 127).astype(np.float32))
            classes.append(index)
            poses.append(label.pose.matrix())
            cameras.append(frame.intrinsics.matrix())
            transforms.append(transform)
        index_tensor = torch.tensor(classes, device=self.device)
        row = index_tensor.clamp(max=len(self.names) - 1)
        to = [torch.from_numpy(np.stack(a)).float().to(self.device) for a in (poses, cameras, transforms, masks)]
        coordinates, known = coordinate_maps(
            self.points[row], to[0], to[1], to[2], self.crop_size, self.diameters[row])
        known &= to[3] != 0
        coordinates = (coordinates - self.middle[row][:, :, None, None]) / self.half[row][:, :, None, None]
        targets = PoseTargets(index_tensor, coordinates * known[:, None], known, to[3], self.symmetries[index_tensor])
        return to_tensor(images, self.device), targets


def _jittered(box: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a box as a detector could have drawn it: moved by up to a tenth, resized by up to 15 %."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + rng.uniform(-0.1, 0.1, 2) * size
    size = size * np.exp(rng.uniform(-0.16, 0.16, 2))
    return np.concatenate([centre - size / 2, centre + size / 2])


def _empty_box(labelled: LabelledFrame, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Return a random box that hardly touches a labelled object, or None when ten draws all did."""
    height, width = labelled.frame.image.shape[:2]
    taken = np.array([label.box for label in labelled.labels]).reshape(-1, 4)
    for _ in range(10):
        side = rng.uniform(0.06, 0.25) * width
        corner = rng.uniform([0, 0], [max(width - side, 1), max(height - side, 1)])
        box = np.concatenate([corner, corner + side])
        overlap = np.maximum(np.minimum(box[2:], taken[:, 2:]) - np.maximum(box[:2], taken[:, :2]), 0).prod(axis=1)
        if not (overlap > 0.1 * side * side).any():
            return box
    return None
