# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files are: in a checkout, or in the share folder of an installation."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """Return the folder with parameter files and recipes.

    :raises FileNotFoundError: when neither a checkout nor an installation has one
    """
    checkout = PACKAGE.parent / 'config'
    if checkout.is_dir():
        return checkout
    # ament installs to PREFIX/share/sim2real_da, the package itself to PREFIX/lib/pythonX.Y/site-packages
    for prefix in (*PACKAGE.parents, Path(sys.prefix)):
        installed = prefix / 'share' / 'sim2real_da' / 'config'
        if installed.is_dir():
            return installed
    raise FileNotFoundError(f'sim2real_da: no config folder beside {PACKAGE.parent} or in a share folder; reinstall it')


def weights_file(name: str) -> Path:
    """Return the path of shipped source weights, for instance ``tools``; it need not exist."""
    return PACKAGE / 'weights' / f'{name}.safetensors'


def weights_path(text: Path | str) -> Path:
    """Return the file that a person means by ``text``: shipped weights by their name (``tools``), or a path."""
    shipped = weights_file(str(text))
    return shipped if shipped.is_file() else Path(text).expanduser()
