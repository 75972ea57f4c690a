# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Camera node: a webcam, a recording, a BOP data set's photographs or the surrogate world, as a camera would show it.

Data sets and the surrogate world have two streams of different frames: ``adaptation`` without labels, and ``scoring``,
whose labels go to the evaluator alone. The surrogate's frames are drawn once, kept on disk in BOP layout, and replayed
like any data set. Recordings have no labels, and are shown in their order.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray

from sim2real_da.data.bop import BopDataset, lmo_split, write_scene
from sim2real_da.data.camera_info import read_calibration
from sim2real_da.data.recordings import Recording, is_recording, open_recording
from sim2real_da.nodes import messages
from sim2real_da.nodes.camera_input import RECTIFIED
from sim2real_da.nodes.node import ManagedNode, Parameter, run
from sim2real_da.resources import config_folder
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectModel
from sim2real_da.simulation.objects import cache_folder, tools
from sim2real_da.simulation.render import default_intrinsics
from sim2real_da.simulation.surrogate import SurrogateWorld

STREAMS = ('adaptation', 'scoring')
SCORING_SEED = 1_000_003  # added to the seed, so that the two streams never share a scene
BUSY_LIMIT = 3  # unreadable frames in a row before the camera stops trying in one tick


def surrogate_frames(stream: str, intrinsics: Intrinsics, seed: int, count: int) -> Path:
    """Draw a stream of the surrogate world, or find it drawn before; return its folder in BOP layout."""
    appearance = (config_folder() / 'surrogate.yaml').read_bytes()
    key = hashlib.sha256(appearance + repr((stream, intrinsics, seed, count)).encode()).hexdigest()[:16]
    folder = cache_folder() / f'surrogate-{stream}-{key}'
    if (folder / 'complete').is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    ids = {item.name: number for number, item in enumerate(tools(), start=1)}
    world = SurrogateWorld(intrinsics, seed + (SCORING_SEED if stream == 'scoring' else 0))
    try:
        # the camera's own JPEG is part of the world; the file must not add another
        frames = (world.sample() for _ in range(count))
        write_scene(folder / 'test' / '000001', frames, ids, lossless=True, masks='none')
    finally:
        world.close()
    described = {'objects': 'tools', 'names': {str(number): name for name, number in ids.items()}}
    (folder / 'dataset.json').write_text(json.dumps(described), encoding='utf-8')
    (folder / 'complete').touch()
    return folder


def split(ids: list[int]) -> tuple[list[int], list[int]]:
    """Split a data set's frames into adaptation and scoring: LM-O's own split, else the first 70 % and the rest."""
    adaptation, scoring = lmo_split(ids)
    if adaptation and scoring:
        return adaptation, scoring
    border = round(0.7 * len(ids))
    return ids[:border], ids[border:]


