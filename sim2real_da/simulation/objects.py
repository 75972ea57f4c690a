# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Objects a scene can hold: the project's own tools, or the coloured CAD models of a BOP data set.

A :class:`SimObject` is an :class:`~sim2real_da.samples.ObjectModel` (what training and metrics know) and the
:class:`Part` s it is drawn and collided with. All vertices are metres in the object's CAD frame.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from sim2real_da.samples import ObjectModel

LOG = logging.getLogger(__name__)
POINTS = 4096
CONTINUOUS_STEPS = 16
LIVE_FACES = 4000
_CACHE_VERSION = 3  # raise when what is cached changes its meaning


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


def cache_folder() -> Path:
    """Return the folder of converted meshes: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``sim2real_da``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'sim2real_da'


def surface_points(vertices: ArrayLike, faces: ArrayLike, count: int = POINTS, seed: int = 0) -> NDArray[np.float32]:
    """Draw points evenly over a mesh's surface.

    :param vertices: ``(V, 3)``
    :param faces: ``(F, 3)``
    :return: ``(count, 3)``, the same for the same mesh and seed
    :raises ValueError: when the mesh has no area
    """
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not area.sum() > 0:
        raise ValueError(f'mesh: {len(corners)} faces without area, expected a surface')
    rng = np.random.default_rng(seed)
    chosen = corners[rng.choice(len(area), count, p=area / area.sum())]
    # sqrt makes the barycentric coordinates uniform over the triangle
    a, b = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - a) * chosen[:, 0] + a * (1 - b) * chosen[:, 1] + a * b * chosen[:, 2]
    return np.asarray(points, dtype=np.float32)


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
        f'{folder}: no models_info.json here, in models/ or in models_eval/; expected a BOP data set')


def bop_models(folder: Path) -> dict[str, ObjectModel]:
    """Return what metrics need of a BOP folder's models, by class name ``obj_%06d``, in order of their ids.

    :raises FileNotFoundError: when ``models_info.json`` or a PLY is missing
    :raises ValueError: when one of them cannot be read
    """
    return {name: _model(name, info, _mesh(path, 0)) for name, path, info in _bop_files(folder)}


def bop_objects(folder: Path, faces: int = LIVE_FACES) -> list[SimObject]:
    """Read a BOP models folder for drawing.

    :param folder: a BOP data set or its ``models`` folder (coloured PLY, millimetres)
    :param faces: meshes are simplified to about so many faces; 0 keeps them as they are
    :raises FileNotFoundError: when ``models_info.json`` or a PLY is missing
    :raises ValueError: when one of them cannot be read
    """
    found = []
    for name, path, info in _bop_files(folder):
        mesh = _mesh(path, faces)
        model = _model(name, info, mesh)
        part = Part(mesh['vertices'], mesh['faces'], mesh['colours'])
        found.append(SimObject(name, model, (part,), upright=True, mass=max(0.05, 300 * float(np.prod(model.size)))))
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
    return float(pdist(vertices).max())


def _bop_files(folder: Path) -> list[tuple[str, Path, dict[str, Any]]]:
    folder = models_folder(Path(folder))
    table = folder / 'models_info.json'
    try:
        infos = json.loads(table.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{table}: not readable as JSON ({error}); expected BOP objects by id') from error
    found = []
    for number, info in sorted(infos.items(), key=lambda item: int(item[0])):
        name = f'obj_{int(number):06d}'
        path = folder / f'{name}.ply'
        if not path.is_file():
            raise FileNotFoundError(f'{path}: missing, but models_info.json lists object {number}; copy the PLY there')
        found.append((name, path, info))
    return found


def _model(name: str, info: dict[str, Any], mesh: dict[str, Any]) -> ObjectModel:
    return ObjectModel(
        name, mesh['points'],
        np.array([info['min_x'], info['min_y'], info['min_z']], dtype=np.float64) / 1000,
        np.array([info['size_x'], info['size_y'], info['size_z']], dtype=np.float64) / 1000,
        float(info['diameter']) / 1000, bop_symmetries(info))


def _mesh(path: Path, faces: int) -> dict[str, Any]:
    """Return vertices (metres), faces, face colours and surface points of a PLY, from the cache when it is there.

    ``faces`` 0 keeps the mesh as it is.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    cached = cache_folder() / 'meshes' / f'{digest}-{faces}-v{_CACHE_VERSION}.npz'
    if cached.is_file():
        with np.load(cached) as stored:
            return dict(stored)
    mesh = _convert(path, faces)
    cached.parent.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_name(f'{cached.stem}.{os.getpid()}.tmp.npz')
    np.savez(temporary, **mesh)
    os.replace(temporary, cached)  # two processes may convert the same mesh
    return mesh


def _convert(path: Path, faces: int) -> dict[str, Any]:
    import trimesh  # only converting needs it, a cached mesh does not

    try:
        mesh = trimesh.load(str(path), process=False, force='mesh')
    except Exception as error:
        raise ValueError(f'{path}: not readable as a PLY mesh ({error})') from error
    vertices = np.asarray(mesh.vertices, dtype=np.float64) / 1000
    triangles = np.asarray(mesh.faces, dtype=np.int32)
    if not len(triangles):
        raise ValueError(f'{path}: no faces, expected a triangle mesh')
    visual = mesh.visual if mesh.visual.kind == 'vertex' else mesh.visual.to_color()
    shade = np.asarray(visual.vertex_colors, dtype=np.float64)
    if shade.shape != (len(vertices), 4):  # a model without colours gives one default for all
        shade = np.tile(np.array([[153.0, 153.0, 153.0, 255.0]]), (len(vertices), 1))
    shade = shade[:, :3] / 255
    points = surface_points(vertices, triangles)
    if 0 < faces < len(triangles):
        vertices, triangles, shade = _simplified(vertices, triangles, shade, faces)
    return {
        'vertices': vertices, 'faces': triangles,
        'colours': np.asarray(shade[triangles].mean(axis=1)), 'points': points,
    }


def _simplified(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], colours: NDArray[np.float64], count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Collapse edges (quadric error) until about ``count`` faces are left; colours follow the nearest vertices."""
    import fast_simplification

    small, triangles = fast_simplification.simplify(
        vertices.astype(np.float32), faces.astype(np.int32), target_count=count)
    _, near = cKDTree(vertices).query(small, k=min(4, len(vertices)))
    return small.astype(np.float64), triangles.astype(np.int32), colours[near.reshape(len(small), -1)].mean(axis=1)
