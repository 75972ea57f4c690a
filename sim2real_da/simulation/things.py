# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Things that lie about in a simulated scene and have no label: random bowls, bottles, cartons, tools, cables, rocks.

A desk is full of them. A detector that saw only its own objects, primitives and empty surfaces takes them for objects.
They are drawn at random, not modelled on any desk; the surrogate world's pieces are modelled and other ones.
"""

from __future__ import annotations

import numpy as np

from sim2real_da.simulation.objects import Part, SimObject, model_from_parts
from sim2real_da.simulation.shapes import bent_rod, box, hull, moved, turned

SEGMENTS = 20


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    value = rng.uniform(0.15, 1.0)
    colour = value * (1 - rng.uniform(0, 1) ** 2 * rng.random(3))
    return float(colour[0]), float(colour[1]), float(colour[2])


def _bowl(rng: np.random.Generator) -> list[Part]:
    radius, height, foot, wall = rng.uniform(0.04, 0.1), rng.uniform(0.03, 0.11), rng.uniform(0.4, 1.0), 0.004
    steps = np.linspace(0, 1, 6)
    belly = foot + (1 - foot) * steps ** rng.uniform(0.4, 1.2)
    outside = np.stack([radius * belly, height * steps], axis=1)
    inside = np.stack([radius * belly - wall, np.maximum(height * steps, wall)], axis=1)[::-1]
    profile = np.concatenate([[[0, 0]], outside, inside, [[0, wall]]])
    parts = [turned(profile, _colour(rng), SEGMENTS, specular=float(rng.uniform(0, 1)))]
    if rng.random() < 0.5:  # a cup's handle
        angles = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 7)
        reach = rng.uniform(0.02, 0.035)
        path = np.stack([radius * belly[3] + reach * np.cos(angles), np.zeros(7),
                         0.5 * height + 0.35 * height * np.sin(angles)], axis=1)
        parts += bent_rod(path, 0.005, _colour(rng))
    return parts


def _bottle(rng: np.random.Generator) -> list[Part]:
    radius, height, neck = rng.uniform(0.02, 0.045), rng.uniform(0.08, 0.26), rng.uniform(0.25, 1.0)
    shoulder, start = rng.uniform(0.45, 0.85), rng.uniform(0.85, 0.95)
    profile = np.array([[0, 0], [1, 0], [rng.uniform(0.7, 1), shoulder / 2], [1, shoulder], [neck, start], [neck, 1],
                        [0, 1]]) * [radius, height]
    look = {'specular': float(rng.uniform(0, 1)), 'shininess': float(rng.uniform(0, 1))}
    parts = [turned(profile, _colour(rng), SEGMENTS, **look)]
    if rng.random() < 0.6:
        cap = np.array([[0, 0.98], [1.15 * neck, 0.98], [1.1 * neck, 1.1], [0, 1.1]]) * [radius, height]
        parts.append(turned(cap, _colour(rng), SEGMENTS, **look))
    return parts


def _carton(rng: np.random.Generator) -> list[Part]:
    size = rng.uniform([0.04, 0.03, 0.01], [0.26, 0.18, 0.16])
    parts = [box(size, [0, 0, size[2] / 2], _colour(rng), rng.uniform(0.02, 0.4), specular=float(rng.uniform(0, 0.7)))]
    for _ in range(rng.integers(0, 4)):  # a lid, buttons, a screen
        piece = size * [*rng.uniform(0.1, 0.8, 2), 0.15]
        place = [*(rng.uniform(-0.5, 0.5, 2) * (size[:2] - piece[:2])), size[2] + piece[2] / 2 - 0.001]
        parts.append(box(piece, place, _colour(rng), 0.1))
    return parts


def _tool(rng: np.random.Generator) -> list[Part]:
    length, radius = rng.uniform(0.06, 0.15), rng.uniform(0.006, 0.02)
    handle = bent_rod([[0, 0, radius], [length, 0, radius]], radius, _colour(rng), specular=float(rng.uniform(0, 1)))
    end = np.array([length, 0, radius])
    path = [end]
    for _ in range(rng.integers(1, 4)):
        path.append(path[-1] + [rng.uniform(0.01, 0.07), rng.normal(0, 0.03), 0])
    head = bent_rod(path, rng.uniform(0.3, 0.9) * radius, _colour(rng), specular=0.8, shininess=0.7)
    if rng.random() < 0.5:
        size = rng.uniform([0.01, 0.02, 0.01], [0.04, 0.1, 0.04])
        head.append(box(size, [path[-1][0], path[-1][1], max(radius, size[2] / 2)], _colour(rng), 0.3, specular=0.6))
    return [*handle, *head]


def _cable(rng: np.random.Generator) -> list[Part]:
    steps = rng.integers(8, 18)
    heading = np.cumsum(rng.normal(0, 0.5, steps))
    path = np.cumsum(0.02 * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    radius = rng.uniform(0.002, 0.006)
    return bent_rod(np.column_stack([path - path.mean(axis=0), np.full(steps, radius)]), radius, _colour(rng))


def _lump(rng: np.random.Generator) -> list[Part]:
    """Hulls of random points grown together: toys, fruit, figures."""
    size, parts = rng.uniform(0.03, 0.09), []
    place, colour = np.zeros(3), _colour(rng)
    for _ in range(rng.integers(1, 5)):
        points = rng.normal(size=(14, 3))
        points *= rng.uniform(0.4, 1, 3) * size / 2 / np.linalg.norm(points, axis=1, keepdims=True)
        if rng.random() < 0.3:
            colour = _colour(rng)
        parts.append(moved(hull(points, colour, specular=float(rng.uniform(0, 1))), place))
        place = place + rng.normal(0, 0.35 * size, 3)
    low = min(float(part.vertices[:, 2].min()) for part in parts)
    return [moved(part, [0, 0, -low]) for part in parts]


MAKERS = (_bowl, _bottle, _carton, _tool, _lump, _cable, _lump, _carton)


def things(count: int, rng: np.random.Generator) -> list[SimObject]:
    """Return random things in metres, standing on z = 0 of their own frames; about 3 to 35 cm large."""
    made = []
    for number in range(count):
        parts = MAKERS[number % len(MAKERS)](rng)
        made.append(SimObject(f'thing{number}', model_from_parts(f'thing{number}', parts), tuple(parts)))
    return made
