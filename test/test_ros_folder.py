# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptation from a rendered folder: weights are promoted without any simulator, a bad folder ends the start."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, rendered_set

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from ros_helpers import LATCHED, Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import UInt8MultiArray  # noqa: E402

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.runner import NodeSpec, graph_environment  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    bundle = Bundle.create({'box': box_model('box')}, {'input_size': (160, 120), 'width': 16})
    return bundle.save(tmp_path / 'source.safetensors')


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize('shadow', [False, True])
def test_weights_are_promoted_from_a_folder_without_a_simulator(
        graph: Graph, weights: Path, tmp_path: Path, shadow: bool) -> None:
    folder = rendered_set(tmp_path / 'set', scenes=2, frames=6)
    graph.start('adaptation', {
        'weights': str(weights), 'state_dir': str(tmp_path / 'state'), 'source': 'folder', 'source_folder': str(folder),
        'holdout': 2, 'gate_every': 2, 'tolerance': 1.0, 'max_steps': 4, 'batch_source': 2, 'batch_target': 2,
        'duty_cycle': 1.0, 'nice': 0, 'shadow': shadow, 'max_load': 1e-6,
        'evidence': False})  # an untrained network finds nothing on the camera
    published: list[int] = []
    graph.probe.create_subscription(
        UInt8MultiArray, 'adaptation/weights',
        lambda message: published.append(Bundle.from_bytes(bytes(message.data)).version), LATCHED)
    assert graph.values('adaptation')['source'] == str(folder)
    assert '6 frames to train on, 2 of other scenes for validation' in graph.runner.last_lines('adaptation')
    rng = np.random.default_rng(0)
    image, info = graph.publisher(Image, 'real/image'), graph.publisher(CameraInfo, 'real/camera_info')
    stamp = [0]

    def show() -> None:
        stamp[0] += 1_000_000
        head = messages.header(stamp[0], 'camera')
        info.publish(messages.camera_info_message(CAMERA, head))
        image.publish(messages.image_message(frame(rng).image, head))

    graph.until(lambda: graph.values('adaptation').get('state') == 'waiting for the load', 'the load', 90, show)
    assert 'a core over the last minute, max_load 1e-06' in graph.values('adaptation')['reason']
    assert graph.values('adaptation')['step'] == '0' and graph.set_parameter('adaptation', 'max_load', 0.0).successful
    graph.until(lambda: graph.values('adaptation').get('state') == 'done', 'four steps', 180, show)
    values = graph.values('adaptation')
    assert float(values['promotions']) == 2 and float(values['version']) == 3
    assert float(values['source_frames']) >= 2 + 96, 'the replay is filled, frames come again'
    assert not graph.probe.count_subscribers('/sim/image')
    assert 'sim/' not in graph.diagnostics['adaptation'].message, 'nobody waits for a simulator'
    assert (tmp_path / 'state' / 'v000003.safetensors').is_file()
    if shadow:
        assert not published and 'shadow: kept and not published, version 3' in graph.runner.last_lines('adaptation')
    else:
        graph.until(lambda: published and published[-1] == 3, 'version 3 on its topic')


def test_a_folder_that_cannot_be_used_is_one_line(weights: Path, tmp_path: Path) -> None:
    strange = rendered_set(tmp_path / 'strange', scenes=2, frames=3, name='spoon')
    real = shutil.copytree(strange, tmp_path / 'real')
    (real / 'train').rename(real / 'test')
    for number, (folder, says, more) in enumerate((
            ('', 'source_folder: empty, expected the folder', {}), (str(strange), 'shows spoon, which the model', {}),
            ('', f'labelled_folder {real}: shows spoon', {'source': 'topics', 'labelled_folder': str(real)}))):
        spec = NodeSpec('adaptation', '', {
            'weights': str(weights), 'state_dir': str(tmp_path / f'state{number}'), 'source': 'folder',
            'source_folder': folder, 'holdout': 2, **more})
        done = subprocess.run(spec.command(), capture_output=True, text=True, timeout=300, check=False,
                              env=graph_environment(97))
        said = done.stdout + done.stderr
        assert done.returncode == 1 and says in said and 'Traceback' not in said
        assert not list((tmp_path / f'state{number}').glob('v*')), 'the next start would take these for its own'
