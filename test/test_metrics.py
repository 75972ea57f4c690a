# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Every metric against numbers worked out by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim2real_da.evaluation.metrics import evaluate
from sim2real_da.evaluation.pose_error import add, add_or_add_s, add_s, angle_and_position, mspd, mssd
from sim2real_da.geometry import box_iou, difference, symmetric_angle
from sim2real_da.samples import Detection, Intrinsics, ObjectLabel, ObjectModel, Pose

UPRIGHT = (0.0, 0.0, 0.0, 1.0)
BOX = (10.0, 10.0, 30.0, 30.0)
CAMERA = Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0)


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


def test_mssd_and_mspd_by_hand():
    # 3 cm across the view at 0.5 m: every point moves 3 cm, or 600 * 0.03 / 0.5 = 36 pixels.
    aside = pose(translation=(0.03, 0, 0.5))
    assert mssd(aside, pose(), OBJECTS['mug']) == pytest.approx(0.03)
    assert mspd(aside, pose(), OBJECTS['mug'], CAMERA) == pytest.approx(36)
    # 0.5 m further away: the points, 5 cm off the axis, are 60 pixels from the centre, then 30.
    away = pose(translation=(0, 0, 1.0))
    assert mssd(away, pose(), OBJECTS['mug']) == pytest.approx(0.5)
    assert mspd(away, pose(), OBJECTS['mug'], CAMERA) == pytest.approx(30)
    # Turned by 90 degrees every point moves 5 * sqrt(2) cm, and no declared symmetry makes up for it.
    for name in ('mug', 'bar'):
        assert mssd(pose(turned(90)), pose(), OBJECTS[name]) == pytest.approx(0.05 * math.sqrt(2))
        assert mspd(pose(turned(90)), pose(), OBJECTS[name], CAMERA) == pytest.approx(60 * math.sqrt(2))
    assert mssd(pose(turned(180)), pose(), OBJECTS['mug']) == pytest.approx(0.1)
    assert mssd(pose(turned(180)), pose(), OBJECTS['bar']) == pytest.approx(0, abs=1e-9)
    assert mspd(pose(turned(180)), pose(), OBJECTS['bar'], CAMERA) == pytest.approx(0, abs=1e-6)
    assert mspd(pose(translation=(0, 0, -0.5)), pose(), OBJECTS['mug'], CAMERA) == math.inf


def naive_errors(estimate: Pose, truth: Pose, model: ObjectModel, camera: Intrinsics) -> list[float]:
    """ADD, ADD-S, MSSD and MSPD as their formulas read, point by point."""
    def moved(transform: np.ndarray, point: np.ndarray) -> np.ndarray:
        return transform[:3, :3] @ point + transform[:3, 3]

    def seen(transform: np.ndarray, point: np.ndarray) -> np.ndarray:
        rotation = cv2.Rodrigues(transform[:3, :3])[0]
        distortion = np.array(camera.distortion)
        return cv2.projectPoints(point[None], rotation, transform[:3, 3], camera.matrix(), distortion)[0][0, 0]

    points, n = [p.astype(float) for p in model.points], len(model.points)
    e, t = estimate.matrix(), truth.matrix()
    mean = sum(math.dist(moved(e, p), moved(t, p)) for p in points) / n
    nearest = sum(min(math.dist(moved(e, q), moved(t, p)) for q in points) for p in points) / n
    surface = min(max(math.dist(moved(e, p), moved(t @ s, p)) for p in points) for s in model.symmetries)
    projection = min(max(math.dist(seen(e, p), seen(t @ s, p)) for p in points) for s in model.symmetries)
    return [mean, nearest, surface, projection]


@pytest.mark.parametrize('distortion', [(), (0.1, -0.05, 0.001, 0.002, 0.0)])
@pytest.mark.parametrize('symmetric', [False, True])
def test_pose_errors_against_a_naive_implementation(symmetric, distortion):
    rng = np.random.default_rng(0)
    camera = Intrinsics(640, 480, 580.0, 570.0, 330.0, 235.0, distortion)
    about = half_turn()
    about[1, :3, 3] = (0.02, -0.01, 0)  # an axis beside the origin
    for _ in range(3):
        points = rng.normal(size=(40, 3)).astype(np.float32) * 0.04
        cloud = ObjectModel('cloud', points, points.min(axis=0), np.ptp(points, axis=0), 0.2,
                            about if symmetric else np.eye(4)[None])
        first, second = (pose(rng.normal(size=4), rng.normal(size=3) * 0.02 + (0, 0, 0.6)) for _ in range(2))
        found = [add(first, second, cloud), add_s(first, second, cloud), mssd(first, second, cloud),
                 mspd(first, second, cloud, camera)]
        assert found == pytest.approx(naive_errors(first, second, cloud, camera), rel=1e-6)


