# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The studies of validators and of costs, and the soak, on small networks."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import box_model, labelled_frame
from scipy.stats import spearmanr

from sim2real_da.evaluation.evidence import labelled_places
from sim2real_da.evaluation.validators import VALIDATORS
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.networks.pseudo_labels import PseudoLabels
from sim2real_da.recipes import Offline, Recipe
from sim2real_da.samples import Pose

BENCHMARKS = Path(__file__).parent.parent / 'benchmarks'
MODEL = box_model('box')
SMALL = {'width': 8}


@pytest.fixture(scope='module')
def scripts():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ('validators', 'objectives', 'figures', 'soak', 'lmo', 'pose_errors', 'scene_labels')
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))


def recipe(name: str, networks: dict[str, dict[str, dict]]) -> Recipe:
    return Recipe(name, '', {k: tuple(v.items()) for k, v in networks.items()}, Offline(batch=8))


def frames(count: int) -> list:
    rng = np.random.default_rng(0)
    poses = [Pose(rng.normal(size=4), np.array([0.0, 0.0, 0.5])) for _ in range(count)]
    return [labelled_frame(rng, MODEL, pose) for pose in poses]


class Simulation:
    """Three rendered frames."""

    def ids(self) -> list[int]:
        return [0, 1, 2]

    def frame(self, number: int):
        return frames(3)[number]


def test_the_adapted_row_is_chosen_by_infomax_and_kept(scripts, tmp_path, monkeypatch):
    lmo, runs, scored = scripts['lmo'], [], []

    def adapt(bundle, recipe, seed, source, target, **_):
        runs.append((recipe, seed))
        adapted = bundle.copy()
        adapted.recipe = recipe
        return adapted, {'promotions': 1.0, 'rejections': 0.0, 'seconds': 1.0}

    # the control has the highest, and may not be taken; of the others the second recipe's mean is higher
    infomax = {'source_only': 0.5, 'source_continued': 3.0, 'dann': 1.0, 'minent': 2.0}
    monkeypatch.setattr(lmo, 'adapt', adapt)
    monkeypatch.setattr(lmo, 'score', lambda bundle, *_: scored.append(bundle) or dict.fromkeys(lmo.KEYS, 0.25))
    monkeypatch.setattr(lmo, 'infomax', lambda bundles, _: {k: {'detector': infomax[k], 'pose': 0.0} for k in bundles})
    options = argparse.Namespace(recipes=['source_continued', 'dann', 'minent'], seeds=2, steps=7, device='cpu',
                                 tolerance=0.01, gate_every=25)
    source = Bundle.create({'box': MODEL})
    for _ in range(2):  # the second time nothing is adapted again
        found = lmo.rows(options, source, Simulation(), [], [], tmp_path / 'work', tmp_path)
        assert runs == [(r, s) for r in options.recipes for s in (0, 1)]
    assert found['adapted'] == 'minent'
    for bundle in scored:  # every row is of the 16 bits that are committed
        assert all(torch.equal(p, p.half().float()) for p in bundle.pose.parameters())
    assert found['rows']['dann']['ap50'] == {'mean': 0.25, 'std': 0.0}
    assert Bundle.load(tmp_path / 'lmo_adapted.safetensors').recipe == 'minent'
    assert Bundle.load(tmp_path / 'lmo_source_continued.safetensors').recipe == 'source_continued'


def test_further_trainings_on_larger_crops_are_averaged(scripts, monkeypatch, tmp_path):
    lmo, plans = scripts['lmo'], []

    def train(dataset, out, plan, bundle=None):
        trained = bundle or Bundle.create({'box': MODEL}, {'width': 8}, {'width': 8, 'hidden': 16})
        trained.created = {'stage': out.stem}
        for tensor in getattr(trained, plan.networks[0]).parameters():
            tensor.data.fill_(len(plans))
        plans.append((out.stem, plan.networks, plan.minutes, plan.frozen, plan.seed, trained.pose.crop_size))
        return trained

    monkeypatch.setattr(lmo, 'train', train)
    whole = lmo.source_model(None, tmp_path / 's.safetensors', (3, 0, 4, 5, 1, 2))
    assert plans == [
        ('s_detector', ('detector',), 3, True, 0, 64), ('s_pose', ('pose',), 4, False, 2, 64),
        ('s_closer', ('pose',), 5, False, 3, 96), ('s_closer2', ('pose',), 1, False, 4, 96),
        ('s_closer3', ('pose',), 2, False, 5, 96)]
    assert {float(p.detach().unique()) for p in whole.pose.parameters()} == {(2 + 3 + 4) / 3}
    assert {float(p.detach().unique()) for p in whole.detector.parameters()} == {0.0}
    assert whole.pose.looks == 2 and (tmp_path / 's.safetensors').is_file()


