# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One arrangement from many noisy poses, its size from outlines, and labels of frames from both."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import box_model
from scipy.spatial.transform import Rotation
from test_online import OBJECTS as KNOWN
from test_online import feed

from sim2real_da import outline_fit
from sim2real_da.geometry import quaternion_from_matrix, symmetric_angle
from sim2real_da.networks import scene_labels
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.pseudo_labels import PseudoLabels
from sim2real_da.networks.scene_labels import SceneLabeller, _log_sizes, frame_labels, placed_in
from sim2real_da.online import session as sessions
from sim2real_da.online.learner import Learner
from sim2real_da.online.session import AdaptationSession
from sim2real_da.online.store import WeightStore
from sim2real_da.outline_fit import fit_outlines
from sim2real_da.outlines import log_size, mask, silhouette
from sim2real_da.recipes import RecipeError, load_recipe
from sim2real_da.samples import Detection, Frame, Intrinsics, Pose
from sim2real_da.static_scene import SceneError, StaticScene, fit_scene, unit_of_length, weighted_median

CAMERA = Intrinsics(640, 480, 570.0, 570.0, 320.0, 240.0)
HALF_TURN = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
SIZES = {'a': (0.1, 0.06, 0.08), 'b': (0.05, 0.12, 0.2), 'c': (0.08, 0.08, 0.1), 'd': (0.15, 0.05, 0.06),
         'e': (0.12, 0.1, 0.06)}
OBJECTS = {name: replace(box_model(name, tuple(s / 2 for s in size)),  # type: ignore[arg-type]
                         symmetries=HALF_TURN if name == 'e' else np.eye(4)[None]) for name, size in SIZES.items()}
ACROSS, ALONG, TURN = 0.004, 0.05, 0.15  # metres, share of the distance, radians


def arrangement(seed: int = 0) -> dict[str, np.ndarray]:
    """Object -> scene ``(4, 4)``: places within 20 cm, any rotation."""
    rng, placed = np.random.default_rng(seed), {}
    for number, name in enumerate(OBJECTS):
        placed[name] = np.eye(4)
        placed[name][:3, :3] = Rotation.random(random_state=rng).as_matrix()
        angle = 2 * np.pi * number / len(OBJECTS)
        placed[name][:3, 3] = [0.2 * np.cos(angle), 0.2 * np.sin(angle), rng.uniform(0, 0.1)]
    return placed


