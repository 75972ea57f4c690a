# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What validators look at, collected from a classifier, and from a detector and a pose network on frames.

Networks on frames are asked at *places*, boxes with a class: on the source where the labels are, on the target where
something was found. All networks that are to be compared are asked at the same places (:func:`find` merges what each
of them finds): at its own detections alone, a network that finds one sure thing would look better than one that finds
ten.

* Detector: probabilities are softmax(heat logits, 0) at the strongest cell within one of the box's middle, that is
  "the middle of class c alone" or none, the last column. The heat map's sigmoids as they are do not sum to 1.
* Pose network: its own class output on the crop; and how far the poses of several views of the crop, cut wider and
  turned, are from the first one's, as :mod:`sim2real_da.networks.pseudo_labels` believes them.

Features are the last map of ``output.features``: at the box's middle for the detector, its mean for the others. The
networks' own metrics on held-out source (AP50; 1 - mean angle / 180 on crops around the labels) stand for
``source_validation``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import batched_nms

from sim2real_da.evaluation.metrics import MISS_ANGLE_DEG, VISIBLE, evaluate
from sim2real_da.evaluation.pose_error import angle_and_position
from sim2real_da.evaluation.validators import Array, Evidence
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import STRIDE, decode
from sim2real_da.networks.estimator import fit, to_tensor
from sim2real_da.networks.pose import AGREEING, VIEWS, PoseOutput
from sim2real_da.networks.pseudo_labels import disagreement
from sim2real_da.samples import Detection, Frame, LabelledFrame, Pose

SCORE = 0.15  # of a detection that makes a place
PLACES = 20  # best ones of a frame that each network gives
AP_SCORE = 0.05  # average precision needs the weak detections as well
BATCH = 256


@dataclass(frozen=True)
class Places:
    """Where to ask in one frame.

    :param boxes: ``(n, 4)`` xyxy in image pixels
    :param classes: indices ``(n,)``
    """

    boxes: Array
    classes: NDArray[np.int64]


@contextlib.contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode without gradients, and back into the mode they were in."""
    before = [network.training for network in networks]
    try:
        with torch.inference_mode():
            for network in networks:
                network.eval()
            yield
    finally:
        for network, mode in zip(networks, before):
            network.train(mode)


def classifier_evidence(network: nn.Module, source: Tensor, labels: Tensor, target: Tensor,
                        teacher: nn.Module | None = None) -> Evidence:
    """Return the evidence of a classifier.

    :param source: held-out labelled pictures ``(M, 3, H, W)`` in [0, 1]
    :param target: unlabelled pictures ``(N, 3, H, W)``
    :param teacher: another classifier of the same classes
    """
    on_source, on_target = classify(network, source), classify(network, target)
    return Evidence(on_source[0], labels.cpu().numpy(), on_source[1], *on_target,
                    teacher=classify(teacher, target)[0] if teacher is not None else None)


def classify(network: nn.Module, images: Tensor) -> tuple[Array, Array]:
    """Return probabilities ``(N, C)`` and features ``(N, D)``."""
    device, found = next(network.parameters()).device, []
    with evaluating(network):
        for part in images.split(BATCH):
            output = network(part.to(device))
            found.append((output.probabilities()['class'], output.features[-1].mean(dim=(2, 3))))
    return _stacked([p for p, _ in found]), _stacked([f for _, f in found])


def find(bundles: Sequence[Bundle], frames: Sequence[Frame]) -> list[Places]:
    """Return for each frame the places where any of the bundles' detectors finds something, each object once."""
    places = []
    with evaluating(*[b.detector for b in bundles]):
        for frame in frames:
            found = [_detect(bundle, frame, SCORE, PLACES) for bundle in bundles]
            boxes, scores, classes = (torch.cat(parts) for parts in zip(*found))
            kept = batched_nms(boxes.float(), scores, classes, 0.5)
            places.append(Places(boxes[kept].numpy(), classes[kept].numpy()))
    return places


def labelled_places(frames: Sequence[LabelledFrame], classes: Sequence[str]) -> list[Places]:
    """Return for each frame the places of its visible labels."""
    return [Places(np.array([x.box for x in labels], dtype=np.float64).reshape(-1, 4),
                   np.array([classes.index(x.name) for x in labels], dtype=np.int64))
            for labels in ([x for x in f.labels if x.visible is None or x.visible >= VISIBLE] for f in frames)]


