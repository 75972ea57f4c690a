# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ROS messages <-> samples, against hand-computed cases, and every malformed message that is refused."""

from __future__ import annotations

import array
import math
import sys
import types
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from geometry_msgs.msg import Pose as PoseMessage  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from vision_msgs.msg import Detection2DArray, Detection3DArray  # noqa: E402

from sim2real_da.geometry import project  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.messages import MessageError  # noqa: E402
from sim2real_da.samples import (  # noqa: E402
    Detection,
    Frame,
    Intrinsics,
    LabelledFrame,
    ObjectLabel,
    ObjectModel,
    Pose,
)

HEAD = messages.header(3_000_000_007, 'camera_optical')
CAMERA = Intrinsics(64, 48, 50.0, 50.0, 31.5, 23.5)


def image(encoding: str, pixels: np.ndarray, step: int | None = None, big: bool = False) -> Image:
    pixels = np.ascontiguousarray(pixels)
    message = Image(header=HEAD, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                    is_bigendian=int(big), step=pixels.strides[0] if step is None else step)
    message.data = array.array('B', pixels.tobytes())
    return message


def cube(name: str = 'cube', half: float = 0.1, offset: float = 0.0) -> ObjectModel:
    corners = np.array([[x, y, z] for x in (-half, half) for y in (-half, half) for z in (-half, half)], np.float32)
    corners[:, 0] += offset
    return ObjectModel(name, corners, corners.min(0).astype(float), np.full(3, 2 * half), 2 * half * math.sqrt(3))


RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
ALPHA = np.full((2, 3, 1), 9, np.uint8)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding, pixels, expected', [
    ('rgb8', RGB, RGB),
    ('bgr8', RGB[..., ::-1], RGB),
    ('8UC3', RGB[..., ::-1], RGB),
    ('rgba8', np.concatenate([RGB, ALPHA], 2), RGB),
    ('bgra8', np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
    ('mono8', RGB[..., 0], np.repeat(RGB[..., :1], 3, 2)),
    ('8UC1', RGB[..., 0], np.repeat(RGB[..., :1], 3, 2)),
])
def test_eight_bit_encodings(encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int) -> None:
    message = image(encoding, pixels)
    rows = np.pad(pixels.reshape(2, -1), ((0, 0), (0, padding)), constant_values=255)
    message.step, message.data = rows.shape[1], array.array('B', rows.tobytes())
    assert np.array_equal(messages.read_image(message, 'real/image'), expected)


def test_a_cv_bridge_that_cannot_be_used_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class CvBridge:
        """One built for another NumPy: it fails when its library is first needed."""

        def imgmsg_to_cv2(self, *_: object) -> None:
            raise ImportError('numpy.core.multiarray failed to import')

    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    expected = messages.read_image(image('bayer_rggb8', pixels), 'real/image')
    monkeypatch.setitem(sys.modules, 'cv_bridge', types.SimpleNamespace(CvBridge=CvBridge))
    assert np.array_equal(messages.read_image(image('bayer_rggb8', pixels), 'real/image'), expected)


def test_a_depth_image_is_no_picture() -> None:
    message = CompressedImage(format='16UC1; png compressed')
    message.data = array.array('B', cv2.imencode('.png', np.zeros((4, 4), np.uint16))[1].tobytes())
    with pytest.raises(MessageError, match='real/image: .* is a depth image'):
        messages.read_compressed(message, 'real/image')


def test_a_picture_that_cannot_be_straightened_and_a_place_that_is_none_are_named() -> None:
    info = messages.camera_info_message(replace(CAMERA, distortion=(0.1, 0.0, 0.0, 0.0, 0.0)), HEAD)
    info.width, info.height = 40_000, 1
    with pytest.raises(MessageError, match='40000x1 through a lens, expected at most 32766'):
        messages.read_camera_info(info, 'real/camera_info')
    far = PoseMessage()
    far.position.z = 1.8e299
    with pytest.raises(MessageError, match='label: pose: translation .* expected metres up to 1e\\+06'):
        messages.read_pose(far, 'label')


