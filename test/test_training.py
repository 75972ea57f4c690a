# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Training: two processes give the gradients of one, a stopped run goes on, the schedule ends where it should."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import box_model, labelled_frame
from scipy.spatial.transform import Rotation

from sim2real_da.data.bop import BopDataset, write_scene
from sim2real_da.networks.bundle import Bundle
from sim2real_da.samples import Pose
from sim2real_da.training import Plan, losses_of, main, schedule, train

REPOSITORY = Path(__file__).parent.parent
# Every process trains on its rows of one batch; the lone one on all of them. The rows differ in how many objects they
# show, so that dividing by one's own count, or averaging averages, gives other gradients.
SCRIPT = """
import os, sys
import numpy as np, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_training import batch, networks
from sim2real_da.training import losses_of, processes, shared_networks
torch.set_num_threads(1)

def gradients(rank, world):  # the group ends after what holds on to it: its threads must not outlive the interpreter
    bundle = networks(sys.argv[3])
    shared = shared_networks(bundle, ('detector', 'pose'), world)
    for network in shared.values():
        network.eval()  # frozen normalisation: statistics of half a batch are not those of the whole
    losses = losses_of(shared, batch(bundle, rank, world))
    torch.stack(list(losses.values())).sum().backward()
    return {f'{n}.{k}': p.grad for n in ('detector', 'pose') for k, p in getattr(bundle, n).named_parameters()}

with processes('cpu') as (rank, world, device):
    found = gradients(rank, world)
    if rank == 0:
        torch.save(found, sys.argv[1])
"""


def networks(representation: str) -> Bundle:
    torch.manual_seed(3)
    return Bundle.create({'box': box_model('box')}, {'width': 16}, {'representation': representation, 'width': 16})


