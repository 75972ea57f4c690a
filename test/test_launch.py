# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files: their tables against the nodes everywhere, the description itself where ``launch_ros`` is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from helpers import load_script

REPO = Path(__file__).resolve().parent.parent
LAUNCH = REPO / 'launch'
NO_LAUNCH = 'launch and launch_ros come with a ROS 2 installation, not with the wheels'
FILES = ('adapt.launch.py', 'demo.launch.py')
MODULES = ('launch', 'launch.actions', 'launch.launch_description_sources', 'launch.substitutions', 'launch_ros',
           'launch_ros.actions', 'launch_ros.substitutions')


def load(name: str) -> ModuleType:
    """Import a launch file by its path."""
    return load_script(LAUNCH / name)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``adapt.launch.py`` with ``launch`` played by mocks: the tables need none of it."""
    for module in MODULES:
        monkeypatch.setitem(sys.modules, module, MagicMock())
    return load('adapt.launch.py')


def test_topics_are_those_of_the_nodes(tables: ModuleType) -> None:
    def source(*nodes: str) -> str:
        files = [REPO / 'sim2real_da' / 'nodes' / f'{node}.py' for node in nodes]
        return ''.join(file.read_text() for file in files + sorted((files[0].parent / 'labels').glob('*.py')))

    inputs = {topic for topic, _ in tables.INPUTS.values()}
    assert {'real/image', 'real/camera_info'} < inputs  # CameraInput puts them together
    for topic in inputs - {'real/image', 'real/camera_info'}:
        stem = topic.removesuffix('_labels').removesuffix('_static')  # put together likewise
        assert f"'{stem}'" in source('perception', 'adaptation', 'simulator'), f'no node has {topic}'
    for topic, _ in tables.PERCEPTION_OUTPUTS.values():
        assert f"'{topic}'" in source('perception', 'pose_output'), f'perception does not publish {topic}'
    for topic, _ in tables.ADAPTATION_OUTPUTS.values():
        assert f"'{topic}'" in source('adaptation'), f'adaptation does not publish {topic}'


def test_overrides_are_parameters_of_the_nodes(tables: ModuleType) -> None:
    for argument, (nodes, _) in tables.OVERRIDES.items():
        for node in nodes:
            parameters = yaml.safe_load((REPO / 'config' / f'{node}.yaml').read_text())['/**']['ros__parameters']
            assert argument in parameters, f'{node} has no parameter {argument}'
            assert isinstance(parameters[argument], bool) == (argument in tables.SWITCHES), argument


@pytest.mark.parametrize('simulator', ['isaac_sim', 'gazebo'])
def test_a_foreign_simulator_brings_its_parameters(simulator: str, tables: ModuleType,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, 'LaunchConfiguration', lambda name: MagicMock(
        perform=lambda _: simulator if name == 'simulator' else ''))
    monkeypatch.setattr(tables, 'Node', lambda **fields: fields)
    monkeypatch.setattr(tables, 'PathJoinSubstitution', lambda parts: parts[-1])
    nodes = {node['executable']: node for node in tables.make_nodes(None)}
    assert nodes['adaptation']['parameters'] == ['', f'{simulator}.yaml']
    assert nodes['perception']['parameters'] == ['']
    own = yaml.safe_load((REPO / 'config' / f'{simulator}.yaml').read_text())['/**']['ros__parameters']
    known = yaml.safe_load((REPO / 'config' / 'adaptation.yaml').read_text())['/**']['ros__parameters']
    assert own['labels'] == simulator and set(own) <= set(known)


def test_a_session_is_recorded_when_asked_for(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {'record': 'true', 'real_image': '/camera/image', 'detections': '/found', 'poses': '~/poses'}
    monkeypatch.setattr(tables, 'LaunchConfiguration', lambda name: MagicMock(perform=lambda _: values.get(name, '')))
    monkeypatch.setattr(tables, 'Node', lambda **fields: fields)
    nodes = {node['executable']: node for node in tables.make_nodes(None)}
    renamed = dict(nodes['recorder']['remappings'])
    assert renamed['real/image'] == '/camera/image' and renamed['perception/detections'] == '/found'
    assert 'perception/poses' not in renamed


def test_a_rendered_folder_takes_the_place_of_a_simulator(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {'simulator': 'embedded', 'source': 'folder', 'source_folder': '/some/set'}
    monkeypatch.setattr(tables, 'LaunchConfiguration', lambda name: MagicMock(
        perform=lambda _: values.get(name, '')))
    monkeypatch.setattr(tables, 'Node', lambda **fields: fields)
    nodes = {node['executable']: node for node in tables.make_nodes(None)}
    assert set(nodes) == {'perception', 'adaptation'}
    assert {'source': 'folder', 'source_folder': '/some/set'} in nodes['adaptation']['parameters']
    values['source'] = ''
    assert 'simulator' in {node['executable'] for node in tables.make_nodes(None)}


# --- with launch ----------------------------------------


def description(name: str) -> Any:
    """What ``ros2 launch`` would start; the test is skipped where there is no launch."""
    # not `launch`: the repository's folder of that name could be imported in its place
    pytest.importorskip('launch_ros', reason=NO_LAUNCH)
    return load(name).generate_launch_description()


def start(name: str, **arguments: str) -> dict[str, Any]:
    """Visit a launch file's entities as ``ros2 launch`` does, without starting a process; return nodes by name."""
    entities = description(name).entities
    from launch import LaunchContext
    from launch_ros.actions import Node

    context = LaunchContext()
    for node in ('perception', 'adaptation', 'simulator', 'camera', 'evaluator', 'recorder'):
        context.launch_configurations[f'{node}_params'] = str(REPO / 'config' / f'{node}.yaml')
    context.launch_configurations.update(arguments)
    found = {}
    for entity in entities:
        for child in entity.visit(context) or []:
            if isinstance(child, Node):
                child._perform_substitutions(context)
                found[str(child.node_executable)] = child
    return found