def test_rows_with_padding_and_no_copy() -> None:
    padded = np.zeros((2, 12), np.uint8)
    padded[:, :9] = RGB.reshape(2, 9)
    message = image('rgb8', padded, step=12)
    message.width = 3
    found = messages.read_image(message, 'real/image')
    assert np.array_equal(found, RGB)
    assert np.shares_memory(found, np.frombuffer(message.data, np.uint8))


def padded(encoding: str, pixels: np.ndarray, padding: int, big: bool) -> Image:
    """An image whose rows end in bytes that belong to no pixel."""
    pixels = np.ascontiguousarray(pixels.astype('>u2') if big else pixels)
    rows = pixels.reshape(len(pixels), -1).view(np.uint8).reshape(len(pixels), -1)
    message = image(encoding, np.concatenate([rows, np.full((len(rows), padding), 77, np.uint8)], 1), big=big)
    message.width = pixels.shape[1]
    return message


WHOLE = np.full((8, 8, 3), (200, 40, 90), np.uint8)
RED_CELL = {'rggb': (0, 0), 'grbg': (0, 1), 'gbrg': (1, 0), 'bggr': (1, 1)}


def bayer(pattern: str) -> np.ndarray:
    cells = np.zeros((8, 8), np.uint8)
    row, column = RED_CELL[pattern]
    cells[row::2, column::2] = 255  # only the red cells are lit
    return cells


def yuv(order: str) -> np.ndarray:
    """Red as cameras code it (ITU-R BT.601, black is 16): y 81, u 90, v 240."""
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[..., order.index('y')] = 81
    pixels[:, 0::2, order.index('c')] = 90
    pixels[:, 1::2, order.index('c')] = 240
    return pixels


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding, pixels, expected', [
    *((f'bayer_{p}8', bayer(p), (255, 0, 0)) for p in RED_CELL),
    *((f'bayer_{p}16', wide(bayer(p)), (255, 0, 0)) for p in RED_CELL),
    ('mono16', wide(WHOLE[..., 0]), (200, 200, 200)),
    ('rgb16', wide(WHOLE), (200, 40, 90)), ('bgr16', wide(WHOLE[..., ::-1]), (200, 40, 90)),
    ('rgba16', wide(np.concatenate([WHOLE, WHOLE[..., :1]], 2)), (200, 40, 90)),
    ('bgra16', wide(np.concatenate([WHOLE[..., ::-1], WHOLE[..., :1]], 2)), (200, 40, 90)),
    ('yuv422', yuv('cy'), (255, 0, 0)), ('uyvy', yuv('cy'), (255, 0, 0)),
    ('yuv422_yuy2', yuv('yc'), (255, 0, 0)), ('yuyv', yuv('yc'), (255, 0, 0)),
])
def test_encodings_read_by_a_library(encoding: str, pixels: np.ndarray, expected: tuple[int, ...],
                                     padding: int) -> None:
    for big in (False, True) if pixels.dtype == np.uint16 else (False,):
        found = messages.read_image(padded(encoding, pixels, padding, big), 'real/image')
        assert found.shape == (8, 8, 3) and found.dtype == np.uint8
        np.testing.assert_allclose(found[2:6, 2:6], np.broadcast_to(expected, (4, 4, 3)), atol=2)


def test_png_images_of_8_and_16_bits() -> None:
    for pixels in (WHOLE, wide(WHOLE)):
        message = messages.compressed_message(WHOLE, HEAD)
        message.format = 'png'
        message.data = array.array('B', cv2.imencode('.png', pixels[..., ::-1])[1].tobytes())
        np.testing.assert_array_equal(messages.read_any_image(message, 't'), WHOLE)


@pytest.mark.parametrize('change, says', [
    ({'step': 8}, 'step 8 is too small'),
    ({'step': 10}, 'expected step x height'),
    ({'height': 0}, 'expected at least 1x1'),
    ({'height': 3}, 'expected step x height'),
    ({'encoding': 'nonsense'}, "encoding 'nonsense'"),
    ({'encoding': '32FC1', 'width': 2, 'step': 9}, "encoding '32FC1'"),
])
def test_malformed_images_are_named(change: dict[str, object], says: str) -> None:
    message = image('rgb8', RGB)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match='real/image: ') as caught:
        messages.read_image(message, 'real/image')
    assert says in str(caught.value)


