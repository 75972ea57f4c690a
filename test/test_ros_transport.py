# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Raw 640x480 images at 30 Hz between two processes, with the documented transport setting."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')

from rclpy.qos import QoSProfile, QoSReliabilityPolicy  # noqa: E402
from ros_helpers import Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Empty  # noqa: E402

from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.runner import graph_environment  # noqa: E402

FRAMES, RATE = 300, 30.0

# Sends first until the receiver has said that it hears, then FRAMES numbered images at RATE.
SENDER = textwrap.dedent(f"""
    import sys, time
    import numpy as np, rclpy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Empty
    from sim2real_da.nodes import messages
    rclpy.init()
    node = rclpy.create_node('sender')
    heard = []
    node.create_subscription(Empty, 'heard', heard.append, 1)
    publisher = node.create_publisher(Image, 'image', 10)
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    def send(number):
        publisher.publish(messages.image_message(picture, messages.header(number, 'camera')))
    while not heard:
        send(0)
        rclpy.spin_once(node, timeout_sec=0.1)
    start = time.monotonic()
    for number in range({FRAMES}):
        time.sleep(max(0.0, start + number / {RATE} - time.monotonic()))
        send(1 + number)
    send({FRAMES} + 1)
    time.sleep(3.0)
    rclpy.shutdown()
""")


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize('reliability', [QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE])
def test_raw_vga_at_30_hz_arrives(graph: Graph, reliability: QoSReliabilityPolicy) -> None:
    received: list[int] = []
    sizes: set[int] = set()

    def note(message: Image) -> None:
        received.append(messages.nanoseconds(message.header.stamp))
        sizes.add(len(message.data))

    # deep enough for a moment without a turn on the processor: the transport is under test, not the scheduler
    graph.probe.create_subscription(Image, 'image', note, QoSProfile(depth=100, reliability=reliability))
    heard = graph.probe.create_publisher(Empty, 'heard', 1)
    sender = subprocess.Popen([sys.executable, '-c', SENDER], env=graph_environment(graph.domain))
    try:
        graph.until(lambda: received, 'the first image')
        graph.until(lambda: any(received), 'the numbered images', meanwhile=lambda: heard.publish(Empty()))
        graph.until(lambda: received[-1] > FRAMES or sender.poll() is not None, 'the end')
    finally:
        sender.terminate()
        sender.wait(20)
    arrived = {number for number in received if 1 <= number <= FRAMES}
    assert len(arrived) >= 0.99 * FRAMES, f'{FRAMES - len(arrived)} of {FRAMES} images were lost'
    assert sizes == {640 * 480 * 3}
