# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The surrogate reality: the same tools in a second world, through a measured camera.

It stands in for a camera on a machine with no data, and is not real: other materials, light, pictures and clutter than
the simulator's, and a sensor the simulator does not have. Its appearance is fixed in ``config/surrogate.yaml``.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.resources import config_folder
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame
from sim2real_da.simulation.objects import Part, SimObject, model_from_parts, tools
from sim2real_da.simulation.sensor import Sensor
from sim2real_da.simulation.shapes import bent_rod, box, hull, turned
from sim2real_da.simulation.textures import Picture, noise, packaged_photographs, read_picture, square
from sim2real_da.simulation.world import RoomTextures, World

FLAT, WRAPPED, WEAR = 384, 128, 6
_STREAM = 770_077  # keeps its random numbers apart from the simulator's with the same seed


def load_appearance(path: Path | None = None) -> dict[str, Any]:
    """Read the appearance file.

    :param path: default: the package's own ``config/surrogate.yaml``
    :raises ValueError: when a section is missing
    """
    file = path or config_folder() / 'surrogate.yaml'
    content = yaml.safe_load(file.read_text())
    missing = {'tables', 'surroundings', 'surroundings_tint', 'tools', 'clutter', 'lamps', 'view', 'camera'} - set(
        content or {})
    if missing:
        raise ValueError(f'{file}: sections missing: {", ".join(sorted(missing))}; restore the committed file')
    return dict(content)


class SurrogateWorld:
    """An endless stream of pictures of the tools in the second world, the same for the same seed.

    The labels are for an evaluator only. Streams of different seeds share no frame.

    :param intrinsics: of the camera, without distortion
    :raises RuntimeError: when scikit-image's photographs are not installed
    """

    def __init__(self, intrinsics: Intrinsics, seed: int, appearance: Mapping[str, Any] | None = None) -> None:
        self._look = dict(appearance or load_appearance())
        names = sorted({t['picture'] for t in self._look['tables']} | set(self._look['surroundings']))
        paths = packaged_photographs(names)
        if len(paths) < len(names):
            raise RuntimeError(f'surrogate: photographs missing ({", ".join(names)}); pip install scikit-image')
        pictures = [square(read_picture(path), FLAT) for path in paths]
        self._pictures = {name: number for number, name in enumerate(names)}
        objects = [_weathered(item, self._look['tools'][item.name]) for item in tools()]
        pool = np.random.default_rng(0)
        wrapped: list[Picture] = []
        for item in objects:
            wrapped += [_wear(self._look['tools'][item.name]['wear'], pool)]
        wrapped += [square(read_picture(path), WRAPPED) for path in paths]
        self.world = World(objects, intrinsics, RoomTextures(pictures, wrapped), clutter(), primitives=0, sheets=2)
        for number in range(len(objects)):
            self.world.wrap(number, number)
        spans: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in self._look['camera'].items()}
        self.sensor = Sensor(**spans)
        self._rng = np.random.default_rng((seed, _STREAM))
        self._count = 0

    def sample(self) -> LabelledFrame:
        """Return the next picture, an arrangement of its own, with its labels; ``stamp`` counts pictures."""
        rng, world = self._rng, self.world
        self._arrange(rng)
        self._dress(rng)
        self._illuminate(rng)
        self._aim(rng)
        world.refresh()
        image = self.sensor.capture(world.draw(), rng)
        frame = Frame(image, world.intrinsics, self._count, 'camera')
        self._count += 1
        return LabelledFrame(frame, world.labels(minimum_pixels=8))

    def close(self) -> None:
        """Free the renderer."""
        self.world.close()

    def _arrange(self, rng: np.random.Generator) -> None:
        world, chances = self.world, self._look['clutter']
        for body in range(world.bodies):
            world.park(body)
        labelled = len(world.objects)
        here = [n for n in range(labelled) if rng.random() < chances['present']] or [int(rng.integers(labelled))]
        here += [n for n in range(labelled, world.bodies) if rng.random() < chances['chance']]
        for level, place in enumerate(rng.permutation(len(here))):
            x, y = np.clip(rng.normal(0, 0.12, 2), -0.2, 0.2)
            world.place(here[place], [x, y, 0.1 + 0.035 * level], Rotation.from_quat(rng.normal(size=4)))
        world.settle(1.6)
        for body in here:
            if not -0.02 < world.data.qpos[world.body_address[body] + 2] < 0.5:
                world.park(body)

    def _dress(self, rng: np.random.Generator) -> None:
        world, look = self.world, self._look
        table = look['tables'][int(rng.integers(len(look['tables'])))]
        world.paint('table', self._pictures[table['picture']], table['repeat'], table['tint'])
        world.gloss('table', 0.35, 0.5)
        world.move_surface('table', [0, 0, -0.02], [*rng.uniform(0.5, 0.9, 2), 0.02], rng.uniform(-0.6, 0.6))
        around = look['surroundings']
        for surface in ('floor', *[f'wall{n}' for n in range(4)]):
            world.paint(surface, self._pictures[around[int(rng.integers(len(around)))]],
                        6 if surface == 'floor' else 2, look['surroundings_tint'])
        for number in range(2):  # a magazine, a mat
            name = f'sheet{number}'
            if rng.random() < 0.5:
                world.move_surface(name, [*rng.normal(0, 0.15, 2), 0.0007 + 0.0008 * number],
                                   [*rng.uniform(0.08, 0.2, 2), 0.0005], rng.uniform(-np.pi, np.pi))
                world.paint(name, self._pictures[around[int(rng.integers(len(around)))]], 1, (0.9, 0.85, 0.8))
            else:
                world.hide_surface(name)

    def _illuminate(self, rng: np.random.Generator) -> None:
        lamp = self._look['lamps'][int(rng.integers(len(self._look['lamps'])))]
        colour = np.asarray(lamp['colour'])
        self.world.ambient(lamp['ambient'] * colour)
        azimuth = rng.uniform(-np.pi, np.pi)
        for number, (strength, turn) in enumerate(((lamp['key'], 0.0), (lamp['fill'], 2.2), (0.0, 0.0))):
            height = np.radians(rng.uniform(*lamp['height']))
            away = np.array([np.cos(azimuth + turn) * np.cos(height), np.sin(azimuth + turn) * np.cos(height),
                             np.sin(height)])
            self.world.light(number, -away, strength * colour, strength * colour, shadow=number == 0)

    def _aim(self, rng: np.random.Generator) -> None:
        view = self._look['view']
        azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(*view['elevation']))
        target = np.array([*rng.normal(0, 0.05, 2), 0.03])
        away = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        self.world.look(target + rng.uniform(*view['distance']) * away, target, np.radians(rng.normal(0, view['roll'])))


