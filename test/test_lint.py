# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Style and types, with the settings in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('tool', [['ruff', 'check', '--no-cache', '.'], ['mypy']], ids=lambda tool: tool[0])
def test_lint(tool: list[str]) -> None:
    pytest.importorskip(tool[0], reason=f'{tool[0]} is not installed (requirements-test.txt)')
    done = subprocess.run([sys.executable, '-m', *tool], cwd=REPO, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
