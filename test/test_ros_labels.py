# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of Isaac Sim, Gazebo and the normal form: one scene, one result, and every trap of their messages."""

from __future__ import annotations

import array
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from geometry_msgs.msg import TransformStamped  # noqa: E402
from helpers import CAMERA, box_model  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from vision_msgs.msg import (  # noqa: E402
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    ObjectHypothesisWithPose,
)

from sim2real_da.geometry import angle_between, project, transform_points  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.labels import LABEL_SOURCES, PARAMETERS  # noqa: E402
from sim2real_da.nodes.labels.isaac_sim import read_table  # noqa: E402
from sim2real_da.nodes.labels.source import MORE, STRANGERS  # noqa: E402
from sim2real_da.nodes.labels.world import read_class_map  # noqa: E402
from sim2real_da.nodes.messages import MessageError  # noqa: E402
from sim2real_da.samples import LabelledFrame, ObjectLabel, Pose  # noqa: E402

STAMP = 5_000_000_007
MODELS = {'mug': box_model('mug'), 'tool': box_model('tool', (0.06, 0.01, 0.015))}
# the camera stands at (1, 0.2, 0.5) and looks down along the world's -x; objects lie before it, turned
WORLD_CAMERA = np.eye(4)
WORLD_CAMERA[:3, :3] = Rotation.from_euler('z', 170, degrees=True).as_matrix() @ Rotation.from_euler(
    'y', 35, degrees=True).as_matrix() @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # optical axes in a body's
WORLD_CAMERA[:3, 3] = 1, 0.2, 0.5
SCENE = {'mug': Pose(np.array([0.1, 0.2, 0.6, 0.5]), np.array([0.45, 0.15, 0.1])),
         'tool': Pose(np.array([-0.4, 0.1, 0.3, 0.7]), np.array([0.5, 0.25, 0.12]))}


def matrix_pose(matrix: np.ndarray) -> Pose:
    return Pose(Rotation.from_matrix(matrix[:3, :3]).as_quat(), matrix[:3, 3])


TRUTH = {name: matrix_pose(np.linalg.inv(WORLD_CAMERA) @ pose.matrix()) for name, pose in SCENE.items()}


class Wire:
    """A node as far as the adapters know one: hands what is sent to whoever listens."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = {p.name: p.default for p in PARAMETERS} | parameters
        self.listeners: dict[str, Callable[[Any], None]] = {}
        self.publishers: set[str] = set()
        self.refused: list[str] = []

    def get(self, name: str) -> Any:
        return self.parameters[name]

    def listen_to(self, kind: Any, topic: str, callback: Callable[[Any], None], *_: Any, **__: Any) -> None:
        self.listeners[topic] = callback

    def resolve_topic_name(self, topic: str) -> str:
        return topic

    def count_publishers(self, topic: str) -> int:
        return int(topic in self.publishers)

    def refuse(self, topic: str, error: object) -> None:
        self.refused.append(f'{topic}: {error}')

    def send(self, topic: str, message: Any) -> None:
        try:
            self.listeners[topic](message)
        except MessageError as error:
            self.refuse(topic, error)


class Simulated:
    """A label source on a wire, and what it hands on."""

    def __init__(self, labels: str, optional: tuple[str, ...] = (), **parameters: Any) -> None:
        self.wire = Wire(**parameters)
        self.wire.publishers |= set(optional)
        self.frames: list[LabelledFrame] = []
        self.source = LABEL_SOURCES[labels](self.wire, MODELS, self.frames.append)
        self.source.tick()

    def labels(self) -> dict[str, ObjectLabel]:
        assert not self.wire.refused, self.wire.refused
        assert len(self.frames) == 1, self.source.complaint()
        return {label.name: label for label in self.frames[0].labels}


def head(frame: str, stamp: int = STAMP) -> Header:
    return messages.header(stamp, frame)


def picture(frame: str = 'sim_camera', stamp: int = STAMP) -> Image:
    return messages.image_message(np.zeros((240, 320, 3), np.uint8), head(frame, stamp))


def camera_info(stamp: int = STAMP) -> Any:
    return messages.camera_info_message(CAMERA, head('sim_camera', stamp))


def transform(parent: str, child: str, matrix: np.ndarray, stamp: int = STAMP) -> TransformStamped:
    message = TransformStamped(header=head(parent, stamp), child_frame_id=child)
    pose = messages.pose_message(matrix_pose(matrix))
    message.transform.rotation = pose.orientation
    t = message.transform.translation
    t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
    return message


def solid(class_id: str, pose: Pose, size: tuple[float, float, float] = (0.1, 0.06, 0.04)) -> Detection3D:
    """A box as both bridges write it: no inner header, the result's pose never set."""
    message = Detection3D(results=[ObjectHypothesisWithPose()])
    message.results[0].hypothesis.class_id, message.results[0].hypothesis.score = class_id, 1.0
    message.bbox.center = messages.pose_message(pose)
    message.bbox.size.x, message.bbox.size.y, message.bbox.size.z = size
    return message


