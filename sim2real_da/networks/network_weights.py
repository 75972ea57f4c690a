# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One pose network or detector as a weights file, for benchmarks that measure one of them; perception takes bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sim2real_da.networks.detector import Detector
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.networks.weights_file import WeightsError, halved, pack, unpack, write_atomically

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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    manifest = {'kind': kind, 'recipe': recipe, 'note': note, kind: network.config, 'names': list(names),
                'created': created or {}}
    write_atomically(path, pack(halved(tensors) if half else tensors, manifest))
    return path


def load_network(path: Path | str, kind: str, device: torch.device | str = 'cpu') -> tuple[nn.Module, dict[str, Any]]:
    """Return the network, ready to look at pictures, and its manifest.

    :raises WeightsError: for a file that is missing, damaged, not finite or of another kind; the message names it
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f'{path}: no such weights file')
    try:
        manifest, tensors = unpack(path.read_bytes(), kind)
        network = BUILDERS[kind](**manifest[kind])
        if len(manifest['names']) != manifest[kind]['classes']:
            raise WeightsError(f'weights: {len(manifest["names"])} names of {manifest[kind]["classes"]} classes')
        network.load_state_dict(tensors)
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
            raise WeightsError('weights: some numbers are not finite; these weights are not used')
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f'{path}: weights: the manifest does not fit the content ({error})') from error
    return network.to(device).eval(), manifest
