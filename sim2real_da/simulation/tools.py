# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The project's own five tools, modelled here: hammer, screwdriver, wrench, mug and drill.

All are unlike each other and unlike themselves turned, but for the screwdriver, which is round: it declares its
continuous symmetry. Sizes are 9 to 25 cm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.simulation.objects import Part, SimObject, continuous_symmetry, model_from_parts
from sim2real_da.simulation.shapes import bent_rod, box, centres, hull, moved, painted, plate, turned

STEEL = (0.62, 0.64, 0.67)
DARK_STEEL = (0.36, 0.38, 0.41)
RUBBER = (0.1, 0.1, 0.11)
ALONG_X = Rotation.from_euler('y', 90, degrees=True)  # what was turned about z lies along x


def _tool(name: str, parts: list[Part], mass: float, symmetries: NDArray[np.float64] | None = None) -> SimObject:
    return SimObject(name, model_from_parts(name, parts, symmetries), tuple(parts), mass=mass)


def hammer() -> SimObject:
    """A claw hammer: wooden handle along x, head along z, face at +z, claw at -z."""
    handle = turned([(0, -0.13), (0.011, -0.13), (0.0145, -0.12), (0.012, -0.06), (0.0095, 0.0), (0.0105, 0.09),
                     (0, 0.09)], (0.83, 0.58, 0.28), 20, shininess=0.2)
    grip = turned([(0, -0.131), (0.0125, -0.131), (0.0162, -0.12), (0.0152, -0.075), (0.0132, -0.05), (0, -0.05)],
                  (0.13, 0.13, 0.15), 20, specular=0.1)
    steel = {'specular': 0.8, 'shininess': 0.6}
    eye = box([0.03, 0.028, 0.034], [0.095, 0, 0], DARK_STEEL, **steel)
    neck = moved(turned([(0, 0.01), (0.0115, 0.01), (0.0105, 0.035), (0, 0.035)], DARK_STEEL, 16, **steel),
                 [0.095, 0, 0])
    face = moved(turned([(0, 0.034), (0.013, 0.034), (0.0165, 0.038), (0.0165, 0.054), (0.0145, 0.057), (0, 0.057)],
                        STEEL, 20, **steel), [0.095, 0, 0])
    claws = []
    for side in (-1, 1):  # two prongs that bend back towards the handle
        root = [[x, side * y, -0.014] for x in (0.083, 0.107) for y in (0.002, 0.013)]
        bend = [[x, side * y, -0.04] for x in (0.08, 0.098) for y in (0.003, 0.013)]
        tip = [[x, side * y, -0.064] for x in (0.064, 0.068) for y in (0.006, 0.013)]
        claws += [hull(root + bend, DARK_STEEL, **steel), hull(bend + tip, DARK_STEEL, **steel)]
    return _tool('hammer', [moved(handle, turn=ALONG_X), moved(grip, turn=ALONG_X), eye, neck, face, *claws], 0.6)


def screwdriver() -> SimObject:
    """A round screwdriver with a pointed tip, axis z, tip at +z: looks the same at every turn about z."""
    handle = turned([(0, -0.095), (0.011, -0.095), (0.0155, -0.088), (0.0165, -0.05), (0.0135, -0.022), (0.012, -0.012),
                     (0.0155, -0.002), (0.0135, 0.006), (0, 0.006)], (0.8, 0.08, 0.09), 32, specular=0.7, shininess=0.7)
    ring = turned([(0, -0.072), (0.0166, -0.0722), (0.0176, -0.069), (0.0176, -0.055), (0.0166, -0.052), (0, -0.052)],
                  (0.96, 0.83, 0.12), 32)
    shaft = turned([(0, 0.005), (0.0042, 0.005), (0.0042, 0.094), (0.0015, 0.105), (0, 0.105)], STEEL, 24,
                   specular=0.9, shininess=0.7)
    collar = turned([(0, 0.005), (0.0075, 0.005), (0.006, 0.016), (0, 0.016)], RUBBER, 24)
    # as fine as the mesh is round
    return _tool('screwdriver', [handle, ring, shaft, collar], 0.15, continuous_symmetry([0, 0, 1], steps=16))


