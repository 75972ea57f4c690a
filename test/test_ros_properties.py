# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is on a topic, reading it gives samples or a MessageError: drawn bytes, sizes, encodings, labels."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
import torch
from helpers import box_model
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from geometry_msgs.msg import Point, PoseWithCovariance, Quaternion  # noqa: E402
from geometry_msgs.msg import Pose as PoseMessage  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest  # noqa: E402
from vision_msgs.msg import (  # noqa: E402
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.networks.weights_file import WeightsError, pack, read_manifest, unpack  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.messages import MessageError  # noqa: E402
from sim2real_da.samples import Intrinsics  # noqa: E402

drawn = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CAMERA = Intrinsics(64, 48, 50.0, 50.0, 31.5, 23.5)
OBJECTS = {'box': box_model('box'), 'bar': box_model('bar')}
ENCODINGS = ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', '8UC1', '8UC3', '8UC4', 'mono16', '16UC1', '16UC3', 'rgb16',
             'bgra16', 'bayer_rggb8', 'bayer_gbrg16', 'yuv422', 'yuv422_yuy2', 'nv12', 'nv21', '32FC1', '32FC3',
             '64FC4', '8SC3', '', 'RGB8', '8UC', '99UC3', 'jpeg']
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from(
    [0.0, 1.0, -1.0, 0.5, 1e-320, 1e308, 31.5, 47.0])
small = st.integers(0, 9)
sizes = small | st.sampled_from([2**16, 2**31, 2**32 - 1])
names = st.sampled_from(['box', 'bar', 'mug', '', 'ß', 'box\n'])


def floats(count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(numbers, min_size=count, max_size=count)


@drawn
@given(sizes, sizes, sizes, st.sampled_from(ENCODINGS) | st.text(max_size=6), st.binary(max_size=200), st.booleans(),
       st.booleans())
@example(2, 2, 6, 'rgb8', bytes(12), False, False)
def test_images(height, width, step, encoding, data, big, fitting):
    if fitting:  # else hardly any would be
        step, data = step % 100, (data * 100)[:height % 10 * (step % 100)]
        height = height % 10
    message = Image(height=height, width=width, step=step, encoding=encoding, is_bigendian=int(big))
    message.data = array.array('B', data)
    try:
        image = messages.read_image(message, 'image')
    except MessageError as error:
        assert 'image' in str(error)
    else:
        assert image.dtype == np.uint8 and image.shape == (height, width, 3)
    try:
        segmentation = messages.read_segmentation(message, 'segmentation')
    except MessageError as error:
        assert 'segmentation' in str(error)
    else:
        assert segmentation.dtype == np.uint16 and segmentation.shape == (height, width)


PICTURE = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
WHOLE = {kind: cv2.imencode(kind, PICTURE)[1].tobytes() for kind in ('.png', '.jpg', '.bmp', '.tiff', '.webp')}
HUGE = bytearray(WHOLE['.png'])
HUGE[16:24] = b'\x7f\xff\xff\xff' * 2  # a header that claims 4e18 pixels


@drawn
@given(st.binary(max_size=100), st.sampled_from(list(WHOLE)), st.integers(0, 400), st.integers(0, 400))
@example(bytes(HUGE), '.png', 0, 0)
@example(b'\0\0\0\0\0\x11', '.bmp', 15, 0)  # a width beyond reason: OpenCV raises
def test_compressed_images(data, kind, at, end):
    whole = WHOLE[kind]
    for content in (data, whole[:end], whole[:at] + data + whole[at + len(data):]):
        message = CompressedImage(format=kind)
        message.data = array.array('B', content)
        try:
            image = messages.read_compressed(message, 'image')
        except MessageError as error:
            assert 'image' in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@drawn
@given(sizes, sizes, st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', '']),
       st.lists(numbers, max_size=14), floats(9), st.tuples(sizes, sizes, sizes, sizes), sizes, sizes)
@example(64, 48, 'plumb_bob', [], [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1], (0, 0, 0, 0), 2**31, 1)
@example(64, 48, 'plumb_bob', [], [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1], (60, 0, 9, 48), 1, 1)
def test_camera_infos(width, height, model, distortion, k, roi, bx, by):
    region = RegionOfInterest(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3])
    message = CameraInfo(width=width, height=height, distortion_model=model, d=distortion, k=k, roi=region,
                         binning_x=bx, binning_y=by)
    try:
        camera = messages.read_camera_info(message, 'info')
    except MessageError as error:
        assert 'info' in str(error)
    else:
        assert np.isfinite(camera.matrix()).all() and camera.width > 0 and camera.height > 0


def result(name: str, score: float, pose: list[float], covariance: float) -> ObjectHypothesisWithPose:
    found = ObjectHypothesisWithPose(pose=PoseWithCovariance(covariance=[covariance] * 36, pose=PoseMessage(
        position=Point(x=pose[0], y=pose[1], z=pose[2]),
        orientation=Quaternion(x=pose[3], y=pose[4], z=pose[5], w=pose[6]))))
    found.hypothesis.class_id, found.hypothesis.score = name, score
    return found


results = st.builds(result, names, numbers, floats(7), numbers) | st.builds(
    result, st.sampled_from(list(OBJECTS)), st.floats(0, 1),
    st.tuples(*[st.floats(-0.3, 0.3)] * 2, st.floats(-1, 2), *[st.floats(-1, 1)] * 4).map(list), st.just(0.0))