def bundle_evidence(bundle: Bundle, source: Sequence[LabelledFrame], target: Sequence[Frame], places: Sequence[Places],
                    teacher: Bundle | None = None) -> dict[str, Evidence]:
    """Return the evidence of ``detector`` and ``pose``.

    :param source: held-out simulation
    :param target: unlabelled frames
    :param places: where to ask in these, from :func:`find`
    :param teacher: other weights for the same objects: the averaged teacher, or the frozen source model
    :raises ValueError: when there is nothing to ask about
    """
    if len(places) != len(target):
        raise ValueError(f'evidence: places of {len(places)} frames, expected those of {len(target)}')
    labelled = labelled_places(source, bundle.classes)
    for name, listed in (('held-out source', labelled), ('target', places)):
        if not any(len(p.boxes) for p in listed):
            raise ValueError(f'evidence: no object in {len(listed)} {name} frames; give more frames, or weights that '
                             'find something there')
    labels = np.concatenate([p.classes for p in labelled])
    frames = [f.frame for f in source]
    result = {}
    for name, ask in (('detector', _ask_detector), ('pose', _ask_pose)):
        on_source, on_target = ask(bundle, frames, labelled), ask(bundle, target, places)
        result[name] = Evidence(
            on_source[0], labels, on_source[1], *on_target,
            teacher=ask(teacher, target, places)[0] if teacher is not None else None,
            views=_views(bundle, target, places) if name == 'pose' else None,
            source_score=detector_score(bundle, source) if name == 'detector' else pose_score(bundle, source))
    return result


def target_rows(bundle: Bundle, frames: Sequence[Frame], places: Sequence[Places]) -> dict[str, Array]:
    """Return the class probabilities ``(n, C + 1)`` that ``detector`` and ``pose`` give at the places, for a gate."""
    return {'detector': _ask_detector(bundle, frames, places)[0], 'pose': _ask_pose(bundle, frames, places)[0]}


def detector_score(bundle: Bundle, frames: Sequence[LabelledFrame]) -> float:
    """Return AP50 of the detector alone; the crop has no say in the scores."""
    names, found = bundle.classes, []
    with evaluating(bundle.detector):
        for labelled in frames:
            boxes, scores, classes = _detect(bundle, labelled.frame, AP_SCORE, 50)
            found.append([Detection(names[int(c)], float(s), box.numpy()) for box, s, c in zip(boxes, scores, classes)])
    return float(evaluate([f.labels for f in frames], found, bundle.objects)['ap50'])


def pose_score(bundle: Bundle, frames: Sequence[LabelledFrame]) -> float:
    """Return 1 - mean angle / 180 of the pose network on crops around the labels; no pose counts 180 degrees."""
    angles, models = [], list(bundle.objects.values())
    with evaluating(bundle.pose):
        for labelled, places in zip(frames, labelled_places(frames, bundle.classes)):
            visible = [x for x in labelled.labels if x.visible is None or x.visible >= VISIBLE]
            for label, c, pose in zip(visible, places.classes, _solve(bundle, labelled.frame, places, VIEWS[0])):
                angles.append(angle_and_position(pose, label.pose, models[c])[0] if pose else MISS_ANGLE_DEG)
    if not angles:
        raise ValueError(f'pose score: no visible object in {len(frames)} frames')
    return 1 - float(np.mean(angles)) / 180


