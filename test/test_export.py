# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX files answer as the networks do, and the manifest's steps alone give the package's own boxes and poses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model
from torch import nn

from sim2real_da.cli import main
from sim2real_da.geometry import ray_rotation
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform
from sim2real_da.networks.dense_pose import solve_pose
from sim2real_da.networks.detector import Detector, DetectorOutput, decode
from sim2real_da.networks.direct_pose import pose_of
from sim2real_da.networks.export import DETECTOR_OUTPUTS, POSE_OUTPUTS, export_network, named_tensors
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.samples import Pose

FROZEN = {'backbone': 'efficientnet_lite0', 'frozen': True}
BOX = np.array([60.0, 50.0, 180.0, 130.0])


@pytest.fixture(scope='module')
def onnxruntime() -> Any:
    pytest.importorskip('onnxscript', reason='needs onnxscript (requirements-test.txt)')
    return pytest.importorskip('onnxruntime', reason='needs onnxruntime (requirements-test.txt)')


def lively(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Take batch statistics from random pictures: else so little comes through that every answer is the same."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.rand(4, 3, size[1], size[0]))
    return network.eval()


@pytest.mark.parametrize('backbone', [{}, FROZEN], ids=['resnet_tiny', 'efficientnet_lite0'])
@pytest.mark.parametrize('kind', ['detector', *POSE_OUTPUTS])
def test_the_file_answers_as_the_network(kind: str, backbone: dict[str, Any], onnxruntime: Any, tmp_path: Path) -> None:
    if kind == 'detector':  # a height that stride 32 does not divide
        size, expected = (128, 72), DETECTOR_OUTPUTS
        network = lively(Detector(3, input_size=size, **backbone), size)
    else:
        size, expected = (64, 64), POSE_OUTPUTS[kind]
        network = lively(build_pose_network(3, kind, **backbone), size)
    export_network(network, size, tmp_path / 'network.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'network.onnx', providers=['CPUExecutionProvider'])
    assert [o.name for o in session.get_outputs()] == list(expected)
    for batch in (1, 3):
        images = torch.rand(batch, 3, size[1], size[0])
        with torch.inference_mode():
            wanted = named_tensors(network(images))
        if batch > 1:  # pictures make a difference
            assert all((t - t[:1]).abs().max() > 0.01 for t in wanted.values())
        for (name, tensor), found in zip(wanted.items(), session.run(None, {'images': images.numpy()})):
            assert found.shape == tuple(tensor.shape)
            np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_command_writes_three_files(onnxruntime: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = {'box': box_model('box'), 'bar': box_model('bar', (0.08, 0.01, 0.01))}
    bundle = Bundle.create(objects, {'input_size': (160, 96), 'width': 16})
    bundle.covariance_factors = (4.0, 9.0)
    weights = bundle.save(tmp_path / 'some.safetensors')
    assert main(['export', '--weights', str(weights), '--out', str(tmp_path / 'out')]) == 0
    assert 'pose.onnx' in capsys.readouterr().out
    told = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert told['classes'] == ['box', 'bar']
    assert [o['diameter'] for o in told['objects']] == pytest.approx([m.diameter for m in objects.values()])
    assert told['pose']['covariance_factors'] == {'translation': 4.0, 'rotation': 9.0}
    assert told['pose']['representation'] == 'direct'
    assert told['pose']['looks'] == 1 and any(step.startswith('looks:') for step in told['pose']['steps'])
    for name, count in (('detector', 2), ('pose', 3)):
        session = onnxruntime.InferenceSession(
            tmp_path / 'out' / told[name]['file'], providers=['CPUExecutionProvider'])
        (images, shape), = told[name]['input'].items()
        answers = session.run(None, {images: np.random.default_rng(0).random((count, *shape[1:]), np.float32)})
        assert [o.name for o in session.get_outputs()] == list(told[name]['outputs'])
        assert len(answers[0]) == count


def test_a_missing_package_is_one_line(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    assert main(['export', '--weights', 'tools', '--out', str(tmp_path)]) == 2
    assert 'the Python package onnx is missing; pip install onnx onnxscript' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- the manifest's steps in NumPy; a reader of the files would write these ----------------------------------------

def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def crop_of(box: np.ndarray, size: int) -> tuple[float, np.ndarray]:
    """k and t of "crop pixel = k * image pixel + t"."""
    k = size / max(box[2] - box[0], box[3] - box[1]) / 1.4
    return k, (size - 1) / 2 - k * (box[:2] + box[2:]) / 2


def test_steps_of_boxes() -> None:
    heat, sides = torch.randn(1, 2, 6, 8) - 2, torch.rand(1, 4, 6, 8) * 3
    output = DetectorOutput(heat, sides, torch.zeros(1, 3, 6, 8), [])
    boxes, scores, classes = (t.numpy() for t in decode(output, 0.2)[0])
    p = sigmoid(heat[0].numpy())
    padded = np.pad(p, ((0, 0), (1, 1), (1, 1)))
    found = []
    for c, row, column in np.argwhere(p > 0.2):
        if p[c, row, column] >= padded[c, row:row + 3, column:column + 3].max():
            x, y = 4 * column + 1.5, 4 * row + 1.5
            left, top, right, bottom = sides[0, :, row, column].numpy()
            found.append([x - left, y - top, x + right, y + bottom, p[c, row, column], c])
    found.sort(key=lambda row: -row[4])  # boxes of at most 6 pixels around peaks 8 apart: nothing to suppress
    np.testing.assert_allclose(np.column_stack([boxes, scores, classes]), found, atol=1e-5)


def test_steps_of_crops() -> None:
    k, t = crop_of(BOX, 64)
    np.testing.assert_allclose(crop_transform(BOX, 64), np.column_stack([k * np.eye(2), t]))


def test_steps_of_direct_poses() -> None:
    rng, model, size = np.random.default_rng(0), box_model('box'), 64
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    centre, log_size = np.array([0.02, -0.03]), -0.4
    solved = pose_of(rotation, centre, log_size, np.full(3, -2.0), crop_transform(BOX, size), model, CAMERA, size)
    assert solved is not None
    k, t = crop_of(BOX, size)
    m = (centre * size + (size - 1) / 2 - t) / k
    depth = CAMERA.fx * model.diameter * k / (np.exp(log_size) * size)
    place = depth * np.linalg.inv(CAMERA.matrix()) @ [*m, 1]
    whole = ray_rotation(place) @ rotation
    np.testing.assert_allclose(solved[0].matrix()[:3, :3], whole, atol=1e-9)
    np.testing.assert_allclose(solved[0].translation, place - whole @ (model.minimum + model.size / 2), atol=1e-9)


def test_steps_of_dense_poses() -> None:
    model, size = box_model('box'), 64
    pose = Pose(np.array([0.3, 0.5, 0.1, 0.8]), np.array([0.0, 0.0, 0.3]))
    k, t = crop_of(BOX, size)
    row, column = np.mgrid[:size // 2, :size // 2]
    cells = np.stack([2 * column + 0.5, 2 * row + 0.5], axis=-1)
    pixels = (cells - t) / k
    # every cell inside the box's outline sees the plane z = 0 of the object, as far as the object reaches
    rays = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1) @ np.linalg.inv(CAMERA.matrix()).T
    turn = pose.matrix()[:3, :3]
    normal = turn[:, 2]
    depth = (normal @ pose.translation) / (rays @ normal)
    points = (rays * depth[..., None] - pose.translation) @ turn
    seen = np.all(np.abs(points) <= model.size / 2, axis=-1)
    assert seen.sum() > 30
    coordinates = (points - model.minimum) / (model.size / 2) - 1
    solved = solve_pose(coordinates.transpose(2, 0, 1).astype(np.float32), seen.astype(np.float32),
                        crop_transform(BOX, size), model, CAMERA)
    assert solved is not None
    np.testing.assert_allclose(solved[0].matrix(), pose.matrix(), atol=1e-3)
    found = model.minimum + (1 + coordinates[seen]) * model.size / 2
    good, turned, moved = cv2.solvePnP(found, pixels[seen], CAMERA.matrix(), None)
    assert good
    np.testing.assert_allclose(cv2.Rodrigues(turned)[0], turn, atol=1e-3)
    np.testing.assert_allclose(moved[:, 0], pose.translation, atol=1e-3)
