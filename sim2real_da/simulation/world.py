# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A table in MuJoCo: objects, clutter, room and camera; pictures of it and exact labels.

The world frame has z up and the table top at z = 0. A body's pose is its object's CAD pose: MuJoCo recentres meshes,
and compensates for it in the geom. What is random is decided elsewhere; this file builds, moves and draws.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import project, quaternion_from_matrix, transform_points
from sim2real_da.samples import Intrinsics, ObjectLabel, Pose
from sim2real_da.simulation.objects import Part, SimObject

LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]

PRIMITIVES = ('box', 'cylinder', 'sphere', 'capsule', 'ellipsoid')
SHOWN, PARKED = 0, 5  # MuJoCo geom groups; the camera sees group 0 only
LIGHTS = 3
OPTICAL = np.diag([1.0, -1.0, -1.0])  # GL camera (y up, looks along -z) to optical frame (y down, z forward)
NEAR, FAR = 0.05, 20.0  # metres
WALL = 0.32  # metres from the middle to the unseen walls that keep dropped objects together


@dataclass(frozen=True)
class RoomTextures:
    """Pictures a world may show; all are uploaded once, and chosen by number later.

    :param flat: for table, floor, walls and sheets, RGB ``(S, S, 3)``, all of one size
    :param wrapped: for distractors, RGB ``(S, S, 3)``, all of one size
    """

    flat: Sequence[NDArray[np.uint8]]
    wrapped: Sequence[NDArray[np.uint8]]


