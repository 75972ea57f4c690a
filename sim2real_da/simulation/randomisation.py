# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Which properties of a simulated scene change from frame to frame (domain randomisation)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Randomisation:
    """Switches of the groups of randomised properties; a group that is off keeps one fixed, plausible setting.

    Where the objects lie is not a matter of these switches: it always changes.

    :param light: number, direction, colour and shadows of lights, ambient light, exposure and gamma
    :param colour: hue and brightness of the objects around their real colours, strength of their highlights
    :param texture: pictures on table, floor and walls, and their scale
    :param camera: distance, elevation, azimuth, roll and aim
    :param distractors: shapes and sheets that are not labelled
    """

    light: bool = True
    colour: bool = True
    texture: bool = True
    camera: bool = True
    distractors: bool = True
