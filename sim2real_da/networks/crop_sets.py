# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Stored crops of objects with class and pose: PixelDA's own case, measured on the network the robot runs.

Source crops are cut from rendered frames, with everything but the object made black, with a photograph behind it, or as
they are; target crops from photographs. Boxes are the true ones on both sides, as in the cropped data sets of the
literature: what is measured is the pose network, not the detector.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from sim2real_da.data.augment import camera_effects
from sim2real_da.data.batches import rows
from sim2real_da.data.bop import BopDataset
from sim2real_da.data.rare_classes import rare_rows
from sim2real_da.networks.batches import target_images
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import decode
from sim2real_da.networks.direct_pose import DirectOutput, crop_pose, surface_clouds, symmetric_turns
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.pose import DirectTargets, PoseNetwork, PoseTargets
from sim2real_da.samples import Frame, ObjectLabel, ObjectModel

BACKGROUNDS = ('black', 'photographs', 'rendered')
LEAST_VISIBLE = 0.25
FOUND_SCORE = 0.15  # of detections that give crops without labels: a low bar is safe
FOUND_MOST = 20  # of a frame


@dataclass(frozen=True)
class CropSet:
    """Crops of one size and what they show.

    :param images: uint8 RGB ``(N, S, S, 3)``
    :param masks: visible object 0..255, ``(N, S, S)``; None where unknown
    :param classes: ``(N,)`` int64
    :param rotations: as the crop shows them (allocentric), ``(N, 3, 3)``
    :param centres: of the objects from the crop's middle in crop sides, ``(N, 2)``
    :param sizes: logarithm of the diameter's share of the crop's side, ``(N,)``
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    classes: NDArray[np.int64]
    rotations: NDArray[np.float64]
    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> CropSet:
        """Return some of the crops."""
        return CropSet(self.images[index], None if self.masks is None else self.masks[index], self.classes[index],
                       self.rotations[index], self.centres[index], self.sizes[index])


def cut_crops(dataset: BopDataset, ids: Sequence[int], size: int, rng: np.random.Generator, limit: int = 0,
              background: str = 'rendered', photos: Sequence[NDArray[np.uint8]] = (), jitter: bool = True,
              objects: Mapping[str, ObjectModel] | None = None) -> CropSet:
    """Cut every object that is seen well enough.

    :param limit: stop after so many crops; 0: no limit
    :param background: what is behind the object: 'black', 'photographs' (needs ``photos``) or 'rendered' (as it is)
    :param photos: pictures ``(H, W, 3)``, larger than the crops
    :param jitter: move and resize the boxes a little, as a detector's would be
    :param objects: the label map; None: the data set's own
    :raises ValueError: for an unknown background, one that needs masks the data set does not have or photographs that
        are missing, or when nothing could be cut
    """
    if background not in BACKGROUNDS:
        raise ValueError(f'crops: background {background!r}, expected one of {", ".join(BACKGROUNDS)}')
    if background == 'photographs' and not photos:
        raise ValueError('crops: background photographs, but no photographs were given')
    objects = dataset.objects() if objects is None else objects
    names = list(objects)
    images, masks, classes, poses, cameras, transforms = [], [], [], [], [], []
    for frame_id in ids:
        labelled = dataset.frame(frame_id)
        for label in labelled.labels:
            if label.visible is not None and label.visible < LEAST_VISIBLE:
                continue
            transform = crop_transform(_moved(label, rng) if jitter else label.box, size)
            image = cut(labelled.frame.image, transform, size)
            mask = None if label.mask is None else cut(label.mask.astype(np.uint8) * 255, transform, size)
            if background != 'rendered':
                if mask is None:
                    raise ValueError(f'{dataset.folder}: frame {frame_id} has no masks; background {background} needs '
                                     'a set written by sim2real_da render')
                image = _composed(image, mask, _piece(photos, size, rng) if background == 'photographs' else None)
            images.append(image)
            masks.append(mask)
            classes.append(names.index(label.name))
            poses.append(label.pose.matrix())
            cameras.append(labelled.frame.intrinsics.matrix())
            transforms.append(transform)
        if limit and len(images) >= limit:
            break
    if not images:
        raise ValueError(f'{dataset.folder}: no object to cut in {len(ids)} frames')
    end = limit or len(images)
    models = [objects[names[c]] for c in classes[:end]]
    rotations, centres, sizes = crop_pose(
        np.stack(poses[:end]), np.stack(cameras[:end]), np.stack(transforms[:end]),
        np.stack([m.middle for m in models]), np.array([m.diameter for m in models]), size)
    known = [m for m in masks[:end] if m is not None]
    return CropSet(np.stack(images[:end]), np.stack(known) if len(known) == len(models) else None,
                   np.array(classes[:end]), rotations, centres, sizes)


@torch.no_grad()
def found_crops(bundle: Bundle, frames: Sequence[Frame], device: torch.device | str = 'cpu') -> NDArray[np.uint8]:
    """Cut unlabelled frames where a detector finds something, as the online learner does.

    :return: uint8 RGB ``(N, S, S, 3)``, S the side that the bundle's pose network takes
    """
    size = bundle.pose.crop_size
    detector = copy.deepcopy(bundle.detector).to(device).eval()
    crops = []
    for frame in frames:
        height, width = frame.image.shape[:2]
        scale = min(detector.input_size[0] / width, detector.input_size[1] / height)
        boxes, _, _ = decode(detector(target_images([frame], detector.input_size, device)), FOUND_SCORE, FOUND_MOST)[0]
        crops += [cut(frame.image, crop_transform(box / scale, size), size) for box in boxes.cpu().numpy()]
    return np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)


def _moved(label: ObjectLabel, rng: np.random.Generator) -> NDArray[np.float64]:
    size = label.box[2:] - label.box[:2]
    middle = (label.box[:2] + label.box[2:]) / 2 + rng.uniform(-0.1, 0.1, 2) * size
    half = size / 2 * np.exp(rng.uniform(-0.16, 0.16))
    return np.concatenate([middle - half, middle + half])


def _piece(photos: Sequence[NDArray[np.uint8]], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random square of a random photograph, two to four crops wide, at the crop's size."""
    photo = photos[int(rng.integers(len(photos)))]
    side = int(min(rng.uniform(2, 4) * size, *photo.shape[:2]))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    return np.asarray(cv2.resize(photo[top:top + side, left:left + side], (size, size), interpolation=cv2.INTER_AREA))


