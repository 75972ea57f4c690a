# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``colcon build`` puts things where ``ros2 run`` and ``ros2 launch`` look for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
NODES = ('perception', 'adaptation', 'simulator', 'camera', 'evaluator')


@pytest.mark.parametrize('options', [[], ['--symlink-install']], ids=['copy', 'symlink'])
def test_colcon_build(tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip('colcon_ros', reason='colcon is not installed (requirements-test.txt)')
    bases = [f'--{base}-base={tmp_path / base}' for base in ('build', 'install')]
    command = [sys.executable, '-m', 'colcon', f'--log-base={tmp_path / "log"}', 'build', f'--base-paths={REPO}']
    done = subprocess.run([*command, *bases, *options], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    prefix = tmp_path / 'install' / 'sim2real_da'
    share = prefix / 'share' / 'sim2real_da'
    assert (prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'sim2real_da').exists()
    for kind, pattern in (('launch', '*.launch.py'), ('config', '**/*.yaml')):
        expected = {file.relative_to(REPO) for file in (REPO / kind).glob(pattern)}
        assert {file.relative_to(share) for file in (share / kind).glob(pattern)} == expected
        assert expected
    for name in (*NODES, 'sim2real_da'):
        executable = prefix / 'lib' / 'sim2real_da' / name
        assert os.access(executable, os.X_OK)
        # an activated environment's interpreter, where torch is; --symlink-install knows only the one that ran colcon
        interpreter = sys.executable if options else '/usr/bin/env python3'
        assert executable.read_text().startswith(f'#!{interpreter}\n')

    def sourced(command: str) -> str:
        """Run a command where ``install/setup.bash`` was sourced, away from the checkout; return what it says."""
        script = f'. {tmp_path}/install/setup.bash && cd / && {command}'
        done = subprocess.run(['bash', '-c', script], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert '0.1.0' in sourced(f'{prefix}/lib/sim2real_da/sim2real_da --version')
    program = 'import sim2real_da.resources as r; print(r.PACKAGE); print(r.config_folder())'
    for place in sourced(f'python3 -c "{program}"').splitlines():
        assert Path(place).is_dir()
        assert options or place.startswith(str(prefix)), f'{place} is not the installed one'
