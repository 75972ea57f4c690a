# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Source pictures, what a generator made of them, and the most similar real picture: has it learnt some by heart?

The figure of PixelDA's paper (Bousmalis et al., CVPR 2017). A generator that had memorised target pictures would show
second and third row alike. Similarity is the Euclidean distance of pixels, here as root mean square difference, 0..1.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ROWS = ('source', 'adapted', 'nearest target')
GAP = 2  # pixels between the pictures of the figure
CHUNK = 256  # pictures compared at a time, which bounds the memory


def nearest(pictures: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the others each picture is nearest to ``(N,)``, and their root mean square difference ``(N,)``.

    :param pictures: ``(N, 3, H, W)`` in [0, 1]
    :param others: ``(M, 3, H, W)``
    :raises ValueError: for pictures of different sizes, or without any others
    """
    if pictures.shape[1:] != others.shape[1:] or not len(others):
        raise ValueError(f'nearest pictures: {tuple(pictures.shape)} and {tuple(others.shape)}; expected at least one '
                         'other and the same channels, height and width')
    flat = others.flatten(1)
    found = [torch.cdist(chunk, flat, compute_mode='donot_use_mm_for_euclid_dist').min(dim=1)
             for chunk in pictures.flatten(1).split(CHUNK)]
    distance = torch.cat([f.values for f in found]) / flat.shape[1] ** 0.5
    return torch.cat([f.indices for f in found]), distance


def compared(source: Tensor, adapted: Tensor, target: Tensor, columns: int = 10) -> dict[str, Any]:
    """Return what the figure shows, as JSON holds it: the pictures, and how near adapted and target pictures are.

    :param source: ``(N, 3, H, W)`` in [0, 1]; the first ``columns`` of them are shown
    :param adapted: of the same pictures, in the same order
    :param target: target pictures that the generator was trained on, ``(M, 3, H, W)``, at least two
    :returns: ``png`` (rows source, adapted, nearest target, as base64), ``distances`` of the columns, ``median`` of
        all, ``median_of_targets``: of target pictures and the nearest other one, of as many as there are sources
    :raises ValueError: when source and adapted do not belong together
    """
    if source.shape != adapted.shape:
        raise ValueError(f'neighbours: {tuple(source.shape)} source and {tuple(adapted.shape)} adapted pictures; '
                         'expected the same')
    index, distance = nearest(adapted, target)
    rows = torch.stack([pictures[:columns] for pictures in (source, adapted, target[index])])  # (3, n, 3, H, W)
    framed = F.pad(rows, (0, GAP, 0, GAP), value=1)
    grid = framed.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # (3 (H + GAP), n (W + GAP), 3)
    picture = grid.clamp(0, 1).mul(255).round().byte().cpu().numpy()
    half = min(len(source), len(target) // 2)
    return {'png': base64.b64encode(cv2.imencode('.png', picture[..., ::-1])[1].tobytes()).decode(),
            'distances': [round(v, 4) for v in distance[:columns].tolist()], 'median': float(distance.median()),
            'median_of_targets': float(nearest(target[:half], target[half:])[1].median())}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with rows source, adapted and nearest target, the distance of the two below each column.

    :param found: of :func:`compared`
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    picture = cv2.imdecode(np.frombuffer(base64.b64decode(found['png']), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, 'not a picture'
    count, height = len(found['distances']), picture.shape[0] / 3
    width = picture.shape[1] / count
    with pyplot.rc_context({'font.size': 9}):
        figure, axes = pyplot.subplots(figsize=(0.9 * count + 1, 3.1), layout='constrained')
        axes.imshow(picture[..., ::-1], interpolation='nearest')
        axes.set_yticks([(row + 0.5) * height for row in range(3)], ROWS)
        axes.set_xticks([(i + 0.5) * width for i in range(count)], [f'{v:.2f}' for v in found['distances']])
        axes.set_xlabel(f'distance of adapted and nearest target picture (median {found["median"]:.2f}; of target '
                        f'pictures and their nearest {found["median_of_targets"]:.2f})')
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        pyplot.close(figure)
