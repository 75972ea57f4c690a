# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Weights file, buffer, store, averaging, gate and session."""

from __future__ import annotations

import errno
import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, labelled_frame

from sim2real_da.adaptation import average
from sim2real_da.evaluation.evidence import Places
from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.estimator import Estimator
from sim2real_da.networks.weights_file import manifest_of, pack, read_manifest, unpack
from sim2real_da.online import camera_evidence, memory
from sim2real_da.online.buffer import REFERENCES, FrameBuffer
from sim2real_da.online.curves import Curves
from sim2real_da.online.gate import Decision, Gate, _Score
from sim2real_da.online.learner import Learner
from sim2real_da.online.session import GAP, AdaptationSession
from sim2real_da.online.store import WeightStore
from sim2real_da.recipes import RecipeError, load_recipe
from sim2real_da.samples import Detection, LabelledFrame, ObjectLabel, Pose

POSE = Pose(np.array([0.9, 0.1, 0.2, 0.1]), np.array([0.0, 0.0, 0.5]))
OBJECTS = {'box': box_model('box'), 'bar': box_model('bar', (0.08, 0.01, 0.01))}


@pytest.fixture(scope='module')
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle.create(OBJECTS)


@pytest.fixture
def small() -> Bundle:
    torch.manual_seed(0)
    return Bundle.create(OBJECTS, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})


def session(bundle, tmp_path, recipe='dann', **options) -> AdaptationSession:
    # an untrained network finds nothing on the camera
    options = {'holdout': 3, 'gate_every': 2, 'evidence': False} | options
    return AdaptationSession(bundle, load_recipe(recipe), WeightStore(tmp_path), **options)


def feed(adaptation: AdaptationSession, count: int = 20) -> None:
    rng = np.random.default_rng(0)
    for _ in range(count):
        adaptation.add_source(labelled_frame(rng, OBJECTS['box'], POSE))
        adaptation.add_target(frame(rng))


# weights file

def test_weights_survive_the_wire_bit_for_bit(bundle):
    copy = Bundle.from_bytes(bundle.to_bytes(), like=bundle)
    for mine, theirs in zip(bundle._tensors().values(), copy._tensors().values()):
        assert torch.equal(mine, theirs)
    assert copy.classes == ('box', 'bar')
    np.testing.assert_array_equal(copy.objects['bar'].points, OBJECTS['bar'].points)
    image = frame(np.random.default_rng(1)).image
    before, after = (Estimator(b, score_threshold=0.0).estimate(image, CAMERA) for b in (bundle, copy))
    assert [d.score for d in before] == [d.score for d in after] and len(before) == 20


def test_a_frozen_backbone_is_stored_once_and_read_twice():
    form = {'backbone': 'efficientnet_lite0', 'frozen': True}
    torch.manual_seed(0)
    same = Bundle.create(OBJECTS, form, form)
    apart = len(same.to_bytes())
    same.pose.backbone.load_state_dict(same.detector.backbone.state_dict())
    data = same.to_bytes()
    assert len(data) < apart - 8e6  # 2.4 million numbers of four bytes
    back = Bundle.from_bytes(data)
    for network in ('detector', 'pose'):
        for name, value in getattr(same, network).state_dict().items():
            assert torch.equal(value, getattr(back, network).state_dict()[name]), name


def test_half_precision_is_half_the_size(bundle):
    assert len(bundle.to_bytes(half=True)) < 0.52 * len(bundle.to_bytes())
    Bundle.from_bytes(bundle.to_bytes(half=True), like=bundle)


def damaged(data: bytes) -> bytes:
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    return bytes(broken)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda d: d[:-1000], 'truncated'), (lambda d: d[:5], 'no safetensors file'), (lambda d: b'', 'no safetensors'),
    (damaged, 'checksum'), (lambda d: b'\xff' * 100, 'truncated or oversized'),
    (lambda d: (2).to_bytes(8, 'little') + b'{}' + d, 'manifest'),
])
def test_damaged_weights_are_refused_with_the_reason(bundle, change, message):
    with pytest.raises(WeightsError, match=message):
        Bundle.from_bytes(change(bundle.to_bytes()))


def repacked(bundle: Bundle, **changes) -> bytes:
    manifest, tensors = unpack(bundle.to_bytes(), 'bundle')
    return pack(tensors, {k: v for k, v in manifest.items() if k not in ('format', 'checksum')} | changes)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'version': 2**63}, 'version 9223372036854775808 after 0, expected 0 to 999999'), ({'version': 10**6}, 'version'),
    ({'parent': -1}, 'version 0 after -1'),
    ({'recipe': '\ud800'}, 'not understood'), ({'note': '\udfff'}, 'not under')])
def test_what_would_end_a_node_or_outlast_every_version_is_refused(bundle, changes, message):
    with pytest.raises(WeightsError, match=message):
        Bundle.from_bytes(repacked(bundle, **changes))


def test_headers_that_are_deep_or_large_are_refused_unread(tmp_path):
    deep = b'[' * 200_000
    with pytest.raises(WeightsError, match='no sim2real_da manifest'):
        read_manifest(len(deep).to_bytes(8, 'little') + deep)
    wide = b'{"a": [' + b'0,' * 3_000_000 + b'0]}'
    with pytest.raises(WeightsError, match='oversized .*header of 6000010'):
        read_manifest(len(wide).to_bytes(8, 'little') + wide)
    path = tmp_path / 'huge.safetensors'
    with path.open('wb') as file:
        file.truncate(3 * 2**30)  # takes no room on the disk
    for read in (Bundle.load, manifest_of):
        with pytest.raises(WeightsError, match='huge.safetensors: 3221225472 bytes, expected at most 536870912'):
            read(path)


def test_weights_for_other_classes_or_another_architecture_are_refused(bundle):
    other = Bundle.create({'box': OBJECTS['box']})
    with pytest.raises(WeightsError, match=r"classes \['box'\], expected \['box', 'bar'\]"):
        Bundle.from_bytes(other.to_bytes(), like=bundle)
    wide = Bundle.create(OBJECTS, detector={'width': 32})
    with pytest.raises(WeightsError, match='another detector architecture'):
        Bundle.from_bytes(wide.to_bytes(), like=bundle)


def test_infinite_weights_are_refused(bundle):
    broken = bundle.copy()
    with torch.no_grad():
        broken.pose.classify.weight[0, 0] = torch.inf
    with pytest.raises(WeightsError, match='not finite'):
        Bundle.from_bytes(broken.to_bytes())


def test_manifest_of_another_format_is_named(bundle):
    data = bundle.to_bytes().replace(b'sim2real_da/1', b'sim2real_da/9')
    with pytest.raises(WeightsError, match='sim2real_da/9'):
        read_manifest(data)
    assert json.dumps(read_manifest(bundle.to_bytes())['objects'][0]['symmetries'])


# buffer

def test_buffer_is_bounded_in_bytes_and_keeps_the_newest():
    rng = np.random.default_rng(0)
    frames = [frame(rng) for _ in range(5)]
    for i, f in enumerate(frames):
        f.image[:] = i * 40  # whole pictures differ, so each is novel
    buffer = FrameBuffer(3 * frames[0].image.nbytes)
    assert all(buffer.admit(f) for f in frames)
    assert len(buffer) == 3 and buffer.bytes == buffer.capacity_bytes
    kept = {int(f.image[0, 0, 0]) for f in buffer.sample(3, rng)}
    assert kept == {80, 120, 160}


