# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A session is recorded over DDS, read back without ROS, and shown as a page."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from helpers import CAMERA, box_model  # noqa: E402
from ros_helpers import LATCHED, Graph  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from vision_msgs.msg import Detection2DArray, Detection3DArray, VisionInfo  # noqa: E402

from sim2real_da.cli import main  # noqa: E402
from sim2real_da.data.recordings import open_recording  # noqa: E402
from sim2real_da.evaluation.session_report import is_session, read_session  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.samples import Detection, Pose  # noqa: E402

MUG = {'mug': box_model('mug')}


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


def status(**values: object) -> Any:
    return DiagnosticStatus(name='adaptation', message='adapting', values=[
        KeyValue(key=k.replace('__', '/'), value=str(v)) for k, v in values.items()])


def test_a_session_is_recorded_and_reported(graph: Graph, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    graph.start('recorder', {'out': str(tmp_path / 'recordings'), 'image_period_s': 0.2})
    senders = {topic: graph.publisher(kind, topic, qos) for topic, kind, qos in (
        ('real/image', Image, 10), ('real/camera_info', CameraInfo, 10),
        ('perception/detections', Detection2DArray, 10), ('perception/detections_3d', Detection3DArray, 10),
        ('perception/vision_info', VisionInfo, LATCHED), ('adaptation/status', DiagnosticStatus, LATCHED),
        ('/diagnostics', DiagnosticArray, 10))}
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    for number in range(30):
        head = messages.header(1_000_000_000 + number, 'camera')
        pose = Pose(np.array([0, 0, 0, 1.0]), np.array([0.0, 0.0, 0.5]))
        found = [Detection('mug', 0.5 + 0.01 * number, np.array([120.0, 90, 200, 150]), pose, np.eye(6))]
        senders['real/camera_info'].publish(messages.camera_info_message(CAMERA, head))
        senders['real/image'].publish(messages.image_message(image, head))
        senders['perception/detections'].publish(messages.detections_2d_message(found, head))
        senders['perception/detections_3d'].publish(messages.detections_3d_message(found, MUG, head))
        senders['perception/vision_info'].publish(messages.vision_info_message(
            'recipe dann', 'w', 1 + number // 15, head))
        senders['adaptation/status'].publish(status(
            recipe='dann', promotions=float(number // 15), rejections=1.0, gate__candidate_ap50=0.6,
            gate__running_ap50=0.5, gate__source_ap50=0.5))
        if number == 5:
            senders['/diagnostics'].publish(DiagnosticArray(status=[DiagnosticStatus(
                level=DiagnosticStatus.WARN, name='perception', message='no message on /real/image for 6 s')]))
        graph.spin(0.03)
    graph.until(lambda: float(graph.values('recorder').get('messages', 0)) >= 30 * 5, 'the messages to be written')
    process = graph.runner._running['recorder']
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    path = next((tmp_path / 'recordings').iterdir())
    assert is_session(path)

    session = read_session(path)
    assert len(session.found) == 30 and session.found[-1][1]['mug'] == pytest.approx(0.79)
    assert [version for _, version, _ in session.versions] == [1, 2]
    assert 2 <= len(session.pictures.kept) <= session.seconds / 0.2 + 2, 'one picture every 0.2 s'
    np.testing.assert_array_equal(session.pictures.kept[0][3], image)
    assert session.numbers['promotions'] == '1.0' and session.gate[-1][1]['candidate_ap50'] == 0.6
    assert any('no message on /real/image' in text for text in session.complaints)

    recording = open_recording(str(path))  # its pictures can be learnt from
    frame = recording.read()
    assert frame is not None and frame.intrinsics == CAMERA
    recording.close()

    assert main(['report', str(path)]) == 0
    page = (path / 'report.html').read_text(encoding='utf-8')
    for text in ('<td>mug</td>', 'v2', 'no message on /real/image', 'data:image/png;base64', 'data:image/jpeg;base64'):
        assert text in page
    assert 'http' not in page.replace('http-equiv', ''), 'the page needs nothing beside it'


def test_a_remapped_camera_is_recorded_under_the_packages_name(graph: Graph, tmp_path: Path) -> None:
    graph.start('recorder', {'out': str(tmp_path / 'out')}, {'real/image': '/camera/color/image_raw'})
    sender = graph.publisher(Image, '/camera/color/image_raw')
    for number in range(10):
        sender.publish(messages.image_message(np.zeros((4, 4, 3), np.uint8), messages.header(number, 'camera')))
        graph.spin(0.1)
    process = graph.runner._running['recorder']
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert read_session(next((tmp_path / 'out').iterdir())).pictures.kept


def test_a_full_recording_ends_and_says_so(graph: Graph, tmp_path: Path) -> None:
    graph.start('recorder', {'out': str(tmp_path / 'recordings'), 'image_period_s': 0.0, 'max_mb': 1})
    sender = graph.publisher(Image, 'real/image')
    image = np.zeros((480, 640, 3), np.uint8)  # 0.9 MB
    graph.until(lambda: 'has ended' in graph.diagnostics['recorder'].message, 'the end',
                meanwhile=lambda: sender.publish(messages.image_message(image, messages.header(1, 'camera'))))
    assert float(graph.values('recorder')['megabytes']) <= 1.0
    path = next((tmp_path / 'recordings').iterdir())
    graph.until(lambda: (path / 'metadata.yaml').is_file(), 'a file that can be read although the node still runs')
    assert len(read_session(path).pictures.kept) == 1


def test_what_is_no_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'cut.mcap').write_bytes(b'\x89MCAP0\r\nhalf')
    assert main(['report', str(tmp_path / 'cut.mcap')]) == 2
    assert 'cannot be read as a recording' in capsys.readouterr().err


def test_a_recording_of_two_robots_and_of_damaged_messages(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS2_JAZZY)
    text = 'diagnostic_msgs/msg/DiagnosticStatus'
    value, status = types.types['diagnostic_msgs/msg/KeyValue'], types.types[text]
    path = tmp_path / 'two'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for robot, version in (('/arm_1', '1'), ('/arm_2', '11')):
            connection = writer.add_connection(f'{robot}/adaptation/status', text, typestore=types)
            message = status(level=0, name='adaptation', message='adapting', hardware_id='',
                             values=[value(key='version', value=version)])
            data = types.serialize_cdr(message, text)
            writer.write(connection, 1, data)
            writer.write(connection, 2, data[:12])
    with pytest.raises(ValueError, match='topics of several robots, name one with --robot: /arm_1/, /arm_2/'):
        read_session(path)
    with pytest.raises(ValueError, match="no topics of robot 'arm_3', expected one of /arm_1/, /arm_2/"):
        read_session(path, 'arm_3')
    session = read_session(path, 'arm_2')
    assert session.numbers == {'version': '11'} and session.course == [(0.0, 'adapting')]
    (what, count), = session.complaints.items()
    assert what.startswith('recording: /arm_2/adaptation/status: ') and count == 1
    assert main(['report', str(path), '--robot', '/arm_1']) == 0 and (path / 'report.html').is_file()
