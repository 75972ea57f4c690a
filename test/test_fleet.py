# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What several robots saw, learnt from by several processes: ``sim2real_da adapt`` with many targets, and torchrun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, rendered_set

from sim2real_da.adapt import MOST_FRAMES, target_frames
from sim2real_da.cli import main
from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier_weights import load_classifier
from sim2real_da.networks.distributed import (
    average_gradients,
    everywhere,
    mean_of,
    own_seed,
    processes,
    same_everywhere,
)
from sim2real_da.online.frame_files import FrameFiles
from sim2real_da.online.gate import Decision
from sim2real_da.training import Plan

# Two steps of a detector by DANN on batches of the process's own; the adversary has an optimiser of its own. What comes
# out has to be one network: weights, running statistics, teacher and adversary.
SCRIPT = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[2])
from helpers import box_model, frame, labelled_frame
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.distributed import processes
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import load_recipe
from sim2real_da.samples import Pose
torch.set_num_threads(1)
with processes('cpu', share_normalisers=False) as (rank, world, device):
    torch.manual_seed(0)
    bundle = Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16})
    learner = Learner(bundle, load_recipe('dann'))
    pose = Pose(np.array([0.9, 0.1, 0.2, 0.1]), np.array([0.0, 0.0, 0.5]))
    rng = np.random.default_rng(10 + rank)  # each process sees frames of its own
    for _ in range(2):
        source = [labelled_frame(rng, box_model('box'), pose) for _ in range(2)]
        learner.step(source, [frame(rng) for _ in range(2)])
    state = {f'{n}.{k}': v for n in ('detector', 'pose') for k, v in learner.parts[n].state().items()}
    state |= {f'teacher.{n}.{k}': v for n in ('detector', 'pose')
              for k, v in getattr(learner.teacher, n).state_dict().items()}
    torch.save({'state': state, 'drawn': float(learner.generator.random())}, f'{sys.argv[1]}_{rank}.pt')
"""


def launch(commands: list[list[str]], status: int = 0) -> None:
    """Run one command a process, as torchrun would; all have to end with a status."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    repository = Path(__file__).parent.parent
    group = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'WORLD_SIZE': str(len(commands)),
             'OMP_NUM_THREADS': '1',
             'PYTHONPATH': os.pathsep.join([str(repository), os.environ.get('PYTHONPATH', '')])}
    started = [subprocess.Popen(command, env={**os.environ, **group, 'RANK': str(rank), 'LOCAL_RANK': str(rank)})
               for rank, command in enumerate(commands)]
    try:
        assert [p.wait(timeout=240) for p in started] == [status] * len(commands)
    finally:
        for process in started:
            process.kill()


def test_two_processes_make_one_network(tmp_path: Path) -> None:
    script = tmp_path / 'steps.py'
    script.write_text(SCRIPT)
    launch([[sys.executable, str(script), str(tmp_path / 'made'), str(Path(__file__).parent)]] * 2)
    first, second = (torch.load(tmp_path / f'made_{rank}.pt', weights_only=True) for rank in range(2))
    assert first['drawn'] != second['drawn'], 'both processes would learn from the same samples'
    assert first['state'].keys() == second['state'].keys()
    assert any('objective' in name for name in first['state'])
    for name, value in first['state'].items():
        torch.testing.assert_close(value, second['state'][name], rtol=1e-5, atol=1e-6,
                                   msg=lambda text, n=name: f'{n}: {text}')


STEPS = """
import sys
from sim2real_da.networks.distributed import processes, same_everywhere
with processes('cpu') as (rank, world, device):
    both = same_everywhere(250, device), same_everywhere(250 if rank == 0 else 0, device)
sys.exit(0 if both == (True, False) else 1)
"""


def test_every_process_hears_that_one_of_them_is_elsewhere(tmp_path: Path) -> None:
    script = tmp_path / 'steps.py'
    script.write_text(STEPS)
    launch([[sys.executable, str(script)]] * 2)


def test_one_process_is_left_as_it_is() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    average_gradients([parameter])
    assert parameter.grad is None
    value = torch.tensor(3.0)
    assert mean_of(value) is value and own_seed(4, 1) == [4, 1]
    assert same_everywhere(7, 'cpu')
    assert everywhere(True, torch.device('cpu')) and not everywhere(False, torch.device('cpu'))


@pytest.fixture
def robots(tmp_path: Path) -> tuple[Path, Path]:
    """Frames that one robot's adaptation node kept, and a folder of images of another's."""
    rng = np.random.default_rng(0)
    files = FrameFiles(tmp_path / 'first' / 'frames')
    for _ in range(6):
        files.write(frame(rng))
    images = tmp_path / 'second'
    images.mkdir()
    for number in range(5):
        cv2.imwrite(str(images / f'{number}.png'), frame(rng).image)
    return tmp_path / 'first' / 'frames', images


