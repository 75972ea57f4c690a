# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Parameter files and documented parameters are those of the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import load_script

pytest.importorskip('rclpy', reason='ROS 2 is not there')

REPO = Path(__file__).resolve().parent.parent


def tool() -> Any:
    return load_script(REPO / 'tools' / 'write_parameter_files.py')


def test_parameters_are_written_from_the_nodes() -> None:
    written = tool()
    for name, text in written.texts().items():
        assert (REPO / 'config' / f'{name}.yaml').read_text() == text, (
            f'config/{name}.yaml is out of date: python tools/write_parameter_files.py')
    page = written.DOCUMENT.read_text()
    assert written.document(page) == page, 'docs/interfaces.md is out of date: python tools/write_parameter_files.py'
