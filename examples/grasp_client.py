# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A grasping program's side of perception, as small as it gets: ``python examples/grasp_client.py --class mug``.

It waits for a pose of one class, believes only what is fresh, in the robot's frame and sure enough, keeps perception's
weights as they are while it grasps, and publishes where to: ``~/target`` (geometry_msgs/PoseStamped, the object's CAD
frame). Perception has to publish in that frame: ``ros2 launch sim2real_da adapt.launch.py target_frame:=base_link``.
Nothing is published where nothing is found, so a client that waits moves nowhere.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import Trigger

ANSWER_S = 2.0  # within which perception has to answer a hold


class GraspClient(Node):
    """Listens to one class's poses.

    :param topic: class name as it stands in the topic ``perception/pose/<topic>``
    :param frame: in which poses are expected; another one is refused
    :param max_age_s: a pose of an older picture is not grasped at
    :param worst_m: largest standard deviation of the position to grasp at
    """

    def __init__(self, topic: str, frame: str = 'base_link', max_age_s: float = 1.0, worst_m: float = 0.05,
                 **options: object) -> None:
        super().__init__(f'grasp_{topic}', **options)
        self.frame, self.max_age_s, self.worst_m = frame, max_age_s, worst_m
        self.latest: PoseWithCovarianceStamped | None = None  # the last pose that can be grasped at
        self.grasping = False
        self._asked: float | None = None  # when a hold was asked for that is not answered yet
        self.create_subscription(PoseWithCovarianceStamped, f'perception/pose/{topic}', self._take, 10)
        self._target = self.create_publisher(PoseStamped, '~/target', 1)
        self._hold = self.create_client(Trigger, 'perception/hold')
        self._release = self.create_client(Trigger, 'perception/release')

    def refusal(self, message: PoseWithCovarianceStamped) -> str:
        """Say why a pose is not grasped at, empty when it can be."""
        if message.header.frame_id != self.frame:
            return f'frame {message.header.frame_id!r}, expected {self.frame!r}: set target_frame in perception'
        age = (self.get_clock().now() - rclpy.time.Time.from_msg(message.header.stamp)).nanoseconds / 1e9
        if abs(age) > self.max_age_s:  # a stamp of the future is of another clock
            return f'{age:.2f} s old, at most {self.max_age_s:g}'
        covariance = np.reshape(message.pose.covariance, (6, 6))[:3, :3]
        if not np.isfinite(covariance).all() or not (np.diag(covariance) > 0).all():
            return f'no covariance: {np.diag(covariance)} m^2 of the position'
        deviation = float(np.sqrt(np.linalg.eigvalsh(covariance).max()))
        if deviation > self.worst_m:
            return f'position known to {deviation:.3f} m only, at worst {self.worst_m:g}'
        return ''

    def _take(self, message: PoseWithCovarianceStamped) -> None:
        reason = self.refusal(message)
        if reason:
            self.get_logger().info(f'not grasped at: {reason}', throttle_duration_sec=2.0)
            return
        self.latest = message

    def begin(self, then: Callable[[PoseStamped], None]) -> None:
        """Hold perception's weights, then publish the target of the latest pose and hand it on; call it repeatedly."""
        now = self.get_clock().now().nanoseconds / 1e9
        if self._asked is not None and now - self._asked > ANSWER_S:
            self.get_logger().warning(f'{self._hold.srv_name} is not answered: no grasp')
            self.end()
        message = self.latest
        if message is None or self.grasping:
            return
        if self.refusal(message):  # it has grown old meanwhile
            self.latest = None
            return
        self.grasping = True
        if not self._hold.service_is_ready():  # nobody swaps weights
            self._go(message, then)
            return
        self._asked = now

        def held(future: Future) -> None:
            if self._asked != now:  # it was given up meanwhile
                return
            answer, self._asked = future.result(), None
            reason = self.refusal(message) if answer.success else answer.message
            if reason:
                self.get_logger().warning(f'no grasp: {reason}')
                self.end()
                return
            self._go(message, then)

        self._hold.call_async(Trigger.Request()).add_done_callback(held)

    def _go(self, message: PoseWithCovarianceStamped, then: Callable[[PoseStamped], None]) -> None:
        target = PoseStamped(header=message.header, pose=message.pose.pose)
        self._target.publish(target)
        then(target)

    def end(self) -> Future | None:
        """Let perception take newer weights, and forget the pose: the object is not there any more."""
        self.grasping, self.latest, self._asked = False, None, None
        return self._release.call_async(Trigger.Request()) if self._release.service_is_ready() else None


def main() -> None:
    """Say where to grasp whenever there is a pose, once every few seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--class', dest='topic', required=True, help='class, as in the topic perception/pose/<class>')
    parser.add_argument('--frame', default='base_link')
    parser.add_argument('--seconds', type=float, default=5.0, help='that a grasp takes')
    options, others = parser.parse_known_args()
    # whatever ends the program, perception is released first: the context has to live, and no call to be broken off
    rclpy.init(args=others, signal_handler_options=SignalHandlerOptions.NO)
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: ended.append(received))
    client = GraspClient(options.topic, options.frame)
    began: list[float] = []

    def grasp(target: PoseStamped) -> None:
        place = target.pose.position
        client.get_logger().info(f'grasp at ({place.x:.3f}, {place.y:.3f}, {place.z:.3f})')
        began.append(client.get_clock().now().nanoseconds / 1e9)  # a robot would start to move here

    try:
        while not ended:
            rclpy.spin_once(client, timeout_sec=0.1)
            client.begin(grasp)
            if began and client.get_clock().now().nanoseconds / 1e9 - began[-1] > options.seconds:
                began.clear()
                client.end()
    finally:
        released = client.end() if client.grasping else None
        if released is not None:
            rclpy.spin_until_future_complete(client, released, timeout_sec=1.0)
        client.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
