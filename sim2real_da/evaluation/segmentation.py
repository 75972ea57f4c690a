# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union of semantic maps, and the detector's map scored on frames with masks.

Maps are compared at the detector's own resolution (a cell for 4x4 input pixels). Counts are summed over all frames
before anything is divided, as usual for mIoU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.networks.batches import detector_batch
from sim2real_da.networks.detector import Detector
from sim2real_da.samples import LabelledFrame


def confusion(said: NDArray[np.int64], true: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many cells of each true class (row) were said to be each class (column), ``(classes, classes)``.

    :param true: class indices of any shape; cells below 0 are unknown and do not count
    :param said: the same shape
    """
    known = true >= 0
    return np.bincount(true[known] * classes + said[known], minlength=classes**2).reshape(classes, classes)


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU of every class ``(C,)`` from :func:`confusion`; NaN for one that is neither there nor said."""
    both = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


@torch.inference_mode()
def score_segmentation(network: Detector, frames: Iterable[LabelledFrame], names: Sequence[str],
                       device: torch.device | str = 'cpu') -> dict[str, Any]:
    """Return ``miou`` over background and classes, ``iou`` of each by name, and the number of ``frames``.

    :param frames: with masks of all their labels
    :param names: of the classes, by the network's index
    :raises ValueError: without frames, or for a frame with a label that has no mask
    """
    network.eval()
    counts, seen = np.zeros((len(names) + 1,) * 2, np.int64), 0
    for labelled in frames:
        images, targets = detector_batch([labelled], names, network.input_size, device=device)
        true = targets.semantic.cpu().numpy()
        if (true < 0).all():
            raise ValueError('segmentation: a frame has a label without a mask')
        said = network(images).probabilities()['semantic'].argmax(dim=1).cpu().numpy()
        counts += confusion(said, true, len(counts))
        seen += 1
    if not seen:
        raise ValueError('segmentation: no frames to score')
    found = intersection_over_union(counts)
    return {'miou': float(np.nanmean(found)), 'frames': seen,
            'iou': {n: float(v) for n, v in zip(('background', *names), found) if np.isfinite(v)}}
