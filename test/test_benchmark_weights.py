# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of the tables can be read, are small enough to be kept, and say where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier_weights import load_classifier

WEIGHTS = Path(__file__).parent.parent / 'benchmarks' / 'weights'
ROWS = ('source_only', 'source_continued', 'adapted', 'target_only')


@pytest.mark.parametrize('row', ROWS)
def test_a_row_of_the_lmo_table_can_be_measured_again(row):
    path = WEIGHTS / f'lmo_{row}.safetensors'
    assert path.stat().st_size < 30e6
    bundle = Bundle.load(path)  # checks the checksum and that every number is finite
    assert bundle.classes == tuple(f'obj_{n:06d}' for n in (1, 5, 6, 8, 9, 10, 11, 12))
    assert bundle.created['pose' if 'pose' in bundle.created else 'steps']
    assert {bundle.objects['obj_000010'].symmetric, bundle.objects['obj_000011'].symmetric} == {True}


@pytest.mark.parametrize('path', sorted(WEIGHTS.glob('mnistm_*.safetensors')), ids=lambda path: path.stem)
def test_a_row_of_the_digits_table_can_be_measured_again(path):
    assert path.stat().st_size < 5e6
    network, manifest = load_classifier(path)  # checks the checksum and that every number is finite
    assert network.config['classes'] == 10 and manifest['created']['task'] == 'mnistm'
    assert manifest['created']['method'] == path.stem.removeprefix('mnistm_')
