# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What perception publishes of a picture: tracked, smoothed, in the robot's frame at the picture's time, or no pose.

A pose that cannot be given in ``target_frame`` at the picture's own time, or is too old, is not published in another
frame or with another time: its picture is answered with boxes and without poses.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import MarkerArray

from sim2real_da.evaluation.drawing import draw
from sim2real_da.nodes import messages
from sim2real_da.nodes.node import ManagedNode, Parameter
from sim2real_da.nodes.transforms import TransformBuffer, TransformUnavailable, listen_to_transforms
from sim2real_da.samples import Detection, Frame, ObjectModel
from sim2real_da.tracking import Tracker, moved

WAITING = 10  # pictures that wait for their transform
PERIOD_S = 0.1  # how often waiting pictures are looked after

PARAMETERS = (
    Parameter('class_thresholds', '', 'least scores of single classes: mug=0.5 tool=0.7, or cell phone=0.5; mug=0.7',
              live=True),
    Parameter('max_age_s', 0.0, 'pictures that are older when answered, or as far in the future, have no poses; 0: off',
              0.0, 3600.0, live=True),
    Parameter('smoothing', 0.0, 'share of an instance\'s pose so far in the new one; a moving object is shown '
              'smoothing / (1 - smoothing) pictures late', 0.0, 0.95, live=True),
    Parameter('forget_s', 2.0, 'an instance that was not seen for so long is a new one when it is seen again',
              0.0, 3600.0, live=True),
    Parameter('target_frame', '', 'frame of the poses (base_link), by /tf at the picture\'s time; empty: its own'),
    Parameter('tf_timeout_s', 1.0, 'how long a picture waits for that transform', 0.01, 60.0, live=True),
    Parameter('broadcast_tf', False, 'publish instances on /tf, as class_number'),
)


def read_thresholds(text: str) -> dict[str, float]:
    """Return the least score by class of ``mug=0.5 tool=0.7``; with semicolons names may hold spaces.

    :raises ValueError: for anything else
    """
    found = {}
    for word in filter(None, (w.strip() for w in (text.split(';') if ';' in text else text.split()))):
        name, _, number = word.rpartition('=')
        try:
            score = float(number)
        except ValueError:
            score = -1.0
        if not name or not 0 <= score <= 1:
            raise ValueError(f'{word!r}: expected words like mug=0.5, with scores from 0 to 1')
        found[name] = score
    return found


class PoseOutput:
    """Publishes answers for the perception node, which has :data:`PARAMETERS`.

    :param objects: models by class; ``class_thresholds`` may name no other
    :raises ValueError: for a class that is not among them
    """

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel]) -> None:
        self.node, self.objects = node, objects
        self.too_old = self.without_transform = 0
        self.reason = ''
        self._lock = threading.Lock()  # pictures come from perception's worker, transforms from the executor
        self._waiting: deque[tuple[float, list[Detection], Frame, int]] = deque()
        self._tracker = Tracker(objects)
        names = messages.topic_names(objects)
        self.check_thresholds(node.get('class_thresholds'))
        self._boxes = node.publish_on(Detection2DArray, '~/detections')
        self._solids = node.publish_on(Detection3DArray, '~/detections_3d')
        self._poses = node.publish_on(PoseArray, '~/poses')
        self._pose = {c: node.publish_on(PoseWithCovarianceStamped, f'~/pose/{n}') for c, n in names.items()}
        self._overlay = node.publish_on(Image, '~/overlay', 1)
        self._markers = node.publish_on(MarkerArray, '~/markers', 1)
        self._frames = node.publish_on(TFMessage, '/tf', 100) if node.get('broadcast_tf') else None
        self._transforms: TransformBuffer | None = None
        if node.get('target_frame'):
            self._transforms = listen_to_transforms(node, '/tf', self.settle)
            node.every(PERIOD_S, self.settle)

    def check_thresholds(self, text: str) -> None:
        """Refuse thresholds of classes that the model does not know.

        :raises ValueError: with the name
        """
        if strangers := set(read_thresholds(text)) - set(self.objects):
            raise ValueError(f'class_thresholds: class {sorted(strangers)[0]!r} is not known to the model, expected '
                             f'some of {sorted(self.objects)}')

    def give(self, found: list[Detection], frame: Frame, version: int) -> None:
        """Publish what was found in a picture by weights of a version, now or as soon as its transform is there."""
        least = read_thresholds(self.node.get('class_thresholds'))
        found = [d for d in found if d.score >= least.get(d.name, 0.0)]
        if self._overlay.get_subscription_count():
            head = messages.header(frame.stamp, frame.frame_id)
            self._overlay.publish(messages.image_message(
                draw(frame.image, found, frame.intrinsics, self.objects, scale=1,
                     caption=f'weights v{version}'), head))
        with self._lock:
            self._waiting.append((time.monotonic(), found, frame, version))
        self.settle()

    def settle(self) -> None:
        """Publish the pictures, in their order, up to the first one whose transform may still come."""
        with self._lock:
            while self._waiting:
                since, found, frame, version = self._waiting[0]
                late = len(self._waiting) > WAITING or time.monotonic() - since > self.node.get('tf_timeout_s')
                try:
                    placed = self._placed(found, frame)
                except TransformUnavailable as error:
                    if not late:
                        return
                    self.without_transform += 1
                    self.reason = str(error)
                    placed = _without_poses(found)
                self._waiting.popleft()
                self._publish(placed, frame, version)

    def _placed(self, found: list[Detection], frame: Frame) -> list[Detection]:
        """Return the detections in the frame that is wanted."""
        if self._transforms is None:
            return found
        transform = self._transforms.lookup(self.node.get('target_frame'), frame.frame_id, frame.stamp)
        return [moved(d, transform) for d in found]

    def _publish(self, found: list[Detection], frame: Frame, version: int) -> None:
        # a stamp of the future is of another clock: how old the picture is cannot be said
        if 0 < self.node.get('max_age_s') < abs(self.node.now() - frame.stamp) / 1e9:
            self.too_old += 1
            found = _without_poses(found)
        self._tracker.smoothing, self._tracker.forget_s = self.node.get('smoothing'), self.node.get('forget_s')
        found = self._tracker.update(found, frame.stamp)
        self._boxes.publish(messages.detections_2d_message(found, messages.header(frame.stamp, frame.frame_id)))
        head = messages.header(frame.stamp, self.node.get('target_frame') or frame.frame_id)
        self._solids.publish(messages.detections_3d_message(found, self.objects, head))
        self._poses.publish(messages.pose_array_message(found, head))
        for name, pose in messages.best_poses(found, head).items():
            self._pose[name].publish(pose)
        if self._markers.get_subscription_count():
            self._markers.publish(messages.marker_message(found, self.objects, head, version))
        if self._frames is not None and any(d.pose is not None for d in found):
            self._frames.publish(messages.transforms_message(found, head, self.node.get_namespace()))


def _without_poses(found: list[Detection]) -> list[Detection]:
    return [replace(d, pose=None, covariance=None) for d in found]
