# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ROS messages <-> the package's nouns (samples.py), and nothing else: no node, no state.

Reading raises :class:`MessageError`, which names the topic, what was found and what was expected. 8-bit rgb, bgr, mono
and alpha images are read by this file itself, rgb8 and segmentation images without a copy; other encodings go through
cv_bridge where it is installed and through rosbags-image where not.
"""

from __future__ import annotations

import array
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseArray, PoseWithCovariance, PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, UInt8MultiArray
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)
from visualization_msgs.msg import Marker, MarkerArray

from sim2real_da.data.camera_info import intrinsics_of
from sim2real_da.data.decoding import PLAIN_ENCODINGS, decoded, is_depth, rgb
from sim2real_da.geometry import box_around, inside, project, transform_points
from sim2real_da.samples import Detection, Intrinsics, LabelledFrame, ObjectLabel, ObjectModel, Pose

#: what answers of the adaptation node's services say, for other nodes to read
ASK_AGAIN = 'ask again in a moment'
PAUSED_ALREADY = 'learning was paused already'
LARGEST_PIXEL = 1e6
BORDER = 3.0  # pixels that a visible box may lie outside of its object's projection
LEAST_INSIDE = 0.5  # share of a visible box that its object's projection covers


class MessageError(ValueError):
    """A message that cannot be used; the text names the topic, what it held and what was expected."""


# --- headers ----------------------------------------

def nanoseconds(stamp: Time) -> int:
    """Return a stamp as integer nanoseconds; the key by which messages of one instant are matched."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header(stamp: int, frame_id: str) -> Header:
    """Return a header from integer nanoseconds."""
    return Header(stamp=Time(sec=stamp // 1_000_000_000, nanosec=stamp % 1_000_000_000), frame_id=frame_id)


# --- images ----------------------------------------

def read_rows(message: Image, topic: str, channels: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """View the pixels ``(H, W)`` or ``(H, W, channels)`` in place, honouring ``step`` (padding at the end of rows)."""
    data = np.frombuffer(message.data, np.uint8)
    used = message.width * channels * dtype.itemsize
    if message.step < used:
        raise MessageError(
            f'{topic}: step {message.step} is too small for {message.width} pixels of {message.encoding}, '
            f'expected at least {used}')
    if data.size != message.step * message.height:
        raise MessageError(
            f'{topic}: {data.size} bytes, expected step x height = {message.step} x {message.height} = '
            f'{message.step * message.height}')
    shape = (message.height, message.width) + ((channels,) if channels > 1 else ())
    strides = (message.step, channels * dtype.itemsize) + ((dtype.itemsize,) if channels > 1 else ())
    return np.ndarray(shape, dtype, buffer=data, strides=strides)


def read_image(message: Image, topic: str) -> NDArray[np.uint8]:
    """Return the picture as uint8 RGB ``(H, W, 3)``; rgb8 is a view of the message's memory, not a copy.

    :raises MessageError: zero size, a step that does not fit, missing bytes or an encoding nobody here can read
    """
    if message.width < 1 or message.height < 1:
        raise MessageError(f'{topic}: the image is {message.width}x{message.height}, expected at least 1x1')
    if message.encoding in PLAIN_ENCODINGS:
        channels, _ = PLAIN_ENCODINGS[message.encoding]
        return rgb(read_rows(message, topic, channels, np.dtype(np.uint8)), message.encoding)
    return _read_foreign_image(message, topic)


def _read_foreign_image(message: Image, topic: str) -> NDArray[np.uint8]:
    """Read bayer, YUV, 16-bit and other encodings by a library made for it."""
    try:
        from cv_bridge import CvBridge
        return np.asarray(CvBridge().imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    except ImportError:  # not on PyPI; and one that was built for another NumPy fails when it is first used
        return _read_by_rosbags(message, topic)
    except Exception as error:  # its own error types differ between releases
        raise MessageError(_unreadable(message, topic, error)) from error


def _read_by_rosbags(message: Image, topic: str) -> NDArray[np.uint8]:
    try:
        from rosbags.image import message_to_cvimage
        from rosbags.image.image import ImageError, to_cvtype
    except ImportError as error:
        raise MessageError(
            f'{topic}: encoding {message.encoding!r} needs cv_bridge or rosbags-image; install one of them '
            f'(pip install rosbags-image), or publish rgb8') from error
    try:
        _, _, kind, channels = to_cvtype(message.encoding)
        # The library knows no row padding: hand it a message without.
        pixels = np.ascontiguousarray(read_rows(message, topic, channels, np.dtype(kind)))
        tight = Image(header=message.header, height=message.height, width=message.width, encoding=message.encoding,
                      is_bigendian=message.is_bigendian, step=pixels.strides[0])
        tight.data = _bytes(pixels)
        found = np.asarray(message_to_cvimage(tight, 'rgb8'))
    except (ImageError, TypeError, cv2.error) as error:
        raise MessageError(_unreadable(message, topic, error)) from error
    if found.dtype != np.uint8 or found.shape != (message.height, message.width, 3):
        raise MessageError(_unreadable(message, topic, f'decoded to {found.dtype} {found.shape}'))
    return found


def _unreadable(message: Image, topic: str, why: object) -> str:
    return (f'{topic}: encoding {message.encoding!r} cannot be read as a colour picture ({why}); expected one of '
            f'{", ".join(PLAIN_ENCODINGS)}, a bayer, YUV or 16-bit colour encoding')


def read_compressed(message: CompressedImage, topic: str) -> NDArray[np.uint8]:
    """Return a JPEG or PNG message as uint8 RGB ``(H, W, 3)``.

    :raises MessageError: for data that cannot be decoded, or a depth image
    """
    if is_depth(message.format):
        raise MessageError(f'{topic}: format {message.format!r} is a depth image, expected a colour picture')
    picture = decoded(message.data)
    if picture is None:
        raise MessageError(f'{topic}: {len(message.data)} bytes of format {message.format!r} cannot be decoded, '
                           'expected a whole JPEG or PNG')
    return picture


def read_any_image(message: Image | CompressedImage, topic: str) -> NDArray[np.uint8]:
    """Return uint8 RGB ``(H, W, 3)`` from a raw or a compressed image."""
    return read_image(message, topic) if isinstance(message, Image) else read_compressed(message, topic)


def read_segmentation(message: Image, topic: str) -> NDArray[np.uint16]:
    """Return the label image ``(H, W)``: 0 background, 1 + index in the label map.

    :raises MessageError: when it is not 16UC1 (or mono16) or its size does not fit
    """
    if message.encoding not in ('16UC1', 'mono16'):
        raise MessageError(f'{topic}: encoding {message.encoding!r}, expected 16UC1 (0 background, 1 + class index)')
    if message.width < 1 or message.height < 1:
        raise MessageError(f'{topic}: the image is {message.width}x{message.height}, expected at least 1x1')
    order = '>' if message.is_bigendian else '<'
    return read_rows(message, topic, 1, np.dtype(f'{order}u2')).astype(np.uint16, copy=False)


def _bytes(pixels: NDArray[Any]) -> array.array[int]:
    """Copy pixels once into the only type whose assignment to a message is fast."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    return data


def image_message(image: NDArray[Any], head: Header, encoding: str = 'rgb8') -> Image:
    """Return a raw image message of ``(H, W, 3)`` uint8 or, with ``encoding='16UC1'``, ``(H, W)`` uint16."""
    image = np.ascontiguousarray(image)
    message = Image(header=head, height=image.shape[0], width=image.shape[1], encoding=encoding,
                    is_bigendian=int(sys.byteorder == 'big'), step=image.strides[0])
    message.data = _bytes(image)
    return message


def compressed_message(image: NDArray[np.uint8], head: Header, quality: int = 90) -> CompressedImage:
    """Return a JPEG message of a uint8 RGB image."""
    good, encoded = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise MessageError(f'cannot encode an image of {image.dtype} {image.shape} as JPEG')
    message = CompressedImage(header=head, format='rgb8; jpeg compressed bgr8')
    message.data = _bytes(encoded)
    return message


# --- camera ----------------------------------------

def read_camera_info(message: CameraInfo, topic: str, size: tuple[int, int] | None = None,
                     rectified: bool = False) -> Intrinsics:
    """Return the intrinsics of the pictures this camera_info goes with: :func:`.camera_info.intrinsics_of`.

    :raises MessageError: for one that cannot be used
    """
    try:
        return intrinsics_of(message, size, rectified)
    except ValueError as error:
        raise MessageError(f'{topic}: {error}') from error


def camera_info_message(intrinsics: Intrinsics, head: Header) -> CameraInfo:
    """Return the camera_info of an undistorted or distorted, uncropped, unbinned camera."""
    k = intrinsics.matrix()
    d = list(intrinsics.distortion) or [0.0] * 5
    model = 'equidistant' if intrinsics.fisheye else 'plumb_bob' if len(d) <= 5 else 'rational_polynomial'
    return CameraInfo(
        header=head, width=intrinsics.width, height=intrinsics.height, distortion_model=model, d=d,
        k=k.flatten(), r=np.eye(3).flatten(), p=np.hstack([k, np.zeros((3, 1))]).flatten())


# --- poses and boxes ----------------------------------------

def pose_message(pose: Pose) -> PoseMessage:
    """Return geometry_msgs/Pose."""
    message = PoseMessage()
    _set_pose(message, pose.quaternion, pose.translation)
    return message


def _set_pose(message: PoseMessage, quaternion: NDArray[np.float64], position: NDArray[np.float64]) -> None:
    message.orientation.x, message.orientation.y, message.orientation.z, message.orientation.w = map(float, quaternion)
    message.position.x, message.position.y, message.position.z = map(float, position)


def read_pose(message: PoseMessage, what: str) -> Pose:
    """Return a pose.

    :param what: topic and place, for the error
    :raises MessageError: for NaN or an all-zero quaternion
    """
    q, p = message.orientation, message.position
    try:
        return Pose(np.array([q.x, q.y, q.z, q.w]), np.array([p.x, p.y, p.z]))
    except ValueError as error:
        raise MessageError(f'{what}: {error}') from error


def _detection_2d(name: str, score: float, box: NDArray[np.float64], number: int | str, head: Header) -> Detection2D:
    x0, y0, x1, y1 = (float(v) for v in box)
    message = Detection2D(header=head, id=str(number))
    message.bbox.center.position.x, message.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
    message.bbox.size_x, message.bbox.size_y = x1 - x0, y1 - y0
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, float(score)
    message.results.append(result)
    return message


def _detection_3d(name: str, score: float, pose: Pose, covariance: NDArray[np.float64] | None, model: ObjectModel,
                  number: int | str, head: Header) -> Detection3D:
    message = Detection3D(header=head, id=str(number))
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, float(score)
    result.pose.pose = pose_message(pose)
    if covariance is not None:
        result.pose.covariance = np.asarray(covariance, np.float64).reshape(36)
    message.results.append(result)
    _set_pose(message.bbox.center, pose.quaternion, model.box_centre(pose))
    message.bbox.size.x, message.bbox.size.y, message.bbox.size.z = (float(v) for v in model.size)
    return message


def read_box(message: Detection2D, what: str) -> NDArray[np.float64]:
    """Return a box as xyxy ``(4,)``.

    :raises MessageError: for numbers that are none of a picture's, or a negative size
    """
    centre, size = message.bbox.center.position, (message.bbox.size_x, message.bbox.size_y)
    numbers = np.array([centre.x, centre.y, *size])
    if not np.all(np.abs(numbers) <= LARGEST_PIXEL) or min(size) < 0:
        raise MessageError(f'{what}: box centre and size {numbers.tolist()}, expected pixels up to {LARGEST_PIXEL:g}, '
                           'size >= 0')
    return np.array([centre.x - size[0] / 2, centre.y - size[1] / 2, centre.x + size[0] / 2, centre.y + size[1] / 2])


def hypothesis(message: Detection2D | Detection3D, what: str) -> tuple[str, float, PoseWithCovariance]:
    """Return class, score and pose of a detection.

    :raises MessageError: unless it has exactly one result, with a class and a score from 0 to 1
    """
    if len(message.results) != 1:
        raise MessageError(f'{what}: {len(message.results)} results, expected exactly one (class, score, pose)')
    result = message.results[0]
    score = float(result.hypothesis.score)
    if not result.hypothesis.class_id:
        raise MessageError(f'{what}: empty class_id, expected a class name')
    if not 0.0 <= score <= 1.0:
        raise MessageError(f'{what}: score {score}, expected 0 to 1')
    return result.hypothesis.class_id, score, result.pose


# --- labels (sim/labels, ground_truth) ----------------------------------------

def labels_message(labels: Sequence[ObjectLabel], objects: Mapping[str, ObjectModel], head: Header) -> Detection3DArray:
    """Return the normal form: score = visible fraction (1.0 when unknown), pose = CAD frame, bbox = oriented box."""
    return Detection3DArray(header=head, detections=[
        _detection_3d(label.name, 1.0 if label.visible is None else label.visible, label.pose, None,
                      objects[label.name], number, head) for number, label in enumerate(labels)])


def labels_2d_message(labels: Sequence[ObjectLabel], head: Header) -> Detection2DArray:
    """Return the visible boxes, same order and ids as :func:`labels_message`."""
    return Detection2DArray(header=head, detections=[
        _detection_2d(label.name, 1.0 if label.visible is None else label.visible, label.box, number, head)
        for number, label in enumerate(labels)])


def segmentation_message(labelled: LabelledFrame, classes: Sequence[str], head: Header) -> Image:
    """Return the 16UC1 label image of the labels' masks: 0 background, 1 + index in ``classes``."""
    image = labelled.frame.image
    label_map = np.zeros(image.shape[:2], np.uint16)
    for label in labelled.labels:
        if label.mask is not None:
            label_map[label.mask] = 1 + classes.index(label.name)
    return image_message(label_map, head, '16UC1')


@dataclass(frozen=True)
class ReadLabels:
    """Labels of one frame, and how many were left out by class because the model does not know it."""

    labels: tuple[ObjectLabel, ...]
    unknown: dict[str, int]


def read_labels(
    message: Detection3DArray, topic: str, intrinsics: Intrinsics, objects: Mapping[str, ObjectModel], *,
    boxes: Detection2DArray | None = None, segmentation: NDArray[np.uint16] | None = None,
    label_map: Sequence[str] | None = None,
) -> ReadLabels:
    """Return the labels of one frame.

    The visible box comes from ``boxes`` where given, else from the segmentation, else from the projected model (the
    whole object, clipped to the picture). An object that is not in the picture is left out.

    :param objects: the classes the model knows; others are counted in ``unknown`` and left out
    :param segmentation: ``(H, W)``, 0 background, 1 + index in ``label_map``
    :param label_map: class names of the segmentation; by default the order of ``objects``
    :raises MessageError: an unset pose, a score outside 0..1, boxes or a segmentation that do not fit the labels
    """
    names = list(label_map if label_map is not None else objects)
    if segmentation is not None and segmentation.shape != (intrinsics.height, intrinsics.width):
        raise MessageError(f'{topic}: segmentation is {segmentation.shape[1]}x{segmentation.shape[0]}, the image is '
                           f'{intrinsics.width}x{intrinsics.height}')
    partners = _partners(message, boxes, topic)
    classes = [hypothesis(d, f'{topic} detection {i}')[0] for i, d in enumerate(message.detections)]
    labels: list[ObjectLabel] = []
    unknown: dict[str, int] = {}
    for index, detection in enumerate(message.detections):
        what = f'{topic} detection {index}'
        name, visible, posed = hypothesis(detection, what)
        if name not in objects:
            unknown[name] = unknown.get(name, 0) + 1
            continue
        pose = read_pose(posed.pose, f'{what} ({name})')
        if not pose.translation.any():
            raise MessageError(f'{what} ({name}): results[0].pose was never set: it reads as the middle of the camera; '
                               f'labels of Isaac Sim and Gazebo need the parameter labels')
        partner = partners[index]
        box = read_box(partner, what) if partner is not None else None
        if box is not None and (box[2:] > box[:2]).all() and not box_fit(
                box, projected_box(objects[name], pose, intrinsics)):
            raise MessageError(
                f'{what} ({name}): its box {np.round(box, 1).tolist()} is not where its pose is projected to; expected '
                f'the pose of the CAD frame in the optical frame (z forward), quaternion xyzw')
        mask = None
        if segmentation is not None and name in names:
            mask = segmentation == 1 + names.index(name)
            if classes.count(name) > 1:  # one label image for all instances: keep what lies in this one's box
                area = box if box is not None else projected_box(objects[name], pose, intrinsics)
                mask &= inside(area, intrinsics) if area is not None else False
            if box is None and mask.any():
                box = box_around(mask)
        if box is None:
            box = projected_box(objects[name], pose, intrinsics)
        if box is not None and box[2] > box[0] and box[3] > box[1]:
            labels.append(ObjectLabel(name, box, pose, visible, mask))
    return ReadLabels(tuple(labels), unknown)


def _partners(message: Detection3DArray, boxes: Detection2DArray | None, topic: str) -> list[Detection2D | None]:
    """Find each 3-D label's 2-D box: by id where there are ids, else by order."""
    if boxes is None:
        return [None] * len(message.detections)
    by_id = {d.id: d for d in boxes.detections if d.id}
    if by_id and all(d.id in by_id for d in message.detections):
        return [by_id[d.id] for d in message.detections]
    if len(boxes.detections) != len(message.detections):
        raise MessageError(f'{topic}: {len(message.detections)} labels but {len(boxes.detections)} boxes of the same '
                           f'stamp; expected the same order or the same ids')
    return list(boxes.detections)


def projected_box(model: ObjectModel, pose: Pose, intrinsics: Intrinsics) -> NDArray[np.float64] | None:
    """Return the box of the whole object clipped to the picture, or None when it is outside or behind the camera."""
    pixels = project(transform_points(model.points, pose), intrinsics)
    if not np.all(np.isfinite(pixels)):
        return None
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    # pixel centres are at integers, so the picture reaches from -0.5 to its size - 0.5
    box[0::2], box[1::2] = box[0::2].clip(-0.5, intrinsics.width - 0.5), box[1::2].clip(-0.5, intrinsics.height - 0.5)
    return box if box[2] > box[0] and box[3] > box[1] else None


def box_fit(box: NDArray[np.float64], whole: NDArray[np.float64] | None) -> float:
    """Return how well a visible box fits an object that is projected to ``whole`` (None: nowhere).

    Intersection over union with ``whole`` grown by a border; 0 for a box that cannot be of this object.
    """
    if whole is None:
        return 0.0
    grown = whole + np.array([-BORDER, -BORDER, BORDER, BORDER])
    common = np.maximum(np.minimum(box[2:], grown[2:]) - np.maximum(box[:2], grown[:2]), 0).prod()
    own, other = (box[2:] - box[:2]).prod(), (grown[2:] - grown[:2]).prod()
    return float(common / (own + other - common)) if common >= LEAST_INSIDE * own else 0.0


# --- detections ----------------------------------------

def instance_name(detection: Detection, rank: int) -> str:
    """Return what tells a detection from the others of its picture: ``mug_3`` of an instance, else its rank."""
    return str(rank) if detection.track is None else f'{safe_name(detection.name)}_{detection.track}'


def detections_2d_message(detections: Sequence[Detection], head: Header) -> Detection2DArray:
    """Return all detections; ``id`` is :func:`instance_name`, shared with :func:`detections_3d_message`."""
    return Detection2DArray(header=head, detections=[
        _detection_2d(d.name, d.score, d.box, instance_name(d, rank), head) for rank, d in enumerate(detections)])


def detections_3d_message(detections: Sequence[Detection], objects: Mapping[str, ObjectModel],
                          head: Header) -> Detection3DArray:
    """Return those detections that have a pose."""
    return Detection3DArray(header=head, detections=[
        _detection_3d(d.name, d.score, d.pose, d.covariance, objects[d.name], instance_name(d, rank), head)
        for rank, d in enumerate(detections) if d.pose is not None])


def transforms_message(detections: Sequence[Detection], head: Header, namespace: str) -> TFMessage:
    """Return a transform for each tracked instance, from the header's frame to ``namespace/mug_3``."""
    message = TFMessage()
    for rank, detection in enumerate(detections):
        if detection.pose is None or detection.track is None:
            continue
        child = '/'.join(filter(None, [namespace.strip('/'), instance_name(detection, rank)]))
        transform = TransformStamped(header=head, child_frame_id=child)
        pose, t = pose_message(detection.pose), transform.transform.translation
        t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
        transform.transform.rotation = pose.orientation
        message.transforms.append(transform)
    return message


def read_detections(boxes: Detection2DArray, poses: Detection3DArray, topic: str) -> list[Detection]:
    """Join the two published arrays of one frame by ``id``; a detection without a partner has no pose.

    :raises MessageError: a malformed detection
    """
    by_id = {d.id: d for d in poses.detections}
    found = []
    for index, message in enumerate(boxes.detections):
        what = f'{topic} detection {index}'
        name, score, _ = hypothesis(message, what)
        partner = by_id.get(message.id)
        pose = covariance = None
        if partner is not None:
            posed = hypothesis(partner, what)[2]
            pose, covariance = read_pose(posed.pose, what), np.asarray(posed.covariance, np.float64).reshape(6, 6)
        found.append(Detection(name, score, read_box(message, what), pose, covariance))
    return found


def pose_array_message(detections: Sequence[Detection], head: Header) -> PoseArray:
    """Return every pose, in the order of the 3-D detections."""
    return PoseArray(header=head, poses=[pose_message(d.pose) for d in detections if d.pose is not None])


def best_poses(detections: Sequence[Detection], head: Header) -> dict[str, PoseWithCovarianceStamped]:
    """Return the best posed instance of each class; a class without one is absent: there is no default pose."""
    best: dict[str, Detection] = {}
    for detection in detections:
        if detection.pose is not None and (
                detection.name not in best or detection.score > best[detection.name].score):
            best[detection.name] = detection
    messages = {}
    for name, detection in best.items():
        assert detection.pose is not None
        message = PoseWithCovarianceStamped(header=head)
        message.pose.pose = pose_message(detection.pose)
        if detection.covariance is not None:
            message.pose.covariance = np.asarray(detection.covariance, np.float64).reshape(36)
        messages[name] = message
    return messages


def topic_names(classes: Iterable[str]) -> dict[str, str]:
    """Return a name that is legal in a ROS topic for each class: ``cell phone`` -> ``cell_phone``.

    :raises MessageError: for a class without a usable letter, or two classes that would share a topic
    """
    names: dict[str, str] = {}
    for original in classes:
        safe = safe_name(original)
        taken = [other for other, name in names.items() if name == safe]
        if taken:
            raise MessageError(
                f'classes {taken[0]!r} and {original!r} would share the topic name {safe!r}; rename one of them')
        names[original] = safe
    return names


def safe_name(name: str) -> str:
    """Return a class's name as a topic can have it.

    :raises MessageError: for one without a usable letter
    """
    safe = re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')
    if not safe:
        raise MessageError(f'class {name!r}: no letter or digit that a topic name can hold; rename it')
    return f'class_{safe}' if safe[0].isdigit() else safe


def marker_message(detections: Sequence[Detection], objects: Mapping[str, ObjectModel], head: Header,
                   version: int) -> MarkerArray:
    """Return boxes, and instance, score and version of the weights; the first marker deletes those of before."""
    markers = [Marker(header=head, action=Marker.DELETEALL)]
    for number, detection in enumerate(detections):
        if detection.pose is None:
            continue
        model = objects[detection.name]
        cube = Marker(header=head, ns='boxes', id=number, type=Marker.CUBE, action=Marker.ADD)
        _set_pose(cube.pose, detection.pose.quaternion, model.box_centre(detection.pose))
        cube.scale.x, cube.scale.y, cube.scale.z = (float(v) for v in model.size)
        cube.color.r, cube.color.g, cube.color.b, cube.color.a = 0.1, 0.6, 1.0, 0.4
        text = Marker(header=head, ns='names', id=number, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD,
                      text=f'{instance_name(detection, number)} {detection.score:.2f} v{version}')
        _set_pose(text.pose, detection.pose.quaternion, detection.pose.translation)
        text.scale.z = 0.03
        text.color.r = text.color.g = text.color.b = text.color.a = 1.0
        markers += [cube, text]
    return MarkerArray(markers=markers)


# --- label map, model, weights ----------------------------------------

def label_info_message(classes: Sequence[str], threshold: float, head: Header) -> LabelInfo:
    """Return the label map: index in the model -> class name."""
    return LabelInfo(header=head, threshold=float(threshold), class_map=[
        VisionClass(class_id=index, class_name=name) for index, name in enumerate(classes)])


def read_label_info(message: LabelInfo, topic: str) -> list[str]:
    """Return the class names by index.

    :raises MessageError: when the ids are not 0, 1, 2 … each once
    """
    names = {int(c.class_id): c.class_name for c in message.class_map}
    if sorted(names) != list(range(len(message.class_map))):
        ids = [int(c.class_id) for c in message.class_map]
        raise MessageError(f'{topic}: class ids {ids}, expected 0, 1, 2 … once each')
    return [names[i] for i in range(len(names))]


def vision_info_message(method: str, location: str, version: int, head: Header) -> VisionInfo:
    """Return what runs; ``database_version`` is the weights version (vision_msgs: raise it when training online)."""
    return VisionInfo(header=head, method=method, database_location=location, database_version=version)


def weights_message(data: bytes) -> UInt8MultiArray:
    """Return safetensors bytes as a message."""
    message = UInt8MultiArray()
    message.data = _bytes(np.frombuffer(data, np.uint8))
    return message