def test_outlines_are_learnt_on_renders_as_they_are_and_then_as_cameras_see_them(scripts, monkeypatch, tmp_path):
    lmo, asked = scripts['lmo'], []
    model = Bundle.create({'box': MODEL}, {'width': 8}, {'width': 8, 'hidden': 16})

    def train(dataset, out, plan, bundle):
        asked.append((out.name, plan.steps, plan.effects, plan.networks))
        bundle.note += str(plan.steps)
        return bundle

    monkeypatch.setattr(lmo, 'train', train)
    monkeypatch.setattr(lmo, 'OUTLINE_STEPS', (7, 5))
    whole = lmo.outlined(model, None, tmp_path / 'w.safetensors')
    assert asked == [('w_clear.safetensors', 7, False, ('outline',)), ('w.safetensors', 5, True, ('outline',))]
    assert whole.note == '75' and not model.note, 'one goes on from the other; the source model stays as it is'


def test_the_source_of_the_table_is_calibrated_for_nine_crops(scripts, monkeypatch, tmp_path):
    lmo, asked = scripts['lmo'], []
    model = Bundle.create({'box': MODEL}, {'width': 8}, {'width': 8, 'hidden': 16})
    monkeypatch.setattr(lmo.calibration, 'Estimator', lambda bundle, *_: asked.append(bundle.pose.views))
    monkeypatch.setattr(lmo.calibration, 'recorded', lambda *_: [])
    monkeypatch.setattr(lmo.calibration, 'BopDataset', lambda *_: SimpleNamespace(has_ground_truth=False, objects=dict))
    model.save(tmp_path / 'uncalibrated.safetensors')
    # every option that the command needs is given: it gets as far as counting the poses that were found
    with pytest.raises(ValueError, match='0 poses found in'):
        lmo.calibrate(tmp_path / 'uncalibrated.safetensors', tmp_path / 'val', tmp_path / 'source.safetensors')
    assert asked == [lmo.CROPS_OF_A_POSE] == [9]


def test_infomax_of_rows_is_asked_at_common_places(scripts, monkeypatch):
    torch.manual_seed(0)
    lmo, first = scripts['lmo'], Bundle.create({'box': MODEL, 'other': box_model('other')})
    target = [f.frame for f in frames(2)]
    bundles = {'a': [first], 'b': [first, first]}
    with pytest.raises(ValueError, match='no row finds an object in 2 frames'):
        lmo.infomax(bundles, target)
    monkeypatch.setattr(lmo, 'find', lambda *_: labelled_places(frames(2), first.classes))
    found = lmo.infomax(bundles, target)
    assert found['a'] == pytest.approx(found['b'])
    assert set(found['a']) == {'detector', 'pose'}
    assert all(0 <= v <= np.log(3) for v in found['a'].values())


def test_what_a_pose_is_wrong_by_closed_form(scripts):
    lopsided = replace(MODEL, minimum=MODEL.minimum + 0.01)  # the middle of its box is not the CAD origin
    truth = Pose(np.array([0, 0, 0, 1.0]), np.array([0.1, 0.0, 0.5]) - 0.01)
    half = math.radians(20) / 2
    turn = Pose(np.array([0, 0, math.sin(half), math.cos(half)]), np.zeros(3)).matrix()[:3, :3]
    sight = np.array([0.1, 0, 0.5]) / np.linalg.norm([0.1, 0, 0.5])
    across = np.array([0, 1.0, 0])
    wrong = Pose(np.array([0, 0, math.sin(half), math.cos(half)]),
                 np.array([0.1, 0, 0.5]) + 0.05 * sight + 0.02 * across - turn @ np.full(3, 0.01))
    seen = scripts['pose_errors'].parts(wrong, truth, lopsided)
    assert seen['angle_deg'] == pytest.approx(20)
    assert seen['depth'] == pytest.approx(0.05 / math.hypot(0.1, 0.5))
    assert seen['across'] == pytest.approx(0.02 / MODEL.diameter)
    left = {name: scripts['pose_errors'].parts(pose, truth, lopsided) for name, pose in seen['poses'].items()}
    assert {name: (round(p['angle_deg'], 6), round(p['depth'], 6) > 0, round(p['across'], 6) > 0)
            for name, p in left.items()} == {
        'as_found': (20, True, True), 'true_depth': (20, False, True), 'true_rotation': (0, True, True),
        'true_position': (20, False, False)}