def cameras(count: int, seed: int = 1) -> list[np.ndarray]:
    """Scene -> camera, looking at the middle from about a metre away."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(20, 80))
        away = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        forward = -away
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        matrix[:3, 3] = -matrix[:3, :3] @ (rng.uniform(0.8, 1.1) * away)
        found.append(matrix)
    return found


def pose_of(matrix: np.ndarray) -> Pose:
    return Pose(quaternion_from_matrix(matrix[:3, :3]), matrix[:3, 3])


def seen(name: str, matrix: np.ndarray, rng: np.random.Generator, factor: float = 1.0, score: float = 0.9) -> Detection:
    """What a network makes of an object: wrong by ACROSS, ALONG and TURN, in the spirit of its covariance."""
    model, truth = OBJECTS[name], pose_of(matrix)
    turn = Rotation.from_rotvec(rng.normal(0, TURN, 3)).as_matrix() @ matrix[:3, :3]
    if name == 'e' and rng.random() < 0.5:
        turn = turn @ HALF_TURN[1][:3, :3]
    place = model.box_centre(truth)
    ray = place / np.linalg.norm(place)
    across = rng.normal(0, ACROSS, 3)
    place = place * factor * np.exp(rng.normal(0, ALONG)) + across - (across @ ray) * ray
    arm = turn @ (model.minimum + model.size / 2)
    lever = np.array([[0, -arm[2], arm[1]], [arm[2], 0, -arm[0]], [-arm[1], arm[0], 0]])
    covariance = np.zeros((6, 6))
    covariance[3:, 3:] = TURN**2 * np.eye(3)
    covariance[:3, 3:] = TURN**2 * lever
    covariance[3:, :3] = covariance[:3, 3:].T
    covariance[:3, :3] = (ACROSS**2 * np.eye(3) + np.outer(place, place) * ALONG**2 + TURN**2 * lever @ lever.T)
    pixel = place[:2] / place[2] * CAMERA.fx + [CAMERA.cx, CAMERA.cy]
    half = CAMERA.fx * model.diameter / place[2] / 2
    return Detection(name, score, np.r_[pixel - half, pixel + half], Pose(quaternion_from_matrix(turn), place - arm),
                     covariance)


def errors(scene, placed, views) -> np.ndarray:
    """Angle (degrees), distance across and along the ray (metres, share) of every pose of a scene, ``(N, 3)``."""
    rows = []
    for number, camera in enumerate(views):
        for name in scene.names:
            mine, true, model = scene.pose(number, name), pose_of(camera @ placed[name]), OBJECTS[name]
            apart, place = model.box_centre(mine) - model.box_centre(true), model.box_centre(true)
            along = apart @ place / (place @ place)
            rows.append([symmetric_angle(mine.quaternion, true.quaternion, model.symmetries),
                         np.linalg.norm(apart - along * place), abs(along)])
    return np.array(rows)


def test_an_arrangement_is_found_more_exactly_than_any_of_its_measurements():
    placed, views, rng = arrangement(), cameras(16), np.random.default_rng(2)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    scene = fit_scene(found, OBJECTS)
    assert scene.known.all() and scene.agrees.mean() > 0.95
    angle, across, along = np.median(errors(scene, placed, views), axis=0)
    # one measurement: 13 degrees, 5 mm, 3.4 per cent of the distance
    assert angle < 4.5 and across < 0.004 and along < 0.015


def test_without_noise_the_arrangement_is_exact(monkeypatch):
    monkeypatch.setattr('test_static_scene.TURN', 1e-6)
    monkeypatch.setattr('test_static_scene.ACROSS', 1e-6)
    monkeypatch.setattr('test_static_scene.ALONG', 1e-6)
    placed, views, rng = arrangement(), cameras(8), np.random.default_rng(2)
    scene = fit_scene([[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views], OBJECTS)
    assert errors(scene, placed, views).max(axis=0) == pytest.approx([0, 0, 0], abs=1e-3)


def test_an_object_always_seen_too_far_away_does_not_move_the_others():
    placed, views, rng = arrangement(), cameras(16), np.random.default_rng(3)
    found = [[seen(n, camera @ placed[n], rng, 1.2 if n == 'b' else 1.0) for n in OBJECTS] for camera in views]
    scene = fit_scene(found, OBJECTS)
    assert scene.factors[scene.names.index('b')] == pytest.approx(1.2, abs=0.04)
    assert np.median(errors(scene, placed, views)[:, 2]) < 0.02


def test_what_is_found_elsewhere_now_and_then_does_not_agree():
    placed, views, rng = arrangement(), cameras(16), np.random.default_rng(4)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    wrong = arrangement(9)
    for number in range(0, 16, 3):
        found[number][2] = seen('c', views[number] @ wrong['a'], rng)
    for number in range(16):  # and a look-alike beside, never in one place
        found[number].append(seen('a', views[number] @ arrangement(20 + number)['d'], rng, score=0.5))
    scene = fit_scene(found, OBJECTS)
    agrees = scene.agrees[:, scene.names.index('c')]
    assert not agrees[::3].any() and agrees[1::3].all() and agrees[2::3].all()
    assert np.median(errors(scene, placed, views)[:, 0]) < 5


def test_an_object_moved_meanwhile_is_known_in_the_longer_part():
    placed, views, rng = arrangement(), cameras(15), np.random.default_rng(5)
    later = {**placed, 'd': arrangement(11)['b']}
    found = [[seen(n, camera @ (placed if number < 10 else later)[n], rng) for n in OBJECTS]
             for number, camera in enumerate(views)]
    scene = fit_scene(found, OBJECTS)
    agrees = scene.agrees[:, scene.names.index('d')]
    assert agrees[:10].all() and not agrees[10:].any() and scene.known.all()


def test_objects_that_are_never_seen_together_are_found_through_others():
    placed, views, rng = arrangement(), cameras(16), np.random.default_rng(14)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS if n != ('a', 'b')[number % 2]]
             for number, camera in enumerate(views)]
    scene = fit_scene(found, OBJECTS)
    assert set(scene.names) == set(OBJECTS) and scene.known.all()
    assert np.median(errors(scene, placed, views)[:, 1]) < 0.006


def test_two_groups_that_no_frame_shows_together_are_not_one_scene():
    placed, views, rng = arrangement(), cameras(20), np.random.default_rng(16)
    more = {**OBJECTS, 'f': replace(OBJECTS['a'], name='f')}
    placed['f'] = arrangement(50)['e']
    groups = ('abc',) * 12 + ('def',) * 8

    def found(name, matrix):
        return replace(seen('a' if name == 'f' else name, matrix, rng), name=name)

    scene = fit_scene([[found(n, camera @ placed[n]) for n in names] for names, camera in zip(groups, views)], more)
    assert set(scene.names) == set('abc') and scene.known[:12].all() and not scene.known[12:].any()


def test_finds_without_a_pose_say_nothing():
    placed, views, rng = arrangement(), cameras(10), np.random.default_rng(17)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    for own in found:
        own += [Detection('a', 0.99, np.array([0.0, 0, 9, 9])),
                replace(own[1], covariance=np.full((6, 6), np.nan), score=0.99)]
    assert fit_scene(found, OBJECTS).agrees.mean() > 0.9
    with pytest.raises(SceneError, match='0 objects were found'):
        fit_scene([[]] * 20, OBJECTS)


def test_what_does_not_stand_still_is_no_scene():
    rng = np.random.default_rng(6)
    found = [[seen(n, camera @ arrangement(30 + number)[n], rng) for n in OBJECTS]
             for number, camera in enumerate(cameras(12))]
    with pytest.raises(SceneError, match='does everything stand still'):
        fit_scene(found, OBJECTS)


def test_a_camera_that_stands_still_sees_no_scene():
    placed, rng, camera = arrangement(), np.random.default_rng(15), cameras(1)[0]
    with pytest.raises(SceneError, match='seen from one side, within .* move the camera'):
        fit_scene([[seen(n, camera @ placed[n], rng) for n in OBJECTS] for _ in range(10)], OBJECTS)


@pytest.mark.parametrize('names', [(), ('a', 'b')])
def test_two_objects_are_too_few(names):
    placed, rng = arrangement(), np.random.default_rng(7)
    with pytest.raises(SceneError, match=f'{len(names)} objects were found .* expected at least 3'):
        fit_scene([[seen(n, camera @ placed[n], rng) for n in names] for camera in cameras(10)], OBJECTS)


def test_a_scene_at_another_size_looks_the_same():
    placed, views, rng = arrangement(), cameras(10), np.random.default_rng(8)
    scene = fit_scene([[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views], OBJECTS)
    larger = scene.scaled(1.1, OBJECTS)
    for name in scene.names:
        middle = [OBJECTS[name].box_centre(s.pose(3, name)) for s in (scene, larger)]
        np.testing.assert_allclose(middle[1], 1.1 * middle[0], atol=1e-12)
        np.testing.assert_allclose(scene.pose(3, name).quaternion, larger.pose(3, name).quaternion, atol=1e-12)


# silhouettes and outlines

FACING = Pose(np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.02, -0.01, 1.0]))


def test_the_silhouette_of_a_box_is_its_rectangle():
    model = OBJECTS['b']
    shown = mask(silhouette(model, FACING, CAMERA), 640, 480)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    front = 1.0 - model.size[2] / 2
    expected = model.size[:2] * CAMERA.fx / front
    assert [columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1] == pytest.approx(expected, abs=1.5)
    assert shown.sum() == pytest.approx(expected.prod(), rel=0.04)
    assert silhouette(model, replace(FACING, translation=np.array([0, 0, -1.0])), CAMERA) is None


def painted(placed: dict[str, np.ndarray], camera: np.ndarray, rng: np.random.Generator, stamp: int = 0) -> Frame:
    """A picture of flat objects before clutter, the nearest last."""
    fine = CAMERA.scaled(2560, 1920)  # a whole pixel at the border of each would be one per cent of them
    image = cv2.resize(rng.integers(60, 190, (48, 64, 3), np.uint8), (2560, 1920), interpolation=cv2.INTER_NEAREST)
    poses = {n: pose_of(camera @ m) for n, m in placed.items()}
    for name in sorted(poses, key=lambda n: -OBJECTS[n].box_centre(poses[n])[2]):
        image[mask(silhouette(OBJECTS[name], poses[name], fine), 2560, 1920)] = rng.integers(0, 255, 3)
    return Frame(cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA), CAMERA, stamp)


@pytest.mark.parametrize('wrong', [-0.06, 0.0, 0.04])
def test_outlines_tell_the_size_of_a_scene_before_clutter(wrong):
    rng, views, placed = np.random.default_rng(10), cameras(8), arrangement()
    seen_at = [(painted(placed, c, rng), [(OBJECTS[n], Pose(
        quaternion_from_matrix((c @ m)[:3, :3]), np.exp(wrong) * (c @ m)[:3, 3])) for n, m in placed.items()])
        for c in views]
    # too far away by so much: the objects are larger in the pictures
    assert log_size(seen_at) == pytest.approx(wrong, abs=0.006)


def test_without_an_outline_there_is_no_size():
    assert log_size([]) is None
    assert log_size([(painted({}, np.eye(4), np.random.default_rng(0)), [])]) is None


# cameras known

def in_units(views, unit):
    """Cameras as structure from motion has them."""
    return [camera * np.array([[1, 1, 1, 1 / unit]] * 3 + [[1] * 4]) for camera in views]


def test_half_of_the_weight_lies_below_the_weighted_median():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])) == 2.0
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0])) == 3.0


def test_the_unit_of_length_is_what_the_objects_poses_ask_for():
    placed, views, rng = arrangement(), cameras(12), np.random.default_rng(20)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    assert unit_of_length(found, OBJECTS, in_units(views, 0.3)) == pytest.approx(0.3, rel=0.02)
    far = [[seen(n, camera @ placed[n], rng, 1.1) for n in OBJECTS] for camera in views]
    assert unit_of_length(far, OBJECTS, in_units(views, 0.3)) == pytest.approx(0.33, rel=0.02)  # it knows no better
    with pytest.raises(SceneError, match='no object was found in two frames of known cameras'):
        unit_of_length(found, OBJECTS, [views[0], *[None] * 11])
    behind = [camera * np.array([[1, 1, 1, -1]] * 3 + [[1] * 4]) for camera in views]
    with pytest.raises(SceneError, match='poses speak against the cameras'):
        unit_of_length([own[:1] for own in found], OBJECTS, behind)


def test_with_known_cameras_one_object_is_enough_and_three_frames_are():
    placed, views, rng = arrangement(), cameras(12), np.random.default_rng(23)
    found = [[seen('b', camera @ placed['b'], rng)] if number < 3 else [] for number, camera in enumerate(views)]
    scene = fit_scene(found, OBJECTS, views)
    assert scene.names == ('b',) and scene.known.all() and scene.agrees[:, 0].tolist() == [True] * 3 + [False] * 9
    np.testing.assert_allclose(scene.cameras, views)
    assert errors(scene, {'b': placed['b']}, views)[:, 2].max() < 0.05
    with pytest.raises(SceneError, match='no object was found in 3 frames of known cameras'):
        fit_scene(found, OBJECTS, [None, *views[1:]])


def test_with_known_cameras_places_are_more_exact_than_with_cameras_of_the_objects():
    placed, views, rng = arrangement(), cameras(10), np.random.default_rng(22)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    known = np.median(errors(fit_scene(found, OBJECTS, views), placed, views), axis=0)
    free = np.median(errors(fit_scene(found, OBJECTS), placed, views), axis=0)
    assert (known[1:] < free[1:]).all() and known[2] < 0.004


def test_what_was_moved_agrees_in_the_frames_of_its_place():
    placed, views, rng = arrangement(), cameras(12), np.random.default_rng(23)
    later = {**placed, 'a': arrangement(40)['a']}
    found = [[seen(n, camera @ (placed if number < 8 else later)[n], rng) for n in OBJECTS]
             for number, camera in enumerate(views)]
    scene = fit_scene(found, OBJECTS, views)
    agrees = scene.agrees[:, scene.names.index('a')]
    assert agrees[:8].sum() >= 7 and not agrees[8:].any()


def test_known_cameras_on_one_side_are_no_scene():
    placed, rng = arrangement(), np.random.default_rng(24)
    views = []
    for number in range(8):
        views.append(cameras(1)[0].copy())
        views[-1][0, 3] += 0.01 * number
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    with pytest.raises(SceneError, match='seen from one side'):
        fit_scene(found, OBJECTS, views)


def moved(placed: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Each object 8 degrees and a centimetre and a half away from where it is."""
    out = np.stack(list(placed.values()))
    for own in out:
        axis, way = rng.normal(size=3), rng.normal(size=3)
        own[:3, :3] = Rotation.from_rotvec(np.radians(8) * axis / np.linalg.norm(axis)).as_matrix() @ own[:3, :3]
        own[:3, 3] += 0.015 * way / np.linalg.norm(way)
    return out


