# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da evaluate`` on a small BOP data set: its numbers, its results file, its errors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from box_dataset import bop_folder
from helpers import CAMERA, box_model

from sim2real_da.cli import main
from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation import command
from sim2real_da.networks.bundle import Bundle
from sim2real_da.samples import Detection, Intrinsics

KEYS = ('ap50', 'ap', 'recall', 'adds_recall', 'bop_ar', 'mssd_ar', 'mspd_ar', 'mean_angle_deg',
        'mean_angle_matched_deg', 'mean_position_m')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = Bundle.create({name: box_model(name) for name in ('obj_000003', 'obj_000007')})
    return bundle.save(tmp_path_factory.mktemp('weights') / 'boxes.safetensors')


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return bop_folder(tmp_path / 'boxes', scenes=(1, 4), frames=2)


class Oracle:
    """In the estimator's place: gives back the ground truth, and once a detection without a pose."""

    def __init__(self, dataset: BopDataset) -> None:
        self.frames = [dataset.frame(i) for i in dataset.ids()]

    def estimate(self, image: np.ndarray, intrinsics: Intrinsics) -> list[Detection]:
        labels = next(f.labels for f in self.frames if np.array_equal(f.frame.image, image))
        found = [Detection(label.name, 0.9, label.box, label.pose, np.eye(6)) for label in labels]
        return [*found, Detection('obj_000003', 0.1, np.array([0.0, 0.0, 5.0, 5.0]))]


def test_json_has_every_number_also_where_nothing_is_found(data, weights, tmp_path):
    out = tmp_path / 'out' / 'scores.json'
    assert main(['evaluate', '--weights', str(weights), '--data', str(data), '--json', str(out)]) == 0
    scores = json.loads(out.read_text())
    assert (scores['frames'], scores['instances'], sorted(scores['objects'])) == (4, 8, ['obj_000003', 'obj_000007'])
    assert scores['commit'] and scores['hardware'] and 'command' in scores, 'a number says where it comes from'
    for values in (scores, *scores['objects'].values()):
        assert all(math.isfinite(values[key]) for key in KEYS)


def test_perfect_poses_and_their_results_file(data, weights, tmp_path, monkeypatch, capsys):
    dataset = BopDataset(data)
    monkeypatch.setattr(command, 'Estimator', lambda *_: Oracle(dataset))
    out, results = tmp_path / 'scores.json', tmp_path / 'out' / 'oracle_boxes-test.csv'
    assert main(['evaluate', '--weights', str(weights), '--data', str(data), '--json', str(out),
                 '--csv', str(results)]) == 0
    assert 'BOP AR without VSD     1.000' in capsys.readouterr().out
    scores = json.loads(out.read_text())
    for key in KEYS:
        assert scores[key] == pytest.approx(0 if key.startswith('mean') else 1, abs=1e-4), key
    assert results.read_text().splitlines()[0] == 'scene_id,im_id,obj_id,score,R,t,time'
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8  # the detection without a pose is none
    seconds: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        truth = json.loads((data / 'test' / f'{int(row["scene_id"]):06d}' / 'scene_gt.json').read_text())[row['im_id']]
        entry = next(e for e in truth if e['obj_id'] == int(row['obj_id']))
        assert [float(v) for v in row['R'].split(' ')] == pytest.approx(entry['cam_R_m2c'], abs=1e-6)
        assert [float(v) for v in row['t'].split(' ')] == pytest.approx(entry['cam_t_m2c'], abs=1e-3)
        assert float(row['score']) == 0.9
        seconds.setdefault((row['scene_id'], row['im_id']), set()).add(row['time'])
    assert sorted(seconds) == [('1', '0'), ('1', '1'), ('4', '0'), ('4', '1')]
    assert all(len(times) == 1 and float(times.pop()) > 0 for times in seconds.values())


def test_errors_are_one_line_that_names_what_is_wrong(data, weights, tmp_path, capsys):
    def said(*more: str, file: Path = weights) -> str:
        assert main(['evaluate', '--weights', str(file), '--data', str(data), *more]) == 2
        line = capsys.readouterr().err
        assert line.count('\n') == 1
        return line

    other = Bundle.create({'mug': box_model('mug')}).save(tmp_path / 'other.safetensors')
    line = said(file=other)
    assert 'weights for other objects' in line
    assert 'know mug' in line
    assert 'has obj_000003, obj_000007' in line
    ids = tmp_path / 'ids.txt'
    ids.write_text('1000000 5\n')
    assert 'frame 5 is not in' in said('--ids', str(ids))
    assert 'no scene folders' in said('--split', 'val')
    for scene in (1, 4):  # hardly anything visible
        info = data / 'test' / f'{scene:06d}' / 'scene_gt_info.json'
        info.write_text(info.read_text().replace('"visib_fract": 1.0', '"visib_fract": 0.05'))
    assert 'empty split' in said()
    assert main(['evaluate', '--weights', str(weights), '--data', 'surrogate', '--csv', str(tmp_path / 'x.csv')]) == 2
    assert '--csv' in capsys.readouterr().err


def test_the_small_data_set_is_what_it_says(data):
    frame = BopDataset(data).frame(4_000_001)
    assert cv2.imread(str(data / 'test/000004/rgb/000001.png')).shape[:2] == (CAMERA.height, CAMERA.width)
    assert [label.name for label in frame.labels] == ['obj_000003', 'obj_000007']