def test_pose_errors_of_a_network(scripts):
    network = build_pose_network(1, views=1)
    found = scripts['pose_errors'].errors(network, (f for f in frames(4)), {'box': MODEL})
    assert found['crops'] == 4 and set(found['adds_recall']) == {
        'as_found', 'true_depth', 'true_rotation', 'true_position'}


def test_a_second_look_that_believes_its_crop_repeats_the_first(scripts):
    class Output:
        def __init__(self, believes):
            self.believes = believes

        def poses(self, rows, classes, transforms, models, intrinsics):
            # a crop is 1.4 times as wide as the object of the pose that it was cut for
            far = intrinsics.fx * models[0].diameter * math.hypot(*transforms[0][:, 0]) * 1.4 / 64
            return [(Pose(np.array([0.0, 0, 0, 1]), np.array([0, 0, far if self.believes else 0.5])), np.eye(6))]

    for believes in (True, False):
        network = type('Network', (), {'crop_size': 64, '__call__': lambda self, crops, b=believes: Output(b)})()
        found = scripts['pose_errors'].repeated(network, frames(3), {'box': MODEL}, 0.1)
        assert found == pytest.approx({'-0.2': -0.2 * believes, '+0.0': 0, '+0.2': 0.2 * believes}, abs=1e-6)


def test_rank_correlation_and_regret_closed_forms(scripts):
    spearman, regret = scripts['validators'].spearman, scripts['validators'].regret
    truth = [0.1, 0.5, 0.3, 0.9]
    assert spearman(truth, [v**3 for v in truth]) == pytest.approx(1)
    assert spearman([-v for v in truth], truth) == pytest.approx(-1)
    assert spearman([7.0] * 4, truth) == 0
    tied = [1.0, 2.0, 2.0, 0.0]
    assert spearman(tied, truth) == pytest.approx(spearmanr(tied, truth).statistic)
    assert regret(truth, truth) == 0
    assert regret(truth, [5.0, 1, 1, 1]) == pytest.approx(0.8)
    assert regret(truth, tied) == pytest.approx(0.9 - (0.5 + 0.3) / 2)


def test_a_comparison_names_what_all_checkpoints_have(scripts):
    study = scripts['validators']
    found = study.compare([study.Checkpoint(str(i), t, {'good': t, 'bad': -t, **({'some': 1.0} if i else {})})
                           for i, t in enumerate((0.2, 0.6, 0.4))])
    assert found['checkpoints'] == 3 and found['truth'] == pytest.approx({'best': 0.6, 'mean': 0.4, 'worst': 0.2})
    assert set(found['validators']) == {'good', 'bad'}
    assert found['validators']['good'] == pytest.approx({'spearman': 1, 'regret': 0})
    assert found['validators']['bad'] == pytest.approx({'spearman': -1, 'regret': 0.4})
    with pytest.raises(ValueError, match='2 checkpoints'):
        study.compare([study.Checkpoint('a', 0.0, {})] * 2)


