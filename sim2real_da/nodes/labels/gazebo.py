# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Gazebo's bounding box and segmentation cameras through ros_gz_bridge.

- 3-D boxes are in the rendering camera's axes (x right, y up, looks along -z), and of models with several links their
  axes come from a principal component analysis, in any order: a box says where an object is, never how it is turned.
  The pose comes from ``sim/tf``, of the model's frame whose box lies there.
- ``class_id`` is the number of the label plugin; ``results[0].pose`` was never set; headers inside are empty, and the
  array's frame_id is the sensor's name, which is in no tree: ``sim_camera_frame`` names the camera's link.
- 2-D boxes end on their last pixel.
- In the label map the label is in the last channel of rgb8.

Sources: gazebosim/ros_gz ``vision_msgs.cpp``, gz-sensors ``BoundingBoxCameraSensor.cc``, gz-rendering
``Ogre2BoundingBoxCamera.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real_da.nodes import messages
from sim2real_da.nodes.labels.world import Scene, WorldLabels, class_of, inclusive_box, nearest, pose_of
from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.node import ManagedNode
from sim2real_da.samples import LabelledFrame, ObjectModel, Pose

FARTHEST = 0.25  # of its diameter: how far the middle of a model may be from its box


class GazeboLabels(WorldLabels):
    """See the module; docs/gazebo.md says what to switch on."""

    AXES = 'forward'  # of a camera's link

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel],
                 take: Callable[[LabelledFrame], None]) -> None:
        if not node.get('class_map'):
            raise ValueError('class_map: empty; labels of Gazebo are numbers, expected a YAML file with lines like '
                             '"mug: {label: 3, frames: [mug_0, mug_1]}"')
        super().__init__(node, objects, take)

    def scene(self, found: Mapping[str, Any], stamp: int, camera_frame: str) -> Scene:
        """See :class:`WorldLabels`."""
        scene = Scene()
        places: dict[str, list[NDArray[np.float64]]] = {}
        for index, detection in enumerate(found['sim/boxes_3d'].detections):
            what = f'sim/boxes_3d detection {index}'
            name = self._name(detection, what, scene.unknown)
            if name is not None:
                centre = detection.bbox.center.position
                place = np.array([centre.x, -centre.y, -centre.z])  # to the optical frame
                if not np.all(np.isfinite(place)):
                    raise MessageError(f'{what} ({name}): centre {place.tolist()}, expected finite numbers')
                places.setdefault(name, []).append(place)
        for name, own in places.items():
            scene.objects += [(name, pose) for pose in self._poses(name, own, stamp, camera_frame)]
        if 'sim/boxes_2d' in found:
            scene.boxes = []
            for index, detection in enumerate(found['sim/boxes_2d'].detections):
                what = f'sim/boxes_2d detection {index}'
                name = self._name(detection, what, {})
                if name is not None:
                    scene.boxes.append((name, inclusive_box(detection, what)))
        if 'sim/segmentation' in found:
            scene.segmentation = self._segmentation(found['sim/segmentation'])
        return scene

    def _name(self, detection: Any, what: str, unknown: dict[str, int]) -> str | None:
        label, _, _ = messages.hypothesis(detection, what)
        name = class_of(label, self.names)
        if name is None:
            unknown[f'label {label}'] = unknown.get(f'label {label}', 0) + 1
        return name

    def _poses(self, name: str, places: list[NDArray[np.float64]], stamp: int, camera_frame: str) -> list[Pose]:
        """Return the poses of a class's models that lie where its boxes are."""
        frames = self.names[name].frames or (name,)
        poses = [pose_of(self.to_optical(camera_frame, frame, stamp)) for frame in frames]
        model = self.objects[name]
        found = []
        for (index, apart), place in zip(nearest(places, [model.box_centre(pose) for pose in poses]), places):
            if apart > FARTHEST * model.diameter:
                raise MessageError(
                    f'sim/boxes_3d: a box of {name} at {np.round(place, 3).tolist()} has none of the frames '
                    f'{list(frames)} within {FARTHEST * model.diameter:.3f} m (the nearest: {apart:.3f} m); are frames '
                    f'in class_map, sim_camera_frame and sim_camera_axes right?')
            found.append(poses[index])
        return found

    def _segmentation(self, message: Any) -> NDArray[np.uint16]:
        if message.encoding != 'rgb8':
            raise MessageError(f'sim/segmentation: encoding {message.encoding!r}, expected the rgb8 of Gazebo\'s '
                               f'labels_map')
        labels = messages.read_image(message, 'sim/segmentation')[..., 2]
        found = np.zeros(labels.shape, np.uint16)
        for index, name in enumerate(self.objects):
            label = self.names[name].label if name in self.names else ''
            if label.isdigit():
                found[labels == int(label)] = 1 + index
        return found