def test_difference_is_a_turn_about_the_cameras_axes():
    # However the object lies: turned by a small rotation about the camera's x axis, then moved.
    start = pose(turned(120, 'y'), (0.1, 0.2, 0.7))
    small = Rotation.from_rotvec([0.02, 0, 0]) * Rotation.from_quat(start.quaternion)
    there = pose(small.as_quat(), (0.11, 0.2, 0.68))
    assert difference(start, there, OBJECTS['mug']) == pytest.approx([0.01, 0, -0.02, 0.02, 0, 0], abs=1e-9)
    other = Pose((small * Rotation.from_euler('z', 180, degrees=True)).as_quat(), there.translation)
    assert difference(start, other, OBJECTS['bar']) == pytest.approx([0.01, 0, -0.02, 0.02, 0, 0], abs=1e-9)


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


def average_recalls(truth: list, found: list, camera: Intrinsics = CAMERA) -> tuple[float, float]:
    result = evaluate(truth, found, OBJECTS, [camera] * len(truth))
    assert result['bop_ar'] == pytest.approx((result['mssd_ar'] + result['mspd_ar']) / 2)
    return result['mssd_ar'], result['mspd_ar']


@pytest.mark.parametrize('width, projection', [(320, 0.0), (640, 0.3), (1280, 0.7)])
def test_average_recalls_by_hand(width, projection):
    # 3.2 cm aside: 0.32 diameters, below 0.35, 0.40, 0.45 and 0.50. 600 * 0.032 / 0.5 = 38.4 pixels, below 40, 45 and
    # 50 of 640; a picture half as wide counts them double, one twice as wide half: 19.2, below 20 to 50.
    camera = Intrinsics(width, 480, 600.0, 600.0, width / 2, 240.0)
    found = [[detection(where=pose(translation=(0.032, 0, 0.5)))]]
    assert average_recalls([[label()]], found, camera) == pytest.approx((0.4, projection))


def test_average_recalls_honour_each_frames_camera():
    found = [[detection(where=pose(translation=(0.032, 0, 0.5)))]] * 2
    cameras = [CAMERA, Intrinsics(640, 480, 100.0, 100.0, 320.0, 240.0)]  # 38.4 pixels, 6.4 pixels
    assert evaluate([[label()]] * 2, found, OBJECTS, cameras)['mspd_ar'] == pytest.approx((0.3 + 0.9) / 2)


def test_average_recalls_of_a_symmetric_object_turned_by_its_symmetry():
    assert average_recalls([[label('bar')]], [[detection('bar', where=pose(turned(180)))]]) == (1, 1)
    assert average_recalls([[label()]], [[detection(where=pose(turned(180)))]]) == (0, 0)


def test_average_recalls_match_by_pose_whatever_box_and_score():
    assert average_recalls([[label()]], [[detection(score=0.05, box=(80, 80, 90, 90), where=pose())]]) == (1, 1)


def test_average_recalls_look_at_as_many_estimates_as_there_are_instances():
    wrong = pose(translation=(0.3, 0, 0.5))
    found = [[detection(score=0.9, where=wrong), detection(score=0.8, where=pose())]]
    assert average_recalls([[label()]], found) == (0, 0)
    # An instance that hardly shows asks for no estimate. One without a pose is none.
    hidden = label(visible=0.05, where=wrong)
    assert average_recalls([[label(), hidden]], found) == (0, 0)
    found[0][0] = detection(score=0.9)
    assert average_recalls([[label(), hidden]], found) == (1, 1)


def test_average_recalls_match_greedily_by_score():
    # The surer estimate is 0.12 diameters from the first instance and 0.14 from the second: from a threshold of 0.15 on
    # it takes the first, whose exact estimate then has nothing left. Below, that one takes it.
    truth = [[label(), label(where=pose(translation=(0.026, 0, 0.5)))]]
    found = [[detection(score=0.9, where=pose(translation=(0.012, 0, 0.5))), detection(score=0.5, where=pose())]]
    assert average_recalls(truth, found)[0] == pytest.approx((1.0 + 0.5) / 2)  # the rest: 0.26 diameters, 0.30 to 0.50


def test_average_recalls_count_what_was_not_found():
    truth = [[label(), label('bar')], [label()]]
    result = evaluate(truth, [[detection(where=pose())], []], OBJECTS, [CAMERA] * 2)
    assert result['mssd_ar'] == pytest.approx(1 / 3)
    assert result['objects']['mug']['mssd_ar'] == pytest.approx(1 / 2)
    assert result['objects']['bar']['bop_ar'] == 0
    behind = evaluate([[label()]], [[detection(where=pose(translation=(0, 0, -0.5)))]], OBJECTS, [CAMERA])
    assert (behind['mspd_ar'], behind['bop_ar']) == (0, 0)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match='1 frames of ground truth but 2 cameras'):
        evaluate([[label()]], [[]], OBJECTS, [CAMERA] * 2)
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