@st.composite
def labels(draw) -> tuple[Detection3DArray, Detection2DArray]:
    solid, flat = [], []
    for _ in range(draw(st.integers(0, 4))):
        own = draw(st.lists(results, max_size=2)) if draw(st.integers(0, 5)) == 0 else [draw(results)]
        number = draw(st.sampled_from(['', '0', '1', '2']))
        solid.append(Detection3D(id=number, results=own))
        box = Detection2D(id=draw(st.sampled_from(['', number])), results=own)
        box.bbox.center.position.x, box.bbox.center.position.y, box.bbox.size_x, box.bbox.size_y = draw(floats(4))
        flat.append(box)
    if draw(st.booleans()):
        flat = flat[:draw(st.integers(0, 4))]
    return Detection3DArray(detections=solid), Detection2DArray(detections=flat)


@drawn
@given(labels(), st.booleans(), st.none() | st.integers(0, 3), st.booleans())
@pytest.mark.filterwarnings('error')
def test_labels_and_detections(both, boxes, classes, fits):
    segmentation = None
    if classes is not None:
        segmentation = np.arange(48 * (64 if fits else 60), dtype=np.uint16).reshape(48, -1) % (classes + 1)
    try:
        found = messages.read_labels(both[0], 'labels', CAMERA, OBJECTS, boxes=both[1] if boxes else None,
                                     segmentation=segmentation)
    except MessageError as error:
        assert 'labels' in str(error)
    else:
        for label in found.labels:
            assert label.name in OBJECTS and np.isfinite(label.box).all() and np.isfinite(label.pose.matrix()).all()
            assert label.pose.quaternion[3] >= 0 and label.mask is None or label.mask.shape == (48, 64)
    try:
        detections = messages.read_detections(both[1], both[0], 'detections')
    except MessageError as error:
        assert 'detections' in str(error)
    else:
        assert all(0 <= d.score <= 1 and np.isfinite(d.box).all() for d in detections)
        assert all(d.covariance is None or np.isfinite(d.covariance).all() for d in detections)


@drawn
@given(st.lists(st.tuples(st.integers(0, 4) | st.just(2**16 - 1), names), max_size=5))
def test_label_maps(classes):
    message = LabelInfo(class_map=[VisionClass(class_id=number, class_name=name) for number, name in classes])
    try:
        found = messages.read_label_info(message, 'map')
    except MessageError as error:
        assert 'map' in str(error)
    else:
        assert len(found) == len(classes)


WEIGHTS = Bundle.create({'box': box_model('box')}, {'width': 8}, {'width': 8, 'hidden': 16}).to_bytes()
LENGTH = int.from_bytes(WEIGHTS[:8], 'little')


@drawn
@given(st.binary(max_size=60), st.integers(0, 8 + LENGTH + 100), st.integers(0, 3))
def test_weights(data, at, way):
    damaged = {0: data, 1: WEIGHTS[:at], 2: WEIGHTS[:at] + data + WEIGHTS[at + len(data):],
               3: WEIGHTS[:at] + data + WEIGHTS[at:]}[way]
    try:
        Bundle.from_bytes(damaged)
    except WeightsError as error:
        assert str(error)
    else:
        assert Bundle.from_bytes(damaged).classes == ('box',)  # what was hit is of no account, the note for instance


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)


@settings(drawn, max_examples=30)
@given(st.data())
def test_manifests(data):
    """A right checksum over a manifest that says something else of the networks."""
    bundle = Bundle.from_bytes(WEIGHTS)
    manifest, tensors = dict(read_manifest(WEIGHTS)), unpack(WEIGHTS, 'bundle')[1]
    manifest[data.draw(st.sampled_from(sorted(manifest)))] = data.draw(json_values)
    try:
        found = Bundle.from_bytes(pack(tensors, manifest))
    except WeightsError as error:
        assert str(error)
    else:
        assert found.classes == bundle.classes


@pytest.mark.parametrize('change, message', [
    ({'pose': {'hidden': 2**40}}, 'the pose does not fit its manifest'),
    ({'detector': {'width': 2**50}}, 'weights: '),
    ({'detector': {'classes': 10**12}}, 'weights: '),
    ({'objects': []}, '0 objects, but the detector knows 1'),
])
def test_a_manifest_that_claims_terabytes_is_refused_without_them(change, message):
    manifest, tensors = dict(read_manifest(WEIGHTS)), unpack(WEIGHTS, 'bundle')[1]
    for key, value in change.items():
        manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    with pytest.raises(WeightsError, match=message):
        Bundle.from_bytes(pack(tensors, manifest))


@pytest.mark.parametrize('kind', [torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_numpy_lacks_are_refused_by_name(monkeypatch, kind):
    manifest, tensors = dict(read_manifest(WEIGHTS)), unpack(WEIGHTS, 'bundle')[1]
    name = next(k for k, v in tensors.items() if v.is_floating_point())
    tensors[name] = tensors[name].to(kind)
    with monkeypatch.context() as patch:
        patch.setattr('sim2real_da.networks.weights_file.checksum', lambda _: '')
        data = pack(tensors, manifest)
    with pytest.raises(WeightsError, match=f'{name}.* is of {kind}'):
        Bundle.from_bytes(data)