def calibration(folder: Path) -> Path:
    path = folder / 'camera.yaml'
    path.write_text(json.dumps({
        'image_width': 320, 'image_height': 240, 'distortion_model': 'plumb_bob',
        'camera_matrix': {'data': CAMERA.matrix().ravel().tolist()}, 'distortion_coefficients': {'data': [0.0] * 5}}))
    return path


def test_targets_of_every_kind(robots: tuple[Path, Path]) -> None:
    kept, images = robots
    damaged = kept / '000000001.safetensors'
    damaged.write_bytes(damaged.read_bytes()[:100])
    before = sorted(kept.iterdir())
    assert len(target_frames(kept, 'test', None)) == 5  # the damaged one is passed over
    assert sorted(kept.iterdir()) == before, 'another robot\'s frames are not ours to remove'
    (images / '1.png').write_bytes(b'nothing')
    found = target_frames(images, 'test', CAMERA)
    assert len(found) == 4 and found[0].intrinsics == CAMERA
    with pytest.raises(ValueError, match='without a calibration'):
        target_frames(images, 'test', None)


def test_a_long_recording_is_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sim2real_da.adapt.MOST_FRAMES', 5)
    for number in range(23):
        cv2.imwrite(str(tmp_path / f'{number:03d}.png'), np.full((240, 320, 3), number, np.uint8))
    shades = [int(f.image[0, 0, 0]) for f in target_frames(tmp_path, 'test', CAMERA)]
    assert 3 <= len(shades) <= 5 <= MOST_FRAMES and len(set(np.diff(shades))) == 1


def test_a_fleet_learns_from_what_its_robots_saw(robots: tuple[Path, Path], tmp_path: Path) -> None:
    rendered_set(tmp_path / 'rendered', 1, 80)
    torch.manual_seed(0)
    Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16}).save(tmp_path / 'start.safetensors')
    (tmp_path / 'own.yaml').write_text('detector: {supervised: , self_training: }\npose: {supervised: }\n'
                                       'learner: {source_frames: 1, target_frames: 1, crops: 4}')
    words = ['adapt', '--recipe', str(tmp_path / 'own.yaml'), '--source', str(tmp_path / 'rendered'), '--target',
             *map(str, robots), '--camera-info', str(calibration(tmp_path)), '--start',
             str(tmp_path / 'start.safetensors'), '--steps', '25', '--threads', '1']
    # an untrained network finds nothing: the gate refuses it, in both processes alike
    launch([[sys.executable, '-m', 'sim2real_da.cli', *words, '--out', str(tmp_path / f'{rank}.safetensors')]
            for rank in range(2)], status=2)
    assert not list(tmp_path.glob('[01].safetensors')), 'what has not passed the gate is not written'


def test_a_training_within_a_command_joins_no_second_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for name, value in {'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}.items():
        monkeypatch.setenv(name, value)
    with processes('cpu', share_normalisers=False) as outer:
        with processes('cpu') as inner:
            assert inner == outer == (0, 1, 'cpu')
        assert torch.distributed.is_initialized(), 'the command goes on as one of the group'
    assert not torch.distributed.is_initialized()


def test_two_processes_write_one_classifier(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / 'source.npz', images=rng.integers(0, 255, (40, 16, 16), dtype=np.uint8),
             labels=np.arange(40) % 2)
    words = ['adapt', '--recipe', 'dann', '--source', str(tmp_path / 'source.npz'), '--target',
             str(tmp_path / 'source.npz'), '--size', '16', '--steps', '2', '--source-steps', '2', '--threads', '1']
    launch([[sys.executable, '-m', 'sim2real_da.cli', *words, '--out', str(tmp_path / f'{rank}.safetensors')]
            for rank in range(2)])
    assert load_classifier(tmp_path / '0.safetensors')[1]['recipe'] == 'dann'
    assert not (tmp_path / '1.safetensors').exists(), 'one process writes'


def test_too_few_frames_are_said_in_one_line(robots: tuple[Path, Path], tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    rendered_set(tmp_path / 'rendered', 1, 26)
    Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16}).save(tmp_path / 'start.safetensors')
    assert main(['adapt', '--recipe', 'dann', '--source', str(tmp_path / 'rendered'), '--target', str(robots[0]),
                 '--start', str(tmp_path / 'start.safetensors'), '--out', str(tmp_path / 'o.safetensors')]) == 2
    said = capsys.readouterr().err
    assert '26 rendered frames, expected 36 or more' in said