def visible(class_id: str, name: str) -> Detection2D:
    """A visible box by first and last pixel, as both simulators count."""
    pixels = project(transform_points(MODELS[name].points, TRUTH[name]), CAMERA)
    first, last = np.ceil(pixels.min(0) - 0.5), np.floor(pixels.max(0) + 0.5)
    message = Detection2D(results=[ObjectHypothesisWithPose()])
    message.results[0].hypothesis.class_id, message.results[0].hypothesis.score = class_id, 1.0
    centre = message.bbox.center.position
    centre.x, centre.y = (first + last) / 2
    message.bbox.size_x, message.bbox.size_y = last - first
    return message


def boxes(*detections: Any, frame: str = 'sim_camera') -> Any:
    kind = Detection2DArray if isinstance(detections[0], Detection2D) else Detection3DArray
    return kind(header=head(frame), detections=list(detections))


def table(**labels: str) -> String:
    read: dict[str, Any] = {number[1:]: {'class': label} for number, label in labels.items()}
    return String(data=json.dumps({**read, 'time_stamp': {'sec': 5, 'nanosec': 7}}))


def camera_transform(stamp: int = STAMP, matrix: np.ndarray = WORLD_CAMERA) -> TFMessage:
    return TFMessage(transforms=[transform('world', 'sim_camera', matrix, stamp)])


# --- one scene through all three ----------------------------------------

def normal(**_: Any) -> Simulated:
    made = Simulated('normal', ('sim/labels_2d',))
    labels = [ObjectLabel(name, np.zeros(4), pose, None) for name, pose in TRUTH.items()]
    made.wire.send('sim/image', picture())
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/labels', messages.labels_message(labels, MODELS, head('sim_camera')))
    exact = messages.labels_2d_message(labels, head('sim_camera'))
    for detection, name in zip(exact.detections, TRUTH):
        detection.bbox = visible('', name).bbox
        detection.bbox.size_x += 1
        detection.bbox.size_y += 1
    made.wire.send('sim/labels_2d', exact)
    return made


def isaac_sim(**changes: Any) -> Simulated:
    made = Simulated('isaac_sim', ('sim/boxes_2d',), **changes)
    made.wire.send('sim/camera_info', camera_info(stamp=99))  # Isaac Sim's camera_info may be of another clock
    made.wire.send('sim/boxes_3d_labels', table(_0='BACKGROUND', _3='mug,crockery', _7='tool'))
    made.wire.send('sim/boxes_2d_labels', table(_0='BACKGROUND', _4='mug', _5='tool'))  # its own numbers
    made.wire.send('sim/image', picture())
    # the pose of the prim in the world, under the camera's frame_id
    made.wire.send('sim/boxes_3d', boxes(solid('7', SCENE['tool']), solid('3', SCENE['mug']), solid('0', SCENE['mug'])))
    made.wire.send('sim/boxes_2d', boxes(visible('4', 'mug'), visible('5', 'tool')))
    made.wire.send('sim/tf', camera_transform())
    return made