def test_classifiers_are_trained_and_scored(scripts):
    study, generator = scripts['validators'], torch.Generator().manual_seed(0)
    # class = which half is bright; the target is the negative
    labels = torch.arange(40) % 2
    images = torch.rand(40, 3, 28, 28, generator=generator) * 0.2
    images[labels == 0, :, :14] += 0.8
    images[labels == 1, :, 14:] += 0.8
    networks = study.classifier_runs(
        lambda seed: Classifier(2, 28), [recipe('plain', {'classifier': {'supervised': {}}}),
         recipe('dann', {'classifier': {'supervised': {}, 'dann': {}}})], 1, study.Pictures(images, labels),
        study.Pictures(1 - images), 6, 3)
    assert list(networks) == ['plain/0/3', 'plain/0/6', 'dann/0/3', 'dann/0/6']
    first, last = (networks[f'plain/0/{step}'].state_dict() for step in (3, 6))
    assert not torch.equal(first['classify.weight'], last['classify.weight'])  # snapshots, not one network four times
    found = study.classifier_checkpoints(networks, study.Pictures(images, labels), study.Pictures(1 - images),
                                         study.Pictures(images[:10], labels[:10]), networks['plain/0/6'])
    with torch.no_grad():
        right = (networks['plain/0/6'](images[:10]).logits.argmax(1) == labels[:10]).float().mean()
    assert found[1].truth == pytest.approx(float(right))
    agreed = [c.scores['teacher_agreement'] for c in found]
    assert agreed[1] == pytest.approx(0, abs=1e-5) and agreed[0] < -1e-4
    assert set(study.compare(found)['validators']) == set(VALIDATORS) - {'reprojection'}


