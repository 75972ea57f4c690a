# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a result file says of the code that made it: the commit, and whether it was quite that commit."""

from __future__ import annotations

import subprocess

import pytest

from sim2real_da.evaluation import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a repository with one commit, in which the package seems to lie."""
    (tmp_path / 'package').mkdir()
    (tmp_path / 'package' / 'code.py').write_text('1\n')
    for words in (['init', '-q'], ['add', '.'], ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'one']):
        subprocess.run(['git', *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, 'PACKAGE', tmp_path / 'package')
    return tmp_path


def test_changes_that_are_in_no_commit_are_told(checkout, monkeypatch):
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert provenance.commit() == head.strip() and not provenance.uncommitted()
    (checkout / 'results.json').write_text('{}')  # what a run writes beside the code does not change the code
    assert not provenance.uncommitted()
    (checkout / 'package' / 'code.py').write_text('2\n')
    assert provenance.uncommitted()
    monkeypatch.setattr(provenance, 'UNCOMMITTED', True)
    assert provenance.provenance()['uncommitted'] is True
    monkeypatch.setattr(provenance, 'UNCOMMITTED', False)
    assert 'uncommitted' not in provenance.provenance()


def test_hardware_names_the_processor(monkeypatch):
    monkeypatch.setattr(provenance.torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(provenance.Path, 'is_file', lambda _: True)
    monkeypatch.setattr(provenance.Path, 'read_text', lambda _: 'flags\t: a b\nmodel name\t: Some CPU @ 2 GHz\n')
    assert provenance.provenance()['hardware'].startswith('Some CPU @ 2 GHz, ')
    monkeypatch.setattr(provenance.Path, 'read_text', lambda _: 'Hardware\t: board\n')
    assert provenance.provenance()['hardware'].startswith(f'{provenance.platform.machine()}, ')


def test_an_installed_package_tells_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, 'PACKAGE', tmp_path / 'package')
    assert provenance.commit().startswith('version ') and not provenance.uncommitted()