@pytest.mark.parametrize('wrong', [-0.05, 0.0, 0.06])
def test_outlines_in_all_pictures_tell_the_objects_poses_and_the_scenes_size(wrong):
    rng, views, placed = np.random.default_rng(25), cameras(8), arrangement()
    frames = [painted(placed, camera, rng) for camera in views]
    scene = StaticScene(tuple(placed), np.stack(views), moved(placed, rng), np.ones(8, bool), np.ones((8, 5), bool),
                        np.ones(5))
    before = np.median(errors(scene, placed, views), axis=0)
    first, sizes = fit_outlines(scene.scaled(np.exp(wrong), OBJECTS), frames, OBJECTS, True)
    assert np.median(sizes) == pytest.approx(wrong, abs=0.008)
    after, none = fit_outlines(first.scaled(float(np.exp(-np.median(sizes))), OBJECTS), frames, OBJECTS, False)
    left = np.median(errors(after, placed, views), axis=0)
    assert (left < before / 3).all() and left[1] < 0.0015 and left[2] < 0.008
    assert not none.any()


def test_a_size_that_arrangements_agree_on_is_known():
    scene = StaticScene(('a', 'b', 'c', 'd'), np.stack(cameras(4)), np.stack([np.eye(4)] * 4), np.ones(4, bool),
                        np.ones((4, 4), bool), np.ones(4))
    measured = [(0, (scene, np.array([0.05, 0.09, 0.0, 0.30]))), (5, (scene, np.array([0.05, 0.08, 0.1, 0.31]))),
                (10, (scene, np.array([0.06, 0.09, -0.1, 0.32])))]
    # c is not twice the same, d is something else; b is larger than most
    assert _log_sizes(measured, 0.05) == pytest.approx({'a': 0.0, 'b': 0.04})
    assert _log_sizes(measured[:2], 0.05) == {}


