# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of every table of this project, from ground truth and detections of the same frames.

Ground truth that counts: instances of which at least 10 % are visible (an unknown fraction counts as visible). The
rest is neither asked for nor held against a detection that finds it.

==========================  ===========================================================================================
``ap50``                    average precision at IoU 0.5 (COCO, 101 recall points), mean over the objects present
``ap``                      the same, mean over IoU 0.50 to 0.95 in steps of 0.05
``recall``                  share of the instances matched at IoU 0.5 by a detection of their class with score >= 0.3
``mean_angle_deg``          mean over **all** instances; one missed or found without a pose counts 180 degrees
``mean_angle_matched_deg``  mean over those found with a pose; 180 degrees when there is none
``mean_position_m``         mean over all instances; a miss counts 1 m and no error counts more
``adds_recall``             share of the instances with ADD (ADD-S if symmetric) below 0.1 diameter, mean over objects
``mssd_ar``, ``mspd_ar``    BOP's average recalls of :mod:`sim2real_da.evaluation.bop_recall`, over the instances
``bop_ar``                  mean of the two; BOP's third error, VSD, needs depth pictures and is left out
==========================  ===========================================================================================

Angles and positions are taken up to the object's symmetries. No value is ever NaN. The average recalls match estimates
to instances by pose, the numbers above them by box.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim2real_da.evaluation.bop_recall import shares
from sim2real_da.evaluation.pose_error import add_or_add_s, angle_and_position
from sim2real_da.geometry import box_iou
from sim2real_da.samples import Detection, Intrinsics, ObjectLabel, ObjectModel

VISIBLE = 0.1  # smallest visible fraction that counts
SCORE = 0.3  # smallest score of a detection that recall and the pose errors look at
IOU = 0.5
MISS_ANGLE_DEG = 180.0
MISS_POSITION_M = 1.0
ADD_DIAMETERS = 0.1


@dataclass(frozen=True)
class _Instance:
    """One ground-truth instance that counts, and what was found of it."""

    name: str
    found: bool
    angle: float | None  # degrees; None without a pose
    position: float | None  # metres; None without a pose
    pose_good: bool  # ADD(-S) below 0.1 diameter
    bop: Sequence[float] | None  # shares of the thresholds of MSSD and MSPD that are met; None without a camera


def evaluate(
    truth: Sequence[Sequence[ObjectLabel]],
    found: Sequence[Sequence[Detection]],
    objects: Mapping[str, ObjectModel],
    cameras: Sequence[Intrinsics] | None = None,
) -> dict[str, Any]:
    """Score detections against ground truth, frame by frame.

    :param truth: labels of each frame
    :param found: detections of the same frames, in the same order
    :param objects: the classes that may occur, with their surfaces and symmetries
    :param cameras: of the same frames; without them BOP's average recalls, which are costly, are left out
    :return: the metrics of this module's table, ``frames`` and ``instances``, and under ``objects`` the same metrics
        for each class that has an instance; plain floats and ints, ready for JSON
    :raises ValueError: for lists of different lengths, a class that is none of ``objects``, or a split without any
        instance that counts
    """
    if len(truth) != len(found):
        raise ValueError(f'evaluate: {len(truth)} frames of ground truth but {len(found)} of detections')
    if cameras is not None and len(cameras) != len(truth):
        raise ValueError(f'evaluate: {len(truth)} frames of ground truth but {len(cameras)} cameras')
    known = set(objects)
    for what, listed in (('ground truth', truth), ('detections', found)):
        if unknown := sorted({item.name for items in listed for item in items} - known):
            raise ValueError(f'evaluate: {what} of class {", ".join(unknown)}, expected one of {sorted(known)}')
    views: Sequence[Intrinsics | None] = [None] * len(truth) if cameras is None else cameras
    frames = zip(truth, found, views, strict=True)
    instances = [i for labels, detections, camera in frames for i in _judge(labels, detections, objects, camera)]
    if not instances:
        raise ValueError(
            f'evaluate: empty split: no ground truth with a visible fraction of {VISIBLE} or more '
            f'in {len(truth)} frames'
        )
    present = sorted({i.name for i in instances})
    precision = _average_precision(truth, found, present)
    per_object = {
        name: {**precision[name], **_summary([i for i in instances if i.name == name])} for name in present
    }
    overall = _summary(instances)
    for key in ('ap50', 'ap', 'adds_recall'):  # means over objects, so that a frequent one does not drown the others
        overall[key] = float(np.mean([per_object[name][key] for name in present]))
    return {**overall, 'frames': len(truth), 'objects': per_object}


def _counts(label: ObjectLabel) -> bool:
    return label.visible is None or label.visible >= VISIBLE