def test_buffer_refuses_the_same_picture_again_and_what_cannot_fit():
    buffer = FrameBuffer(1000)
    assert not buffer.admit(frame(np.random.default_rng(0)))
    buffer = FrameBuffer(10**7)
    still = frame(np.random.default_rng(0))
    assert buffer.admit(still) and not buffer.admit(still) and buffer.rejected == 1
    with pytest.raises(ValueError, match='no real frame'):
        FrameBuffer(1).sample(1, np.random.default_rng(0))


def test_buffer_owns_its_pixels():
    shared = np.zeros((240, 320, 3), np.uint8)
    buffer = FrameBuffer(10**7)
    view = frame(np.random.default_rng(0))
    view = type(view)(shared[:], view.intrinsics)
    buffer.admit(view)
    shared[:] = 9
    assert buffer.sample(1, np.random.default_rng(0))[0].image.max() == 0


def shades(*levels: int) -> list:
    """Frames of one grey each, 10 levels or more are novel."""
    rng, made = np.random.default_rng(0), []
    for level in levels:
        made.append(frame(rng))
        made[-1].image[:] = level
    return made


def levels(buffer: FrameBuffer) -> set[int]:
    return {int(f.image[0, 0, 0]) for f in buffer.sample(len(buffer), np.random.default_rng(0))}


def test_looking_to_and_fro_does_not_fill_the_buffer():
    buffer = FrameBuffer(10**7)
    left, right = shades(50, 90)
    assert [buffer.admit(f) for f in (left, right, left, right, left)] == [True, True, False, False, False]


def test_the_oldest_of_the_most_frequent_class_goes_first():
    frames = shades(0, 40, 80, 120, 160, 200)
    buffer = FrameBuffer(4 * frames[0].image.nbytes)
    for f, classes in zip(frames, ({'mug'}, {'mug', 'bolt'}, {'mug'}, {'bolt'})):
        buffer.admit(f)
        assert buffer.unnoted() == [f] or buffer.unnoted()[0].image[0, 0, 0] == f.image[0, 0, 0]
        buffer.note(buffer.unnoted()[0], classes)
    assert buffer.classes() == {'mug': 3, 'bolt': 2}
    buffer.admit(frames[4])
    assert levels(buffer) == {40, 80, 120, 160}
    buffer.note(buffer.unnoted()[0], set())  # nothing is found in it
    assert buffer.classes() == {'mug': 2, 'bolt': 2, '': 1}
    buffer.forget_classes()
    buffer.admit(frames[5])
    assert levels(buffer) == {80, 120, 160, 200}  # nothing known: the oldest


def test_references_stay_while_others_come_and_go():
    frames = shades(*range(0, 250, 10))
    buffer = FrameBuffer(5 * frames[0].image.nbytes)
    for f in frames[:5]:
        buffer.admit(f)
    first = [f for f in buffer.sample(5, np.random.default_rng(0)) if f.image[0, 0, 0] in (0, 20)]
    buffer.refer(first, np.random.default_rng(0))
    for f in frames[5:]:
        assert buffer.admit(f)
    assert levels(buffer) == {0, 20, 220, 230, 240}
    assert {int(f.image[0, 0, 0]) for f in buffer.references()} == {0, 20}
    buffer.refer(buffer.sample(5, np.random.default_rng(0)), np.random.default_rng(0))
    assert len(buffer.references()) == 2  # half at most: what is new has a place
    buffer.hold(buffer.sample(5, np.random.default_rng(0)))
    assert buffer.admit(shades(100)[0]) and 100 in levels(buffer)  # all are held: one has to go nevertheless
    buffer.clear()
    assert buffer.references() == []


def test_no_more_references_than_are_asked_for():
    buffer, rng = FrameBuffer(10**8), np.random.default_rng(0)
    for f in shades(*range(0, 250, 4)):
        buffer.admit(f)
    frames = buffer.sample(len(buffer), rng)
    buffer.refer(frames[:20], rng)
    assert len(buffer.references()) == 20
    buffer.refer(frames[20:40], rng)
    kept = buffer.references()
    assert len(kept) == REFERENCES and {id(f) for f in kept} & {id(f) for f in frames[:20]}


def test_a_rare_class_is_drawn_as_often_as_a_frequent_one():
    frames = shades(*range(0, 250, 10))
    buffer = FrameBuffer(10**8)
    for f in frames:
        buffer.admit(f)
        buffer.note(buffer.unnoted()[0], {'bolt'} if f is frames[3] else {'mug'})
    rng = np.random.default_rng(0)
    drawn = [int(buffer.sample(1, rng)[0].image[0, 0, 0]) for _ in range(400)]
    assert 0.4 < np.mean([level == 30 for level in drawn]) < 0.6
    assert len(set(drawn)) > 20


def test_frames_outlive_the_process_and_damaged_files_do_not(tmp_path, caplog):
    frames = shades(0, 40, 80, 120)
    size = frames[0].image.nbytes
    first = FrameBuffer(3 * size, folder=tmp_path)
    for f in frames:
        first.admit(f)
    assert len(list(tmp_path.iterdir())) == 3  # as many files as frames
    (tmp_path / '000000007.safetensors').write_bytes(b'nothing')
    (tmp_path / '.000000009.safetensors.x1.unfinished').write_bytes(b'half')
    again = FrameBuffer(3 * size, folder=tmp_path)
    assert levels(again) == {40, 80, 120} and '000000007.safetensors: left out' in caplog.text
    kept = again.sample(1, np.random.default_rng(0))[0]
    assert kept.intrinsics == frames[0].intrinsics and kept.stamp == frames[0].stamp
    assert not again.admit(frames[2])  # it remembers what it has seen
    assert again.admit(shades(200)[0]) and levels(again) == {80, 120, 200}
    smaller = FrameBuffer(size, folder=tmp_path)
    assert levels(smaller) == {200} and len(list(tmp_path.iterdir())) == 1
    smaller.clear()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_the_files_and_not_the_frames(tmp_path, caplog, monkeypatch):
    def full(path, data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('sim2real_da.online.frame_files.write_atomically', full)
    buffer = FrameBuffer(10**8, folder=tmp_path)
    assert all(buffer.admit(f) for f in shades(0, 40, 80)) and len(buffer) == 3
    assert caplog.text.count('No space left') == 1


# store

def test_store_keeps_the_newest_and_versions_only_grow(bundle, tmp_path):
    store = WeightStore(tmp_path, keep=2)
    for version in (1, 2, 3):
        store.save(_numbered(bundle, version))
    assert store.versions() == [2, 3] and store.next_version() == 4
    with pytest.raises(ValueError, match='version 2 is not above 3'):
        store.save(_numbered(bundle, 2))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]  # no temporary file is left


def test_store_goes_back_to_the_newest_version_that_can_be_read(bundle, tmp_path):
    store = WeightStore(tmp_path)
    for version in (1, 2):
        store.save(_numbered(bundle, version))
    store.path(2).write_bytes(store.path(2).read_bytes()[:5000])
    assert WeightStore(tmp_path).load().version == 1
    with pytest.raises(WeightsError, match='v000002'):
        store.load(2)


