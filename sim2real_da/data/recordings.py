# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures without labels, one after the other: a folder of images, a video, a webcam, a rosbag2 or MCAP recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.camera_info import intrinsics_of
from sim2real_da.data.decoding import PLAIN_ENCODINGS, decoded, is_depth, rgb
from sim2real_da.samples import Frame, Intrinsics

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm', '.m4v')
BAGS = ('.mcap', '.db3')
WEBCAM = 'webcam:'
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'


class Recording(Protocol):
    """A source of frames."""

    def read(self) -> Frame | None:
        """Return the next frame, None at the end.

        :raises ValueError: for one that cannot be read; the next call goes on behind it
        """

    def rewind(self) -> None:
        """Begin again."""

    def close(self) -> None:
        """Let go of files and devices."""


def is_recording(source: str) -> bool:
    """Whether :func:`open_recording` knows the source."""
    if source.startswith(WEBCAM):
        return True
    path = Path(source).expanduser()
    if path.is_dir():
        return is_bag(path) or any(p.suffix.lower() in IMAGES for p in path.iterdir())
    return path.suffix.lower() in (*VIDEOS, *BAGS)


def open_recording(source: str, intrinsics: Intrinsics | None = None, topic: str = '',
                   rectified: bool = False) -> Recording:
    """Open a folder of images, a video, ``webcam:0``, or a bag (a rosbag2 folder or an ``.mcap`` or ``.db3`` file).

    :param intrinsics: of the pictures; a bag brings its own
    :param topic: of a bag: whose images; may be empty where there is one
    :param rectified: a bag's pictures are rectified: P of its camera_info holds
    :raises ValueError: for something else, without intrinsics where they are needed, or for a bag without pictures
    """
    path = Path(source).expanduser()
    if is_bag(path):
        return Bag(path, topic, intrinsics, rectified)
    if intrinsics is None:
        raise ValueError(f'{source}: pictures without a calibration; name a file with the camera\'s intrinsics')
    if source.startswith(WEBCAM):
        return Webcam(source.removeprefix(WEBCAM), intrinsics)
    if path.is_dir():
        return ImageFolder(path, intrinsics)
    if path.suffix.lower() in VIDEOS:
        return Video(path, intrinsics)
    raise ValueError(f'{source}: expected a folder with images ({", ".join(IMAGES)}), a video ({", ".join(VIDEOS)}), '
                     f'a bag ({", ".join(BAGS)}) or webcam:0')


Item = TypeVar('Item')


class Spread(Generic[Item]):
    """Keeps at most so many of a sequence of unknown length, evenly spread over it.

    :param most: at least 2
    """

    def __init__(self, most: int) -> None:
        self.most, self.kept = most, list[Item]()
        self._every, self._offered = 1, 0

    def wanted(self) -> bool:
        """Whether the next one is kept; ask once for each."""
        self._offered += 1
        return (self._offered - 1) % self._every == 0

    def add(self, item: Item) -> None:
        """Keep one that is wanted; every second goes whenever there are too many."""
        self.kept.append(item)
        if len(self.kept) > self.most:
            del self.kept[1::2]
            self._every *= 2


class ImageFolder:
    """The images of a folder, by name; stamps are their numbers."""

    def __init__(self, folder: Path, intrinsics: Intrinsics) -> None:
        self.paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES)
        if not self.paths:
            raise ValueError(f'{folder}: no images ({", ".join(IMAGES)})')
        self._intrinsics, self._next = intrinsics, 0

    def read(self) -> Frame | None:
        """See :class:`Recording`."""
        if self._next >= len(self.paths):
            return None
        path, number = self.paths[self._next], self._next
        self._next += 1
        picture = decoded(path.read_bytes()) if path.is_file() else None  # it may have gone since it was listed
        if picture is None:
            raise ValueError(f'{path}: cannot be decoded as an image')
        return _frame(picture, self._intrinsics, str(path), number)

    def rewind(self) -> None:
        """See :class:`Recording`."""
        self._next = 0

    def close(self) -> None:
        """See :class:`Recording`."""


class Video:
    """A video file; stamps are its own."""

    def __init__(self, path: Path, intrinsics: Intrinsics) -> None:
        self._path, self._intrinsics = path, intrinsics
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise ValueError(f'{path}: ' + ('cannot be read as a video' if path.is_file() else 'no such file'))

    def read(self) -> Frame | None:
        """See :class:`Recording`."""
        good, picture = self._capture.read()
        if not good:
            return None
        stamp = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return _frame(_rgb(picture), self._intrinsics, str(self._path), stamp)

    def rewind(self) -> None:
        """See :class:`Recording`."""
        self._capture.release()
        self._capture = cv2.VideoCapture(str(self._path))

    def close(self) -> None:
        """See :class:`Recording`."""
        self._capture.release()


class Webcam:
    """A camera by number or device file, at the size of its intrinsics; one that was unplugged is opened anew."""

    def __init__(self, device: str, intrinsics: Intrinsics) -> None:
        self._device, self._intrinsics = device, intrinsics
        self._capture: Any = None
        self._open()

    def _open(self) -> None:
        capture = cv2.VideoCapture(int(self._device) if self._device.isdigit() else self._device)
        if not capture.isOpened():
            raise ValueError(f'webcam {self._device}: cannot be opened; is it plugged in, and may this user read it?')
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._intrinsics.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._intrinsics.height)
        self._capture = capture

    def read(self) -> Frame | None:
        """See :class:`Recording`; a webcam has no end."""
        if self._capture is None:
            self._open()
        good, picture = self._capture.read()
        if not good:
            self.close()
            raise ValueError(f'webcam {self._device}: no picture; it is opened anew')
        return _frame(_rgb(picture), self._intrinsics, f'webcam {self._device}', 0)

    def rewind(self) -> None:
        """See :class:`Recording`."""

    def close(self) -> None:
        """See :class:`Recording`."""
        if self._capture is not None:
            self._capture.release()
        self._capture = None