def gazebo(tmp_path: Any, **changes: Any) -> Simulated:
    (tmp_path / 'classes.yaml').write_text('mug: {label: 1, frames: [mug_0, mug_1]}\ntool: {label: 12}\n')
    made = Simulated('gazebo', ('sim/boxes_2d',), class_map=str(tmp_path / 'classes.yaml'),
                     **{'sim_camera_frame': 'camera_link', **changes})
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/image', picture('robot/camera_link/boxes'))
    found = []
    for label, name in (('1', 'mug'), ('12', 'tool')):
        pose = TRUTH[name]
        x, y, z = MODELS[name].box_centre(pose)
        permuted = Rotation.from_quat(pose.quaternion) * Rotation.from_euler('z', 90, degrees=True)  # of a PCA
        found.append(solid(label, Pose(permuted.as_quat(), np.array([x, -y, -z]))))
    made.wire.send('sim/boxes_3d', boxes(*found, frame='robot/camera_link/boxes'))
    made.wire.send('sim/boxes_2d', boxes(visible('12', 'tool'), visible('1', 'mug')))
    link = WORLD_CAMERA.copy()
    link[:3, :3] = WORLD_CAMERA[:3, :3] @ np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # x forward, z up
    second = SCENE['mug'].matrix()
    second[:3, 3] += (0.3, 0, 0)  # another mug, out of the picture
    made.wire.send('sim/tf', TFMessage(transforms=[
        transform('table_world', 'camera_link', link), transform('table_world', 'mug_1', SCENE['mug'].matrix()),
        transform('table_world', 'mug_0', second), transform('table_world', 'tool', SCENE['tool'].matrix())]))
    return made


@pytest.mark.parametrize('simulator', [normal, isaac_sim, gazebo])
def test_one_scene_gives_the_same_labels_through_every_adapter(simulator: Any, tmp_path: Any) -> None:
    made = simulator(tmp_path=tmp_path) if simulator is gazebo else simulator()
    labels = made.labels()
    assert set(labels) == {'mug', 'tool'}
    for name, label in labels.items():
        assert angle_between(label.pose.quaternion, TRUTH[name].quaternion) < 1e-4
        np.testing.assert_allclose(label.pose.translation, TRUTH[name].translation, atol=1e-9)
        pixels = project(transform_points(MODELS[name].points, TRUTH[name]), CAMERA)
        np.testing.assert_allclose(label.box, [*pixels.min(0), *pixels.max(0)], atol=1.0)
        # pixels, counted: the last one belongs to the box
        inner = visible('', name).bbox
        assert label.box[2] - label.box[0] == pytest.approx(inner.size_x + 1)
    assert made.frames[0].frame.stamp == STAMP and made.frames[0].frame.intrinsics == CAMERA


@pytest.mark.parametrize('simulator', [normal, isaac_sim, gazebo])
def test_a_cad_frame_beside_the_objects_middle(simulator: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = np.array([0.04, 0.0, -0.03])
    for name, model in list(MODELS.items()):
        monkeypatch.setitem(MODELS, name, replace(
            model, points=(model.points + beside).astype(np.float32), minimum=model.minimum + beside))
    made = simulator(tmp_path=tmp_path) if simulator is gazebo else simulator()
    for name, label in made.labels().items():
        np.testing.assert_allclose(label.pose.translation, TRUTH[name].translation, atol=1e-9)
        assert angle_between(label.pose.quaternion, TRUTH[name].quaternion) < 1e-4


# --- traps ----------------------------------------

def test_gazebo_needs_to_know_what_its_numbers_mean() -> None:
    with pytest.raises(ValueError, match='class_map: empty'):
        Simulated('gazebo')


def test_a_quaternion_written_as_wxyz_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isaac Sim's Python API has w first; what stands in a topic is seen by where the visible box is."""
    monkeypatch.setitem(MODELS, 'mug', box_model('mug', (0.12, 0.01, 0.015)))  # long: its turn is seen by its box
    across = Pose(Rotation.from_euler('z', 80, degrees=True).as_quat(), SCENE['mug'].translation)
    monkeypatch.setitem(TRUTH, 'mug', matrix_pose(np.linalg.inv(WORLD_CAMERA) @ across.matrix()))
    monkeypatch.setitem(SCENE, 'mug', across)
    assert set(isaac_sim().labels()) == {'mug', 'tool'}
    monkeypatch.setitem(SCENE, 'mug', Pose(across.quaternion[[3, 0, 1, 2]], across.translation))
    made = isaac_sim()
    assert not made.frames and 'mug' in made.wire.refused[0] and 'projected to' in made.wire.refused[0]


def test_poses_that_were_never_set_are_no_labels() -> None:
    made = Simulated('normal')
    made.wire.send('sim/image', picture())
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/labels', boxes(solid('mug', SCENE['mug'])))
    assert not made.frames and 'was never set' in made.wire.refused[0]


def test_a_world_pose_is_not_taken_for_the_cameras() -> None:
    """With the camera's axes told wrongly the visible boxes are not where the objects are projected to."""
    made = isaac_sim(sim_camera_axes='usd')
    assert not made.frames and 'sim_camera_axes' in made.wire.refused[0]


def test_gazebo_boxes_and_transforms_that_disagree_are_refused(tmp_path: Any) -> None:
    made = gazebo(tmp_path, sim_camera_axes='optical')
    assert not made.frames and 'sim_camera_axes' in made.wire.refused[0]


def test_pictures_wait_for_the_transform_of_their_time() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/boxes_3d_labels', table(_3='mug'))
    made.wire.send('sim/tf', camera_transform(STAMP - 50_000_000))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(solid('3', SCENE['mug'])))
    assert not made.frames, 'the latest transform was taken for the one of the picture'
    later = WORLD_CAMERA.copy()
    later[:3, 3] += (0, 0, 0.02)
    made.wire.send('sim/tf', camera_transform(STAMP + 50_000_000, later))
    middle = WORLD_CAMERA.copy()
    middle[:3, 3] += (0, 0, 0.01)
    expected = np.linalg.inv(middle) @ SCENE['mug'].matrix()
    np.testing.assert_allclose(made.labels()['mug'].pose.translation, expected[:3, 3], atol=1e-9)


