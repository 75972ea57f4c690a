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


def provenance() -> dict[str, str]:
    """Return command (paths outside the repository shortened to their names), commit and hardware."""
    words = [Path(word).name if word.startswith('/') else word for word in sys.argv]
    commit = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=False,
                            cwd=Path(__file__).parent).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {'command': f'python {shlex.join(words)}', 'commit': commit, 'torch': torch.__version__,
            'hardware': f'{device}, {torch.get_num_threads()} threads'}