def test_compressed_images() -> None:
    picture = np.full((16, 16, 3), (200, 20, 20), np.uint8)
    message = messages.compressed_message(picture, HEAD)
    assert np.abs(messages.read_any_image(message, 't').astype(int) - picture).max() < 8
    message.data = message.data[:20]
    with pytest.raises(MessageError, match='t: 20 bytes'):
        messages.read_compressed(message, 't')
    message.data = array.array('B')
    with pytest.raises(MessageError, match='t: 0 bytes'):
        messages.read_compressed(message, 't')


def test_image_round_trip_keeps_header() -> None:
    message = messages.image_message(RGB, HEAD)
    assert np.array_equal(messages.read_image(message, 't'), RGB)
    assert messages.nanoseconds(message.header.stamp) == 3_000_000_007 and message.header.frame_id == 'camera_optical'


def test_segmentation_honours_byte_order() -> None:
    label_map = np.array([[0, 1], [2, 300]], np.uint16)
    for big in (False, True):
        message = image('16UC1', label_map.astype('>u2' if big else '<u2'), big=big)
        assert np.array_equal(messages.read_segmentation(message, 'sim/segmentation'), label_map)
    with pytest.raises(MessageError, match='expected 16UC1'):
        messages.read_segmentation(image('rgb8', RGB), 'sim/segmentation')


def info(**changes: object) -> CameraInfo:
    message = messages.camera_info_message(CAMERA, HEAD)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_camera_info_round_trip() -> None:
    assert messages.read_camera_info(info(), 'real/camera_info', (64, 48)) == CAMERA
    bent = Intrinsics(64, 48, 50.0, 51.0, 30.0, 20.0, (0.1, 0.01, 0.0, 0.0, 0.2, 0.1, 0.0, 0.3))
    assert messages.read_camera_info(messages.camera_info_message(bent, HEAD), 't') == bent