def test_outlines_of_what_nothing_is_seen_of_stay():
    placed, views, rng = arrangement(), cameras(4), np.random.default_rng(26)
    frames = [Frame(np.full((480, 640, 3), 120, np.uint8), CAMERA) for _ in views]
    scene = StaticScene(tuple(placed), np.stack(views), moved(placed, rng), np.ones(4, bool), np.ones((4, 5), bool),
                        np.ones(5))
    after, sizes = fit_outlines(scene, frames, OBJECTS, True)
    np.testing.assert_allclose(after.objects, scene.objects, atol=1e-9)
    np.testing.assert_allclose(sizes, 0, atol=1e-9)
    none = replace(scene, names=(), objects=np.zeros((0, 4, 4)), agrees=np.zeros((4, 0), bool), factors=np.zeros(0))
    assert len(fit_outlines(none, frames, OBJECTS, True)[1]) == 0


# labels

class Sure:
    """A pose network that gives every class of every crop one probability."""

    crop_size = 64

    def __init__(self, probability: float) -> None:
        self.probability, self.asked = probability, 0

    def __call__(self, crops):
        self.asked += len(crops)
        answer = torch.full((len(crops), len(OBJECTS) + 1), self.probability)
        return SimpleNamespace(classes=SimpleNamespace(softmax=lambda _: answer))


