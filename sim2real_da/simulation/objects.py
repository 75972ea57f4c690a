# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Objects a scene can hold: the project's own tools, or the coloured CAD models of a BOP data set.

A :class:`SimObject` is an :class:`~sim2real_da.samples.ObjectModel` (what training and metrics know) and the
:class:`Part` s it is drawn and collided with. All vertices are metres in the object's CAD frame.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from sim2real_da.samples import ObjectModel
from sim2real_da.simulation.meshes import cache_folder as cache_folder  # nodes and tools keep their own there, too
from sim2real_da.simulation.meshes import prepared_mesh, surface_points

LOG = logging.getLogger(__name__)
CONTINUOUS_STEPS = 64  # of a turn: half a step, 2.8 degrees, is the most that a rotation looks wrong by
LIVE_FACES = 4000
MANY = 4000  # vertices; the distances between all pairs of more do not fit into memory
MEASURES = ('diameter', 'min_x', 'min_y', 'min_z', 'size_x', 'size_y', 'size_z')


@dataclass(frozen=True)
class Part:
    """One mesh of an object.

    :param vertices: ``(V, 3)`` metres, CAD frame
    :param faces: ``(F, 3)`` indices, counter-clockwise seen from outside
    :param colours: RGB 0..1, ``(3,)`` for the whole part or ``(F, 3)`` one for each face
    :param collide: whether its convex hull takes part in contacts
    :param draw: whether it is visible (a hull that only stands in for a hollow part is not)
    :param specular: strength of highlights 0..1
    :param shininess: narrowness of highlights 0..1
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    colours: NDArray[np.float64]
    collide: bool = True
    draw: bool = True
    specular: float = 0.3
    shininess: float = 0.3


@dataclass(frozen=True)
class SimObject:
    """An object the simulator can put on its table.

    :param parts: meshes in the CAD frame
    :param upright: whether the CAD frame's z axis points up when the object stands as people put it down
    :param mass: kilograms, for the physics only
    """

    name: str
    model: ObjectModel
    parts: tuple[Part, ...]
    upright: bool = False
    mass: float = 0.2


def continuous_symmetry(axis: ArrayLike, offset: ArrayLike = (0, 0, 0), steps: int = CONTINUOUS_STEPS) -> NDArray[Any]:
    """Return a rotation symmetry about an axis in steps, identity first.

    :param axis: ``(3,)`` direction in the CAD frame
    :param offset: ``(3,)`` a point of the axis, metres
    :return: ``(steps, 4, 4)``
    """
    direction = np.asarray(axis, dtype=np.float64)
    centre = np.asarray(offset, dtype=np.float64)
    turns = np.tile(np.eye(4), (steps, 1, 1))
    for turn, angle in zip(turns, 2 * np.pi * np.arange(steps) / steps, strict=True):
        turn[:3, :3] = Rotation.from_rotvec(direction / np.linalg.norm(direction) * angle).as_matrix()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
    return turns


def bop_symmetries(info: dict[str, Any]) -> NDArray[np.float64]:
    """Return the symmetries of one ``models_info.json`` entry, metres, ``(K, 4, 4)``, identity first.

    Every discrete symmetry is combined with every step of the continuous one, as the BOP toolkit does.
    """
    discrete = [np.eye(4)]
    for values in info.get('symmetries_discrete', []):
        transform = np.asarray(values, dtype=np.float64).reshape(4, 4).copy()
        transform[:3, 3] /= 1000
        discrete.append(transform)
    turns = [np.eye(4)[None]]
    turns += [
        continuous_symmetry(entry['axis'], np.asarray(entry['offset'], dtype=np.float64) / 1000)
        for entry in info.get('symmetries_continuous', [])
    ]
    # several continuous axes (a sphere) are united, not multiplied: their products add nothing a metric would miss
    continuous = np.concatenate([turns[0], *[t[1:] for t in turns[1:]]])
    return np.stack([d @ c for d in discrete for c in continuous])


def models_folder(folder: Path) -> Path:
    """Return the folder that holds ``models_info.json``: ``folder`` itself or the ``models`` folder in it.

    :raises FileNotFoundError: when there is neither
    """
    for candidate in (folder, folder / 'models', folder / 'models_eval'):
        if (candidate / 'models_info.json').is_file():
            return candidate
    raise FileNotFoundError(
        f'{folder}: no models_info.json here, in models/ or in models_eval/; expected a BOP data set, '
        'or a folder made by sim2real_da models')


def bop_names(folder: Path) -> dict[int, str]:
    """Return the class name of each object id of a BOP folder: the ``name`` of its entry, else ``obj_%06d``.

    :raises FileNotFoundError: when ``models_info.json`` or a PLY is missing
    :raises ValueError: when ``models_info.json`` cannot be used
    """
    return {number: name for number, name, _, _ in _bop_files(folder)}


def bop_models(folder: Path) -> dict[str, ObjectModel]:
    """Return what metrics need of a BOP folder's models, by class name, in order of their ids.

    :raises FileNotFoundError: when ``models_info.json`` or a PLY is missing
    :raises ValueError: when one of them cannot be used
    """
    return {name: _read(name, path, info, 0)[0] for _, name, path, info in _bop_files(folder)}


def bop_objects(folder: Path, faces: int = LIVE_FACES) -> list[SimObject]:
    """Read a BOP models folder for drawing.

    :param folder: a BOP data set or its ``models`` folder (coloured PLY, millimetres)
    :param faces: meshes are simplified to about so many faces; 0 keeps them as they are
    :raises FileNotFoundError: when ``models_info.json`` or a PLY is missing
    :raises ValueError: when one of them cannot be used
    """
    found = []
    for _, name, path, info in _bop_files(folder):
        model, part = _read(name, path, info, faces)
        # BOP's models have z upwards; what `sim2real_da models` made of any CAD frame says that it may not
        found.append(SimObject(name, model, (part,), upright=bool(info.get('upright', True)),
                               mass=max(0.05, 300 * float(np.prod(model.size)))))
    return found


def load_objects(spec: str | Path) -> list[SimObject]:
    """Return the objects a user named: ``tools``, or a folder with BOP models.

    :raises FileNotFoundError: when the folder is missing or holds no models
    """
    return tools() if str(spec) == 'tools' else bop_objects(Path(spec))


def tools() -> list[SimObject]:
    """Return the project's own five tools: hammer, screwdriver, wrench, mug, drill."""
    from sim2real_da.simulation import tools as modelling  # it builds on this file

    return modelling.tools()