def test_camera_info_region_and_binning() -> None:
    message = info(binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 8, 4, 40, 40
    found = messages.read_camera_info(message, 't', (20, 20))
    assert (found.fx, found.fy) == (25.0, 25.0)
    # full-picture column 31.5 is 23.5 in the region; two columns make one, so it lies at (23.5 + 0.5) / 2 - 0.5
    assert (found.cx, found.cy) == (11.5, 9.5)


def test_camera_info_of_a_fisheye() -> None:
    for coefficients in ((0.1, 0.01, 0.0, 0.2), (0.0,) * 4):  # without coefficients a fisheye is no pinhole yet
        round_lens = Intrinsics(64, 48, 50.0, 51.0, 30.0, 20.0, coefficients, True)
        assert messages.read_camera_info(messages.camera_info_message(round_lens, HEAD), 't') == round_lens


def test_camera_info_of_rectified_pictures() -> None:
    message = info(d=[0.1] * 5, p=[40.0, 0, 30, -4, 0, 41, 20, 0, 0, 0, 1, 0], binning_x=2)
    message.roi.x_offset, message.roi.width, message.roi.height = 8, 40, 48
    found = messages.read_camera_info(message, 't', (20, 48), rectified=True)
    assert found == Intrinsics(20, 48, 20.0, 41.0, (30 - 8 + 0.5) / 2 - 0.5, 20.0)
    with pytest.raises(MessageError, match='all-zero P means an uncalibrated camera'):
        messages.read_camera_info(info(p=[0.0] * 12), 't', rectified=True)


@pytest.mark.parametrize('lens', [(), (-0.28, 0.09, 0.001, -0.002, 0.01)])
def test_cropped_binned_and_resized_pictures_show_points_where_opencv_says(lens: tuple[float, ...]) -> None:
    full = Intrinsics(640, 480, 420.0, 430.0, 322.0, 236.0, lens)
    point = np.array([[0.12, -0.07, 0.9]])
    seen, _ = cv2.projectPoints(point, np.zeros(3), np.zeros(3), full.matrix(), np.array(lens))
    x, y = seen[0, 0]
    message = messages.camera_info_message(full, HEAD)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 100, 60, 400, 300
    message.binning_x, message.binning_y = 2, 3
    found = messages.read_camera_info(message, 't', (200, 100))
    # means of 2 x 3 pixels: the first one's middle is at full-picture pixel (100.5, 61)
    np.testing.assert_allclose(project(point, found), [[(x - 100.5) / 2, (y - 61) / 3]], atol=1e-9)
    half = full.scaled(320, 240)  # a resized stream brings a camera_info of its own size
    assert messages.read_camera_info(messages.camera_info_message(half, HEAD), 't', (320, 240)) == half
    np.testing.assert_allclose(project(point, half), [[(x - 0.5) / 2, (y - 0.5) / 2]], atol=1e-9)


@pytest.mark.parametrize('change, says', [
    ({'k': [50.0, 0, math.nan, 0, 50, 23.5, 0, 0, 1]}, 'not finite'),
    ({'d': [math.nan] * 5}, 'not finite'),
    ({'k': [0.0] * 9}, 'uncalibrated'),
    ({'width': 0}, 'expected at least 1x1'),
    ({'width': 128}, 'describes images of 128x48 but the image is 64x48'),
    ({'distortion_model': 'equidistant', 'd': []}, "'equidistant' with 0"),
    ({'distortion_model': 'fov', 'd': [0.9]}, "'fov'"),
    ({'d': [0.1] * 3}, '3 coefficients'),
])
def test_malformed_camera_info_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(MessageError, match='real/camera_info: ') as caught:
        messages.read_camera_info(info(**change), 'real/camera_info', (64, 48))
    assert says in str(caught.value)


def test_camera_info_region_outside() -> None:
    message = info()
    message.roi.x_offset, message.roi.width, message.roi.height = 60, 10, 10
    with pytest.raises(MessageError, match='lies outside'):
        messages.read_camera_info(message, 't')


def label(name: str = 'cube', z: float = 1.0) -> ObjectLabel:
    pose = Pose(np.array([0, 0, 0, 1.0]), np.array([0, 0, z]))
    return ObjectLabel(name, np.array([10.0, 5.0, 30.0, 25.0]), pose, 0.75)


def test_label_message_by_hand() -> None:
    turned = ObjectLabel('cube', np.array([10.0, 5.0, 30.0, 25.0]),
                         Pose(np.array([0, 0, math.sqrt(0.5), math.sqrt(0.5)]), np.array([0.2, 0.0, 1.0])), None)
    # the box centre lies 0.3 m along the object's x axis, which points along the camera's y axis after the turn
    message = messages.labels_message([turned], {'cube': cube(offset=0.3)}, HEAD)
    detection = message.detections[0]
    assert message.header == detection.header == HEAD
    assert detection.results[0].hypothesis.class_id == 'cube' and detection.results[0].hypothesis.score == 1.0
    assert detection.results[0].pose.pose.position.x == pytest.approx(0.2)
    assert detection.bbox.center.position.x == pytest.approx(0.2)
    assert detection.bbox.center.position.y == pytest.approx(0.3)
    assert detection.bbox.center.position.z == pytest.approx(1.0)
    assert detection.bbox.size.x == pytest.approx(0.2)


def test_labels_round_trip() -> None:
    objects = {'cube': cube(), 'ball': cube('ball')}
    mask = np.zeros((48, 64), bool)
    mask[5:25, 10:30] = True
    first, second = (replace(one, box=messages.projected_box(objects[one.name], one.pose, CAMERA) + [1.0, 2, -1, 0])
                     for one in (label(), label('ball', 2.0)))
    labels = (replace(first, mask=mask), second)
    frame = LabelledFrame(Frame(np.zeros((48, 64, 3), np.uint8), CAMERA), labels)
    segmentation = messages.read_segmentation(
        messages.segmentation_message(frame, ['cube', 'ball'], HEAD), 'sim/segmentation')
    read = messages.read_labels(
        messages.labels_message(labels, objects, HEAD), 'sim/labels', CAMERA, objects,
        boxes=messages.labels_2d_message(labels, HEAD), segmentation=segmentation)
    assert not read.unknown and [found.name for found in read.labels] == ['cube', 'ball']
    for found, given in zip(read.labels, labels, strict=True):
        assert np.allclose(found.box, given.box) and found.visible == pytest.approx(0.75)
        assert np.allclose(found.pose.matrix(), given.pose.matrix())
    assert read.labels[0].mask is not None and np.array_equal(read.labels[0].mask, mask)


def test_a_box_where_the_pose_is_not_projected_to_is_refused() -> None:
    bar = {'cube': ObjectModel('cube', cube().points * np.float32([3, 0.2, 0.2]), np.array([-0.3, -0.02, -0.02]),
                               np.array([0.6, 0.04, 0.04]), 0.6)}
    upright = Pose(np.array([0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)]), np.array([0.0, 0.0, 2.0]))
    good = ObjectLabel('cube', messages.projected_box(bar['cube'], upright, CAMERA), upright, 1.0)
    swapped = replace(good, pose=Pose(upright.quaternion[[3, 0, 1, 2]], upright.translation))  # wxyz written as xyzw
    for wrong in (swapped, replace(good, pose=Pose(upright.quaternion, np.array([0.0, 0.0, -2.0]))),
                  replace(good, box=good.box + 20)):
        with pytest.raises(MessageError, match=r'detection 0 \(cube\): its box .* is not where its pose is projected'):
            messages.read_labels(messages.labels_message([wrong], bar, HEAD), 'sim/labels', CAMERA, bar,
                                 boxes=messages.labels_2d_message([wrong], HEAD))
    read = messages.read_labels(messages.labels_message([good], bar, HEAD), 'sim/labels', CAMERA, bar,
                                boxes=messages.labels_2d_message([good], HEAD))
    assert len(read.labels) == 1
    nowhere = replace(swapped, box=np.zeros(4))  # out of the picture: no label, and no error
    assert not messages.read_labels(messages.labels_message([nowhere], bar, HEAD), 'sim/labels', CAMERA, bar,
                                    boxes=messages.labels_2d_message([nowhere], HEAD)).labels