def test_checkpoints_of_a_task_from_the_command_line(scripts, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(scripts['validators'], 'HELD_OUT', 20)
    for name, size in (('mnist', 28), ('usps', 16)):
        images, labels = rng.integers(0, 255, (60, size, size), dtype=np.uint8), np.arange(60) % 10
        np.savez(tmp_path / f'{name}.npz', train_images=images, train_labels=labels, test_images=images,
                 test_labels=labels)
    (tmp_path / 'bsds').mkdir()
    for i in range(152):
        cv2.imwrite(str(tmp_path / 'bsds' / f'{i}.jpg'), np.full((40, 40, 3), i, np.uint8))
    out = tmp_path / 'out.json'
    monkeypatch.setattr(sys, 'argv', [
        'validators.py', 'classifier', '--benchmark', 'digits', '--task', 'usps', '--data', str(tmp_path), '--recipes',
        'source_continued', 'minent', '--seeds', '1', '--steps', '4', '--every', '2', '--json', str(out)])
    scripts['validators'].main()
    found = json.loads(out.read_text())['sets']['usps']
    assert found['checkpoints'] == 4 and set(found['validators']) == set(VALIDATORS) - {'reprojection'}
    assert [c['name'] for c in found['all']][-1] == 'minent/0/4'
    monkeypatch.setattr(sys, 'argv', [*sys.argv[:5], 'svhn', *sys.argv[6:]])
    with pytest.raises(ValueError, match=r"no task svhn, digits has \['usps', 'mnistm'\]"):
        scripts['validators'].main()


def test_bundles_are_scored_by_network(scripts):
    torch.manual_seed(0)
    study, seen = scripts['validators'], frames(4)
    source = Bundle.create({'box': MODEL}, SMALL, {**SMALL, 'hidden': 16})
    torch.nn.init.constant_(source.detector.heat.bias, 0.0)  # so that it finds something
    made = study.bundle_runs(source, [recipe('plain', {'detector': {'supervised': {}}, 'pose': {'supervised': {}}})], 1,
                             seen[:2], [f.frame for f in seen[2:]], 2, 1)
    assert list(made) == ['source', 'plain/0/1', 'plain/0/2']
    found = study.bundle_checkpoints(made, seen[:2], [f.frame for f in seen[2:]], seen[:1], source)
    assert set(found) == {'detector', 'pose'} and [c.name for c in found['pose']] == list(made)
    assert found['detector'][0].scores['teacher_agreement'] == pytest.approx(0, abs=1e-6)
    assert found['detector'][2].scores['teacher_agreement'] < 0
    assert set(study.compare(found['pose'])['validators']) == set(VALIDATORS)
    assert set(study.compare(found['detector'])['validators']) == set(VALIDATORS) - {'reprojection'}


def test_costs_are_of_every_recipe_on_its_networks(scripts):
    torch.manual_seed(0)
    cost = scripts['objectives']
    bundle = Bundle.create({'box': MODEL}, SMALL, {**SMALL, 'hidden': 16})
    made = cost.cases(bundle, frames(4), 'cpu', pictures=4, crops=2, windows=1)
    assert set(made) == {'classifier', 'pose', 'detector'}
    assert made['detector'].source.images.shape[-2:] == cost.WINDOW and made['pose'].source.masks is not None
    plain, both = {'supervised': {}}, {'supervised': {}, 'dann': {}}
    recipes = [recipe('plain', {'classifier': plain, 'pose': plain}), recipe('dann', {'detector': both, 'pose': both}),
               recipe('broken', {'classifier': {'supervised': {'no_such_option': 1}}})]
    found = cost.measure(made, recipes, 2)
    assert {k: set(v) for k, v in found.items()} == {
        'classifier': {'plain', 'broken'}, 'pose': {'plain', 'dann'}, 'detector': {'dann'}}
    assert 'no_such_option' in found['classifier']['broken']['failed']
    assert not found['pose']['plain']['target'] and found['pose']['dann']['target']
    row = found['pose']['dann']
    assert row['laps'] == 2 and row['step_ms'] > row['gradients_ms'] > 0 and row['step_ratio'] > row['gradients_ratio']


def test_the_bare_pass_has_the_gradients_of_the_task_alone(scripts):
    torch.manual_seed(0)
    cost = scripts['objectives']
    network = Classifier(10).eval()
    made = cost.cases(Bundle.create({'box': MODEL}, SMALL, {**SMALL, 'hidden': 16}), frames(4), 'cpu', 4, 2, 1)
    case = made['classifier']
    cost.bare(network, case, True)()
    found = network.classify.weight.grad.clone()
    network.zero_grad()
    both = torch.cat([case.source.images, case.target.images])
    torch.nn.functional.cross_entropy(network(both).logits[:4], case.source.targets.classes).backward()
    torch.testing.assert_close(found, network.classify.weight.grad)
    assert network.training and found.abs().max() > 0


def test_figures_are_drawn_from_result_files(scripts, tmp_path):
    from sim2real_da.evaluation.calibration import Errors, describe
    from sim2real_da.evaluation.embedding import Features, projected
    from sim2real_da.evaluation.neighbours import compared

    rng = np.random.default_rng(0)
    panel = projected(Features(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), np.arange(20), np.arange(20)))
    rows = compared(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8), torch.rand(9, 3, 8, 8))
    (tmp_path / 'figures_digits.json').write_text(json.dumps({'tasks': {'usps': {
        'pixelda': {'embedding': {'before': panel, 'after': panel}, 'neighbours': rows},
        'dann': {'embedding': {'before': panel, 'after': panel}}}}}))
    for name, course in (('digits_a', [{'step': s, 'domain_accuracy': 0.9} for s in (5.0, 10.0)]),
                         ('digits_b', [{'step': 5.0, 'class': 1.0}])):
        (tmp_path / f'{name}.json').write_text(json.dumps({'tasks': {'usps': {name: {'runs': [{'course': course}]}}}}))
    seen = describe(Errors(rng.normal(size=(40, 6)), np.tile(np.eye(6), (40, 1, 1))))
    (tmp_path / 'lmo_calibration.json').write_text(json.dumps({'before': seen, 'after': seen}))
    made = scripts['figures'].main(tmp_path, tmp_path / 'images')
    assert sorted(p.stem for p in made) == [
        'calibration', 'discriminators_usps', 'embedding_usps_dann', 'embedding_usps_pixelda',
        'neighbours_usps_pixelda']
    assert all(p.stat().st_size > 5000 for p in made)


def test_worst_drop_gain_and_memory_of_a_soak(scripts):
    made = [{'benign': True, 'source_ap50': 30.0, 'published_ap50': 34.0, 'rss_mb': 900.0, 'frames': 1},
            {'benign': True, 'source_ap50': 30.0, 'published_ap50': 33.0, 'source_own_look': 10.0,
             'published_own_look': 9.0, 'rss_mb': 950.0, 'frames': 2},
            {'benign': False, 'source_ap50': 30.0, 'published_ap50': 28.5, 'rss_mb': 960.0, 'frames': 3,
             'promotions': 4, 'rejections': 5, 'rollbacks': 1}]
    assert scripts['soak'].summary(made) == {
        'frames': 3, 'worst_drop_below_source': {'benign': 1.0, 'hostile': 1.5},
        'mean_gain': {'benign': 2.0, 'hostile': -1.5}, 'promotions': 4, 'rejections': 5, 'rollbacks': 1,
        'rss_growth_mb': 10.0}