def model_from_parts(
    name: str, parts: Sequence[Part], symmetries: NDArray[np.float64] | None = None,
) -> ObjectModel:
    """Measure the drawn parts of an object: points, box and diameter."""
    drawn = [part for part in parts if part.draw]
    offsets = np.cumsum([0, *[len(part.vertices) for part in drawn[:-1]]])
    vertices = np.concatenate([part.vertices for part in drawn])
    faces = np.concatenate([part.faces + offset for part, offset in zip(drawn, offsets, strict=True)])
    minimum, maximum = vertices.min(axis=0), vertices.max(axis=0)
    return ObjectModel(
        name, surface_points(vertices, faces), minimum, maximum - minimum, _diameter(vertices),
        np.eye(4)[None] if symmetries is None else symmetries)


def _diameter(vertices: NDArray[np.float64]) -> float:
    try:
        vertices = vertices[ConvexHull(vertices).vertices]
    except QhullError:  # a flat mesh has no hull; its points do
        LOG.debug('flat mesh of %d vertices: diameter from all of them', len(vertices))
    if len(vertices) > MANY:  # a fine round mesh: the farthest vertices in 2000 directions, right to 0.1 %
        turns = np.random.default_rng(0).normal(size=(2000, 3))
        vertices = vertices[np.unique([int(np.argmax(vertices @ turn)) for turn in turns])]
    return float(pdist(vertices).max())


