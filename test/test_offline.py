# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The offline loop, classifier weights, and the commands benchmark, evaluate and adapt on made-up pictures."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from sim2real_da.adapt import held_out_rows
from sim2real_da.adaptation import Adaptation
from sim2real_da.cli import main
from sim2real_da.data.pictures import Pictures
from sim2real_da.evaluation.classification import accuracy, known_labels
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier, ClassifierOutput
from sim2real_da.networks.classifier_weights import load_classifier, save_classifier
from sim2real_da.networks.weights_file import WeightsError
from sim2real_da.offline import adapt, changed, target_batch
from sim2real_da.recipes import load_recipe

SMALL = {'size': 16, 'channels': (4, 8), 'hidden': 16}
PACE = 'offline: {batch: 16, learning_rate: 0.01, ema: 0.5}'
SUPERVISED = f'classifier: {{supervised: }}\n{PACE}'
PSEUDO = f'classifier: {{supervised: , self_training: {{weight: 1.0, steps: 1}}}}\n{PACE}'


def bars(count: int, seed: int = 0, dark: bool = False) -> Pictures:
    """Return pictures of a horizontal (0) or a vertical (1) bar."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 60, (count, 16, 16, 3)).astype(np.uint8), np.arange(count) % 2
    for image, label in zip(images, labels):
        place = rng.integers(2, 12)
        (image[place:place + 3] if label == 0 else image[:, place:place + 3])[:] = 200
    return Pictures(images // 2 if dark else images, labels, ('0', '1'))


def recipe(folder, text: str):
    path = folder / 'own.yaml'
    path.write_text(text)
    return load_recipe(path)


def as_tensor(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures.images).permute(0, 3, 1, 2) / 255


def test_training_on_the_source_learns_and_repeats(tmp_path):
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(adapt(Classifier(2, **SMALL), recipe(tmp_path, SUPERVISED), bars(64), None, 40, seed=1))
    assert accuracy(runs[0].network, bars(40, 5))['accuracy'] > 0.9
    assert not runs[0].network.training and runs[0].course[-1]['step'] == 40
    for one, other in zip(runs[0].network.state_dict().values(), runs[1].network.state_dict().values()):
        torch.testing.assert_close(one, other)


def test_teacher_sees_the_picture_and_student_a_changed_one(tmp_path):
    network = adapt(Classifier(2, **SMALL), recipe(tmp_path, SUPERVISED), bars(64), None, 40).network
    run = Adaptation(network, 'classifier', recipe(tmp_path, PSEUDO), steps=10)
    images = as_tensor(bars(16))
    batch = target_batch(run, images)
    said = run.teacher(images).logits.softmax(1).max(dim=1)
    assert torch.equal(batch.targets.classes, said.indices)
    assert torch.equal(batch.targets.weight, (said.values >= 0.95).float()) and batch.targets.weight.sum() > 0
    assert batch.images.shape == images.shape and not torch.equal(batch.images, images)
    batch = target_batch(run, images, (images[:4], torch.tensor([1, 1, 0, 0])))
    assert batch.targets.classes[16:].tolist() == [1, 1, 0, 0] and batch.targets.weight[16:].tolist() == [1] * 4


@pytest.mark.parametrize('frozen', [False, True])
def test_statistics_move_unless_they_are_frozen(tmp_path, frozen):
    torch.manual_seed(0)
    network = Classifier(2, **SMALL)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    weights = [parameter.clone() for parameter in network.parameters()]
    text = 'classifier: {supervised: , minent: {weight: 0.1}}\noffline: {batch: 16'
    text += ', frozen_statistics: [classifier]}' if frozen else '}'
    made = adapt(network, recipe(tmp_path, text), bars(64), bars(64, 1, dark=True).images, 3).network
    same = [torch.equal(buffer, before[name]) for name, buffer in made.named_buffers()]
    assert all(same) if frozen else not any(same)
    assert not any(torch.equal(*pair) for pair in zip(weights, network.parameters()))


def test_without_pseudo_labels_only_the_known_ones_count(tmp_path):
    run = Adaptation(Classifier(2, **SMALL), 'classifier', recipe(tmp_path, SUPERVISED), steps=10)
    images = torch.rand(3, 3, 16, 16)
    assert target_batch(run, images).targets is None and torch.equal(target_batch(run, images).images, images)
    batch = target_batch(run, images, (images[:1], torch.tensor([1])))
    assert batch.targets.weight.tolist() == [0, 0, 0, 1] and batch.targets.classes[3] == 1


def test_confidence_is_that_of_the_picture_as_it_is(tmp_path):
    text = PSEUDO.replace('steps: 1}', 'steps: 1, threshold: 0.968}')
    run = Adaptation(Classifier(2, **SMALL), 'classifier', recipe(tmp_path, text), steps=10)
    images = torch.rand(5, 3, 16, 16)
    batch = target_batch(run, images)
    clean = run.teacher(images).logits.softmax(1).amax(1)
    torch.testing.assert_close(batch.confidence, clean)
    assert batch.targets.weight is None
    run.losses(target_batch(run, images), batch)
    torch.testing.assert_close(run._outputs.batches[1].confidence, clean)  # nobody labelled the changed copy


def test_a_few_labels_teach_what_the_source_does_not_know(tmp_path):
    target = bars(64, 3, dark=True)
    swapped = Pictures(target.images, 1 - target.labels, target.names)  # only its labels can tell
    text = PSEUDO.replace('supervised: ,', 'supervised: {weight: 0.0},')
    made = adapt(Classifier(2, **SMALL), recipe(tmp_path, text), bars(64), target.images, 80, labelled=swapped)
    assert accuracy(made.network, swapped)['accuracy'] > 0.9


def test_changed_pictures_stay_pictures():
    images = torch.rand(6, 3, 16, 16)
    made = changed(images)
    assert made.shape == images.shape and float(made.min()) >= 0 and float(made.max()) <= 1
    assert all(not torch.equal(a, b) for a, b in zip(made, images))


def test_a_run_without_a_finite_step_is_an_error(tmp_path):
    network = Classifier(2, **SMALL)
    network.classify.bias.data[0] = float('nan')
    with pytest.raises(ValueError, match='recipe own: no step had a finite loss'):
        adapt(network, recipe(tmp_path, SUPERVISED), bars(16), None, 2)


@pytest.mark.parametrize('case, said', [
    ('no labels', 'source: these pictures have no labels'), ('no target', 'looks at target pictures, there are none'),
    ('classes', 'expected some, of 2 classes'), ('size', 'expected one size')])
def test_data_that_do_not_fit(tmp_path, case, said):
    source, target = bars(8), bars(8).images
    if case == 'no labels':
        source = Pictures(source.images)
    if case == 'no target':
        target = None
    if case == 'classes':
        source = Pictures(source.images, source.labels + 1)
    if case == 'size':
        target = target[:, :8]
    with pytest.raises(ValueError, match=said):
        adapt(Classifier(2, **SMALL), recipe(tmp_path, PSEUDO), source, target, 1)


def test_labels_meet_by_name_or_number():
    pictures = Pictures(np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 2, 1]), ('00', '01', '07'))
    assert known_labels(pictures, ('1', '7'), 2).tolist() == [-1, 1, 0]
    assert known_labels(Pictures(pictures.images, np.array([7, 1, 0])), ('01', '07'), 2).tolist() == [1, 0, -1]
    assert known_labels(Pictures(pictures.images, np.array([1, 0, 5])), ('nut', 'bolt'), 2).tolist() == [1, 0, -1]
    bop = ('obj_000001', 'obj_000005')
    assert known_labels(Pictures(pictures.images, np.array([1, 5, 6])), bop, 2).tolist() == [0, 1, -1]
    assert known_labels(Pictures(pictures.images, np.array([1, 0, 1])), bop, 2).tolist() == [1, 0, 1], 'indices'


def test_accuracy_of_known_and_of_all_classes():
    class Says(Classifier):
        def forward(self, image: torch.Tensor) -> ClassifierOutput:
            return ClassifierOutput(torch.tensor([[9.0, 0.0]]).repeat(len(image), 1), [])

    pictures = Pictures(np.zeros((4, 16, 16, 3), np.uint8), np.array([3, 3, 5, 6]))
    found = accuracy(Says(2, names=('3', '5'), **SMALL), pictures)
    assert found['accuracy'] == pytest.approx(2 / 3) and found['accuracy_all'] == 0.5
    assert (found['pictures'], found['pictures_all']) == (3, 4)
    with pytest.raises(ValueError, match='know none of these classes'):
        accuracy(Says(2, names=('1', '2'), **SMALL), pictures)


def test_weights_file(tmp_path):
    network = Classifier(2, names=('a', 'b'), **SMALL).eval()
    path = save_classifier(tmp_path / 'w.safetensors', network, 'dann', 'a note', {'seed': 3})
    read, manifest = load_classifier(path)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(read(images).logits, network(images).logits)
    assert manifest['kind'] == 'classifier' and manifest['created'] == {'seed': 3} and manifest['recipe'] == 'dann'
    half = save_classifier(tmp_path / 'h.safetensors', network, 'dann', half=True)
    assert half.stat().st_size < 0.85 * path.stat().st_size
    torch.testing.assert_close(load_classifier(half)[0](images).logits, network(images).logits, atol=0.02, rtol=0.02)
    with pytest.raises(WeightsError, match='w.safetensors: weights: a classifier, expected a bundle'):
        Bundle.load(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(WeightsError, match='w.safetensors: .*checksum'):
        load_classifier(path)
    network.classify.bias.data[0] = float('nan')
    with pytest.raises(WeightsError, match='not finite'):
        load_classifier(save_classifier(path, network, 'dann'))


def folder_of(pictures: Pictures, folder, classes: bool) -> None:
    for i, (image, label) in enumerate(zip(pictures.images, pictures.labels)):
        place = folder / f'bar{label}' if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f'{i}.png'), image[..., ::-1])


def test_adapt_and_evaluate_own_folders(tmp_path, capsys):
    folder_of(bars(40), tmp_path / 'source', True)
    folder_of(bars(20, 1, dark=True), tmp_path / 'target', False)
    folder_of(bars(20, 2, dark=True), tmp_path / 'labelled', True)
    out, scores = tmp_path / 'w.safetensors', tmp_path / 'scores.json'
    arguments = ['adapt', '--recipe', 'self_training', '--source', str(tmp_path / 'source'), '--target',
                 str(tmp_path / 'target'), '--out', str(out), '--size', '16', '--steps', '3', '--source-steps', '3']
    assert main(arguments) == 0
    assert main(['evaluate', '--weights', str(out), '--data', str(tmp_path / 'labelled'), '--json', str(scores)]) == 0
    assert 0 <= json.loads(scores.read_text())['accuracy'] <= 1
    assert 'Accuracy' in capsys.readouterr().out
    assert main(['weights', str(out)]) == 0
    assert 'bar0, bar1' in capsys.readouterr().out
    assert main([*arguments, '--start', str(out)]) == 0
    assert main(['evaluate', '--weights', str(out), '--data', str(tmp_path / 'target')]) == 2
    assert 'target: evaluate: pictures without labels' in capsys.readouterr().err
    for change, said in (
            ({'--source': str(tmp_path / 'target')}, 'target: no labels; expected a sub-folder for each class'),
            ({'--steps': '0'}, '--steps 0: expected 1 or more'), ({'--size': '0'}, '--size 0: expected 1 or more'),
            ({'--device': 'cuda:77'}, '--device cuda:77: '), ({'--recipe': 'dsn'}, 'dsn starts at step 500'),
            ({'--recipe': 'self_training_unique'}, 'nothing for the classifier'),
            ({'--out': '/proc/w.safetensors'}, '/proc'), ({'--target': str(tmp_path / 'gone')}, 'gone: no such')):
        assert main([*arguments, *(word for pair in change.items() for word in pair)]) == 2  # the last one counts
        assert said in capsys.readouterr().err


def test_a_tenth_of_each_class_is_kept_back():
    labels = np.array([0] * 50 + [1] * 4 + [2])
    apart = held_out_rows(labels)
    assert [int(apart[labels == c].sum()) for c in range(3)] == [5, 1, 0]


def small_digits(folder) -> None:
    for name, size in (('mnist', 28), ('usps', 16)):
        arrays = {}
        for split, seed in (('train', 0), ('test', 1)):
            pictures = bars(32, seed).resized(size)
            arrays |= {f'{split}_images': pictures.images[..., 0], f'{split}_labels': pictures.labels}
        np.savez(folder / f'{name}.npz', **arrays)
    (folder / 'bsds').mkdir()
    for i in range(152):
        cv2.imwrite(str(folder / 'bsds' / f'{i}.jpg'), np.full((30, 30, 3), i, np.uint8))


def test_benchmark_writes_rows_and_weights(tmp_path, capsys):
    small_digits(tmp_path)
    out, work = tmp_path / 'out' / 'digits.json', tmp_path / 'work'
    arguments = ['benchmark', 'digits', '--data', str(tmp_path), '--seeds', '2', '--steps', '2', '--source-steps', '2',
                 '--work', str(work), '--task', 'usps']
    methods = ['source_only', 'source_continued', 'self_training', 'target_only']
    assert main([*arguments, '--method', *methods, '--json', str(out), '--weights', str(tmp_path / 'w')]) == 0
    found = json.loads(out.read_text())
    assert list(found['tasks']['usps']) == methods and found['commit'] and found['hardware']
    for row in found['tasks']['usps'].values():
        assert [r['seed'] for r in row['runs']] == [0, 1]
        assert row['accuracy']['mean'] == pytest.approx(np.mean([r['accuracy'] for r in row['runs']]))
        assert row['accuracy']['std'] == pytest.approx(np.std([r['accuracy'] for r in row['runs']]))
    network, manifest = load_classifier(tmp_path / 'w' / 'usps_self_training.safetensors')
    assert manifest['created']['method'] == 'self_training' and network.config['names'] == list('0123456789')
    assert len(list(work.glob('mnist_*_2_*.safetensors'))) == 2  # a source model is made once
    assert main([*arguments, '--method', 'nothing']) == 2
    assert 'recipe nothing: no file' in capsys.readouterr().err
    (tmp_path / 'usps.npz').unlink()
    assert main([*arguments, '--method', 'source_only']) == 2
    assert 'usps.npz: no such file' in capsys.readouterr().err