def wrench() -> SimObject:
    """A combination wrench along x: jaw at +x, ring at -x; a blue inlay on the +z side, a white one below."""
    chrome = {'specular': 1.0, 'shininess': 0.8}
    thick = 0.009
    shaft = hull([[x, y, z] for x, w in ((-0.075, 0.0085), (0.07, 0.0105)) for y in (-w, w) for z in (-0.0035, 0.0035)],
                 STEEL, **chrome)
    parts = [shaft]
    steps = 12
    angles = 2 * np.pi * np.arange(steps) / steps
    for start, end in zip(angles, np.roll(angles, -1), strict=True):  # the ring, one convex piece a step
        rim = [[r * np.cos(a) - 0.092, r * np.sin(a)] for r in (0.0105, 0.019) for a in (start, end)]
        parts.append(plate(rim, 1.3 * thick, STEEL, **chrome))
    bent = Rotation.from_euler('z', 15, degrees=True)
    jaw = [plate([[-0.008, -0.0215], [-0.008, 0.0215], [0.006, 0.0245], [0.006, -0.0245]], thick, STEEL, **chrome)]
    for side in (-1, 1):
        jaw.append(plate([[0.005, side * 0.0105], [0.005, side * 0.0245], [0.02, side * 0.0235], [0.034, side * 0.0145],
                          [0.034, side * 0.0105]], thick, STEEL, **chrome))
    parts += [moved(part, [0.075, 0, 0], bent) for part in jaw]
    parts.append(box([0.1, 0.013, 0.003], [-0.004, 0, 0.0035], (0.1, 0.25, 0.8)))
    parts.append(box([0.1, 0.013, 0.003], [-0.004, 0, -0.0035], (0.92, 0.92, 0.88)))
    return _tool('wrench', parts, 0.25)


def mug() -> SimObject:
    """A mug standing on z, open at +z, handle towards +x; green with a white band, cream inside."""
    body = turned([(0, 0.0), (0.036, 0.0), (0.04, 0.004), (0.0405, 0.03), (0.041, 0.045), (0.041, 0.06), (0.042, 0.095),
                   (0.0405, 0.0965), (0.0385, 0.095), (0.037, 0.007), (0, 0.007)], (1, 1, 1), 40, specular=0.6,
                  shininess=0.8)
    middle = centres(body)
    outside = np.hypot(middle[:, 0], middle[:, 1]) > 0.0388
    colours = np.where(outside[:, None] | (middle[:, 2:] < 0.003), (0.1, 0.5, 0.22), (0.93, 0.88, 0.75))
    colours[outside & (middle[:, 2] > 0.043) & (middle[:, 2] < 0.0605)] = (0.95, 0.95, 0.93)
    arc = np.radians(np.linspace(82, -82, 8))
    path = np.stack([0.036 + 0.037 * np.cos(arc), 0 * arc, 0.05 + 0.031 * np.sin(arc)], axis=1)
    handle = bent_rod(path, 0.0058, (0.1, 0.5, 0.22), specular=0.6, shininess=0.8)
    return _tool('mug', [painted(body, colours), *handle], 0.35)


def drill() -> SimObject:
    """A cordless drill: barrel along x with the bit at +x, grip down -z, battery at its foot."""
    teal, black = (0.05, 0.42, 0.5), (0.11, 0.11, 0.12)
    shell = turned([(0, -0.085), (0.017, -0.085), (0.025, -0.075), (0.028, -0.03), (0.027, 0.03), (0.022, 0.042),
                    (0, 0.042)], teal, 28, specular=0.4)
    collar = turned([(0, 0.041), (0.0205, 0.041), (0.0205, 0.053), (0, 0.053)], (0.88, 0.68, 0.1), 28)
    chuck = turned([(0, 0.052), (0.018, 0.052), (0.018, 0.068), (0.0085, 0.085), (0, 0.085)], black, 24, specular=0.6)
    bit = turned([(0, 0.084), (0.0035, 0.084), (0.0035, 0.117), (0, 0.123)], STEEL, 16, specular=0.9, shininess=0.7)
    vents = box([0.02, 0.052, 0.018], [-0.06, 0, 0.004], black)
    grip = hull([[x + lean, y, z] for z, lean in ((-0.018, -0.028), (-0.1, -0.042)) for x in (-0.019, 0.019)
                 for y in (-0.0145, 0.0145)], teal, specular=0.3)
    pad = hull([[x + lean, y, z] for z, lean in ((-0.03, -0.032), (-0.09, -0.042)) for x in (-0.023, 0.005)
                for y in (-0.0158, 0.0158)], black, specular=0.1)
    trigger = box([0.016, 0.014, 0.026], [-0.004, 0, -0.038], (0.85, 0.1, 0.08), 0.3)
    battery = box([0.085, 0.05, 0.03], [-0.035, 0, -0.112], black, 0.25)
    stripe = box([0.086, 0.051, 0.007], [-0.035, 0, -0.1], (0.88, 0.68, 0.1), 0.2)
    barrel = [moved(part, turn=ALONG_X) for part in (shell, collar, chuck, bit)]
    return _tool('drill', [*barrel, vents, grip, pad, trigger, battery, stripe], 1.1)


def tools() -> list[SimObject]:
    """Return all five, always in the same order."""
    return [hammer(), screwdriver(), wrench(), mug(), drill()]
