# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What perception makes of weights: any text in them, before activation, while held, without memory."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from helpers import box_model  # noqa: E402
from hypothesis import HealthCheck, example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_helpers import LATCHED  # noqa: E402
from std_msgs.msg import UInt8MultiArray  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.networks.weights_file import pack, write_atomically  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.perception import Perception  # noqa: E402

SMALL = Bundle.create({'box': box_model('box')}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})


def weights(version: int) -> UInt8MultiArray:
    SMALL.version = version
    return messages.weights_message(SMALL.to_bytes())


class Graph:
    """A perception node that nobody has activated, and what it shares a process with."""

    def __init__(self, path: Path) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=96)
        self.node = Perception(context=self.context, parameter_overrides=[Parameter('weights', value=str(path))])
        self.probe = rclpy.create_node('probe', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        if self.node.active:
            self.node.trigger_deactivate()
        self.node.trigger_cleanup()
        self._executor.shutdown()
        self.node.destroy_node()
        self.probe.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.values()
            self._executor.spin_once(timeout_sec=0.02)

    def values(self) -> dict[str, str]:
        return {v.key: v.value for v in self.node.status().values}

    def send(self, message: UInt8MultiArray) -> None:
        """Hand a message over as the executor does."""
        next(s for s in self.node.subscriptions if s.topic_name == '/weights').callback(message)

    def order(self, name: str) -> Trigger.Response:
        service = next(s for s in self.node.services if s.srv_name.endswith(f'/{name}'))
        return service.callback(Trigger.Request(), Trigger.Response())


@pytest.fixture(scope='module')
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    SMALL.version = 0
    return SMALL.save(tmp_path_factory.mktemp('weights') / 'w.safetensors')


@pytest.fixture
def graph(path: Path) -> Iterator[Graph]:
    made = Graph(path)
    yield made
    made.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters()))
@example('\ud800')
@example('a\0b')
def test_no_text_of_a_message_ends_the_node(graph: Graph, text: str) -> None:
    if not graph.node.active:
        graph.node.trigger_activate()
    for what in (lambda: graph.send(messages.weights_message(pack({}, {'kind': text}))),
                 lambda: graph.node.refuse('weights', ValueError(text))):
        graph.node._topics['weights'].last_log = -1e9
        what()
        status = graph.node.status()
        assert deserialize_message(serialize_message(status), DiagnosticStatus) == status, 'cut or changed on its way'
        graph.node._publish_diagnostics()
    assert graph.values()['last_rejection'].startswith('weights: ')
    logging.getLogger('sim2real_da.online').warning('%s', text)


def test_diagnostics_outlive_a_state_that_cannot_be_told(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall() -> None:
        raise RuntimeError('no state \ud800')

    monkeypatch.setattr(graph.node, 'diagnose', fall)
    graph.node._publish_diagnostics()


def test_weights_that_came_while_inactive_are_taken_on_activation(graph: Graph) -> None:
    publisher = graph.probe.create_publisher(UInt8MultiArray, 'weights', LATCHED)
    publisher.publish(weights(5))
    graph.until(lambda: graph.values()['received /weights'] == '1')
    assert graph.values()['weights_version'] == '0'
    graph.node.trigger_activate()
    assert graph.values()['weights_version'] == '5'
    graph.node.trigger_deactivate()
    for version, received in ((6, '2'), (7, '3')):
        publisher.publish(weights(version))
        graph.until(lambda received=received: graph.values()['received /weights'] == received)
    graph.node.trigger_activate()
    assert graph.values()['weights_version'] == '7' and graph.values()['weight_swaps'] == '2', 'the newest alone'
    graph.node.trigger_deactivate()
    graph.node.trigger_activate()
    assert graph.values()['weight_swaps'] == '2' and graph.values()['weights_rejected'] == '0'


def test_weights_that_the_device_cannot_take_are_named_and_the_old_ones_run_on(
        graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.node.trigger_activate()

    def full(*_: object) -> None:
        raise RuntimeError('CUDA out of memory \ud800')

    with monkeypatch.context() as patch:
        patch.setattr('sim2real_da.nodes.perception.Estimator', full)
        graph.send(weights(1))
        assert 'version 1 cannot be run on cpu: RuntimeError: CUDA out' in graph.values()['last_rejection']
        graph.order('hold')
        graph.send(weights(2))
        answer = graph.order('release')
        assert not answer.success and 'version 0 keeps running' in answer.message and serialize_message(answer)
    values = graph.values()
    assert values['weights_version'] == '0' and values['weights_rejected'] == values['refused /weights'] == '2'
    assert graph.order('release').message == 'nothing waited'
    graph.send(weights(2))
    assert graph.values()['weights_version'] == '2'


def test_an_older_version_does_not_take_the_place_of_a_waiting_one(graph: Graph) -> None:
    graph.node.trigger_activate()
    graph.order('hold')
    graph.send(weights(8))
    graph.send(weights(7))
    assert 'version 7 is not newer than the waiting 8' in graph.values()['last_rejection']
    graph.send(weights(8))  # of a restarted publisher
    graph.send(weights(0))
    assert graph.values()['weights_rejected'] == '1'
    graph.send(weights(9))
    assert graph.order('release').message == 'weights version 9 taken'


def test_a_second_publisher_of_weights_is_named(graph: Graph) -> None:
    graph.node.trigger_activate()
    for _ in range(2):
        assert graph.node.status().level == DiagnosticStatus.OK
        graph.probe.create_publisher(UInt8MultiArray, 'weights', LATCHED)
    graph.until(lambda: graph.values()['weights_publishers'] == '2')
    assert graph.node.status().message == 'weights v0; 2 publishers, expected one'


@pytest.mark.parametrize('flushes', [True, False])
def test_a_file_is_in_its_folder_also_after_a_power_cut(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushes: bool) -> None:
    order: list[tuple[bool, bool]] = []  # whether a folder is flushed, whether the file is in place

    def flush(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        order.append((folder, (tmp_path / 'file').exists()))
        if folder and not flushes:
            raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(os, 'fsync', flush)
    write_atomically(tmp_path / 'file', b'new')
    assert order == [(False, False), (True, True)] and (tmp_path / 'file').read_bytes() == b'new'
