# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""DAFormer's parts and MIC: sampling, quality weight, feature distance, class-mix, masks, warm-up; their recipes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import box_model, frame, labelled_frame, rendered_set
from recipe_runs import batches, small_network, take_steps

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.bop import BopDataset
from sim2real_da.data.pictures import Pictures
from sim2real_da.data.rare_classes import class_probabilities, draw, frame_shares, rare_rows
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier, ClassifierOutput, ClassTargets
from sim2real_da.networks.classifier_weights import save_classifier
from sim2real_da.networks.crop_sets import CropBatches, CropSet
from sim2real_da.networks.detector import Detector, DetectorOutput, DetectorTargets, detector_targets
from sim2real_da.networks.network_weights import save_network
from sim2real_da.networks.pose import DirectTargets, PoseTargets
from sim2real_da.networks.pseudo_labels import PseudoLabels
from sim2real_da.networks.teacher_labels import teacher_labels
from sim2real_da.objectives import (
    Batch,
    ClassMix,
    FeatureDistance,
    MaskedConsistency,
    Outputs,
    SelfTraining,
    joint_pass,
)
from sim2real_da.objectives.class_mix import drawn_classes, mix, mix_crops
from sim2real_da.objectives.feature_distance import feature_distance, things
from sim2real_da.objectives.masked_consistency import GREY, blocks_mask
from sim2real_da.offline import adapt
from sim2real_da.online.learner import Learner
from sim2real_da.online.session import AdaptationSession
from sim2real_da.online.store import WeightStore
from sim2real_da.recipes import Recipe, load_recipe
from sim2real_da.samples import LabelledFrame, Pose
from sim2real_da.tasks import segmentation
from sim2real_da.training import frames_of

MODEL = box_model('box')
POSE = Pose(np.array([0.3, 0.5, 0.1, 0.8]), np.array([0.0, 0.0, 0.6]))


# rare-class sampling

def test_probabilities_sum_to_one_and_favour_rare_classes():
    shares = np.array([0.05, 0.01, 0.03, 0.0])
    found = class_probabilities(shares)
    assert found.sum() == pytest.approx(1) and found[1] > found[2] > found[0] > 0 and found[3] == 0
    # closed form: a difference of T in frequency is a factor of e
    assert found[1] / found[2] == pytest.approx(np.exp(0.02 / 0.01))
    np.testing.assert_allclose(class_probabilities(shares, 1e6)[:3], 1 / 3, rtol=1e-6)
    with pytest.raises(ValueError, match='no sample shows any class'):
        class_probabilities(np.zeros(3))


def test_the_frame_drawn_contains_the_class_drawn():
    shares = np.zeros((50, 2))
    shares[:, 0], shares[7] = 0.3, (0.0, 0.1)  # one frame shows the rare class alone
    drawn = draw(shares, 400, np.random.default_rng(0))
    assert (drawn == 7).mean() > 0.95  # uniform sampling: 0.02
    # T = 10 hardly tells 0.3 from 0.1: both classes alike, so half of the draws
    assert (draw(shares, 400, np.random.default_rng(0), 10.0) == 7).mean() == pytest.approx(0.5, abs=0.08)


def test_samples_of_one_class_are_drawn_by_how_rare_it_is():
    classes = np.repeat([0, 1, 3], [60, 30, 10])  # nothing is of class 2
    drawn = np.concatenate([batch for batch, _ in zip(rare_rows(classes, 50, [0]), range(80))])
    share = np.bincount(classes[drawn], minlength=4) / len(drawn)
    expected = np.exp((1 - np.array([0.6, 0.3, np.inf, 0.1])) / 0.1)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)
    assert len(np.unique(drawn[classes[drawn] == 3])) == 10  # all of them alike
    again = next(rare_rows(classes, 50, [0]))
    np.testing.assert_array_equal(again, drawn[:50])


