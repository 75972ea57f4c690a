# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The simulator: random scenes of known objects on a table, seen by an ideal camera, with exact labels.

The camera has no sensor: no blur, noise or colour cast. Those belong to reality (and to training's augmentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.samples import Frame, Intrinsics, LabelledFrame
from sim2real_da.simulation.objects import SimObject
from sim2real_da.simulation.randomisation import Randomisation
from sim2real_da.simulation.textures import photographs, procedural
from sim2real_da.simulation.things import things
from sim2real_da.simulation.world import RoomTextures, World

Array = NDArray[np.float64]

THINGS = 24  # kinds of unlabelled things; at most half of them are there at a time
SCATTERED = (0.14, 0.75)  # metres from the middle of the scene at which they lie


@dataclass(frozen=True)
class Layout:
    """How scenes are arranged and looked at.

    :param upright: share of scenes in which objects stand as put down by hand; in the others they are dropped
    :param present: chance of each object to be there
    :param reuse: pictures taken of one arrangement, each with its own camera and light
    :param distance: metres from the camera to what it looks at
    :param elevation: degrees of the camera above the table
    :param roll: standard deviation in degrees
    :param spread: standard deviation in metres of the objects' places
    """

    upright: float = 0.0
    present: float = 0.9
    reuse: int = 4
    distance: tuple[float, float] = (0.5, 1.0)
    elevation: tuple[float, float] = (25.0, 80.0)
    roll: float = 6.0
    spread: float = 0.1


# Views as LINEMOD's protocol states them (Hinterstoisser et al., ACCV 2012): 65 to 115 cm away, the upper hemisphere,
# turned in the image plane by up to 45 degrees. No range was read off the poses of any test photograph.
STANDING = Layout(upright=0.75, present=0.85, reuse=2, distance=(0.65, 1.15), elevation=(5.0, 85.0), roll=15.0,
                  spread=0.09)
DROPPED = Layout()


def arrange_upright(
    sizes: Sequence[tuple[float, float]], spread: float, rng: np.random.Generator,
) -> list[tuple[float, float, float]]:
    """Find places for rectangles on a plane so that they crowd but do not overlap.

    :param sizes: extents ``(x, y)`` of each in metres
    :return: ``(x, y, yaw)`` of each
    """
    placed: list[Array] = []
    found = []
    for size in sizes:
        reach = spread
        while True:
            x, y = rng.normal(0, reach, 2)
            yaw = float(rng.uniform(-np.pi, np.pi))
            turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
            corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * np.asarray(size) / 2 @ turn.T + [x, y]
            if not any(_overlap(corners, other) for other in placed):
                break
            reach *= 1.03  # ends: a wide enough circle always has room
        placed.append(corners)
        found.append((float(x), float(y), yaw))
    return found


def _overlap(first: Array, second: Array) -> bool:
    """Whether two rectangles given by their corners overlap: no edge direction separates them."""
    for corners in (first, second):
        for edge in (corners[1] - corners[0], corners[2] - corners[1]):
            a, b = first @ edge, second @ edge
            if a.max() <= b.min() or b.max() <= a.min():
                return False
    return True


@lru_cache(maxsize=2)
def _room_textures(photos: Path | None, seed: tuple[int, ...]) -> RoomTextures:
    """Return the pictures of a simulated world; each scene of a data set draws its own from a folder of photographs."""
    rng = np.random.default_rng(seed)
    flat = procedural(256, 42, rng) + photographs(photos, 256, 42 if photos is None else 120, rng)
    # the first is white: a plain distractor is that times a colour
    wrapped = [np.full((64, 64, 3), 255, np.uint8), *procedural(64, 28, rng),
               *photographs(photos, 64, 14 if photos is None else 40, rng)]
    return RoomTextures(flat, wrapped)


class Simulator:
    """An endless stream of labelled pictures, the same for the same arguments.

    :param objects: what can be on the table
    :param intrinsics: of the camera; change them with :meth:`set_intrinsics`
    :param photos: folder of photographs for surfaces; None: those packaged with scikit-image
    :param layout: how scenes look; by default objects that have an upright stand, others are dropped
    """

    def __init__(
        self, objects: Sequence[SimObject], intrinsics: Intrinsics, seed: int | Sequence[int] = 0,
        randomisation: Randomisation | None = None, photos: Path | None = None, layout: Layout | None = None,
    ) -> None:
        self.randomisation = randomisation or Randomisation()
        self.layout = layout or (STANDING if objects and all(o.upright for o in objects) else DROPPED)
        # the few packaged photographs are in every world
        key = (0,) if photos is None else tuple(int(n) for n in np.atleast_1d(seed))
        self.world = World(objects, intrinsics, _room_textures(photos, key), things(THINGS, np.random.default_rng(1)),
                           primitives=14)
        self._rng = np.random.default_rng(seed)
        self._left = 0
        self._count = 0

    @property
    def intrinsics(self) -> Intrinsics:
        """Intrinsics of the pictures."""
        return self.world.intrinsics

    def set_intrinsics(self, intrinsics: Intrinsics) -> None:
        """Draw for another camera from the next picture on; distortion is left out of the simulated camera."""
        self.world.set_intrinsics(replace(intrinsics, distortion=()))

    def sample(self) -> LabelledFrame:
        """Return the next picture with its labels; ``stamp`` counts pictures."""
        rng, world = self._rng, self.world
        if self._left == 0:
            self._arrange(rng)
            self._left = self.layout.reuse
        self._left -= 1
        self._dress(rng)
        exposure = self._illuminate(rng)
        self._aim(rng)
        world.refresh()
        picture = cv2.LUT(world.draw(), exposure)
        frame = Frame(np.asarray(picture, dtype=np.uint8), self.intrinsics, self._count, 'sim_camera')
        self._count += 1
        return LabelledFrame(frame, world.labels(minimum_pixels=8))

    def close(self) -> None:
        """Free the renderer."""
        self.world.close()

    # ------------------------------------------------------------------ where things lie
    def _arrange(self, rng: np.random.Generator) -> None:
        world, layout = self.world, self.layout
        labelled = len(world.objects)
        for body in range(world.bodies):
            world.park(body)
        here = [n for n in range(labelled) if rng.random() < layout.present] or [int(rng.integers(labelled))]
        here = [here[i] for i in rng.permutation(len(here))]
        extra = [world.body(f'primitive{n}') for n in range(world.bodies - labelled - len(world.clutter))]
        extra = [b for b in extra if rng.random() < 0.5] if self.randomisation.distractors else []
        for body in extra:
            world.resize(body, rng.uniform(0.01, 0.05, 3))
        if rng.random() < layout.upright:
            self._stand(here, extra, rng)
        else:
            self._drop(here, extra, rng)
        self._scatter(rng)  # last: physics leaves it where it is

    def _stand(self, here: list[int], extra: list[int], rng: np.random.Generator) -> None:
        world = self.world
        sizes = []
        halves = world.model.geom_size
        for body in (*here, *extra):
            if body < len(world.objects):
                size = world.objects[body].model.size
                sizes.append((float(size[0]), float(size[1])))
            else:
                half = halves[world.body_geoms[body][0]]
                sizes.append((2 * float(half.max()), 2 * float(half.max())))
        places = arrange_upright(sizes, self.layout.spread, rng)
        for body, (x, y, yaw) in zip((*here, *extra), places, strict=True):
            tilt = Rotation.from_euler('xy', rng.normal(0, 3.0, 2), degrees=True)
            turn = Rotation.from_euler('z', yaw) * tilt
            if body < len(world.objects):
                model = world.objects[body].model
                low = float(turn.apply(model.points[::8])[:, 2].min())
                # the box's middle, not the CAD origin, stands at the place found for it
                x, y = np.array([x, y]) - turn.apply(model.middle)[:2]
            else:
                turn = Rotation.from_euler('z', yaw)
                geom = world.body_geoms[body][0]
                half = halves[geom]
                low = {2: -half[0], 3: -half[0] - half[1], 5: -half[1]}.get(int(world.model.geom_type[geom]), -half[2])
            world.place(body, [x, y, -low], turn)

    def _drop(self, here: list[int], extra: list[int], rng: np.random.Generator) -> None:
        world = self.world
        order = [*here, *extra]
        for level, body in enumerate(order[i] for i in rng.permutation(len(order))):
            x, y = np.clip(rng.normal(0, 1.2 * self.layout.spread, 2), -0.2, 0.2)
            world.place(body, [x, y, 0.12 + 0.035 * level], Rotation.from_quat(rng.normal(size=4)))
        world.settle(1.6)
        for body in order:  # what physics threw away or pushed through the table is not part of the scene
            height = world.data.qpos[world.body_address[body] + 2]
            if not -0.02 < height < 0.5:
                world.park(body)

    def _scatter(self, rng: np.random.Generator) -> None:
        """Put unlabelled things around the objects, as far as the camera sees; some may touch what stands there."""
        world, first = self.world, len(self.world.objects)
        if not self.randomisation.distractors:
            return
        for body in first + rng.permutation(THINGS)[:int(rng.integers(THINGS // 2 + 1))]:
            angle, reach = rng.uniform(-np.pi, np.pi), rng.uniform(*SCATTERED)
            turn = Rotation.from_euler('z', rng.uniform(-np.pi, np.pi))
            if rng.random() < 0.4:  # fallen over
                turn = turn * Rotation.from_euler('xyz', [np.pi / 2, 0, rng.uniform(-np.pi, np.pi)])
            low = float(turn.apply(world.clutter[body - first].model.points[::8])[:, 2].min())
            world.place(int(body), [reach * np.cos(angle), reach * np.sin(angle), -low], turn)

    # ------------------------------------------------------------------ how things look
    def _dress(self, rng: np.random.Generator) -> None:
        world, switch = self.world, self.randomisation
        surfaces = ['table', 'floor', *[f'wall{n}' for n in range(4)]]
        for number, surface in enumerate(surfaces):
            if switch.texture:
                repeat = float(rng.choice([1, 1, 1, 2, 3, 5] if surface == 'table' else [1, 2, 3, 6]))
                tone = rng.uniform(0.45, 1.0) * (1 - rng.uniform(0, 0.25, 3))
                world.paint(surface, int(rng.integers(world.pictures('flat'))), repeat, tone)
                world.gloss(surface, rng.uniform(0, 0.4), rng.uniform(0, 0.6))
            else:
                world.paint(surface, (1, 6, 0, 0, 0, 0)[number])
                world.gloss(surface, 0.1, 0.1)
        wide, deep = rng.uniform(0.35, 1.2, 2) if switch.texture else (0.6, 0.5)
        world.move_surface('table', [0, 0, -0.02], [wide, deep, 0.02], rng.uniform(-0.5, 0.5) if switch.texture else 0)
        for number in range(3):
            name = f'sheet{number}'
            if switch.distractors and rng.random() < 0.5:
                place = [*rng.normal(0, 0.15, 2), 0.0007 + 0.0008 * number]
                world.move_surface(name, place, [*rng.uniform(0.07, 0.3, 2), 0.0005], rng.uniform(-np.pi, np.pi))
                world.paint(name, int(rng.integers(world.pictures('flat'))), 1, np.full(3, rng.uniform(0.6, 1)))
            else:
                world.hide_surface(name)
        first = len(world.objects) + len(world.clutter)
        for number in range(world.bodies - first):
            if switch.distractors:
                # half of them plain: many things people own have one colour
                plain = rng.random() < 0.5
                colour = rng.random(3) if plain else rng.uniform(0.5, 1, 3)
                picture = 0 if plain else int(rng.integers(world.pictures('wrapped')))
                world.paint(f'primitive{number}', picture, 1, colour)
                world.gloss(f'primitive{number}', rng.uniform(0, 0.8), rng.uniform(0, 1))
        for body in filter(world.present, range(len(world.objects), first)):
            world.wrap(body, 0 if rng.random() < 0.6 else int(rng.integers(world.pictures('wrapped'))))
            for material in world.part_materials(body):
                world.tint(material, rng.uniform(0.4, 1.6) * (1 + rng.uniform(-0.3, 0.3, 3)), rng.uniform(0, 2.5),
                           rng.uniform(0.3, 2.5))
        for body in range(len(world.objects)):
            brightness, tone = rng.uniform(0.65, 1.15), 1 + rng.uniform(-0.12, 0.12, 3)
            highlights, narrow = rng.uniform(0, 2.5), rng.uniform(0.3, 2.5)
            for material in world.part_materials(body):
                if switch.colour:
                    gain = brightness * tone * (1 + rng.uniform(-0.06, 0.06, 3))
                    world.tint(material, gain, highlights, narrow)
                else:
                    world.tint(material, (1, 1, 1))

    def _illuminate(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Set the lights; return the table that applies exposure and gamma to a picture."""
        world = self.world
        ramp = np.arange(256) / 255
        if not self.randomisation.light:
            world.ambient([0.35] * 3, [0.15] * 3)
            world.light(0, [-0.4, 0.3, -1], [0.5] * 3, shadow=True)
            world.light(1, [0.6, 0.5, -1], [0.2] * 3)
            world.light(2, [0, 0, -1], [0, 0, 0])
            return np.asarray(255 * ramp, dtype=np.uint8)
        warmth = np.array([1, 0, -1]) * rng.normal(0, 0.08)
        world.ambient(np.clip(rng.uniform(0.15, 0.5) * (1 + warmth), 0, 1), [rng.uniform(0, 0.3)] * 3)
        shadow = rng.random() < 0.75
        for number in range(3):
            azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(25, 88))
            towards = -np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
            strength = rng.uniform(0.3, 0.9) if number == 0 else rng.uniform(0.0, 0.5) * (rng.random() < 0.6)
            colour = np.clip(strength * (1 + warmth + rng.normal(0, 0.06, 3)), 0, 1)
            world.light(number, towards, colour, [rng.uniform(0, 0.8)] * 3, shadow=shadow and number == 0)
        exposed = np.clip(rng.uniform(0.75, 1.35) * ramp, 0, 1) ** rng.uniform(0.75, 1.3)
        return np.asarray(np.round(255 * exposed), dtype=np.uint8)

    def _aim(self, rng: np.random.Generator) -> None:
        layout, world = self.layout, self.world
        if not self.randomisation.camera:
            distance, height = float(np.mean(layout.distance)), np.radians(float(np.mean(layout.elevation)))
            world.look(distance * np.array([0, -np.cos(height), np.sin(height)]), [0, 0, 0.03])
            return
        azimuth = rng.uniform(-np.pi, np.pi)
        height = np.radians(rng.uniform(*layout.elevation))
        target = [*rng.normal(0, 0.06, 2), 0.04]
        away = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        world.look(np.array(target) + rng.uniform(*layout.distance) * away, target,
                   np.radians(rng.normal(0, layout.roll)))