def _detect(bundle: Bundle, frame: Frame, score: float, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes in image pixels ``(n, 4)`` float64, scores and classes ``(n,)``, on the CPU."""
    fitted, scale = fit(frame.image, bundle.detector.input_size)
    output = bundle.detector(to_tensor([fitted], next(bundle.detector.parameters()).device))
    boxes, scores, classes = (t.cpu() for t in decode(output, score, limit)[0])
    height, width = frame.image.shape[:2]
    pixels = (boxes.double() + 0.5) / scale - 0.5
    pixels = torch.minimum(pixels.clamp(min=0), torch.tensor([width, height, width, height]).double())
    kept = (pixels[:, 2:] - pixels[:, :2]).amin(dim=1) >= 4
    return pixels[kept], scores[kept], classes[kept]


def _ask_detector(bundle: Bundle, frames: Sequence[Frame], places: Sequence[Places]) -> tuple[Array, Array]:
    """Return probabilities ``(n, C + 1)`` and features ``(n, D)`` of all places."""
    detector = bundle.detector
    device, (width, height) = next(detector.parameters()).device, detector.input_size
    rows, features = [], []
    with evaluating(detector):
        for frame, place in zip(frames, places):
            if not len(place.boxes):
                continue
            fitted, scale = fit(frame.image, detector.input_size)
            output = detector(to_tensor([fitted], device))
            # a peak may lie one cell beside the middle of another network's box
            heat = F.max_pool2d(output.heat, 3, 1, 1)[0]
            boxes = torch.from_numpy(place.boxes).to(device).float()
            middles = ((boxes[:, :2] + boxes[:, 2:]) / 2 + 0.5) * scale - 0.5  # input pixels
            cells = ((middles - (STRIDE - 1) / 2) / STRIDE).round().long()
            columns, lines = cells[:, 0].clamp(0, heat.shape[2] - 1), cells[:, 1].clamp(0, heat.shape[1] - 1)
            logits = heat[:, lines, columns].T  # (n, C)
            rows.append(torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1).softmax(dim=1))
            grid = (2 * middles + 1) / torch.tensor([width, height], device=device) - 1
            sampled = F.grid_sample(output.features[-1], grid[None, :, None], align_corners=False)  # (1, D, n, 1)
            features.append(sampled[0, :, :, 0].T)
    return _stacked(rows), _stacked(features)


def _ask_pose(bundle: Bundle, frames: Sequence[Frame], places: Sequence[Places]) -> tuple[Array, Array]:
    """Return probabilities ``(n, C + 1)`` and features ``(n, D)`` of the crops of all places."""
    rows, features = [], []
    with evaluating(bundle.pose):
        for frame, place in zip(frames, places):
            if len(place.boxes):
                output = _crops(bundle, frame, place, VIEWS[0])[0]
                rows.append(output.probabilities()['class'])
                features.append(output.features[-1].mean(dim=(2, 3)))
    return _stacked(rows), _stacked(features)


def _views(bundle: Bundle, frames: Sequence[Frame], places: Sequence[Places]) -> Array:
    """Return the greatest angle in degrees and distance between the first view's pose and the others', ``(n, 2)``."""
    apart, models = [], list(bundle.objects.values())
    with evaluating(bundle.pose):
        for frame, place in zip(frames, places):
            views = [_solve(bundle, frame, place, view) for view in AGREEING]
            for (first, *others), box, c in zip(zip(*views), place.boxes, place.classes):
                apart.append(np.max([disagreement(first, pose, box, frame.intrinsics, models[c])
                                     if first and pose else (np.inf, np.inf) for pose in others], axis=0))
    return np.reshape(apart, (-1, 2))


def _crops(bundle: Bundle, frame: Frame, places: Places, view: tuple[float, float],
           ) -> tuple[PoseOutput, list[NDArray[np.float64]]]:
    """Return the pose network's output on the crops of one frame, and the maps image -> crop.

    :param view: turn in the plane and padding of the crops
    """
    size = bundle.pose.crop_size
    transforms = [crop_transform(box, size, *view) for box in places.boxes]
    device = next(bundle.pose.parameters()).device
    return bundle.pose(to_tensor([cut(frame.image, t, size) for t in transforms], device)), transforms


def _solve(bundle: Bundle, frame: Frame, places: Places, view: tuple[float, float]) -> list[Pose | None]:
    """Return the pose of every place, None where none can be trusted."""
    if not len(places.boxes):
        return []
    output, transforms = _crops(bundle, frame, places, view)
    models, classes = list(bundle.objects.values()), [int(c) for c in places.classes]
    solved = output.poses(range(len(classes)), classes, transforms, [models[c] for c in classes], frame.intrinsics)
    return [found[0] if found else None for found in solved]


def _stacked(parts: Sequence[Tensor]) -> Array:
    return np.asarray(torch.cat(list(parts)).double().cpu().numpy())
