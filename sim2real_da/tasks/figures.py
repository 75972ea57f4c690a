# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What the docs' figures of a run show, as JSON holds it: features before and after, translated pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sim2real_da.evaluation.embedding import MOST, Features, projected
from sim2real_da.evaluation.neighbours import compared
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.offline import Adapted

COMPARED = 500  # translated pictures whose nearest target picture is looked for
SEARCHED = 20000  # target pictures among which it is looked for
COLUMNS = 10


@dataclass(frozen=True)
class Shown:
    """Pictures uint8 ``(N, H, W, 3)`` and their classes ``(N,)``."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]


def figures(before: nn.Module, made: Adapted[nn.Module], source: Shown, target: NDArray[np.uint8], test: Shown,
            ) -> dict[str, Any]:
    """Return ``embedding`` (before, after) and, where the recipe has a generator, ``neighbours``.

    :param before: the network that adaptation started from
    :param source: labelled source samples
    :param target: what was adapted to
    :param test: target samples apart from these, with the true classes, for the hues of the embedding
    """
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(part.images))[:MOST] for part in (source, test)]
    some = [Shown(part.images[rows], part.classes[rows]) for part, rows in zip((source, test), chosen)]
    panels = [projected(Features(_features(network, some[0].images), _features(network, some[1].images),
                                 some[0].classes, some[1].classes)) for network in (before, made.network)]
    found: dict[str, Any] = {'embedding': dict(zip(('before', 'after'), panels))}
    if made.generator is not None:
        device = next(made.network.parameters()).device
        pictures = to_tensor(list(source.images[rng.permutation(len(source.images))[:COMPARED]]), device)
        searched = to_tensor(list(target[rng.permutation(len(target))[:SEARCHED]]), device)
        with torch.no_grad():
            adapted = torch.cat([made.generator(part) for part in pictures.split(64)])
        found['neighbours'] = compared(pictures, adapted, searched, COLUMNS)
    return found


@torch.inference_mode()
def _features(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of the last feature map of every picture ``(N, D)``."""
    device = next(network.parameters()).device
    rows: list[Tensor] = [network(part).features[-1].mean(dim=(2, 3)).double().cpu()
                          for part in to_tensor(list(images), device).split(128)]
    return torch.cat(rows).numpy()
