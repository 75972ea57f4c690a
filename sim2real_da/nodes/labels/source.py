# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What all sources of labelled simulation share: topics matched by their stamps, strangers counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import Image

from sim2real_da.nodes import messages
from sim2real_da.nodes.matching import StampMatcher
from sim2real_da.nodes.messages import MessageError, ReadLabels
from sim2real_da.nodes.node import ManagedNode
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectModel

QUEUE = 20
STRANGERS = 20  # names of unknown classes that are told apart: a simulator may give every instance its own
MORE = 'others'


class LabelSource:
    """Subscribes a simulator's topics for a node and hands on labelled frames.

    :param objects: the classes that the model knows; others are left out and counted, the first :data:`STRANGERS` by
        name in ``unknown``
    :param take: gets every labelled frame
    """

    REQUIRED: Mapping[str, Any]  # topic -> type of message; matched by stamp
    OPTIONAL: Mapping[str, Any]  # these count from their first publisher on

    def __init__(self, node: ManagedNode, objects: Mapping[str, ObjectModel],
                 take: Callable[[LabelledFrame], None]) -> None:
        self.node, self.objects = node, objects
        self.unknown: Counter[str] = Counter()
        self._hand_on = take
        self._settled = False
        self._matcher = StampMatcher(self.REQUIRED, QUEUE)
        for topic, kind in self.REQUIRED.items():
            node.listen_to(kind, topic, self._collector(topic), QUEUE, watched=True)
        for topic, kind in self.OPTIONAL.items():
            node.listen_to(kind, topic, self._collector(topic), QUEUE)

    def take(self, found: Mapping[str, Any]) -> None:
        """Take one set of messages with the same stamp, by topic.

        :raises MessageError: when it cannot be used
        """
        raise NotImplementedError

    def tick(self) -> None:
        """Pictures count from the first call on, a second after the start: until then publishers are being found."""
        self._settled = True

    def _look(self) -> None:
        """Ask for the optional topics that have a publisher, and go on asking: a picture without them is half a one."""
        self._matcher.required |= {
            topic for topic in self.OPTIONAL.keys() - self._matcher.required
            if self.node.count_publishers(self.node.resolve_topic_name(topic))}

    def complaint(self) -> str:
        """Say what keeps messages from being used, empty when nothing does."""
        return self._matcher.complaint()

    @property
    def matched(self) -> int:
        """How many sets of messages were complete."""
        return self._matcher.matched

    @property
    def unmatched(self) -> int:
        """How many messages found no partners."""
        return sum(self._matcher.dropped.values())

    def _collector(self, topic: str) -> Callable[[Any], None]:
        def collect(message: Any) -> None:
            if not self._settled:
                return
            self._look()
            found = self._matcher.add(topic, messages.nanoseconds(message.header.stamp), message)
            if found is not None:
                self.take(found)
        return collect

    def _labelled(self, image: Image, intrinsics: Intrinsics, read: ReadLabels, topic: str) -> None:
        """Hand a frame on, and complain about classes that the model does not know."""
        frame = Frame(messages.read_image(image, 'sim/image'), intrinsics, messages.nanoseconds(image.header.stamp),
                      image.header.frame_id)
        if read.labels or not read.unknown:  # a picture of strangers alone is no picture of an empty table
            self._hand_on(LabelledFrame(frame, read.labels))
        if read.unknown:
            for name, count in read.unknown.items():
                self.unknown[name if name in self.unknown or len(self.unknown) < STRANGERS else MORE] += count
            names, rest = sorted(read.unknown)[:STRANGERS], len(read.unknown) - STRANGERS
            more = f' and {rest} more' if rest > 0 else ''
            raise MessageError(f'{topic}: classes {names}{more} are not known to the model and left out, '
                               f'expected {list(self.objects)}')
