# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms at a message's time: chains by hand, interpolation, and never the latest for the right one."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('tf2_msgs', reason='needs tf2_msgs (make setup generates it)')

from geometry_msgs.msg import TransformStamped  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.messages import MessageError  # noqa: E402
from sim2real_da.nodes.transforms import (  # noqa: E402
    OwnBuffer,
    Tf2Buffer,
    TransformUnavailable,
    listen_to_transforms,
    transform_buffer,
)

SECOND = 1_000_000_000


def edge(parent: str, child: str, place: tuple[float, float, float], yaw_deg: float = 0.0,
         stamp: int = 0) -> TransformStamped:
    message = TransformStamped(header=messages.header(stamp, parent), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = place
    q.x, q.y, q.z, q.w = (float(v) for v in Rotation.from_euler('z', yaw_deg, degrees=True).as_quat())
    return message


def test_a_chain_by_hand() -> None:
    buffer = OwnBuffer()
    buffer.add(edge('world', 'base', (1, 0, 0), 90), static=True)
    buffer.add(edge('/base', '/camera', (0, 2, 0)), static=True)  # leading slashes are of ROS 1
    buffer.add(edge('world', 'mug', (0, 0, 5)), static=True)
    # base's y axis is the world's -x: the camera is at (1 - 2, 0, 0)
    np.testing.assert_allclose(buffer.lookup('world', 'camera', 7)[:3, 3], [-1, 0, 0], atol=1e-12)
    # seen from the camera the mug is at world (1, 0, 5), turned back by 90 degrees
    np.testing.assert_allclose(buffer.lookup('camera', 'mug', 7)[:3, 3], [0, -1, 5], atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('mug', 'mug', 7), np.eye(4))


def test_between_two_times_a_pose_lies_between() -> None:
    buffer, tenth = OwnBuffer(), SECOND // 10
    for stamp, x, yaw in ((3, 3.0, 80), (1, 1.0, 0), (2, 2.0, 20)):  # the order of arrival is not that of time
        buffer.add(edge('base', 'camera', (x, 0, 0), yaw, stamp * tenth), static=False)
    found = buffer.lookup('base', 'camera', 2 * tenth + tenth // 2)
    np.testing.assert_allclose(found[:3, 3], [2.5, 0, 0])
    assert Rotation.from_matrix(found[:3, :3]).as_euler('xyz', degrees=True)[2] == pytest.approx(50)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 2 * tenth)[:3, 3], [2, 0, 0])


@pytest.mark.parametrize('stamp', [0, 4])
def test_the_latest_is_never_taken_for_another_time(stamp: int) -> None:
    buffer = OwnBuffer()
    for at in (1, 3):
        buffer.add(edge('base', 'camera', (at, 0, 0), stamp=at * SECOND), static=False)
    with pytest.raises(TransformUnavailable, match='base -> camera is known from 1.000 to 3.000 s'):
        buffer.lookup('base', 'camera', stamp * SECOND)


def test_a_clock_that_begins_anew_and_old_times_are_forgotten() -> None:
    buffer = OwnBuffer()
    for at in (100, 105, 111):
        buffer.add(edge('base', 'camera', (at, 0, 0), stamp=at * SECOND), static=False)
    with pytest.raises(TransformUnavailable, match='from 105'):
        buffer.lookup('base', 'camera', 101 * SECOND)
    buffer.add(edge('base', 'camera', (2, 0, 0), stamp=110 * SECOND), static=False)  # late, not anew
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 105 * SECOND)[:3, 3], [105, 0, 0])
    buffer.add(edge('base', 'camera', (1, 0, 0), stamp=SECOND), static=False)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', SECOND)[:3, 3], [1, 0, 0])
    with pytest.raises(TransformUnavailable):
        buffer.lookup('base', 'camera', 111 * SECOND)