@pytest.mark.parametrize('rare', [False, True])
def test_rare_classes_are_drawn_offline_where_the_recipe_says_so(rare):
    """Of 90 pictures of one class and 10 of another a run sees the ten mostly, if it draws by rarity."""
    images = np.zeros((100, 16, 16, 3), np.uint8)
    images[90:] = 255
    pictures = Pictures(images, np.repeat([0, 1], [90, 10]), ('often', 'rarely'))
    seen = []

    class Watching(Classifier):
        def forward(self, x):
            seen.append(float(x.mean()))
            return super().forward(x)

    recipe = replace(load_recipe('source_continued'), rare_classes=rare)
    adapt(Watching(2, 16, names=('often', 'rarely')), recipe, pictures, None, 4)
    assert bool(np.mean(seen) > 0.9) is rare  # e^8 to 1; a tenth otherwise


def test_crops_of_rare_objects_are_drawn_more_often():
    count = 100
    crops = CropSet(np.zeros((count, 32, 32, 3), np.uint8), None, np.repeat([0, 1], [90, 10]),
                    np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2)), np.zeros(count))
    made = CropBatches(crops, {'box': MODEL, 'bar': replace(MODEL, name='bar')})
    share = [float(next(made.batches(50, [0], rare))[1].classes.float().mean()) for rare in (False, True)]
    assert share[0] < 0.2 and share[1] > 0.9


@pytest.mark.parametrize('name', ['daformer', 'source_continued'])
def test_rendered_frames_are_drawn_by_rarity_in_segmentation(name, tmp_path, monkeypatch):
    rendered = BopDataset(rendered_set(tmp_path / 'set', 1, 3), 'train')
    photographs, asked = [frame(np.random.default_rng(0))], []

    def frames(dataset, ids, seed, shares=None):
        asked.append(shares)
        return frames_of(dataset, ids, seed, shares=shares)

    monkeypatch.setattr(segmentation, 'frames_of', frames)
    task = segmentation.SegmentationTask(rendered, photographs, [], [], ['box'])
    task.adapt(task.network(0), load_recipe(name), 1, 0)
    if name == 'daformer':
        np.testing.assert_array_equal(asked[0], rendered.shares(rendered.ids()))
    else:
        assert asked == [None]


def test_rendered_frames_of_rare_objects_are_drawn_more_often(tmp_path):
    dataset = BopDataset(rendered_set(tmp_path / 'set', 2, 3), 'train')
    ids = dataset.ids()
    shares = dataset.shares(ids)
    labels = [dataset.frame(i).labels for i in ids]
    names = sorted(dataset.classes())
    for row, own in zip(shares, labels):
        for label in own:
            pixels = label.mask.sum() / label.mask.size
            assert row[names.index(label.name)] == pytest.approx(pixels)
    only = np.zeros((len(ids), 2))
    only[:, 0], only[3] = 0.3, (0.0, 0.1)
    frames = frames_of(dataset, ids, 0, shares=only)
    assert {f.frame.stamp for _ in range(3) for f in next(frames)} == {ids[3]}


def test_shares_by_masks_and_by_boxes():
    rng = np.random.default_rng(0)
    whole = labelled_frame(rng, MODEL, POSE)
    label = whole.labels[0]
    boxed = LabelledFrame(whole.frame, (replace(label, name='bar', mask=None),))
    shares = frame_shares([whole, boxed, LabelledFrame(whole.frame, ())])
    box = label.box
    expected = [[0, label.mask.mean()], [(box[2] - box[0]) * (box[3] - box[1]) / (320 * 240), 0], [0, 0]]
    np.testing.assert_allclose(shares, expected)


