# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Recorder node: a session as an MCAP file, without a ROS installation; ``sim2real_da report`` makes a page of it.

Messages are written as they came, undecoded. Pictures are most of the bytes, so only one every ``image_period_s`` is
kept; what perception says of each is kept whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionInfo

from sim2real_da.nodes.camera_input import COMPRESSED
from sim2real_da.nodes.node import ManagedNode, Parameter, run

# topic -> (type, latched)
TOPICS: dict[str, tuple[Any, bool]] = {
    'perception/detections': (Detection2DArray, False), 'perception/detections_3d': (Detection3DArray, False),
    'perception/poses': (PoseArray, False), 'perception/vision_info': (VisionInfo, True),
    'perception/label_info': (LabelInfo, True), 'adaptation/status': (DiagnosticStatus, True),
    '/diagnostics': (DiagnosticArray, False), '/tf': (TFMessage, False), '/tf_static': (TFMessage, True),
    'real/camera_info': (CameraInfo, False)}
_NEVER = QosTime(sec=2147483647, nsec=4294967295)


class Recorder(ManagedNode):
    """See the module and the table of topics in docs/interfaces.md."""

    PARAMETERS = (
        Parameter('out', '~/.ros/sim2real_da/recordings', 'folder in which each start makes a recording of its own',
                  path=True),
        Parameter('image_period_s', 1.0, 'least time between two recorded pictures; 0: all of them', 0.0, 3600.0,
                  live=True),
        Parameter('max_mb', 2048, 'a recording that has grown to this size ends', 1, 1_000_000, live=True),
        COMPRESSED,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('recorder', **options)
        self._writer: Writer | None = None

    def configure(self) -> None:
        """Make the file and listen."""
        folder = Path(self.get('out')).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        stamp, robot = time.strftime('%Y%m%d_%H%M%S'), self.get_namespace().strip('/').replace('/', '_')
        self._path = next(path for path in (folder / '_'.join(filter(None, ['session', robot, stamp, end]))
                                            for end in ('', *map(str, range(2, 100)))) if not path.exists())
        self._bytes = self._messages = 0
        self._ended = ''
        self._shown = -1e9
        self._writer = Writer(self._path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        types = known_types()
        image = 'real/image/compressed' if self.get('compressed') else 'real/image'
        for topic, (kind, latched) in {**TOPICS, image: (CompressedImage if self.get('compressed') else Image,
                                                         False)}.items():
            package, name = kind.__module__.split('.')[0], kind.__name__
            connection = self._writer.add_connection(
                # under the package's own name, whatever it is remapped to: a reader knows what it is
                self.resolve_topic_name(topic, only_expand=True), f'{package}/msg/{name}', typestore=types,
                offered_qos_profiles=[_offered(latched)])
            self.listen_to(kind, topic, self._keeper(connection, topic == image), 100, latched=latched,
                           sensor=topic.startswith('real/'), raw=True)
        self.get_logger().info(f'records to {self._path}')

    def cleanup(self) -> None:
        """Finish the file: only then it can be read."""
        self._end('')

    def _end(self, why: str) -> None:
        """Finish the file, for a reason that is said."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self._ended = why
        try:
            writer.close()
        except OSError as error:
            self._ended = f'{why or "the recording"} cannot be ended: {error}'
        if self._ended:
            self.get_logger().warning(f'{self._path} has ended: {self._ended}')
        self.get_logger().info(f'{self._path}: {self._messages} messages, {self._bytes / 2**20:.1f} MB')

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say how much is recorded."""
        values = {'messages': self._messages, 'megabytes': self._bytes / 2**20, 'path': str(self._path)}
        if self._ended:
            return DiagnosticStatus.WARN, f'{self._path} has ended: {self._ended}', values
        return DiagnosticStatus.OK, f'records to {self._path.name}', values

    def _keeper(self, connection: Any, picture: bool) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            now = time.monotonic()
            if self._writer is None or (picture and now - self._shown < self.get('image_period_s')):
                return
            if self._bytes + len(data) > self.get('max_mb') * 2**20:
                self._end('max_mb is reached')
                return
            if picture:
                self._shown = now
            try:
                self._writer.write(connection, self.now(), data)
            except OSError as error:  # a full disk ends the recording, not the node
                self._end(str(error))
                return
            self._bytes += len(data)
            self._messages += 1
        return keep


def _offered(latched: bool) -> Qos:
    return Qos(QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE,
               QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE, _NEVER, _NEVER,
               QosLiveliness.AUTOMATIC, _NEVER, False)


def known_types() -> Any:
    """Return the definitions of all recorded messages; those of vision_msgs are read from where it is installed.

    :raises FileNotFoundError: when that is nowhere on AMENT_PREFIX_PATH
    """
    types = get_typestore(Stores.ROS2_JAZZY)
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        files = sorted((Path(prefix) / 'share' / 'vision_msgs' / 'msg').glob('*.msg'))
        if files:
            found: dict[str, Any] = {}
            for file in files:
                found |= get_types_from_msg(file.read_text(encoding='utf-8'), f'vision_msgs/msg/{file.stem}')
            types.register(found)
            return types
    raise FileNotFoundError('share/vision_msgs/msg/*.msg is nowhere on AMENT_PREFIX_PATH; source the ROS installation '
                            'or start by tools/with_env.sh')


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``recorder``."""
    return run(Recorder, args)


if __name__ == '__main__':
    raise SystemExit(main())
