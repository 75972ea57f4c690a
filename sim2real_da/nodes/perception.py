# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Perception node: the newest image in, detections and poses out, weights changed between two images.

The image callback only hands the message to a worker thread, and its callback group lets it run only while the worker
is free. Until then the middleware's queue of depth 1 keeps the newest image, so an image the callback has accepted is
always answered and never a stale one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import CallbackGroup
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import UInt8MultiArray
from std_srvs.srv import Trigger
from vision_msgs.msg import LabelInfo, VisionInfo

from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.estimator import Estimator
from sim2real_da.nodes import messages
from sim2real_da.nodes.camera_input import COMPRESSED, RECTIFIED, CameraInput
from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.node import ManagedNode, Parameter, check_device, printable, run
from sim2real_da.nodes.pose_output import PARAMETERS as OUTPUT
from sim2real_da.nodes.pose_output import PoseOutput, read_thresholds
from sim2real_da.resources import weights_path

DRAIN_S = 3.0  # an image in work when the node is told to stop gets this long to be answered


class WhileFree(CallbackGroup):
    """Lets its callbacks run only while the worker is free; until then their messages stay in the middleware."""

    def __init__(self) -> None:
        super().__init__()
        self.free = True

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may look at the entity at all."""
        return self.free

    def beginning_execution(self, entity: Any) -> bool:
        """Whether the executor may take the message."""
        return self.free

    def ending_execution(self, entity: Any) -> None:
        """Nothing to release: the worker says when it is free."""


class Perception(ManagedNode):
    """See the module and the table of topics in the README."""

    PARAMETERS = (
        Parameter('weights', 'tools', 'safetensors file, or the name of a shipped model', path=True),
        Parameter('device', 'cpu', 'torch device: cpu, cuda, cuda:0 …'),
        Parameter('score_threshold', 0.3, 'weaker detections are dropped', 0.0, 1.0, live=True),
        Parameter('max_detections', 20, 'best detections kept in one image', 1, 300, live=True),
        COMPRESSED,
        RECTIFIED,
        *OUTPUT,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('perception', **options)
        self._estimator: Estimator | None = None
        self._output: PoseOutput | None = None
        self._worker: threading.Thread | None = None

    def check_parameter(self, name: str, value: Any) -> None:
        """Refuse no device, and thresholds that cannot be read."""
        if name == 'device':
            check_device(value)
        if name == 'class_thresholds':
            read_thresholds(value)
            output = getattr(self, '_output', None)  # the base class checks defaults before there is one
            if output is not None:
                output.check_thresholds(value)

    # --- life ----------------------------------------

    def configure(self) -> None:
        """Load the model and make the topics."""
        path = weights_path(self.get('weights'))
        bundle = Bundle.load(path)
        self._location = printable(path)
        self._estimator = self._estimator_of(bundle)
        self._inbox: Image | CompressedImage | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._accepted = self._answered = self._swaps = self._rejected = 0
        self._rejection = ''
        self._senders = 0
        self._held = False
        self._waiting: Bundle | None = None
        self._latencies: deque[float] = deque(maxlen=200)
        self._group = WhileFree()

        self._output = PoseOutput(self, bundle.objects)
        self._label_info = self.publish_on(LabelInfo, '~/label_info', latched=True)
        self._vision_info = self.publish_on(VisionInfo, '~/vision_info', latched=True)

        self._camera = CameraInput(self, 'real', self._accept, self._group)
        self.listen_to(UInt8MultiArray, 'weights', self._receive_weights, latched=True)
        self.offer(Trigger, '~/hold', self._hold)
        self.offer(Trigger, '~/release', self._release)

    def activate(self) -> None:
        """Announce the model and start the worker."""
        self._announce()
        self._stopping = False
        self._group.free = True
        self._worker = threading.Thread(target=self._work, name='perception', daemon=True)
        self._worker.start()

    def deactivate(self) -> None:
        """Answer the image in work, then stop the worker."""
        if self._worker is None:
            return
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._worker.join(DRAIN_S)
        if self._worker.is_alive():
            self.get_logger().error(f'the image in work was not finished within {DRAIN_S} s')
        self._worker = None

    def cleanup(self) -> None:
        """Free the model."""
        self._estimator = self._output = None

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say which weights run and how many images were answered."""
        assert self._estimator is not None and self._output is not None
        version = self._estimator.bundle.version
        publishers = self._count_publishers()
        values: dict[str, object] = {
            'weights_version': version, 'recipe': self._estimator.bundle.recipe, 'frames_accepted': self._accepted,
            'frames_answered': self._answered, 'weight_swaps': self._swaps, 'weights_rejected': self._rejected,
            'last_rejection': self._rejection, 'weights_publishers': publishers, 'held': self._held,
            'too_old': self._output.too_old, 'without_transform': self._output.without_transform,
        }
        latencies = sorted(self._latencies)
        if latencies:
            values['inference_ms_p50'] = 1e3 * latencies[len(latencies) // 2]
        if self._rejected and self._rejection:
            return DiagnosticStatus.WARN, f'weights v{version}; newer ones were rejected: {self._rejection}', values
        if publishers > 1:
            return DiagnosticStatus.WARN, f'weights v{version}; {publishers} publishers, expected one', values
        if self._output.without_transform:
            return (DiagnosticStatus.WARN, f'weights v{version}; {self._output.without_transform} pictures without a '
                    f'transform to {self.get("target_frame")}: {self._output.reason}', values)
        return DiagnosticStatus.OK, f'weights v{version}' + (' (held)' if self._held else ''), values

    # --- images ----------------------------------------

    def _accept(self, message: Image | CompressedImage) -> None:
        """Hand over; the callback group has made sure that the worker is free."""
        with self._wake:
            self._group.free = False
            self._inbox = message
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while self._inbox is None and not self._stopping:
                    self._wake.wait()
                message, self._inbox = self._inbox, None
            if message is None:
                return
            try:
                self._answer(message)
            except MessageError as error:
                self.refuse(self._camera.topic, error)
            except Exception as error:  # out of memory, a broken driver: name it, drop this image, go on
                self.get_logger().error(printable(f'inference failed: {type(error).__name__}: {error}'))
                self.refuse(self._camera.topic, f'inference failed: {error}')
            finally:
                self._group.free = True
                if self.executor is not None:
                    self.executor.wake()

    def _answer(self, message: Image | CompressedImage) -> None:
        estimator = self._estimator  # one for the whole picture: weights may arrive meanwhile
        assert estimator is not None and self._output is not None
        started = time.monotonic()
        frame = self._camera.frame(message)
        self._accepted += 1
        threshold = self.get('score_threshold')
        if threshold != estimator.score_threshold:
            estimator.score_threshold = threshold
            self._announce()
        estimator.max_detections = self.get('max_detections')
        found = estimator.estimate(frame.image, frame.intrinsics)
        self._output.give(found, frame, estimator.bundle.version)
        self._answered += 1
        self._latencies.append(time.monotonic() - started)

    # --- weights ----------------------------------------

    def _announce(self) -> None:
        assert self._estimator is not None
        bundle = self._estimator.bundle
        head = messages.header(self.now(), '')
        self._label_info.publish(messages.label_info_message(bundle.classes, self.get('score_threshold'), head))
        self._vision_info.publish(messages.vision_info_message(
            f'sim2real_da detector + pose network, recipe {bundle.recipe}', self._location, bundle.version, head))

    def _count_publishers(self) -> int:
        """Return how many publish weights; whoever sends the highest number wins, so more than one is worth a line."""
        topic = self.resolve_topic_name('weights')
        count = self.count_publishers(topic)
        if count > 1 and count != self._senders:
            self.get_logger().warning(f'{count} publishers on {topic}, expected one')
        self._senders = count
        return count

    def _receive_weights(self, message: UInt8MultiArray) -> None:
        assert self._estimator is not None
        current = self._estimator.bundle
        newest = self._waiting or current
        try:
            bundle = Bundle.from_bytes(memoryview(message.data), like=current)
            if any(bundle.version == known.version and bundle.recipe == known.recipe for known in (current, newest)):
                return  # the latched message of a restarted publisher
            if bundle.version <= newest.version:
                state = 'waiting' if self._waiting else 'running'
                raise WeightsError(
                    f'weights: version {bundle.version} is not newer than the {state} {newest.version}; versions only '
                    f'grow, also on rollback')
            if not self._held:
                self._swap(bundle)
                return
        except WeightsError as error:
            raise MessageError(self._reject(error)) from error
        self._waiting = bundle
        self.get_logger().info(f'weights version {bundle.version} wait until ~/release')

    def _reject(self, error: WeightsError) -> str:
        """Count weights that cannot be used and return the line that says so."""
        assert self._estimator is not None
        self._rejected += 1
        self._rejection = str(error)
        return f'weights: rejected, version {self._estimator.bundle.version} keeps running: {error}'

    def _estimator_of(self, bundle: Bundle) -> Estimator:
        return Estimator(bundle, self.get('device'), self.get('score_threshold'), self.get('max_detections'))

    def _swap(self, bundle: Bundle) -> None:
        """Run other weights from the next image on.

        :raises WeightsError: when the device cannot take them; those so far run on
        """
        try:
            self._estimator = self._estimator_of(bundle)
        except Exception as error:  # out of memory, a broken driver
            raise WeightsError(f'weights: version {bundle.version} cannot be run on {self.get("device")}: '
                               f'{type(error).__name__}: {error}') from error
        self._swaps += 1
        self._rejection = ''
        self.get_logger().info(f'weights version {bundle.version} (recipe {bundle.recipe}) from the next image on')
        self._announce()

    def _hold(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._held = True
        response.success, response.message = True, 'no weights change until ~/release'
        return response

    def _release(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._held = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            try:
                self._swap(waiting)
            except WeightsError as error:
                response.success, response.message = False, self._reject(error)
                self.refuse('weights', response.message)
                return response
        response.success = True
        response.message = f'weights version {waiting.version} taken' if waiting is not None else 'nothing waited'
        return response


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``perception``."""
    return run(Perception, args)


if __name__ == '__main__':
    raise SystemExit(main())
