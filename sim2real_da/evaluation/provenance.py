# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every result file says about where its numbers come from."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sim2real_da import __version__
from sim2real_da.resources import PACKAGE


def provenance() -> dict[str, Any]:
    """Return command (paths outside the repository shortened to their names), commit and hardware.

    ``uncommitted`` is there, and true, where tracked files differed from the commit.
    """
    script, *words = sys.argv
    program = 'sim2real_da' if Path(script).name in ('sim2real_da', 'cli.py') else f'python {_short(script)}'
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {'command': f'{program} {shlex.join(map(_short, words))}'.rstrip(), 'commit': COMMIT,
            **({'uncommitted': True} if UNCOMMITTED else {}),
            'torch': torch.__version__, 'hardware': f'{device}, {torch.get_num_threads()} threads'}


def _processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    table = Path('/proc/cpuinfo')
    names = [line.split(':', 1)[1].strip() for line in table.read_text().splitlines()
             if line.startswith('model name')] if table.is_file() else []
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit of the checkout that the package is in; of an installed package its version."""
    return _git('rev-parse', 'HEAD') if (PACKAGE.parent / '.git').exists() else f'version {__version__}'


def uncommitted() -> bool:
    """Return whether the checkout has changes to tracked files that are in no commit."""
    return (PACKAGE.parent / '.git').exists() and bool(_git('status', '--porcelain', '--untracked-files=no'))


def _git(*words: str) -> str:
    return subprocess.run(['git', *words], capture_output=True, text=True, check=False,
                          cwd=PACKAGE.parent).stdout.strip()


def _short(word: str) -> str:
    return Path(word).name if word.startswith(('/', '..')) else word


# of the code that runs: the checkout may move on during a long run
COMMIT, UNCOMMITTED = commit(), uncommitted()
