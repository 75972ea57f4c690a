# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which samples are in which batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def rows(length: int, count: int, seed: list[int]) -> Iterator[NDArray[np.int64]]:
    """Yield indices ``(count,)`` for ever, every sample once before any comes again."""
    rng = np.random.default_rng(seed)
    queue = np.empty(0, np.int64)
    while True:
        while len(queue) < count:
            queue = np.concatenate([queue, rng.permutation(length)])
        yield queue[:count]
        queue = queue[count:]
