# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Unsupervised validators: closed forms, and what is collected from networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, labelled_frame
from scipy.spatial.transform import Rotation
from torch import nn

from sim2real_da.evaluation.evidence import (
    Places,
    _views,
    bundle_evidence,
    classifier_evidence,
    detector_score,
    find,
    pose_score,
)
from sim2real_da.evaluation.validators import VALIDATORS, Evidence, domain_weights, scores, weighted_risk
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.crops import crop_transform
from sim2real_da.networks.detector import DetectorOutput, detector_targets
from sim2real_da.networks.direct_pose import DirectOutput, crop_pose
from sim2real_da.networks.pseudo_labels import AGREEING
from sim2real_da.samples import LabelledFrame, Pose

CLASSES = 4


def evidence(target: np.ndarray | None = None, features: np.ndarray | None = None, **others) -> Evidence:
    """Evidence of which a test says only what it is about."""
    rows = len(target) if target is not None else len(features) if features is not None else 8
    values = {
        'source': np.full((6, CLASSES), 1 / CLASSES), 'labels': np.zeros(6, int),
        'source_features': np.arange(18.0).reshape(6, 3),
        'target': np.full((rows, CLASSES), 1 / CLASSES) if target is None else target,
        'target_features': np.random.default_rng(0).normal(size=(rows, 3)) if features is None else features}
    return Evidence(**{**values, **others})


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(CLASSES)[classes]


UNIFORM = np.full((8, CLASSES), 1 / CLASSES)
BALANCED = one_hot([0, 1, 2, 3] * 2)
COLLAPSED = one_hot([2] * 8)


@pytest.mark.parametrize(('name', 'rows', 'expected'), [
    ('entropy', UNIFORM, -math.log(CLASSES)), ('entropy', BALANCED, 0), ('entropy', COLLAPSED, 0),
    ('infomax', UNIFORM, 0), ('infomax', BALANCED, math.log(CLASSES)), ('infomax', COLLAPSED, 0),
    # singular values: sqrt(N / C) C times; sqrt(N); |row| sqrt(N) with |row| = 1 / sqrt(C)
    ('bnm', BALANCED, math.sqrt(CLASSES / 8)), ('bnm', COLLAPSED, 1 / math.sqrt(8)),
    ('bnm', UNIFORM, 1 / math.sqrt(8 * CLASSES)),
])
def test_scores_of_probabilities(name, rows, expected):
    assert VALIDATORS[name](evidence(rows)) == pytest.approx(expected, abs=1e-12)


def test_source_validation_is_accuracy_or_the_networks_own_metric():
    source = one_hot([0, 1, 2, 3, 0, 1])
    labels = np.array([0, 1, 2, 0, 0, 0])
    assert VALIDATORS['source_validation'](evidence(source=source, labels=labels)) == pytest.approx(4 / 6)
    assert VALIDATORS['source_validation'](evidence(source=source, labels=labels, source_score=0.3)) == 0.3


def test_snd_closed_forms():
    same = np.tile([[1.0, 2.0, 3.0]], (9, 1)) * np.arange(1, 10)[:, None]  # lengths do not matter
    assert VALIDATORS['snd'](evidence(features=same)) == pytest.approx(math.log(8))
    # pairs of twins at right angles: one neighbour has all the weight
    twins = np.repeat(np.eye(3), 2, axis=0)
    a, b = math.exp(1 / 0.05), 1.0
    p, q = a / (a + 4 * b), b / (a + 4 * b)
    assert VALIDATORS['snd'](evidence(features=twins)) == pytest.approx(-p * math.log(p) - 4 * q * math.log(q))
    # many rows are taken in parts
    many = np.random.default_rng(0).normal(size=(1100, 3))
    unit = many / np.linalg.norm(many, axis=1, keepdims=True)
    weights = np.exp((unit @ unit.T - 1) / 0.05) * (1 - np.eye(1100))
    weights /= weights.sum(axis=1, keepdims=True)
    entropies = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=1)
    assert VALIDATORS['snd'](evidence(features=many)) == pytest.approx(entropies.mean())
    with pytest.raises(ValueError, match='no neighbours'):
        VALIDATORS['snd'](evidence(features=np.ones((1, 3))))