def _numbered(bundle: Bundle, version: int) -> Bundle:
    copy = bundle.copy()
    copy.version = version
    return copy


# teacher

def test_first_average_copies_and_later_ones_follow_the_decay():
    torch.manual_seed(0)
    teacher, student = (torch.nn.BatchNorm1d(3) for _ in range(2))
    with torch.no_grad():
        student.weight.fill_(5)
        student.running_mean.fill_(7)
    student.num_batches_tracked += 4
    average(teacher, student, 0.9, 0)
    assert torch.equal(teacher.weight, student.weight) and torch.equal(teacher.running_mean, student.running_mean)
    with torch.no_grad():
        student.weight.fill_(6)
    average(teacher, student, 0.9, 1)  # warm-up: a = 1 - 1/2
    torch.testing.assert_close(teacher.weight, torch.full((3,), 5.5))
    average(teacher, student, 0.9, 1000)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 0.9 * 5.5 + 0.1 * 6))
    assert int(teacher.num_batches_tracked) == 4


# learner

def test_control_recipe_never_looks_at_the_target(bundle):
    rng = np.random.default_rng(0)
    source = [labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(4)]
    results = []
    for seed in (1, 2):  # other real frames, the same result
        learner = Learner(bundle, load_recipe('source_continued'))
        assert not learner.needs_target
        learner.step(source, [frame(np.random.default_rng(seed)) for _ in range(4)])
        results.append(learner.candidate().to_bytes())
    assert results[0] == results[1]


def test_dann_reports_its_losses_and_trains_both_networks_and_its_discriminators(bundle):
    rng = np.random.default_rng(0)
    learner = Learner(bundle, load_recipe('dann'))
    before = [p.detach().clone() for part in learner.parts.values() for p in part.parameters]
    players = [p.detach().clone() for part in learner.parts.values() for o in part.objectives for p in o.parameters()]
    source = [labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(4)]
    target = [frame(rng) for _ in range(4)]
    for _ in range(3):
        report = learner.step(source, target)
    assert {'detector/heat', 'detector/domain', 'detector/domain_accuracy', 'pose/rotation'} <= set(report)
    assert all(np.isfinite(v) for v in report.values())
    # this untrained teacher finds nothing to crop in noise, so the pose network has a task loss and no adversary
    assert 'pose/domain' not in report
    after = [p for part in learner.parts.values() for p in part.parameters]
    moved = [not torch.equal(a, b) for a, b in zip(before, after)]
    assert np.mean(moved) > 0.95
    now = [p for part in learner.parts.values() for o in part.objectives for p in o.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(players, now))
    assert bundle.finite() and not torch.equal(bundle.detector.heat.bias, learner.student.detector.heat.bias)


def test_a_step_that_is_not_finite_changes_nothing(bundle):
    rng = np.random.default_rng(0)
    learner = Learner(bundle, load_recipe('source_continued'))
    with torch.no_grad():
        learner.student.detector.heat.bias[0] = torch.nan
    teacher = learner.candidate().to_bytes()
    report = learner.step([labelled_frame(rng, OBJECTS['box'], POSE)], [])
    assert report['skipped'] == 1 and learner.step_count == 0
    assert learner.candidate().to_bytes() == teacher


# gate

class _Scripted(Gate):
    """A gate whose models are scored by a table: AP50 and pose score by version."""

    def __init__(self, table, tolerance):
        rng = np.random.default_rng(0)
        super().__init__([labelled_frame(rng, OBJECTS['box'], POSE)], OBJECTS, tolerance)
        self.table = table

    def _score(self, bundle, key):
        return _Score([], *self.table[bundle.version])

    def _standard_error(self, old, new, column):
        return 0.01


@pytest.mark.parametrize(('source', 'ap50', 'pose', 'promote'), [
    (0.79, 0.80, 0.7, True), (0.79, 0.785, 0.7, True), (0.78, 0.775, 0.7, False), (0.79, 0.9, 0.67, False),
    (0.79, 0.9, 0.9, True),
    (0.80, 0.785, 0.7, False)])  # the standard error excuses nothing where the source model is concerned
def test_gate_tolerates_what_it_says_and_no_more(bundle, source, ap50, pose, promote):
    gate = _Scripted({-1: (source, 0.7), 1: (0.8, 0.7), 2: (ap50, pose)}, tolerance=0.01)
    decision = gate.decide(_numbered(bundle, 2), _numbered(bundle, 1), _numbered(bundle, -1))
    assert decision.promote is promote
    assert decision.numbers['candidate_ap50'] == ap50
    if not promote:
        assert 'tolerance 0.010' in decision.reason


def test_gate_refuses_infinite_weights_and_an_empty_holdout(bundle):
    broken = _numbered(bundle, 2)
    with torch.no_grad():
        broken.detector.heat.bias[0] = torch.nan
    gate = _Scripted({}, 0.01)
    assert gate.decide(broken, bundle, bundle).reason == 'rejected: weights are not finite'
    with pytest.raises(ValueError, match='held-out simulation with no object'):
        Gate([LabelledFrame(frame(np.random.default_rng(0)), ())], OBJECTS, 0.01)


def test_standard_error_of_equal_models_is_zero_and_of_different_ones_is_not(bundle):
    rng = np.random.default_rng(0)
    labelled = [labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(6)]
    gate = Gate(labelled, OBJECTS, 0.01)
    right = [[Detection('box', 0.9, f.labels[0].box, POSE)] for f in labelled]
    all_found, half_found = _Score(right, 1, 1), _Score([r if i % 2 else [] for i, r in enumerate(right)], 0.5, 0.5)
    assert gate._standard_error(all_found, _Score(right, 1, 1), 0) == 0
    assert 0.05 < gate._standard_error(all_found, half_found, 1) < 0.4


def test_gate_really_measures(bundle):
    rng = np.random.default_rng(0)
    gate = Gate([labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(2)], OBJECTS, 0.01)
    scores = gate.score(bundle)
    assert 0 <= scores['ap50'] <= 1 and 0 <= scores['pose_score'] <= 1


@pytest.fixture
def answers(monkeypatch):
    """Probabilities that models give at the places of camera frames, by model; three places in each frame."""
    given: dict[int, np.ndarray] = {}
    monkeypatch.setattr(camera_evidence, 'find', lambda bundles, frames: [
        Places(np.zeros((3, 4)), np.zeros(3, np.int64)) for _ in frames])
    monkeypatch.setattr(camera_evidence, 'target_rows', lambda bundle, frames, places: dict.fromkeys(
        ('detector', 'pose'), np.resize(given[bundle.version], (3 * len(frames), 3))))
    return given


def rows_of(sharpness: float, classes: int = 3, count: int = 12) -> np.ndarray:
    logits = sharpness * np.eye(classes)[np.arange(count) % classes]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize('now, fails', [
    (rows_of(4.0), False), (rows_of(5.0), False), (rows_of(2.0), True),
    (np.tile([[1.0, 0.0, 0.0]], (12, 1)), True)])  # collapsed: sure, and always the same