def _composed(image: NDArray[np.uint8], mask: NDArray[np.uint8],
              behind: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    share = mask[..., None] / 255
    return np.asarray(np.rint(image * share + (0 if behind is None else behind * (1 - share))), dtype=np.uint8)


class CropBatches:
    """Makes batches of a set.

    :param objects: the label map
    :param effects: camera effects, drawn anew for every crop
    """

    def __init__(self, crops: CropSet, objects: Mapping[str, ObjectModel], device: torch.device | str = 'cpu',
                 effects: bool = False) -> None:
        self.crops, self.device, self.effects = crops, torch.device(device), effects
        models = list(objects.values())
        self.turns, self.clouds = symmetric_turns(models), surface_clouds(models)

    def images(self, index: NDArray[np.int64], rng: np.random.Generator | None = None) -> Tensor:
        """Return crops ``(B, 3, S, S)`` in [0, 1]."""
        chosen = list(self.crops.images[index])
        if self.effects and rng is not None:
            chosen = [camera_effects(image, rng) for image in chosen]
        return to_tensor(chosen, self.device)

    def batch(self, index: NDArray[np.int64], rng: np.random.Generator | None = None,
              ) -> tuple[Tensor, PoseTargets, Tensor | None]:
        """Return crops ``(B, 3, S, S)`` in [0, 1], their labels and masks ``(B, 1, S, S)`` (None where unknown)."""
        own = self.crops[index]
        classes = torch.from_numpy(own.classes)
        rotations, centres, sizes = (
            torch.from_numpy(a).float().to(self.device) for a in (own.rotations, own.centres, own.sizes))
        targets = PoseTargets(classes.to(self.device), DirectTargets(
            rotations, centres, sizes, self.clouds[classes].to(self.device), self.turns[classes].to(self.device)))
        masks = None if own.masks is None else torch.from_numpy(own.masks).float().div(255)[:, None].to(self.device)
        return self.images(index, rng), targets, masks

    def batches(self, count: int, seed: list[int],
                rare: bool = False) -> Iterator[tuple[Tensor, PoseTargets, Tensor | None]]:
        """Yield :meth:`batch` for ever, every crop once before any comes again.

        :param rare: draw crops of rare classes more often instead, see :mod:`sim2real_da.data.rare_classes`
        """
        order = rare_rows(self.crops.classes, count, seed) if rare else rows(len(self.crops), count, seed)
        return (self.batch(index) for index in order)


@torch.inference_mode()
def score(network: PoseNetwork, crops: CropSet, objects: Mapping[str, ObjectModel],
          device: torch.device | str = 'cpu') -> dict[str, float]:
    """Return ``accuracy`` of the class and ``mean_angle_deg`` over all crops, up to symmetry.

    The rotation is that of the class the network says, so a wrong class has a wrong rotation as well. Crops show one of
    the objects: "none of them" is not an answer.

    :raises TypeError: for a network that does not give rotations
    """
    network.eval()
    right, angles = [], []
    models = list(objects.values())
    for first in range(0, len(crops), 256):
        part = crops[first:first + 256]
        output = network(to_tensor(list(part.images), device))
        if not isinstance(output, DirectOutput):
            raise TypeError('crops: expected a network of direct rotations')
        said = output.classes[:, :-1].argmax(dim=1)
        found = output.rotation[torch.arange(len(said)), said].double().cpu().numpy()
        right += list(said.cpu().numpy() == part.classes)
        for rotation, truth, c in zip(found, part.rotations, part.classes):
            alike = truth @ models[c].symmetries[:, :3, :3]
            angles.append(float(np.degrees(Rotation.from_matrix(rotation.T @ alike).magnitude().min())))
    return {'accuracy': float(np.mean(right)), 'mean_angle_deg': float(np.mean(angles))}


def of_classes(crops: CropSet, classes: Sequence[int]) -> CropSet:
    """Return the crops of some classes, for instance those that a generator is to see."""
    return replace(crops)[np.isin(crops.classes, list(classes))]