class Teacher:
    """What labelling asks of a bundle."""

    objects = OBJECTS

    def __init__(self, shown: bool = False) -> None:
        self.pose = Sure(0.9 if shown else 0.1)


def labelled(found, views, placed, number=0, shown=False):
    scene = fit_scene(found, OBJECTS)
    frame = painted(placed, views[number], np.random.default_rng(0))
    return frame_labels(placed_in([(0, scene)], number), frame, found[number], Teacher(shown), 'cpu')


def test_what_the_teacher_missed_is_doubtful_and_what_it_confirms_is_labelled():
    placed, views, rng = arrangement(), cameras(12), np.random.default_rng(11)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    visible = set(labelled(found, views, placed).names)
    missed = sorted(visible)[0]
    found[0] = [d for d in found[0] if d.name != missed]
    labels = labelled(found, views, placed)
    assert set(labels.names) == visible - {missed} and len(labels.posed) == len(labels.names)
    assert len(labels.doubtful) == 1
    confirmed = labelled(found, views, placed, shown=True)
    assert set(confirmed.names) == visible and not len(confirmed.doubtful)


def test_a_surer_find_in_another_place_takes_the_label_away():
    placed, views, rng = arrangement(), cameras(12), np.random.default_rng(12)
    found = [[seen(n, camera @ placed[n], rng) for n in OBJECTS] for camera in views]
    name = labelled(found, views, placed).names[0]
    box = next(d.box for d in found[0] if d.name == name)
    elsewhere = Detection(name, 0.95, (box + 300) % 400)
    found[0].append(elsewhere)
    labels = labelled(found, views, placed)
    assert name not in labels.names
    assert any(np.array_equal(b, elsewhere.box) for b in labels.doubtful)


