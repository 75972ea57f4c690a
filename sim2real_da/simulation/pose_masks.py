# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled objects drawn at their poses: masks for segmentation where there are only poses, and the objects themselves.

The objects stand at their poses before the photograph's camera, alone: what they hide of each other is hidden, what
hides them without being labelled (a hand, other things, the table's edge) is missed, and the masks are as exact as
the poses and the simplified meshes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.samples import Intrinsics, LabelledFrame, ObjectLabel
from sim2real_da.simulation.objects import SimObject
from sim2real_da.simulation.world import OPTICAL, RoomTextures, World


class PoseMasks:
    """Draws objects and their masks; needs the renderer.

    :param objects: all that labels may name
    """

    def __init__(self, objects: Sequence[SimObject]) -> None:
        self.objects = tuple(objects)
        self._names = [item.name for item in self.objects]
        self._world: World | None = None

    def masked(self, labelled: LabelledFrame) -> LabelledFrame:
        """Return the frame with a mask in every label; empty where others hide the object.

        :raises ValueError: for an object that is not known, or one that is there twice
        """
        _, seen = self._placed(labelled)
        return LabelledFrame(labelled.frame, self._with_masks(labelled, seen))

    def drawn(self, labelled: LabelledFrame) -> LabelledFrame:
        """Return the frame with every pixel of its objects, and masks, as the renderer draws them at their poses.

        The light is one plain lamp, not the photograph's.

        :raises ValueError: as :meth:`masked` does
        """
        if not labelled.labels:
            return labelled
        world, seen = self._placed(labelled)
        image = np.where((seen >= 0)[..., None], world.draw(), labelled.frame.image)
        return LabelledFrame(replace(labelled.frame, image=image), self._with_masks(labelled, seen))

    def _with_masks(self, labelled: LabelledFrame, seen: NDArray[np.int64]) -> tuple[ObjectLabel, ...]:
        return tuple(
            replace(label, mask=np.asarray(seen == self._names.index(label.name))) for label in labelled.labels)

    def _placed(self, labelled: LabelledFrame) -> tuple[World, NDArray[np.int64]]:
        """Return the world with the objects at their poses, and the object that each pixel shows, -1 where none."""
        names = [label.name for label in labelled.labels]
        if unknown := sorted(set(names) - set(self._names)):
            raise ValueError(f'masks: object {unknown[0]!r} is not known, expected one of {self._names}')
        if len(set(names)) < len(names):
            raise ValueError('masks: one object is labelled twice in a frame; expected each at most once')
        world = self._camera(labelled.frame.intrinsics)
        for body in range(world.bodies):
            world.park(body)
        for label in labelled.labels:
            pose = label.pose.matrix()
            # the camera stands at the world's origin and looks along -z, y up
            world.place(self._names.index(label.name), OPTICAL @ pose[:3, 3],
                        Rotation.from_matrix(OPTICAL @ pose[:3, :3]))
        world.refresh()
        return world, world.instances()

    def _camera(self, intrinsics: Intrinsics) -> World:
        if self._world is None:
            grey = RoomTextures([np.full((8, 8, 3), 128, np.uint8)], [np.full((8, 8, 3), 128, np.uint8)])
            self._world = world = World(self.objects, intrinsics, grey, primitives=0, sheets=0)
            for surface in ('table', 'floor', *(f'wall{n}' for n in range(4))):
                world.hide_surface(surface)
            world.model.cam_pos[0], world.model.cam_quat[0] = 0, [1, 0, 0, 0]
        else:
            self._world.set_intrinsics(intrinsics)
        return self._world

    def close(self) -> None:
        """Free the renderer."""
        if self._world is not None:
            self._world.close()
            self._world = None