def batch(bundle: Bundle, rank: int, world: int):
    from sim2real_da.networks.batches import PoseBatcher, detector_batch
    from sim2real_da.networks.pose import PoseTargets
    from sim2real_da.samples import LabelledFrame
    from sim2real_da.training import Batch

    model = bundle.objects['box']
    frames = [labelled_frame(np.random.default_rng(i), model, pose(i)) for i in range(4)]
    frames[0] = LabelledFrame(frames[0].frame, ())
    mine = frames[rank * 4 // world:(rank + 1) * 4 // world]
    windows = detector_batch(mine, bundle.classes, (320, 240))
    rng = np.random.default_rng(0)
    crops, targets, _ = PoseBatcher(bundle.objects, bundle.pose).batch(frames[1:] + frames[1:2], rng, 4)
    targets.classes[3] = 1  # "none of them", in the second half
    rows = slice(rank * len(crops) // world, (rank + 1) * len(crops) // world)
    own = type(targets.of)(*[getattr(targets.of, f)[rows] for f in targets.of.__dataclass_fields__])
    return Batch(windows, (crops[rows], PoseTargets(targets.classes[rows], own), None))


def pose(seed: int) -> Pose:
    return Pose(Rotation.from_euler('xyz', [200, 20 + 10 * seed, 40], degrees=True).as_quat(),
                np.array([0.05 - 0.03 * seed, -0.03, 0.6 + 0.1 * seed]))


def alone(representation: str) -> dict[str, torch.Tensor]:
    bundle = networks(representation)
    both = {name: getattr(bundle, name).eval() for name in ('detector', 'pose')}
    torch.stack(list(losses_of(both, batch(bundle, 0, 1)).values())).sum().backward()
    return {f'{name}.{k}': p.grad for name, network in both.items() for k, p in network.named_parameters()}


def together(tmp_path: Path, representation: str) -> dict[str, torch.Tensor]:
    script, out = tmp_path / 'one_step.py', tmp_path / 'gradients.pt'
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    group = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'WORLD_SIZE': '2',
             'PYTHONPATH': os.pathsep.join([str(REPOSITORY), os.environ.get('PYTHONPATH', '')])}
    started = [subprocess.Popen(
        [sys.executable, str(script), str(out), str(Path(__file__).parent), representation],
        env={**os.environ, **group, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}) for rank in range(2)]
    try:
        assert [p.wait(timeout=240) for p in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize('representation', ['direct', 'dense'])
def test_two_processes_give_the_gradients_of_one(tmp_path, representation):
    one, two = alone(representation), together(tmp_path, representation)
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=2e-3, atol=2e-5, msg=lambda text, n=name: f'{n}: {text}')


@pytest.fixture()
def rendered(tmp_path) -> Path:
    folder = tmp_path / 'set'
    model = box_model('obj_000001')
    frames = [labelled_frame(np.random.default_rng(i), model, pose(i % 3)) for i in range(4)]
    write_scene(folder / 'train' / '000000', frames, {'obj_000001': 1})
    return folder


class Boxes(BopDataset):
    """A data set whose only model is a box."""

    def objects(self):
        return {'obj_000001': box_model('obj_000001')}


def test_a_run_writes_weights_curves_and_an_early_look_and_goes_on(rendered, tmp_path, caplog):
    caplog.set_level('INFO')
    data, out = Boxes(rendered, 'train'), tmp_path / 'weights.safetensors'
    first = train(data, out, Plan(steps=2, save_every=1))
    assert Bundle.load(out).created['steps'] == 2
    assert out.with_suffix('.look.png').stat().st_size > 1000
    assert list(out.with_suffix('.curves').glob('events.*'))
    train(data, out, Plan(steps=3, save_every=1))
    assert 'resumed' in caplog.text and Bundle.load(out).created['steps'] == 3
    apart = train(data, tmp_path / 'pose.safetensors', Plan(steps=1, networks=('pose',)), bundle=first.copy())
    assert torch.equal(apart.detector.heat.weight, first.detector.heat.weight)
    assert not torch.equal(apart.pose.pose.weight, first.pose.pose.weight)


def test_the_outline_network_is_trained_on_weights_that_stay_as_they_are(rendered, tmp_path, monkeypatch):
    bundle = Bundle.create({'obj_000001': box_model('obj_000001')})
    bundle.covariance_factors = (2.0, 3.0)
    start = bundle.save(tmp_path / 'start.safetensors')
    monkeypatch.setattr('sim2real_da.training.BopDataset', Boxes)
    monkeypatch.setattr('sim2real_da.training.STRIPS', 6)
    made = []
    for steps, name in ((1, 'first'), (2, 'first'), (2, 'whole')):  # the second goes on from the first
        out = tmp_path / f'{name}.safetensors'
        monkeypatch.setattr('sys.argv', [
            'train', '--data', str(rendered), '--start', str(start), '--out', str(out), '--networks', 'outline',
            '--steps', str(steps), '--threads', '1'])
        assert main() == 0
        made.append(Bundle.load(out))
    assert bundle.outline is None and all(b.covariance_factors == (1.0, 1.0) for b in made)
    for name in ('detector', 'pose'):
        for key, value in getattr(bundle, name).state_dict().items():
            assert torch.equal(getattr(made[1], name).state_dict()[key], value), key
    weights = [b.outline.offset.weight for b in made]
    assert not torch.equal(weights[0], weights[1]), 'it went on'
    assert made[2].created['networks'] == ['outline'] and made[2].created['steps'] == 2


def test_under_torchrun_a_mistake_is_one_line_too(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['train', '--data', 'nowhere', '--out', 'w.safetensors'])
    assert main() == 2
    assert 'sim2real_da: nowhere' in capsys.readouterr().err


def test_another_representation_and_larger_crops_keep_the_backbone(rendered, tmp_path, monkeypatch):
    bundle = Bundle.create({'obj_000001': box_model('obj_000001')}, None, {'representation': 'dense'})
    bundle.covariance_factors = (2.0, 3.0)
    old = bundle.pose
    bundle.represent('dense')
    assert bundle.pose is old and bundle.covariance_factors == (2.0, 3.0)
    start, out = bundle.save(tmp_path / 'dense.safetensors'), tmp_path / 'direct.safetensors'
    monkeypatch.setattr('sim2real_da.training.BopDataset', Boxes)
    monkeypatch.setattr('sys.argv', [
        'train', '--data', str(rendered), '--start', str(start), '--out', str(out), '--networks', 'pose',
        '--representation', 'direct', '--crop-size', '96', '--looks', '2', '--steps', '1', '--threads', '1'])
    monkeypatch.setattr('sim2real_da.training.Plan', partial(Plan, rate=0.0))
    assert main() == 0
    made = Bundle.load(out)
    assert made.pose.config['representation'] == 'direct' and made.covariance_factors == (1.0, 1.0)
    assert (made.pose.crop_size, made.pose.looks) == (96, 2)
    for name, weights in made.pose.backbone.named_parameters():
        assert torch.equal(weights, dict(old.backbone.named_parameters())[name]), name
    assert torch.equal(made.detector.heat.weight, bundle.detector.heat.weight)


def test_mixed_precision_trains_and_stays_finite(rendered, tmp_path):
    bundle = train(Boxes(rendered, 'train'), tmp_path / 'w.safetensors', Plan(steps=2, half=True))
    assert bundle.finite() and bundle.pose.pose.weight.dtype == torch.float32


def test_time_alone_can_end_a_run(rendered, tmp_path):
    bundle = train(Boxes(rendered, 'train'), tmp_path / 'w.safetensors', Plan(steps=0, minutes=0.02))
    assert 0 < bundle.created['steps'] < 1000


def test_schedule_rises_then_falls_to_nothing():
    assert schedule(0.025) == pytest.approx(0.5)
    assert schedule(0.05) == pytest.approx(1.0)
    assert schedule(0.525) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-9)
    assert schedule(0.0) > 0


