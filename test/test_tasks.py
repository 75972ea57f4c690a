# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks crops and segmentation on drawn tools, from command line to weights that are measured again."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mujoco', reason='the simulator needs MuJoCo: pip install mujoco')

from sim2real_da.benchmark import source_model  # noqa: E402
from sim2real_da.cli import main  # noqa: E402
from sim2real_da.data.bop import BopDataset, write_scene  # noqa: E402
from sim2real_da.data.pictures import Pictures  # noqa: E402
from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.networks.crop_sets import cut_crops  # noqa: E402
from sim2real_da.networks.detector import Detector  # noqa: E402
from sim2real_da.networks.network_weights import load_network, save_network  # noqa: E402
from sim2real_da.networks.weights_file import WeightsError  # noqa: E402
from sim2real_da.samples import Intrinsics  # noqa: E402
from sim2real_da.simulation.objects import load_objects  # noqa: E402
from sim2real_da.simulation.simulator import Simulator  # noqa: E402
from sim2real_da.tasks.pictures import PictureTask  # noqa: E402

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A rendered set, and 'photographs' of the same objects with ids on both sides of the split."""
    folder = tmp_path_factory.mktemp('data')
    objects = load_objects('tools')
    ids = {item.name: n for n, item in enumerate(objects, start=1)}
    simulator = Simulator(objects, CAMERA, seed=(1, 0))
    for name, split, first, count in (('rendered', 'train', 0, 8), ('real', 'test', 608, 8)):
        scene = folder / name / split / '000000'
        scene.parent.mkdir(parents=True)
        write_scene(scene, [simulator.sample() for _ in range(count)], ids, first=first)
        (folder / name / 'dataset.json').write_text(json.dumps(
            {'objects': 'tools', 'names': {str(n): name for name, n in ids.items()}}))
    simulator.close()
    (folder / 'photos').mkdir()
    for i in range(152):
        cv2.imwrite(str(folder / 'photos' / f'{i}.jpg'), np.full((80, 80, 3), i, np.uint8))
    return folder


def command(data: Path, out: Path, benchmark: str, *methods: str) -> list[str]:
    return ['benchmark', benchmark, '--data', str(data / 'real'), '--rendered', str(data / 'rendered'), '--seeds', '1',
            '--steps', '1', '--source-steps', '1', '--work', str(out / 'work'), '--json', str(out / 'out.json'),
            '--weights', str(out), '--method', *methods]


def test_crops_from_the_command_line(data, tmp_path, capsys):
    methods = ['source_only', 'self_training', 'target_only']
    arguments = [*command(data, tmp_path, 'crops', *methods), '--photos', str(data / 'photos'), '--crops', '12']
    assert main(arguments) == 0
    tasks = json.loads((tmp_path / 'out.json').read_text())['tasks']
    assert {task: list(rows) for task, rows in tasks.items()} == {'black': methods, 'photographs': methods}
    run = tasks['black']['self_training']['runs'][0]
    ids = tmp_path / 'ids'
    ids.write_text('612 613 614 615')
    scores = tmp_path / 'scores.json'
    weights = str(tmp_path / 'crops_black_self_training.safetensors')
    again = ['evaluate', '--weights', weights, '--data', str(data / 'real'), '--json', str(scores), '--ids', str(ids)]
    assert main(again) == 0
    found = json.loads(scores.read_text())
    assert found['crops'] == run['crops'] and found['recipe'] == 'self_training'
    # weights are stored in 16 bits
    assert found['accuracy'] == pytest.approx(run['accuracy'], abs=0.15)
    assert found['mean_angle_deg'] == pytest.approx(run['mean_angle_deg'], abs=10)
    crops = cut_crops(BopDataset(data / 'real'), [612, 613, 614, 615], 64, np.random.default_rng(0), jitter=False)
    np.savez(tmp_path / 'crops.npz', images=crops.images, labels=crops.classes)
    alone = ['evaluate', '--weights', weights, '--data', str(tmp_path / 'crops.npz'), '--json', str(scores)]
    assert main(alone) == 0
    of_pictures = json.loads(scores.read_text())
    assert of_pictures['accuracy'] == pytest.approx(found['accuracy']) and 'mean_angle_deg' not in of_pictures
    assert main([*alone, '--ids', str(ids)]) == 2
    assert main(['weights', weights]) == 0
    assert 'direct' in capsys.readouterr().out
    assert main([*arguments, '--task', 'pink']) == 2
    assert "--task pink: expected some of ['black', 'photographs']" in capsys.readouterr().err


def test_segmentation_from_the_command_line(data, tmp_path):
    methods = ['source_only', 'daformer', 'advent', 'target_only']
    assert main(command(data, tmp_path, 'segmentation', *methods)) == 0
    rows = json.loads((tmp_path / 'out.json').read_text())['tasks']['lmo']
    assert list(rows) == methods and 0 <= rows['advent']['miou']['mean'] <= 1
    ids, scores = tmp_path / 'ids', tmp_path / 'scores.json'
    ids.write_text('612 613 614 615')
    assert main(['evaluate', '--weights', str(tmp_path / 'segmentation_lmo_daformer.safetensors'), '--data',
                 str(data / 'real'), '--json', str(scores), '--ids', str(ids)]) == 0
    found, run = json.loads(scores.read_text()), rows['daformer']['runs'][0]
    assert found['frames'] == run['frames'] == 4 and found['miou'] == pytest.approx(run['miou'], abs=0.05)


def test_segmentation_starts_from_a_bundle(data, tmp_path, capsys):
    bundle = Bundle.create(BopDataset(data / 'real').objects())
    start = bundle.save(tmp_path / 'start.safetensors')
    assert main([*command(data, tmp_path, 'segmentation', 'source_only'), '--start', str(start)]) == 0
    assert not (tmp_path / 'work').exists()
    network, _ = load_network(tmp_path / 'segmentation_lmo_source_only.safetensors', 'detector')
    for name, mine in network.state_dict().items():
        torch.testing.assert_close(mine, bundle.detector.state_dict()[name].half().to(mine.dtype))
    other = Bundle.create({'mug': bundle.objects['mug']}).save(tmp_path / 'other.safetensors')
    assert main([*command(data, tmp_path, 'segmentation', 'source_only'), '--start', str(other)]) == 2
    assert "weights for ['mug']" in capsys.readouterr().err


def test_source_only_sees_no_label_of_the_target_and_is_not_taken_for_that_of_other_data(tmp_path):
    rng = np.random.default_rng(0)
    source, target, test = (Pictures(rng.integers(0, 255, (20, 16, 16, 3), dtype=np.uint8), np.arange(20) % 2,
                                     ('a', 'b')) for _ in range(3))
    tasks = [PictureTask('t', 's', source, target, test, labelled=n, size=16, channels=(4,), hidden=8) for n in (0, 6)]
    plain, labelled = (source_model(task, 0, 3, tmp_path / task.key)[0].state_dict() for task in tasks)
    assert tasks[0].source_name == tasks[1].source_name and all(torch.equal(plain[k], labelled[k]) for k in plain)
    assert PictureTask('t', 's', target, target, test, size=16, channels=(4,)).source_name != tasks[0].source_name


def test_missing_data_are_named(data, tmp_path, capsys):
    arguments = command(data, tmp_path, 'crops', 'source_only')
    without = [a for a in arguments if a not in ('--rendered', str(data / 'rendered'))]
    assert main(without) == 2
    assert 'crops: --rendered is missing' in capsys.readouterr().err


def test_weights_file_of_one_network(tmp_path):
    network = Detector(2, width=16)
    path = save_network(tmp_path / 'w.safetensors', 'detector', network, ['a', 'b'], 'dann', created={'seed': 3})
    read, manifest = load_network(path, 'detector')
    assert manifest['recipe'] == 'dann' and manifest['created'] == {'seed': 3} and not read.training
    assert all(torch.equal(a, b) for a, b in zip(read.state_dict().values(), network.state_dict().values()))
    with pytest.raises(WeightsError, match='a detector, expected a pose'):
        load_network(path, 'pose')
    with pytest.raises(WeightsError, match='no such weights file'):
        load_network(tmp_path / 'none.safetensors', 'pose')
    with pytest.raises(WeightsError, match='1 names of 2 classes'):
        load_network(save_network(path, 'detector', network, ['a'], 'dann'), 'detector')
    network.heat.bias.data[0] = float('nan')
    with pytest.raises(WeightsError, match='not finite'):
        load_network(save_network(path, 'detector', network, ['a', 'b'], 'dann'), 'detector')


def test_crops_with_labels_unseen_classes_and_figures(data, tmp_path, capsys):
    methods = ['source_continued', 'pixelda', 'dann', 'self_training']
    common = [*command(data, tmp_path, 'crops', *methods), '--photos', str(data / 'photos'), '--crops', '12',
              '--task', 'photographs']
    figures = tmp_path / 'figures.json'
    assert main([*common, '--labelled', '6', '--figures', str(figures)]) == 0
    tasks = json.loads((tmp_path / 'out.json').read_text())['tasks']
    assert list(tasks) == ['photographs_6_labelled'] and list(tasks['photographs_6_labelled']) == methods
    assert 'labelled_class' in tasks['photographs_6_labelled']['pixelda']['runs'][0]['course'][0]
    assert (tmp_path / 'crops_photographs_6_labelled_pixelda.safetensors').is_file()
    drawn = json.loads(figures.read_text())['tasks']['photographs_6_labelled']
    assert set(drawn['pixelda']) == {'embedding', 'neighbours'} and set(drawn['dann']) == {'embedding'}
    assert main([*common, '--unseen', '2']) == 0
    tasks = json.loads((tmp_path / 'out.json').read_text())['tasks']
    assert list(tasks) == ['photographs_2_unseen'] and list(tasks['photographs_2_unseen']) == methods
    seen = json.loads((tmp_path / 'out.json').read_text())['tasks']['photographs_2_unseen']['pixelda']['runs'][0]
    assert 0 < seen['crops'] < 40
    for wrong in (['--labelled', '5000'], ['--unseen', '9']):
        assert main([*common, *wrong]) == 2
        assert ' '.join(wrong) in capsys.readouterr().err