def test_boxes_are_derived_when_absent() -> None:
    objects = {'cube': cube()}
    message = messages.labels_message([label()], objects, HEAD)
    # nearest face at z = 0.9: half width 0.1 * 50 / 0.9 around the principal point
    reach = 5.0 / 0.9
    box = messages.read_labels(message, 't', CAMERA, objects).labels[0].box
    assert np.allclose(box, [31.5 - reach, 23.5 - reach, 31.5 + reach, 23.5 + reach])
    segmentation = np.zeros((48, 64), np.uint16)
    segmentation[20:24, 30:36] = 1
    seen = messages.read_labels(message, 't', CAMERA, objects, segmentation=segmentation).labels[0]
    assert np.allclose(seen.box, [29.5, 19.5, 35.5, 23.5])


def test_segmentation_of_another_label_order() -> None:
    objects = {'cube': cube()}
    segmentation = np.zeros((48, 64), np.uint16)
    segmentation[20:24, 30:36] = 2
    found = messages.read_labels(messages.labels_message([label()], objects, HEAD), 't', CAMERA, objects,
                                 segmentation=segmentation, label_map=['ball', 'cube']).labels[0]
    assert found.mask is not None and found.mask.sum() == 24


def test_unknown_classes_are_counted_and_left_out() -> None:
    message = messages.labels_message([label(), label('ball')], {'cube': cube(), 'ball': cube('ball')}, HEAD)
    read = messages.read_labels(message, 'sim/labels', CAMERA, {'cube': cube()})
    assert [found.name for found in read.labels] == ['cube'] and read.unknown == {'ball': 1}


@pytest.mark.parametrize('spoil, says', [
    (lambda d: setattr(d.results[0].pose.pose.orientation, 'w', 0.0), 'all zero'),
    (lambda d: setattr(d.results[0].pose.pose.position, 'x', math.nan), 'finite'),
    (lambda d: setattr(d.results[0].hypothesis, 'score', 1.5), 'score 1.5'),
    (lambda d: setattr(d.results[0].hypothesis, 'class_id', ''), 'empty class_id'),
    (lambda d: setattr(d, 'results', []), '0 results'),
])
def test_malformed_labels_are_named(spoil: object, says: str) -> None:
    message = messages.labels_message([label()], {'cube': cube()}, HEAD)
    spoil(message.detections[0])  # type: ignore[operator]
    with pytest.raises(MessageError, match='sim/labels detection 0') as caught:
        messages.read_labels(message, 'sim/labels', CAMERA, {'cube': cube()})
    assert says in str(caught.value)


