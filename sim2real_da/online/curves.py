# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A session's history for TensorBoard, while it runs: losses, adversary, gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Curves:
    """Writes every number of a step once.

    :param folder: for ``tensorboard --logdir``
    :raises ValueError: where TensorBoard is not installed
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError('tensorboard: not installed; pip install tensorboard, or leave it off') from error
        self._writer: Any = SummaryWriter(folder)
        self._written: dict[str, int] = {}  # a gate's numbers join the entry of their step later

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take the entry of a step (``AdaptationSession.history``); what was written of it before is not again."""
        step = int(entry['step'])
        for key, value in entry.items():
            if key == 'step' or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            if self._written.get(key) != step:
                self._written[key] = step
                self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