def test_every_argument_is_seen_by_show_args() -> None:
    names = {argument.name for argument in description('adapt.launch.py').get_launch_arguments()}
    assert names >= {
        'simulator', 'namespace', 'log_level', 'use_sim_time', 'perception_params', 'adaptation_params',
        'simulator_params', 'weights', 'source', 'source_folder', 'recipe', 'state_dir', 'real_image',
        'real_image_compressed', 'real_camera_info',
        'sim_image', 'sim_camera_info', 'sim_labels', 'sim_labels_2d', 'sim_segmentation', 'sim_label_info',
        'detections', 'detections_3d', 'poses', 'overlay', 'markers', 'label_info', 'vision_info', 'weights_topic',
        'status',
    }


@pytest.mark.parametrize(('simulator', 'nodes'), [
    ('none', {'perception', 'adaptation'}),
    ('embedded', {'perception', 'adaptation', 'simulator'}),
])
def test_simulator_is_started_when_asked_for(simulator: str, nodes: set[str]) -> None:
    assert set(start('adapt.launch.py', simulator=simulator)) == nodes


def test_topics_and_namespace_reach_the_nodes() -> None:
    nodes = start('adapt.launch.py', simulator='embedded', namespace='arm', real_image='/camera/color/image_raw')
    for node in nodes.values():
        assert node.expanded_node_namespace == '/arm'
        assert ('real/image', '/camera/color/image_raw') in node.expanded_remapping_rules
        assert ('real/image/compressed', '/camera/color/image_raw/compressed') in node.expanded_remapping_rules
    assert ('weights', 'adaptation/weights') in nodes['perception'].expanded_remapping_rules
    assert ('~/weights', 'adaptation/weights') in nodes['adaptation'].expanded_remapping_rules


@pytest.mark.parametrize('name', FILES)
def test_launch_files_parse(name: str) -> None:
    assert description(name).entities
