# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A camera as the nodes listen to it: pictures, raw or compressed, and the camera_info that goes with them."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sim2real_da.nodes import messages
from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.node import ManagedNode, Parameter
from sim2real_da.samples import Frame

COMPRESSED = Parameter('compressed', False, 'subscribe real/image/compressed instead of real/image')
RECTIFIED = Parameter('rectified', False, 'pictures of the camera are rectified: P of camera_info holds, not K and D')


class CameraInput:
    """Subscribes to ``<prefix>/image`` (or ``/compressed``) and ``<prefix>/camera_info`` for a node.

    The node has the parameters :data:`COMPRESSED` and :data:`RECTIFIED`.

    :param accept: gets every picture's message once a usable camera_info is there; may hand it to another thread
    """

    def __init__(self, node: ManagedNode, prefix: str, accept: Callable[[Image | CompressedImage], None],
                 group: CallbackGroup | None = None) -> None:
        compressed = node.get(COMPRESSED.name)
        self.topic = f'{prefix}/image/compressed' if compressed else f'{prefix}/image'
        self._info_topic = f'{prefix}/camera_info'
        self._rectified: bool = node.get(RECTIFIED.name)
        self._info: CameraInfo | None = None
        self._accept = accept
        node.listen_to(CompressedImage if compressed else Image, self.topic, self._take, 1, sensor=True, watched=True,
                       group=group)
        node.listen_to(CameraInfo, self._info_topic, self._remember, 1, sensor=True, watched=True)

    def _remember(self, message: CameraInfo) -> None:
        messages.read_camera_info(message, self._info_topic, rectified=self._rectified)  # complains under its own name
        self._info = message

    def _take(self, message: Image | CompressedImage) -> None:
        if self._info is None:
            raise MessageError(f'{self.topic}: no usable message on {self._info_topic} yet, so no pose can be '
                               f'computed; publish the camera_info of this image')
        self._accept(message)

    def frame(self, message: Image | CompressedImage) -> Frame:
        """Return a picture with its camera.

        :raises MessageError: when it cannot be read, or is not of the camera_info's size
        """
        assert self._info is not None
        image = messages.read_any_image(message, self.topic)
        intrinsics = messages.read_camera_info(
            self._info, self._info_topic, (image.shape[1], image.shape[0]), self._rectified)
        return Frame(image, intrinsics, messages.nanoseconds(message.header.stamp), message.header.frame_id)
