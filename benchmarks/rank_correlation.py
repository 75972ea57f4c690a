# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Spearman's rank correlation, with an answer where one side says the same of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of the ranks, equal values sharing their mean rank; 0 when either says nothing."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
