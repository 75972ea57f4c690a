# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes from files: read with their colours, simplified for drawing, and kept in a cache by content."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

LOG = logging.getLogger(__name__)
POINTS = 4096
GREY = 0.6
HEADER = 4096  # bytes of a PLY file in which its header names a texture
_TEXTURE = re.compile(rb'comment TextureFile +([^\r\n]+?) *\r?\n')
_CACHE_VERSION = 4  # raise when what is cached changes its meaning


def cache_folder() -> Path:
    """Return the folder of converted meshes: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``sim2real_da``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'sim2real_da'


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64] | None]:
    """Read a PLY, OBJ or STL file.

    A face's own colour is kept exactly: its corners are vertices of their own then.

    :return: vertices ``(V, 3)`` in the file's unit, faces ``(F, 3)``, RGB 0..1 of the vertices ``(V, 3)`` or None
    :raises FileNotFoundError: when there is no such file
    :raises ValueError: when it cannot be read or holds no triangles
    """
    import trimesh  # only converting needs it, a cached mesh does not

    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such mesh')
    with path.open('rb') as file:
        named = _TEXTURE.search(file.read(HEADER)) if path.suffix.lower() == '.ply' else None
    if named and not (texture := path.parent / named[1].decode(errors='replace')).is_file():
        raise ValueError(f'{path}: its texture {texture.name} is missing; copy it beside the mesh')
    try:
        mesh = trimesh.load(str(path), process=False, force='mesh')
    except Exception as error:  # each of trimesh's readers has its own kinds
        raise ValueError(f'{path}: not readable as a mesh ({error}); expected PLY, OBJ or STL') from error
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    faces = np.asarray(getattr(mesh, 'faces', ()), dtype=np.int32)  # older releases give a point cloud
    if not len(faces):
        raise ValueError(f'{path}: no faces, expected a triangle mesh; a point cloud has to be meshed first')
    if not np.isfinite(vertices).all():
        raise ValueError(f'{path}: vertices that are not finite; export the mesh again')
    kind = mesh.visual.kind
    if kind is None:
        return vertices, faces, None
    if kind == 'face':
        colours = np.repeat(np.asarray(mesh.visual.face_colors, dtype=np.float64), 3, axis=0)
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces), dtype=np.int32).reshape(-1, 3)
    else:
        visual = mesh.visual if kind == 'vertex' else mesh.visual.to_color()
        colours = np.asarray(visual.vertex_colors, dtype=np.float64)
        colours = np.broadcast_to(colours, (len(vertices), colours.shape[-1]))  # one material: one colour for all
    return vertices, faces, colours[:, :3] / 255


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


def prepared_mesh(path: Path, faces: int) -> dict[str, Any]:
    """Return what drawing needs of a mesh file in millimetres, from the cache when it is there.

    :param faces: simplified to about so many faces; 0 keeps the mesh as it is
    :return: ``vertices`` (metres), ``faces``, RGB 0..1 of the faces ``colours``, ``points`` of the surface
    :raises FileNotFoundError: when there is no such file
    :raises ValueError: when it cannot be read or holds no triangles
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such mesh')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    cached = cache_folder() / 'meshes' / f'{digest}-{faces}-v{_CACHE_VERSION}.npz'
    if cached.is_file():
        with np.load(cached) as stored:
            mesh = dict(stored)
    else:
        mesh = _prepare(path, faces)
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_name(f'{cached.stem}.{os.getpid()}.tmp.npz')
        np.savez(temporary, **mesh)
        os.replace(temporary, cached)  # two processes may convert the same mesh
    if not mesh.pop('coloured'):
        LOG.warning('%s: no colours, drawn in grey; a detector learns more from a coloured mesh', path)
    return mesh


def _prepare(path: Path, faces: int) -> dict[str, Any]:
    vertices, triangles, colours = read_mesh(path)
    vertices = vertices / 1000
    try:
        points = surface_points(vertices, triangles)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    coloured = colours is not None
    if colours is None:
        colours = np.full((len(vertices), 3), GREY)
    if 0 < faces < len(triangles):
        vertices, triangles, colours = _simplified(vertices, triangles, colours, faces)
    return {'vertices': vertices, 'faces': triangles, 'colours': np.asarray(colours[triangles].mean(axis=1)),
            'points': points, 'coloured': np.array(coloured)}


def _simplified(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], colours: NDArray[np.float64], count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Collapse edges (quadric error) until about ``count`` faces are left; colours follow the nearest vertices."""
    import fast_simplification

    joined, numbers = np.unique(vertices, axis=0, return_inverse=True)
    # triangles that share no vertices (STL, colours by face) would be torn apart
    welded = (joined, numbers.reshape(-1)[faces]) if len(joined) < len(vertices) else (vertices, faces)
    small, triangles = fast_simplification.simplify(
        welded[0].astype(np.float32), welded[1].astype(np.int32), target_count=count)
    _, near = cKDTree(vertices).query(small, k=min(4, len(vertices)))
    return small.astype(np.float64), triangles.astype(np.int32), colours[near.reshape(len(small), -1)].mean(axis=1)