def _shifted(colours: NDArray[np.float64], hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    """Turn the hue (degrees) and scale saturation and value of RGB colours ``(..., 3)``."""
    rows = []
    for red, green, blue in np.reshape(colours, (-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        rows.append(colorsys.hsv_to_rgb((h + hue / 360) % 1, min(1.0, s * saturation), min(1.0, v * value)))
    return np.asarray(rows).reshape(np.shape(colours))


def _weathered(item: SimObject, look: Mapping[str, float]) -> SimObject:
    parts = [
        replace(part, colours=_shifted(part.colours, look['hue'], look['saturation'], look['value']),
                specular=min(1.0, part.specular * look['specular']))
        for part in item.parts
    ]
    return replace(item, parts=tuple(parts))


def _wear(strength: float, rng: np.random.Generator) -> Picture:
    """Draw scratches and dirt as a gain on the colour below."""
    dirt = noise(WRAPPED, (3, 7, 17), rng)
    scratches = (noise(WRAPPED, (60, 100), rng) > 0.82).astype(np.float32)
    gain = np.clip(1 - strength * dirt ** 1.5 + 0.25 * strength * scratches, 0, 1)
    brown = np.array([1.0, 0.93, 0.82])
    return np.asarray(255 * gain[..., None] * (brown + (1 - brown) * gain[..., None]), dtype=np.uint8)


def clutter() -> list[SimObject]:
    """Return what lies around in this world; it has no labels. None of these pieces is in the simulator's."""
    brown, tin = (0.4, 0.27, 0.16), (0.6, 0.6, 0.58)
    bottle = turned([(0, 0), (0.032, 0), (0.034, 0.01), (0.034, 0.1), (0.014, 0.135), (0.013, 0.16), (0, 0.16)],
                    (0.2, 0.3, 0.12), 24, specular=0.9, shininess=0.9)
    can = turned([(0, 0), (0.033, 0), (0.036, 0.004), (0.036, 0.1), (0.033, 0.104), (0.032, 0.099), (0, 0.099)], tin,
                 28, specular=0.9, shininess=0.6)
    label = turned([(0.0364, 0.015), (0.0364, 0.088)], (0.62, 0.2, 0.13), 28, collide=False)
    reel = turned([(0.025, -0.011), (0.05, -0.011), (0.05, 0.011), (0.025, 0.011), (0.025, -0.011)],
                  (0.63, 0.55, 0.36), 28, specular=0.5)
    angles = np.radians(np.linspace(0, 620, 28))
    cable = bent_rod(np.stack([(0.05 + 0.0004 * np.degrees(angles) / 10) * np.cos(angles),
                               0.06 * np.sin(angles), 0.004 + 0.006 * angles / angles.max()], axis=1), 0.0035,
                     (0.13, 0.12, 0.12))
    book = [box([0.15, 0.105, 0.022], [0, 0, 0], (0.85, 0.82, 0.72), 0.05),
            box([0.156, 0.11, 0.003], [0, 0, 0.012], (0.2, 0.24, 0.38), 0.1),
            box([0.156, 0.11, 0.003], [0, 0, -0.012], (0.2, 0.24, 0.38), 0.1)]
    plank = [box([0.22, 0.045, 0.02], [0, 0, 0], brown, 0.05)]
    hexagon = np.radians(60 * np.arange(6))
    nut = [hull([[0.022 * np.cos(a), 0.022 * np.sin(a), z] for a in hexagon for z in (-0.009, 0.009)], tin,
                specular=0.9),
           turned([(0, -0.0095), (0.011, -0.0095), (0.011, 0.0095), (0, 0.0095)], (0.08, 0.08, 0.08), 20)]
    pipe = bent_rod([[-0.08, 0, 0], [0.03, 0, 0], [0.055, 0.02, 0], [0.06, 0.07, 0]], 0.013, (0.5, 0.29, 0.2),
                    specular=0.8, shininess=0.6)
    sponge = [box([0.09, 0.06, 0.03], [0, 0, 0], (0.72, 0.62, 0.3), 0.3)]
    pieces: dict[str, list[Part]] = {
        'bottle': [bottle], 'can': [can, label], 'reel': [reel], 'cable': cable, 'book': book, 'plank': plank,
        'nut': nut, 'pipe': pipe, 'sponge': sponge,
    }
    return [SimObject(f'clutter_{name}', model_from_parts(name, parts), tuple(parts), mass=0.2)
            for name, parts in pieces.items()]