def test_looks_of_a_soak_are_pictures_and_what_they_say(scripts):
    soak, rng = scripts['soak'], np.random.default_rng(0)
    picture = frames(1)[0].frame.image
    looks = {s.look.__name__: s.look(picture, 1.0, rng) for s in soak.SEGMENTS}
    assert all(made.shape == picture.shape and made.dtype == np.uint8 for made in looks.values())
    assert looks['black'].max() < 30 < 225 < looks['white'].min() and looks['night'].mean() < 0.5 * picture.mean()
    assert looks['drift'][..., 2].mean() < 0.7 * picture[..., 2].mean() and (looks['day'] == picture).all()
    assert looks['blur'].std() < picture.std() and (looks['other_camera'] != picture).any()
    assert np.median(looks['covered'][100:140, 220:260]) < 40


@pytest.fixture
def short_soak(scripts, tmp_path, monkeypatch):
    """Run a soak of two frames and one step a segment, with a candidate every so many steps; return its JSON."""
    def run(gate_every):
        soak = scripts['soak']
        monkeypatch.setattr(soak, 'simulation', lambda *_: frames(60))
        monkeypatch.setattr(soak, 'surrogate', lambda _seed, count: frames(min(count, 12)))
        Bundle.create({MODEL.name: MODEL}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16}).save(
            tmp_path / 'source.safetensors')
        monkeypatch.setattr(sys, 'argv', [
            'soak.py', '--recipe', 'source_continued', '--weights', str(tmp_path / 'source.safetensors'), '--work',
            str(tmp_path), '--frames', '26', '--steps', '1', '--gate-every', str(gate_every), '--json',
            str(tmp_path / 'soak.json')])
        soak.main()
        return json.loads((tmp_path / 'soak.json').read_text())

    return run


def test_a_soak_goes_through_every_segment(scripts, short_soak):
    soak, found = scripts['soak'], short_soak(5)
    assert [c['segment'] for c in found['checkpoints']] == [s.name for s in soak.SEGMENTS]
    assert found['frames'] == 26 and found['promotions'] + found['rejections'] == 2 and not found['ended']
    assert [c['step'] for c in found['checkpoints']] == list(range(1, 14))
    unplugged = next(i for i, s in enumerate(soak.SEGMENTS) if s.frames == 'none')
    before, after = found['checkpoints'][unplugged - 1], found['checkpoints'][unplugged]
    assert after['frames'] == before['frames'] + 2 and after['admitted'] == before['admitted']


def test_a_soak_without_a_gate(short_soak):
    assert short_soak(50)['decisions'] == []


def test_the_quality_of_labels_counts_what_is_missing_and_what_is_wrong(scripts):
    quality, truth = scripts['scene_labels'].quality, frames(4)
    known = [x.labels[0] for x in truth]
    moved = replace(known[1], pose=Pose(known[1].pose.quaternion, known[1].pose.translation * 1.1))

    def labels(frame, *own) -> PseudoLabels:
        return PseudoLabels(frame.frame, np.array([x.box for x in own]).reshape(-1, 4), tuple(x.name for x in own),
                            np.zeros((0, 4)), own)

    bundle = SimpleNamespace(objects={'box': MODEL})
    found = quality([labels(truth[0], known[0]), labels(truth[1], moved), labels(truth[2]), None], truth, bundle)
    assert json.loads(json.dumps(found)) == found
    assert [found[k] for k in ('objects', 'boxes', 'poses')] == [4, 2, 2]
    assert [found[k] for k in ('boxes_right', 'adds')] == [1.0, 0.5]
    assert found['depth'] == pytest.approx(np.log(1.1) / 2, abs=1e-6) and found['too_far'] > 0
    astray = replace(known[0], box=known[0].box + 200)
    assert quality([labels(truth[0], astray)] * 4, truth, bundle)['boxes_right'] == 0
