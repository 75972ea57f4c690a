# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A parallel gripper above a table in MuJoCo: does a grasp planned from an estimated pose lift the object?

The grasp comes straight down. It is planned from the object's model at the pose it is believed to have, and done on the
object at the pose it has. World frame: z up, the table top at z = 0, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.samples import ObjectModel
from sim2real_da.simulation.objects import SimObject
from sim2real_da.simulation.world import add_object

Array = NDArray[np.float64]

WIDEST = 0.11  # between the open fingers
CLEARANCE = 0.025  # the gripper opens so much wider than what it is to grasp
FINGER = 0.02  # width of a finger
DEPTH = 0.035  # how far below the top of the object the fingertips go
ABOVE = 0.16  # where the hand starts, over where it grasps
LIFT = 0.15
LIFTED = 0.10  # the object's middle has to rise by so much, and to be held up
STILL = 0.01  # an object that moves farther than this on the empty table was held by others
ANGLES = 16
STEP = 0.01  # between the places along an object at which a grasp is tried

_SCENE = f"""
<mujoco>
  <option timestep="0.002" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual><global offwidth="480" offheight="360"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.75 0.8 0.85" rgb2="0.35 0.4 0.45" width="64"
             height="64"/>
    <texture name="wood" type="2d" builtin="checker" rgb1="0.62 0.5 0.38" rgb2="0.58 0.46 0.35" width="64" height="64"/>
    <material name="table" texture="wood" texrepeat="8 8" reflectance="0.05"/>
    <material name="hand" rgba="0.25 0.27 0.3 1" specular="0.5"/>
    <material name="pad" rgba="0.1 0.1 0.11 1"/>
  </asset>
  <worldbody>
    <light pos="0.5 -0.5 1.5" dir="-0.3 0.3 -1" diffuse="0.6 0.6 0.6"/>
    <light pos="-0.5 0.5 1.5" dir="0.3 -0.3 -1" diffuse="0.4 0.4 0.4" castshadow="false"/>
    <camera name="side" pos="0 -0.62 0.42" xyaxes="1 0 0 0 0.5 0.85" fovy="45" mode="fixed"/>
    <geom name="table" type="plane" size="1 1 0.1" material="table" friction="0.8 0.005 0.0001"/>
    <body name="hand" gravcomp="1">
      <joint name="x" type="slide" axis="1 0 0" damping="5"/>
      <joint name="y" type="slide" axis="0 1 0" damping="5"/>
      <joint name="z" type="slide" axis="0 0 1" damping="5"/>
      <joint name="yaw" type="hinge" axis="0 0 1" damping="0.5"/>
      <geom name="palm" type="box" pos="0 0 0.105" size="0.018 0.07 0.012" mass="0.4" material="hand"/>
      <geom name="wrist" type="cylinder" pos="0 0 0.15" size="0.022 0.035" mass="0.2" material="hand" contype="0"
            conaffinity="0"/>
      <body name="left" gravcomp="1">
        <joint name="left" type="slide" axis="0 1 0" range="0 {WIDEST / 2}" damping="20" armature="0.02"/>
        <geom name="left" type="box" pos="0 0.005 0.045" size="{FINGER / 2} 0.005 0.048" mass="0.05" material="pad"
              friction="1.5 0.05 0.002" condim="4"/>
      </body>
      <body name="right" gravcomp="1">
        <joint name="right" type="slide" axis="0 -1 0" range="0 {WIDEST / 2}" damping="20" armature="0.02"/>
        <geom name="right" type="box" pos="0 -0.005 0.045" size="{FINGER / 2} 0.005 0.048" mass="0.05" material="pad"
              friction="1.5 0.05 0.002" condim="4"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="x" joint="x" kp="3000" dampratio="1" forcerange="-80 80"/>
    <position name="y" joint="y" kp="3000" dampratio="1" forcerange="-80 80"/>
    <position name="z" joint="z" kp="3000" dampratio="1" forcerange="-80 80"/>
    <position name="yaw" joint="yaw" kp="80" dampratio="1" forcerange="-8 8"/>
    <position name="left" joint="left" kp="1500" dampratio="1" forcerange="-40 40"/>
    <position name="right" joint="right" kp="1500" dampratio="1" forcerange="-40 40"/>
  </actuator>
</mujoco>
"""


@dataclass(frozen=True)
class Grasp:
    """A grasp from above.

    :param position: between the fingertips, ``(3,)`` metres
    :param yaw: direction in which the fingers close, radians from the world's x axis
    :param width: of what is between them, metres
    """

    position: Array
    yaw: float
    width: float


