# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of classifiers, and of the classes that pose networks say, on labelled pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.data.pictures import Pictures
from sim2real_da.networks.classifier import Classifier, to_images
from sim2real_da.networks.pose import PoseNetwork, PoseOutput

BATCH = 500
BOP_NAME = re.compile(r'obj_\d{6}')


@torch.no_grad()
def predicted(network: Classifier | PoseNetwork, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the most probable class index of each picture ``(N,)``; a pose network's "none of them" is no answer."""
    device = next(network.parameters()).device
    found = []
    for first in range(0, len(images), BATCH):
        output = network(to_images(images[first:first + BATCH], device))
        logits = output.classes[:, :-1] if isinstance(output, PoseOutput) else output.logits
        found.append(logits.argmax(dim=1).cpu().numpy())
    return np.concatenate(found).astype(np.int64)


def accuracy(network: Classifier | PoseNetwork, pictures: Pictures, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return how many pictures are recognised.

    ``accuracy`` is over the pictures of classes that the network knows, ``accuracy_all`` over all of them: what it does
    not know is wrong there (signs: 38 classes have a template, the real ones have 43).

    :param names: of the classes; default: those that a classifier keeps itself
    :raises ValueError: without labels, or when the network knows none of the classes
    """
    if pictures.labels is None or not len(pictures):
        raise ValueError('evaluate: pictures without labels, nothing to score against')
    network.eval()
    names = names or network.config.get('names', ())
    true = known_labels(pictures, names, network.config['classes'])
    known = true >= 0
    if not known.any():
        raise ValueError(f'evaluate: the weights know none of these classes; they know '
                         f'{", ".join(names) or network.config["classes"]}')
    right = predicted(network, pictures.images) == true
    return {'accuracy': float(right[known].mean()), 'accuracy_all': float(right.mean()),
            'pictures': int(known.sum()), 'pictures_all': len(pictures)}


def known_labels(pictures: Pictures, names: Sequence[str], classes: int) -> NDArray[np.int64]:
    """Return the labels as the network's class indices; -1 for classes that it does not know.

    Names are compared, numbers by value ('07' is 7). Labels without names are class numbers: of the network's names
    where these are numbers, BOP's ids where the names are BOP's (obj_000005) and a label is too large for an index,
    else indices.
    """
    assert pictures.labels is not None
    own = list(names) or [str(i) for i in range(classes)]
    index = {_key(name): i for i, name in enumerate(own)}
    if pictures.names:
        table = [index.get(_key(name), -1) for name in pictures.names]
    elif all(name.isdigit() for name in own):
        table = [index.get(str(n), -1) for n in range(int(pictures.labels.max()) + 1)]
    elif pictures.labels.max() >= classes and all(BOP_NAME.fullmatch(name) for name in own):
        table = [index.get(f'obj_{n:06d}', -1) for n in range(int(pictures.labels.max()) + 1)]
    else:
        table = [n if n < classes else -1 for n in range(int(pictures.labels.max()) + 1)]
    return np.array(table, np.int64)[pictures.labels]


def _key(name: str) -> str:
    return str(int(name)) if name.isdigit() else name