def bop_diameters(folder: Path) -> dict[str, float]:
    """Return the objects' diameters in metres by class name, without a look at the meshes."""
    return {name: _millimetres(path.with_name('models_info.json'), path, info['diameter']) / 1000
            for _, name, path, info in _bop_files(folder)}


def _millimetres(table: Path, mesh: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f'{table}: a diameter of {value!r} mm for {mesh.name}; expected a number above 0')
    return float(value)


def _bop_files(folder: Path) -> list[tuple[int, str, Path, dict[str, Any]]]:
    """Return id, class name, PLY and entry of each object, in order of the ids."""
    folder = models_folder(Path(folder))
    table = folder / 'models_info.json'
    try:
        infos = {int(number): info for number, info in json.loads(table.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{table}: not readable ({error}); expected a JSON object with an entry for each object id'
                         ) from error
    found = []
    for number, info in sorted(infos.items()):
        if not isinstance(info, dict):
            raise ValueError(f'{table}: object {number} is {info!r}; expected its measures by name, in millimetres')
        missing = [key for key in MEASURES if key not in info]
        if missing:
            raise ValueError(f'{table}: object {number} has no {", ".join(missing)}; expected them in millimetres')
        path = folder / f'obj_{number:06d}.ply'
        if not path.is_file():
            raise FileNotFoundError(f'{path}: missing, but models_info.json lists object {number}; copy the PLY there')
        found.append((number, str(info.get('name', path.stem)), path, info))
    unlisted = sorted({path.stem for path in folder.glob('obj_*.ply')} - {path.stem for _, _, path, _ in found})
    if unlisted:
        raise ValueError(f'{table}: no entry for {", ".join(unlisted)}; add its diameter, min_x, size_x and so on in '
                         'millimetres, or take the PLY out of the folder')
    names = [name for _, name, _, _ in found]
    if len(set(names)) < len(names):
        raise ValueError(f'{table}: two objects share a name ({", ".join(names)}); expected different ones')
    return found


def _read(name: str, path: Path, info: dict[str, Any], faces: int) -> tuple[ObjectModel, Part]:
    mesh = prepared_mesh(path, faces)
    part = Part(mesh['vertices'], mesh['faces'], mesh['colours'])
    diameter = _millimetres(path.with_name('models_info.json'), path, info['diameter']) / 1000
    ratio = float(np.linalg.norm(np.ptp(part.vertices, axis=0))) / diameter
    table = path.with_name('models_info.json')
    # a box's diagonal is 1 to 1.74 times the diameter of what fills it; simplifying changes little
    if 0.8e-3 < ratio < 2.2e-3:
        raise ValueError(f'{path}: 1000 times smaller than the diameter in {table} ({1000 * diameter:g} mm); the mesh '
                         'seems to be in metres, expected millimetres: sim2real_da models --unit m converts it')
    if not 0.8 < ratio < 2.2:
        raise ValueError(f'{path}: its bounding box is {ratio:.3g} times the diameter in {table} ({1000 * diameter:g} '
                         'mm), expected 1 to 1.8; both have to be of one mesh, in millimetres')
    if diameter < 1e-3:
        raise ValueError(f'{table}: a diameter of {1000 * diameter:g} mm for {path.name}; models and table seem to be '
                         'in metres, expected millimetres: sim2real_da models --unit m converts them')
    try:
        symmetries = bop_symmetries(info)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{table}: symmetries of {path.stem} are not readable ({error}); expected symmetries_discrete '
                         'with 16 numbers each, and symmetries_continuous with axis and offset') from error
    return ObjectModel(
        name, mesh['points'],
        np.array([info['min_x'], info['min_y'], info['min_z']], dtype=np.float64) / 1000,
        np.array([info['size_x'], info['size_y'], info['size_z']], dtype=np.float64) / 1000,
        diameter, symmetries), part
