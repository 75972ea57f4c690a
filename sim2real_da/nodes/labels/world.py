# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What the adapters of other simulators share: poses by transforms, the simulator's names, boxes given to objects."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray

from sim2real_da.geometry import box_around, inside, quaternion_from_matrix
from sim2real_da.nodes import messages
from sim2real_da.nodes.labels.source import QUEUE, LabelSource
from sim2real_da.nodes.messages import MessageError, ReadLabels
from sim2real_da.nodes.node import ManagedNode
from sim2real_da.nodes.transforms import TransformUnavailable, listen_to_transforms
from sim2real_da.samples import Intrinsics, LabelledFrame, ObjectLabel, ObjectModel, Pose

#: rotation from a camera's frame of some axes to its optical frame (x right, y down, z forward)
OPTICAL_FROM = {
    'optical': np.eye(3),
    'forward': np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),  # x forward, y left, z up (REP-103)
    'usd': np.diag([1.0, -1, -1]),  # x right, y up, looks along -z
}


@dataclass(frozen=True)
class SimulatorNames:
    """What a simulator calls a class.

    :param label: its semantic label
    :param frames: of its objects in sim/tf
    """

    label: str
    frames: tuple[str, ...] = ()


def read_class_map(path: str, classes: Iterable[str]) -> dict[str, SimulatorNames]:
    """Read a YAML file ``class: {label: ..., frames: [...]}``; without a file a class is called as the model calls it.

    :raises ValueError: for a file that is not of this form, a class that the model does not know, or one label or frame
        of two classes
    """
    if not path:
        return {name: SimulatorNames(name) for name in classes}
    file = Path(path).expanduser()
    expected = 'expected lines like "mug: {label: 3, frames: [mug_0, mug_1]}"'
    try:
        read = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f'class_map {file}: {error}; {expected}') from error
    if not isinstance(read, dict) or not read:
        raise ValueError(f'class_map {file}: {expected}')
    found: dict[str, SimulatorNames] = {}
    for name, entry in read.items():
        if name not in classes:
            raise ValueError(f'class_map {file}: class {name!r} is not known to the model, expected {sorted(classes)}')
        if not isinstance(entry, dict) or 'label' not in entry or not isinstance(entry.get('frames', []), list):
            raise ValueError(f'class_map {file}: {name}: {entry!r}; {expected}')
        found[name] = SimulatorNames(str(entry['label']), tuple(map(str, entry.get('frames', []))))
    for what, used in (('label', [n.label for n in found.values()]),
                       ('frame', [f for n in found.values() for f in n.frames])):
        if doubled := {u for u in used if used.count(u) > 1}:
            raise ValueError(f'class_map {file}: {what} {sorted(doubled)} stands at two classes')
    return found


class NotYet(Exception):
    """Something that belongs to a picture has not come so far; the picture waits."""


@dataclass
class Scene:
    """What an adapter finds in one set of messages.

    :param objects: class and pose in the optical frame, whether visible or not
    :param boxes: class and visible box (xyxy, edges between pixels); None: the simulator sends none
    :param segmentation: ``(H, W)``, 0 background, 1 + index of the class in the model; None: none is sent
    :param unknown: classes that the model does not know
    """

    objects: list[tuple[str, Pose]] = field(default_factory=list)
    boxes: list[tuple[str, NDArray[np.float64]]] | None = None
    segmentation: NDArray[np.uint16] | None = None
    unknown: dict[str, int] = field(default_factory=dict)


class WorldLabels(LabelSource):
    """A simulator whose boxes and transforms are not yet labels; pictures wait until all about them is known."""

    AXES: str  # of the camera's frame in sim/tf, see OPTICAL_FROM
    REQUIRED = {'sim/image': Image, 'sim/boxes_3d': Detection3DArray}
    OPTIONAL = {'sim/boxes_2d': Detection2DArray, 'sim/segmentation': Image}

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel],
                 take: Callable[[LabelledFrame], None]) -> None:
        self.names = read_class_map(node.get('class_map'), objects)
        super().__init__(node, objects, take)
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._late = 0
        self._reason = ''
        self._camera: CameraInfo | None = None
        # not matched by stamp: it does not change, and Isaac Sim's may be of another clock (IsaacSim#102)
        node.listen_to(CameraInfo, 'sim/camera_info', self._take_camera, 1, sensor=True, watched=True)
        self.transforms = listen_to_transforms(node, 'sim/tf', self.retry)

    def scene(self, found: Mapping[str, Any], stamp: int, camera_frame: str) -> Scene:
        """Return what is in one set of messages.

        :raises NotYet: when something is still to come
        :raises TransformUnavailable: likewise
        :raises MessageError: when the messages cannot be used
        """
        raise NotImplementedError

    def take(self, found: Mapping[str, Any]) -> None:
        """Let the picture wait for the rest, and use those for which all is there."""
        self._waiting.append(found)
        if len(self._waiting) > QUEUE:
            self._waiting.popleft()
            self._late += 1
        self.retry()

    def retry(self) -> None:
        """Use the waiting pictures about which all is known now; one that cannot be used is refused."""
        for _ in range(len(self._waiting)):
            found = self._waiting.popleft()
            try:
                self._use(found)
            except (NotYet, TransformUnavailable) as error:
                self._reason = str(error)
                self._waiting.append(found)
            except MessageError as error:
                self.node.refuse('sim/boxes_3d', error)

    def complaint(self) -> str:
        """Say what pictures wait for in vain."""
        late = f'{self._late} pictures waited in vain: {self._reason}' if self._late else ''
        return '; '.join(filter(None, [super().complaint(), late]))

    def to_optical(self, camera_frame: str, source: str, stamp: int) -> NDArray[np.float64]:
        """Return source -> optical frame of the camera ``(4, 4)`` at a time."""
        turned = np.eye(4)
        turned[:3, :3] = OPTICAL_FROM[self.node.get('sim_camera_axes') or self.AXES]
        return np.asarray(turned @ self.transforms.lookup(camera_frame, source, stamp))

    def _take_camera(self, message: CameraInfo) -> None:
        messages.read_camera_info(message, 'sim/camera_info')
        self._camera = message
        self.retry()

    def _use(self, found: Mapping[str, Any]) -> None:
        image = found['sim/image']
        if self._camera is None:
            raise NotYet('no usable message on sim/camera_info')
        intrinsics = messages.read_camera_info(self._camera, 'sim/camera_info', (image.width, image.height))
        scene = self.scene(found, messages.nanoseconds(image.header.stamp),
                           self.node.get('sim_camera_frame') or image.header.frame_id)
        labels = seen(scene, self.objects, intrinsics)
        self._labelled(image, intrinsics, ReadLabels(labels, scene.unknown), 'sim/boxes_3d')