@pytest.mark.parametrize('rank', [1, 3, 5])
def test_rankme_counts_directions(rank):
    features = np.zeros((20, 6))
    features[np.arange(20 // rank * rank), np.arange(20 // rank * rank) % rank] = 2.0
    assert VALIDATORS['rankme'](evidence(features=features)) == pytest.approx(rank)


def test_rankme_of_nothing_is_zero():
    assert VALIDATORS['rankme'](evidence(features=np.zeros((5, 3)))) == 0


@pytest.mark.parametrize('name', ['dev', 'devn'])
def test_dev_is_the_source_risk_when_the_domains_are_equal(name):
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(20, 5)), 2, axis=0)  # each half of the rows is the whole set
    source, labels = rng.dirichlet(np.ones(CLASSES), 40), rng.integers(CLASSES, size=40)
    np.testing.assert_allclose(domain_weights(features, features), 1, atol=1e-6)
    risk = -np.log(source[np.arange(40), labels]).mean()
    found = VALIDATORS[name](evidence(source=source, labels=labels, source_features=features, features=features))
    assert found == pytest.approx(-risk, abs=1e-4)


def test_dev_looks_where_the_target_is():
    """Source errs on the left, the target lies on the right (or the left): the risk follows the target."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 1))
    labels = np.zeros(400, int)
    source = np.where(features < 0, 0.1, 0.9) @ np.array([[1.0, 0, 0, 0]])
    source[:, 1] = 1 - source[:, 0]
    found = {}
    for side in (-1.0, 1.0):
        target = rng.normal(size=(400, 1)) + side
        found[side] = [VALIDATORS[name](evidence(source=source, labels=labels, source_features=features,
                                                 features=target)) for name in ('dev', 'devn')]
    plain = np.log(source[:, 0]).mean()
    # shares of N(-1, 1) and N(1, 1) on either side of 0
    wrong = 0.8413
    expected = wrong * math.log(0.1) + (1 - wrong) * math.log(0.9)
    assert found[-1.0][0] < plain - 0.3 and found[1.0][0] > plain + 0.3
    assert found[-1.0][0] == pytest.approx(expected, abs=0.35)
    assert found[-1.0][1] < found[1.0][1]


def test_the_control_variate_takes_out_what_the_weights_explain():
    weights = np.array([0.5, 1.0, 1.5, 2.0])
    assert weighted_risk(np.full(4, 3.0), np.ones(4)) == pytest.approx(3)
    # a constant loss: w l = 3 w is explained by w entirely, whatever its mean
    assert weighted_risk(np.full(4, 3.0), weights) == pytest.approx(3)
    # w l = 0.5 0 3 2 with mean 1.375, cov(w l, w) = 0.46875, var(w) = 0.3125: eta = -1.5
    assert weighted_risk(np.array([1.0, 0.0, 2.0, 1.0]), weights) == pytest.approx(1.375 - 1.5 * 1.25 + 1.5)


def test_teacher_agreement_is_the_divergence():
    p = np.array([[0.5, 0.5, 0, 0]] * 3)
    assert VALIDATORS['teacher_agreement'](evidence(p, teacher=p)) == pytest.approx(0)
    sure = one_hot([0, 0, 0])
    assert VALIDATORS['teacher_agreement'](evidence(p, teacher=sure)) == pytest.approx(-math.log(2))
    # what the network rules out and the teacher is sure of costs much, and never infinitely much
    assert VALIDATORS['teacher_agreement'](evidence(one_hot([1, 1, 1]), teacher=sure)) == pytest.approx(math.log(1e-6))


def test_reprojection_is_the_share_that_agrees():
    views = np.array([[3.0, 0.01], [14.9, 0.09], [15.1, 0.01], [3.0, 0.11], [np.inf, np.inf]])
    assert VALIDATORS['reprojection'](evidence(views=views)) == pytest.approx(2 / 5)
    assert VALIDATORS['reprojection'](evidence(views=np.zeros((0, 2)))) == 0


def test_only_what_the_evidence_allows_is_scored():
    optional = {'teacher_agreement', 'reprojection'}
    assert set(scores(evidence())) == set(VALIDATORS) - optional
    assert set(scores(evidence(teacher=UNIFORM, views=np.zeros((1, 2))))) == set(VALIDATORS)
    for name in optional:
        with pytest.raises(ValueError, match=name):
            VALIDATORS[name](evidence())


@pytest.mark.parametrize(('change', 'message'), [
    ({'target': UNIFORM * 2}, 'rows of target are no probabilities'),
    ({'target': np.zeros((0, CLASSES)), 'target_features': np.zeros((0, 3))}, 'at least one row'),
    ({'target': np.ones((8, 1))}, r'target \(8, 1\), expected \(rows, 4 classes\)'),
    ({'teacher': UNIFORM[:3]}, '3 rows of teacher, expected 8'),
    ({'labels': np.zeros(2, int)}, '2 rows of labels, expected 6'),
    ({'labels': np.full(6, CLASSES)}, 'labels from 4 to 4, expected 0 to 3'),
])
def test_evidence_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evidence(**change)


def test_a_classifier_is_asked_in_evaluation_mode_and_left_as_it_was():
    torch.manual_seed(0)
    network, other = Classifier(3).train(), Classifier(3).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    source, target = torch.rand(5, 3, 28, 28), torch.rand(300, 3, 28, 28)
    found = classifier_evidence(network, source, torch.tensor([0, 1, 2, 0, 1]), target, other)
    assert network.training and not other.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert found.source.shape == (5, 3) and found.target_features.shape == (300, 128)
    with torch.no_grad():
        expected = network.eval()(target[290:]).logits.softmax(1).numpy()
    np.testing.assert_allclose(found.target[290:], expected, atol=1e-5)
    np.testing.assert_allclose(found.teacher[:3], other(target[:3]).logits.softmax(1).detach().numpy(), atol=1e-5)
    assert all(np.isfinite(v) for v in scores(found).values())


MODEL = box_model('box')
POSE = Pose(Rotation.from_euler('xyz', [200, 20, 40], degrees=True).as_quat(), np.array([0.02, -0.03, 0.6]))
SEEN = labelled_frame(np.random.default_rng(0), MODEL, POSE)
BOX = SEEN.labels[0].box


class Seer(nn.Module):
    """A detector that gives one box a probability; its features are the cell's input pixel x and y."""

    input_size = (320, 240)

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(math.log(probability / (1 - probability))))

    def forward(self, image: torch.Tensor) -> DetectorOutput:
        targets = detector_targets([BOX[None]], [np.array([0])], (320, 240), 1, [None])
        heat = torch.where(targets.heat == 1, self.logit, -12.0)
        x, y = torch.arange(20) * 16 + 7.5, torch.arange(15) * 16 + 7.5
        place = torch.stack(torch.meshgrid(x, y, indexing='xy'))[None]
        return DetectorOutput(heat, targets.sides, torch.zeros(1, 2, 60, 80), [place])


