# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Isaac Sim's ROS 2 bridge: what it publishes, and what of that is not what it looks like.

- A 3-D box's centre is the pose of the object's prim in the **world**, whatever frame its header names; the offset to
  the box's middle is not in it, so with CAD frame and prim frame the same it is the label. The camera's pose in the
  world comes from ``sim/tf``.
- ``results[0].pose`` was never set and reads as the identity; headers inside of the array are empty.
- ``class_id`` is a number given anew at every start; its meaning comes as JSON text, one topic for each kind of label,
  with a stamp inside.
- 2-D boxes end on their last pixel.
- Segmentation is 32SC1 of such numbers.

Sources: isaac-sim/IsaacSim, ``Ros2Message.cpp`` and ``OgnROS2PublishSemanticLabels.cpp``.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import String

from sim2real_da.nodes import messages
from sim2real_da.nodes.labels.world import NotYet, Scene, WorldLabels, class_of, inclusive_box, pose_of
from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.node import ManagedNode
from sim2real_da.samples import LabelledFrame, ObjectModel

KEPT = 50  # tables of labels remembered by their stamps
UNSTAMPED = 0  # what read_table gives a table without a stamp
CAME = 'came'  # key beside the topics of a picture's messages: the order in which it came
NO_OBJECT = ('BACKGROUND', 'UNLABELLED')

Table = dict[str, str]  # number -> semantic label


class IsaacSimLabels(WorldLabels):
    """See the module; docs/isaac_sim.md says what to switch on."""

    AXES = 'optical'  # the bridge turns the transforms of cameras

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel],
                 take: Callable[[LabelledFrame], None]) -> None:
        super().__init__(node, objects, take)
        self._tables: dict[str, OrderedDict[int, tuple[int, Table]]] = {}  # by stamp: when it came, and what it says
        self._came = 0  # messages so far, for what came after what
        self._newest = 0  # stamp of the newest picture
        for topic in ('sim/boxes_3d', 'sim/boxes_2d', 'sim/segmentation'):
            self._tables[topic] = OrderedDict()
            node.listen_to(String, f'{topic}_labels', partial(self._take_table, topic), 20,
                           watched=topic == 'sim/boxes_3d')

    def take(self, found: Mapping[str, Any]) -> None:
        """Forget all tables when the simulator has begun again, for its numbers have as well."""
        stamp = messages.nanoseconds(found['sim/image'].header.stamp)
        if stamp < self._newest:
            self._waiting.clear()
            for tables in self._tables.values():
                tables.clear()
        self._newest = stamp
        self._came += 1
        super().take({**found, CAME: self._came})

    def _take_table(self, topic: str, message: String) -> None:
        stamp, table = read_table(message.data, f'{topic}_labels')
        tables = self._tables[topic]
        if tables and stamp < next(reversed(tables)):
            self._waiting.clear()
            tables.clear()
        self._came += 1
        tables.pop(stamp, None)
        tables[stamp] = self._came, table
        while len(tables) > KEPT:
            tables.popitem(last=False)
        self.retry()

    def _table(self, topic: str, stamp: int, came: int) -> Table:
        """Return the table of this stamp, else the first that came after the picture.

        One of before may be of another run of the simulator, whose numbers mean something else.

        :raises NotYet: when there is none so far
        """
        tables = self._tables[topic]
        if stamp in tables:
            return tables[stamp][1]
        later = [table for stamped, (order, table) in tables.items() if order > came or stamped == UNSTAMPED]
        if not later:
            raise NotYet(f'no table of labels on {topic}_labels for the picture\'s stamp (enableSemanticLabels)')
        return later[0]

    def scene(self, found: Mapping[str, Any], stamp: int, camera_frame: str) -> Scene:
        """See :class:`WorldLabels`."""
        from_world = self.to_optical(camera_frame, self.node.get('sim_world_frame'), stamp)
        scene = Scene()
        came = found[CAME]
        table = self._table('sim/boxes_3d', stamp, came)
        for index, detection in enumerate(found['sim/boxes_3d'].detections):
            what = f'sim/boxes_3d detection {index}'
            name = self._name(detection, table, what, scene.unknown)
            if name is not None:
                in_world = messages.read_pose(detection.bbox.center, f'{what} ({name})').matrix()
                scene.objects.append((name, pose_of(from_world @ in_world)))
        if 'sim/boxes_2d' in found:
            table, strangers = self._table('sim/boxes_2d', stamp, came), dict[str, int]()
            scene.boxes = []
            for index, detection in enumerate(found['sim/boxes_2d'].detections):
                what = f'sim/boxes_2d detection {index}'
                name = self._name(detection, table, what, strangers)
                if name is not None:
                    scene.boxes.append((name, inclusive_box(detection, what)))
        if 'sim/segmentation' in found:
            scene.segmentation = self._segmentation(found['sim/segmentation'],
                                                    self._table('sim/segmentation', stamp, came))
        return scene

    def _name(self, detection: Any, table: Table, what: str, unknown: dict[str, int]) -> str | None:
        number, _, _ = messages.hypothesis(detection, what)
        if number not in table:
            raise MessageError(f'{what}: class_id {number!r} is not in the table of labels, which has {table}')
        name = self._class(table[number])
        if name is None and table[number].upper() not in NO_OBJECT:
            unknown[table[number]] = unknown.get(table[number], 0) + 1
        return name

    def _class(self, label: str) -> str | None:
        """Return the class of a label; of several labels, which a prim inherits, the one that the model knows."""
        known = {class_of(part.strip(), self.names) for part in label.split(',')} - {None}
        if len(known) > 1:
            raise MessageError(f'label {label!r} means {sorted(map(str, known))}, expected one class of the model')
        return known.pop() if known else None

    def _segmentation(self, message: Any, table: Table) -> NDArray[np.uint16]:
        if message.encoding != '32SC1':
            raise MessageError(f'sim/segmentation: encoding {message.encoding!r}, expected Isaac Sim\'s 32SC1')
        order = '>' if message.is_bigendian else '<'
        numbers = messages.read_rows(message, 'sim/segmentation', 1, np.dtype(f'{order}u4'))
        classes = list(self.objects)
        found = np.zeros(numbers.shape, np.uint16)
        for number, label in table.items():
            name = self._class(label)
            if name is not None:
                found[numbers == int(number)] = 1 + classes.index(name)
        return found


def read_table(text: str, topic: str) -> tuple[int, Table]:
    """Return the stamp in nanoseconds (0 when there is none) and the labels by number.

    An entry with other types of semantic label than class is UNLABELLED.

    :raises MessageError: for text that is not such a table; the bridge writes some when nothing has a label
    """
    try:
        read = json.loads(text)
        stamp = read.pop('time_stamp', {})
        table = {str(int(number)): str(dict(label).get('class', 'UNLABELLED')) for number, label in read.items()}
        return int(stamp.get('sec', 0)) * 1_000_000_000 + int(stamp.get('nanosec', 0)), table
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise MessageError(f'{topic}: {text[:80]!r} is no table of labels, expected {{"2": {{"class": "mug"}}, ...}}; '
                           f'does any prim have a semantic label of the type class?') from error