def test_a_session_draws_rare_objects_when_the_recipe_asks(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    bundle = Bundle.create({'box': MODEL, 'bar': box_model('bar')})
    monkeypatch.setattr('sim2real_da.online.session.GAP', 0)
    seen = {}
    for name in ('daformer', 'source_continued'):
        recipe = replace(load_recipe(name), objectives=load_recipe('source_continued').objectives)
        session = AdaptationSession(bundle, recipe, WeightStore(tmp_path / name), holdout=1)
        for number in range(31):  # the bar is in one frame of thirty
            made = labelled_frame(rng, bundle.objects['box'], POSE)
            if number == 30:
                small = np.array([0, 0, 12, 12.0])
                made = LabelledFrame(made.frame, (replace(made.labels[0], name='bar', mask=None, box=small),))
            session.add_source(made)
        drawn = []
        monkeypatch.setattr(session._learner, 'step', lambda source, _, drawn=drawn: drawn.extend(source) or {})
        session._learner.step_count = 1  # no gate
        for _ in range(20):
            session.work()
        seen[name] = np.mean([x.labels[0].name == 'bar' for x in drawn])
        assert len(drawn) == 80
    assert seen['daformer'] > 0.6 and seen['source_continued'] < 0.2


# warm-up, quality weight, teacher's labels

def test_warm_up_of_a_stream():
    run = Adaptation(small_network('classifier'), 'classifier', Recipe(
        'own', objectives={'classifier': (('supervised', {}),)}, learning_rate=0.1, warm_up=4))
    rates = []
    for _ in range(6):
        run.step(batches('classifier')[0], None)
        rates.append(run.optimisers[0].param_groups[0]['lr'])
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_quality_is_the_share_of_sure_labels():
    output, labels = ClassifierOutput(torch.randn(4, 3), []), ClassTargets(torch.tensor([0, 1, 2, 0]))
    target = Batch(torch.zeros(4, 3, 8, 8), labels, confidence=torch.tensor([0.968, 0.99, 0.9, 0.5]))
    made = Outputs(output, labels, [], 4, 99, output, labels, batches=(target, target))
    plain = float(output.loss(labels)['class'])
    assert float(SelfTraining((1,)).losses(made)['target_class']) == pytest.approx(plain)
    weighted = SelfTraining((1,), weight=2.0, threshold=0.968)
    assert weighted.needs_confidence and not SelfTraining((1,)).needs_confidence
    assert float(weighted.losses(made)['target_class']) == pytest.approx(2.0 * 0.5 * plain)
    assert weighted.metrics()['quality'] == 0.5
    made.batches = (target, replace(target, confidence=None))  # labels of a person
    assert float(weighted.losses(made)['target_class']) == pytest.approx(2.0 * plain)


def test_the_teachers_look_completes_labels():
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    labels, confidence = teacher_labels(ClassifierOutput(logits, []), None)
    assert labels.classes.tolist() == [0, 1]
    torch.testing.assert_close(confidence, torch.tensor([0.880797, 0.952574]))
    given = ClassTargets(torch.tensor([1, 1]))
    assert teacher_labels(ClassifierOutput(logits, []), given)[0] is given


def test_the_teachers_look_at_frames_gives_boxes_and_a_semantic_map():
    boxes = np.array([[8.0, 8, 40, 40], [24, 32, 60, 56]])
    made = detector_targets([boxes], [np.array([0, 1])], (64, 64), 2, [None])
    heat = torch.where(made.heat == 1, torch.tensor([2.0, -1.0])[:, None, None], -12.0)  # sure of the first box alone
    semantic = torch.zeros(1, 3, 16, 16)
    semantic[:, 2, :, :8] = 9.0
    output = DetectorOutput(heat, made.sides, semantic, [])
    labels, confidence = teacher_labels(output, None)
    assert labels.count == 1 and (labels.heat[0, 0] == 1).sum() == 1 and (labels.heat[0, 1] == 1).sum() == 0
    peak = (made.heat[0, 1] == 1).nonzero()[0]
    assert labels.ignored[0, peak[0], peak[1]] and not labels.ignored[0][labels.heat[0, 0] == 1].any()
    assert (labels.semantic[0, :, :8] == 2).all() and confidence.shape == (1, 16, 16)
    known = replace(made, semantic=torch.full((1, 16, 16), 1))
    known.semantic[0, 0] = -1
    again = teacher_labels(output, known)[0]
    assert (again.semantic[0, 1:] == 1).all() and (again.semantic[0, 0, :8] == 2).all()  # what is known stays
    assert again.heat is known.heat


def test_the_teacher_labels_before_anything_is_hidden():
    recipe = load_recipe('mic')
    network = small_network('classifier')
    run = Adaptation(network, 'classifier', recipe, steps=10)
    looked = []
    forward = run.teacher.forward
    run.teacher.forward = lambda images: looked.append(images.clone()) or forward(images)
    source, target = batches('classifier')
    run.losses(source, target)
    assert torch.equal(looked[0], target.images)
    assert not torch.equal(run._outputs.batches[1].images, target.images)
    assert run._outputs.pseudo.count == 4


# feature distance

def test_feature_distance_closed_form():
    mine, theirs = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    mine[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    where = torch.ones(1, 1, 4, 4)
    assert float(feature_distance(mine, theirs, where)) == pytest.approx(5 / 4)
    where[0, 0, :, 2:] = 0  # half of the cells
    assert float(feature_distance(mine, theirs, where)) == pytest.approx(5 / 2)
    where[0, 0, 0, :2] = 0  # half of the cell that differs
    assert float(feature_distance(mine, theirs, where)) == 0
    assert float(feature_distance(mine, theirs, torch.zeros(1, 1, 4, 4))) == 0
    double = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: feature_distance(x, fixed, torch.ones(1, 1, 2, 2).double()), double)


def test_things_are_where_the_labels_say():
    semantic = torch.zeros(2, 4, 4, dtype=torch.long)
    semantic[0, 1, 2], semantic[1] = 2, -1
    weight = torch.zeros(2, 4, 4)
    weight[:, 3, 3] = 0.7
    targets = DetectorTargets(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, 4), weight, semantic, 1)
    found = things(Batch(torch.zeros(2, 3, 16, 16), targets))
    assert found[0].nonzero().tolist() == [[0, 1, 2]] and found[1].nonzero().tolist() == [[0, 3, 3]]
    masks = torch.rand(2, 1, 16, 16)
    assert torch.equal(things(Batch(torch.zeros(2, 3, 16, 16), targets, masks)), (masks > 0.5).float())
    assert things(batches('pose')[0]).min() == 1


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
def test_feature_distance_is_nothing_at_the_start_and_grows(kind):
    network = small_network(kind).train()
    objective = FeatureDistance((1,), weight=1.0)
    objective.start(network)
    assert list(objective.players()) == []
    source, target = batches(kind)
    source.masks = torch.ones(4, 1, *source.images.shape[-2:])
    assert float(joint_pass(network, [objective], source, target, 0)[1]['feature_distance'].detach()) < 1e-5
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    frozen = {name: p.clone() for name, p in objective.frozen.named_parameters()}
    loss = joint_pass(network, [objective], source, target, 0)[1]['feature_distance']
    assert float(loss.detach()) > 1e-3
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    assert all(torch.equal(p, frozen[name]) and p.grad is None for name, p in objective.frozen.named_parameters())


