# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da models``: a folder of CAD meshes becomes a BOP models folder that everything else here reads.

Meshes keep their own frame, origin included: poses, and the grasps that are planned on them, are of that frame. A class
has the name of its mesh's file.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sim2real_da.samples import ObjectModel
from sim2real_da.simulation.meshes import GREY, read_mesh, surface_points
from sim2real_da.simulation.objects import Part, SimObject, bop_symmetries, model_from_parts

LOG = logging.getLogger(__name__)
SUFFIXES = ('.ply', '.obj', '.stl')
MILLIMETRES = {'mm': 1.0, 'm': 1000.0}
SIZES = (5.0, 5000.0)  # millimetres; an object beyond is a wrong unit
FAR = 0.05  # of the diameter: a symmetry that moves parts of the surface farther than this away from it is none
LARGEST_GROUP = 60  # rotations of an icosahedron


def make_models(meshes: Path, out: Path, unit: str = 'mm', symmetries: Sequence[str] = ()) -> dict[int, str]:
    """Write ``out/obj_NNNNNN.ply`` (millimetres, coloured) and ``out/models_info.json``.

    :param meshes: folder of PLY, OBJ or STL files, one an object
    :param unit: of the meshes, ``mm`` or ``m``
    :param symmetries: ``NAME=z`` looks the same at every turn about z, ``NAME=z180`` at turns by 180 degrees; the axis
        goes through the middle of the surface, and a name may come several times
    :return: class name by object id
    :raises FileNotFoundError: when there are no meshes
    :raises ValueError: for a mesh that cannot be used, a unit that cannot be right, a symmetry that is none, or an
        ``out`` that holds something already
    """
    paths = _mesh_files(meshes)
    turns = _parse(symmetries, [path.stem for path in paths])
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out}: not empty; weights depend on the order of the objects, so choose another folder')
    entries, prepared = {}, []
    for number, path in enumerate(paths, start=1):
        vertices, faces, colours = read_mesh(path)
        vertices = vertices * MILLIMETRES[unit]
        _check_size(path, vertices, unit)
        if colours is None:
            LOG.warning('%s: no colours, grey from now on; a detector learns more from a coloured mesh', path)
            colours = np.full((len(vertices), 3), GREY)
        entries[number] = _entry(path.stem, vertices, faces, turns[path.stem])
        prepared.append((out / f'obj_{number:06d}.ply', vertices, faces, colours))
    out.mkdir(parents=True, exist_ok=True)
    for target, vertices, faces, colours in prepared:
        _write(target, vertices, faces, colours)
    (out / 'models_info.json').write_text(json.dumps(entries, indent=1))
    return {number: str(entry['name']) for number, entry in entries.items()}


def write_models(objects: Sequence[SimObject], out: Path) -> None:
    """Write objects of the simulator as :func:`make_models` writes meshes, numbered from 1.

    What is there only to be touched is left out; every face has vertices of its own, so that it keeps its colour.
    """
    out.mkdir(parents=True, exist_ok=True)
    entries: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(objects, start=1):
        drawn = [part for part in item.parts if part.draw]
        corners = np.concatenate([1000 * part.vertices[part.faces].reshape(-1, 3) for part in drawn])
        colours = np.concatenate([
            np.repeat(np.broadcast_to(part.colours, (len(part.faces), 3)), 3, axis=0) for part in drawn])
        _write(out / f'obj_{number:06d}.ply', corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3), colours)
        entry = _measures(item.model) | {'upright': item.upright}
        alike = np.array(item.model.symmetries[1:], dtype=np.float64)  # the first is the identity
        alike[:, :3, 3] *= 1000
        if len(alike):
            entry['symmetries_discrete'] = [turn.ravel().tolist() for turn in alike]
        entries[number] = entry
    (out / 'models_info.json').write_text(json.dumps(entries, indent=1))


