# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The set-up tool: steps run once, and what is missing is said in one line that ends in a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from helpers import load_script

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    """``tools/setup_env.py``, which is a script and in no package."""
    return load_script(REPO / 'tools' / 'setup_env.py')


@pytest.fixture
def unprivileged(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never install system packages, whoever runs them."""
    monkeypatch.setattr(tool, 'privileged', lambda: False)


def one_line(error: BaseException) -> str:
    """The message, which has to be one line with a command at its end."""
    text = str(error)
    assert '\n' not in text
    commands = r'run: (sudo apt-get install -y \S+|make setup|rm -rf \S+|PYTHON=\S+ make setup|source \S+)'
    assert re.search(commands, text), text
    return text


def test_steps_run_once_and_again_when_their_inputs_change(tool: ModuleType, tmp_path: Path) -> None:
    environment = tool.Environment(tmp_path, 'jazzy', None)
    environment.stamps.mkdir()
    ran: list[str] = []
    for inputs in ('a', 'a', 'b', 'b', 'a'):
        environment.step('libraries', inputs, 'test', lambda inputs=inputs: ran.append(inputs))
    assert ran == ['a', 'b', 'a']


def test_a_step_that_failed_runs_again(tool: ModuleType, tmp_path: Path) -> None:
    environment = tool.Environment(tmp_path, 'jazzy', None)
    environment.stamps.mkdir()
    environment.step('ros', 'old', 'test', lambda: None)

    def fail() -> None:
        raise tool.Missing('no network')

    with pytest.raises(tool.Missing):
        environment.step('ros', 'new', 'test', fail)
    assert environment.step('ros', 'old', 'test', lambda: None), 'the stamp of before the failure survived it'


def test_a_finished_environment_costs_no_pip_run(tool: ModuleType, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, 'check_gl', lambda: None)
    monkeypatch.setattr(tool, 'check_compiler', lambda: None)
    calls: list[str] = []
    for name in ('create', 'install_libraries', 'generate_messages', 'install_package', 'pip'):
        monkeypatch.setattr(tool.Environment, name, lambda *_, name=name: calls.append(name))
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python').touch()
    tool.Environment(tmp_path, 'jazzy', None).make()
    assert calls == ['create', 'install_libraries', 'pip', 'generate_messages', 'generate_messages', 'install_package']
    calls.clear()
    started = time.monotonic()
    tool.Environment(tmp_path, 'jazzy', None).make()
    assert calls == []
    assert time.monotonic() - started < 1.0
    with pytest.raises(tool.Missing) as wrong:  # Kilted's wheels into Jazzy's environment
        tool.Environment(tmp_path, 'kilted', None).make()
    assert 'jazzy' in one_line(wrong.value)


@pytest.mark.parametrize('version', [(3, 8), (3, 9)])
def test_old_python(tool: ModuleType, version: tuple[int, int]) -> None:
    with pytest.raises(tool.Missing) as error:
        tool.check_python(version, wheels=True)
    assert f'3.{version[1]}' in one_line(error.value)


def test_python_newer_than_the_wheels_will_do_for_a_ros_installation(tool: ModuleType) -> None:
    with pytest.raises(tool.Missing) as error:
        tool.check_python((3, 99), wheels=True)
    assert '3.99' in one_line(error.value)
    tool.check_python((3, 99), wheels=False)


def test_old_python_is_said_before_any_of_the_tool_is_parsed(tmp_path: Path) -> None:
    old = tmp_path / 'python3'
    old.write_text('#!/bin/sh\necho 3.6\n')
    old.chmod(0o755)
    command = [REPO / 'tools' / 'setup_env.sh', '--venv', tmp_path / 'venv']
    environment = {**os.environ, 'PYTHON': str(old)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert 'found 3.6' in done.stderr
    assert 'apt-get install' in done.stderr


@pytest.mark.usefixtures('unprivileged')
def test_no_compiler(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(tool.Missing) as error:
        tool.check_compiler()
    assert 'build-essential' in one_line(error.value)
    assert 'messages' in str(error.value)


@pytest.mark.usefixtures('unprivileged')
def test_no_gl(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, 'GL_LIBRARIES', {('libno_such_library.so.1',): 'libegl1'})
    monkeypatch.setattr(tool, 'GL_DRIVERS', ('/no/such/driver*',))
    with pytest.raises(tool.Missing) as error:
        tool.check_gl()
    assert 'libegl1' in one_line(error.value)


@pytest.mark.usefixtures('unprivileged')
def test_no_ensurepip(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'ensurepip', None)
    with pytest.raises(tool.Missing) as error:
        tool.check_venv()
    assert f'python{sys.version_info[0]}.{sys.version_info[1]}-venv' in one_line(error.value)


def test_full_disk(tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(tool.Missing) as error:
        tool.check_disk(tmp_path, needed_gb=10**9)
    assert 'GB' in one_line(error.value)


@pytest.mark.parametrize(('output', 'expected'), [
    ("WARNING: Retrying: NewConnectionError('... Temporary failure in name resolution')\nERROR: No matching "
     'distribution found for torch', 'no package index'),
    ('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device', 'full'),
    ('Collecting a\nERROR: Cannot install a and b because they conflict\n', 'Cannot install a and b'),
    ('', 'no output'),
])
def test_pip_failures(tool: ModuleType, output: str, expected: str) -> None:
    assert expected in one_line(tool.Missing(tool.explain_pip(output, Path('log.txt'))))


def test_compiler_failures(tool: ModuleType) -> None:
    output = '-- The C compiler\n\nCMake Error in CMakeLists.txt:\n\n  Imported target includes a missing path\n'
    message = one_line(tool.Missing(tool.explain_cmake(output, Path('log.txt'))))
    assert 'CMakeLists.txt: Imported target includes' in message


def test_sourced_ros_for_another_python(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.delenv('_ROS_WHEELS_BOOTSTRAP_COMPLETE', raising=False)
    monkeypatch.setattr(tool, 'importable', lambda module, python: False)
    with pytest.raises(tool.Missing) as error:
        tool.sourced_ros()
    assert 'jazzy' in one_line(error.value)
    monkeypatch.setattr(tool, 'importable', lambda module, python: True)
    assert tool.sourced_ros() == 'jazzy'
    monkeypatch.delenv('ROS_DISTRO')
    assert tool.sourced_ros() is None


def test_the_systems_numpy_and_opencv_stay_beside_an_installed_ros(
        tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tool.Environment(tmp_path, 'jazzy', 'humble')
    environment.stamps.mkdir()
    monkeypatch.setattr(tool, 'importable', lambda module, python: True)
    monkeypatch.setattr(tool, 'run', lambda arguments: (True, '1.21.5\n'))
    asked: list[str] = []
    monkeypatch.setattr(environment, 'pip', lambda *arguments: asked.extend(Path(arguments[1]).read_text().split('\n')))
    environment.install_libraries([REPO / 'requirements.txt'])
    assert [line for line in asked if line.startswith(('numpy', 'opencv'))] == ['numpy==1.21.5']
    assert any(line.startswith('torch') for line in asked)


def test_cmake_paths_of_the_wheel_builder_are_replaced(tool: ModuleType, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'share' / 'std_msgs' / 'cmake' / 'export.cmake'
    file.parent.mkdir(parents=True)
    file.write_text('"/opt/python/cp311-cp311/include/python3.11;'
                    '/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include"')
    monkeypatch.setattr(tool, 'run', lambda arguments: (True, '/here/numpy\n'))
    tool.Environment(tmp_path, 'jazzy', None).repair_cmake()
    assert '/opt/python' not in file.read_text()
    assert '/here/numpy' in file.read_text()


def test_message_definitions_are_the_interface(tool: ModuleType) -> None:
    """Names, types and order decide whether another machine's ``vision_msgs`` understands ours."""
    fields = {
        file.stem: [line.split('#')[0].strip() for line in file.read_text().splitlines() if line.split('#')[0].strip()]
        for file in (REPO / 'tools' / 'messages' / 'vision_msgs' / 'msg').glob('*.msg')
    }
    assert len(fields) == 16
    assert fields['Detection3D'] == [
        'std_msgs/Header header', 'ObjectHypothesisWithPose[] results', 'BoundingBox3D bbox', 'string id',
    ]
    assert fields['ObjectHypothesis'] == ['string class_id', 'float64 score']
    assert fields['BoundingBox2D'] == ['vision_msgs/Pose2D center', 'float64 size_x', 'float64 size_y']
    assert fields['VisionInfo'][-1] == 'int32 database_version'
    transforms = (REPO / 'tools' / 'messages' / 'tf2_msgs' / 'msg' / 'TFMessage.msg').read_text()
    assert transforms.strip() == 'geometry_msgs/TransformStamped[] transforms'
