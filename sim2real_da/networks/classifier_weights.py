# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A classifier as a weights file: architecture, class names, recipe and where it comes from stand in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.weights_file import load_network, save_network

KIND = 'classifier'


def save_classifier(path: Path | str, network: Classifier, recipe: str, note: str = '',
                    created: dict[str, Any] | None = None, half: bool = False) -> Path:
    """Write a weights file atomically.

    :param recipe: name of the recipe, or of the benchmark's row, that made it
    :param note: where it comes from, for a person to read
    :param created: how: steps, seed, data, commit
    :param half: store floating-point numbers in 16 bits, for shipping
    """
    manifest = {'recipe': recipe, 'note': note, 'classifier': network.config, 'created': created or {}}
    return save_network(path, KIND, network, manifest, half)


def load_classifier(path: Path | str, device: torch.device | str = 'cpu') -> tuple[Classifier, dict[str, Any]]:
    """Return the classifier, ready to look at pictures, and its manifest.

    :raises WeightsError: for a file that is missing, damaged, not finite or no classifier; the message names it
    """
    network, manifest = load_network(path, KIND, lambda manifest: Classifier(**manifest['classifier']))
    return network.to(device), manifest