def in_depth(shift: float) -> tuple[StaticScene, Frame]:
    """Object a behind b, to the side of it by so much, and c beside both; all of them agree."""
    placed = {name: np.eye(4) for name in 'abc'}
    placed['a'][:3, 3], placed['b'][:3, 3], placed['c'][:3, 3] = [shift, 0, 1.2], [0, 0, 0.8], [0.3, 0, 1.0]
    scene = StaticScene(tuple(placed), np.eye(4)[None], np.stack(list(placed.values())), np.array([True]),
                        np.ones((1, 3), bool), np.ones(3))
    return scene, painted(placed, np.eye(4), np.random.default_rng(0))


def shown_by(name: str, scene: StaticScene) -> np.ndarray:
    return mask(silhouette(OBJECTS[name], scene.pose(0, name), CAMERA), 640, 480)


@pytest.mark.parametrize('shift, hidden', [(0.0, True), (0.045, False)])
def test_a_hidden_object_has_no_label_and_a_half_hidden_one_its_visible_box(shift, hidden):
    scene, frame = in_depth(shift)
    labels = frame_labels(placed_in([(0, scene)], 0), frame, [], Teacher(), 'cpu')
    assert ('a' not in labels.names) is hidden
    for label in labels.posed:
        if label.name == 'a':
            right = shown_by('b', scene).any(axis=0).nonzero()[0].max()
            assert label.box[0] == pytest.approx(right + 0.5, abs=1.5) and 0.2 <= label.visible < 0.9
            np.testing.assert_array_equal(label.mask, shown_by('a', scene) & ~shown_by('b', scene))


