# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What the adaptation node publishes while held, in shadow and across a deactivation; one process a state folder."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

import torch  # noqa: E402
from helpers import box_model, rendered_set  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.nodes.adaptation import Adaptation  # noqa: E402
from sim2real_da.online.gate import Gate  # noqa: E402
from sim2real_da.online.store import alone_in  # noqa: E402


class Topic:
    """Stands for the publisher of weights."""

    def __init__(self) -> None:
        self.versions: list[int] = []

    def publish(self, message: Any) -> None:
        self.versions.append(Bundle.from_bytes(bytes(message.data)).version)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    torch.manual_seed(0)
    small = Bundle.create({'box': box_model('box')}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    small.save(tmp_path / 'w.safetensors')
    folder = rendered_set(tmp_path / 'set', 4, 8)
    context = Context()
    rclpy.init(context=context, domain_id=97)
    made: list[Adaptation] = []

    def node(**parameters: Any) -> tuple[Adaptation, Topic]:
        own = Adaptation(context=context, parameter_overrides=[Parameter(k, value=v) for k, v in {
            'weights': str(tmp_path / 'w.safetensors'), 'state_dir': str(tmp_path / 'state'), 'source': 'folder',
            'source_folder': str(folder), 'recipe': 'source_continued', 'holdout': 3, 'gate_every': 1, 'tolerance': 1.0,
            'evidence': False, 'nice': 0, 'batch_source': 2, 'max_steps': 1, **parameters}.items()])
        made.append(own)
        assert own.trigger_configure() == TransitionCallbackReturn.SUCCESS
        own._weights = topic = Topic()
        return own, topic

    yield node
    for own in made:
        if own.active:
            own.trigger_deactivate()
        if own._configured:
            own.trigger_cleanup()
        own.destroy_node()
    rclpy.shutdown(context=context)


def order(node: Adaptation, name: str) -> tuple[bool, str]:
    done = node._service(name, getattr(node, f'_{name}'))(Trigger.Request(), Trigger.Response())
    return done.success, done.message


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_hold_outlives_a_deactivation(make: Any) -> None:
    node, topic = make()
    order(node, 'hold')
    node.trigger_activate()
    until(lambda: node._newest.version == 2)
    node.trigger_deactivate()
    node.trigger_activate()
    assert 'waits until ~/release, version 3' in order(node, 'rollback')[1]
    assert topic.versions == []
    assert 'published weights version 3' in order(node, 'release')[1] and topic.versions == [3]


def test_in_shadow_nothing_new_is_published_and_a_way_back_is(make: Any) -> None:
    node, topic = make()
    node.trigger_activate()
    until(lambda: topic.versions == [1, 2])
    node.set_parameters([Parameter('shadow', value=True)])
    assert 'published weights version 3' in order(node, 'rollback')[1], 'perception runs what the operator wants gone'
    node.set_parameters([Parameter('max_steps', value=2)])
    until(lambda: node._session.running.version == 4)
    assert topic.versions == [1, 2, 3]


def test_in_shadow_from_the_start_an_order_says_that_nothing_is_published(make: Any) -> None:
    node, topic = make(shadow=True)
    node.trigger_activate()
    until(lambda: node._session.running.version == 2)
    assert 'shadow: kept and not published, version 3: rolled back' in order(node, 'rollback')[1]
    assert topic.versions == []
    order(node, 'hold')
    node.set_parameters([Parameter('shadow', value=False)])
    time.sleep(1.0)
    assert topic.versions == [], 'a hold outlives shadow'
    order(node, 'release')
    until(lambda: topic.versions == [3])


def test_a_hold_in_shadow_outlives_both(make: Any) -> None:
    node, topic = make(shadow=True)
    node.trigger_activate()
    until(lambda: node._newest.version == 2)
    order(node, 'hold')
    node.set_parameters([Parameter('shadow', value=False)])
    node.trigger_deactivate()
    node.trigger_activate()
    time.sleep(0.5)
    assert topic.versions == []
    assert 'published weights version 2' in order(node, 'release')[1] and topic.versions == [2]
    assert order(node, 'release')[1] == 'nothing waited'


def test_what_a_validation_found_that_outlasted_a_deactivation_is_published(make: Any) -> None:
    node, topic = make()
    node.trigger_activate()
    until(lambda: topic.versions == [1, 2])
    order(node, 'hold')
    node.trigger_deactivate()
    promotion = node._session.rollback()  # as a step in work would have: on disk, and nobody there to publish it
    node.trigger_activate()
    assert topic.versions == [1, 2, 2] and promotion.version == 3
    assert 'published weights version 3' in order(node, 'release')[1]


def test_nothing_new_is_published_while_paused(make: Any) -> None:
    node, topic = make(max_steps=0, gate_every=1)
    node.trigger_activate()
    until(lambda: len(topic.versions) > 1)
    order(node, 'pause')
    with node._lock:  # the validation in work has ended
        published = list(topic.versions)
        late = dataclasses.replace(node._session.rollback(), back=False)
        assert 'waits until ~/resume' in node._announce(late)
    time.sleep(0.3)
    assert topic.versions == published
    node.set_parameters([Parameter('max_steps', value=1)])
    order(node, 'resume')
    until(lambda: topic.versions == [*published, late.version])


def test_an_exception_while_publishing_is_said_and_ends_no_thread(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, topic = make()
    publish = topic.publish

    def fail(message: Any) -> None:
        monkeypatch.setattr(topic, 'publish', publish)
        raise RuntimeError('no memory for a message')

    node.trigger_activate()
    monkeypatch.setattr(topic, 'publish', fail)
    until(lambda: node._fault)
    assert 'no memory' in node._fault and node._worker.is_alive()
    until(lambda: topic.versions == [1, 2])  # tried again


def test_a_validation_that_outlasts_a_cleanup_writes_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _ = make()
    monkeypatch.setattr('sim2real_da.nodes.adaptation.JOIN_S', 0.05)
    validating, free = threading.Event(), threading.Event()
    decide = Gate.decide

    def slow(self: Gate, *given: Any) -> Any:
        validating.set()
        free.wait(20)
        return decide(self, *given)

    monkeypatch.setattr(Gate, 'decide', slow)
    node.trigger_activate()
    assert validating.wait(60)
    worker, first = node._worker, node._session
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert worker.is_alive()
    free.set()
    worker.join(20)
    assert 'this session is closed' in first.reason
    assert node._session.store.versions() == [1] and node._session.running.version == 1


def test_orders_during_a_validation(make: Any) -> None:
    node, _ = make()
    with node._lock:  # as the learner holds it
        assert order(node, 'hold') == (True, 'no weights are published until ~/release')
        assert order(node, 'pause')[0]
        node_patience = 'sim2real_da.nodes.adaptation.PATIENCE_S'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node_patience, 0.05)
            success, message = order(node, 'reset')
        assert not success and 'ask again' in message
    assert order(node, 'reset')[0]


def test_published_weights_are_watched_when_the_steps_are_done(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, topic = make(gate_every=100)
    monkeypatch.setattr('sim2real_da.nodes.adaptation.WATCH_S', 0.1)
    looks: list[object] = []

    def watch() -> object:
        looks.append(None)
        if len(looks) == 1:
            raise OSError(28, 'No space left on device')
        return node._session.reset() if len(looks) == 2 else None

    monkeypatch.setattr(node._session, 'watch', watch)
    node.set_parameters([Parameter('max_steps', value=1)])
    node.trigger_activate()
    until(lambda: topic.versions[-1] == 2)
    assert len(looks) >= 2 and not node._fault


def test_an_order_that_fails_is_answered(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _ = make()

    def fail() -> None:
        raise RuntimeError('CUDA out of memory')

    monkeypatch.setattr(node._session, 'reset', fail)
    assert order(node, 'reset') == (False, 'RuntimeError: CUDA out of memory')
    assert not node._lock.locked()


def test_a_learner_from_before_a_deactivation_ends(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _ = make()
    monkeypatch.setattr('sim2real_da.nodes.adaptation.JOIN_S', 0.05)
    working, free = threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        free.wait(20)

    monkeypatch.setattr(node._session, 'work', work)
    until(lambda: node._session.state == 'adapting' or node._feeder is None)
    node.trigger_activate()
    assert working.wait(20)
    first = node._worker
    node.trigger_deactivate()
    assert first.is_alive(), 'its step takes longer than deactivation waits'
    node.trigger_activate()
    free.set()
    first.join(20)
    assert not first.is_alive() and node._worker.is_alive()


def test_a_message_that_cannot_be_borne_is_refused_and_ends_nothing(make: Any) -> None:
    node, _ = make()

    def fall(_: String) -> None:
        raise RecursionError('too deep')

    subscription = node.listen_to(String, 'odd', fall)
    node.trigger_activate()
    subscription.callback(String())
    values = {v.key: v.value for v in node.status().values}
    assert values['refused /odd'] == '1' and values['last refusal /odd'] == 'RecursionError: too deep'


def test_a_state_folder_is_of_one_process(make: Any, tmp_path: Path) -> None:
    folder = tmp_path / 'other'
    code = ('import sys, pathlib; from sim2real_da.online.store import alone_in\n'
            'with alone_in(pathlib.Path(sys.argv[1])): print("mine", flush=True); sys.stdin.read()')
    with subprocess.Popen([sys.executable, '-c', code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == 'mine\n'
        with (pytest.raises(ValueError, match='in use by another process; give every robot a state_dir of its own'),
              alone_in(folder)):
            pass
        process.kill()  # the lock goes with the process
    folder.chmod(0o500)  # a lock writes nothing: a start from a read-only disk is no reason to fail
    with alone_in(folder):
        assert not list(folder.iterdir())
    node, _ = make()
    node.trigger_activate()
    until(lambda: node._session.running.version == 2)
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, 'cleanup gives the folder back'
    lines = (tmp_path / 'state' / 'decisions.jsonl').read_text().splitlines()
    assert [json.loads(line)['event'] for line in lines] == ['gate']


def test_what_names_a_file_is_read_only_over_the_graph(make: Any) -> None:
    node, _ = make()
    for parameter in node.PARAMETERS:
        assert node.describe_parameter(parameter.name).read_only == parameter.path, parameter.name
    before = node.get('state_dir')
    result, = node.set_parameters([Parameter('state_dir', value='/elsewhere')])
    assert not result.successful and 'state_dir' in result.reason and node.get('state_dir') == before


@pytest.mark.parametrize(('name', 'value', 'says'), [
    ('cameras', 'left 2nd', "'2nd' is no name of a topic"), ('cameras', 'a//b', 'is no name of a topic'),
    ('cameras', '', 'one or more cameras'), ('device', 'gpu', 'expected a torch device')])
def test_values_that_cannot_be_are_refused_with_the_reason(make: Any, name: str, value: str, says: str) -> None:
    node, _ = make()
    node.trigger_cleanup()
    result, = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and says in result.reason
    assert node.set_parameters([Parameter('cameras', value='left /arm/right real')])[0].successful


def test_every_topic_takes_an_override_of_its_qos(make: Any) -> None:
    node, _ = make(source='topics', source_folder='')
    of_rclpy = {'/rosout', '/parameter_events', '/adaptation/transition_event'}
    topics = {kind: {one.topic_name for one in ones} - of_rclpy
              for kind, ones in (('publisher', node.publishers), ('subscription', node.subscriptions))}
    assert {'/adaptation/weights', '/adaptation/status', '/diagnostics'} <= topics['publisher']
    assert {'/sim/image', '/sim/labels', '/sim/labels_2d', '/real/image'} <= topics['subscription']
    for kind, names in topics.items():
        for name in names:
            assert node.has_parameter(f'qos_overrides.{name}.{kind}.reliability'), name