def class_of(label: str, names: Mapping[str, SimulatorNames]) -> str | None:
    """Return the class that a simulator's label means, None for none of the model's."""
    return next((name for name, own in names.items() if own.label == label), None)


def pose_of(matrix: NDArray[np.float64]) -> Pose:
    """Return the pose of an object -> optical frame transform ``(4, 4)``.

    :raises MessageError: for transforms whose numbers are none of a place
    """
    try:
        return Pose(quaternion_from_matrix(matrix[:3, :3]), matrix[:3, 3])
    except ValueError as error:
        raise MessageError(f'sim/boxes_3d and sim/tf: {error}') from error


def inclusive_box(message: Any, what: str) -> NDArray[np.float64]:
    """Return a simulator's box as edges between pixels.

    Its corners are the first and the last pixel, so its size is one pixel short each way.
    """
    return messages.read_box(message, what) + np.array([-0.5, -0.5, 0.5, 0.5])


def seen(scene: Scene, objects: Mapping[str, ObjectModel], intrinsics: Intrinsics) -> tuple[ObjectLabel, ...]:
    """Return the labels of a scene.

    Visible boxes are given to the objects of their class that they fit best; an object without one is not seen. Without
    boxes an object's comes from its part of the segmentation, else from its projection.

    :raises MessageError: for a box that fits no object of its class
    """
    if scene.segmentation is not None and scene.segmentation.shape != (intrinsics.height, intrinsics.width):
        height, width = scene.segmentation.shape
        raise MessageError(f'sim/segmentation: {width}x{height}, expected the image\'s '
                           f'{intrinsics.width}x{intrinsics.height}')
    drawn = [messages.projected_box(objects[name], pose, intrinsics) for name, pose in scene.objects]
    boxes = drawn if scene.boxes is None else _given(scene.objects, drawn, scene.boxes)
    classes, labels = list(objects), []
    for (name, pose), box, whole in zip(scene.objects, boxes, drawn):
        if box is None or whole is None:
            continue
        mask = None
        if scene.segmentation is not None:
            mask = (scene.segmentation == 1 + classes.index(name)) & inside(box, intrinsics)
            if not mask.any():  # covered by others
                continue
            if scene.boxes is None:
                box = box_around(mask)
        labels.append(ObjectLabel(name, box, pose, None, mask))
    return tuple(labels)


def _given(objects: Sequence[tuple[str, Pose]], drawn: Sequence[NDArray[np.float64] | None],
           boxes: Sequence[tuple[str, NDArray[np.float64]]]) -> list[NDArray[np.float64] | None]:
    """Return for every object the visible box that is given to it, or None."""
    fits = np.zeros((len(boxes), len(objects)))
    for b, (box_class, box) in enumerate(boxes):
        for o, ((name, _), whole) in enumerate(zip(objects, drawn)):
            if name == box_class:
                fits[b, o] = messages.box_fit(box, whole)
    result: list[NDArray[np.float64] | None] = [None] * len(objects)
    for b, o in zip(*linear_sum_assignment(-fits)):
        if fits[b, o] > 0:
            result[o] = boxes[b][1]
    for name, box in boxes:
        if not any(given is box for given in result):
            raise MessageError(
                f'sim/boxes_2d: {name} at {np.round(box, 1).tolist()} is where no {name} is projected to; are '
                f'sim_camera_frame and sim_camera_axes right, and do all objects of this class have a pose?')
    return result


def nearest(points: Sequence[NDArray[np.float64]], candidates: Sequence[NDArray[np.float64]],
            ) -> list[tuple[int, float]]:
    """Return for each point the candidate given to it and its distance, so that all distances are small together."""
    apart = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(candidates)[None], axis=2)
    given = dict(zip(*linear_sum_assignment(apart)))
    return [(int(given[i]), float(apart[i, given[i]])) if i in given else (-1, np.inf) for i in range(len(points))]