class Camera(ManagedNode):
    """See the module and the table of topics in the README."""

    PARAMETERS = (
        Parameter('source', 'surrogate', 'surrogate, a BOP data set\'s folder, a folder of images, a video, a bag '
                  '(rosbag2 folder, .mcap, .db3), or webcam:0', path=True),
        Parameter('camera_info', '', 'calibration (YAML of camera_calibration) of images, video or webcam', path=True),
        Parameter('image_topic', '', 'whose images of a bag; may be empty where there is one topic of them'),
        RECTIFIED,
        Parameter('stream', 'adaptation', 'which frames are shown; ground_truth goes with scoring only',
                  choices=STREAMS, live=True),
        Parameter('rate', 5.0, 'images in a second', 0.1, 120.0),
        Parameter('loop', True, 'begin again at the end'),
        Parameter('compressed', False, 'publish JPEG on real/image/compressed instead of real/image'),
        Parameter('seed', 0, 'of the surrogate world', 0, 2**31 - 1),
        Parameter('frame_id', 'camera_optical_frame', 'frame of the images (x right, y down, z forward)'),
        Parameter('count', 40, 'frames of the scoring stream', 1, 100_000),
        Parameter('pool', 96, 'frames of the surrogate\'s adaptation stream', 1, 100_000),
        Parameter('width', 640, 'pixels of the surrogate\'s images', 32, 4096),
        Parameter('height', 480, 'pixels of the surrogate\'s images', 32, 4096),
        Parameter('fov_deg', 55.0, 'horizontal angle of view of the surrogate\'s camera', 10.0, 150.0),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('camera', **options)

    # --- life ----------------------------------------

    def configure(self) -> None:
        """Find the frames of both streams and make the topics."""
        self._streams: dict[str, tuple[BopDataset, list[int]]] = {}
        self._objects: dict[str, ObjectModel] = {}
        self._shown = self._unreadable = 0
        self._ended = False
        self._warned = False
        self._playing = ''
        self._order: list[int] = []
        self._rng = np.random.default_rng(0)
        self._position = 0
        self._recording: Recording | None = None
        source = str(self.get('source'))
        if source == 'surrogate':
            self._open_surrogate()
        elif is_recording(source):
            self._open_recording(source)
        else:
            self._open_dataset(Path(source).expanduser())
        for stream, (_, ids) in self._streams.items():
            self.get_logger().info(f'{stream}: {len(ids)} frames')

        kind, topic = (CompressedImage, 'real/image/compressed') if self.get('compressed') else (Image, 'real/image')
        self._image = self.publish_on(kind, topic)
        self._camera_info = self.publish_on(CameraInfo, 'real/camera_info')
        self._truth = self.publish_on(Detection3DArray, 'ground_truth', 50)
        self._truth_2d = self.publish_on(Detection2DArray, 'ground_truth_2d', 50)
        self.every(1 / self.get('rate'), self._publish)

    def _open_surrogate(self) -> None:
        intrinsics = default_intrinsics('tools', self.get('width'), self.get('height'), self.get('fov_deg'))
        for stream, count in (('adaptation', self.get('pool')), ('scoring', self.get('count'))):
            self.get_logger().info(f'{stream}: {count} frames of the surrogate world, drawn once and kept')
            folder = surrogate_frames(stream, intrinsics, self.get('seed'), count)
            dataset = BopDataset(folder)
            self._streams[stream] = (dataset, dataset.ids())
        self._objects = dataset.objects()

    def _open_dataset(self, folder: Path) -> None:
        dataset = BopDataset(folder)
        self._objects = dataset.objects()
        adaptation, scoring = split(dataset.ids())
        self._streams = {'adaptation': (dataset, adaptation), 'scoring': (dataset, scoring[:self.get('count')])}
        for stream, (_, ids) in self._streams.items():
            if not ids:
                raise ValueError(f'{folder}: no frame is left for the {stream} stream')

    def _open_recording(self, source: str) -> None:
        if self.get('stream') != 'adaptation':
            raise ValueError(f'stream: {self.get("stream")}, but {source} has no ground truth to score with')
        file = self.get('camera_info')
        intrinsics = read_calibration(Path(file).expanduser(), self.get('rectified')) if file else None
        self._recording = open_recording(source, intrinsics, self.get('image_topic'), self.get('rectified'))

    def check_parameter(self, name: str, value: Any) -> None:
        """Refuse the scoring stream of a recording."""
        if name == 'stream' and value == 'scoring' and getattr(self, '_recording', None) is not None:
            raise ValueError(f'{self.get("source")} has no ground truth to score with')

    def cleanup(self) -> None:
        """Let go of a recording."""
        if getattr(self, '_recording', None) is not None:
            self._recording.close()  # type: ignore[union-attr]
        self._recording = None

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say which stream plays and what could not be read."""
        values = {'stream': self.get('stream'), 'shown': self._shown, 'unreadable': self._unreadable}
        if self._unreadable:
            return DiagnosticStatus.WARN, f'{self._unreadable} frames could not be read', values
        return DiagnosticStatus.OK, 'at the end' if self._ended else f'plays {self.get("stream")}', values

    # --- frames ----------------------------------------

    def _next(self) -> tuple[int, LabelledFrame] | None:
        """Return the next readable frame and its id, None at the end."""
        if self._recording is not None:
            frame = self._recorded(self._recording)
            return None if frame is None else (self._shown, LabelledFrame(frame, ()))
        stream = self.get('stream')
        if stream != self._playing:
            self._playing, self._position, self._ended = stream, 0, False
            self._order = list(range(len(self._streams[stream][1])))
        dataset, ids = self._streams[stream]
        for _ in range(BUSY_LIMIT):
            if self._position >= len(ids):
                if not self.get('loop'):
                    if not self._ended:
                        self.get_logger().info(f'{stream}: all {len(ids)} frames were shown')
                    self._ended = True
                    return None
                # in another order every round: a slow perception node that takes every n-th image sees all in the end
                self._position = 0
                self._order = [int(i) for i in self._rng.permutation(len(ids))]
            number = ids[self._order[self._position]]
            self._position += 1
            try:
                return number, dataset.frame(number)
            except (OSError, ValueError) as error:
                self._unreadable += 1
                self.get_logger().error(f'frame left out: {error}')
        return None

    def _recorded(self, recording: Recording) -> Frame | None:
        """Return the next readable frame of a recording, None at the end."""
        self._playing = 'adaptation'
        for _ in range(BUSY_LIMIT):
            try:
                frame = recording.read()
            except ValueError as error:
                self._unreadable += 1
                self.get_logger().error(f'frame left out: {error}', throttle_duration_sec=5.0)
                continue
            if frame is not None or self._ended:
                return frame
            if not self.get('loop'):
                self.get_logger().info(f'{self.get("source")}: at the end')
                self._ended = True
                return None
            recording.rewind()
        return None

    def _publish(self) -> None:
        if not self.active:
            return
        found = self._next()
        if found is None:
            return
        number, shown = found
        frame = shown.frame
        head = messages.header(self.now(), self.get('frame_id'))
        make = messages.compressed_message if self.get('compressed') else messages.image_message
        self._camera_info.publish(messages.camera_info_message(frame.intrinsics, head))
        if self._playing == 'scoring':
            self._publish_truth(number, shown, head)
        self._image.publish(make(frame.image, head))
        self._shown += 1

    def _publish_truth(self, number: int, shown: LabelledFrame, head: Any) -> None:
        if not self._streams['scoring'][0].has_ground_truth:
            if not self._warned:
                self.get_logger().warning('the data set has no ground truth: nothing can be scored')
            self._warned = True
            return
        truth = messages.labels_message(shown.labels, self._objects, head)
        boxes = messages.labels_2d_message(shown.labels, head)
        for detection in (*truth.detections, *boxes.detections):
            detection.id = f'{number}/{detection.id}'  # the evaluator counts a frame once, however often it is shown
        self._truth.publish(truth)
        self._truth_2d.publish(boxes)


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``camera``."""
    return run(Camera, args)


if __name__ == '__main__':
    raise SystemExit(main())
