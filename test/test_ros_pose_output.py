# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Poses for a gripper: in the robot's frame at the picture's time, with stable names, or none at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('tf2_msgs', reason='needs tf2_msgs (make setup generates it)')

from geometry_msgs.msg import PoseArray, TransformStamped  # noqa: E402
from helpers import CAMERA, box_model  # noqa: E402
from ros_helpers import Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from vision_msgs.msg import Detection2DArray, Detection3DArray  # noqa: E402

from sim2real_da.nodes import messages, pose_output  # noqa: E402
from sim2real_da.nodes.pose_output import PARAMETERS, PoseOutput, read_thresholds  # noqa: E402
from sim2real_da.samples import Detection, Frame, Pose  # noqa: E402

MODELS = {'mug': box_model('mug'), 'cell phone': box_model('cell phone')}
SECOND = 1_000_000_000


class Board:
    """A node as far as the output knows one: keeps what is published, by topic."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = {p.name: p.default for p in PARAMETERS} | parameters
        self.published: dict[str, list[Any]] = {}
        self.listeners: dict[str, Callable[[Any], None]] = {}
        self.time = 0

    def get(self, name: str) -> Any:
        return self.parameters[name]

    def now(self) -> int:
        return self.time

    def get_namespace(self) -> str:
        return '/arm'

    def publish_on(self, kind: Any, topic: str, *_: Any, **__: Any) -> Any:
        sent = self.published.setdefault(topic, [])

        class Publisher:
            publish = sent.append

            def get_subscription_count(self) -> int:
                return 0

        return Publisher()

    def listen_to(self, kind: Any, topic: str, callback: Callable[[Any], None], *_: Any, **__: Any) -> None:
        self.listeners[topic] = callback

    def every(self, period_s: float, callback: Callable[[], None]) -> None:
        self.listeners['timer'] = lambda _: callback()

    def last(self, topic: str) -> Any:
        return self.published[topic][-1]


def frame(stamp: int) -> Frame:
    return Frame(np.zeros((240, 320, 3), np.uint8), CAMERA, stamp, 'camera')


def mug(score: float = 0.9, x: float = 0.1, name: str = 'mug') -> Detection:
    return Detection(name, score, np.array([1.0, 2, 3, 4]), Pose(np.array([0, 0, 0, 1.0]), np.array([x, 0.2, 0.5])),
                     np.diag([1.0, 2, 3, 4, 5, 6]))


def camera_in_base(stamp: int, x: float = 0.0) -> TFMessage:
    """The camera looks along the base's x axis."""
    message = TransformStamped(header=messages.header(stamp, 'base_link'), child_frame_id='camera')
    message.transform.translation.x = x
    q = message.transform.rotation
    q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
    return TFMessage(transforms=[message])


def test_poses_are_given_in_the_robots_frame_at_the_pictures_time() -> None:
    board = Board(target_frame='base_link')
    output = PoseOutput(board, MODELS)
    output.give([mug()], frame(2 * SECOND), 3)
    board.listeners['/tf'](camera_in_base(SECOND, 1.0))
    assert not board.published['~/detections_3d'], 'the latest transform was taken for that of the picture'
    board.listeners['/tf'](camera_in_base(3 * SECOND, 3.0))
    solid = board.last('~/detections_3d').detections[0]
    assert board.last('~/detections_3d').header.frame_id == solid.header.frame_id == 'base_link'
    assert messages.nanoseconds(solid.header.stamp) == 2 * SECOND
    place = solid.results[0].pose.pose.position
    # 0.5 m ahead of the camera, 0.1 right, 0.2 down; the camera was at x = 2 at that time
    assert (place.x, place.y, place.z) == pytest.approx((2.5, -0.1, -0.2))
    covariance = np.asarray(solid.results[0].pose.covariance).reshape(6, 6)
    np.testing.assert_allclose(np.diag(covariance), [3, 1, 2, 6, 4, 5], atol=1e-12)
    assert board.last('~/detections').header.frame_id == 'camera'  # boxes are of the picture
    assert board.last('~/poses').header.frame_id == board.last('~/pose/mug').header.frame_id == 'base_link'


def test_pictures_are_answered_in_their_order() -> None:
    board = Board(target_frame='base_link')
    output = PoseOutput(board, MODELS)
    board.listeners['/tf'](camera_in_base(0))
    for stamp in (3, 4):
        output.give([mug()], frame(stamp * SECOND), 3)
    board.listeners['/tf'](camera_in_base(5 * SECOND))
    assert [m.header.stamp.sec for m in board.published['~/detections_3d']] == [3, 4]


def test_without_a_transform_a_picture_gets_boxes_and_no_poses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pose_output.time, 'monotonic', lambda: clock[0])
    board = Board(target_frame='base_link')
    output = PoseOutput(board, MODELS)
    output.give([mug()], frame(SECOND), 3)
    clock[0] = 0.9
    board.listeners['timer'](None)
    assert not board.published['~/detections']
    clock[0] = 1.1
    board.listeners['timer'](None)
    assert len(board.last('~/detections').detections) == 1
    assert not board.last('~/detections_3d').detections and not board.last('~/poses').poses
    assert not board.published['~/pose/mug']
    assert output.without_transform == 1 and 'no common tree' in output.reason


def test_waiting_pictures_are_bounded() -> None:
    board = Board(target_frame='base_link', tf_timeout_s=60.0)
    output = PoseOutput(board, MODELS)
    for number in range(25):
        output.give([mug()], frame(number * SECOND), 3)
    assert len(board.published['~/detections']) == 15 and output.without_transform == 15


