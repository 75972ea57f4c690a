# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""From labelled frames to the tensors one training step needs; offline training and the online learner share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim2real_da.networks.crops import CELL, coordinate_maps, crop_transform, cut
from sim2real_da.networks.dense_pose import normalised_symmetries
from sim2real_da.networks.detector import STRIDE, DetectorTargets, detector_targets
from sim2real_da.networks.direct_pose import crop_pose, surface_clouds, symmetric_turns
from sim2real_da.networks.estimator import fit, to_tensor
from sim2real_da.networks.pose import DenseTargets, DirectTargets, PoseNetwork, PoseTargets, apparent_box
from sim2real_da.networks.pseudo_labels import PseudoLabels
from sim2real_da.samples import Frame, LabelledFrame, ObjectLabel, ObjectModel

Effects = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
#: puts something of another picture in front of an object
Occlusion = Callable[[NDArray[np.uint8], ObjectLabel, NDArray[np.uint8], np.random.Generator],
                     tuple[NDArray[np.uint8], ObjectLabel]]
#: changes colours in a crop, given how much of each of its pixels shows the object (0..255), and another picture
Recolouring = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], np.random.Generator],
                       NDArray[np.uint8]]
CROP_VISIBLE = 0.25  # below it an object gives no crop to train on
DETECTED = 0.16  # logarithm of how much a side of a detector's box may be wrong in training
# The same of the squares of a second look, far more than first poses of simulation err: where crops say how large an
# object is, that is all a network believes of one that looks unfamiliar, and it repeats the first look's error.
POSED = 0.4
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
    effects: Effects | None = None,
) -> tuple[Tensor, DetectorTargets]:
    """Return images ``(B, 3, h, w)`` in [0, 1] and the detector's targets.

    :param full: the detector's input (width, height)
    :param rng: draws scale and place anew for every frame; None takes whole frames as perception does
    :param size: train on windows of this (width, height); the input size when None
    :param effects: applied to every window, for instance :func:`sim2real_da.data.augment.camera_effects`
    """
    wanted = [[label for label in labelled.labels if label.visible is None or label.visible >= LEAST_VISIBLE]
              for labelled in frames]
    samples = [_Sample(labelled.frame, np.array([x.box for x in labels]).reshape(-1, 4), [x.name for x in labels],
                       class_map(labelled, classes))
               for labelled, labels in zip(frames, wanted)]
    return _windows(samples, classes, full, rng, size or full, device, effects)


def pseudo_detector_batch(
    labelled: Sequence[PseudoLabels], classes: Sequence[str], full: tuple[int, int], rng: np.random.Generator,
    size: tuple[int, int], device: torch.device | str = 'cpu', effects: Effects | None = None,
) -> tuple[Tensor, DetectorTargets]:
    """Return the same for frames that a teacher labelled; near its doubtful boxes the heat map is asked for nothing."""
    samples = [_Sample(x.frame, x.boxes, list(x.names), None, x.doubtful) for x in labelled]
    return _windows(samples, classes, full, rng, size, device, effects)


@dataclass
class _Sample:
    """A frame with its boxes ``(n, 4)`` and, maybe, class map ``(H, W)`` and doubtful boxes ``(m, 4)``."""

    frame: Frame
    boxes: NDArray[np.float64]
    names: list[str]
    semantic: NDArray[np.uint8] | None = None
    doubtful: NDArray[np.float64] | None = None


