# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What the docs' figures of a run show, as JSON holds it: features before and after, translated pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sim2real_da.data.pictures import Pictures
from sim2real_da.evaluation.embedding import MOST, Features, projected
from sim2real_da.evaluation.evidence import classify
from sim2real_da.evaluation.neighbours import compared
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.offline import Adapted

COMPARED = 500  # translated pictures whose nearest target picture is looked for
SEARCHED = 20000  # target pictures among which it is looked for
COLUMNS = 10


def figures(before: nn.Module, made: Adapted[nn.Module], source: Pictures, target: NDArray[np.uint8], test: Pictures,
            ) -> dict[str, Any]:
    """Return ``embedding`` (before, after) and, where the recipe has a generator, ``neighbours``.

    :param before: the network that adaptation started from
    :param source: labelled source samples
    :param target: what was adapted to
    :param test: target samples apart from these, with the true classes, for the hues of the embedding
    """
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(part.images))[:MOST] for part in (source, test)]
    some = [part[rows] for part, rows in zip((source, test), chosen)]
    first, second = (to_tensor(list(part.images), 'cpu') for part in some)
    panels = [projected(Features(classify(network, first)[1], classify(network, second)[1], some[0].labels,
                                 some[1].labels)) for network in (before, made.network)]
    found: dict[str, Any] = {'embedding': dict(zip(('before', 'after'), panels))}
    if made.generator is not None:
        device = next(made.network.parameters()).device
        shown = to_tensor(list(source.images[rng.permutation(len(source.images))[:COMPARED]]), device)
        searched = to_tensor(list(target[rng.permutation(len(target))[:SEARCHED]]), device)
        with torch.no_grad():
            adapted = torch.cat([made.generator(part) for part in shown.split(64)])
        found['neighbours'] = compared(shown, adapted, searched, COLUMNS)
    return found
