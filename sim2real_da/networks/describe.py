# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da weights``: show what a weights file says about itself, and check that it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier_weights import load_classifier
from sim2real_da.networks.network_weights import BUILDERS, load_network
from sim2real_da.networks.weights_file import kind_of, manifest_of
from sim2real_da.resources import weights_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da weights``."""
    parser.add_argument('file', help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--json', action='store_true', help='print the whole manifest as JSON')


def run(options: argparse.Namespace) -> None:
    """Print the manifest of a file whose checksum is right.

    :raises WeightsError: for a file that is missing, damaged or not one of this package
    """
    path = weights_path(options.file)
    manifest = manifest_of(path)
    lines = {'file': f'{path} ({path.stat().st_size / 1e6:.1f} MB, checksum right)'}
    kind = kind_of(manifest)
    if kind == 'classifier':
        lines |= _classifier(path, manifest)
    else:
        lines |= _network(path, kind) if kind in BUILDERS else _bundle(path, manifest)
    if options.json:
        sys.stdout.write(json.dumps(manifest, indent=2) + '\n')
        return
    for key, value in lines.items():
        sys.stdout.write(f'{key + ":":10} {value}\n')


def _bundle(path: Path, manifest: dict[str, Any]) -> dict[str, str]:
    bundle = Bundle.load(path)
    networks = {name: _size(network, manifest[name])
                for name, network in (('detector', bundle.detector), ('pose', bundle.pose))}
    return {'version': f'{bundle.version} (parent {bundle.parent}), recipe {bundle.recipe}', 'note': bundle.note or '-',
            'classes': ', '.join(f'{m.name}{" (symmetric)" if m.symmetric else ""}' for m in bundle.objects.values()),
            **networks}


def _classifier(path: Path, manifest: dict[str, Any]) -> dict[str, str]:
    network, _ = load_classifier(path)
    config = {k: v for k, v in network.config.items() if k != 'names'}
    return {'recipe': manifest['recipe'], 'note': manifest['note'] or '-',
            'classes': ', '.join(network.config['names']) or str(config['classes']),
            'classifier': _size(network, config)}


def _network(path: Path, kind: str) -> dict[str, str]:
    network, manifest = load_network(path, kind)
    return {'recipe': manifest['recipe'], 'note': manifest['note'] or '-', 'classes': ', '.join(manifest['names']),
            kind: _size(network, manifest[kind])}


def _size(network: nn.Module, config: dict[str, Any]) -> str:
    return f'{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million parameters, {_config(config)}'


def _config(values: dict[str, Any]) -> str:
    return ', '.join(f'{key} {value}' for key, value in values.items())
