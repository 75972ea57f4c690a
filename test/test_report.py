# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Overlays, figures and the report page, made from an invented run."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sim2real_da.evaluation.drawing import PALETTE, class_colour, draw
from sim2real_da.evaluation.report import Overlay, learning_curves, write_overlays, write_report
from sim2real_da.geometry import canonical_quaternion, project, transform_points
from sim2real_da.samples import Detection, Frame, Intrinsics, ObjectLabel, ObjectModel, Pose

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 160.0, 120.0)
NAMES = ('hammer', 'screwdriver', 'wrench', 'mug', 'drill')
SIZES = {'hammer': (0.06, 0.03, 0.26), 'screwdriver': (0.03, 0.03, 0.2), 'wrench': (0.05, 0.01, 0.18),
         'mug': (0.08, 0.1, 0.09), 'drill': (0.07, 0.18, 0.19)}


def box_model(name: str) -> ObjectModel:
    size = np.array(SIZES[name])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size / 2
    return ObjectModel(name, corners.astype(np.float32), -size / 2, size, float(np.linalg.norm(size)))


OBJECTS = {name: box_model(name) for name in NAMES}


def fake_overlay(name: str, rng: np.random.Generator, scale: int = 1) -> Overlay:
    """A picture of textured noise with three boxes in it, found worse before than after."""
    camera = CAMERA.scaled(320 * scale, 240 * scale)
    coarse = rng.integers(60, 200, (9, 12, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    truth, before, after = [], [], []
    for index, what in enumerate(rng.choice(NAMES, 3, replace=False)):
        quaternion = rng.normal(size=4)
        where = np.array([-0.17 + 0.17 * index, rng.uniform(-0.08, 0.08), rng.uniform(0.55, 0.75)])
        model = OBJECTS[str(what)]
        for number, (error, found) in enumerate(((0.0, truth), (0.5, before), (0.08, after))):
            pose = Pose(canonical_quaternion(quaternion + error * rng.normal(size=4)), where + error * 0.03)
            pixels = project(transform_points(model.points, pose), camera)
            box = np.r_[pixels.min(axis=0), pixels.max(axis=0)]
            if number == 0:
                found.append(ObjectLabel(model.name, box, pose, 1.0))
                hull = cv2.convexHull(pixels.round().astype(np.int32))
                cv2.fillConvexPoly(image, hull, tuple(int(v) for v in rng.integers(20, 235, 3)))
            elif number == 2 or index != 1:
                found.append(Detection(model.name, float(rng.uniform(0.4, 0.95)), box, pose if index < 2 else None))
    return Overlay(name, Frame(image, camera), before, after, truth)


def fake_history(steps: int = 200) -> list[dict[str, Any]]:
    """The names that AdaptationSession.history uses, with values of a plausible shape."""
    rng = np.random.default_rng(2)
    history: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        fall = np.exp(-step / 90)
        entry: dict[str, Any] = {'step': float(step)}
        for network, names in (('detector', ('heat', 'sides', 'semantic')), ('pose', ('coordinates', 'mask', 'class'))):
            for number, name in enumerate(names):
                entry[f'{network}/{name}'] = (0.8 - 0.3 * number) * fall + 0.5 - 0.1 * number + 0.04 * rng.normal()
            entry[f'{network}/domain'] = 0.69 - 0.2 * fall + 0.04 * rng.normal()
            entry[f'{network}/lambda'] = 0.1 * (2 / (1 + np.exp(-step / 15)) - 1)
            entry[f'{network}/domain_accuracy'] = 0.55 + 0.3 * fall + 0.05 * rng.normal()
        if step % 25 == 0:
            good = step not in (75, 150)
            entry |= {'gate/candidate_ap50': 0.71 + 0.0003 * step - (0 if good else 0.05),
                      'gate/running_ap50': 0.705 + 0.0003 * step, 'gate/source_ap50': 0.70,
                      'gate/candidate_pose_score': 0.6 + 0.0005 * step, 'gate/running_pose_score': 0.59 + 0.0005 * step,
                      'gate/source_pose_score': 0.58, 'gate/running_ap50_error': 0.01, 'gate/promoted': float(good)}
            if not good:
                entry['reason'] = ('rejected: AP50 on simulation 0.683, running model 0.728, '
                                   'tolerance 0.010 + standard error 0.012')
        history.append(entry)
    return history


def fake_summary() -> dict[str, Any]:
    rng = np.random.default_rng(3)

    def row(level: float) -> dict[str, Any]:
        def numbers(level: float) -> dict[str, Any]:
            return {'ap50': level, 'ap': level / 2, 'recall': level + 0.05, 'adds_recall': level / 3,
                    'mean_angle_deg': 150 * (1 - level) + 10, 'mean_angle_matched_deg': 60 * (1 - level) + 8,
                    'mean_position_m': 0.8 * (1 - level), 'instances': 40}
        objects = {name: numbers(float(np.clip(level + 0.1 * rng.normal(), 0, 1))) for name in NAMES}
        return {**numbers(level), 'frames': 40, 'objects': objects}

    return {
        'source_only': row(0.41), 'source_continued': row(0.44), 'adapted': row(0.58),
        'latency_ms': {'p50': 61.234, 'p95': 94.8}, 'frames_in': 40, 'frames_out': 40, 'promotions': 6,
        'recipe': 'dann', 'data': 'surrogate', 'seconds': 431.27, 'device': 'cpu', 'seed': 0, 'steps': 200,
    }


def fake_run(folder: Path) -> Path:
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_overlays(folder, [fake_overlay(f'{i:06d}', rng) for i in range(4)], OBJECTS)
    (folder / 'summary.json').write_text(json.dumps(fake_summary()))
    (folder / 'history.json').write_text(json.dumps(fake_history()))
    return folder


def test_draw_doubles_small_pictures_and_leaves_the_input_alone():
    overlay = fake_overlay('a', np.random.default_rng(0))
    image = overlay.frame.image.copy()
    drawn = draw(overlay.frame.image, overlay.after, CAMERA, OBJECTS)
    assert drawn.shape == (480, 640, 3)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(overlay.frame.image, image)
    large = fake_overlay('b', np.random.default_rng(0), scale=2)
    assert draw(large.frame.image, large.after, large.frame.intrinsics, OBJECTS).shape == (480, 640, 3)
    assert draw(large.frame.image, [], large.frame.intrinsics, OBJECTS, scale=3).shape == (1440, 1920, 3)


def test_draw_puts_box_and_3d_box_where_they_belong():
    black = np.zeros((480, 640, 3), dtype=np.uint8)
    camera = Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0)
    found = Detection('mug', 0.8, np.array([100.0, 120.0, 200.0, 260.0]))
    drawn = draw(black, [found], camera, OBJECTS)
    assert tuple(drawn[200, 100]) == class_colour('mug', OBJECTS) == PALETTE[NAMES.index('mug')]
    assert not drawn[200, 150].any()
    # A mug of 0.08 x 0.10 x 0.09 m, upright at 1 m: the front face's right edge is at x = 0.04 m, z = 0.955 m.
    label = ObjectLabel('mug', np.array([0.0, 0, 1, 1]), Pose(np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 1.0])))
    drawn = draw(black, [], camera, OBJECTS, truth=[label])
    assert drawn[240, round(320 + 600 * 0.04 / 0.955)].min() > 100
    assert not drawn[100:140, 100:140].any()