def test_what_is_not_believed_to_be_there_hides_nothing():
    scene, frame = in_depth(0.0)
    gone = replace(scene, agrees=np.array([[True, False, True]]))
    labels = frame_labels(placed_in([(0, gone)], 0), frame, [], Teacher(), 'cpu')
    assert set(labels.names) == {'a', 'c'} and len(labels.doubtful) == 1
    np.testing.assert_array_equal(labels.posed[labels.names.index('a')].mask, shown_by('a', scene))


def test_nothing_in_the_picture_is_no_label():
    scene, frame = in_depth(0.0)
    aside = np.eye(4)
    aside[0, 3] = 9.0
    labels = frame_labels(placed_in([(0, replace(scene, cameras=aside[None]))], 0), frame, [], Teacher(), 'cpu')
    assert labels.boxes.shape == labels.doubtful.shape == (0, 4) and labels.posed == ()


def test_a_part_hidden_by_something_unknown_is_left_out_of_the_box():
    scene, frame = in_depth(0.0)
    full = shown_by('c', scene)
    columns, rows = full.any(axis=0).nonzero()[0], full.any(axis=1).nonzero()[0]
    upper = np.array([columns[0], rows[0], columns[-1], rows[0] + 0.4 * (rows[-1] - rows[0])], float)
    labels = frame_labels(placed_in([(0, scene)], 0), frame, [Detection('c', 0.8, upper)], Teacher(), 'cpu')
    (label,) = [x for x in labels.posed if x.name == 'c']
    assert label.box == pytest.approx(upper, abs=0.6)
    assert label.mask.any() and not label.mask[int(upper[3]) + 2:].any()


