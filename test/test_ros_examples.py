# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The example of a grasping program: what it believes, and that it holds the weights while it grasps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped  # noqa: E402
from helpers import load_script  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

EXAMPLE = Path(__file__).parent.parent / 'examples' / 'grasp_client.py'


class Scene:
    """The client, and a stand-in for perception, in one process."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=97)
        self.client = load_script(EXAMPLE).GraspClient('mug', context=self.context)
        self.node = rclpy.create_node('perception', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.executor.add_node(self.node)
        self.calls: list[str] = []
        self.refuses = False
        for name in ('hold', 'release'):
            self.node.create_service(Trigger, f'perception/{name}', self._service(name))
        self.poses = self.node.create_publisher(PoseWithCovarianceStamped, 'perception/pose/mug', 10)

    def _service(self, name: str) -> Any:
        def serve(_: Any, response: Any) -> Any:
            self.calls.append(name)
            response.success = not self.refuses
            response.message = 'not now'
            return response
        return serve

    def until(self, condition: Any) -> None:
        for _ in range(2000):
            if condition():
                return
            self.executor.spin_once(timeout_sec=0.02)
        raise AssertionError('waited in vain')

    def message(self, frame: str = 'base_link', age_s: float = 0.0, deviation: float = 0.01) -> Any:
        message = PoseWithCovarianceStamped()
        stamp = self.node.get_clock().now().nanoseconds - int(age_s * 1e9)
        message.header.frame_id = frame
        message.header.stamp = rclpy.time.Time(nanoseconds=stamp).to_msg()
        message.pose.covariance = (deviation**2 * np.eye(6)).ravel()
        message.pose.pose.position.x = 0.4
        return message

    def ready(self) -> None:
        """Wait until all is connected and there is a pose."""
        self.until(lambda: self.poses.get_subscription_count() and self.client._hold.service_is_ready()
                   and self.client._release.service_is_ready())
        self.poses.publish(self.message())
        self.until(lambda: self.client.latest is not None)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.executor.shutdown()
    made.client.destroy_node()
    made.node.destroy_node()
    rclpy.shutdown(context=made.context)


def test_what_is_not_grasped_at(scene: Scene) -> None:
    assert scene.client.refusal(scene.message()) == ''
    assert 'set target_frame' in scene.client.refusal(scene.message(frame='camera'))
    assert '2.0' in scene.client.refusal(scene.message(age_s=2.0))
    assert 'position known to 0.200 m only' in scene.client.refusal(scene.message(deviation=0.2))


def test_weights_are_held_during_a_grasp(scene: Scene) -> None:
    targets: list[Any] = []
    scene.node.create_subscription(PoseStamped, 'grasp_mug/target', targets.append, 10)
    scene.until(lambda: scene.poses.get_subscription_count() and scene.client._hold.service_is_ready()
                and scene.client._release.service_is_ready() and scene.client._target.get_subscription_count())
    moves: list[Any] = []
    scene.client.begin(moves.append)
    assert not scene.client.grasping, 'there is no pose yet'
    scene.poses.publish(scene.message(frame='camera'))
    scene.poses.publish(scene.message())
    scene.until(lambda: scene.client.latest is not None)
    scene.client.begin(moves.append)
    scene.client.begin(moves.append)  # one grasp at a time
    scene.until(lambda: moves and targets)
    assert scene.calls == ['hold'] and len(moves) == 1
    assert targets[0].header.frame_id == 'base_link' and targets[0].pose.position.x == 0.4
    scene.client.end()
    scene.until(lambda: scene.calls == ['hold', 'release'])
    assert scene.client.latest is None and not scene.client.grasping


def test_a_hold_that_is_refused_is_no_grasp(scene: Scene) -> None:
    scene.refuses = True
    scene.ready()
    moves: list[Any] = []
    scene.client.begin(moves.append)
    scene.until(lambda: scene.calls == ['hold', 'release'])
    assert not moves and not scene.client.grasping


def test_a_pose_that_grows_old_while_the_hold_is_answered_is_no_grasp(scene: Scene) -> None:
    scene.ready()
    moves: list[Any] = []
    scene.client.begin(moves.append)
    scene.client.max_age_s = 0.0
    scene.until(lambda: scene.calls == ['hold', 'release'])
    assert not moves and not scene.client.grasping


def test_a_hold_that_is_never_answered_does_not_block(scene: Scene) -> None:
    scene.ready()
    moves: list[Any] = []
    scene.client.begin(moves.append)
    assert scene.client.grasping and not moves
    scene.client._asked -= 10.0
    scene.client.begin(moves.append)
    assert not scene.client.grasping
    scene.until(lambda: scene.calls == ['hold', 'release'])
    assert not moves, 'an answer that comes too late moves nothing'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_perception_is_released_whatever_ends_the_program(scene: Scene, number: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLE), '--class', 'mug', '--seconds', '60'], stderr=subprocess.PIPE, text=True,
        env=os.environ | {'ROS_DOMAIN_ID': '97'})
    try:
        scene.until(lambda: scene.poses.get_subscription_count() == 2)

        def held() -> bool:
            scene.poses.publish(scene.message())
            return 'hold' in scene.calls
        scene.until(held)
        program.send_signal(number)
        scene.until(lambda: 'release' in scene.calls)
        _, errors = program.communicate(timeout=20)
    finally:
        program.kill()
    assert program.returncode == 0 and 'Traceback' not in errors