def test_boxes_that_do_not_fit_the_labels() -> None:
    with pytest.raises(MessageError, match='1 labels but 0 boxes'):
        messages.read_labels(messages.labels_message([label()], {'cube': cube()}, HEAD), 't', CAMERA,
                             {'cube': cube()}, boxes=Detection2DArray(header=HEAD))


def detections() -> list[Detection]:
    pose = Pose(np.array([0.1, 0.2, 0.3, -0.9]), np.array([0.1, -0.2, 1.5]))
    covariance = np.diag(np.arange(1.0, 7.0))
    return [
        Detection('cube', 0.9, np.array([1.0, 2.0, 11.0, 22.0])),
        Detection('cube', 0.8, np.array([0.0, 0.0, 5.0, 5.0]), pose, covariance),
        Detection('cube', 0.4, np.array([0.0, 0.0, 5.0, 5.0]), Pose(pose.quaternion, np.array([0, 0, 9.0]))),
    ]


def test_detections_round_trip() -> None:
    given = detections()
    flat, solid = (messages.detections_2d_message(given, HEAD),
                   messages.detections_3d_message(given, {'cube': cube()}, HEAD))
    assert (flat.detections[0].bbox.center.position.x, flat.detections[0].bbox.size_y) == (6.0, 20.0)
    assert len(flat.detections) == 3 and len(solid.detections) == 2
    assert all(d.header == HEAD for d in (*flat.detections, *solid.detections))
    found = messages.read_detections(flat, solid, 't')
    assert found[0].pose is None and found[1].pose is not None
    for a, b in zip(found, given, strict=True):
        assert a.name == b.name and a.score == pytest.approx(b.score) and np.allclose(a.box, b.box)
    assert found[1].pose.quaternion[3] >= 0 and np.allclose(found[1].pose.matrix(), given[1].pose.matrix())
    assert found[1].covariance is not None and np.allclose(found[1].covariance, given[1].covariance)


def test_never_a_default_pose() -> None:
    unposed = detections()[:1]
    assert messages.best_poses(unposed, HEAD) == {}
    assert len(messages.pose_array_message(unposed, HEAD).poses) == 0
    assert messages.detections_3d_message(unposed, {'cube': cube()}, HEAD) == Detection3DArray(header=HEAD)


def test_best_instance_of_each_class() -> None:
    best = messages.best_poses(detections()[::-1], HEAD)
    assert best['cube'].pose.pose.position.z == pytest.approx(1.5) and best['cube'].pose.covariance[35] == 6.0


def test_topic_names() -> None:
    assert messages.topic_names(['obj_000001', 'cell phone', '3d-printer', '__hand__']) == {
        'obj_000001': 'obj_000001', 'cell phone': 'cell_phone', '3d-printer': 'class_3d_printer', '__hand__': 'hand'}
    with pytest.raises(MessageError, match="'cell phone' and 'cell-phone' would share"):
        messages.topic_names(['cell phone', 'cell-phone'])
    with pytest.raises(MessageError, match='no letter'):
        messages.topic_names(['??'])


def test_markers_start_with_delete_all() -> None:
    found = [*detections(), replace(next(d for d in detections() if d.pose is not None), track=7)]
    markers = messages.marker_message(found, {'cube': cube()}, HEAD, 5).markers
    assert markers[0].action == 3 and len(markers) == 1 + 2 * 3
    assert markers[-1].text == f'cube_7 {found[-1].score:.2f} v5'  # instance, score, version of the weights


def test_label_info_round_trip_and_gaps() -> None:
    message = messages.label_info_message(['a', 'b'], 0.3, HEAD)
    assert messages.read_label_info(message, 't') == ['a', 'b']
    message.class_map[1].class_id = 7
    with pytest.raises(MessageError, match='expected 0, 1, 2'):
        messages.read_label_info(message, 't')


def test_weights_message_keeps_every_byte() -> None:
    data = bytes(range(256)) * 3
    assert bytes(messages.weights_message(data).data) == data


def test_rgb_not_bgr_on_the_wire() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    encoded = np.frombuffer(messages.compressed_message(red, HEAD).data, np.uint8)
    assert cv2.imdecode(encoded, cv2.IMREAD_COLOR)[0, 0, 2] > 200
