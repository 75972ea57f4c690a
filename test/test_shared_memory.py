# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Shared memory of killed processes goes, that of living ones stays."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from sim2real_da.nodes.shared_memory import remove_leftovers

OLD = time.time() - 60


def segment(folder: Path, name: str, age: float = OLD) -> Path:
    made = folder / name
    made.write_bytes(bytes(1000))
    lock = folder / f'{name}_el'
    lock.touch()
    os.utime(lock, (age, age))
    return made


@pytest.mark.parametrize('prefix', ['fastrtps', 'fastdds'])  # Fast DDS 2 and 3
def test_segments_without_an_owner_are_removed(tmp_path, prefix):
    dead, living = segment(tmp_path, f'{prefix}_0123456789abcdef'), segment(tmp_path, f'{prefix}_fedcba9876543210')
    young = segment(tmp_path, f'{prefix}_00000000000000ff', time.time())
    port = segment(tmp_path, f'{prefix}_port7400')
    stranger = tmp_path / 'sem.other'
    stranger.touch()
    with (tmp_path / f'{prefix}_fedcba9876543210_el').open('rb') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == 1000
    assert not dead.exists() and not (tmp_path / f'{prefix}_0123456789abcdef_el').exists()
    assert all(path.exists() for path in (living, young, port, stranger))
    assert remove_leftovers(tmp_path) == 1000 and not living.exists()
    assert remove_leftovers(tmp_path / 'none') == 0
