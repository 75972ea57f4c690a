# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A classifier as a weights file: architecture, class names, recipe and where it comes from stand in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.weights_file import WeightsError, halved, pack, unpack, write_atomically

KIND = 'classifier'


def save_classifier(path: Path | str, network: Classifier, recipe: str, note: str = '',
                    created: dict[str, Any] | None = None, half: bool = False) -> Path:
    """Write a weights file atomically.

    :param recipe: name of the recipe, or of the benchmark's row, that made it
    :param note: where it comes from, for a person to read
    :param created: how: steps, seed, data, commit
    :param half: store floating-point numbers in 16 bits, for shipping
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    manifest = {'kind': KIND, 'recipe': recipe, 'note': note, 'classifier': network.config, 'created': created or {}}
    write_atomically(path, pack(halved(tensors) if half else tensors, manifest))
    return path


def load_classifier(path: Path | str, device: torch.device | str = 'cpu') -> tuple[Classifier, dict[str, Any]]:
    """Return the classifier, ready to look at pictures, and its manifest.

    :raises WeightsError: for a file that is missing, damaged, not finite or no classifier; the message names it
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f'{path}: no such weights file')
    try:
        manifest, tensors = unpack(path.read_bytes(), KIND)
        network = Classifier(**manifest['classifier'])
        network.load_state_dict(tensors)
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise WeightsError('weights: some numbers are not finite; these weights are not used')
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f'{path}: weights: the manifest does not fit the content ({error})') from error
    return network.to(device).eval(), manifest