class World:
    """The scene, its renderer and its labels.

    :param objects: labelled objects, each once
    :param intrinsics: of the pictures; distortion is not drawn
    :param clutter: further objects that get no label
    :param primitives: number of unlabelled primitive bodies
    :param sheets: number of flat sheets that can lie on the table
    :raises ValueError: when there are no objects or the camera is distorted
    """

    def __init__(
        self, objects: Sequence[SimObject], intrinsics: Intrinsics, textures: RoomTextures,
        clutter: Sequence[SimObject] = (), primitives: int = 10, sheets: int = 3,
    ) -> None:
        if not objects:
            raise ValueError('simulator: no objects; expected at least one')
        self.objects = tuple(objects)
        self.clutter = tuple(clutter)
        self._context: mujoco.MjrContext | None = None
        self._gl: mujoco.GLContext | None = None
        self._release: weakref.finalize | None = None
        self._textures = textures
        self._primitives, self._sheets = primitives, sheets
        self.model = self._build().compile()
        self.data = mujoco.MjData(self.model)
        self._index()
        self._scene = mujoco.MjvScene(self.model, maxgeom=1000)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[SHOWN] = 1
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = 0
        self.intrinsics = intrinsics
        self.set_intrinsics(intrinsics)

    # ------------------------------------------------------------------ building
    def _build(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.004
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.visual.quality.shadowsize = 1024
        spec.visual.quality.offsamples = 4
        spec.visual.map.znear, spec.visual.map.zfar = NEAR, FAR
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]  # znear, zfar count in these
        for kind, pictures in (('flat', self._textures.flat), ('wrapped', self._textures.wrapped)):
            for number, picture in enumerate(pictures):
                _add_texture(spec, f'{kind}{number}', picture, cube=kind == 'wrapped')
        room = spec.worldbody
        room.add_camera(name='camera', pos=[0, 0, 1], sensor_size=[1, 1], focal_length=[1, 1], resolution=[8, 8])
        for number in range(LIGHTS):
            room.add_light(name=f'light{number}', pos=[0, 0, 2], dir=[0, 0, -1], castshadow=number == 0, cutoff=180,
                           type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        plane, box = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
        self._surface(spec, 'table', room, box, [0, 0, -0.02], [0.6, 0.5, 0.02])
        self._surface(spec, 'floor', room, plane, [0, 0, -0.75], [4, 4, 1])
        for number in range(4):
            turn = Rotation.from_euler('z', 90 * number, degrees=True)
            frame = turn * Rotation.from_matrix([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])  # z inwards, y up
            self._surface(spec, f'wall{number}', room, plane, turn.apply([2.5, 0, 0.25]), [4, 2, 1], frame)
        for number in range(self._sheets):
            self._surface(spec, f'sheet{number}', room, box, [0, 0, 0], [0.1, 0.15, 0.0005])
        # unseen: the plane the bodies rest on, however large the table looks, and walls that keep them on it
        room.add_geom(name='rest', type=plane, size=[5, 5, 1], group=PARKED, friction=[0.8, 0.005, 0.0001])
        for number in range(4):
            turn = Rotation.from_euler('z', 90 * number, degrees=True)
            frame = turn * Rotation.from_matrix([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])
            room.add_geom(name=f'fence{number}', type=plane, size=[5, 5, 1], group=PARKED,
                          pos=turn.apply([WALL, 0, 0]), quat=_wxyz(frame))
        for item in (*self.objects, *self.clutter):
            add_object(spec, item)
        for number in range(self._primitives):
            body = room.add_body(name=f'primitive{number}')
            body.add_freejoint()
            material = spec.add_material(name=f'primitive{number}', texuniform=True)
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = 'wrapped0'
            shape = getattr(mujoco.mjtGeom, f'mjGEOM_{PRIMITIVES[number % len(PRIMITIVES)].upper()}')
            body.add_geom(name=f'primitive{number}', type=shape, size=[0.03, 0.03, 0.03], mass=0.1,
                          material=f'primitive{number}', friction=[0.8, 0.02, 0.002])
        return spec

    @staticmethod
    def _surface(
        spec: mujoco.MjSpec, name: str, room: mujoco.MjsBody, shape: int, position: ArrayLike, size: list[float],
        frame: Rotation | None = None,
    ) -> None:
        material = spec.add_material(name=name, texuniform=False)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = 'flat0'
        room.add_geom(name=name, type=shape, pos=np.asarray(position), size=size, material=name, contype=0,
                      conaffinity=0, quat=_wxyz(frame or Rotation.identity()))

    def _index(self) -> None:
        """Look up the numbers MuJoCo gave to what changes later."""
        model = self.model
        bodies = [model.body(o.name).id for o in (*self.objects, *self.clutter)]
        bodies += [model.body(f'primitive{n}').id for n in range(self._primitives)]
        self.body_address = np.array([model.jnt_qposadr[model.body_jntadr[b]] for b in bodies])
        self.body_velocity = np.array([model.jnt_dofadr[model.body_jntadr[b]] for b in bodies])
        self.body_geoms = [np.flatnonzero(model.geom_bodyid == b) for b in bodies]
        self._group = model.geom_group.copy()
        self._contact = (model.geom_contype.copy(), model.geom_conaffinity.copy())
        self._size = model.geom_size.copy()
        self.instance = np.full(model.ngeom + 1, -1)  # geom -> number of the labelled object; last: background
        for number in range(len(self.objects)):
            self.instance[self.body_geoms[number]] = number
        flat = [model.texture(f'flat{n}').id for n in range(len(self._textures.flat))]
        wrapped = [model.texture(f'wrapped{n}').id for n in range(len(self._textures.wrapped))]
        self._texture_ids = {'flat': flat, 'wrapped': wrapped}
        self.base_colour = model.mat_rgba.copy()
        self.base_gloss = np.stack([model.mat_specular, model.mat_shininess], axis=1)

    # ------------------------------------------------------------------ changing
    def body(self, name: str) -> int:
        """Return the number under which the other methods know an object, piece of clutter or ``primitiveN``."""
        if name.startswith('primitive'):
            return len(self.objects) + len(self.clutter) + int(name[9:])
        return [o.name for o in (*self.objects, *self.clutter)].index(name)

    @property
    def bodies(self) -> int:
        """Number of bodies that move: objects, clutter, primitives, in this order."""
        return len(self.body_address)

    def set_intrinsics(self, intrinsics: Intrinsics) -> None:
        """Take another camera; the renderer is made anew when the size differs.

        :raises ValueError: for a camera with distortion
        """
        if any(intrinsics.distortion):
            raise ValueError('simulator: draws pinhole cameras; rectify the pictures or pass intrinsics '
                             f'without distortion, got {intrinsics.distortion}')
        resized = self._context is None or (self.intrinsics.width, self.intrinsics.height) != (
            intrinsics.width, intrinsics.height)
        self.intrinsics = intrinsics
        width, height = intrinsics.width, intrinsics.height
        # one unit of the sensor is one pixel; GL counts pixels from the corner of the first, we from its centre
        self.model.cam_sensorsize[0] = [width, height]
        self.model.cam_resolution[0] = [width, height]
        # MuJoCo's principal point is an offset from the sensor's middle, positive to the left and upwards
        self.model.cam_intrinsic[0] = [
            intrinsics.fx, intrinsics.fy, width / 2 - intrinsics.cx - 0.5, height / 2 - intrinsics.cy - 0.5]
        if resized:
            self._make_context()

    def _make_context(self) -> None:
        self._free()
        glob = self.model.vis.global_
        glob.offwidth, glob.offheight = self.intrinsics.width, self.intrinsics.height
        try:
            self._gl = mujoco.GLContext(self.intrinsics.width, self.intrinsics.height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # each GL backend has its own kinds
            backend = os.environ.get('MUJOCO_GL', 'not set')
            raise OSError(
                f'simulator: no OpenGL to draw with (MUJOCO_GL={backend}: {error}). Without a display set MUJOCO_GL=egl'
                ' before mujoco is imported; Debian, Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri'
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        # left to itself MuJoCo frees its names in whatever GL context is current, which may be another world's
        self._release = weakref.finalize(self, _release, self._gl, self._context)
        self._release.atexit = False  # by then the display may be gone, and the process frees what it held

    def place(self, body: int, position: ArrayLike, rotation: Rotation) -> None:
        """Put a body at a world pose, shown and at rest."""
        start = self.body_address[body]
        self.data.qpos[start:start + 3] = position
        self.data.qpos[start + 3:start + 7] = _wxyz(rotation)
        self.data.qvel[self.body_velocity[body]:self.body_velocity[body] + 6] = 0
        geoms = self.body_geoms[body]
        self.model.geom_group[geoms] = self._group[geoms]
        self.model.geom_contype[geoms] = self._contact[0][geoms]
        self.model.geom_conaffinity[geoms] = self._contact[1][geoms]

    def park(self, body: int) -> None:
        """Take a body out of the scene: neither seen nor touched."""
        geoms = self.body_geoms[body]
        self.place(body, [3.0 + body, 0, -5], Rotation.identity())
        self.model.geom_group[geoms] = PARKED
        self.model.geom_contype[geoms] = self.model.geom_conaffinity[geoms] = 0

    def present(self, body: int) -> bool:
        """Whether a body is in the scene."""
        return bool(np.any(self.model.geom_group[self.body_geoms[body]] == SHOWN))

    def resize(self, body: int, size: ArrayLike) -> None:
        """Give a primitive other half sizes, ``(3,)`` metres; MuJoCo uses as many as the shape has."""
        geom = self.body_geoms[body][0]
        half = np.asarray(size, dtype=np.float64)
        self.model.geom_size[geom] = half
        shape = self.model.geom_type[geom]
        reach = {mujoco.mjtGeom.mjGEOM_SPHERE: half[0], mujoco.mjtGeom.mjGEOM_CAPSULE: half[0] + half[1],
                 mujoco.mjtGeom.mjGEOM_CYLINDER: np.hypot(half[0], half[1]),
                 mujoco.mjtGeom.mjGEOM_ELLIPSOID: half.max()}
        self.model.geom_rbound[geom] = reach.get(shape, float(np.linalg.norm(half)))

    def settle(self, seconds: float) -> None:
        """Let physics run, until everything rests or the time is over."""
        mujoco.mj_forward(self.model, self.data)
        steps = int(seconds / self.model.opt.timestep)
        shown = [b for b in range(self.bodies) if self.present(b)]
        speeds = np.concatenate([self.body_velocity[shown, None] + np.arange(6)]) if shown else np.zeros((0, 6), int)
        for start in range(0, steps, 25):
            mujoco.mj_step(self.model, self.data, nstep=25)
            for body in set(range(self.bodies)) - set(shown):  # nothing holds up what is parked
                self.data.qvel[self.body_velocity[body]:self.body_velocity[body] + 6] = 0
            if start > 100 and speeds.size and np.abs(self.data.qvel[speeds]).max() < 0.05:
                break

    def paint(self, surface: str, texture: int, repeat: float = 1.0, colour: ArrayLike = (1, 1, 1)) -> None:
        """Show a flat picture on ``table``, ``floor``, ``wallN``, ``sheetN``, or a wrapped one on ``primitiveN``."""
        material = self.model.material(surface).id
        pool = self._texture_ids['wrapped' if surface.startswith('primitive') else 'flat']
        self.model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB] = pool[texture % len(pool)]
        self.model.mat_texrepeat[material] = repeat
        self.model.mat_rgba[material, :3] = colour

    def wrap(self, body: int, texture: int) -> None:
        """Lay a wrapped picture over the parts of an object that have no colours by face; it multiplies their own."""
        role = mujoco.mjtTextureRole.mjTEXROLE_RGB
        pool = self._texture_ids['wrapped']
        for material in self.part_materials(body):
            if self.model.mat_texid[material, role] < 0 or self.model.mat_texid[material, role] in pool:
                self.model.mat_texid[material, role] = pool[texture % len(pool)]

    def pictures(self, kind: str) -> int:
        """Number of ``flat`` or ``wrapped`` pictures."""
        return len(self._texture_ids[kind])

    def gloss(self, surface: str, specular: float, shininess: float) -> None:
        """Set the highlights of a material."""
        material = self.model.material(surface).id
        self.model.mat_specular[material], self.model.mat_shininess[material] = specular, shininess

    def part_materials(self, body: int) -> list[int]:
        """Return the numbers of the materials of a body's parts."""
        return [int(m) for m in self.model.geom_matid[self.body_geoms[body]]]

    def tint(self, material: int, gain: ArrayLike, specular: float = 1.0, shininess: float = 1.0) -> None:
        """Multiply an object's own colour (RGB) and highlights."""
        self.model.mat_rgba[material, :3] = np.clip(self.base_colour[material, :3] * np.asarray(gain), 0, 1)
        self.model.mat_specular[material] = np.clip(self.base_gloss[material, 0] * specular, 0, 1)
        self.model.mat_shininess[material] = np.clip(self.base_gloss[material, 1] * shininess, 0, 1)

    def move_surface(self, surface: str, position: ArrayLike, size: ArrayLike, yaw: float = 0.0) -> None:
        """Move and resize the table top or a sheet: centre, half sizes (metres), turn about z (radians)."""
        geom = self.model.geom(surface).id
        self.model.geom_pos[geom], self.model.geom_size[geom] = position, size
        self.model.geom_quat[geom] = _wxyz(Rotation.from_euler('z', yaw))
        self.model.geom_group[geom] = SHOWN

    def hide_surface(self, surface: str) -> None:
        """Do not draw a surface."""
        self.model.geom_group[self.model.geom(surface).id] = PARKED

    def light(
        self, number: int, direction: ArrayLike, diffuse: ArrayLike, specular: ArrayLike = (0.3, 0.3, 0.3),
        shadow: bool = False,
    ) -> None:
        """Set one light: where it shines *to* in the world, its colours; a black one is off."""
        towards = np.asarray(direction, dtype=np.float64)
        towards = towards / np.linalg.norm(towards)
        self.model.light_dir[number], self.model.light_pos[number] = towards, -1.5 * towards
        self.model.light_diffuse[number], self.model.light_specular[number] = diffuse, specular
        self.model.light_castshadow[number] = shadow
        self.model.light_active[number] = bool(np.any(np.asarray(diffuse) > 0))

    def ambient(self, colour: ArrayLike, headlight: ArrayLike = (0, 0, 0)) -> None:
        """Set the light that comes from everywhere, and the one that comes from the camera."""
        self.model.vis.headlight.ambient[:] = colour
        self.model.vis.headlight.diffuse[:] = headlight
        self.model.vis.headlight.specular[:] = 0

    def look(self, eye: ArrayLike, target: ArrayLike, roll: float = 0.0) -> None:
        """Put the camera at ``eye``, aimed at ``target`` (world, metres), turned by ``roll`` radians."""
        position = np.asarray(eye, dtype=np.float64)
        backward = position - np.asarray(target, dtype=np.float64)
        backward /= np.linalg.norm(backward)
        side = np.cross([0, 0, 1.0], backward)
        side = side / np.linalg.norm(side) if np.linalg.norm(side) > 1e-6 else np.array([1.0, 0, 0])
        frame = np.stack([side, np.cross(backward, side), backward], axis=1)
        self.model.cam_pos[0] = position
        self.model.cam_quat[0] = _wxyz(Rotation.from_matrix(frame) * Rotation.from_euler('z', roll))

    # ------------------------------------------------------------------ drawing
    def refresh(self) -> None:
        """Bring everything that follows from poses up to date; call it before drawing and labelling."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def _draw(self, segment: bool, shrink: int = 1) -> NDArray[np.uint8]:
        assert self._gl is not None and self._context is not None, 'the world is closed'
        self._gl.make_current()
        scene = self._scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = segment
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segment
        area = mujoco.MjrRect(0, 0, self.intrinsics.width // shrink, self.intrinsics.height // shrink)
        mujoco.mjr_render(area, scene, self._context)
        picture = np.empty((area.height, area.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, area, self._context)
        return picture[::-1]

    def _update(self) -> None:
        mujoco.mjv_updateScene(self.model, self.data, self._option, None, self._view,
                               mujoco.mjtCatBit.mjCAT_ALL, self._scene)

    def draw(self) -> NDArray[np.uint8]:
        """Return the picture, RGB ``(H, W, 3)``."""
        self._update()
        return np.ascontiguousarray(self._draw(False))

    def _segments(self, shrink: int = 1) -> NDArray[np.int64]:
        """Return the geom seen at each pixel, ``ngeom`` where there is none, ``(H, W)`` (divided by ``shrink``)."""
        self._update()
        coded = self._draw(True, shrink)
        number = coded[..., 0] + coded[..., 1] * np.uint16(256)  # the third byte is for scenes of 65,536 geoms
        scene = self._scene
        geoms = np.full(scene.ngeom + 1, self.model.ngeom)
        for drawn in scene.geoms[:scene.ngeom]:
            if drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM and drawn.segid >= 0:
                geoms[drawn.segid + 1] = drawn.objid
        return np.asarray(geoms[np.minimum(number, scene.ngeom)])

    def instances(self, shrink: int = 1) -> NDArray[np.int64]:
        """Return the labelled object seen at each pixel (its number, -1 elsewhere), ``(H, W)``.

        :param shrink: draw at a fraction of the size
        """
        return np.asarray(self.instance[self._segments(shrink)])

    def pose(self, number: int) -> Pose:
        """Return the pose of a body's CAD frame in the optical frame."""
        start = self.body_address[number]
        rotation = Rotation.from_quat(self.data.qpos[start + 3:start + 7][[1, 2, 3, 0]]).as_matrix()
        camera = self.data.cam_xmat[0].reshape(3, 3) @ OPTICAL
        offset = self.data.qpos[start:start + 3] - self.data.cam_xpos[0]
        return Pose(quaternion_from_matrix(camera.T @ rotation), camera.T @ offset)

    def _alone(self, boxes: dict[int, Array]) -> dict[int, float]:
        """Count the pixels each object covers when nothing is in front of it.

        Objects whose boxes are apart share a drawing; half the size is exact enough for a fraction, where it is large.

        :param boxes: object number -> projected box of the whole object
        """
        kept = self.model.geom_group.copy()
        counts: dict[int, float] = {}
        waiting = dict(boxes)
        shrink = 2 if self.intrinsics.width >= 480 else 1
        while waiting:
            group: dict[int, Array] = {}
            for number, box in waiting.items():
                if not any(_touch(box, other) for other in group.values()):
                    group[number] = box
            self.model.geom_group[:] = PARKED
            for number in group:
                del waiting[number]
                self.model.geom_group[self.body_geoms[number]] = kept[self.body_geoms[number]]
            seen = self.instances(shrink).ravel()
            covered = np.bincount(seen[seen >= 0], minlength=len(self.objects))
            ratio = self.intrinsics.width * self.intrinsics.height / len(seen)
            counts.update({number: float(covered[number]) * ratio for number in group})
        self.model.geom_group[:] = kept
        return counts

    def labels(self, minimum_pixels: int = 1) -> tuple[ObjectLabel, ...]:
        """Return a label for each object with at least so many visible pixels, in the objects' order."""
        seen = self.instances()
        shape = seen.shape
        counts = np.bincount(seen.ravel() + 1, minlength=len(self.objects) + 1)[1:]
        numbers = [n for n in range(len(self.objects)) if counts[n] >= minimum_pixels]
        poses = {number: self.pose(number) for number in numbers}
        outlines = {
            number: project(transform_points(self.objects[number].model.points[::8], pose), self.intrinsics)
            for number, pose in poses.items()
        }
        alone = self._alone({number: _bounds(pixels) for number, pixels in outlines.items()})
        labels = []
        for number in numbers:
            mask = seen == number
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            # a box holds whole pixels: the pixel at integer c reaches from c - 0.5 to c + 0.5
            box = np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float64) + [-0.5, -0.5, 0.5, 0.5]
            with np.errstate(invalid='ignore'):
                inside = np.all((outlines[number] >= -0.5) & (outlines[number] < np.array(shape[::-1]) - 0.5), axis=1)
            visible = min(1.0, counts[number] / max(alone[number], 1.0)) * float(inside.mean())
            labels.append(ObjectLabel(self.objects[number].name, box, poses[number], visible, mask))
        return tuple(labels)

    def _free(self) -> None:
        if self._release is not None:
            self._release()
        self._release, self._context, self._gl = None, None, None

    def close(self) -> None:
        """Free the renderer."""
        self._free()


def _wxyz(rotation: Rotation) -> Array:
    """Return MuJoCo's order of a quaternion."""
    return np.asarray(rotation.as_quat()[[3, 0, 1, 2]], dtype=np.float64)


def _release(gl: mujoco.GLContext, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()


def _bounds(pixels: Array) -> Array:
    """Return the box of projected points, with a margin; the whole plane where some are behind the camera."""
    if not np.isfinite(pixels).all():
        return np.array([-np.inf, -np.inf, np.inf, np.inf])
    return np.concatenate([pixels.min(axis=0) - 3, pixels.max(axis=0) + 3])


def _touch(first: Array, second: Array) -> bool:
    return bool(np.all(first[:2] < second[2:]) and np.all(second[:2] < first[2:]))


def add_object(spec: mujoco.MjSpec, item: SimObject) -> None:
    """Add an object with its own colours and contacts to a scene, as a free body of its name."""
    body = spec.worldbody.add_body(name=item.name)
    body.add_freejoint()
    for number, part in enumerate(item.parts):
        name = f'{item.name}:{number}'
        mesh = spec.add_mesh(name=name)
        mesh.uservert = np.asarray(part.vertices, dtype=np.float32).ravel()
        mesh.userface = np.asarray(part.faces, dtype=np.int32).ravel()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        mesh.maxhullvert = 48
        material = spec.add_material(name=name, specular=part.specular, shininess=part.shininess)
        if np.ndim(part.colours) == 2:
            _colour_faces(spec, mesh, part)
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        else:
            material.rgba = [*part.colours, 1]
        collide = int(part.collide)
        body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=name,
                      mass=item.mass / len(item.parts), contype=collide, conaffinity=collide,
                      group=SHOWN if part.draw else PARKED, friction=[0.8, 0.02, 0.002])


def _colour_faces(spec: mujoco.MjSpec, mesh: mujoco.MjsMesh, part: Part) -> None:
    """Give each face one cell of a texture: MuJoCo draws no vertex colours."""
    count, cell = len(part.faces), 4
    side = int(np.ceil(np.sqrt(count)))
    picture = np.zeros((side * side, 3), dtype=np.uint8)
    picture[:count] = np.round(255 * np.clip(part.colours, 0, 1))
    picture = picture.reshape(side, side, 3).repeat(cell, axis=0).repeat(cell, axis=1)
    _add_texture(spec, mesh.name, picture)
    row, column = np.divmod(np.arange(count), side)
    # all three corners of a face at its cell's centre; user textures are stored top row first, v counts up
    where = np.stack([(column + 0.5) / side, (row + 0.5) / side], axis=1)
    mesh.usertexcoord = where.astype(np.float32).ravel()
    mesh.userfacetexcoord = np.repeat(np.arange(count, dtype=np.int32), 3)


def _add_texture(spec: mujoco.MjSpec, name: str, picture: NDArray[np.uint8], cube: bool = False) -> None:
    texture = spec.add_texture(name=name)
    texture.type = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
    texture.height, texture.width, texture.nchannel = (*picture.shape[:2], 3)
    if cube:
        texture.height *= 6
        picture = np.concatenate([picture] * 6)
    texture.data = np.ascontiguousarray(picture).tobytes()
