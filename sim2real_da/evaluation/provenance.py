# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every result file says about where its numbers come from."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from sim2real_da import __version__
from sim2real_da.resources import PACKAGE


def provenance() -> dict[str, str]:
    """Return command (paths outside the repository shortened to their names), commit and hardware."""
    script, *words = sys.argv
    program = 'sim2real_da' if Path(script).name in ('sim2real_da', 'cli.py') else f'python {_short(script)}'
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {'command': f'{program} {shlex.join(map(_short, words))}'.rstrip(), 'commit': COMMIT,
            'torch': torch.__version__, 'hardware': f'{device}, {torch.get_num_threads()} threads'}


def commit() -> str:
    """Return the commit of the checkout that the package is in; of an installed package its version."""
    checkout = PACKAGE.parent
    if not (checkout / '.git').exists():
        return f'version {__version__}'
    return subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=False,
                          cwd=checkout).stdout.strip()


def _short(word: str) -> str:
    return Path(word).name if word.startswith(('/', '..')) else word


COMMIT = commit()  # of the code that runs: the checkout may move on during a long run