def test_frames_of_two_trees_are_named() -> None:
    buffer = OwnBuffer()
    buffer.add(edge('base', 'camera', (0, 0, 0)), static=True)
    buffer.add(edge('map', 'mug', (0, 0, 0)), static=True)
    with pytest.raises(TransformUnavailable, match=r"'mug' and 'camera' are in no common tree.*'map'"):
        buffer.lookup('camera', 'mug', 0)
    buffer.add(edge('camera', 'base', (0, 0, 0)), static=True)
    with pytest.raises(TransformUnavailable, match='loop'):
        buffer.lookup('camera', 'base', 0)


@pytest.mark.parametrize('change', [{'child_frame_id': ''}, {'child_frame_id': 'base'}])
def test_frames_that_cannot_be(change: dict[str, str]) -> None:
    message = edge('base', 'camera', (0, 0, 0))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match='two different frames'):
        OwnBuffer().add(message, static=True)


def test_numbers_that_cannot_be() -> None:
    message = edge('base', 'camera', (0, 0, 0))
    message.transform.rotation.w = 0.0
    with pytest.raises(MessageError, match='tf base -> camera: quaternion: all zero'):
        OwnBuffer().add(message, static=True)
    with pytest.raises(MessageError, match='expected finite numbers'):
        OwnBuffer().add(edge('base', 'camera', (float('nan'), 0, 0)), static=True)


class Tf2Error(Exception):
    """Stands for tf2_ros.TransformException."""


class Tf2Like:
    """The four calls of tf2_ros.Buffer that are used."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bool]] = []

    def clear(self) -> None:
        self.taken.append(('', False))

    def set_transform(self, transform: Any, authority: str) -> None:
        self.taken.append((transform.child_frame_id, False))

    def set_transform_static(self, transform: Any, authority: str) -> None:
        self.taken.append((transform.child_frame_id, True))

    def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
        if time.nanoseconds > 5:
            raise Tf2Error('extrapolation into the future')
        return edge(target, source, (1, 2, 3), 90)


def test_tf2_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_ros', SimpleNamespace(Buffer=Tf2Like, TransformException=Tf2Error))
    buffer = transform_buffer()
    assert isinstance(buffer, Tf2Buffer)
    buffer.add(edge('base', 'camera', (0, 0, 0)), static=False)
    buffer.add(edge('base', 'tool', (0, 0, 0)), static=True)
    assert buffer._buffer.taken == [('camera', False), ('tool', True)]
    found = buffer.lookup('base', 'camera', 5)
    np.testing.assert_allclose(found, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-12)
    with pytest.raises(TransformUnavailable, match='into the future'):
        buffer.lookup('base', 'camera', 6)
    with pytest.raises(TransformUnavailable, match='stamp 0'):
        buffer.lookup('base', 'camera', 0)
    buffer.add(edge('base', 'camera', (0, 0, 0), stamp=9 * SECOND), static=False)
    buffer.add(edge('base', 'camera', (0, 0, 0), stamp=3 * SECOND), static=False)  # the simulator was started anew
    assert buffer._buffer.taken[-4:] == [('camera', False), ('', False), ('tool', True), ('camera', False)]


def test_one_bad_transform_of_a_message_costs_no_other() -> None:
    heard: dict[str, Any] = {}
    node = SimpleNamespace(listen_to=lambda kind, topic, callback, *_, **__: heard.setdefault(topic, callback))
    buffer = listen_to_transforms(node, 'tf', lambda: None)
    with pytest.raises(MessageError, match='two different frames'):
        heard['tf_static'](TFMessage(transforms=[edge('base', '', (0, 0, 0)), edge('base', 'camera', (1, 0, 0))]))
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 5)[:3, 3], [1, 0, 0])


def test_transforms_may_come_while_others_are_asked_for() -> None:
    buffer, stop, failures = OwnBuffer(), threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                buffer.lookup('base', 'camera', 50 * SECOND)
            except TransformUnavailable:
                continue
            except Exception as error:
                failures.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(3000):
            buffer.add(edge('base', 'camera', (0, 0, 0), stamp=(number % 100) * SECOND), static=False)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        asker.join()
    assert not failures


def test_without_tf2_the_small_reader_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    assert isinstance(transform_buffer(), OwnBuffer)