def test_a_set_without_labels_is_refused(rendered, tmp_path):
    (rendered / 'train' / '000000' / 'scene_gt.json').unlink()
    with pytest.raises(ValueError, match='sim2real_da render'):
        train(Boxes(rendered, 'train'), tmp_path / 'w.safetensors', Plan(steps=1))


def test_a_run_that_goes_on_ends_where_one_without_a_break_does(rendered, tmp_path):
    data = Boxes(rendered, 'train')
    whole = train(data, tmp_path / 'whole.safetensors', Plan(steps=2, effects=True))
    out = tmp_path / 'parts.safetensors'
    plan = Plan(steps=2, effects=True, save_every=1)

    class Broken(Exception):
        pass

    def breaks(*_args):
        raise Broken

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        patch.setattr('sim2real_da.training._look', breaks)  # right after the checkpoint of step 1
        train(data, out, plan)
    assert Bundle.load(out).created['steps'] == 1
    parts = train(data, out, plan)
    for name in ('detector', 'pose'):
        for key, value in getattr(whole, name).state_dict().items():
            torch.testing.assert_close(getattr(parts, name).state_dict()[key], value, rtol=0, atol=0, msg=key)
    finished = out.read_bytes()
    train(data, out, plan)
    assert out.read_bytes() == finished  # nothing is left to do


def test_another_runs_checkpoint_is_refused(rendered, tmp_path):
    data, out = Boxes(rendered, 'train'), tmp_path / 'w.safetensors'
    train(data, out, Plan(steps=1))
    for change, says in (({'networks': ('pose',)}, '--networks was'), ({'seed': 1}, 'the weights it starts from was'),
                         ({'turn': 5.0}, '--turn was 20.0, is 5.0'),
                         ({'backbone': 'resnet18'}, 'the weights it starts from was')):
        with pytest.raises(ValueError, match=f'w.resume.pt: of another run: {says}'):
            train(data, out, Plan(steps=1, **change))


def test_what_cannot_be_trained_on_is_said_before_the_first_step(rendered, tmp_path):
    data, out = Boxes(rendered, 'train'), tmp_path / 'w.safetensors'
    with pytest.raises(ValueError, match='weights for other objects: they know obj_000001 with a diameter of'):
        train(data, out, Plan(steps=1), bundle=Bundle.create({'obj_000001': box_model('obj_000001', (0.8, 0.4, 0.1))}))
    with pytest.raises(ValueError, match='weights for other objects: they know mug'):
        train(data, out, Plan(steps=1), bundle=Bundle.create({'mug': box_model('mug')}))
    with pytest.raises(ValueError, match='no ImageNet weights for resnet_tiny'):
        train(data, out, Plan(steps=1, pretrained=True))
    with pytest.raises(ValueError, match='neither steps nor minutes'):
        train(data, out, Plan(steps=0))
    for name in ('scene_gt', 'scene_gt_info'):
        path = rendered / 'train' / '000000' / f'{name}.json'
        path.write_text(json.dumps({number: [] for number in json.loads(path.read_text())}))
    with pytest.raises(ValueError, match='empty split: no object is a quarter visible in 4 frames'):
        train(Boxes(rendered, 'train'), out, Plan(steps=1))
    assert not out.exists()
