# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Rare-class sampling: what simulation shows seldom is drawn more often.

Hoyer et al., DAFormer, CVPR 2022, arXiv 2111.14887. With f_c the share of all source pixels that show class c,

    P(c) = softmax_c((1 - f_c) / T),    T = 0.01;

a class is drawn from P, then a frame that contains it, all such frames alike. Only source labels are needed.

Deviations: classes are the objects, background is none of them; a frame contains a class from its first pixel on (the
paper asks for 3000 of Cityscapes' 2 million); classes that no frame shows take no part. For pictures and crops, which
show one object each, f_c is the share of the samples, and T is larger: shares of ten classes that fill all of the data
are some ten times as large as those of objects in frames, and so are the differences between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sim2real_da.samples import LabelledFrame

TEMPERATURE = 0.01
TEMPERATURE_OF_SAMPLES = 0.1  # where every sample shows one class; not tuned


def class_probabilities(shares: NDArray[np.float64], temperature: float = TEMPERATURE) -> NDArray[np.float64]:
    """Return P(c) ``(C,)``, which sums to 1.

    :param shares: f_c ``(C,)``; a class of share 0 is never drawn
    :raises ValueError: when no class has a share
    """
    if not (shares > 0).any():
        raise ValueError('rare classes: no sample shows any class')
    logits = np.where(shares > 0, (1 - shares) / temperature, -np.inf)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def frame_shares(frames: Sequence[LabelledFrame]) -> NDArray[np.float64]:
    """Return which share of each frame each class takes ``(N, C)``, by masks, or by boxes where there are none."""
    names = sorted({label.name for frame in frames for label in frame.labels})
    shares = np.zeros((len(frames), len(names)))
    for n, labelled in enumerate(frames):
        height, width = labelled.frame.image.shape[:2]
        for label in labelled.labels:
            box = label.box
            pixels = np.count_nonzero(label.mask) if label.mask is not None else (box[2] - box[0]) * (box[3] - box[1])
            shares[n, names.index(label.name)] += max(float(pixels), 0.0) / (height * width)
    return shares


def draw(shares: NDArray[np.float64], count: int, rng: np.random.Generator,
         temperature: float = TEMPERATURE) -> NDArray[np.int64]:
    """Return the indices ``(count,)`` of drawn samples; one may come more than once.

    :param shares: of each class in each sample ``(N, C)``
    """
    return _drawn(class_probabilities(shares.mean(axis=0), temperature),
                  [np.flatnonzero(column) for column in shares.T], count, rng)


def rare_rows(classes: NDArray[np.int64], count: int, seed: list[int],
              temperature: float = TEMPERATURE_OF_SAMPLES) -> Iterator[NDArray[np.int64]]:
    """Yield indices ``(count,)`` for ever, of samples that show one class each.

    :param classes: of the samples ``(N,)``, from 0
    """
    rng, members = np.random.default_rng(seed), [np.flatnonzero(classes == c) for c in range(classes.max() + 1)]
    probabilities = class_probabilities(np.array([len(m) for m in members]) / len(classes), temperature)
    while True:
        yield _drawn(probabilities, members, count, rng)


def _drawn(probabilities: NDArray[np.float64], members: Sequence[NDArray[np.int64]], count: int,
           rng: np.random.Generator) -> NDArray[np.int64]:
    classes = rng.choice(len(probabilities), count, p=probabilities)
    return np.array([rng.choice(members[c]) for c in classes], dtype=np.int64)
