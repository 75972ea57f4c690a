# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The store of versions on disks that refuse: read-only, full, unreadable, and shared by mistake."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import box_model

from sim2real_da.networks import weights_file
from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.online.store import WeightStore


@pytest.fixture(scope='module')
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle.create({'box': box_model('box')}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})


def numbered(bundle: Bundle, version: int) -> Bundle:
    copy = bundle.copy()
    copy.version = version
    return copy


def filled(bundle: Bundle, folder: Path, count: int = 2) -> WeightStore:
    store = WeightStore(folder)
    for version in range(1, count + 1):
        store.save(numbered(bundle, version), b'state')
    return store


def failing(monkeypatch: pytest.MonkeyPatch, method: str, number: int, name: str = '') -> None:
    """Let a method of paths fail, as a disk does, for those files that end so."""
    real = getattr(Path, method)

    def called(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(name):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, method, called)


def test_a_read_only_disk_with_leftovers_can_be_started_from(bundle, tmp_path, monkeypatch, caplog):
    store = filled(bundle, tmp_path)
    leftovers = [tmp_path / f'.v000003.safetensors.x{weights_file.UNFINISHED}', store.learner_path(3)]
    for path in leftovers:
        path.write_bytes(b'half')
    failing(monkeypatch, 'unlink', errno.EROFS)
    assert WeightStore(tmp_path).load().version == 2
    assert caplog.text.count('Read-only file system') == 2 and 'v000003.learner' in caplog.text
    monkeypatch.undo()
    WeightStore(tmp_path)
    assert not any(path.exists() for path in leftovers)


def test_a_state_that_could_not_be_removed_is_not_that_of_a_later_version(bundle, tmp_path, monkeypatch):
    store = filled(bundle, tmp_path)
    store.learner_path(3).write_bytes(b'of other weights')
    with monkeypatch.context() as read_only:
        failing(read_only, 'unlink', errno.EROFS)
        store = WeightStore(tmp_path)
    store.save(numbered(bundle, 3))
    assert store.learner(3) is None


def test_a_version_that_cannot_be_written_leaves_no_state(bundle, tmp_path, monkeypatch):
    store = filled(bundle, tmp_path)
    before = sorted(tmp_path.iterdir())

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as no_room:
        no_room.setattr('sim2real_da.networks.bundle.write_atomically', full)  # the state still has room
        with pytest.raises(OSError, match='No space left'):
            store.save(numbered(bundle, 3), b'state')
    assert sorted(tmp_path.iterdir()) == before and store.next_version() == 3
    store.save(numbered(bundle, 3), b'state')
    assert store.versions() == [1, 2, 3]


def test_an_old_version_that_cannot_be_removed_stops_no_new_one(bundle, tmp_path, monkeypatch, caplog):
    store = filled(bundle, tmp_path)
    store.keep = 2
    with monkeypatch.context() as refusing:
        failing(refusing, 'unlink', errno.EIO, 'v000001.safetensors')
        assert store.save(numbered(bundle, 3), b'state') == store.path(3)
    assert 'v000001.safetensors: cannot be removed' in caplog.text
    assert store.versions() == [1, 2, 3] and store.learner(1) == b'state' and store.next_version() == 4
    store.save(numbered(bundle, 4), b'state')
    assert store.versions() == [3, 4] and store.learner(1) is None


@pytest.mark.parametrize('number', [errno.EIO, errno.EACCES])
def test_a_version_that_the_disk_cannot_read_is_passed_over(bundle, tmp_path, monkeypatch, caplog, number):
    filled(bundle, tmp_path)
    failing(monkeypatch, 'read_bytes', number, 'v000002.safetensors')
    store = WeightStore(tmp_path)
    assert store.load(like=bundle).version == 1 and store.readable()
    assert 'v000002.safetensors: cannot be read' in caplog.text
    with pytest.raises(WeightsError, match='v000002'):
        store.load(2)


def test_a_folder_that_the_disk_cannot_read_has_no_usable_version(bundle, tmp_path, monkeypatch):
    store = filled(bundle, tmp_path)
    failing(monkeypatch, 'read_bytes', errno.EIO)
    assert not store.readable()
    with pytest.raises(WeightsError, match='no usable version'):
        store.load()


def test_a_state_that_cannot_be_read_or_is_too_large_is_none(bundle, tmp_path, monkeypatch, caplog):
    store = filled(bundle, tmp_path)
    with monkeypatch.context() as broken:
        failing(broken, 'read_bytes', errno.EIO)
        assert store.learner(2) is None
    assert 'v000002.learner.safetensors' in caplog.text and 'Input/output error' in caplog.text
    monkeypatch.setattr(weights_file, 'LARGEST', 4)
    assert store.learner(2) is None and 'at most 4' in caplog.text and store.learner(9) is None


def test_a_version_that_is_there_is_never_replaced(bundle, tmp_path):
    stale, other = filled(bundle, tmp_path), WeightStore(tmp_path)
    other.save(numbered(bundle, 3), b'of the other')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match='v000003'):
        stale.save(numbered(bundle, 3), b'state')
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
