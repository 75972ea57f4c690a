# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Two robots in one domain, each in its namespace; one of them learns from two cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

import torch  # noqa: E402
from helpers import CAMERA, box_model  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.adaptation import Adaptation  # noqa: E402


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    torch.manual_seed(0)
    Bundle.create({'box': box_model('box')}, {'width': 16}, {'width': 16}).save(tmp_path / 'w.safetensors')
    context = Context()
    rclpy.init(context=context, domain_id=96)
    executor = SingleThreadedExecutor(context=context)
    made: list[Any] = []

    def node(robot: str, **parameters: Any) -> Any:
        own = Adaptation(context=context, namespace=robot, parameter_overrides=[Parameter(k, value=v) for k, v in {
            'weights': str(tmp_path / 'w.safetensors'), 'state_dir': str(tmp_path / robot), **parameters}.items()])
        made.append(own)
        executor.add_node(own)
        return own

    node.executor, node.context = executor, context  # type: ignore[attr-defined]
    yield node
    for own in made:
        own.trigger_deactivate()
        own.trigger_cleanup()
    executor.shutdown()
    for own in made:
        own.destroy_node()
    rclpy.shutdown(context=context)


def test_robots_learn_from_their_own_cameras(make: Any) -> None:
    first, second = make('first', cameras='left right'), make('second')
    for robot in (first, second):
        assert robot.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert robot.trigger_activate() == TransitionCallbackReturn.SUCCESS
    driver = rclpy.create_node('drivers', context=make.context)
    make.executor.add_node(driver)
    rng, sent = np.random.default_rng(0), {}
    for camera in ('/first/left', '/first/right', '/second/real'):
        sent[camera] = (driver.create_publisher(CameraInfo, f'{camera}/camera_info', 10),
                        driver.create_publisher(Image, f'{camera}/image', 10))

    def frames(robot: Any) -> int:
        return int(robot._session.metrics['buffer_frames'])

    def show(camera: str, until: Callable[[], bool]) -> None:
        for _ in range(200):
            head = messages.header(driver.get_clock().now().nanoseconds, camera.strip('/').replace('/', '_'))
            info, image = sent[camera]
            info.publish(messages.camera_info_message(CAMERA, head))
            image.publish(messages.image_message(rng.integers(0, 255, (240, 320, 3)).astype(np.uint8), head))
            for _ in range(10):
                make.executor.spin_once(timeout_sec=0.01)
            if until():
                return
        raise AssertionError(f'nothing of {camera} arrived')

    show('/first/left', lambda: frames(first) >= 2)
    after_left = frames(first)
    show('/first/right', lambda: frames(first) >= after_left + 2)
    assert frames(second) == 0, 'frames of another robot'
    kept = frames(first)
    show('/second/real', lambda: frames(second) >= 2)
    assert frames(first) == kept
    seen = {frame.frame_id for frame in first._session.buffer.unnoted(100)}
    assert seen == {'first_left', 'first_right'}
    topics = {name for name, _ in first.get_publisher_names_and_types_by_node('adaptation', '/first')}
    assert '/first/adaptation/weights' in topics


@pytest.mark.parametrize('cameras', ['', ' ', 'left left'])
def test_lists_of_cameras_that_cannot_be_meant(make: Any, cameras: str) -> None:
    with pytest.raises(rclpy.exceptions.InvalidParameterValueException, match='each once'):
        make('first', cameras=cameras)