@pytest.mark.parametrize('known', [False, True])
def test_frames_are_labelled_in_windows_by_the_time_they_were_taken(monkeypatch, known):
    placed, later = arrangement(), arrangement(40)
    rng, views = np.random.default_rng(13), cameras(30)
    frames = [painted(placed if n < 15 else later, camera, rng, stamp=n) for n, camera in enumerate(views)]
    answers = {id(f.image): [seen(name, views[f.stamp] @ (placed if f.stamp < 15 else later)[name], rng)
                             for name in OBJECTS] for f in frames}

    class Answers:
        def __init__(self, *_, outlines):
            assert not outlines, 'outlines are fitted in all pictures at once'

        def estimate(self, image, intrinsics):
            return answers[id(image)]

    def motion(ordered, threads):
        assert [f.stamp for f in ordered] == sorted(f.stamp for f in ordered)
        yield
        return [views[f.stamp] * np.array([[1, 1, 1, 4]] * 3 + [[1] * 4]) if known else None for f in ordered]

    monkeypatch.setattr(scene_labels, 'Estimator', Answers)
    monkeypatch.setattr(scene_labels, 'camera_motion', motion)
    monkeypatch.setattr(outline_fit, 'REACH', outline_fit.REACH[::2])
    teacher = Teacher()
    teacher.pose.views = 3
    teacher.copy = lambda: teacher
    labeller = SceneLabeller()
    shuffled = [frames[i] for i in rng.permutation(30)]
    looking = labeller.look(teacher, shuffled, step=7)
    next(looking)
    assert not labeller.looked_at(frames[0])  # not before it is over
    assert 60 < len(list(looking)) < 75  # short pieces: pictures, windows, pictures again
    assert labeller.step == 7 and all(labeller.looked_at(f) for f in frames)
    assert sum(labeller.of(f) is not None for f in frames) >= 28
    assert labeller.share > 0.9
    along = []
    for frame in frames:
        labels = labeller.of(frame)
        for label in labels.posed if labels else ():
            true = pose_of(views[frame.stamp] @ (placed if frame.stamp < 15 else later)[label.name])
            place = OBJECTS[label.name].box_centre(true)
            along.append((OBJECTS[label.name].box_centre(label.pose) - place) @ place / (place @ place))
    assert len(along) > 90 and np.median(np.abs(along)) < (0.0075 if known else 0.015)
    sizes = list(labeller.log_sizes.values())
    assert (len(sizes) >= 3 and np.abs(sizes).max() < 0.01) if known else not sizes
    list(labeller.look(teacher, frames[:2]))
    assert labeller.log_sizes == {}
    assert labeller.of(frames[0]) is None and not labeller.looked_at(frames[9])  # two frames are no scene


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A session whose looks take three pieces and label every other frame, and when they began."""
    looked = []

    def look(self, teacher, frames, step=0):
        looked.append((step, len(frames)))
        for _ in range(3):
            yield
        self.step, self._frames = step, {id(f): f for f in frames}
        box = np.array([[100.0, 80.0, 160.0, 140.0]])
        self._labels = {id(f): PseudoLabels(f, box, ('box',), np.zeros((0, 4)), ()) for f in frames[::2]}

    monkeypatch.setattr(SceneLabeller, 'look', look)
    known = {**KNOWN, 'cube': box_model('cube', (0.03, 0.03, 0.03))}
    bundle = Bundle.create(known, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    recipe = replace(load_recipe('static_scene'), target_frames=2, target_crops=4)
    session = AdaptationSession(bundle, recipe, WeightStore(tmp_path), holdout=3, gate_every=100, evidence=False)
    feed(session)
    return session, looked


def test_a_session_looks_around_first_and_again_when_the_teacher_has_learnt(watched, monkeypatch):
    believed = []

    def alone(teacher, frame, device, unique):
        believed.append(frame)
        return PseudoLabels(frame, np.zeros((0, 4)), (), np.zeros((0, 4)), ())

    session, looked = watched
    monkeypatch.setattr('sim2real_da.online.learner.pseudo_labels', alone)
    monkeypatch.setattr(sessions, 'LOOK_EVERY', 2)
    steps = []
    for _ in range(14):
        session.work()
        steps.append(session.step)
    # three micro-steps of looking, then two of learning, and so on
    assert looked == [(0, 20), (2, 20), (4, 20)]
    assert steps[:8] == [0, 0, 0, 1, 2, 2, 2, 2]
    kept = session.buffer.frames()
    assert believed and all(any(f is k for k in kept[1::2]) for f in believed)  # only those without a scene
    assert any('target_heat' in key for entry in session.history for key in entry)
    assert session.history[-1]['scene/labelled'] == 0.5


def test_new_frames_are_looked_at_but_learning_goes_on(watched, monkeypatch):
    session, looked = watched
    monkeypatch.setattr(sessions, 'LOOK_REST', 3)
    for _ in range(4):
        session.work()
    old = session.buffer.frames()[0]
    assert session._learner.scene.looked_at(old)
    session.buffer.clear()
    feed(session, 10)
    for _ in range(2):
        session.work()
    assert not session._learner.scene.looked_at(old) and session._learner.scene.of(old) is None  # nothing keeps it
    assert session.step == 3 and len(looked) == 1
    session.work()
    assert looked[1:] == [(3, 10)]


def test_a_reset_ends_a_look(watched):
    session, looked = watched
    session.work()
    session.reset()
    assert session._looking is None
    feed(session, 10)
    session.work()
    assert looked == [(0, 20), (0, 10)]


def test_two_classes_are_too_few_for_a_learner():
    with pytest.raises(RecipeError, match='static_scene wants 3 objects or more .* knows box, bar'):
        Learner(Bundle.create(KNOWN, {'width': 8}, {'width': 8, 'hidden': 16}), load_recipe('static_scene'))


def test_crops_without_a_camera_cannot_have_them():
    with pytest.raises(RecipeError, match='static_scene wants frames of a camera'):
        load_recipe('static_scene').check_length('pose', 10)