def test_pictures_that_wait_in_vain_are_dropped_and_said() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    for number in range(30):
        image, found = picture(stamp=STAMP + number), boxes(solid('3', SCENE['mug']))
        found.header.stamp = image.header.stamp
        made.wire.send('sim/image', image)
        made.wire.send('sim/boxes_3d', found)
    assert not made.frames
    assert '10 pictures waited in vain' in made.source.complaint()


def test_stamps_of_two_clocks_are_named() -> None:
    made = Simulated('isaac_sim')
    for number in range(25):
        made.wire.send('sim/image', picture(stamp=1_700_000_000_000_000_000 + number))
        made.wire.send('sim/boxes_3d', Detection3DArray(header=head('sim_camera', number)))
    assert 'without a partner of the same stamp' in made.source.complaint()


def test_numbers_change_with_a_new_table() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf_static', camera_transform())
    for number, label in enumerate(('mug', 'tool')):
        stamp = STAMP + number
        text = json.dumps({'3': {'class': label}, 'time_stamp': {'sec': 5, 'nanosec': 7 + number}})
        made.wire.send('sim/boxes_3d_labels', String(data=text))
        found = boxes(solid('3', SCENE['mug']))
        found.header.stamp = messages.header(stamp, '').stamp
        made.wire.send('sim/image', picture(stamp=stamp))
        made.wire.send('sim/boxes_3d', found)
    assert [frame.labels[0].name for frame in made.frames] == ['mug', 'tool']


def send_tables(made: Simulated, label: str, second: int) -> None:
    for topic in ('sim/boxes_3d_labels', 'sim/boxes_2d_labels'):
        made.wire.send(topic, String(data=json.dumps({'3': {'class': label}, 'time_stamp': {'sec': second}})))


def send_tool(made: Simulated, second: int) -> None:
    stamp = second * 1_000_000_000
    for topic, message in (('sim/boxes_3d', boxes(solid('3', SCENE['tool']))),
                           ('sim/boxes_2d', boxes(visible('3', 'tool')))):
        message.header.stamp = messages.header(stamp, '').stamp
        made.wire.send(topic, message)
    made.wire.send('sim/image', picture(stamp=stamp))


@pytest.mark.parametrize(('old', 'new'), [(100, 1), (1, 1)], ids=['begun again', 'begun again with the same stamps'])
def test_numbers_of_an_earlier_run_are_not_read(old: int, new: int) -> None:
    made = Simulated('isaac_sim', ('sim/boxes_2d',))
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf_static', camera_transform())
    if old == new:  # the earlier run has shown pictures as well
        send_tables(made, 'tool', old + 1)
        send_tool(made, old + 1)
        made.frames.clear()
    send_tables(made, 'mug', old)
    send_tool(made, new)
    assert not made.frames
    send_tables(made, 'tool', new)
    send_tool(made, new + 1)
    send_tables(made, 'tool', new + 1)
    assert made.frames and {label.name for frame in made.frames for label in frame.labels} == {'tool'}
    assert not made.wire.refused


