# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of the docs are those of the result files."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import load_script

REPOSITORY = Path(__file__).parent.parent
TABLES = load_script(REPOSITORY / 'benchmarks' / 'tables.py')
PAGES = [p for p in sorted((REPOSITORY / 'docs').glob('*.md')) if '<!-- table:' in p.read_text(encoding='utf-8')]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_result_files_say(page):
    text = page.read_text(encoding='utf-8')
    assert TABLES.filled(text) == text, f'{page.name}: run python benchmarks/tables.py'


def test_gain_is_measured_from_the_better_of_source_and_control():
    rows = {'source_only': {'ap50': 0.5, 'adds_recall': 0.1}, 'source_continued': {'ap50': 0.6, 'adds_recall': 0.1},
            'adapted': {'ap50': {'mean': 0.65, 'std': 0.01}, 'adds_recall': 0.12},
            'target_only': {'ap50': 0.8, 'adds_recall': 0.14}}
    assert TABLES._gains(rows, 'adapted') == [
        'AP50 25 %', 'ADD(-S) recall not reported (target-only is 4.0 points away)']
    assert TABLES._gains(rows, 'target_only') == []
