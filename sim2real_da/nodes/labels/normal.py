# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The package's normal form, as the embedded simulator publishes it (docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

from sim2real_da.nodes import messages
from sim2real_da.nodes.labels.source import LabelSource
from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.node import ManagedNode
from sim2real_da.samples import LabelledFrame, ObjectModel


class NormalLabels(LabelSource):
    """Class names, poses of the CAD frames in the camera's optical frame, one stamp for all."""

    REQUIRED = {'sim/image': Image, 'sim/camera_info': CameraInfo, 'sim/labels': Detection3DArray}
    OPTIONAL = {'sim/labels_2d': Detection2DArray, 'sim/segmentation': Image}

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel],
                 take: Callable[[LabelledFrame], None]) -> None:
        super().__init__(node, objects, take)
        self._label_map: list[str] | None = None
        node.listen_to(LabelInfo, 'sim/label_info', self._take_label_map, latched=True)

    def _take_label_map(self, message: LabelInfo) -> None:
        self._label_map = messages.read_label_info(message, 'sim/label_info')

    def take(self, found: Mapping[str, Any]) -> None:
        """See :class:`LabelSource`."""
        image, labels = found['sim/image'], found['sim/labels']
        intrinsics = messages.read_camera_info(found['sim/camera_info'], 'sim/camera_info', (image.width, image.height))
        if labels.header.frame_id != image.header.frame_id:
            raise MessageError(
                f'sim/labels: frame_id {labels.header.frame_id!r}, expected the image\'s '
                f'{image.header.frame_id!r}: poses have to be in the camera\'s optical frame')
        segmentation = None
        if 'sim/segmentation' in found:
            segmentation = messages.read_segmentation(found['sim/segmentation'], 'sim/segmentation')
        read = messages.read_labels(labels, 'sim/labels', intrinsics, self.objects, boxes=found.get('sim/labels_2d'),
                                    segmentation=segmentation, label_map=self._label_map)
        self._labelled(image, intrinsics, read, 'sim/labels')
