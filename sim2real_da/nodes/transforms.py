# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms between frames at a message's own time: by tf2 where it is installed, else by a small reader of its own.

A time that no transform covers yet is an error that passes: whoever asked keeps the message and asks again. The latest
transform is never taken for it, for a robot's arm moves between two pictures.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from numpy.typing import NDArray
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from tf2_msgs.msg import TFMessage

from sim2real_da.geometry import canonical_quaternion, matrix_from_quaternion
from sim2real_da.nodes.messages import MessageError, nanoseconds

if TYPE_CHECKING:
    from sim2real_da.nodes.node import ManagedNode

KEEP_NS = 10_000_000_000  # as long as tf2 does
BACK_NS = 1_000_000_000  # a stamp that is older by more is no late message: the clock began anew
Matrix = NDArray[np.float64]


class TransformUnavailable(LookupError):
    """No transform for these frames at this time, so far; the text says what is there instead."""


class TransformBuffer(Protocol):
    """What is known of a tree of frames."""

    def add(self, transform: TransformStamped, static: bool) -> None:
        """Take one transform."""

    def lookup(self, target: str, source: str, stamp: int) -> Matrix:
        """Return source -> target ``(4, 4)`` at a time in nanoseconds.

        :raises TransformUnavailable: when it is not known, or not yet
        """


def transform_buffer() -> TransformBuffer:
    """Return tf2's buffer where tf2 is installed, else :class:`OwnBuffer`."""
    try:
        from tf2_ros import Buffer, TransformException
    except ImportError:
        return OwnBuffer()
    return Tf2Buffer(Buffer(), TransformException)


class Tf2Buffer:
    """tf2's own buffer."""

    def __init__(self, buffer: Any, error: type[Exception]) -> None:
        self._buffer, self._error = buffer, error
        self._newest: dict[str, int] = {}
        self._static: dict[str, TransformStamped] = {}

    def add(self, transform: TransformStamped, static: bool) -> None:
        """Take one transform."""
        child, stamp = transform.child_frame_id, nanoseconds(transform.header.stamp)
        if static:
            self._static[child] = transform
        elif stamp < self._newest.get(child, stamp) - BACK_NS:  # tf2 would refuse all that comes until the old time
            self._buffer.clear()
            self._newest.clear()
            for known in self._static.values():
                self._buffer.set_transform_static(known, 'sim2real_da')
        if not static:
            self._newest[child] = max(stamp, self._newest.get(child, stamp))
        (self._buffer.set_transform_static if static else self._buffer.set_transform)(transform, 'sim2real_da')

    def lookup(self, target: str, source: str, stamp: int) -> Matrix:
        """See :class:`TransformBuffer`."""
        if stamp == 0:
            raise TransformUnavailable('stamp 0, which means the latest transform to tf2: pictures need a stamp')
        try:
            return read_transform(
                self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp)).transform, 'tf')
        except self._error as error:
            raise TransformUnavailable(str(error)) from error


class _Edge:
    """Transforms child -> parent of one frame, by time; one without a time when it is static."""

    def __init__(self) -> None:
        self.parent = ''
        self.static: Matrix | None = None
        self.stamps: list[int] = []
        self.transforms: list[Matrix] = []

    def add(self, parent: str, matrix: Matrix, stamp: int, static: bool) -> None:
        if parent != self.parent or static or (self.stamps and stamp < self.stamps[-1] - BACK_NS):
            # another parent, or a clock that begins anew: what was is of another time
            self.stamps.clear()
            self.transforms.clear()
        self.parent, self.static = parent, matrix if static else None
        if static:
            return
        place = bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.transforms[place] = matrix
            return
        self.stamps.insert(place, stamp)
        self.transforms.insert(place, matrix)
        old = bisect_left(self.stamps, self.stamps[-1] - KEEP_NS)
        del self.stamps[:old], self.transforms[:old]

    def at(self, stamp: int, child: str) -> Matrix:
        if self.static is not None:
            return self.static
        first, last = self.stamps[0], self.stamps[-1]
        if not first <= stamp <= last:
            raise TransformUnavailable(
                f'{self.parent} -> {child} is known from {first / 1e9:.3f} to {last / 1e9:.3f} s, asked for '
                f'{stamp / 1e9:.3f} s; stamps of two clocks?')
        place = bisect_left(self.stamps, stamp)
        if self.stamps[place] == stamp:
            return self.transforms[place]
        before, after = self.transforms[place - 1:place + 1]
        share = (stamp - self.stamps[place - 1]) / (self.stamps[place] - self.stamps[place - 1])
        between = np.eye(4)
        turns = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
        between[:3, :3] = Slerp([0, 1], turns)(share).as_matrix()
        between[:3, 3] = (1 - share) * before[:3, 3] + share * after[:3, 3]
        return between