def test_a_table_of_another_clock_counts_when_it_came_after_the_picture() -> None:
    made = Simulated('isaac_sim', ('sim/boxes_2d',))
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf_static', camera_transform())
    send_tool(made, 5)
    send_tables(made, 'tool', 1_700_000_000)
    assert [label.name for frame in made.frames for label in frame.labels] == ['tool']


@pytest.mark.parametrize('labels', ['normal', 'isaac_sim', 'gazebo'])
def test_pictures_count_once_publishers_are_found_and_wait_for_every_topic_seen_so_far(
        labels: str, tmp_path: Any) -> None:
    (tmp_path / 'classes.yaml').write_text('mug: {label: 1}\n')
    made = Simulated(labels, class_map=str(tmp_path / 'classes.yaml'))
    optional = next(iter(made.source.OPTIONAL))
    made.source = LABEL_SOURCES[labels](made.wire, MODELS, made.frames.append)  # one that has not been ticked
    send = {'normal': ('sim/image', 'sim/camera_info', 'sim/labels')}.get(labels, ('sim/image', 'sim/boxes_3d'))
    kinds = {'sim/image': picture, 'sim/camera_info': camera_info}

    def show(stamp: int) -> None:
        for topic in send:
            made.wire.send(topic, kinds[topic](stamp=stamp) if topic in kinds else Detection3DArray(header=head(
                'sim_camera', stamp)))

    show(STAMP)
    assert made.source.matched == 0
    made.source.tick()
    show(STAMP + 1)
    assert made.source.matched == 1
    made.wire.publishers.add(optional)  # from this message on, not from the next second
    show(STAMP + 2)
    assert made.source.matched == 1
    made.wire.publishers.clear()  # the simulator begins again, and its topics are not all found at once
    show(STAMP + 3)
    assert made.source.matched == 1


@pytest.mark.parametrize('text', [
    'mug', '', '[' * 100_000, '{"2": {"class": "mug"}, "time_stamp": {"sec": 1e999}}',
    '{"2": "mug"}', '[1]', '{"2": {"class": "mug"}', '{"x": {"class": "mug"}}'])
def test_text_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match='sim/boxes_3d_labels.*no table of labels'):
        read_table(text, 'sim/boxes_3d_labels')


def test_an_entry_without_a_class_is_unlabelled() -> None:
    assert read_table('{"2": {"class": "mug"}, "3": {"shape": "round"}}', 't')[1] == {'2': 'mug', '3': 'UNLABELLED'}


def test_tables_without_a_stamp_are_read() -> None:
    assert read_table('{"2": {"class": "mug"}}', 't') == (0, {'2': 'mug'})


def test_strangers_are_counted_and_the_rest_is_used() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf', camera_transform())
    made.wire.send('sim/boxes_3d_labels', table(_1='wall', _3='mug'))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(solid('1', SCENE['tool']), solid('3', SCENE['mug'])))
    assert [label.name for label in made.frames[0].labels] == ['mug']
    assert made.source.unknown == {'wall': 1} and 'not known to the model' in made.wire.refused[0]


def test_a_number_without_a_label_is_refused() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf', camera_transform())
    made.wire.send('sim/boxes_3d_labels', table(_3='mug'))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(solid('8', SCENE['mug'])))
    assert not made.frames and "class_id '8' is not in the table" in made.wire.refused[0]


def test_objects_without_a_visible_box_are_not_seen(tmp_path: Any) -> None:
    made = Simulated('isaac_sim', ('sim/boxes_2d',))
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf', camera_transform())
    made.wire.send('sim/boxes_3d_labels', table(_3='mug', _7='tool'))
    made.wire.send('sim/boxes_2d_labels', table(_4='mug'))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(solid('7', SCENE['tool']), solid('3', SCENE['mug'])))
    made.wire.send('sim/boxes_2d', boxes(visible('4', 'mug')))
    assert set(made.labels()) == {'mug'}


def rectangle() -> tuple[int, int, int, int]:
    """Return whole pixels within which the mug is seen."""
    pixels = project(transform_points(MODELS['mug'].points, TRUTH['mug']), CAMERA)
    (x0, y0), (x1, y1) = np.ceil(pixels.min(0)).astype(int), np.floor(pixels.max(0)).astype(int)
    return x0, y0, x1, y1


