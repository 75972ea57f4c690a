# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""BOP's recalls of one frame: which instances were found within each threshold of MSSD and MSPD.

Hodan et al., "BOP Challenge 2020 on 6D object localization", arXiv 2009.07378. An estimate is correct when its MSSD is
below a threshold of 0.05, 0.10 ... 0.50 object diameters, its MSPD below 5r, 10r ... 50r pixels with r = image width /
640. The average recall is the share of the instances found, mean over the thresholds: the mean over the instances of
the share of the thresholds within which each is found.

Matching is BOP's: an instance is looked for by its pose, not by its box. Of the estimates of a class that have a pose,
whatever their score, the best ones count, as many as the frame has instances of the class that count. At each
threshold they take, by falling score, the free instance to which their error is smallest, if it is below the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim2real_da.evaluation.pose_error import mspd, mssd
from sim2real_da.samples import Detection, Intrinsics, ObjectLabel, ObjectModel

MSSD_DIAMETERS = 0.05 * np.arange(1, 11)
MSPD_PIXELS = 5.0 * np.arange(1, 11)  # of a picture that is 640 pixels wide


def shares(
    labels: Sequence[ObjectLabel], detections: Sequence[Detection], objects: Mapping[str, ObjectModel],
    camera: Intrinsics,
) -> NDArray[np.float64]:
    """Return for each instance the share of the thresholds within which it is found, ``(N, 2)``: MSSD, MSPD.

    :param labels: the N instances that count
    """
    result = np.zeros((len(labels), 2))
    for name in {label.name for label in labels}:
        rows = [row for row, label in enumerate(labels) if label.name == name]
        posed = sorted((d for d in detections if d.name == name and d.pose is not None), key=lambda d: -d.score)
        errors = np.array([
            [_errors(estimate, labels[row], objects[name], camera) for row in rows] for estimate in posed[:len(rows)]
        ]).reshape(-1, len(rows), 2)  # (estimates, instances, MSSD and MSPD)
        result[rows, 0] = np.mean([_found(errors[..., 0], t) for t in MSSD_DIAMETERS], axis=0)
        result[rows, 1] = np.mean([_found(errors[..., 1], t) for t in MSPD_PIXELS], axis=0)
    return result


def _errors(estimate: Detection, label: ObjectLabel, model: ObjectModel, camera: Intrinsics) -> tuple[float, float]:
    """Return MSSD in diameters and MSPD in pixels of a picture that is 640 pixels wide."""
    assert estimate.pose is not None
    return (mssd(estimate.pose, label.pose, model) / model.diameter,
            mspd(estimate.pose, label.pose, model, camera) * 640 / camera.width)


def _found(errors: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Match greedily at one threshold and return which instances are found.

    :param errors: ``(estimates, instances)``, the estimates by falling score
    """
    found = np.zeros(errors.shape[1], dtype=np.bool_)
    for row in errors:
        free = np.where(found, np.inf, row)
        if free.min() < threshold:
            found[free.argmin()] = True
    return found