class OwnBuffer:
    """Keeps ten seconds of every frame and interpolates, as tf2 does."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self._lock = threading.Lock()  # transforms come from the executor, perception's worker asks

    def add(self, transform: TransformStamped, static: bool) -> None:
        """Take one transform."""
        child, parent = transform.child_frame_id.lstrip('/'), transform.header.frame_id.lstrip('/')
        if not child or not parent or child == parent:
            raise MessageError(f'tf: a transform from {child!r} to {parent!r}, expected two different frames')
        matrix = read_transform(transform.transform, f'tf {parent} -> {child}')
        with self._lock:
            self._edges.setdefault(child, _Edge()).add(parent, matrix, nanoseconds(transform.header.stamp), static)

    def lookup(self, target: str, source: str, stamp: int) -> Matrix:
        """See :class:`TransformBuffer`."""
        with self._lock:
            return self._lookup(target.lstrip('/'), source.lstrip('/'), stamp)

    def _lookup(self, target: str, source: str, stamp: int) -> Matrix:
        down, up = self._ancestors(target), self._ancestors(source)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            raise TransformUnavailable(f'{source!r} and {target!r} are in no common tree; known frames: '
                                       f'{sorted({*self._edges, *(e.parent for e in self._edges.values())})}')
        return np.asarray(np.linalg.inv(self._to(common, target, stamp)) @ self._to(common, source, stamp))

    def _ancestors(self, frame: str) -> list[str]:
        """Return the frame and all above it."""
        found = [frame]
        while found[-1] in self._edges:
            above = self._edges[found[-1]].parent
            if above in found:
                raise TransformUnavailable(f'frames {found} form a loop')
            found.append(above)
        return found

    def _to(self, ancestor: str, frame: str, stamp: int) -> Matrix:
        whole: Matrix = np.eye(4)
        while frame != ancestor:
            edge = self._edges[frame]
            whole, frame = edge.at(stamp, frame) @ whole, edge.parent
        return whole


def read_transform(message: Transform, what: str) -> Matrix:
    """Return a transform ``(4, 4)``.

    :raises MessageError: for numbers that are not finite, or an all-zero quaternion
    """
    t, q = message.translation, message.rotation
    matrix = np.eye(4)
    matrix[:3, 3] = t.x, t.y, t.z
    try:
        matrix[:3, :3] = matrix_from_quaternion(canonical_quaternion([q.x, q.y, q.z, q.w]))
    except ValueError as error:
        raise MessageError(f'{what}: {error}') from error
    if not np.all(np.isfinite(matrix)):
        raise MessageError(f'{what}: translation {matrix[:3, 3].tolist()}, expected finite numbers')
    return matrix


def listen_to_transforms(node: ManagedNode, topic: str, after: Callable[[], None]) -> TransformBuffer:
    """Subscribe ``topic`` and ``topic``_static for a node and return the buffer that they fill.

    :param after: is called after each message: something that waited may be answered now
    """
    buffer = transform_buffer()

    def take(message: TFMessage, static: bool) -> None:
        bad: MessageError | None = None
        for transform in message.transforms:
            try:
                buffer.add(transform, static)
            except MessageError as error:  # one frame of many
                bad = bad or error
        after()
        if bad is not None:
            raise bad

    node.listen_to(TFMessage, topic, lambda message: take(message, False), 100)
    node.listen_to(TFMessage, f'{topic}_static', lambda message: take(message, True), 100, latched=True)
    return buffer
