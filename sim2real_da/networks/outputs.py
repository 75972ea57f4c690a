# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every network has in common for whoever trains it: outputs that know their loss and their probabilities."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from typing_extensions import Self


class Targets(Protocol):
    """Labels of a batch in the form that one network is trained with."""

    @property
    def count(self) -> int:
        """Number of labelled things (objects, crops, images)."""
        ...


class NetworkOutput:
    """What one forward pass gives; each network has its own subclass.

    :param features: the maps that alignment objectives look at, ``(B, C, h, w)`` each; the rows of a pass over source
        and target samples are source first
    """

    features: list[Tensor]

    def rows(self, first: int, last: int | None = None) -> Self:
        """Return the same for some of the samples, without features."""
        raise NotImplementedError

    def loss(self, targets: Targets) -> dict[str, Tensor]:
        """Return the supervised losses by name.

        :raises TypeError: for the targets of another network
        """
        raise NotImplementedError

    def probabilities(self) -> dict[str, Tensor]:
        """Return what the network says about classes: distributions ``(N, K, ...)`` that sum to 1 over dimension 1."""
        raise NotImplementedError