def match(
    labels: Sequence[ObjectLabel], detections: Sequence[Detection],
) -> list[tuple[ObjectLabel, Detection | None]]:
    """Return the instances of a frame that count, each with the detection that found it.

    Detections with a score of at least 0.3, by falling score, each to the best free instance of its class at IoU 0.5.
    """
    counted = [label for label in labels if _counts(label)]
    taken: dict[int, Detection] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score < SCORE:
            break
        overlaps = [
            (box_iou(detection.box, label.box), -index) for index, label in enumerate(counted)
            if label.name == detection.name and index not in taken
        ]
        best = max(overlaps, default=(0.0, 0))
        if best[0] >= IOU:
            taken[-best[1]] = detection
    return [(label, taken.get(index)) for index, label in enumerate(counted)]


def _judge(
    labels: Sequence[ObjectLabel], detections: Sequence[Detection], objects: Mapping[str, ObjectModel],
    camera: Intrinsics | None,
) -> list[_Instance]:
    matched = match(labels, detections)
    bop: Sequence[Any] = [None] * len(matched)
    if camera is not None:
        bop = shares([label for label, _ in matched], detections, objects, camera).tolist()
    instances = []
    for (label, detection), share in zip(matched, bop, strict=True):
        if detection is None or detection.pose is None:
            instances.append(_Instance(label.name, detection is not None, None, None, False, share))
            continue
        model = objects[label.name]
        angle, position = angle_and_position(detection.pose, label.pose, model)
        good = add_or_add_s(detection.pose, label.pose, model) < ADD_DIAMETERS * model.diameter
        instances.append(_Instance(label.name, True, angle, min(position, MISS_POSITION_M), good, share))
    return instances


def _summary(instances: Sequence[_Instance]) -> dict[str, Any]:
    angles = [i.angle for i in instances if i.angle is not None]
    positions = [i.position for i in instances if i.position is not None]
    missed = len(instances) - len(angles)
    shares_met = [i.bop for i in instances if i.bop is not None]
    bop: dict[str, float] = {}
    if shares_met:
        surface, projection = (float(v) for v in np.mean(shares_met, axis=0))
        bop = {'bop_ar': (surface + projection) / 2, 'mssd_ar': surface, 'mspd_ar': projection}
    return {
        'recall': float(np.mean([i.found for i in instances])),
        'adds_recall': float(np.mean([i.pose_good for i in instances])),
        **bop,
        'mean_angle_deg': float((sum(angles) + missed * MISS_ANGLE_DEG) / len(instances)),
        'mean_angle_matched_deg': float(np.mean(angles)) if angles else MISS_ANGLE_DEG,
        'mean_position_m': float((sum(positions) + missed * MISS_POSITION_M) / len(instances)),
        'instances': len(instances),
    }


def _average_precision(
    truth: Sequence[Sequence[ObjectLabel]], found: Sequence[Sequence[Detection]], classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Return ``ap50`` and ``ap`` of each class, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {name: index for index, name in enumerate(classes, start=1)}

    def coco(annotations: list[dict[str, Any]]) -> COCO:
        result = COCO()
        result.dataset = {
            'images': [{'id': image} for image in range(len(truth))],
            'categories': [{'id': index, 'name': name} for name, index in ids.items()],
            # pycocotools reads a match with id 0 as no match: ids start at 1.
            'annotations': [{**a, 'id': number, 'iscrowd': 0} for number, a in enumerate(annotations, start=1)],
        }
        result.createIndex()
        return result

    def annotation(image: int, item: ObjectLabel | Detection) -> dict[str, Any]:
        x0, y0, x1, y1 = (float(v) for v in item.box)
        width, height = max(x1 - x0, 0.0), max(y1 - y0, 0.0)
        return {'image_id': image, 'category_id': ids[item.name], 'bbox': [x0, y0, width, height],
                'area': width * height}

    labels, detections = [], []
    for image, (frame_labels, frame_detections) in enumerate(zip(truth, found, strict=True)):
        for label in frame_labels:
            if label.name in ids:
                entry = annotation(image, label)
                if not _counts(label):
                    # Outside the area range: pycocotools ignores the instance and a detection that matches it. (Its
                    # 'ignore' field is overwritten by 'iscrowd', which would change the IoU and allow many matches.)
                    entry['area'] = -1.0
                labels.append(entry)
        detections += [{**annotation(image, d), 'score': float(d.score)} for d in frame_detections if d.name in ids]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        judge = COCOeval(coco(labels), coco(detections), 'bbox')
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ['all']
        judge.params.maxDets = [100]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval['precision'][:, :, :, 0, 0]  # (IoU thresholds, recall points, classes)
    return {
        name: {'ap50': float(precision[0, :, index - 1].mean()), 'ap': float(precision[:, :, index - 1].mean())}
        for name, index in ids.items()
    }
