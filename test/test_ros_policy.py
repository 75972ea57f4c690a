# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows each node what it does, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from box_dataset import bop_folder

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from sim2real_da.nodes.node import ManagedNode  # noqa: E402

POLICY = ET.parse(Path(__file__).resolve().parent.parent / 'config' / 'sros2_policy.xml').getroot()
# as the launch files do
REMAPPINGS = ['--ros-args', '-r', 'weights:=adaptation/weights', '-r', 'detections:=perception/detections',
              '-r', 'detections_3d:=perception/detections_3d']
OPTIONAL = {'/clock', '/real/image/compressed', '/ground_truth', '/ground_truth_2d', '/sim/tf', '/sim/tf_static',
            '/sim/boxes_3d', '/sim/boxes_2d', '/sim/boxes_3d_labels', '/sim/boxes_2d_labels',
            '/sim/segmentation_labels', '/tf', '/tf_static'}  # by parameter


@pytest.fixture(scope='module')
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(args=REMAPPINGS, context=made, domain_id=98)
    yield made
    rclpy.shutdown(context=made)


def allowed(node: str, tag: str, verb: str) -> set[str]:
    profile = POLICY.find(f".//enclave[@path='/sim2real_da/{node}']/profiles/profile")
    assert profile is not None and profile.get('node') == node, f'no profile of {node}'
    return {f'/{node}{name[1:]}' if name.startswith('~') else f'/{name.lstrip("/")}'
            for group in profile.findall(tag) if group.get(verb) == 'ALLOW' for name in (e.text or '' for e in group)}


@pytest.mark.parametrize(('name', 'parameters'), [
    ('perception', {}), ('adaptation', {'state_dir': True}), ('simulator', {'width': 64, 'height': 48}),
    ('evaluator', {}), ('recorder', {'out': True}), ('camera', {'source': True})])
def test_policy_is_what_the_node_does(context: Context, name: str, parameters: dict[str, Any],
                                      tmp_path: Path) -> None:
    module = importlib.import_module(f'sim2real_da.nodes.{name}')
    kind = next(v for v in vars(module).values() if inspect.isclass(v) and issubclass(v, ManagedNode)
                and v.__module__ == module.__name__)
    if 'source' in parameters:
        bop_folder(tmp_path / 'set', scenes=(1, 2), frames=6)
    paths = {'out': str(tmp_path / 'out'), 'state_dir': str(tmp_path / 'state'), 'source': str(tmp_path / 'set')}
    node = kind(context=context, parameter_overrides=[
        Parameter(k, value=paths[k] if v is True else v) for k, v in parameters.items()])
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        own = (node.get_name(), node.get_namespace())
        for tag, verb, entities in (
                ('topics', 'publish', node.get_publisher_names_and_types_by_node(*own)),
                ('topics', 'subscribe', node.get_subscriber_names_and_types_by_node(*own)),
                ('services', 'reply', node.get_service_names_and_types_by_node(*own)),
                ('services', 'request', node.get_client_names_and_types_by_node(*own))):
            may, does = allowed(name, tag, verb), {entity for entity, _ in entities}
            missing = {d for d in does if not any(fnmatch(d, m) for m in may)}
            assert not missing, f'{name} may not {verb} {missing}'
            idle = {m for m in may - OPTIONAL if not any(fnmatch(d, m) for d in does)}
            assert not idle, f'{name} may {verb} {idle}, and never does'
    finally:
        node.destroy_node()


def test_the_operator_may_call_every_service() -> None:
    nodes = {str(enclave.get('path')).rsplit('/', 1)[1] for enclave in POLICY.iter('enclave')} - {'operator'}
    offered = {service for node in nodes for service in allowed(node, 'services', 'reply')}
    assert allowed('operator', 'services', 'request') == offered


def test_nobody_else_publishes_weights_and_everybody_is_named_once() -> None:
    paths = [enclave.get('path') for enclave in POLICY.iter('enclave')]
    assert len(paths) == len(set(paths)) == 7
    publishers = [p for p in (str(path).rsplit('/', 1)[1] for path in paths)
                  if '/adaptation/weights' in allowed(p, 'topics', 'publish')]
    assert publishers == ['adaptation']
