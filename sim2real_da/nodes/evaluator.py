# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluator node: scores the published topics against ground truth; it never touches a network.

Ground truth names its frame (the part of a detection's ``id`` before the slash), so every frame of the scoring set
counts once, however often the camera shows it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray, Detection3DArray

from sim2real_da.evaluation.metrics import evaluate
from sim2real_da.nodes import messages
from sim2real_da.nodes.camera_input import COMPRESSED, RECTIFIED
from sim2real_da.nodes.matching import StampMatcher
from sim2real_da.nodes.messages import ASK_AGAIN, PAUSED_ALREADY, MessageError
from sim2real_da.nodes.node import ManagedNode, Parameter, run
from sim2real_da.samples import Detection, Intrinsics, ObjectLabel, ObjectModel
from sim2real_da.simulation.objects import bop_models, tools

REQUIRED = ('ground_truth', 'detections', 'detections_3d')
BOXES = 'ground_truth_2d'
LEAVE_S = 0.3  # that a request needs to reach another process
KEEP = 500  # stamps of images remembered for the latency


def scored_objects(spec: str) -> dict[str, ObjectModel]:
    """Return what the metrics need of the objects a user named: ``tools`` or a BOP folder."""
    return {o.name: o.model for o in tools()} if spec == 'tools' else bop_models(Path(spec).expanduser())


class Evaluator(ManagedNode):
    """See the module and the table of topics in the README."""

    PARAMETERS = (
        Parameter('objects', 'tools', 'tools, or a BOP folder with the objects\' models', path=True),
        Parameter('frames', 40, 'different frames to score before the report', 1, 100_000, live=True),
        Parameter('pause_adaptation', True, 'pause learning while scoring (services adaptation/pause and resume)'),
        COMPRESSED,
        RECTIFIED,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('evaluator', **options)
        self._pauses = False  # learning is paused, and it was this node that asked for it

    def configure(self) -> None:
        """Load the objects and make the topics."""
        self._objects = scored_objects(self.get('objects'))
        self._matcher = StampMatcher(REQUIRED, capacity=100)
        self._intrinsics: Any = None
        self._scoring = False
        self._clear_counts()
        for topic, kind in (('ground_truth', Detection3DArray), (BOXES, Detection2DArray),
                            ('detections', Detection2DArray), ('detections_3d', Detection3DArray)):
            self.listen_to(kind, topic, self._collector(topic), 50)
        self._image_topic = 'real/image/compressed' if self.get('compressed') else 'real/image'
        self.listen_to(CompressedImage if self.get('compressed') else Image, self._image_topic, self._note_image, 10,
                       sensor=True, watched=True)
        self.listen_to(CameraInfo, 'real/camera_info', self._note_camera, 1, sensor=True)
        self._report = self.publish_on(String, '~/report', latched=True)
        self.offer(Trigger, '~/start', self._start)
        self._pausing = self.create_client(Trigger, 'adaptation/pause')
        self._resuming = self.create_client(Trigger, 'adaptation/resume')
        self._undo += [lambda: self.destroy_client(self._pausing), lambda: self.destroy_client(self._resuming)]

    def deactivate(self) -> None:
        """Score no more, and let learning go on."""
        self._scoring = False
        self._resume()

    def cleanup(self) -> None:
        """Give a request to go on the time to leave: this may be the process's end."""
        if self._pauses:
            time.sleep(LEAVE_S)
            self._pauses = False

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say how many frames are scored."""
        values = {'frames_in': self._frames_in, 'frames_out': self._frames_out, 'frames_scored': len(self._truth)}
        if not self._scoring:
            return DiagnosticStatus.OK, 'waiting for ~/start', values
        return DiagnosticStatus.OK, f'scoring: {len(self._truth)} of {self.get("frames")} frames', values

    def _clear_counts(self) -> None:
        self._truth: dict[str, list[ObjectLabel]] = {}
        self._cameras: list[Intrinsics] = []
        self._found: dict[str, list[Detection]] = {}
        self._arrived: dict[int, float] = {}
        self._latencies: list[float] = []
        self._frames_in = self._frames_out = 0
        self._matcher.clear()

    def _start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._scoring = False
        self._clear_counts()
        if self.get('pause_adaptation') and self._pausing.service_is_ready():
            self._pausing.call_async(Trigger.Request()).add_done_callback(self._paused)
        else:
            self._scoring = True
        response.success = True
        response.message = f'scoring {self.get("frames")} frames; the result comes on {self._report.topic_name}'
        return response

    def _paused(self, future: Any) -> None:
        """Begin once learning has stopped: what is scored has to be one version of the weights."""
        result = future.result()
        if result is None or not result.success:
            self._fail(f'adaptation/pause failed ({result.message if result else "no answer"}); nothing is scored')
            return
        self._pauses |= PAUSED_ALREADY not in result.message  # an operator's pause is not for this node to end
        if self.active:
            self._scoring = True
        else:
            self._resume()

    def _fail(self, why: str) -> None:
        self.get_logger().error(why)
        self._report.publish(String(data=json.dumps({'error': why})))

    def _resume(self) -> None:
        if self._pauses and self._resuming.service_is_ready():
            self._resuming.call_async(Trigger.Request()).add_done_callback(self._resumed)

    def _resumed(self, future: Any) -> None:
        result = future.result()
        if result is not None and result.success:
            self._pauses = False
        elif result is not None and ASK_AGAIN in result.message:
            self._resume()
        else:
            self.get_logger().error(f'adaptation/resume failed ({result.message if result else "no answer"}); learning '
                                    'is paused until somebody calls it')

    # --- messages ----------------------------------------

    def _note_camera(self, message: CameraInfo) -> None:
        self._intrinsics = messages.read_camera_info(message, 'real/camera_info', rectified=self.get('rectified'))

    def _note_image(self, message: Image | CompressedImage) -> None:
        if not self._scoring:
            return
        self._frames_in += 1
        self._arrived[messages.nanoseconds(message.header.stamp)] = time.monotonic()
        while len(self._arrived) > KEEP:
            del self._arrived[next(iter(self._arrived))]

    def _collector(self, topic: str) -> Any:
        def collect(message: Any) -> None:
            if not self._scoring:
                return
            stamp = messages.nanoseconds(message.header.stamp)
            # the last message that is needed; an answer to an image from before the start counts as little as the image
            if topic == 'detections_3d' and stamp in self._arrived:
                self._frames_out += 1
                self._latencies.append(1e3 * (time.monotonic() - self._arrived[stamp]))
            self._matcher.required = {*REQUIRED, BOXES} if self.count_publishers(
                self.resolve_topic_name(BOXES)) else set(REQUIRED)
            found = self._matcher.add(topic, stamp, message)
            if found is not None:
                self._score(found)
        return collect

    def _score(self, found: Mapping[str, Any]) -> None:
        if self._intrinsics is None:
            raise MessageError('ground_truth: no usable message on real/camera_info yet')
        truth = found['ground_truth']
        solids = found['detections_3d']
        if solids.header.frame_id != truth.header.frame_id:
            raise MessageError(f'detections_3d: poses in {solids.header.frame_id!r}, ground_truth in '
                               f'{truth.header.frame_id!r}; score perception without target_frame')
        ids = {d.id.split('/')[0] for d in truth.detections if '/' in d.id}
        key = ids.pop() if len(ids) == 1 else str(messages.nanoseconds(truth.header.stamp))
        if key in self._truth:
            return
        read = messages.read_labels(truth, 'ground_truth', self._intrinsics, self._objects, boxes=found.get(BOXES))
        if read.unknown:
            raise MessageError(f'ground_truth: classes {sorted(read.unknown)} are not among the objects to score, '
                               f'expected {sorted(self._objects)}')
        self._found[key] = messages.read_detections(found['detections'], solids, 'detections')
        self._truth[key] = list(read.labels)
        self._cameras.append(self._intrinsics)
        if len(self._truth) >= self.get('frames'):
            self._finish()

    def _finish(self) -> None:
        self._scoring = False
        self._resume()
        try:
            metrics = evaluate(list(self._truth.values()), [self._found[k] for k in self._truth], self._objects,
                               self._cameras)
        except ValueError as error:
            self._fail(f'cannot score: {error}')
            return
        latencies = np.array(self._latencies or [0.0])
        report = {
            **metrics, 'frames_in': self._frames_in, 'frames_out': self._frames_out, 'frames_scored': len(self._truth),
            'latency_ms': {'p50': float(np.percentile(latencies, 50)), 'p95': float(np.percentile(latencies, 95))},
        }
        self._report.publish(String(data=json.dumps(report)))
        self.get_logger().info(f'{len(self._truth)} frames: AP50 {report["ap50"]:.3f}, recall {report["recall"]:.3f}, '
                               f'mean angle {report["mean_angle_deg"]:.1f} degrees')


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``evaluator``."""
    return run(Evaluator, args)


if __name__ == '__main__':
    raise SystemExit(main())
