# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The package as such: no ROS outside nodes/, arrows that point down, files that agree with each other."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / 'sim2real_da'
SOURCES = sorted(PACKAGE.rglob('*.py'))
ROS = re.compile(
    r'(rclpy|launch|launch_ros|cv_bridge|ament_index_python|message_filters|\w+_msgs|\w+_srvs'
    r'|rcl_interfaces|builtin_interfaces)$'
)

#: room -> rooms it must not know (design: nodes -> online -> objectives -> networks -> samples, geometry)
FORBIDDEN = {
    'samples': {'networks', 'objectives', 'online', 'nodes', 'data', 'simulation', 'evaluation', 'recipes'},
    'geometry': {'networks', 'objectives', 'online', 'nodes', 'data', 'simulation', 'evaluation', 'recipes'},
    'networks': {'objectives', 'online', 'nodes', 'simulation', 'recipes'},
    'objectives': {'online', 'nodes', 'simulation'},
    'online': {'nodes', 'simulation'},
    'data': {'networks', 'objectives', 'online', 'nodes'},
    'simulation': {'networks', 'objectives', 'online', 'nodes'},
    'evaluation': {'objectives', 'online', 'nodes'},
}


def imports(file: Path) -> set[str]:
    """All modules a file imports, wherever in it, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{file}: imports are absolute here'
            module = node.module or ''
            found.add(module)
            if module == 'sim2real_da':
                found.update(f'{module}.{alias.name}' for alias in node.names)
    return found


@pytest.mark.parametrize('file', SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_nodes_import_ros_and_arrows_point_down(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
    used = imports(file)
    if room != 'nodes':
        assert not {name for name in used if ROS.match(name.split('.')[0])}, f'{file}: ROS is imported in nodes/ alone'
    rooms = {name.split('.')[1] for name in used if name.startswith('sim2real_da.')}
    assert not rooms & FORBIDDEN.get(room, set()), f'{file}: an arrow points up'


def test_core_runs_where_there_is_no_ros() -> None:
    """Import all but nodes/ in a process that cannot import ROS, not even when it is installed."""
    modules = sorted(
        '.'.join(file.relative_to(REPO).with_suffix('').parts).removesuffix('.__init__')
        for file in SOURCES
        if 'nodes' not in file.relative_to(PACKAGE).parts
    )
    assert len(modules) > 10
    program = f"""
import importlib, importlib.abc, re, sys
class NoRos(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if re.match({ROS.pattern!r}, name.split('.')[0]):
            raise ModuleNotFoundError(f'no ROS here: {{name}}')
sys.meta_path.insert(0, NoRos())
for name in {modules!r}:
    importlib.import_module(name)
try:
    import rclpy
except ModuleNotFoundError:
    print('imported', len({modules!r}), 'without ROS')
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f'imported {len(modules)} without ROS' in done.stdout


@pytest.mark.parametrize('folder', sorted({file.parent for file in SOURCES}), ids=lambda folder: folder.name)
def test_every_folder_is_a_package(folder: Path) -> None:
    """find_packages() would leave a folder without ``__init__.py`` out of an installation."""
    assert (folder / '__init__.py').exists(), f'{folder} has no __init__.py'


def test_versions_and_names_agree() -> None:
    import sim2real_da

    manifest = ElementTree.parse(REPO / 'package.xml').getroot()
    assert manifest.get('format') == '3'
    assert manifest.findtext('license') == 'Apache-2.0'
    assert manifest.findtext('export/build_type') == 'ament_python'
    version = re.search(r"version='([^']+)'", (REPO / 'setup.py').read_text())
    assert version is not None
    assert manifest.findtext('version') == version[1] == sim2real_da.__version__
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(REPO / 'setup.cfg')
    # ros2 run and ros2 launch look here, and nowhere else
    assert setup_cfg['develop']['script_dir'] == setup_cfg['install']['install_scripts'] == '$base/lib/sim2real_da'


def test_manifest_lists_every_ros_package_the_nodes_import() -> None:
    declared = {depend.text for depend in ElementTree.parse(REPO / 'package.xml').getroot().iter('exec_depend')}
    files = [*(PACKAGE / 'nodes').rglob('*.py'), *(REPO / 'launch').glob('*.py')]
    used = {name.split('.')[0] for file in files for name in imports(file)}
    missing = {name for name in used if ROS.match(name)} - declared
    assert not missing, f'package.xml lacks exec_depend for {sorted(missing)}'


def test_every_source_has_the_licence_header() -> None:
    header = '# Copyright 2026 The sim2real_da authors\n# SPDX-License-Identifier: Apache-2.0\n'
    for folder in ('sim2real_da', 'test', 'tools', 'launch', 'benchmarks'):
        for file in (REPO / folder).rglob('*.py'):
            text = file.read_text().removeprefix('#!/usr/bin/env python3\n')
            assert text.startswith(header), f'{file} lacks the header'
