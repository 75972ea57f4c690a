# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Every metric against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim2real_da.evaluation.metrics import box_iou, evaluate
from sim2real_da.evaluation.pose_error import add, add_or_add_s, add_s, angle_and_position
from sim2real_da.geometry import symmetric_angle
from sim2real_da.samples import Detection, ObjectLabel, ObjectModel, Pose

UPRIGHT = (0.0, 0.0, 0.0, 1.0)
BOX = (10.0, 10.0, 30.0, 30.0)


def turned(degrees: float, axis: str = 'z') -> tuple[float, ...]:
    return tuple(Rotation.from_euler(axis, degrees, degrees=True).as_quat())


def pose(quaternion=UPRIGHT, translation=(0.0, 0.0, 0.5)) -> Pose:
    return Pose(np.array(quaternion), np.array(translation))


def label(name: str = 'mug', box=BOX, visible: float | None = None, where: Pose | None = None) -> ObjectLabel:
    return ObjectLabel(name, np.array(box), where or pose(), visible)


def detection(name: str = 'mug', score: float = 0.9, box=BOX, where: Pose | None = None) -> Detection:
    return Detection(name, score, np.array(box), where)


def model(name: str, symmetries: np.ndarray | None = None) -> ObjectModel:
    """A cross in the CAD frame: four points 5 cm from the origin on x and y; diameter 10 cm."""
    points = np.array([[0.05, 0, 0], [-0.05, 0, 0], [0, 0.05, 0], [0, -0.05, 0]], dtype=np.float32)
    extra = {} if symmetries is None else {'symmetries': symmetries}
    return ObjectModel(name, points, points.min(axis=0), np.ptp(points, axis=0), 0.1, **extra)


def half_turn() -> np.ndarray:
    """Identity and 180 degrees about z."""
    return np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])


OBJECTS = {'mug': model('mug'), 'wrench': model('wrench'), 'bar': model('bar', half_turn())}


def test_box_iou_by_hand():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert box_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0


def test_add_by_hand():
    # Shifted by 3 cm: every point moves 3 cm. Turned by 90 degrees about z: each point, 5 cm out, moves 5 * sqrt(2) cm,
    # but lands where another one was.
    assert add(pose(translation=(0.03, 0, 0.5)), pose(), OBJECTS['mug']) == pytest.approx(0.03)
    assert add(pose(turned(90)), pose(), OBJECTS['mug']) == pytest.approx(0.05 * math.sqrt(2))
    assert add_s(pose(turned(90)), pose(), OBJECTS['mug']) == pytest.approx(0, abs=1e-9)
    assert add_or_add_s(pose(turned(180)), pose(), OBJECTS['mug']) == pytest.approx(0.1)
    assert add_or_add_s(pose(turned(180)), pose(), OBJECTS['bar']) == pytest.approx(0, abs=1e-9)


def test_add_s_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(5):
        points = rng.normal(size=(60, 3)).astype(np.float32) * 0.04
        cloud = ObjectModel('cloud', points, points.min(axis=0), np.ptp(points, axis=0), 0.2, half_turn())
        first, second = (Pose(rng.normal(size=4), rng.normal(size=3) * 0.02 + (0, 0, 0.6)) for _ in range(2))

        def moved(where: Pose, points: np.ndarray = points) -> np.ndarray:
            return (where.matrix() @ np.c_[points, np.ones(len(points))].T).T[:, :3]

        estimated, true = moved(first), moved(second)
        total = 0.0
        for target in true:
            total += min(math.dist(target, other) for other in estimated)
        assert add_s(first, second, cloud) == pytest.approx(total / len(points), rel=1e-9)


