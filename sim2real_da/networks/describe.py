# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da weights``: show what a weights file says about itself, and check that it is whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sim2real_da.networks.bundle import Bundle, read_manifest
from sim2real_da.resources import weights_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da weights``."""
    parser.add_argument('file', help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--json', action='store_true', help='print the whole manifest as JSON')


def run(options: argparse.Namespace) -> None:
    """Print the manifest of a file whose checksum is right.

    :raises WeightsError: for a file that is missing, damaged or not one of this package
    """
    path = Path(options.file) if Path(options.file).suffix else weights_file(options.file)
    bundle = Bundle.load(path)
    manifest: dict[str, Any] = read_manifest(path.read_bytes())
    if options.json:
        sys.stdout.write(json.dumps(manifest, indent=2) + '\n')
        return
    networks = {name: sum(p.numel() for p in network.parameters())
                for name, network in (('detector', bundle.detector), ('pose', bundle.pose))}
    lines = {
        'file': f'{path} ({path.stat().st_size / 1e6:.1f} MB, checksum right)',
        'version': f'{bundle.version} (parent {bundle.parent}), recipe {bundle.recipe}',
        'note': bundle.note or '-',
        'classes': ', '.join(f'{m.name}{" (symmetric)" if m.symmetric else ""}' for m in bundle.objects.values()),
        **{name: f'{count / 1e6:.2f} million parameters, {_config(manifest[name])}'
           for name, count in networks.items()},
    }
    for key, value in lines.items():
        sys.stdout.write(f'{key + ":":10} {value}\n')


def _config(values: dict[str, Any]) -> str:
    return ', '.join(f'{key} {value}' for key, value in values.items())