def matrix_of(place: Array) -> Array:
    """Return the pose ``(4, 4)`` of MuJoCo's seven numbers of a free body."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(place[[4, 5, 6, 3]]).as_matrix(), place[:3]
    return matrix


def plan_grasp(model: ObjectModel, pose: Array) -> Grasp | None:
    """Return a grasp of an object at a pose ``(4, 4)``, None where it is nowhere narrow enough.

    Of all places and directions that the fingers fit around, the one nearest to the object's middle counts, and among
    near ones the narrowest.
    """
    points = model.points[::4].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    middle = points.mean(axis=0)
    best: tuple[float, Grasp] | None = None
    for yaw in np.pi * np.arange(ANGLES) / ANGLES:
        closing = np.array([np.cos(yaw), np.sin(yaw)])
        along = np.array([-closing[1], closing[0]])
        places = points[:, :2] @ along
        for place in np.arange(places.min() + FINGER / 2, places.max(), STEP):
            between = points[np.abs(places - place) <= FINGER / 2]
            if not len(between):
                continue
            top = between[:, 2].max()
            gripped = between[between[:, 2] > top - DEPTH][:, :2] @ closing
            width = float(gripped.max() - gripped.min())
            if width > WIDEST - CLEARANCE:
                continue
            centre = place * along + (gripped.max() + gripped.min()) / 2 * closing
            cost = float(np.linalg.norm(centre - middle[:2])) + 0.5 * width
            if best is None or cost < best[0]:
                tips = max(float(top) - DEPTH, 0.004)
                best = cost, Grasp(np.array([*centre, tips]), float(yaw), width)
    return best[1] if best is not None else None


class Gripper:
    """The gripper and one object on an empty table.

    :param item: the object
    """

    def __init__(self, item: SimObject) -> None:
        spec = mujoco.MjSpec.from_string(_SCENE)
        add_object(spec, item)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._middle = item.model.middle
        joint = self.model.body_jntadr[self.model.body(item.name).id]
        self._place = int(self.model.jnt_qposadr[joint])
        self._renderer: mujoco.Renderer | None = None
        self.pictures: list[NDArray[np.uint8]] = []

    def pose(self) -> Array:
        """Return where the object is, ``(4, 4)``."""
        return matrix_of(self.data.qpos[self._place:self._place + 7])

    def put(self, pose: Array) -> bool:
        """Put the object at a pose ``(4, 4)`` and let it rest; whether it stays there by itself."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._place:self._place + 3] = pose[:3, 3]
        self.data.qpos[self._place + 3:self._place + 7] = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
        self._hand(np.array([0, 0, 0.6]), 0.0, WIDEST, at_once=True)
        before = self._centre()
        self._run(0.6)
        return bool(np.linalg.norm(self._centre() - before) < STILL)

    def attempt(self, grasp: Grasp, record: bool = False) -> bool:
        """Come down, close, lift; whether the object was lifted and is held.

        :param record: keep pictures of it in ``pictures``
        """
        self.pictures = []
        start, up = self._centre(), np.array([0, 0, 1.0])
        opening = min(grasp.width + CLEARANCE, WIDEST)
        over = grasp.position + ABOVE * up
        self._hand(over, grasp.yaw, opening, at_once=True)
        for target, width, seconds in ((over, opening, 0.1), (grasp.position, opening, 0.8), (grasp.position, 0.0, 0.6),
                                       (grasp.position + LIFT * up, 0.0, 0.8),
                                       (grasp.position + LIFT * up, 0.0, 0.5)):
            self._move(target, grasp.yaw, width, seconds, record)
        return bool(self._centre()[2] - start[2] > LIFTED)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    def _centre(self) -> Array:
        pose = self.pose()
        return np.asarray(pose[:3, :3] @ self._middle + pose[:3, 3])

    def _hand(self, tips: Array, yaw: float, width: float, at_once: bool = False) -> None:
        """Command the hand; at once: it is there already."""
        # the fingers close along the hand's y axis
        wanted = [*tips, yaw - np.pi / 2, width / 2, width / 2]
        self.data.ctrl[:] = wanted
        if at_once:
            self.data.qpos[:6], self.data.qvel[:6] = wanted, 0

    def _move(self, tips: Array, yaw: float, width: float, seconds: float, record: bool) -> None:
        """Lead the hand to a place in a straight line."""
        begin, first = self.data.ctrl[:3].copy(), 2 * float(self.data.ctrl[4])
        steps = max(int(seconds / 0.04), 1)
        for step in range(1, steps + 1):
            share = step / steps
            self._hand((1 - share) * begin + share * tips, yaw, (1 - share) * first + share * width)
            self._run(0.04)
            if record:
                self.pictures.append(self._picture())

    def _run(self, seconds: float) -> None:
        mujoco.mj_step(self.model, self.data, nstep=round(seconds / self.model.opt.timestep))

    def _picture(self) -> NDArray[np.uint8]:
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, 360, 480)
        self._renderer.update_scene(self.data, 'side')
        return np.asarray(self._renderer.render(), np.uint8).copy()
