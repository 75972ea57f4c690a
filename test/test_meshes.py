# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Object models from files: colours of every kind of mesh, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from sim2real_da.simulation.meshes import GREY, prepared_mesh, read_mesh
from sim2real_da.simulation.objects import bop_diameters, bop_models, bop_names, bop_objects

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def brick(scale: float = 1.0, coloured: bool = True) -> trimesh.Trimesh:
    """A box of 100 x 60 x 30."""
    mesh = trimesh.creation.box((100 * scale, 60 * scale, 30 * scale))
    if coloured:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile(RED, (len(mesh.vertices), 1)))
    return mesh


def models(folder: Path, mesh: Any = None, **changes: Any) -> Path:
    """A BOP models folder of one object in millimetres; a change to None takes a key out of its entry."""
    folder.mkdir(parents=True)
    (mesh or brick()).export(folder / 'obj_000004.ply')
    entry = {'diameter': 120.4, 'min_x': -50, 'min_y': -30, 'min_z': -15, 'size_x': 100, 'size_y': 60, 'size_z': 30}
    entry = {key: value for key, value in {**entry, **changes}.items() if value is not None}
    (folder / 'models_info.json').write_text(json.dumps({'4': entry}))
    return folder


def test_a_good_folder_is_read_and_may_name_its_objects(tmp_path: Path) -> None:
    assert list(bop_models(models(tmp_path / 'plain'))) == ['obj_000004']
    assert bop_diameters(tmp_path / 'plain') == {'obj_000004': pytest.approx(0.1204)}
    named = models(tmp_path / 'named', name='brick', upright=False)
    assert bop_names(named) == {4: 'brick'} and list(bop_models(named)) == ['brick']
    (found,) = bop_objects(named)
    assert found.name == found.model.name == 'brick' and not found.upright
    np.testing.assert_allclose(found.parts[0].colours, [(1, 0, 0)] * 12)


def test_missing_and_broken_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no models_info.json.*expected a BOP data set'):
        bop_models(tmp_path)
    with pytest.raises(ValueError, match='object 4 has no diameter, size_z; expected them in millimetres'):
        bop_models(models(tmp_path / 'short', diameter=None, size_z=None))
    folder = models(tmp_path / 'more')
    brick().export(folder / 'obj_000007.ply')
    with pytest.raises(ValueError, match='models_info.json: no entry for obj_000007; add its diameter'):
        bop_models(folder)
    (folder / 'models_info.json').write_text('[1, 2')
    with pytest.raises(ValueError, match='models_info.json: not readable'):
        bop_models(folder)
    twice = models(tmp_path / 'twice', name='brick')
    table = json.loads((twice / 'models_info.json').read_text())
    brick().export(twice / 'obj_000005.ply')
    (twice / 'models_info.json').write_text(json.dumps({**table, '5': table['4']}))
    with pytest.raises(ValueError, match='two objects share a name'):
        bop_models(twice)


def test_metres_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='obj_000004.ply: 1000 times smaller.*in metres, expected millimetres'):
        bop_models(models(tmp_path / 'mesh', brick(0.001)))
    table = {'diameter': 0.1204, 'size_x': 0.1, 'size_y': 0.06, 'size_z': 0.03}
    with pytest.raises(ValueError, match='a diameter of 0.1204 mm.*in metres, expected millimetres'):
        bop_models(models(tmp_path / 'both', brick(0.001), **table))
    with pytest.raises(ValueError, match='bounding box is 25.4 times the diameter.*both have to be of one mesh'):
        bop_models(models(tmp_path / 'inches', brick(25.4)))


def test_meshes_without_triangles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='obj_000004.ply: no faces, expected a triangle mesh'):
        bop_models(models(tmp_path / 'cloud', trimesh.PointCloud(brick().vertices)))
    flat = models(tmp_path / 'flat', trimesh.Trimesh([[0, 0, 0], [100, 0, 0], [50, 0, 0]], [[0, 1, 2]], process=False))
    with pytest.raises(ValueError, match='obj_000004.ply: .*without area'):
        bop_models(flat)
    (flat / 'obj_000004.ply').write_bytes(b'ply\nthis is none')
    with pytest.raises(ValueError, match='obj_000004.ply: not readable as a mesh'):
        bop_models(flat)
    with pytest.raises(FileNotFoundError, match='none.ply: no such mesh'):
        read_mesh(tmp_path / 'none.ply')


def test_a_mesh_without_colours_is_grey_and_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = models(tmp_path / 'plain', brick(coloured=False))
    for _ in range(2):  # from the file, then from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            (found,) = bop_objects(folder)
        np.testing.assert_allclose(found.parts[0].colours, GREY)
        (record,) = caplog.records
        assert 'obj_000004.ply: no colours, drawn in grey' in record.getMessage()


def test_colours_of_faces_and_materials_are_kept(tmp_path: Path) -> None:
    mesh = brick(coloured=False)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[RED] * 5 + [BLUE] * 7)
    mesh.export(tmp_path / 'faces.ply')
    vertices, faces, colours = read_mesh(tmp_path / 'faces.ply')
    assert colours is not None and vertices.shape == colours.shape == (36, 3)
    np.testing.assert_allclose(colours[faces].mean(axis=1), [(1, 0, 0)] * 5 + [(0, 0, 1)] * 7)

    (tmp_path / 'two.mtl').write_text('newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n')
    (tmp_path / 'two.obj').write_text(
        'mtllib two.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n'
        'usemtl red\nf 1 3 2\nf 1 2 4\nusemtl blue\nf 2 3 4\nf 1 4 3\n')
    _, faces, colours = read_mesh(tmp_path / 'two.obj')
    assert colours is not None
    assert sorted(map(tuple, colours[faces].mean(axis=1))) == [(0, 0, 1), (0, 0, 1), (1, 0, 0), (1, 0, 0)]


def test_meshes_without_shared_vertices_are_simplified_whole(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(4, 50.0)
    ball.export(tmp_path / 'ball.stl')  # every triangle has corners of its own
    mesh = prepared_mesh(tmp_path / 'ball.stl', 300)
    assert len(mesh['faces']) <= 310
    solid = trimesh.Trimesh(mesh['vertices'], mesh['faces'])
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.1)


def test_numbers_and_files_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='models_info.json: a diameter of 0 mm for obj_000004.ply'):
        bop_models(models(tmp_path / 'zero', diameter=0))
    with pytest.raises(ValueError, match="models_info.json: a diameter of 'big' mm for obj_000004.ply; expected"):
        bop_models(models(tmp_path / 'text', diameter='big'))
    number = models(tmp_path / 'number')
    (number / 'models_info.json').write_text('{"4": 7}')
    with pytest.raises(ValueError, match='models_info.json: object 4 is 7; expected its measures by name'):
        bop_models(number)
    with pytest.raises(ValueError, match='models_info.json: symmetries of obj_000004 are not readable'):
        bop_models(models(tmp_path / 'turns', symmetries_discrete=[[1, 0, 0]]))
    folder = models(tmp_path / 'bare')
    ply = folder / 'obj_000004.ply'
    ply.write_bytes(ply.read_bytes().replace(b'\nelement vertex', b'\ncomment TextureFile gone.png\nelement vertex', 1))
    with pytest.raises(ValueError, match=r'obj_000004.ply: its texture gone.png is missing; copy it beside the mesh'):
        bop_models(folder)