def test_old_pictures_get_no_poses() -> None:
    board = Board(max_age_s=0.5)
    output = PoseOutput(board, MODELS)
    board.time = 10 * SECOND
    output.give([mug()], frame(10 * SECOND - SECOND // 4), 3)
    assert board.last('~/detections_3d').detections
    output.give([mug()], frame(9 * SECOND), 3)
    assert board.last('~/detections').detections and not board.last('~/detections_3d').detections
    assert len(board.published['~/pose/mug']) == 1 and output.too_old == 1


def test_pictures_of_the_future_get_no_poses_either() -> None:
    board = Board(max_age_s=0.5)
    output = PoseOutput(board, MODELS)
    board.time = 10 * SECOND
    output.give([mug()], frame(10 * SECOND + SECOND // 4), 3)  # two clocks that nearly agree
    assert board.last('~/detections_3d').detections and output.too_old == 0
    output.give([mug()], frame(11 * SECOND), 3)
    assert not board.last('~/detections_3d').detections and output.too_old == 1


def test_classes_have_thresholds_of_their_own() -> None:
    board = Board(class_thresholds='mug=0.5 mug2=0.2')
    with pytest.raises(ValueError, match="'mug2' is not known"):
        PoseOutput(board, MODELS)
    board = Board(class_thresholds='mug=0.5')
    output = PoseOutput(board, MODELS)
    output.give([mug(0.49), mug(0.51, 0.4), mug(0.31, name='cell phone')], frame(0), 3)
    assert [d.results[0].hypothesis.class_id for d in board.last('~/detections').detections] == ['mug', 'cell phone']


def test_thresholds_of_classes_with_spaces() -> None:
    assert read_thresholds('cell phone=0.5; mug=0.7') == {'cell phone': 0.5, 'mug': 0.7}
    assert read_thresholds('mug=0.5 tool=0.7') == {'mug': 0.5, 'tool': 0.7} and read_thresholds(' ') == {}


@pytest.mark.parametrize('text', ['mug', 'mug=x', 'mug=1.5', '=0.5', 'mug=-0.1', 'mug=nan'])
def test_thresholds_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match='expected words like mug=0.5'):
        read_thresholds(text)


def test_instances_have_stable_names_on_every_topic() -> None:
    board = Board(broadcast_tf=True, smoothing=0.5)
    output = PoseOutput(board, MODELS)
    output.give([mug(0.9, 0.1), mug(0.8, 0.4)], frame(0), 3)
    output.give([mug(0.9, 0.42), mug(0.8, 0.1), mug(0.7, name='cell phone')], frame(SECOND // 10), 3)
    assert [d.id for d in board.last('~/detections_3d').detections] == ['mug_2', 'mug_1', 'cell_phone_1']
    assert [d.id for d in board.last('~/detections').detections] == ['mug_2', 'mug_1', 'cell_phone_1']
    transforms = board.last('/tf').transforms
    assert [t.child_frame_id for t in transforms] == ['arm/mug_2', 'arm/mug_1', 'arm/cell_phone_1']
    assert transforms[0].transform.translation.x == pytest.approx(0.41)
    assert transforms[0].header.frame_id == 'camera'
    output.give([], frame(SECOND // 5), 3)
    assert len(board.published['/tf']) == 2  # nothing seen, nothing sent


# --- over DDS ----------------------------------------

@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


def test_the_robots_frame_over_dds(graph: Graph) -> None:
    from sim2real_da.simulation.objects import load_objects
    from sim2real_da.simulation.simulator import Simulator

    simulator = Simulator(load_objects('tools'), CAMERA, seed=11)
    drawn = [simulator.sample() for _ in range(4)]
    simulator.close()
    graph.start('perception', {'weights': 'tools', 'target_frame': 'base_link', 'broadcast_tf': True,
                               'tf_timeout_s': 20.0})
    boxes, solids = (graph.collect(Detection2DArray, 'perception/detections'),
                     graph.collect(Detection3DArray, 'perception/detections_3d'))
    poses, frames = graph.collect(PoseArray, 'perception/poses'), graph.collect(TFMessage, '/tf')
    image, info = graph.publisher(Image, 'real/image'), graph.publisher(CameraInfo, 'real/camera_info')
    transforms = graph.publisher(TFMessage, '/tf', 100)
    for number, sample in enumerate(drawn, start=1):
        def show(sample: Any = sample, number: int = number) -> None:
            head = messages.header(number * SECOND, 'camera')
            info.publish(messages.camera_info_message(CAMERA, head))
            image.publish(messages.image_message(sample.frame.image, head))
            transforms.publish(camera_in_base(number * SECOND))

        graph.until(lambda number=number: any(m.header.stamp.sec == number for m in solids), 'an answer',
                    meanwhile=show, period=1.0)
    assert any(m.detections for m in solids) and any(m.poses for m in poses) and all(
        m.header.frame_id == 'camera' for m in boxes)
    for message in solids:
        assert message.header.frame_id == 'base_link'
        for detection in message.detections:
            assert detection.results[0].pose.pose.position.x > 0.1  # ahead of the camera is the base's x
    graph.until(lambda: any(t.header.frame_id == 'base_link' and t.child_frame_id.endswith('_1')
                            for m in frames for t in m.transforms), 'a transform of an instance')
