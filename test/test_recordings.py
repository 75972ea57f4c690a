# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures from folders, videos, webcams and bags: in order, with their camera, and every bad file named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sim2real_da.adapt import target_frames
from sim2real_da.data import recordings
from sim2real_da.data.camera_info import read_calibration
from sim2real_da.data.decoding import PLAIN_ENCODINGS, decoded
from sim2real_da.data.recordings import is_recording, open_recording
from sim2real_da.samples import Intrinsics

CAMERA = Intrinsics(64, 48, 50.0, 51.0, 30.0, 20.0, (-0.2, 0.05, 0.001, 0.0, 0.0))
TYPES = get_typestore(Stores.ROS2_HUMBLE)


def picture(number: int) -> np.ndarray:
    """Blocks, so that a lossy coder keeps them; red tells the number."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 20 * number, 60, 200
    return image


def calibration(folder: Path, **changes: Any) -> Path:
    content = {
        'image_width': 64, 'image_height': 48, 'camera_name': 'arm', 'distortion_model': 'plumb_bob',
        'camera_matrix': {'rows': 3, 'cols': 3, 'data': [50.0, 0, 30, 0, 51, 20, 0, 0, 1]},
        'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [-0.2, 0.05, 0.001, 0, 0]},
        'projection_matrix': {'rows': 3, 'cols': 4, 'data': [40.0, 0, 31, 0, 0, 41, 22, 0, 0, 0, 1, 0]}, **changes}
    path = folder / 'camera.yaml'
    path.write_text(yaml.safe_dump(content))
    return path


def numbers(recording: Any) -> list[int]:
    found = []
    while (frame := recording.read()) is not None:
        assert frame.intrinsics == CAMERA
        np.testing.assert_allclose(frame.image[24, 16, 1:], [60, 200], atol=12)
        found.append(round(frame.image[24, 16, 0] / 20))
    return found


# --- calibration files ----------------------------------------

def test_calibration_files(tmp_path: Path) -> None:
    path = calibration(tmp_path)
    assert read_calibration(path) == CAMERA
    assert read_calibration(path, rectified=True) == Intrinsics(64, 48, 40.0, 41.0, 31.0, 22.0)
    assert read_calibration(calibration(
        tmp_path, distortion_model='equidistant', distortion_coefficients={'data': [0.1, 0, 0, 0]})).fisheye


@pytest.mark.parametrize('change', [
    {'image_width': 'wide'}, {'camera_matrix': None}, {'camera_matrix': {'data': [1.0, 2]}},
    {'distortion_model': 'fov', 'distortion_coefficients': {'data': [0.9]}}])
def test_bad_calibration_files_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='camera.yaml: .*expected a calibration as camera_calibration writes it'):
        read_calibration(calibration(tmp_path, **change))


@pytest.mark.parametrize('text', ['', '- 1', 'a: [', None])
def test_files_that_are_no_calibration(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / 'camera.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'camera\.yaml: .*expected a calibration'):
        read_calibration(tmp_path / 'camera.yaml')


# --- folders, videos, webcams ----------------------------------------

@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / 'images'
    folder.mkdir()
    for number, suffix in enumerate(('png', 'JPG', 'bmp', 'tiff', 'png')):
        cv2.imwrite(str(folder / f'{number:03d}.{suffix}'), picture(number)[..., ::-1])
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_a_folder_of_images(images: Path) -> None:
    assert is_recording(str(images))
    recording = open_recording(str(images), CAMERA)
    assert numbers(recording) == [0, 1, 2, 3, 4]
    recording.rewind()
    assert numbers(recording) == [0, 1, 2, 3, 4]


def test_a_broken_image_is_named_and_passed_over(images: Path) -> None:
    (images / '001.JPG').write_bytes((images / '001.JPG').read_bytes()[:60])
    recording = open_recording(str(images), CAMERA)
    assert recording.read() is not None
    with pytest.raises(ValueError, match=r'001\.JPG: cannot be decoded'):
        recording.read()
    assert numbers(recording) == [2, 3, 4]


def test_a_header_beyond_reason_is_no_picture() -> None:
    whole = cv2.imencode('.bmp', picture(1)[..., ::-1])[1]
    np.testing.assert_array_equal(decoded(whole.tobytes()), picture(1))
    whole[18:22] = 0, 0, 0, 0x11  # the width
    assert decoded(whole) is None and decoded(b'') is None and decoded(b'nothing') is None


def test_pixels_stay_where_the_intrinsics_have_them_whatever_a_file_says_of_its_orientation() -> None:
    jpeg = cv2.imencode('.jpg', picture(1))[1].tobytes()
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0'  # turned by 180 degrees
    turned = jpeg[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + jpeg[2:]
    assert not np.array_equal(cv2.imdecode(np.frombuffer(turned, np.uint8), 1), cv2.imdecode(np.frombuffer(
        jpeg, np.uint8), 1)), 'OpenCV itself would turn it'
    np.testing.assert_array_equal(decoded(turned), decoded(jpeg))
    recorded = TYPES.types['sensor_msgs/msg/CompressedImage'](
        header=header(1), format='jpeg', data=np.frombuffer(turned, np.uint8))
    np.testing.assert_array_equal(recordings.recorded_picture(recorded), decoded(jpeg))


def test_a_small_file_of_a_huge_picture_is_no_picture() -> None:
    code = ('import sim2real_da, cv2, numpy as np\n'
            'from sim2real_da.data.decoding import decoded\n'
            'data = cv2.imencode(".png", np.zeros((16000, 16000), np.uint8))[1].tobytes()\n'
            'assert len(data) < 1_000_000\n'
            'assert decoded(data) is None')
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_an_image_that_has_gone_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'gone.png'), picture(1))
    recording = open_recording(str(tmp_path), CAMERA)
    (tmp_path / 'gone.png').unlink()
    with pytest.raises(ValueError, match='gone.png: cannot be decoded'):
        recording.read()
    assert recording.read() is None


def test_pictures_of_another_size_are_named(images: Path) -> None:
    recording = open_recording(str(images), Intrinsics(32, 48, 50.0, 51.0, 30.0, 20.0))
    with pytest.raises(ValueError, match=r'000\.png: frame: the image is 64x48 but its camera_info is for 32x48'):
        recording.read()


@pytest.mark.parametrize(('name', 'coder'), [('film.avi', 'MJPG'), ('film.mp4', 'mp4v')])
def test_a_video(tmp_path: Path, name: str, coder: str) -> None:
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*coder), 10.0, (64, 48))
    for number in range(5):
        writer.write(picture(number)[..., ::-1].copy())
    writer.release()
    assert is_recording(str(tmp_path / name))
    recording = open_recording(str(tmp_path / name), CAMERA)
    assert numbers(recording) == [0, 1, 2, 3, 4]
    recording.rewind()
    stamps = [recording.read().stamp for _ in range(3)]
    assert stamps == pytest.approx([0, 1e8, 2e8], abs=1e6)
    recording.close()


class Plug:
    """cv2.VideoCapture of a webcam that is unplugged after two pictures and plugged in again."""

    opened: list[Any] = []

    def __init__(self, device: Any) -> None:
        Plug.opened.append(device)
        self.left = 2

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return len(Plug.opened) != 2

    def set(self, _name: int, _value: float) -> None: ...

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        return (True, picture(3)[..., ::-1].copy()) if self.left >= 0 else (False, None)

    def release(self) -> None: ...


def test_a_webcam_that_is_unplugged_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings.cv2, 'VideoCapture', Plug)
    Plug.opened.clear()
    recording = open_recording('webcam:0', CAMERA)
    assert recording.read() is not None and recording.read() is not None
    with pytest.raises(ValueError, match='webcam 0: no picture'):
        recording.read()
    with pytest.raises(ValueError, match='webcam 0: cannot be opened'):
        recording.read()
    assert recording.read() is not None
    assert Plug.opened == [0, 0, 0]


# --- bags ----------------------------------------

def header(stamp: int) -> Any:
    time = TYPES.types['builtin_interfaces/msg/Time'](sec=stamp, nanosec=5)
    return TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id='arm_camera')


def image_message(number: int, encoding: str = 'bgr8') -> Any:
    pixels = picture(number)[..., ::-1] if encoding == 'bgr8' else picture(number)
    return TYPES.types['sensor_msgs/msg/Image'](
        header=header(number), height=48, width=64, encoding=encoding, is_bigendian=0, step=192,
        data=np.ascontiguousarray(pixels).ravel())


def info_message(width: int = 64) -> Any:
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return TYPES.types['sensor_msgs/msg/CameraInfo'](
        header=header(0), height=48, width=width, distortion_model='plumb_bob',
        d=np.array([-0.2, 0.05, 0.001, 0, 0]), k=np.array([50.0, 0, 30, 0, 51, 20, 0, 0, 1]), r=np.eye(3).ravel(),
        p=np.array([40.0, 0, 31, 0, 0, 41, 22, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0, roi=region)


def bag(folder: Path, plugin: StoragePlugin, *, infos: bool = True, compressed: bool = False,
        second: str = '') -> Path:
    """Five pictures; the camera_info comes after the first of them. A second camera sees the first picture alone."""
    path = folder / 'recording'
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
        topic = '/arm/color/image_raw' + '/compressed' * compressed
        images = writer.add_connection(topic, kind, typestore=TYPES)
        camera = writer.add_connection('/arm/color/camera_info', 'sensor_msgs/msg/CameraInfo', typestore=TYPES)
        for number in range(5):
            message = image_message(number)
            if compressed:
                data = cv2.imencode('.png', picture(number)[..., ::-1])[1].ravel()
                message = TYPES.types[kind](header=header(number), format='png', data=data)
            writer.write(images, 10 * number, TYPES.serialize_cdr(message, kind))
            if infos:
                writer.write(camera, 10 * number + 5,
                             TYPES.serialize_cdr(info_message(), 'sensor_msgs/msg/CameraInfo'))
        if second:
            for name, kind, message in (('image_raw', 'sensor_msgs/msg/Image', image_message(0)),
                                        ('camera_info', 'sensor_msgs/msg/CameraInfo', info_message())):
                connection = writer.add_connection(f'{second}/{name}', kind, typestore=TYPES)
                writer.write(connection, 100, TYPES.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize('plugin', list(StoragePlugin))
@pytest.mark.parametrize('compressed', [False, True])
def test_bags(tmp_path: Path, plugin: StoragePlugin, compressed: bool) -> None:
    path = bag(tmp_path, plugin, compressed=compressed)
    file = next(p for p in path.iterdir() if p.suffix in recordings.BAGS)
    assert is_recording(str(path)) and is_recording(str(file))
    recording = open_recording(str(path))
    assert numbers(recording) == [0, 1, 2, 3, 4]
    recording.rewind()
    first = recording.read()
    assert first is not None and (first.stamp, first.frame_id) == (5, 'arm_camera')
    recording.close()
    rectified = open_recording(str(path), rectified=True)
    assert rectified.read().intrinsics == Intrinsics(64, 48, 40.0, 41.0, 31.0, 22.0)
    rectified.close()
    other = Intrinsics(64, 48, 1.0, 1.0, 1.0, 1.0)
    given = open_recording(str(path), other)
    assert given.read().intrinsics == other
    given.close()


def test_padded_rows_and_broken_pictures_of_a_bag(tmp_path: Path) -> None:
    padded = np.zeros((48, 200), np.uint8)
    padded[:, :192] = picture(2)[..., ::-1].reshape(48, 192)
    image = replace(image_message(2), step=200, data=padded.ravel())
    np.testing.assert_array_equal(recordings.recorded_picture(image), picture(2))
    jpeg = TYPES.types['sensor_msgs/msg/CompressedImage'](
        header=header(1), format='jpeg', data=np.frombuffer(b'\xff\xd8half', np.uint8))
    for broken in (jpeg, replace(image, encoding='nonsense'), replace(image, data=padded.ravel()[:50])):
        with pytest.raises(ValueError, match='cannot be decoded'):
            recordings.recorded_picture(broken)


@pytest.mark.parametrize('encoding', [e for e in PLAIN_ENCODINGS if e not in ('rgb8', 'bgr8')])
def test_plain_encodings_of_a_bag_mean_what_they_mean_live(encoding: str) -> None:
    channels, _ = PLAIN_ENCODINGS[encoding]
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, channels), np.uint8)
    message = replace(image_message(0, 'rgb8'), encoding=encoding, step=64 * channels, data=pixels.ravel())
    expected = {'8UC3': pixels[..., ::-1], 'rgba8': pixels[..., :3], 'bgra8': pixels[..., 2::-1]}.get(
        encoding, np.repeat(pixels[..., :1], 3, axis=2))
    np.testing.assert_array_equal(recordings.recorded_picture(message), expected)


def test_a_depth_image_is_no_picture() -> None:
    depth = cv2.imencode('.png', np.zeros((4, 4), np.uint16))[1].ravel()
    message = TYPES.types['sensor_msgs/msg/CompressedImage'](
        header=header(1), format='16UC1; png compressed', data=depth)
    with pytest.raises(ValueError, match='is a depth image'):
        recordings.recorded_picture(message)


def test_a_damaged_message_of_a_bag_is_named_and_passed_over(tmp_path: Path) -> None:
    with Writer(tmp_path / 'cut', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection('/image', 'sensor_msgs/msg/Image', typestore=TYPES)
        for number in range(3):
            data = TYPES.serialize_cdr(image_message(number), 'sensor_msgs/msg/Image')
            writer.write(images, number, data[:60] if number == 1 else data)
    recording = open_recording(str(tmp_path / 'cut'), CAMERA)
    assert recording.read() is not None
    with pytest.raises(ValueError, match=r'cut: a damaged message on /image \(60 bytes\)'):
        recording.read()
    assert numbers(recording) == [2]
    recording.close()


def test_a_bag_of_two_cameras_has_to_be_told_which(tmp_path: Path) -> None:
    path = bag(tmp_path, StoragePlugin.MCAP, second='/wrist')
    with pytest.raises(ValueError, match=r"images on \['/arm/color/image_raw', '/wrist/image_raw'\], name one of them"):
        target_frames(path, 'test', None)
    assert len(target_frames(path, 'test', None, '/arm/color/image_raw')) == 5
    assert len(target_frames(path, 'test', None, '/wrist/image_raw')) == 1


def test_a_recording_of_rectified_pictures_is_adapted_to_by_p(tmp_path: Path) -> None:
    path = bag(tmp_path, StoragePlugin.MCAP)
    raw, rectified = (target_frames(path, 'test', None, rectified=r)[0].intrinsics for r in (False, True))
    assert (raw.fx, raw.pinhole) == (50.0, False) and (rectified.fx, rectified.pinhole) == (40.0, True)


def test_a_lone_mcap_file(tmp_path: Path) -> None:
    path = bag(tmp_path, StoragePlugin.MCAP)
    file = next(path.glob('*.mcap')).rename(tmp_path / 'alone.mcap')
    recording = open_recording(str(file))
    assert numbers(recording) == [0, 1, 2, 3, 4]
    recording.close()


def test_bags_that_lack_something(tmp_path: Path) -> None:
    path = bag(tmp_path, StoragePlugin.SQLITE3, infos=False)
    with pytest.raises(ValueError, match='/arm/color/camera_info has no message'):
        open_recording(str(path))
    with pytest.raises(ValueError, match=r"no images on /front; there are some on \['/arm/color/image_raw'\]"):
        open_recording(str(path), topic='/front')
    (path / 'metadata.yaml').write_text('nothing')
    with pytest.raises(ValueError, match='recording: cannot be read as a rosbag2 or MCAP recording'):
        open_recording(str(path))
    with pytest.raises(ValueError, match=r'no_such_recording\.mcap: cannot be read'):
        open_recording(str(tmp_path / 'no_such_recording.mcap'))


@pytest.mark.parametrize('source', ['nowhere.txt', 'nowhere'])
def test_what_is_no_recording(tmp_path: Path, source: str) -> None:
    assert not is_recording(str(tmp_path / source))
    with pytest.raises(ValueError, match='expected a folder with images'):
        open_recording(str(tmp_path / source), CAMERA)


def test_pictures_need_a_calibration(images: Path) -> None:
    with pytest.raises(ValueError, match='without a calibration'):
        open_recording(str(images))
    with pytest.raises(ValueError, match=r'gone\.mp4: no such file'):
        open_recording(str(images / 'gone.mp4'), CAMERA)