class Guesser(nn.Module):
    """A pose network that says the truth in the first view and something ``wrong`` degrees off in the last."""

    crop_size = 64

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.wrong, self.view = wrong, 0
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, crops: torch.Tensor) -> DirectOutput:
        view, self.view = self.view % len(AGREEING), self.view + 1
        transform = crop_transform(BOX, 64, *AGREEING[view])
        rotation, centre, size = crop_pose(POSE.matrix()[None], CAMERA.matrix()[None], transform[None],
                                           np.zeros((1, 3)), np.array([MODEL.diameter]), 64)
        off = self.wrong if view == len(AGREEING) - 1 else 0.0
        turned = rotation[0] @ Rotation.from_euler('x', off, degrees=True).as_matrix()
        numbers = [torch.from_numpy(np.asarray(a)).float().reshape(1, 1, *s) for a, s in (
            (turned, (3, 3)), (centre[0], (2,)), (size[0], ()))]
        return DirectOutput(*numbers, torch.full((1, 1, 3), -3.0), torch.tensor([[9.0, -9.0]]),
                            [torch.ones(1, 2, 4, 4)], 64)


def test_the_detector_is_asked_where_things_were_found():
    bundles = [Bundle(Seer(p), Guesser(0.0), {'box': MODEL}) for p in (0.9, 0.6)]
    blind = Bundle(Seer(0.01), Guesser(0.0), {'box': MODEL})
    places = find([*bundles, blind], [SEEN.frame])
    assert len(places) == 1 and places[0].classes.tolist() == [0]  # what two of them see is one place
    np.testing.assert_allclose(places[0].boxes, BOX[None], atol=0.1)
    for bundle, probability in zip([*bundles, blind], (0.9, 0.6, 0.01)):
        bundle.pose = Bundle.create({'box': MODEL}).pose
        asked = bundle_evidence(bundle, [SEEN], [SEEN.frame], places)['detector']
        # odds p / (1 - p) against 1: for one class that is the sigmoid itself
        np.testing.assert_allclose(asked.target, [[probability, 1 - probability]], atol=1e-5)
        np.testing.assert_allclose(asked.target_features, [(BOX[:2] + BOX[2:]) / 2], atol=0.1)
        assert asked.source_score == (0 if bundle is blind else pytest.approx(1)) and asked.labels.tolist() == [0]


