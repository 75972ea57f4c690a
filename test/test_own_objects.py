# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""docs/own_objects.md from end to end in small: meshes, models, rendered frames, weights, scores; and bad input."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip('mujoco', reason='the simulator needs MuJoCo: pip install mujoco')

from sim2real_da.cli import main  # noqa: E402
from sim2real_da.data.bop import BopDataset  # noqa: E402
from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.simulation.models import make_models  # noqa: E402
from sim2real_da.simulation.objects import SimObject, bop_models, bop_objects, tools  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def exported(tool: SimObject, scale: float = 1.0) -> trimesh.Trimesh:
    """One of the project's tools as a CAD program would hand it out: one mesh with colours by face."""
    parts = []
    for part in (p for p in tool.parts if p.draw):
        colours = np.broadcast_to(np.round(255 * part.colours), (len(part.faces), 3)).astype(np.uint8)
        parts.append(trimesh.Trimesh(scale * part.vertices, part.faces, face_colors=colours, process=False))
    return trimesh.util.concatenate(parts)


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    """The tools in millimetres."""
    folder = tmp_path / 'cad'
    folder.mkdir()
    for tool in tools():
        exported(tool, 1000).export(folder / f'{tool.name}.ply')
    return folder


def brick(folder: Path, name: str = 'brick.stl', size: tuple[float, float, float] = (100, 60, 30)) -> Path:
    folder.mkdir(exist_ok=True)
    mesh = trimesh.creation.box(size)
    mesh.apply_translation((200, 0, 5))
    mesh.export(folder / name)
    return folder


def test_models_are_the_meshes_in_their_own_frame(meshes: Path, tmp_path: Path) -> None:
    names = make_models(meshes, tmp_path / 'models', symmetries=['screwdriver=z'])
    assert names == {1: 'drill', 2: 'hammer', 3: 'mug', 4: 'screwdriver', 5: 'wrench'}
    found = bop_models(tmp_path / 'models')
    for tool in tools():
        model = found[tool.name]
        np.testing.assert_allclose(model.minimum, tool.model.minimum, atol=1e-5)
        np.testing.assert_allclose(model.size, tool.model.size, atol=1e-5)
        assert model.diameter == pytest.approx(tool.model.diameter, rel=1e-3)
        assert model.symmetric == tool.model.symmetric
        step = len(model.symmetries) // len(tool.model.symmetries)  # the tools' steps are coarser
        np.testing.assert_allclose(model.symmetries[::step], tool.model.symmetries, atol=1e-4)
    mug = next(o for o in bop_objects(tmp_path / 'models', faces=0) if o.name == 'mug')
    green = np.linalg.norm(mug.parts[0].colours - (0.1, 0.5, 0.22), axis=1) < 0.01
    assert 0.2 < green.mean() < 0.95, 'colours by face are kept'
    assert not mug.upright


def test_from_meshes_to_weights(meshes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, rendered, weights = tmp_path / 'models', tmp_path / 'rendered', tmp_path / 'mine.safetensors'
    for command in (
            ['models', '--meshes', meshes, '--out', models, '--symmetry', 'screwdriver=z'],
            ['render', '--objects', models, '--out', rendered, '--count', 6, '--width', 160, '--height', 120],
            ['train', '--data', rendered, '--out', weights, '--steps', 2],
            ['evaluate', '--weights', weights, '--data', rendered, '--split', 'train', '--json', tmp_path / 's.json']):
        assert main([str(word) for word in command]) == 0, capsys.readouterr().err
    dataset = BopDataset(rendered, 'train')
    assert list(dataset.objects()) == ['drill', 'hammer', 'mug', 'screwdriver', 'wrench']
    labels = [label for i in dataset.ids() for label in dataset.frame(i).labels]
    assert len({label.name for label in labels}) >= 4
    colours = {name: [] for name in dataset.objects()}
    for number in dataset.ids():
        found = dataset.frame(number)
        for label in found.labels:
            colours[label.name].append(found.frame.image[label.mask].mean(axis=0))
    red, green, _ = np.mean(colours['mug'], axis=0)
    assert green > 1.1 * red, 'the mug is green'
    assert (rendered / 'contact_sheet.png').is_file()
    assert Bundle.load(weights).classes == tuple(dataset.objects())
    assert json.loads((tmp_path / 's.json').read_text())['frames'] == 6


def test_units_axes_and_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metres = brick(tmp_path / 'metres', size=(0.1, 0.06, 0.03))
    mesh = trimesh.load(metres / 'brick.stl')
    mesh.apply_translation((-200, 0, -5))
    mesh.export(metres / 'brick.stl')
    with caplog.at_level(logging.WARNING):
        make_models(metres, tmp_path / 'a', 'm')
    assert 'brick.stl: no colours, grey from now on' in caplog.text
    np.testing.assert_allclose(bop_models(tmp_path / 'a')['brick'].size, [0.1, 0.06, 0.03], atol=2e-5)
    make_models(brick(tmp_path / 'cad'), tmp_path / 'b', symmetries=['brick=z180', 'brick=x180'])
    model = bop_models(tmp_path / 'b')['brick']
    assert len(model.symmetries) == 4, 'two half turns make a third'
    corners = model.minimum + model.size * np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    for symmetry in model.symmetries:  # about the middle, not the CAD origin 20 cm beside it
        moved = corners @ symmetry[:3, :3].T + symmetry[:3, 3]
        np.testing.assert_allclose(sorted(map(tuple, moved.round(5))), sorted(map(tuple, corners.round(5))), atol=2e-5)


def test_what_cannot_be_right_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cad = brick(tmp_path / 'cad')

    def refused(*words: object, folder: Path = cad) -> str:
        assert main(['models', '--meshes', str(folder), '--out', str(tmp_path / 'out'), *map(str, words)]) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1
        assert not (tmp_path / 'out').exists()
        return said

    assert 'no .ply .obj .stl mesh here' in refused(folder=tmp_path)
    assert 'try --unit mm' in refused('--unit', 'm')
    assert 'try --unit m,' in refused(folder=brick(tmp_path / 'small', size=(0.1, 0.06, 0.03)))
    assert 'no mesh named mug; there are brick' in refused('--symmetry', 'mug=z')
    for text in ('brick', 'brick=w', 'brick=z7', 'brick=z0', 'brick=z360'):
        assert f'--symmetry {text}: expected NAME=z' in refused('--symmetry', text)
    assert 'is it another axis?' in refused('--symmetry', 'brick=z90')
    assert 'have no end' in refused('--symmetry', 'brick=z120', 'brick=x120')
    assert 'several meshes named brick' in refused(folder=brick(brick(tmp_path / 'two'), 'brick.ply'))
    (tmp_path / 'cloud').mkdir()
    trimesh.PointCloud(np.random.default_rng(0).random((9, 3))).export(tmp_path / 'cloud' / 'cloud.ply')
    assert 'cloud.ply: no faces' in refused(folder=tmp_path / 'cloud')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'something').touch()
    with pytest.raises(ValueError, match='full: not empty'):
        make_models(cad, tmp_path / 'full')


def test_diameter_of_a_very_fine_mesh() -> None:
    from sim2real_da.simulation.objects import _diameter

    ball = trimesh.creation.icosphere(5, 0.05)  # 10,000 vertices, all on the hull
    assert _diameter(np.asarray(ball.vertices)) == pytest.approx(0.1, rel=1e-3)
