# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Poses of one picture come to lie on its edges, as far as there are any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_static_scene import CAMERA, FACING, OBJECTS, arrangement, cameras, painted, pose_of

from sim2real_da.geometry import difference
from sim2real_da.networks import estimator as estimators
from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.estimator import Estimator
from sim2real_da.networks.pose import mean_pose
from sim2real_da.pose_refinement import Found, refined
from sim2real_da.samples import ObjectModel, Pose


def answers(true: Pose, model: ObjectModel, rng: np.random.Generator) -> Found:
    """What a network says: four views 10 degrees, 3 per cent of the distance and 5 mm off, and their mean."""
    views = []
    for _ in range(4):
        turn, shift = rng.normal(size=3), rng.normal(size=2)
        rotation = Rotation.from_rotvec(np.radians(10) * turn / np.linalg.norm(turn)) * Rotation.from_quat(
            true.quaternion)
        middle = model.box_centre(true) * np.exp(0.03 * rng.normal()) + [*0.005 * shift, 0]
        views.append(Pose(rotation.as_quat(), middle - rotation.as_matrix() @ model.middle))
    covariance = np.diag([0.01, 0.01, 0.04, 0.3, 0.3, 0.3])**2
    return Found(model, 0.9, mean_pose(views, model), covariance, views)


def off(pose: Pose, true: Pose, model: ObjectModel) -> np.ndarray:
    """Angle, radians, and distance, share of the true one."""
    error = difference(pose, true, model)
    return np.array([np.linalg.norm(error[3:]), abs(np.linalg.norm(model.box_centre(pose)) / np.linalg.norm(
        model.box_centre(true)) - 1)])


def test_poses_of_one_picture_come_to_lie_on_its_edges():
    rng, before, after = np.random.default_rng(30), [], []
    for camera in cameras(6):
        placed = arrangement()
        frame = painted(placed, camera, rng)
        true = {n: pose_of(camera @ m) for n, m in placed.items()}
        found = [answers(true[n], OBJECTS[n], rng) for n in placed]
        for one, (pose, covariance) in zip(found, refined(found, frame.image, CAMERA), strict=True):
            before.append(off(one.pose, true[one.model.name], one.model))
            after.append(off(pose, true[one.model.name], one.model))
            assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert (np.median(after, axis=0) < np.median(before, axis=0) / 2).all()
    assert np.median(after, axis=0)[1] < 0.006


def test_an_object_that_looks_larger_than_its_model_is_not_taken_for_nearer():
    model, rng = OBJECTS['b'], np.random.default_rng(31)
    # what is larger looks like the model when that is nearer
    larger = replace(FACING, translation=FACING.translation + (1 / 1.06 - 1) * model.box_centre(FACING))
    frame = painted({'b': larger.matrix()}, np.eye(4), rng)
    one = answers(FACING, model, rng)
    depths = [model.box_centre(refined([replace(one, log_size=size)], frame.image, CAMERA)[0][0])[2]
              for size in (0.0, np.log(1.06))]
    assert depths[1] == pytest.approx(1.0, abs=0.012)
    assert depths[0] < depths[1] - 0.01  # between the network's and where the model would look as large


def test_where_there_are_no_edges_the_network_is_believed():
    model, rng = OBJECTS['b'], np.random.default_rng(32)
    grey = np.full((480, 640, 3), 120, np.uint8)
    one = answers(FACING, model, rng)
    ((pose, covariance),) = refined([one], grey, CAMERA)
    assert difference(pose, one.pose, model) == pytest.approx(np.zeros(6), abs=1e-9)
    assert (np.diag(covariance) >= np.diag(one.covariance) - 1e-12).all()
    assert refined([], grey, CAMERA) == []


def test_weights_say_whether_poses_are_put_on_edges_and_how_large_objects_look(monkeypatch):
    torch.manual_seed(0)
    bundle = Bundle.create({'b': OBJECTS['b']}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    bundle.outlines, bundle.log_sizes, bundle.covariance_factors = True, {'b': 0.03}, (4.0, 4.0)
    kept = Bundle.from_bytes(bundle.to_bytes())
    assert kept.outlines and kept.log_sizes == {'b': 0.03}
    asked = []

    def answer(found, image, intrinsics):
        asked.extend(found)
        return [(FACING, np.eye(6)) for _ in found]

    pose, sure = answers(FACING, OBJECTS['b'], np.random.default_rng(33)).pose, np.eye(6)
    monkeypatch.setattr(estimators, 'refined', answer)
    monkeypatch.setattr(estimators, 'POSE_SCORE', 0.0)
    monkeypatch.setattr(estimators, 'seen', lambda *_: [((pose, sure), None, (pose, sure)) for _ in _[4]])
    image = np.random.default_rng(34).integers(0, 255, (480, 640, 3), np.uint8)
    found = Estimator(kept, score_threshold=0.0).estimate(image, CAMERA)
    assert len(asked) == len(found) > 0 and asked[0].log_size == 0.03 and asked[0].views == [pose, pose]
    assert all((d.pose.translation == FACING.translation).all() for d in found)
    assert found[0].covariance == pytest.approx(4 * np.eye(6)), 'factors are of what is published'
    asked.clear()
    plain = Estimator(kept, score_threshold=0.0, outlines=False).estimate(image, CAMERA)
    assert not asked and plain[0].pose.translation == pytest.approx(pose.translation)


@pytest.mark.parametrize('wrong', [{'b': 0.5}, {'b': float('nan')}, {'b': 'large'}, ['b']])
def test_sizes_that_are_none_are_refused(wrong):
    bundle = Bundle.create({'b': OBJECTS['b']}, {'width': 8}, {'width': 8, 'hidden': 16})
    bundle.log_sizes = wrong
    with pytest.raises(WeightsError, match='the manifest is incomplete or not understood'):
        Bundle.from_bytes(bundle.to_bytes())