class Bag:
    """The images of one topic of a rosbag2 or MCAP recording, with the camera_info recorded beside them."""

    def __init__(self, path: Path, topic: str, intrinsics: Intrinsics | None, rectified: bool = False) -> None:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore

        self._path, self._intrinsics, self._rectified = path, intrinsics, rectified
        try:
            # bags of before 2023 hold no definitions of their messages
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except (AnyReaderError, OSError) as error:
            raise ValueError(f'{path}: cannot be read as a rosbag2 or MCAP recording: {error}') from error
        try:
            self.topic = self._chosen(topic, IMAGE_TYPES, 'images')
            self._images = [c for c in self._reader.connections if c.topic == self.topic]
            self._infos = [] if intrinsics else [
                c for c in self._reader.connections if c.topic == self._camera_info_topic()]
            self._info = None if intrinsics else self._first_info()
        except ValueError:
            self._reader.close()
            raise
        self._messages = self._iterate()

    def _topics(self, types: tuple[str, ...]) -> list[str]:
        return sorted({c.topic for c in self._reader.connections if c.msgtype in types})

    def _chosen(self, topic: str, types: tuple[str, ...], what: str) -> str:
        found = self._topics(types)
        if topic and topic not in found:
            raise ValueError(f'{self._path}: no {what} on {topic}; there are some on {found}')
        if not topic and len(found) != 1:
            raise ValueError(f'{self._path}: {what} on {found or "no topic"}, name one of them')
        return topic or found[0]

    def _camera_info_topic(self) -> str:
        """Return the camera_info of the images: beside them, or the only one."""
        beside = [f'{self.topic.rsplit("/", cut)[0]}/camera_info' for cut in (1, 2)]
        known = self._topics((CAMERA_INFO,))
        return next((t for t in beside if t in known), '') or self._chosen('', (CAMERA_INFO,), 'camera_info')

    def _first_info(self) -> Any:
        """Return the first camera_info: pictures recorded before it are of that camera too."""
        for connection, _, data in self._reader.messages(self._infos):
            return self._message(connection, data)
        raise ValueError(f'{self._path}: {self._camera_info_topic()} has no message')

    def _message(self, connection: Any, data: bytes) -> Any:
        try:
            return self._reader.deserialize(data, connection.msgtype)
        except Exception as error:  # whatever a message that was cut off makes the library raise
            raise ValueError(f'{self._path}: a damaged message on {connection.topic} ({len(data)} bytes): '
                             f'{type(error).__name__}: {error}') from error

    def _iterate(self) -> Iterator[tuple[Any, int, bytes]]:
        return iter(self._reader.messages([*self._images, *self._infos]))

    def read(self) -> Frame | None:
        """See :class:`Recording`."""
        for connection, _, data in self._messages:
            message = self._message(connection, data)
            if connection.msgtype == CAMERA_INFO:
                self._info = message
                continue
            return self._picture(message)
        return None

    def _picture(self, message: Any) -> Frame:
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        what = f'{self._path} {self.topic} at {stamp / 1e9:.3f} s'
        try:
            image = recorded_picture(message)
            size = (image.shape[1], image.shape[0])
            camera = self._intrinsics or intrinsics_of(self._info, size, self._rectified)
        except ValueError as error:
            raise ValueError(f'{what}: {error}') from error
        return _frame(image, camera, what, stamp, message.header.frame_id)

    def rewind(self) -> None:
        """See :class:`Recording`."""
        self._messages = self._iterate()

    def close(self) -> None:
        """See :class:`Recording`."""
        self._reader.close()


def recorded_picture(message: Any) -> NDArray[np.uint8]:
    """Return a recorded Image or CompressedImage as uint8 RGB ``(H, W, 3)``.

    :raises ValueError: for one that cannot be decoded
    """
    from rosbags.image import message_to_cvimage
    from rosbags.image.image import ImageError, to_cvtype

    try:
        if hasattr(message, 'step'):  # the library knows no padding at the end of rows: hand it rows without
            plain = PLAIN_ENCODINGS.get(message.encoding)
            kind, channels = ('u1', plain[0]) if plain else to_cvtype(message.encoding)[2:]
            used = message.width * channels * np.dtype(kind).itemsize
            rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, :used]
            if plain:
                shape = (message.height, message.width, channels)[:2 + (channels > 1)]
                return rgb(np.ascontiguousarray(rows).reshape(shape), message.encoding)
            message = replace(message, step=used, data=np.ascontiguousarray(rows).ravel())
            return np.ascontiguousarray(message_to_cvimage(message, 'rgb8'), np.uint8)
        if is_depth(message.format):
            raise ValueError(f'format {message.format!r} is a depth image')
        picture = decoded(message.data)
        if picture is None:
            raise ValueError(f'format {message.format!r}, {len(message.data)} bytes that are no picture')
        return picture
    # the library asserts where OpenCV gives no picture
    except (ImageError, AssertionError, TypeError, ValueError, cv2.error) as error:
        raise ValueError(f'cannot be decoded as a colour picture ({type(error).__name__}: {error})') from error


def is_bag(path: Path) -> bool:
    """Whether a path is a rosbag2 folder, or called as a bag's file."""
    return (path / 'metadata.yaml').is_file() or path.suffix.lower() in BAGS


def _rgb(picture: Any) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _frame(image: NDArray[np.uint8], intrinsics: Intrinsics, what: str, stamp: int, frame_id: str = '') -> Frame:
    try:
        return Frame(image, intrinsics, stamp, frame_id)
    except ValueError as error:
        raise ValueError(f'{what}: {error}') from error