def _windows(
    samples: Sequence[_Sample], classes: Sequence[str], full: tuple[int, int], rng: np.random.Generator | None,
    size: tuple[int, int], device: torch.device | str, effects: Effects | None,
) -> tuple[Tensor, DetectorTargets]:
    images, boxes, indices, maps = [], [], [], []
    ignored = np.zeros((len(samples), size[1] // STRIDE, size[0] // STRIDE), bool)
    for number, sample in enumerate(samples):
        transform = window(sample.frame, size, rng, full)
        scale = transform[0, 0]
        image = _warp(sample.frame.image, transform, size, cv2.INTER_LINEAR)
        images.append(effects(image, rng) if effects and rng is not None else image)
        whole = sample.boxes * scale + np.tile(transform[:, 2], 2)
        inside = np.clip(whole, 0, [size[0], size[1], size[0], size[1]])
        area = np.prod(np.maximum(inside[:, 2:] - inside[:, :2], 0), axis=1)
        kept = (area > 0.35 * np.prod(whole[:, 2:] - whole[:, :2], axis=1)) & (area > 9)
        boxes.append(inside[kept])
        indices.append(np.array([classes.index(n) for n, k in zip(sample.names, kept) if k], dtype=np.int64))
        semantic = sample.semantic
        if semantic is not None:
            grid = transform / STRIDE
            grid[:, 2] -= (STRIDE - 1) / 2 / STRIDE
            semantic = _warp(semantic, grid, (size[0] // STRIDE, size[1] // STRIDE), cv2.INTER_NEAREST)
        maps.append(semantic)
        if sample.doubtful is not None:
            for x0, y0, x1, y1 in np.rint((sample.doubtful * scale + np.tile(transform[:, 2], 2)) / STRIDE).astype(int):
                ignored[number, max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)] = True
    targets = detector_targets(boxes, indices, size, len(classes), maps, device)
    if ignored.any():
        # a believed object keeps its peak
        targets.ignored = torch.from_numpy(ignored).to(device) & (targets.heat.amax(dim=1) < 1)
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
    """Cuts labelled crops and makes a network's targets.

    :param objects: the label map
    :param turn: crops are turned in the plane by up to this many degrees
    :param effects: applied to every crop
    :param occlusion: asked for every object that is shown, with one of the batch's pictures
    :param recolouring: asked for every crop of a frame that has masks, with one of the batch's pictures
    """

    def __init__(self, objects: dict[str, ObjectModel], network: PoseNetwork, turn: float = 20.0,
                 device: torch.device | str = 'cpu', effects: Effects | None = None,
                 occlusion: Occlusion | None = None, recolouring: Recolouring | None = None) -> None:
        self.names, self.turn, self.device = list(objects), turn, torch.device(device)
        self.crop_size, self.dense, self.effects = network.crop_size, network.targets is DenseTargets, effects
        self.objects, self.looks, self.occlusion = objects, network.looks, occlusion
        self.recolouring = recolouring
        models = list(objects.values())
        count = max(len(m.symmetries) for m in models)
        symmetries = np.stack([
            np.concatenate([normalised_symmetries(m), np.repeat(np.eye(4)[None, :3], count - len(m.symmetries), 0)])
            for m in models])  # (C, K, 3, 4)
        self.middles = np.stack([m.middle for m in models])
        self.diameters = np.array([m.diameter for m in models])
        least = min(len(m.points) for m in models)
        self.turns, self.cloud = symmetric_turns(models).to(self.device), surface_clouds(models).to(self.device)
        self.symmetries, self.points, self.half, self.middle = (
            torch.from_numpy(np.asarray(a)).float().to(self.device) for a in (
                symmetries, np.stack([m.points[:least] for m in models]), np.stack([m.size / 2 for m in models]),
                self.middles))

    def batch(
        self, frames: Sequence[LabelledFrame], rng: np.random.Generator, limit: int,
        least_visible: float = CROP_VISIBLE, empty: bool = True,
    ) -> tuple[Tensor, PoseTargets, Tensor | None] | None:
        """Return crops ``(B, 3, size, size)`` in [0, 1], targets and masks, or None when nothing is seen.

        The masks ``(B, 1, size, size)`` in 0..1 show the object; None where an object has none.

        :param limit: of the number of crops
        :param empty: about one crop in ten shows none of the objects; False where not all objects are labelled
        """
        pairs = [(labelled, label) for labelled in frames for label in labelled.labels
                 if label.visible is None or label.visible >= least_visible]
        if not pairs:
            return None
        chosen = [pairs[i] for i in rng.permutation(len(pairs))[:limit]]
        images, masks, classes, poses, cameras, transforms = [], [], [], [], [], []
        for number, (labelled, label) in enumerate(chosen):
            frame = labelled.frame
            index, image = self.names.index(label.name), frame.image
            away = _empty_box(labelled, rng) if empty and number % 10 == 9 else None
            if self.occlusion is not None and away is None:
                image, label = self.occlusion(image, label, _picture_of(chosen, rng), rng)
            box, mask = label.box, label.mask
            if away is not None:
                # nothing of it shows the object, and it gets other contrast as the surroundings of objects do
                box, index = away, len(self.names)
                mask = None if mask is None else np.zeros_like(mask)
            if self.looks > 1 and number % 2 and index < len(self.names):
                square = apparent_box(label.pose, self.objects[label.name], frame.intrinsics)
                box = _jittered(square, rng, POSED, sides=1)
            else:
                box = _jittered(box, rng)
            angle = float(np.radians(rng.uniform(-self.turn, self.turn)))
            transform = crop_transform(box, self.crop_size, angle)
            image = cut(image, transform, self.crop_size)
            shown = None if mask is None else cut(mask.astype(np.uint8) * 255, transform, self.crop_size)
            if self.recolouring is not None and shown is not None:
                image = self.recolouring(image, shown, _picture_of(chosen, rng), rng)
            images.append(self.effects(image, rng) if self.effects else image)
            masks.append(shown)
            classes.append(index)
            poses.append(label.pose.matrix())
            cameras.append(frame.intrinsics.matrix())
            transforms.append(transform)
        indices = torch.tensor(classes, device=self.device)
        # "none of them" borrows the last object's row; no loss looks at it
        rows = indices.clamp(max=len(self.names) - 1)
        views = (np.stack(poses), np.stack(cameras), np.stack(transforms))
        own = self._dense(rows, *views, [self._mask(m) for m in masks]) if self.dense else self._direct(rows, *views)
        known = [m for m in masks if m is not None]
        whole = torch.from_numpy(np.stack(known)).to(self.device)[:, None] / 255 if len(known) == len(masks) else None
        return to_tensor(images, self.device), PoseTargets(indices, own), whole

    def _mask(self, shown: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        side = self.crop_size // CELL
        if shown is None:
            return np.full((side, side), -1, np.float32)
        share = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
        return (share > 127).astype(np.float32)

    def _dense(self, rows: Tensor, poses: NDArray[np.float64], cameras: NDArray[np.float64],
               transforms: NDArray[np.float64], masks: list[NDArray[np.float32]]) -> DenseTargets:
        to = [torch.from_numpy(a).float().to(self.device) for a in (poses, cameras, transforms, np.stack(masks))]
        diameters = torch.from_numpy(self.diameters).float().to(self.device)[rows]
        coordinates, known = coordinate_maps(self.points[rows], to[0], to[1], to[2], self.crop_size, diameters)
        known &= to[3] != 0
        coordinates = (coordinates - self.middle[rows][:, :, None, None]) / self.half[rows][:, :, None, None]
        return DenseTargets(coordinates * known[:, None], known, to[3], self.symmetries[rows])

    def _direct(self, rows: Tensor, poses: NDArray[np.float64], cameras: NDArray[np.float64],
                transforms: NDArray[np.float64]) -> DirectTargets:
        which = rows.cpu().numpy()
        made = crop_pose(poses, cameras, transforms, self.middles[which], self.diameters[which], self.crop_size)
        rotation, centre, size = (torch.from_numpy(a).float().to(self.device) for a in made)
        return DirectTargets(rotation, centre, size, self.cloud[rows], self.turns[rows])


def _picture_of(pairs: Sequence[tuple[LabelledFrame, ObjectLabel]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one of the pictures."""
    return pairs[int(rng.integers(len(pairs)))][0].frame.image


def _jittered(box: NDArray[np.float64], rng: np.random.Generator, by: float = DETECTED,
              sides: int = 2) -> NDArray[np.float64]:
    """Return a box moved by up to a tenth and resized by up to exp(``by``) either way.

    :param sides: 2: each side by itself, as a detector errs; 1: both alike, as a first pose errs
    """
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + rng.uniform(-0.1, 0.1, 2) * size
    size = size * np.exp(rng.uniform(-by, by, sides))
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
