# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One pose network or detector as a weights file, for benchmarks that measure one of them; perception takes bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sim2real_da.networks import weights_file
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.networks.weights_file import WeightsError

BUILDERS: dict[str, Callable[..., nn.Module]] = {'pose': build_pose_network, 'detector': Detector}


def save_network(path: Path | str, kind: str, network: nn.Module, names: Sequence[str], recipe: str, note: str = '',
                 created: dict[str, Any] | None = None, half: bool = False) -> Path:
    """Write a weights file atomically.

    :param kind: 'pose' or 'detector'
    :param names: of the classes, by index
    :param recipe: name of the recipe, or of the benchmark's row, that made it
    :param note: where it comes from, for a person to read
    :param created: how: steps, seed, data, commit
    :param half: store floating-point numbers in 16 bits, for shipping
    """
    manifest = {'recipe': recipe, 'note': note, kind: network.config, 'names': list(names), 'created': created or {}}
    return weights_file.save_network(path, kind, network, manifest, half)


def load_network(path: Path | str, kind: str, device: torch.device | str = 'cpu') -> tuple[nn.Module, dict[str, Any]]:
    """Return the network, ready to look at pictures, and its manifest.

    :raises WeightsError: for a file that is missing, damaged, not finite or of another kind; the message names it
    """
    network, manifest = weights_file.load_network(path, kind, lambda manifest: _built(kind, manifest))
    return network.to(device), manifest


def _built(kind: str, manifest: dict[str, Any]) -> nn.Module:
    if len(manifest['names']) != manifest[kind]['classes']:
        raise WeightsError(f'weights: {len(manifest["names"])} names of {manifest[kind]["classes"]} classes')
    return BUILDERS[kind](**manifest[kind])
