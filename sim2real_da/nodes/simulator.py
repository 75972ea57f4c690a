# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Simulator node: the embedded MuJoCo simulator's labelled pictures on the ``sim/`` topics, all with one stamp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

from sim2real_da.nodes import messages
from sim2real_da.nodes.camera_input import RECTIFIED
from sim2real_da.nodes.node import ManagedNode, Parameter, run
from sim2real_da.simulation.objects import load_objects
from sim2real_da.simulation.randomisation import Randomisation
from sim2real_da.simulation.render import default_intrinsics
from sim2real_da.simulation.simulator import Simulator

SAME_CAMERA = 1e-3  # relative; a camera_info that differs less is the same camera


class SimulatorNode(ManagedNode):
    """See the module and the table of topics in the README."""

    PARAMETERS = (
        Parameter('objects', 'tools', 'tools, or a folder with BOP models', path=True),
        Parameter('rate', 5.0, 'pictures in a second', 0.1, 60.0),
        Parameter('width', 320, 'pixels', 32, 4096),
        Parameter('height', 240, 'pixels', 32, 4096),
        Parameter('fov_deg', 55.0,
                  'horizontal angle of view until real/camera_info speaks; not for BOP folders with camera.json',
                  10.0, 150.0),
        Parameter('follow_camera_info', True, 'take the intrinsics from real/camera_info, scaled to this size'),
        RECTIFIED,
        Parameter('seed', 0, 'the same seed draws the same pictures', 0, 2**31 - 1),
        Parameter('frame_id', 'sim_camera_optical_frame', 'frame of image and labels (x right, y down, z forward)'),
        Parameter('randomise_light', True, 'lights, shadows, exposure'),
        Parameter('randomise_colour', True, 'colours of the objects'),
        Parameter('randomise_texture', True, 'pictures on table, floor and walls'),
        Parameter('randomise_camera', True, 'distance, direction and roll of the camera'),
        Parameter('randomise_distractors', True, 'things without a label'),
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('simulator', **options)
        self._simulator: Simulator | None = None

    def configure(self) -> None:
        """Build the world and make the topics; the renderer belongs to the thread that spins."""
        objects = load_objects(self.get('objects'))
        self._objects = {o.name: o.model for o in objects}
        self._intrinsics = default_intrinsics(
            self.get('objects'), self.get('width'), self.get('height'), self.get('fov_deg'))
        self._simulator = Simulator(objects, self._intrinsics, self.get('seed'), Randomisation(
            **{group: self.get(f'randomise_{group}')
               for group in ('light', 'colour', 'texture', 'camera', 'distractors')}))
        self._frames = 0
        self._image = self.publish_on(Image, 'sim/image')
        self._camera_info = self.publish_on(CameraInfo, 'sim/camera_info')
        self._labels = self.publish_on(Detection3DArray, 'sim/labels')
        self._labels_2d = self.publish_on(Detection2DArray, 'sim/labels_2d')
        self._segmentation = self.publish_on(Image, 'sim/segmentation')
        self._label_info = self.publish_on(LabelInfo, 'sim/label_info', latched=True)
        if self.get('follow_camera_info'):
            self.listen_to(CameraInfo, 'real/camera_info', self._follow, 1, sensor=True)
        self.every(1 / self.get('rate'), self._publish)

    def activate(self) -> None:
        """Announce the label map of sim/segmentation."""
        self._label_info.publish(
            messages.label_info_message(list(self._objects), 0.0, messages.header(self.now(), '')))

    def cleanup(self) -> None:
        """Free the renderer."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say what is drawn."""
        i = self._intrinsics
        text = f'{self._frames} pictures of {i.width}x{i.height}, {len(self._objects)} objects'
        return DiagnosticStatus.OK, text, {'frames': self._frames, 'fx': i.fx, 'fy': i.fy, 'cx': i.cx, 'cy': i.cy}

    def _follow(self, message: CameraInfo) -> None:
        assert self._simulator is not None
        real = messages.read_camera_info(message, 'real/camera_info', rectified=self.get('rectified'))
        wanted = real.scaled(self.get('width'), self.get('height'))
        now = self._intrinsics
        change = max(abs(a - b) for a, b in zip((wanted.fx, wanted.fy, wanted.cx, wanted.cy),
                                                (now.fx, now.fy, now.cx, now.cy), strict=True))
        if change > SAME_CAMERA * wanted.width:
            self._simulator.set_intrinsics(wanted)
            self._intrinsics = wanted
            self.get_logger().info(f'draws for the camera of real/camera_info from now on: fx {wanted.fx:.1f}, '
                                   f'fy {wanted.fy:.1f}, centre ({wanted.cx:.1f}, {wanted.cy:.1f})')

    def _publish(self) -> None:
        if not self.active or self._simulator is None:
            return
        sample = self._simulator.sample()
        head = messages.header(self.now(), self.get('frame_id'))
        self._image.publish(messages.image_message(sample.frame.image, head))
        self._camera_info.publish(messages.camera_info_message(sample.frame.intrinsics, head))
        self._labels.publish(messages.labels_message(sample.labels, self._objects, head))
        self._labels_2d.publish(messages.labels_2d_message(sample.labels, head))
        self._segmentation.publish(messages.segmentation_message(sample, list(self._objects), head))
        self._frames += 1


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``simulator``."""
    return run(SimulatorNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