@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
def test_features_of_weights_that_a_user_names_are_kept(kind, tmp_path):
    network, other, path = small_network(kind).train(), small_network(kind), tmp_path / 'encoder.safetensors'
    if kind == 'classifier':
        save_classifier(path, other, 'source')
    elif kind == 'pose':
        save_network(path, 'pose', other, ['a', 'b'], 'source')
    else:  # the detector of a bundle
        bundle = Bundle.create({'box': MODEL, 'bar': replace(MODEL, name='bar')}, {'input_size': (64, 64), 'width': 16})
        bundle.detector = other
        bundle.save(path)
    objective = FeatureDistance((1,), weight=1.0, encoder=str(path))
    objective.start(network)
    source, target = batches(kind)
    found = float(joint_pass(network, [objective], source, target, 0)[1]['feature_distance'].detach())
    with torch.no_grad():
        mine = network(torch.cat([source.images, target.images])).features
        theirs = other.eval()(source.images).features
    expected = [float((a[:4] - b).norm(dim=1).mean()) for a, b in zip(mine, theirs)]
    if kind != 'detector':  # all of a crop or picture counts
        assert found == pytest.approx(np.mean(expected), rel=1e-4)
    assert found > 1e-3
    with pytest.raises(ValueError, match='encoder.safetensors has another architecture'):
        objective.start(Detector(2, input_size=(128, 64), width=16))


