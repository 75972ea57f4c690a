# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of the docs are those of the result files."""

from __future__ import annotations

import json
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


def result(tasks: dict) -> str:
    return json.dumps({'command': 'sim2real_da benchmark', 'commit': 'abcdefgh', 'hardware': 'some', 'torch': '2',
                       'steps': 5, 'source_steps': 7, 'tasks': tasks})


def accuracies(value: float, every: float | None = None) -> dict:
    return {'accuracy': {'mean': value, 'std': 0.01}, 'seconds': {'mean': 60.0, 'std': 0.0}, 'runs': [{}, {}],
            'accuracy_all': {'mean': value if every is None else every, 'std': 0.01}}


def test_rows_of_several_files_stand_in_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)
    assert TABLES.classification('digits', 'mnistm') == 'Not measured yet.'
    (tmp_path / 'digits_a.json').write_text(result({'mnistm': {'dann': accuracies(0.7)}}))
    (tmp_path / 'digits_b.json').write_text(result({'mnistm': {
        'target_only': accuracies(0.9), 'source_only': accuracies(0.5), 'source_continued': accuracies(0.6)}}))
    lines = TABLES.classification('digits', 'mnistm').splitlines()
    assert [line.split(' | ')[0] for line in lines[2:6]] == [
        '| source_only', '| source_continued', '| dann', '| target_only']
    assert lines[4] == '| dann | 70.0 ± 1.0 | 33 % | 60 | 77.4 |'
    (tmp_path / 'digits_c.json').write_text(result({'mnistm': {'dann': accuracies(0.8)}}))
    with pytest.raises(ValueError, match='digits_c.json: mnistm dann is in another file'):
        TABLES.classification('digits', 'mnistm')


def test_what_the_commands_of_several_files_share_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)
    for number, method in enumerate(('dann', 'mmd')):
        made = json.loads(result({'mnistm': {method: accuracies(0.5)}}))
        made['command'] = f'benchmark digits --seeds 2 --method {method} --json {number}.json'
        (tmp_path / f'digits_{number}.json').write_text(json.dumps(made))
    text = TABLES.classification('digits', 'mnistm')
    assert text.count('--seeds 2') == 1 and '\n`benchmark digits --seeds 2 …`:\n\n- digits_0.json: ' in text
    assert '\n- digits_1.json: 2 seeds, 7 + 5 steps, `… --method mmd --json 1.json`, commit ' in text


def test_signs_have_a_column_for_all_classes_and_no_gain_where_there_is_little_to_gain(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)
    (tmp_path / 'signs.json').write_text(result({'gtsrb': {
        'source_only': accuracies(0.95, 0.9), 'dann': accuracies(0.96, 0.91), 'target_only': accuracies(0.99, 0.94)}}))
    text = TABLES.classification('signs', 'gtsrb')
    assert '| dann | 96.0 ± 1.0 | 91.0 ± 1.0 | not reported (4.0 points to gain) | 60 | 92.9 |' in text


def test_crops_have_two_gains_and_less_angle_is_better(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)
    assert TABLES.crops('black') == TABLES.segmentation() == 'Not measured yet.'

    def row(accuracy: float, angle: float) -> dict:
        return {**accuracies(accuracy), 'mean_angle_deg': {'mean': angle, 'std': 1.0}}

    (tmp_path / 'crops.json').write_text(result({'black': {
        'source_only': row(0.5, 90), 'source_continued': row(0.48, 80), 'pixelda': row(0.7, 60),
        'target_only': row(0.9, 40)}}))
    text = TABLES.crops('black')
    assert '| pixelda | 70.0 ± 1.0 | 50 % | 60.0 ± 1.0 | 50 % | 60 | 94.16, 55.74 |' in text
    assert '2 seeds, 7 + 5 steps' in text
    (tmp_path / 'crops.json').write_text(result({'black': {
        'source_only': row(0.5, 42), 'dann': row(0.7, 41), 'target_only': row(0.9, 40)}}))
    assert ('| dann | 70.0 ± 1.0 | 50 % | 41.0 ± 1.0 | not reported (2.0 degrees to gain) | 60 | '
            '99.9, 56.58 (with depth) |') in TABLES.crops('black')
    (tmp_path / 'crops.json').write_text(result({'black': {
        'source_only': row(0.9, 42), 'dann': row(0.7, 41), 'target_only': row(0.8, 40)}}))
    assert '| dann | 70.0 ± 1.0 | nothing to gain | ' in TABLES.crops('black')


def test_segmentation_shows_background_and_objects_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)

    def row(value: float, background: float, *objects: float) -> dict:
        return {'miou': {'mean': value, 'std': 0.0}, 'seconds': {'mean': 9.0, 'std': 0.0},
                'runs': [{'iou': {'background': background, **{f'o{i}': v for i, v in enumerate(objects)}}}]}

    (tmp_path / 'segmentation.json').write_text(result({'lmo': {
        'source_only': row(0.4, 0.8, 0.1, 0.3), 'advent': row(0.5, 0.9, 0.2, 0.4), 'target_only': row(0.6, 1, 0.4)}}))
    assert '| advent | 50.0 (one seed) | 50 % | 90.0 | 30.0 | 9 |' in TABLES.segmentation()


def test_a_soaks_course_is_held_against_the_source_model_of_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, 'RESULTS', tmp_path)
    for recipe, source in (('dann', 30.0), ('mmd', 35.0)):
        (tmp_path / f'soak_{recipe}.json').write_text(json.dumps({
            'command': 'soak', 'commit': 'abcdefgh', 'hardware': 'some', 'torch': '2', 'recipe': recipe, 'frames': 9,
            'worst_drop_below_source': {'benign': 0, 'hostile': 0}, 'mean_gain': {'benign': 1, 'hostile': 1},
            'promotions': 1, 'rejections': 0, 'rollbacks': 0, 'rss_growth_mb': 0,
            'checkpoints': [{'segment': 'day', 'source_ap50': source, 'published_ap50': 36.0}]}))
    assert '| day | +6.0 | +1.0 |' in TABLES.soak()
