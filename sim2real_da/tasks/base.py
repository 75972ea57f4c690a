# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One source and one target: what a benchmark's rows are made and measured with."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sim2real_da.offline import Adapted
from sim2real_da.recipes import Recipe


class Task:
    """Base of the tasks.

    :param name: of the target, as ``--task`` knows it
    :param source_name: tasks of one source share their source_only models; it ends with a :func:`fingerprint`, so that
        those of other data are not taken for them
    :param variant: of the task, for instance '50_labelled'
    :param prefix: of the weights files' names, which begin with it and :attr:`key`
    """

    #: 'classifier', 'pose' or 'detector'
    kind: str
    #: what :meth:`score` returns that tables show; the first is what a person watches
    metrics: tuple[str, ...]

    def __init__(self, name: str, source_name: str, variant: str = '', prefix: str = '') -> None:
        self.name, self.source_name = name, source_name
        #: name and variant, as result files know the task
        self.key = f'{name}_{variant}' if variant else name
        self.file_name = f'{prefix}{self.key}'

    def network(self, seed: int) -> nn.Module:
        """Return where training begins, on the device."""
        raise NotImplementedError

    @property
    def trained(self) -> bool:
        """Whether :meth:`network` is trained on the source already, which makes it the row source_only."""
        return False

    def pretrain(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train by a recipe on the labelled source alone; whatever else the task knows, nothing of the target."""
        raise NotImplementedError

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train by a recipe on the labelled source and the unlabelled target."""
        raise NotImplementedError

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[nn.Module]:
        """Train by a recipe on the labelled target; for the row target_only alone."""
        raise NotImplementedError

    def score(self, network: nn.Module) -> dict[str, Any]:
        """Return the metrics on the target's test samples."""
        raise NotImplementedError

    def figures(self, before: nn.Module, made: Adapted[nn.Module]) -> dict[str, Any]:
        """Return :func:`.tasks.figures.figures` of a run.

        :raises ValueError: where the samples are no pictures of one size
        """
        raise ValueError(f'{self.name}: figures are for digits, signs and crops')

    def save(self, path: Path, network: nn.Module, recipe: str, note: str = '', created: dict[str, Any] | None = None,
             half: bool = False) -> None:
        """Write a weights file."""
        raise NotImplementedError

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network of a weights file, on the device, and its manifest."""
        raise NotImplementedError


def fingerprint(data: bytes | NDArray[np.uint8]) -> str:
    """Return eight characters that other data would hardly have."""
    return f'{zlib.crc32(data.tobytes() if isinstance(data, np.ndarray) else data):08x}'


def labelled_rows(length: int, count: int) -> NDArray[np.int64]:
    """Return which target samples show their labels, the same ones for all rows and seeds.

    :raises ValueError: when there are not so many
    """
    if count > length:
        raise ValueError(f'--labelled {count}: the target has {length} samples of the source\'s classes')
    return np.random.default_rng(3).permutation(length)[:count]