def test_objects_of_another_size_are_refused_before_any_work(
        robots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    rendered_set(tmp_path / 'rendered', 1, 40)
    Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16}).save(tmp_path / 'start.safetensors')
    monkeypatch.setattr(BopDataset, 'diameters', lambda _: {'box': 2 * box_model('box').diameter})
    assert main(['adapt', '--recipe', 'dann', '--source', str(tmp_path / 'rendered'), '--target', str(robots[0]),
                 '--start', str(tmp_path / 'start.safetensors'), '--out', str(tmp_path / 'o.safetensors')]) == 2
    assert 'weights for other objects: they know box with a diameter of' in capsys.readouterr().err


def test_targets_that_do_not_fit_the_source(robots: tuple[Path, Path], tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    rendered_set(tmp_path / 'rendered', 1, 2)
    empty = tmp_path / 'empty'
    empty.mkdir()
    arguments = ['adapt', '--recipe', 'dann', '--out', str(tmp_path / 'o.safetensors'), '--source']
    assert main([*arguments, str(tmp_path / 'rendered'), '--target', str(empty)]) == 2
    assert 'empty: neither BOP data, nor a recording' in capsys.readouterr().err
    assert main([*arguments, str(empty), '--target', *map(str, robots)]) == 2
    assert 'several targets' in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / 'rendered'), '--target', str(tmp_path / 'gone')]) == 2
    assert 'gone: no such folder or file' in capsys.readouterr().err


def test_without_weights_some_are_trained_on_what_the_gate_does_not_judge_by(
        robots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    rendered, asked = rendered_set(tmp_path / 'rendered', 1, 40), []

    def train(dataset: BopDataset, out: Path, plan: Plan) -> Bundle:
        asked.append((dataset.ids(), out, plan.steps, plan.seed))
        torch.manual_seed(0)
        return Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16})

    monkeypatch.setattr('sim2real_da.adapt.train', train)
    words = ['adapt', '--recipe', 'dann', '--source', str(rendered), '--target', str(robots[0]), '--steps', '25',
             '--out', str(tmp_path / 'mine.safetensors'), '--source-steps', '7', '--seed', '3']
    assert main(words) == 2  # it goes on to adapt, for which six frames are too few
    assert asked == [(BopDataset(rendered, 'train').ids()[32:], tmp_path / 'mine_source.safetensors', 7, 3)]
    assert 'real frames: 6 of 8' in capsys.readouterr().err


PIXELS = """
pose: {supervised: , cycada: {pixel: true, feature: false, blocks: 1, filters: 4, width: 4}}
offline: {batch: 4}
"""


def test_stored_crops_a_generator_and_a_translated_set(robots: tuple[Path, Path], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    rendered = rendered_set(tmp_path / 'rendered', 1, 40)
    torch.manual_seed(0)
    start = Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16})
    start.save(tmp_path / 'start.safetensors')
    (tmp_path / 'own.yaml').write_text(PIXELS)
    out, generator = tmp_path / 'out' / 'w.safetensors', tmp_path / 'g.safetensors'
    words = ['adapt', '--recipe', str(tmp_path / 'own.yaml'), '--source', str(rendered), '--target', str(robots[0]),
             '--start', str(tmp_path / 'start.safetensors'), '--steps', '2', '--out', str(out), '--generator',
             str(generator)]
    monkeypatch.setattr('sim2real_da.networks.crop_sets.FOUND_SCORE', 1.0)
    assert main(words) == 2
    assert 'finds nothing in 6 target frames' in capsys.readouterr().err
    monkeypatch.setattr('sim2real_da.networks.crop_sets.FOUND_SCORE', 0.0)
    assert main(words) == 2
    assert 'w.safetensors: not written, for nothing passed the gate' in capsys.readouterr().err
    assert not out.exists() and generator.is_file()  # it is of use to translate, whatever became of the poses
    monkeypatch.setattr('sim2real_da.adapt.Gate.decide', lambda *_: Decision(True, 'passed'))
    assert main(words) == 0
    made = Bundle.load(out)
    assert (made.version, made.parent, made.created['target']) == (1, 0, 'frames')
    for network, same in (('detector', True), ('pose', False)):
        before, after = (getattr(bundle, network).state_dict() for bundle in (start, made))
        assert all(torch.equal(before[k], after[k]) for k in before) == same
    translated = tmp_path / 'translated'
    assert main(['translate', '--generator', str(generator), '--data', str(rendered), '--out', str(translated)]) == 0
    first, second = (BopDataset(folder, 'train').frame(0) for folder in (rendered, translated))
    assert (first.frame.image != second.frame.image).any()
    np.testing.assert_array_equal(first.labels[0].box, second.labels[0].box)
    words[words.index(str(tmp_path / 'own.yaml'))] = 'dann'
    assert main(words) == 2
    assert 'recipe dann trains no generator' in capsys.readouterr().err