def test_draw_survives_what_cannot_be_seen():
    black = np.zeros((240, 320, 3), dtype=np.uint8)
    behind = Pose(np.array([0.0, 0, 0, 1]), np.array([0.0, 0.0, -1.0]))
    beside = Pose(np.array([0.0, 0, 0, 1]), np.array([5000.0, 0.0, 0.1]))
    inside = Pose(np.array([0.0, 0, 0, 1]), np.array([0.0, 0.0, 0.01]))
    found = [Detection('mug', 0.5, np.array([-1e7, -1e7, 1e7, 1e7]), pose) for pose in (behind, beside, inside)]
    found += [Detection('teapot', 0.5, np.array([10.0, 10.0, 50.0, 50.0]), Pose(behind.quaternion, [0, 0, 1.0])),
              Detection('mug', 0.5, np.array([np.nan, 1, 2, 3]))]
    assert draw(black, found, CAMERA, OBJECTS).any()


def test_overlays_are_pairs_and_a_sheet(tmp_path):
    files = write_overlays(tmp_path, [fake_overlay(n, np.random.default_rng(0)) for n in ('one', 'two')], OBJECTS)
    assert [f.relative_to(tmp_path).as_posix() for f in files] == [
        'before_after.png', 'overlays/one_before.png', 'overlays/one_after.png', 'overlays/two_before.png',
        'overlays/two_after.png']
    sheet = cv2.imread(str(files[0]))
    assert sheet.shape[1] >= 2 * 640
    assert sheet.shape[0] >= 2 * 480
    assert not np.array_equal(cv2.imread(str(files[1])), cv2.imread(str(files[2])))
    with pytest.raises(ValueError, match='no frames'):
        write_overlays(tmp_path, [], OBJECTS)