def _mesh_files(folder: Path) -> list[Path]:
    paths = sorted(p for p in folder.glob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{folder}: no {" ".join(SUFFIXES)} mesh here; expected a folder with one an object')
    names = [path.stem for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f'{folder}: several meshes named {", ".join(sorted(twice))}; the name is the class, keep one')
    return paths


def _parse(symmetries: Sequence[str], names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Return axis and angle in degrees (0: every angle) of each object's symmetries."""
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    for text in symmetries:
        match = re.fullmatch(r'(.+)=([xyz])(\d*)', text)
        angle = int(match[3] or 0) if match else 0
        if not match or (match[3] and (angle == 0 or 360 % angle or angle == 360)):
            raise ValueError(f'--symmetry {text}: expected NAME=z for every turn about the axis z, or NAME=z180 for '
                             'turns by 180 degrees (or another part of 360)')
        if match[1] not in found:
            raise ValueError(f'--symmetry {text}: no mesh named {match[1]}; there are {", ".join(names)}')
        found[match[1]].append((match[2], angle))
    return found


def _check_size(path: Path, vertices: NDArray[np.float64], unit: str) -> None:
    size = float(np.ptp(vertices, axis=0).max())
    if not SIZES[0] <= size <= SIZES[1]:
        other = 'm' if unit == 'mm' else 'mm'
        raise ValueError(f'{path}: {size:g} mm large if its unit is {unit}, expected {SIZES[0]:g} to {SIZES[1]:g}; '
                         f'try --unit {other}, or scale the mesh')


def _entry(
    name: str, vertices: NDArray[np.float64], faces: NDArray[np.int32], turns: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """Return an object's entry in models_info.json."""
    part = Part(vertices / 1000, faces, np.full(3, GREY))
    model = model_from_parts(name, [part])
    # nobody knows which way a CAD frame's z points: physics decides how the object lies on the table
    entry = _measures(model) | {'upright': False}
    middle = _middle(vertices, faces)
    axes = {axis: np.eye(3)[place] for place, axis in enumerate('xyz')}
    continuous = [{'axis': axes[axis].tolist(), 'offset': middle.tolist()} for axis, angle in turns if not angle]
    if continuous:
        entry['symmetries_continuous'] = continuous
    rotations = _group(name, [
        Rotation.from_rotvec(angle * axes[axis], degrees=True).as_matrix() for axis, angle in turns if angle])
    if len(rotations) > 1:
        entry['symmetries_discrete'] = [_about(turn, middle).ravel().tolist() for turn in rotations[1:]]
    points = surface_points(part.vertices, faces, 20_000)
    tree = cKDTree(points)
    for symmetry in bop_symmetries(entry)[1:]:
        moved = points @ symmetry[:3, :3].T + symmetry[:3, 3]
        off = float(np.percentile(tree.query(moved)[0], 98)) / model.diameter
        if off > FAR:
            told = ' '.join(f'{name}={axis}{angle or ""}' for axis, angle in turns)
            raise ValueError(f'--symmetry {told}: turned so, parts of it are {100 * off:.0f} % of its diameter away '
                             'from where its surface was; is it another axis?')
    return entry


def _measures(model: ObjectModel) -> dict[str, Any]:
    """Return what models_info.json says of any object: its name, and its sizes in millimetres."""
    entry: dict[str, Any] = {'name': model.name, 'diameter': 1000 * model.diameter}
    for axis, low, extent in zip('xyz', model.minimum, model.size, strict=True):
        entry[f'min_{axis}'], entry[f'size_{axis}'] = 1000 * float(low), 1000 * float(extent)
    return entry


def _middle(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the middle of a surface, ``(3,)``: every symmetry of a shape leaves it in its place."""
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.asarray(np.average(corners.mean(axis=1), axis=0, weights=area))


def _group(name: str, turns: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Return all products of some rotations ``(3, 3)``, identity first."""
    group = [np.eye(3)]
    for known in group:  # grows while it is read
        for turn in turns:
            product = turn @ known
            if not any(np.allclose(product, other, atol=1e-6) for other in group):
                group.append(product)
        if len(group) > LARGEST_GROUP:
            raise ValueError(f'--symmetry {name}: these turns together have no end; a sphere is {name}=x {name}=y')
    return group


def _about(turn: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    transform = np.eye(4)
    transform[:3, :3] = turn
    transform[:3, 3] = centre - turn @ centre
    return transform


def _write(
    path: Path, vertices: NDArray[np.float64], faces: NDArray[np.int32], colours: NDArray[np.float64],
) -> None:
    import trimesh  # loads slowly, and most commands do not need it

    shade = np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)
    trimesh.Trimesh(vertices, faces, vertex_colors=shade, process=False).export(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da models``."""
    parser.add_argument('--meshes', type=Path, required=True, help='folder of PLY, OBJ or STL files, one an object')
    parser.add_argument('--out', type=Path, required=True, help='folder to write, for --objects of other commands')
    parser.add_argument('--unit', choices=tuple(MILLIMETRES), default='mm', help='of the meshes (default: mm)')
    parser.add_argument('--symmetry', nargs='+', action='extend', default=[], metavar='NAME=AXIS[DEGREES]',
                        help='mug=z: looks the same at every turn about z; box=z180: at turns by 180 degrees')


def run(options: argparse.Namespace) -> None:
    """Convert as asked for on the command line."""
    names = make_models(options.meshes, options.out, options.unit, options.symmetry)
    for number, name in names.items():
        LOG.info('obj_%06d %s', number, name)
    LOG.info('%s: %d objects; look at them with sim2real_da render --objects %s --out FOLDER --count 24', options.out,
             len(names), options.out)