def test_angle_and_position_up_to_symmetry():
    assert angle_and_position(pose(turned(30)), pose(), OBJECTS['mug']) == pytest.approx((30, 0))
    assert angle_and_position(pose(turned(170)), pose(), OBJECTS['mug'])[0] == pytest.approx(170)
    assert angle_and_position(pose(turned(170)), pose(), OBJECTS['bar'])[0] == pytest.approx(10)
    # A symmetry about an axis 1 cm beside the origin: the half turn moves the origin by 2 cm and is no error.
    beside = half_turn()
    beside[1, 0, 3] = 0.02
    shifted = pose(turned(180), (0.02, 0, 0.5))
    assert angle_and_position(shifted, pose(), model('bar', beside)) == pytest.approx((0, 0), abs=1e-6)
    rng = np.random.default_rng(1)
    for _ in range(10):
        first, second = pose(rng.normal(size=4)), pose(rng.normal(size=4))
        expected = symmetric_angle(first.quaternion, second.quaternion, half_turn())
        assert angle_and_position(first, second, OBJECTS['bar'])[0] == pytest.approx(expected)


def test_perfect_detections():
    result = evaluate([[label(), label('wrench', (50, 50, 80, 90))]],
                      [[detection(where=pose()), detection('wrench', 0.5, (50, 50, 80, 90), pose())]], OBJECTS)
    for key in ('ap50', 'ap', 'recall', 'adds_recall'):
        assert result[key] == pytest.approx(1)
        assert result['objects']['mug'][key] == pytest.approx(1)
    for key in ('mean_angle_deg', 'mean_angle_matched_deg', 'mean_position_m'):
        assert result[key] == pytest.approx(0, abs=1e-6)
    assert (result['frames'], result['instances']) == (1, 2)
    assert sorted(result['objects']) == ['mug', 'wrench']


def test_nothing_found_is_numbers_not_nan():
    result = evaluate([[label()], []], [[], []], OBJECTS)
    assert {k: v for k, v in result.items() if k != 'objects'} == {
        'ap50': 0, 'ap': 0, 'recall': 0, 'adds_recall': 0, 'mean_angle_deg': 180, 'mean_angle_matched_deg': 180,
        'mean_position_m': 1, 'frames': 2, 'instances': 1}


def test_a_miss_counts_180_degrees_and_one_metre():
    # One found 20 degrees and 4 cm off, one missed, one found without a pose.
    truth = [[label(), label(box=(50, 50, 70, 70)), label(box=(100, 100, 120, 120))]]
    found = [[detection(where=pose(turned(20), (0.04, 0, 0.5))), detection(box=(100, 100, 120, 120))]]
    result = evaluate(truth, found, OBJECTS)
    assert result['recall'] == pytest.approx(2 / 3)
    assert result['mean_angle_deg'] == pytest.approx((20 + 180 + 180) / 3)
    assert result['mean_angle_matched_deg'] == pytest.approx(20)
    assert result['mean_position_m'] == pytest.approx((0.04 + 1 + 1) / 3)


def test_a_wild_position_is_no_worse_than_a_miss():
    result = evaluate([[label()]], [[detection(where=pose(translation=(0, 0, 40.0)))]], OBJECTS)
    assert result['mean_position_m'] == 1