def test_poses_of_several_views_are_compared():
    for wrong, share in ((4.0, 1.0), (40.0, 0.0)):
        bundle = Bundle(Seer(0.9), Guesser(wrong), {'box': MODEL})
        places = [Places(BOX[None], np.array([0]))]
        bundle.pose.view = 0
        views = _views(bundle, [SEEN.frame], places)
        assert views[0, 0] == pytest.approx(wrong, abs=0.1)
        assert VALIDATORS['reprojection'](evidence(views=views)) == share


def test_pose_score_counts_a_miss_as_half_a_turn():
    bundle = Bundle(Seer(0.9), Guesser(0.0), {'box': MODEL})
    assert pose_score(bundle, [SEEN]) == pytest.approx(1, abs=1e-3)
    assert detector_score(bundle, [SEEN]) == pytest.approx(1)


def test_real_networks_give_complete_finite_evidence_and_nothing_found_is_one_clear_error():
    torch.manual_seed(0)
    bundle, teacher = (Bundle.create({'box': MODEL, 'other': box_model('other')}) for _ in range(2))
    bundle.detector.train()
    rng = np.random.default_rng(0)
    frames = [SEEN.frame, frame(rng)]
    places = [Places(np.array([[20.0, 30, 80, 90], [100, 40, 180, 130]]), np.array([0, 1])),
              Places(np.zeros((0, 4)), np.zeros(0, np.int64))]
    found = bundle_evidence(bundle, [SEEN, SEEN], frames, places, teacher)
    assert bundle.detector.training
    assert set(scores(found['pose'])) == set(VALIDATORS)
    for one in found.values():
        assert one.target.shape == (2, 3) and len(one.target_features) == 2
    with pytest.raises(ValueError, match='no object in 2 target frames'):
        bundle_evidence(bundle, [SEEN], frames, [places[1]] * 2)
    with pytest.raises(ValueError, match='no object in 1 held-out source frames'):
        bundle_evidence(bundle, [LabelledFrame(SEEN.frame, ())], frames, places)
    with pytest.raises(ValueError, match='places of 1 frames'):
        bundle_evidence(bundle, [SEEN], frames, places[:1])