def test_learning_curves(tmp_path):
    picture = cv2.imread(str(learning_curves(fake_history(60), tmp_path / 'curves.png')))
    assert picture.shape[1] > 800
    assert picture.std() > 10
    with pytest.raises(ValueError, match='history is empty'):
        learning_curves([], tmp_path / 'none.png')


def test_report_shows_every_number_and_needs_no_other_file(tmp_path):
    page = write_report(fake_run(tmp_path)).read_text()
    for row in ('source_only', 'source_continued', 'adapted'):
        assert f'{fake_summary()[row]["ap50"]:.3f}' in page
        assert f'{fake_summary()[row]["mean_angle_deg"]:.1f}°' in page
    assert '0.140 better' in page  # 0.58 against 0.44, the better of the two rows without adaptation
    assert page.count('>promoted<') == 6
    assert page.count('>rejected<') == 2
    assert 'tolerance 0.010 + standard error' in page
    assert 'candidate 0.725, running 0.720, source 0.700' in page
    for text in ('screwdriver', 'dann', 'surrogate', '95 ms', '40 of 40'):
        assert text in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2 * 4 + 1
    assert all(source.startswith('data:image/') for source in sources)
    assert base64.b64decode(sources[-1].split(',')[1]).startswith(b'\x89PNG')


def test_report_shows_what_earlier_frames_said_and_a_way_back(tmp_path):
    folder = fake_run(tmp_path / 'run')
    seen = {f'gate/reference_{name}_pose_infomax': value
            for name, value in (('candidate', 0.912), ('running', 0.943), ('source', 0.874))}
    entry = {'step': 25.0, 'gate/candidate_ap50': 0.7, 'gate/promoted': 0.0, 'gate/went_back_to': 4.0, **seen}
    (folder / 'history.json').write_text(json.dumps([entry]))
    page = write_report(folder).read_text()
    assert 'InfoMax of the pose on earlier camera frames candidate 0.912, running 0.943, source 0.874' in page
    assert 'the running version was replaced by version 4' in page


def test_report_says_worse_when_it_is_worse(tmp_path):
    summary = fake_summary()
    summary['adapted'], summary['source_only'] = summary['source_only'], summary['adapted']
    (tmp_path / 'summary.json').write_text(json.dumps(summary))
    page = write_report(tmp_path).read_text()
    assert '0.170 worse' in page
    assert 'better</span>' not in page


def test_report_of_a_run_with_rows_alone(tmp_path):
    rows = {name: {'ap50': 0.5, 'mean_angle_deg': 90.0} for name in ('source_only', 'source_continued', 'adapted')}
    (tmp_path / 'summary.json').write_text(json.dumps(rows))
    page = write_report(tmp_path).read_text()
    assert 'no change' in page
    assert '<img' not in page


def test_report_errors_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r'summary\.json: no such file'):
        write_report(tmp_path)
    (tmp_path / 'summary.json').write_text('{"source_only": ')
    with pytest.raises(ValueError, match=r'summary\.json: not JSON'):
        write_report(tmp_path)
    (tmp_path / 'summary.json').write_text('{"source_only": {}, "source_continued": {}}')
    with pytest.raises(ValueError, match=r'summary\.json: no row adapted'):
        write_report(tmp_path)


def test_names_are_escaped(tmp_path):
    summary = fake_summary() | {'data': '<script>alert(1)</script>'}
    (tmp_path / 'summary.json').write_text(json.dumps(summary))
    assert '<script>' not in write_report(tmp_path).read_text()