def test_average_precision_by_hand():
    # Two mugs. By falling score: hit, false, hit. Precision 1 up to recall 1/2, then 2/3: of the 101 recall points
    # 0.00, 0.01 ... 1.00 the first 51 see 1, the other 50 see 2/3.
    truth = [[label()], [label()]]
    found = [[detection(score=0.9)], [detection(score=0.8, box=(60, 60, 80, 80)), detection(score=0.7)]]
    assert evaluate(truth, found, OBJECTS)['ap50'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_ap_over_thresholds():
    # Thresholds 0.50, 0.55 ... 0.95.
    result = evaluate([[label(box=(0, 0, 20, 20))]], [[detection(box=(0, 0, 20, 15))]], OBJECTS)
    assert result['ap'] == pytest.approx(0.6)  # 300 / 400 = 0.75: six thresholds, 0.50 to 0.75
    result = evaluate([[label(box=(0, 0, 20, 20))]], [[detection(box=(5, 0, 25, 20))]], OBJECTS)
    assert result['ap'] == pytest.approx(0.3)  # 300 / 500 = 0.6: three thresholds


def test_ap_is_the_mean_over_objects():
    truth = [[label(), label('wrench', (50, 50, 80, 90)), label('wrench', (100, 50, 130, 90))]]
    found = [[detection(where=pose())]]
    result = evaluate(truth, found, OBJECTS)
    assert result['ap50'] == pytest.approx(0.5)
    assert result['adds_recall'] == pytest.approx(0.5)
    assert result['recall'] == pytest.approx(1 / 3)  # over instances


def test_hardly_visible_truth_is_ignored():
    truth = [[label(visible=0.5), label(box=(50, 50, 70, 70), visible=0.05)]]
    # The better score lies on the ignored one: neither hit nor false alarm.
    found = [[detection(score=0.95, box=(50, 50, 70, 70)), detection(score=0.9)]]
    result = evaluate(truth, found, OBJECTS)
    assert (result['ap50'], result['recall'], result['instances']) == (pytest.approx(1), 1, 1)
    assert evaluate([[label(visible=0.1)]], [[detection()]], OBJECTS)['instances'] == 1
    with pytest.raises(ValueError, match='empty split'):
        evaluate([[label(visible=0.09)]], [[detection()]], OBJECTS)


def test_low_scores_do_not_count_for_recall_but_for_ap():
    result = evaluate([[label()]], [[detection(score=0.29, where=pose())]], OBJECTS)
    assert (result['recall'], result['mean_angle_deg'], result['ap50']) == (0, 180, pytest.approx(1))


def test_a_detection_of_another_class_is_no_match():
    result = evaluate([[label()]], [[detection('wrench', where=pose())]], OBJECTS)
    assert (result['recall'], result['ap50']) == (0, 0)


def test_an_instance_is_matched_once_by_the_best_score():
    found = [[detection(score=0.5, where=pose()), detection(score=0.9, where=pose(turned(90)))]]
    result = evaluate([[label()]], found, OBJECTS)
    assert result['mean_angle_deg'] == pytest.approx(90)
    assert result['recall'] == 1


def test_greedy_takes_the_better_overlap():
    truth = [[label(box=(10, 10, 30, 30), where=pose(turned(40))), label(box=(12, 10, 32, 30))]]
    result = evaluate(truth, [[detection(box=(12, 10, 32, 30), where=pose())]], OBJECTS)
    assert result['mean_angle_matched_deg'] == pytest.approx(0, abs=1e-6)


def test_symmetric_objects_are_scored_by_add_s_and_up_to_symmetry():
    found = [[detection('bar', where=pose(turned(180)))]]
    result = evaluate([[label('bar')]], found, OBJECTS)
    assert result['adds_recall'] == 1
    assert result['mean_angle_deg'] == pytest.approx(0, abs=1e-6)
    assert evaluate([[label()]], [[detection(where=pose(turned(180)))]], OBJECTS)['adds_recall'] == 0


@pytest.mark.parametrize('shift, share', [(0.0099, 1), (0.0101, 0)])
def test_adds_recall_threshold_is_a_tenth_of_the_diameter(shift, share):
    found = [[detection(where=pose(translation=(shift, 0, 0.5)))]]
    assert evaluate([[label()]], found, OBJECTS)['adds_recall'] == share


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match='empty split'):
        evaluate([[], []], [[], [detection()]], OBJECTS)
    with pytest.raises(ValueError, match='empty split'):
        evaluate([], [], OBJECTS)
    with pytest.raises(ValueError, match='2 frames of ground truth but 1'):
        evaluate([[label()], []], [[]], OBJECTS)
    with pytest.raises(ValueError, match='detections of class teapot'):
        evaluate([[label()]], [[detection('teapot')]], OBJECTS)
    with pytest.raises(ValueError, match='ground truth of class teapot'):
        evaluate([[label('teapot')]], [[]], OBJECTS)
