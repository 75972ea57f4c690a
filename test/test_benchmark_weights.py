# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The weights of the tables can be read, are small enough to be kept, and say where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier_weights import load_classifier
from sim2real_da.networks.network_weights import load_network

WEIGHTS = Path(__file__).parent.parent / 'benchmarks' / 'weights'
RESULTS = WEIGHTS.parent / 'results'
CLASSES = {'mnistm': 10, 'usps': 10, 'gtsrb': 38}
ROWS = ('source_only', 'source_continued', 'adapted', 'target_only')


@pytest.mark.parametrize('row', ROWS)
def test_a_row_of_the_lmo_table_can_be_measured_again(row):
    path = WEIGHTS / f'lmo_{row}.safetensors'
    assert path.stat().st_size < 30e6
    bundle = Bundle.load(path)  # checks the checksum and that every number is finite
    made_by = {'source_only': 'source', 'adapted': json.loads((RESULTS / 'lmo.json').read_text())['adapted']}
    assert bundle.recipe == made_by.get(row, row)
    assert bundle.classes == tuple(f'obj_{n:06d}' for n in (1, 5, 6, 8, 9, 10, 11, 12))
    assert bundle.created['pose' if 'pose' in bundle.created else 'steps']
    assert {bundle.objects['obj_000010'].symmetric, bundle.objects['obj_000011'].symmetric} == {True}


@pytest.mark.parametrize('path', sorted(p for task in CLASSES for p in WEIGHTS.glob(f'{task}_*.safetensors')),
                         ids=lambda path: path.stem)
def test_a_row_of_digits_and_signs_can_be_measured_again(path):
    task, method = path.stem.split('_', 1)
    network, manifest = load_classifier(path)  # checks the checksum and that every number is finite
    assert path.stat().st_size < 5e6 and network.config['classes'] == CLASSES[task]
    assert (manifest['created']['task'], manifest['created']['method']) == (task, method)
    assert measured(task, method)


@pytest.mark.parametrize('path', sorted(WEIGHTS.glob('crops_*.safetensors')), ids=lambda path: path.stem)
def test_a_row_of_the_crops_tables_can_be_measured_again(path):
    network, manifest = load_network(path, 'pose')
    task, method = manifest['created']['task'], manifest['created']['method']
    assert path.stem == f'crops_{task}_{method}' and path.stat().st_size < 5e6
    assert network.config['classes'] == 8 and measured(task, method)


def measured(task: str, method: str) -> bool:
    """Return whether a result file has this row."""
    results = (json.loads(p.read_text()).get('tasks', {}) for p in RESULTS.glob('*.json'))
    return any(method in tasks.get(task, {}) for tasks in results)
