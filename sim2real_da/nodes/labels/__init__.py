# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled simulation from topics, one file a simulator; all give the same labels of the same scene."""

from __future__ import annotations

from sim2real_da.nodes.labels.gazebo import GazeboLabels
from sim2real_da.nodes.labels.isaac_sim import IsaacSimLabels
from sim2real_da.nodes.labels.normal import NormalLabels
from sim2real_da.nodes.labels.source import LabelSource
from sim2real_da.nodes.node import Parameter

LABEL_SOURCES: dict[str, type[LabelSource]] = {
    'normal': NormalLabels, 'isaac_sim': IsaacSimLabels, 'gazebo': GazeboLabels}

PARAMETERS = (
    Parameter('labels', 'normal', 'whose labels come on the sim/ topics', choices=tuple(LABEL_SOURCES)),
    Parameter('class_map', '', 'isaac_sim, gazebo: YAML file of its names (docs/simulators.md)', path=True),
    Parameter('sim_world_frame', 'world', 'isaac_sim: frame of the world in sim/tf'),
    Parameter('sim_camera_frame', '', 'isaac_sim, gazebo: the camera in sim/tf; empty: frame_id of the pictures'),
    Parameter('sim_camera_axes', '', 'isaac_sim, gazebo: where that frame looks: optical (z), forward (x, z up), usd '
              '(-z, y up); empty: as the simulator does', choices=('', 'optical', 'forward', 'usd')),
)