# class-mix

def window(boxes: list[list[float]], classes: list[int], semantic: bool) -> Batch:
    """Return one 64x64 window for three classes; objects fill their boxes."""
    labels = np.zeros((16, 16), np.uint8)
    for (x0, y0, x1, y1), c in zip(boxes, classes):
        labels[int(y0) // 4:int(y1) // 4, int(x0) // 4:int(x1) // 4] = 1 + c
    targets = detector_targets([np.array(boxes)], [np.array(classes)], (64, 64), 3, [labels if semantic else None])
    return Batch(torch.full((1, 3, 64, 64), 0.25 if semantic else 0.75), targets)


def test_class_mix_pastes_pictures_and_labels_of_the_chosen_classes():
    source = window([[8, 8, 24, 24], [32, 32, 56, 56]], [0, 1], True)
    target = window([[4, 4, 28, 28], [40, 8, 60, 28]], [2, 2], False)  # the first lies under the pasted object
    target.targets.ignored = torch.ones(1, 16, 16, dtype=torch.bool)
    made = mix(source, target, [torch.tensor([1])])
    mine, theirs, found = source.targets, target.targets, made.targets
    pasted = mine.semantic == 1
    assert pasted.sum() == 16
    # picture
    assert (made.images[0, 0, 8:24, 8:24] == 0.25).all() and (made.images == 0.25).sum() == 3 * 16 * 16
    # semantic map: true under what was pasted, the teacher's (unknown) elsewhere
    assert (found.semantic[pasted] == 1).all() and (found.semantic[~pasted] == -1).all()
    # heat: the pasted object's peak, and of the target's two only the one that is not covered
    assert torch.equal(found.heat[:, 0], mine.heat[:, 0]) and found.heat[:, 1].max() == 0
    assert (found.heat[:, 2] == 1).sum() == 1 and (found.heat[:, 2][pasted] == 0).all()
    assert found.count == 2 and theirs.count == 2
    # sides and weights belong to the object that is seen
    own = (mine.weight > 0) & (mine.semantic == 1)
    assert own.any()
    assert torch.equal(found.weight[own], mine.weight[own])
    assert torch.equal(found.sides.permute(0, 2, 3, 1)[own], mine.sides.permute(0, 2, 3, 1)[own])
    assert (found.weight[pasted & ~own] == 0).all()
    far = torch.zeros(1, 16, 16, dtype=torch.bool)
    far[:, :8, 9:] = True
    assert torch.equal(found.weight[far], theirs.weight[far])
    # nothing is ignored where the truth is known
    assert torch.equal(found.ignored, ~pasted & (found.heat.amax(1) < 1))
    # the class that was not chosen leaves no trace, and the originals are as they were
    assert (found.weight[0, 9:, 9:] == 0).all() and theirs.heat[:, 2].max() == 1 and (target.images == 0.75).all()


def test_class_mix_draws_half_of_the_object_classes():
    semantic = torch.tensor([[0, 1, 1], [2, 3, -1], [0, 0, 5]])
    for _ in range(10):
        chosen = drawn_classes(semantic)
        assert len(chosen) == 2 and set(chosen.tolist()) < {1, 2, 3, 5} and len(set(chosen.tolist())) == 2
    assert len(drawn_classes(torch.tensor([[3]]))) == 1 and len(drawn_classes(torch.zeros(2, 2))) == 0
    seen = {c for _ in range(50) for c in drawn_classes(semantic).tolist()}
    assert seen == {1, 2, 3, 5}


def test_class_mix_takes_more_target_than_source_and_names_what_is_wrong():
    source = window([[8, 8, 24, 24]], [0], True)
    target = window([[40, 8, 60, 28]], [2], False)
    twice = detector_targets([np.zeros((0, 4))] * 2, [np.zeros(0, int)] * 2, (64, 64), 3, [None] * 2)
    objective = ClassMix((1,))
    made = objective.mixed(source, Batch(torch.zeros(2, 3, 64, 64), twice), 0)
    assert made.targets.count == 2 and objective.metrics() == {'pasted_classes': 1.0}
    with pytest.raises(ValueError, match='class_mix: expected targets of a .* on both sides, got .* NoneType'):
        objective.mixed(source, Batch(target.images), 0)
    with pytest.raises(ValueError, match='expected one size'):
        objective.mixed(source, Batch(torch.zeros(1, 3, 32, 64), target.targets), 0)


def crops_of(value: float, classes: list[int], posed: list[bool] | None = None) -> Batch:
    """Return one-coloured crops; the numbers of the pose say which class they are of."""
    count, kinds = len(classes), torch.tensor(classes)
    of = DirectTargets(torch.eye(3).expand(count, 3, 3), kinds[:, None].repeat(1, 2).float(), kinds.float() + value,
                       torch.zeros(count, 8, 3), torch.eye(3).expand(count, 1, 3, 3))
    return Batch(torch.full((count, 3, 32, 32), value),
                 PoseTargets(kinds, of, None if posed is None else torch.tensor(posed)))


def test_class_mix_puts_an_object_before_a_camera_crop():
    source, target = crops_of(0.25, [0, 1]), crops_of(0.75, [2, 2, 2], [False, True, False])
    masks = torch.zeros(2, 1, 32, 32)
    masks[1, :, 8:24, 8:24], masks[1, :, 4] = 1, 0.5
    made = mix_crops(replace(source, masks=masks), target, torch.tensor([2]), torch.tensor([1]))
    assert (made.images[:2] == 0.75).all() and (target.images == 0.75).all()
    assert (made.images[2, :, 8:24, 8:24] == 0.25).all() and (made.images[2, :, 4] == 0.5).all()
    assert (made.images[2] == 0.75).sum() == 3 * (32 * 32 - 16 * 16 - 32)
    found = made.targets
    assert found.classes.tolist() == [2, 2, 1] and found.of.size.tolist() == [2.75, 2.75, 1.25]
    assert found.of.centre[:, 0].tolist() == [2, 2, 1]
    assert found.posed.tolist() == [False, True, True] and found.sure is None  # the pasted one's pose is the true one


def test_class_mix_pastes_what_shows_an_object_on_every_second_crop():
    source, target = crops_of(0.25, [0, 1, 2]), crops_of(0.75, [0] * 7)
    masks = torch.zeros(3, 1, 32, 32)
    masks[1] = 1  # the third shows none of the objects
    objective = ClassMix((1,))
    seen = set()
    for _ in range(20):
        made = objective.mixed(replace(source, masks=masks), target, 0)
        changed = (made.images == 0.25).flatten(1).all(dim=1)
        assert changed.sum() == 4 and torch.equal(made.targets.classes == 1, changed)
        seen |= set(changed.nonzero()[:, 0].tolist())
    assert seen == set(range(7)) and objective.metrics() == {'pasted_classes': pytest.approx(4 / 7)}
    assert objective.mixed(source, target, 0) is target and objective.metrics() == {'pasted_classes': 0.0}


def test_daformer_pastes_crops_online(tmp_path):
    rng = np.random.default_rng(0)
    bundle = Bundle.create({'box': MODEL}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    learner = Learner(bundle, load_recipe('daformer'))
    crops = learner.batcher.batch([labelled_frame(rng, MODEL, POSE)], rng, 4)
    assert crops is not None and crops[2] is not None and crops[2].shape == (1, 1, 64, 64)
    mix = next(o for o in learner.parts['pose'].objectives if isinstance(o, ClassMix))
    target = Batch(crops[0] * 0, crops[1])
    learner.parts['pose'].step(Batch(*crops), target)
    assert mix.metrics() == {'pasted_classes': 1.0}


# masked consistency

def test_masks_hide_the_right_share_in_whole_blocks():
    mask = blocks_mask(200, (64, 48), 8, 0.7)
    assert mask.shape == (200, 1, 64, 48) and float(mask.float().mean()) == pytest.approx(0.7, abs=0.02)
    cells = mask.unflatten(3, (6, 8)).unflatten(2, (8, 8))
    assert (cells == cells[:, :, :, :1, :, :1]).all()
    assert not blocks_mask(3, (20, 20), 8, 0.0).any() and blocks_mask(3, (20, 20), 8, 1.0).all()


@pytest.mark.parametrize(('side', 'block'), [(28, 4), (64, 8), (192, 24)])
def test_every_second_picture_is_masked_and_labels_stay(side, block):
    target = Batch(torch.rand(5, 3, side, side), ClassTargets(torch.arange(5)), confidence=torch.ones(5))
    before = target.images.clone()
    made = MaskedConsistency((1,)).mixed(target, target, 0)
    assert torch.equal(made.images[1::2], before[1::2]) and torch.equal(target.images, before)
    hidden = (made.images[::2] == GREY).all(dim=1)
    assert 0.4 < float(hidden.float().mean()) < 0.95
    assert torch.equal(made.images[::2].permute(0, 2, 3, 1)[~hidden], before[::2].permute(0, 2, 3, 1)[~hidden])
    assert (hidden[:, :block, :block] == hidden[:, :1, :1]).all()
    assert made.targets is target.targets and made.confidence is target.confidence


# recipes

@pytest.mark.parametrize('kind', ['classifier', 'pose', 'detector'])
@pytest.mark.parametrize('name', ['daformer', 'mic'])
def test_a_step_of_the_recipe(name, kind):
    run, reports = take_steps(load_recipe(name), kind)
    assert run.step_count == 2 and all(np.isfinite(v) for v in reports[-1].values())
    assert ('feature_distance' in reports[-1]) == (name == 'daformer')
    if kind == 'classifier':
        assert {'target_class', 'quality'} <= set(reports[-1])


@pytest.mark.parametrize('name', ['daformer', 'mic'])
def test_a_learner_with_the_recipe_takes_a_step(name, monkeypatch):
    learner = Learner(Bundle.create({'box': MODEL}), load_recipe(name))
    rng = np.random.default_rng(0)
    frames = [labelled_frame(rng, MODEL, POSE) for _ in range(2)]
    seen = iter(frames * 2)

    def sure(_teacher, picture, *_, **__):
        label = next(seen).labels[0]
        return PseudoLabels(picture, label.box[None], ('box',), np.zeros((0, 4)), (label,))

    monkeypatch.setattr('sim2real_da.online.learner.pseudo_labels', sure)
    report = learner.step(frames, [frame(rng) for _ in range(2)])
    assert {'detector/target_heat', 'detector/target_semantic', 'detector/quality', 'pose/target_rotation',
            'pose/quality'} <= set(report)
    if name == 'daformer':
        assert {'detector/pasted_classes', 'detector/feature_distance', 'pose/feature_distance'} <= set(report)
    assert all(np.isfinite(v) for v in report.values()) and learner.step_count == 1