def test_camera_frames_reject_answers_that_are_less_sure_or_less_diverse(bundle, answers, now, fails):
    candidate, running, source = (bundle.copy() for _ in range(3))
    candidate.version, running.version, source.version = 2, 1, 0
    answers.update({2: now, 1: rows_of(4.0), 0: rows_of(3.0)})
    frames = [frame(np.random.default_rng(0)) for _ in range(4)]
    found = camera_evidence.compare(candidate, running, source, frames)
    assert not found.decline and bool(found.failures) == fails and found.numbers['places'] == 12
    # three classes alike, each answer p, q, q: log 3 - H(p, q, q)
    p = np.exp(4) / (np.exp(4) + 2)
    q = (1 - p) / 2
    assert found.numbers['running_pose_infomax'] == pytest.approx(np.log(3) + p * np.log(p) + 2 * q * np.log(q))
    if fails:
        assert any('InfoMax of the detector on camera frames' in f and 'running model' in f for f in found.failures)


def test_camera_frames_that_show_nothing_speak_against_a_candidate(bundle, answers):
    found = camera_evidence.compare(bundle, bundle, bundle, [frame(np.random.default_rng(0))])
    assert found.failures == ('1 camera frames show 3 places with an object, expected 6 to judge by',)


def test_the_gate_asks_the_camera_after_simulation(bundle, answers):
    candidate, running, source = (bundle.copy() for _ in range(3))
    candidate.version, running.version, source.version = 2, 1, 0
    answers.update({2: rows_of(1.0), 1: rows_of(4.0), 0: rows_of(3.0)})
    rng = np.random.default_rng(0)
    gate = Gate([labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(2)], OBJECTS, 1.0)
    camera = [frame(rng) for _ in range(4)]
    decision = gate.decide(candidate, running, source, camera)
    assert not decision.promote and 'InfoMax of the pose' in decision.reason
    assert decision.numbers['camera_candidate_pose_infomax'] < decision.numbers['camera_source_pose_infomax']
    assert gate.decide(candidate, running, source).promote  # simulation alone has nothing against it


@pytest.mark.parametrize('earlier, candidate_there, promote', [
    (4, 4.5, True), (4, 2.0, False),  # what the camera showed earlier is not to be forgotten
    (1, 2.0, True)])  # three places are too few to judge by
def test_a_candidate_must_not_forget_what_the_camera_showed_earlier(
        bundle, monkeypatch, answers, earlier, candidate_there, promote):
    candidate, running, source = (bundle.copy() for _ in range(3))
    candidate.version, running.version, source.version = 2, 1, 0
    now, before = shades(10, 20, 30, 40), shades(200, 210, 220, 230)[:earlier]
    sharpness = {0: 3.0, 1: 4.0, 2: 5.0}
    monkeypatch.setattr(camera_evidence, 'target_rows', lambda b, frames, places: dict.fromkeys(
        ('detector', 'pose'), rows_of(candidate_there if b is candidate and frames is before else sharpness[b.version],
                                      count=3 * len(frames))))
    rng = np.random.default_rng(0)
    gate = Gate([labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(2)], OBJECTS, 1.0)
    assert gate.decide(candidate, running, source, now).promote
    decision = gate.decide(candidate, running, source, now, before)
    assert decision.promote == promote and decision.numbers['reference_places'] == 3 * earlier
    assert ('InfoMax of the pose on earlier camera frames' in decision.reason) == (not promote)


# session

def test_session_waits_learns_promotes_and_writes_before_it_publishes(bundle, tmp_path, monkeypatch):
    adaptation = session(bundle, tmp_path, max_steps=4)
    assert adaptation.state == 'waiting for data' and 'validation: 0 of 3' in adaptation.reason
    assert adaptation.current().version == 1 and adaptation.store.versions() == [1]
    feed(adaptation)
    promotions = [p for _ in range(6) if (p := adaptation.work())]
    assert adaptation.state == 'done' and adaptation.step == 4
    assert [p.version for p in promotions] == [2, 3]
    assert adaptation.store.path(3).read_bytes() == promotions[-1].data
    decisions = [json.loads(line) for line in (tmp_path / 'decisions.jsonl').read_text().splitlines()]
    assert [(d['step'], d['promoted'], d['version']) for d in decisions] == [(2, True, 2), (4, True, 3)]
    assert decisions[-1]['numbers']['candidate_ap50'] == adaptation.metrics['gate/candidate_ap50']
    monkeypatch.setattr('sim2real_da.online.session.DECISIONS_BYTES', 10)
    adaptation._log('gate', Decision(False, 'one more', {}), None)  # a file that has grown long
    assert len((tmp_path / 'decisions.jsonl').read_text().splitlines()) == 1
    assert len((tmp_path / 'decisions.jsonl.1').read_text().splitlines()) == 2
    loaded = Bundle.from_bytes(promotions[-1].data, like=bundle)
    assert loaded.parent == 2 and loaded.recipe == 'dann'
    assert len(adaptation.history) == 4 and adaptation.metrics['promotions'] == 2


