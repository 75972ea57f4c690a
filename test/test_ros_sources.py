# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Simulator and camera nodes: one stamp for all labels, the two streams of the camera, broken data sets, parameters."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CAMERA, box_model, labelled_frame

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from ros_helpers import LATCHED, Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo  # noqa: E402

import sim2real_da.networks.bundle  # noqa: E402, F401 - triton's LLVM has to be loaded before Mesa's, or both crash
from sim2real_da.data.bop import BopDataset, write_scene  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.camera import split, surrogate_frames  # noqa: E402
from sim2real_da.nodes.matching import StampMatcher  # noqa: E402
from sim2real_da.resources import config_folder  # noqa: E402
from sim2real_da.samples import Intrinsics, Pose  # noqa: E402
from sim2real_da.simulation.objects import tools  # noqa: E402

POSE = Pose(np.array([0.9, 0.1, 0.2, 0.1]), np.array([0.0, 0.0, 0.5]))


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten frames of a mug; number 1 is truncated."""
    folder = tmp_path / 'data'
    rng = np.random.default_rng(0)
    frames = [labelled_frame(rng, box_model('mug'), POSE) for _ in range(10)]
    write_scene(folder / 'test' / '000001', frames, {'mug': 4}, lossless=True)
    (folder / 'dataset.json').write_text(json.dumps({'objects': 'tools', 'names': {'4': 'mug'}}))
    path = BopDataset(folder).image_path(1)
    path.write_bytes(path.read_bytes()[:2000])
    return folder


def test_camera_streams_are_disjoint_and_truth_goes_with_scoring_alone(graph: Graph, dataset: Path) -> None:
    images, truth = graph.collect(Image, 'real/image'), graph.collect(Detection3DArray, 'ground_truth')
    boxes, infos = graph.collect(Detection2DArray, 'ground_truth_2d'), graph.collect(CameraInfo, 'real/camera_info')
    graph.start('camera', {'source': str(dataset), 'rate': 20.0})
    graph.until(lambda: len(images) >= 12, 'two rounds of the adaptation stream')
    assert not truth
    graph.until(lambda: 'could not be read' in graph.diagnostics['camera'].message, 'the truncated picture')
    assert '000001.png: truncated' in graph.runner.last_lines('camera')
    result = graph.set_parameter('camera', 'stream', 'testing')
    assert not result.successful and 'adaptation, scoring' in result.reason
    assert graph.set_parameter('camera', 'stream', 'scoring').successful
    graph.until(lambda: len(truth) >= 6 and len(boxes) >= 6, 'two rounds of the scoring stream')
    graph.spin(0.5)
    first = messages.nanoseconds(truth[0].header.stamp)
    pictures: dict[bool, set[bytes]] = {False: set(), True: set()}
    for image in images:
        pictures[messages.nanoseconds(image.header.stamp) >= first].add(bytes(image.data))
    assert len(pictures[False]) == 6 and len(pictures[True]) == 3 and not pictures[False] & pictures[True]
    assert {d.id.split('/')[0] for t in truth for d in t.detections} == {'7', '8', '9'}
    stamps = [messages.nanoseconds(i.header.stamp) for i in images]
    assert stamps == sorted(set(stamps)), 'images are stamped anew each time'
    assert messages.read_camera_info(infos[-1], '', (320, 240)).fx == pytest.approx(CAMERA.fx)
    objects = {'mug': next(o.model for o in tools() if o.name == 'mug')}
    read = messages.read_labels(truth[0], '', CAMERA, objects, boxes=boxes[0]).labels[0]
    np.testing.assert_allclose(read.pose.matrix(), POSE.matrix(), atol=1e-6)


def test_camera_once_compressed_and_without_ground_truth(graph: Graph, dataset: Path) -> None:
    for name in ('scene_gt.json', 'scene_gt_info.json'):
        (dataset / 'test' / '000001' / name).unlink()
    images = graph.collect(CompressedImage, 'real/image/compressed')
    truth = graph.collect(Detection3DArray, 'ground_truth')
    graph.start('camera', {'source': str(dataset), 'rate': 5.0, 'compressed': True, 'loop': False, 'stream': 'scoring'})
    graph.until(lambda: graph.diagnostics['camera'].message == 'at the end', 'the end of the stream')
    assert not truth and len(images) <= 3
    assert 'no ground truth' in graph.runner.last_lines('camera')
    # another stream begins anew, and by now both sides know each other
    images.clear()
    assert graph.set_parameter('camera', 'stream', 'adaptation').successful
    graph.until(lambda: len(images) == 6, 'the six readable frames of the other stream')
    assert messages.read_compressed(images[0], '').shape == (240, 320, 3)


def test_camera_names_a_folder_that_is_not_there(graph: Graph, tmp_path: Path) -> None:
    graph.start('camera', {'source': str(tmp_path / 'nowhere')}, wait=False)
    process = graph.runner._running['camera']
    assert process.wait(90) == 1
    assert 'nowhere: no such folder' in graph.runner.last_lines('camera')


def test_simulator_publishes_one_stamp_and_follows_the_camera(graph: Graph) -> None:
    kinds = {'sim/image': Image, 'sim/camera_info': CameraInfo, 'sim/labels': Detection3DArray,
             'sim/labels_2d': Detection2DArray, 'sim/segmentation': Image}
    matcher = StampMatcher(kinds, capacity=50)
    sets = []
    for topic, kind in kinds.items():
        def note(message: object, topic: str = topic) -> None:
            found = matcher.add(topic, messages.nanoseconds(message.header.stamp), message)  # type: ignore[attr-defined]
            if found:
                sets.append(found)

        graph.probe.create_subscription(kind, topic, note, 20)
    maps = graph.collect(LabelInfo, 'sim/label_info', LATCHED)
    graph.start('simulator', {'rate': 10.0, 'randomise_distractors': False})
    graph.until(lambda: len(sets) >= 5 and maps, 'five complete sets')
    objects = {o.name: o.model for o in tools()}
    assert messages.read_label_info(maps[0], '') == list(objects)
    labels = 0
    for found in sets:
        image = messages.read_image(found['sim/image'], '')
        intrinsics = messages.read_camera_info(found['sim/camera_info'], '', (image.shape[1], image.shape[0]))
        read = messages.read_labels(
            found['sim/labels'], '', intrinsics, objects, boxes=found['sim/labels_2d'],
            segmentation=messages.read_segmentation(found['sim/segmentation'], ''), label_map=list(objects))
        assert not read.unknown and found['sim/labels'].header.frame_id == found['sim/image'].header.frame_id
        for label in read.labels:
            assert label.mask is not None and label.mask.any()
            rows, columns = np.nonzero(label.mask)
            seen = [columns.min(), rows.min(), columns.max(), rows.max()]
            np.testing.assert_allclose(label.box, seen, atol=1.5)
            labels += 1
    assert labels > 5
    real = Intrinsics(640, 480, 700.0, 710.0, 300.0, 250.0)
    info = graph.publisher(CameraInfo, 'real/camera_info')
    graph.until(lambda: abs(sets[-1]['sim/camera_info'].k[0] - 350.0) < 1e-6, 'the simulator to take the real camera',
                meanwhile=lambda: info.publish(messages.camera_info_message(real, messages.header(0, ''))))
    assert messages.read_camera_info(sets[-1]['sim/camera_info'], '') == real.scaled(320, 240)


def test_surrogate_streams_share_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    camera = Intrinsics(160, 120, 150.0, 150.0, 79.5, 59.5)
    pictures = {}
    for stream in ('adaptation', 'scoring'):
        dataset = BopDataset(surrogate_frames(stream, camera, 0, 3))
        pictures[stream] = {dataset.frame(i).frame.image.tobytes() for i in dataset.ids()}
        assert list(dataset.objects()) == [o.name for o in tools()]
    assert len(pictures['adaptation']) == len(pictures['scoring']) == 3
    assert not pictures['adaptation'] & pictures['scoring']


def test_split_of_data_sets() -> None:
    assert split([3, 600, 611, 612, 1200]) == ([3, 600, 611], [612, 1200])
    assert split(list(range(10))) == (list(range(7)), [7, 8, 9])


def test_matcher_is_bounded_and_names_what_is_missing() -> None:
    matcher = StampMatcher(['a', 'b'], capacity=2)
    assert matcher.add('a', 1, 'x') is None and matcher.add('b', 1, 'y') == {'a': 'x', 'b': 'y'}
    for stamp in range(10, 15):
        assert matcher.add('a', stamp, 'x') is None
    assert matcher.matched == 1 and matcher.dropped == {'a': 3}
    assert matcher.complaint() == 'messages without a partner of the same stamp: 3 on a; missing: b'
    assert matcher.add('b', 14, 'y') is not None


def test_parameter_files_are_those_of_the_tables() -> None:
    path = config_folder().parent / 'tools' / 'write_parameter_files.py'
    spec = importlib.util.spec_from_file_location('write_parameter_files', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.texts().items():
        written = (config_folder() / f'{name}.yaml').read_text(encoding='utf-8')
        assert written == text, f'config/{name}.yaml is old: python tools/write_parameter_files.py'


def test_camera_shows_a_folder_of_images(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / 'images' / f'{number}.png'), np.full((48, 64, 3), 50 * number, np.uint8))
    (tmp_path / 'images' / '1.png').write_bytes(b'nothing')
    (tmp_path / 'camera.yaml').write_text(json.dumps({  # JSON is YAML
        'image_width': 64, 'image_height': 48, 'distortion_model': 'equidistant',
        'camera_matrix': {'data': [50.0, 0, 30, 0, 51, 20, 0, 0, 1]},
        'distortion_coefficients': {'data': [0.1, 0.0, 0.0, 0.0]}}))
    images, infos = graph.collect(Image, 'real/image'), graph.collect(CameraInfo, 'real/camera_info')
    graph.start('camera', {'source': str(tmp_path / 'images'), 'camera_info': str(tmp_path / 'camera.yaml'),
                           'rate': 10.0})
    graph.until(lambda: len(images) >= 6, 'three rounds of two readable images')
    assert {messages.read_image(i, '')[0, 0, 0] for i in images} == {0, 100}
    assert messages.read_camera_info(infos[0], '', (64, 48)).fisheye
    graph.until(lambda: 'could not be read' in graph.diagnostics['camera'].message, 'the broken image')
    result = graph.set_parameter('camera', 'stream', 'scoring')
    assert not result.successful and 'no ground truth' in result.reason