def test_isaac_segmentation_is_of_numbers() -> None:
    made = Simulated('isaac_sim', ('sim/segmentation',))
    numbers = np.zeros((240, 320), np.int32)
    x0, y0, x1, y1 = rectangle()
    numbers[y0:y1, x0:x1 - 4] = 70_000
    image = Image(header=head('sim_camera'), height=240, width=320, encoding='32SC1', step=320 * 4)
    image.data = array.array('B', numbers.tobytes())
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf', camera_transform())
    made.wire.send('sim/boxes_3d_labels', table(_3='mug', _7='tool'))
    made.wire.send('sim/segmentation_labels', table(_70000='mug'))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(solid('7', SCENE['tool']), solid('3', SCENE['mug'])))
    made.wire.send('sim/segmentation', image)
    label = made.labels()['mug']
    assert 'tool' not in made.labels()  # no pixel of it is seen
    np.testing.assert_array_equal(label.box, [x0 - 0.5, y0 - 0.5, x1 - 4.5, y1 - 0.5])
    assert label.mask is not None and label.mask.sum() == (numbers > 0).sum()


def test_gazebo_segmentation_has_the_label_in_its_last_channel(tmp_path: Any) -> None:
    (tmp_path / 'classes.yaml').write_text('mug: {label: 5}\n')
    made = Simulated('gazebo', ('sim/segmentation',), class_map=str(tmp_path / 'classes.yaml'),
                     sim_camera_frame='camera', sim_camera_axes='optical')
    colours = np.zeros((240, 320, 3), np.uint8)
    x0, y0, x1, y1 = rectangle()
    colours[y0:y1, x0:x1] = 1, 0, 5  # instance 1 (low byte, high byte), label 5
    x, y, z = TRUTH['mug'].translation
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/image', picture('boxes'))
    made.wire.send('sim/boxes_3d', boxes(solid('5', Pose(np.array([0, 0, 0, 1.0]), np.array([x, -y, -z])))))
    made.wire.send('sim/segmentation', messages.image_message(colours, head('boxes')))
    made.wire.send('sim/tf', TFMessage(transforms=[
        transform('w', 'camera', WORLD_CAMERA), transform('w', 'mug', SCENE['mug'].matrix())]))
    label = made.labels()['mug']
    assert label.mask is not None and label.mask.sum() == (y1 - y0) * (x1 - x0)


# --- names ----------------------------------------

@pytest.mark.parametrize('text, says', [
    ('cup: {label: 1}', "class 'cup' is not known"),
    ('mug: 1', 'expected lines like'),
    ('mug: {frames: [a]}', 'expected lines like'),
    ('mug: {label: 1}\ntool: {label: 1}', 'stands at two classes'),
    ('mug: {label: 1, frames: [a]}\ntool: {label: 2, frames: [a]}', 'stands at two classes'),
    ('- mug', 'expected lines like'),
    ('mug: {label: [', 'expected lines like'),
])
def test_class_maps_that_cannot_be_meant(text: str, says: str, tmp_path: Any) -> None:
    (tmp_path / 'm.yaml').write_text(text)
    with pytest.raises(ValueError, match='class_map .*m.yaml') as caught:
        read_class_map(str(tmp_path / 'm.yaml'), MODELS)
    assert says in str(caught.value)


def test_a_missing_class_map_is_named(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match='class_map .*gone.yaml'):
        read_class_map(str(tmp_path / 'gone.yaml'), MODELS)


def test_names_of_strangers_are_bounded() -> None:
    made = Simulated('isaac_sim')
    made.wire.send('sim/camera_info', camera_info())
    made.wire.send('sim/tf', camera_transform())
    names = {f'_{i}': f'wall_{i}' for i in range(50)}
    made.wire.send('sim/boxes_3d_labels', table(**names, _99='mug'))
    made.wire.send('sim/image', picture())
    made.wire.send('sim/boxes_3d', boxes(*(solid(str(i), SCENE['tool']) for i in range(50)), solid('99', SCENE['mug'])))
    assert [label.name for label in made.frames[0].labels] == ['mug']
    assert len(made.source.unknown) == STRANGERS + 1 and made.source.unknown[MORE] == 30
    assert 'wall_49' not in made.wire.refused[0] and 'and 30 more' in made.wire.refused[0]