def test_published_weights_that_become_worse_are_taken_back_until_learning_is_frozen(tmp_path, answers):
    bundle = Bundle.create(OBJECTS, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    adaptation = session(bundle, tmp_path, 'source_continued', evidence=True, tolerance=1.0)
    feed(adaptation)
    good, better, bad = rows_of(3.0), rows_of(4.0), rows_of(1.0)
    answers.update({-1: good, 0: better, 1: better, 2: better, 3: better})
    assert [adaptation.work() is not None for _ in range(4)] == [False, True, False, True]  # versions 2 and 3

    # another light: 3 and 2 are worse than the source model now, 1 is not; nor is the next candidate of any use
    answers.update({0: bad, 1: better, 2: bad, 3: bad})
    adaptation._learner.teacher.version = 0
    adaptation.work()
    answers[4] = better
    promotion = adaptation.work()
    assert promotion is not None and promotion.version == 4 and 'went back to version 1' in promotion.decision.reason
    assert 'InfoMax of the detector on camera frames' in adaptation.reason and adaptation.rollbacks == 1
    assert adaptation.history[-1]['gate/went_back_to'] == 4
    first, fourth = (adaptation.store.load(v).detector.parameters() for v in (1, 4))
    for kept, own in zip(first, fourth):
        assert torch.equal(kept, own)
    assert adaptation._learner.parts['detector'].pace == 0.5 and adaptation.state == 'adapting'

    # once more and once more: nothing but the source model is left
    for version in range(1, 12):
        answers[version] = bad
    for _ in range(4):
        adaptation._learner.teacher.version = 0
        adaptation.work()
    assert adaptation.state == 'frozen' and 'the source model' in adaptation.reason and adaptation.rollbacks == 3
    for kept, own in zip(bundle.detector.parameters(), adaptation.current().detector.parameters()):
        assert torch.equal(kept, own)
    again = session(bundle, tmp_path, 'source_continued', evidence=True, tolerance=1.0)  # a restart thaws nothing
    assert again.state == 'frozen' and again.running.version == adaptation.running.version
    events = [json.loads(line) for line in (tmp_path / 'decisions.jsonl').read_text().splitlines()]
    assert [e['version'] for e in events if e['event'] == 'automatic rollback'] == [4, 5, 6]
    assert [e['version'] for e in events if e['event'] == 'gate'] == [2, 3, None, None, None]
    adaptation.resume()
    assert adaptation.state == 'adapting'


def test_what_the_first_candidate_was_judged_by_is_kept_as_a_reference(small, tmp_path, answers, monkeypatch):
    store, frames = tmp_path / 'store', tmp_path / 'frames'
    adaptation = session(small, store, evidence=True, tolerance=1.0, buffer_folder=frames)
    feed(adaptation, 24)
    answers.update({-1: rows_of(3.0), 0: rows_of(4.0), 1: rows_of(3.0), 2: rows_of(4.0)})
    adaptation.work()
    assert not adaptation.buffer.references()
    assert adaptation.work() is not None
    assert 'gate/reference_places' not in adaptation.metrics  # the first has none before it
    first = [f.image.tobytes() for f in adaptation.buffer.references()]
    assert len(first) == camera_evidence.FRAMES
    answers.update({0: rows_of(1.0)})
    adaptation._learner.teacher.version = 0
    adaptation.work()
    assert adaptation.work() is None and 'on earlier camera frames' in adaptation.reason
    assert adaptation.metrics['gate/reference_places'] == 3 * camera_evidence.FRAMES
    assert [f.image.tobytes() for f in adaptation.buffer.references()] == first  # a rejected one adds nothing
    again = session(small, store, evidence=True, tolerance=1.0, buffer_folder=frames)
    assert sorted(f.image.tobytes() for f in again.buffer.references()) == sorted(first)

    blind = session(small, tmp_path / 'blind', evidence=True, tolerance=1.0)
    feed(blind)
    monkeypatch.setattr(camera_evidence, 'find', lambda bundles, frames: [
        Places(np.zeros((0, 4)), np.zeros(0, np.int64)) for _ in frames])
    blind.work()
    blind.work()
    assert blind.rejections == 1 and not blind.buffer.references()  # darkness is no reference


def test_frames_that_come_during_a_validation_push_out_none_it_judges_by(small, tmp_path, answers, monkeypatch):
    adaptation = session(small, tmp_path, evidence=True, tolerance=1.0, buffer_bytes=30 * 320 * 240 * 3)
    feed(adaptation)
    answers.update({-1: rows_of(3.0), 0: rows_of(4.0), 1: rows_of(3.0), 2: rows_of(4.0)})
    decide, judged = Gate.decide, []

    def slow(self, candidate, running, source, camera, reference=()):
        judged.extend(camera)
        assert all(adaptation.add_target(f) for f in shades(*range(0, 250, 5)))  # fifty into a buffer of thirty
        return decide(self, candidate, running, source, camera, reference)

    monkeypatch.setattr(Gate, 'decide', slow)
    adaptation.work()
    assert adaptation.work() is not None
    assert {id(f) for f in adaptation.buffer.references()} == {id(f) for f in judged} and len(judged) == 12
    assert not any(entry.held for entry in adaptation.buffer._entries)


def test_a_buffer_that_is_too_small_is_named(small, tmp_path):
    adaptation = session(small, tmp_path, buffer_bytes=5 * 320 * 240 * 3)
    feed(adaptation, 4)
    adaptation._source_seen += 100
    feed(adaptation, 8)
    assert adaptation.state == 'waiting for data'
    assert adaptation.reason == 'real frames: 5 of 8; the buffer holds no more of this size, give it more memory'


def test_a_pause_for_scoring_thaws_nothing(small, tmp_path):
    adaptation = session(small, tmp_path)
    adaptation._frozen, adaptation._retreats, adaptation._fault = 'three times', 3, 'no finite loss'
    adaptation.pause()
    adaptation.resume()
    assert adaptation.state == 'faulted' and adaptation._retreats == 3
    adaptation.resume()
    assert adaptation.state == 'waiting for data' and adaptation._retreats == 0


def test_a_closed_session_writes_no_version(small, tmp_path):
    adaptation = session(small, tmp_path)
    feed(adaptation)
    adaptation.work()
    adaptation.close()
    assert adaptation.work() is None and 'this session is closed' in adaptation.reason
    assert adaptation.store.versions() == [1] and adaptation.running.version == 1


def test_reset_forgets_references_also_for_a_restart(small, tmp_path, answers):
    store, frames = tmp_path / 'store', tmp_path / 'frames'
    adaptation = session(small, store, evidence=True, tolerance=1.0, buffer_folder=frames)
    feed(adaptation)
    answers.update({-1: rows_of(3.0), 0: rows_of(4.0), 1: rows_of(3.0), 2: rows_of(4.0)})
    adaptation.work()
    adaptation.work()
    assert adaptation.buffer.references()
    adaptation.reset()
    rng = np.random.default_rng(5)
    again = session(small, store, buffer_folder=frames)
    for _ in range(5):
        again.add_target(frame(rng))  # under the names of files that are gone
    assert len(session(small, store, buffer_folder=frames).buffer) == 5
    assert not session(small, store, buffer_folder=frames).buffer.references()


def test_weights_of_another_recipe_are_watched_after_a_restart(small, tmp_path, answers):
    adaptation = session(small, tmp_path, 'mmd', evidence=True, tolerance=1.0)
    feed(adaptation)
    answers.update({-1: rows_of(3.0), 0: rows_of(4.0), 1: rows_of(3.0), 2: rows_of(4.0)})
    adaptation.work()
    assert adaptation.work() is not None
    again = session(small, tmp_path, 'dann', evidence=True)
    feed(again)
    answers.update({-1: rows_of(3.0), 1: rows_of(3.0), 2: rows_of(1.0)})
    promotion = again.watch()
    assert promotion is not None and promotion.back


def test_running_weights_are_watched_while_no_candidate_is_judged(small, tmp_path, answers):
    adaptation = session(small, tmp_path, 'source_continued', evidence=True, tolerance=1.0, max_steps=2)
    feed(adaptation)
    answers.update({-1: rows_of(3.0), 0: rows_of(4.0), 1: rows_of(4.0), 2: rows_of(4.0)})
    adaptation.work()
    assert adaptation.work() is not None and adaptation.state == 'done'
    assert adaptation.watch() is None
    answers[2] = rows_of(1.0)  # another light
    promotion = adaptation.watch()
    assert promotion is not None and promotion.back and 'went back to version 1' in promotion.decision.reason
    assert not any(entry.held for entry in adaptation.buffer._entries)
    assert adaptation.state == 'done' and adaptation.running.version == 3
    answers[3] = rows_of(4.0)
    assert adaptation.watch() is None


def test_a_damaged_version_does_not_keep_worse_weights_in_use(tmp_path, monkeypatch, caplog):
    bundle = Bundle.create(OBJECTS, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    adaptation = session(bundle, tmp_path, 'source_continued', tolerance=1.0)
    feed(adaptation)
    for _ in range(4):
        adaptation.work()
    assert adaptation.store.versions() == [1, 2, 3]
    adaptation.store.path(2).write_bytes(b'damaged')
    monkeypatch.setattr(camera_evidence, 'worse', lambda *_: '')
    promotion = adaptation._retreat('another light', [])
    assert promotion.decision.reason == 'went back to version 1: another light' and 'v000002' in caplog.text


def test_held_out_scenes_are_never_trained_on(bundle, tmp_path):
    adaptation = session(bundle, tmp_path)
    rng = np.random.default_rng(0)
    frames = [labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(20)]
    for f in frames:
        adaptation.add_source(f)
    held, trained = adaptation._held_out, list(adaptation._replay)
    assert held == frames[:3] and trained == frames[3 + GAP:]


def test_unknown_class_is_named_and_nothing_is_kept(bundle, tmp_path):
    adaptation = session(bundle, tmp_path)
    stray = ObjectLabel('spoon', np.array([1.0, 1, 9, 9]), POSE)
    with pytest.raises(ValueError, match="'spoon'.*'bar', 'box'"):
        adaptation.add_source(LabelledFrame(frame(np.random.default_rng(0)), (stray,)))
    assert adaptation.metrics['source_frames'] == 0


def test_pause_stops_learning_and_admission(bundle, tmp_path):
    adaptation = session(bundle, tmp_path)
    feed(adaptation)
    adaptation.pause()
    held = len(adaptation.buffer)
    assert adaptation.state == 'paused' and adaptation.work() is None
    assert not adaptation.add_target(frame(np.random.default_rng(5))) and len(adaptation.buffer) == held
    adaptation.resume()
    adaptation.work()
    assert adaptation.step == 1


def test_rejected_candidate_is_not_published(bundle, tmp_path, monkeypatch):
    from sim2real_da.online import session as module
    monkeypatch.setattr(module.Gate, 'decide', lambda *_: module.Decision(False, 'rejected: for the test', {'a': 1.0}))
    adaptation = session(bundle, tmp_path)
    feed(adaptation)
    assert [adaptation.work() for _ in range(4)] == [None] * 4
    assert adaptation.store.versions() == [1] and adaptation.metrics['rejections'] == 2
    assert adaptation.reason == 'rejected: for the test' and adaptation.history[1]['gate/a'] == 1.0


def refusing(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_refuses_costs_a_promotion_and_nothing_else(bundle, tmp_path, monkeypatch):
    adaptation = session(bundle, tmp_path, 'source_continued', tolerance=1.0)
    feed(adaptation)
    with monkeypatch.context() as full:
        full.setattr(WeightStore, 'save', refusing)
        assert [adaptation.work() for _ in range(2)] == [None, None]
    assert adaptation.running.version == 1 and adaptation.state == 'adapting' and adaptation.rejections == 1
    assert 'not published, for it cannot be written' in adaptation.reason and 'No space left' in adaptation.reason
    assert [p.version for _ in range(2) if (p := adaptation.work())] == [2]  # there is room again


def test_going_back_on_a_disk_that_refuses_changes_nothing(tmp_path, monkeypatch):
    bundle = Bundle.create(OBJECTS, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    adaptation = session(bundle, tmp_path, 'source_continued', tolerance=1.0)
    feed(adaptation)
    for _ in range(2):
        adaptation.work()
    learner, frames = adaptation._learner, len(adaptation.buffer)
    monkeypatch.setattr(WeightStore, 'save', refusing)
    for order in (adaptation.rollback, adaptation.reset, lambda: adaptation._retreat('another light', [])):
        with pytest.raises(OSError, match='No space left'):
            order()
    assert adaptation._learner is learner and len(adaptation.buffer) == frames and adaptation.running.version == 2
    assert adaptation.rollbacks == 0 and adaptation.state == 'adapting'


def test_a_labelled_camera_set_decides_instead_of_simulation_and_evidence(bundle, tmp_path, answers):
    rng = np.random.default_rng(3)
    labelled = [labelled_frame(rng, OBJECTS['box'], POSE) for _ in range(2)]
    adaptation = session(bundle, tmp_path, 'source_continued', evidence=True, labelled=labelled)
    assert 'for training' in adaptation.reason, 'no simulated frame is held back'
    feed(adaptation)
    answers.update({-1: rows_of(4.0), 0: rows_of(1.0), 1: rows_of(4.0)})  # evidence speaks against the candidate
    adaptation._learner.teacher.version = 0
    promotion = [adaptation.work() for _ in range(2)][1]
    assert promotion is not None and 'AP50 on labelled camera frames' in promotion.decision.reason
    assert promotion.decision.numbers['camera_candidate_pose_infomax'] > 0, 'it is told nevertheless'
    running, source = bundle.copy(), bundle.copy()
    running.version, source.version = 5, -1
    answers[5] = rows_of(1.0)  # unlabelled frames speak against the running model, too
    decisions = {real: Gate(labelled, OBJECTS, 1.0, real=real).decide(bundle, running, source, [labelled[0].frame] * 4)
                 for real in (True, False)}
    assert not decisions[True].decline and 'InfoMax' in decisions[False].decline
    with pytest.raises(ValueError, match='labelled camera frames with no object'):
        Gate([LabelledFrame(labelled[0].frame, ())], OBJECTS, 0.01, real=True)


def test_what_a_session_remembers_of_the_past_is_bounded(bundle, tmp_path):
    adaptation = session(bundle, tmp_path, 'source_continued', tolerance=1.0, gate_every=1)
    assert adaptation.history.maxlen == 20_000
    feed(adaptation)
    for _ in range(4):
        adaptation.work()
    assert adaptation.promotions == 4 and len(adaptation._gate._known) == 2  # running and source model


def test_a_session_is_done_after_its_time(bundle, tmp_path):
    adaptation = session(bundle, tmp_path, 'source_continued', max_seconds=1e-6)
    feed(adaptation)
    assert adaptation.work() is None and adaptation.step == 1 and adaptation.metrics['seconds'] > 1e-6
    assert adaptation.state == 'done' and adaptation.work() is None and adaptation.step == 1
    adaptation.max_seconds = 0.0
    assert adaptation.state == 'adapting'


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc keeps what is freed, others do not')
def test_freed_memory_goes_back_to_the_system():
    def resident() -> int:
        return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGESIZE')

    blocks = [bytes(100_000) for _ in range(1000)]  # too small for mappings of their own
    last = bytes(100_000)  # at the end of the heap: what lies before it cannot go by itself
    full = resident()
    del blocks
    memory.release()
    assert full - resident() > 80e6 and len(last) == 100_000


def test_gate_and_tolerance_follow_while_a_session_runs(bundle, tmp_path):
    adaptation = session(bundle, tmp_path, 'source_continued')
    feed(adaptation)
    adaptation.work()
    adaptation.gate_every, adaptation.tolerance = 3, 0.5
    assert [adaptation.work() is not None for _ in range(2)] == [False, True] and adaptation._gate.tolerance == 0.5


def test_a_learner_whose_candidates_never_pass_begins_again_and_more_slowly(tmp_path, monkeypatch):
    from sim2real_da.online import session as module
    bundle = Bundle.create(OBJECTS, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    adaptation = session(bundle, tmp_path, 'source_continued', tolerance=1.0, gate_every=1)
    feed(adaptation)
    assert adaptation.work() is not None
    running = adaptation.current().detector.heat.weight
    with monkeypatch.context() as strict:
        strict.setattr(module.Gate, 'decide', lambda *_: module.Decision(False, 'rejected: for the test'))
        for pace in (0.5, 0.25, 0.125, 0.125):
            for _ in range(3):
                adaptation.work()
            assert not torch.equal(adaptation._learner.student.detector.heat.weight, running)
            step = adaptation.step
            assert adaptation.work() is None and adaptation.step == step + 1
            assert torch.equal(adaptation._learner.student.detector.heat.weight, running)
            assert {part.pace for part in adaptation._learner.parts.values()} == {pace}
            assert f'begins again from version 2, at {pace:g} of the pace' in adaptation.reason
    assert adaptation.work() is not None and adaptation.running.version == 3
    assert {part.pace for part in adaptation._learner.parts.values()} == {1.0}


def test_rollback_and_reset_give_old_weights_new_numbers(bundle, tmp_path):
    adaptation = session(bundle, tmp_path)
    feed(adaptation)
    while adaptation.promotions < 2:
        adaptation.work()
    old = adaptation.store.load(2)
    promotion = adaptation.rollback()
    assert promotion.version == 4
    assert torch.equal(adaptation.current().detector.heat.weight, old.detector.heat.weight)
    assert adaptation.rollback().version == 5  # goes further back: to version 1
    assert torch.equal(adaptation.current().detector.heat.weight, bundle.detector.heat.weight)
    assert adaptation.reset().version == 6 and len(adaptation.buffer) == 0


def promote(adaptation: AdaptationSession, *notes: str) -> None:
    for note in notes:
        candidate = adaptation._learner.candidate()
        candidate.note = note
        adaptation._publish(candidate, Decision(True, note), adaptation._learner)


def test_repeated_rollbacks_go_further_back_and_never_to_what_was_rolled_back(small, tmp_path):
    adaptation = session(small, tmp_path, 'source_continued')
    promote(adaptation, 'two', 'three', 'four', 'five')
    notes = []
    for _ in range(4):
        adaptation.rollback()
        notes.append(adaptation.running.note)
        assert len(adaptation.store.versions()) <= 5
    assert notes == ['four', 'three', 'two', '']
    with pytest.raises(ValueError, match='no version before 9.*~/reset goes back to the source model'):
        adaptation.rollback()
    assert adaptation.running.version == 9
    adaptation.reset()
    adaptation.rollback()  # of the reset
    assert adaptation.running.version == 11
    events = [json.loads(line) for line in (tmp_path / 'decisions.jsonl').read_text().splitlines()]
    assert [(e['event'], e['version']) for e in events] == [
        ('rollback', 6), ('rollback', 7), ('rollback', 8), ('rollback', 9), ('reset', 10), ('rollback', 11)]


def test_a_rollback_passes_over_damaged_versions(small, tmp_path, caplog):
    adaptation = session(small, tmp_path, 'source_continued')
    promote(adaptation, 'two', 'three')
    adaptation.store.path(2).write_bytes(b'broken')
    adaptation.rollback()
    assert adaptation.running.note == '' and adaptation.running.version == 4
    assert 'v000002.safetensors' in caplog.text and 'going further back' in caplog.text


def test_a_folder_without_a_usable_version_begins_again_from_the_source_model(small, tmp_path, caplog):
    adaptation = session(small, tmp_path, 'source_continued')
    promote(adaptation, 'two')
    for version in (1, 2):
        adaptation.store.path(version).write_bytes(b'broken')
    again = session(small, tmp_path, 'source_continued')
    assert again.running.version == 3 and again.running.note == '' and 'no usable version' in caplog.text
    assert again.store.versions() == [1, 2, 3]


def test_a_folder_of_other_weights_is_left_alone(small, bundle, tmp_path):
    promote(session(small, tmp_path, 'source_continued'), 'two')
    with pytest.raises(WeightsError, match='no usable version .* of other weights, give another state_dir'):
        session(bundle, tmp_path, 'source_continued')
    assert WeightStore(tmp_path).versions() == [1, 2]


def test_versions_begin_at_that_of_the_weights_file(small, tmp_path):
    fleet = small.copy()
    fleet.version, fleet.parent = 6, 5  # perception runs this file and takes only what is newer
    adaptation = session(fleet, tmp_path, 'source_continued')
    assert adaptation.running.version == 6 and adaptation.store.versions() == [6]
    promote(adaptation, 'next')
    assert adaptation.running.version == 7
    adaptation.rollback()
    with pytest.raises(ValueError, match='no version before 8'):  # 5 is not of this folder
        adaptation.rollback()


def test_a_rollback_does_not_learn_on_when_the_steps_are_done(small, tmp_path):
    adaptation = session(small, tmp_path, 'source_continued', max_steps=2, tolerance=1.0)
    feed(adaptation)
    while adaptation.state == 'adapting':
        adaptation.work()
    assert adaptation.promotions == 1
    adaptation.rollback()
    assert (adaptation.state, adaptation.step) == ('done', 2)
    adaptation.reset()
    assert adaptation.step == 0


def test_validation_frames_that_show_nothing_are_replaced(small, tmp_path, caplog):
    adaptation = session(small, tmp_path, 'source_continued', tolerance=1.0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        adaptation.add_source(LabelledFrame(frame(rng), ()))
    feed(adaptation)
    assert [adaptation.work() for _ in range(2)] == [None, None]
    assert adaptation.state == 'waiting for data' and 'other frames are taken' in caplog.text
    feed(adaptation)
    while adaptation.state == 'adapting' and not adaptation.promotions:
        adaptation.work()
    assert adaptation.promotions == 1


def test_without_camera_frames_nothing_is_promoted_where_they_have_a_say(small, tmp_path):
    adaptation = session(small, tmp_path, 'source_continued', tolerance=1.0, evidence=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        adaptation.add_source(labelled_frame(rng, OBJECTS['box'], POSE))
    adaptation.work()
    adaptation.work()
    assert adaptation.rejections == 1 and '0 camera frames show 0 places' in adaptation.reason


def test_fresh_learners_draw_numbers_of_their_own(small, tmp_path):
    adaptation = session(small, tmp_path, 'source_continued')
    states = [adaptation._fresh_learner(small).generator.bit_generator.state['state']['state'] for _ in range(3)]
    states.append(adaptation._learner.generator.bit_generator.state['state']['state'])
    assert len(set(states)) == 4


@pytest.mark.parametrize('recipe', ['dann', 'advent'])
def test_a_killed_session_goes_on_as_if_it_had_not_been(bundle, tmp_path, recipe):
    adaptation = session(bundle, tmp_path, recipe)
    feed(adaptation)
    adaptation.work()
    assert adaptation.work() is not None  # version 2 with the learner's state is on disk
    random = torch.get_rng_state()
    again = session(bundle, tmp_path, recipe)  # nothing was closed
    assert again.step == 2 and torch.equal(torch.get_rng_state(), random)
    feed(again)
    for one in (adaptation, again):
        for entry in one.buffer._entries:
            entry.classes = ('box',)  # what the first one found is not stored
        torch.set_rng_state(random)  # both are in one process and share it
        one.work()
    assert again.history[-1] == pytest.approx(adaptation.history[-1], rel=1e-4)
    for part in ('detector', 'pose'):
        for a, b in zip(*(getattr(one._learner.student, part).parameters() for one in (adaptation, again))):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_state_that_is_of_no_use_costs_the_moments_alone(bundle, tmp_path, caplog):
    adaptation = session(bundle, tmp_path)
    feed(adaptation)
    adaptation.work()
    adaptation.work()
    state = adaptation.store.learner_path(2)
    assert state.is_file() and not adaptation.store.learner_path(1).exists()
    other = session(bundle, tmp_path, 'source_continued')
    assert other.running.version == 2 and other.step == 0
    assert 'the state of recipe dann, expected source_continued' in caplog.text
    state.write_bytes(state.read_bytes()[:-100])
    damaged = session(bundle, tmp_path)
    assert damaged.running.version == 2 and damaged.step == 0 and 'truncated' in caplog.text
    (tmp_path / 'v000009.learner.safetensors').write_bytes(b'')  # killed before its version was written
    (tmp_path / '.v000009.safetensors.abc.unfinished').write_bytes(b'half')
    assert session(bundle, tmp_path).store.next_version() == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'decisions.jsonl', 'v000001.safetensors', 'v000002.learner.safetensors', 'v000002.safetensors']


def test_a_restarted_session_continues_from_the_disk(bundle, tmp_path):
    adaptation = session(bundle, tmp_path)
    feed(adaptation)
    while not adaptation.promotions:
        adaptation.work()
    again = session(bundle, tmp_path)
    assert again.current().version == 2
    feed(again)
    assert 'continued from version 2' in again.reason
    assert torch.equal(again.current().pose.pose.weight, adaptation.current().pose.pose.weight)


# recipes

@pytest.mark.parametrize(('text', 'message'), [
    ('detector: {supervised: {}}\npose: {}', 'pose: expected objectives by name, supervised'),
    ('detector: {supervised: {}, magic: {}}\npose: {supervised: {}}', "unknown objective 'magic'"),
    ('detektor: {}', 'unknown keys'), ('[1]', 'expected a mapping'), ('a: [', 'not YAML'),
    ('detector: {supervised: {}}\npose: {supervised: {}}\nlearner: {speed: 9}', 'speed'),
    ('detector: {supervised: {}, dann: [1]}', 'detector: dann: .*expected options by name'),
    ('detector: {supervised: {}, dann: 3}', 'detector: dann: 3: expected options by name'),
    ('detector: {supervised: {}, dann: {high: null}}', 'dann: high None: expected a number, not negative'),
    ('detector: {supervised: {}, dann: {weight: abc}}', "weight 'abc': expected a number"),
    ('detector: {supervised: {}, dann: {weight: -1}}', 'weight -1: expected a number, not negative'),
    ('detector: {supervised: {}, dann: {weight: .nan}}', 'weight nan: expected a number'),
    ('detector: {supervised: {}, dann: {steps: 1.5}}', 'steps 1.5: expected a whole number from 1 or null'),
    ('detector: {supervised: {}, dann: {levels: 3}}', 'levels 3: expected a list'),
    ('pose: {supervised: {}, mmd: {levels: [instance]}}', "mmd: level 'instance' is the detector's"),
    ('detector: {supervised: {}, self_training: {steps: 0}}', 'steps 0: expected a whole number from 1'),
    ('detector: {supervised: {}, self_training: {unique: 1}}', 'unique 1: expected true or false'),
    ('classifier: {supervised: {}, cogan: {start: x}}', "start 'x': expected a whole number from 0"),
    ('pose: {supervised: {}, pixelda: {filters: 0}}', 'filters 0: expected a whole number from 1'),
    ('pose: {supervised: {}, pixelda: {rotation: [1, x]}}', 'rotation .*: expected 2 numbers'),
    ('pose: {supervised: {}, pixelda: {frozen: 3}}', 'frozen 3: expected a text or null'),
    ('pose: {supervised: {}}\nlearner: {source_frames: x}', "learner: source_frames 'x': expected a whole number"),
    ('pose: {supervised: {}}\nlearner: {ema: 2}', 'learner: ema 2: expected a share'),
    ('pose: {supervised: {}}\nlearner: [1]', 'learner: .*expected options by name'),
    ('pose: {supervised: {}}\noffline: {batch: 0}', 'offline: batch 0: expected a whole number from 1'),
    ('pose: {supervised: {}}\noffline: {pose: {dann: {}}}', "offline: pose: .*for some of .'supervised"),
    ('pose: {supervised: {}, dann: {}}\noffline: {pose: {dann: {high: x}}}', "offline: pose: dann: high 'x': expected"),
    ('pose: {supervised: {}, dann: {}}\noffline: {pose: 3}', 'offline: pose: 3: expected options'),
    ('pose: {supervised: {}}\noffline: {frozen_statistics: pose}', "frozen_statistics 'pose': expected a list"),
    ('pose: {supervised: {}}\noffline: {frozen_statistics: [poses]}', 'frozen_statistics .*: expected some of'),
    ('pose: {supervised: {}}\noffline: {learning_rate: fast}', "offline: learning_rate 'fast': expected a number"),
])
def test_bad_recipes_are_named(tmp_path, text, message):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(path)
    assert 'mine.yaml' in str(error.value)


def test_numbers_are_read_as_everybody_writes_them(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(
        'pose: {supervised: {}, mmd: {weight: 1e-1}}\nlearner: {learning_rate: 1e-3}\noffline: {ema: 9.9E-1}')
    recipe = load_recipe(path)
    assert (recipe.learning_rate, recipe.offline.ema) == (1e-3, 0.99)
    assert recipe.objectives['pose'][1] == ('mmd', {'weight': 0.1})


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(RecipeError, match='dann.*source_continued'):
        load_recipe('dnan')


def test_control_differs_from_dann_in_the_target_loss_alone():
    dann, control = load_recipe('dann'), load_recipe('source_continued')
    for field in ('learning_rate', 'ema', 'source_frames', 'crops'):
        assert getattr(dann, field) == getattr(control, field)
    for network in ('detector', 'pose'):
        assert [n for n, _ in dann.objectives[network] if n != 'dann'] == [n for n, _ in control.objectives[network]]


def test_an_objective_option_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('detector: {supervised: {}, dann: {lamda: 1}}\npose: {supervised: {}}')
    with pytest.raises(RecipeError, match='lamda'):
        load_recipe(path).build('detector', (8, 8))


def test_curves_for_tensorboard(tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator',
                                      reason='tensorboard is not installed')
    curves = Curves(tmp_path)
    curves.add({'step': 1, 'detector/box': 0.5, 'reason': 'text', 'pose/size': float('nan')})
    curves.add({'step': 1, 'detector/box': 0.5, 'gate/promoted': 1.0})  # the gate's numbers join their step
    curves.add({'step': 2, 'detector/box': 0.25})
    curves.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()['scalars']) == ['detector/box', 'gate/promoted']
    assert [(e.step, e.value) for e in events.Scalars('detector/box')] == [(1, 0.5), (2, 0.25)]
    assert [e.step for e in events.Scalars('gate/promoted')] == [1]


def test_the_buffers_index_outlives_a_restart(tmp_path):
    rng = np.random.default_rng(0)
    buffer = FrameBuffer(10_000_000, folder=tmp_path)
    for _ in range(3):
        assert buffer.admit(frame(rng))
    first, second = buffer.unnoted(3)[:2]
    buffer.note(first, {'mug', 'box'})
    buffer.note(second, set())
    index = json.loads(json.dumps(buffer.index()))
    assert sorted(map(tuple, index.values())) == [('',), ('box', 'mug')]
    again = FrameBuffer(10_000_000, folder=tmp_path)
    assert len(again.unnoted(3)) == 3
    again.restore(index | {'000000099.safetensors': ['gone']})
    assert len(again.unnoted(3)) == 1 and again.classes() == {'box': 1, 'mug': 1, '': 1}
    assert FrameBuffer(10_000_000).index() == {}
