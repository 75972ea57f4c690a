# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the package's nodes as processes, watches them, and stops them: what ``ros2 launch`` does where it is absent.

Same executables, parameter files and remappings as in the launch files.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sim2real_da.resources import config_folder

LAST_LINES = 15
STOP_S = 6.0  # a node ends itself within 5 s of SIGINT

# Where Fast DDS looks for a profile: up to Jazzy, and from Kilted on
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


class NodeDied(RuntimeError):
    """A node ended by itself; the text names it and shows its last words."""


@dataclass(frozen=True)
class NodeSpec:
    """One node to run.

    :param executable: module of sim2real_da.nodes
    :param parameters: set over the node's file in config/
    :param remappings: from -> to
    """

    executable: str
    name: str = ''
    parameters: Mapping[str, object] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return the command line."""
        words = [sys.executable, '-m', f'sim2real_da.nodes.{self.executable}', '--ros-args',
                 '-r', f'__node:={self.name or self.executable}',
                 '--params-file', str(config_folder() / f'{self.executable}.yaml')]
        for key, value in self.parameters.items():
            words += ['-p', f'{key}:={_yaml(value)}']
        for source, target in self.remappings.items():
            words += ['-r', f'{source}:={target}']
        return words


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f"'{value}'" if isinstance(value, str) else str(value)


def transport_environment() -> dict[str, str]:
    """Return the variables that let raw images through between processes, for both ends (see config/fastdds.xml)."""
    return {name: os.environ.get(name) or str(config_folder() / 'fastdds.xml') for name in PROFILE_VARIABLES}


def graph_environment(domain: int) -> dict[str, str]:
    """Return the environment of a graph of its own on this machine."""
    return {
        **os.environ, **transport_environment(), 'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1'),
        'PYTHONUNBUFFERED': '1',
    }


class Runner:
    """Processes of one graph.

    :param logs: folder of one log file a node
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.logs, self.environment = logs, dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, spec: NodeSpec) -> None:
        """Start a node; its output goes to ``logs/<name>.log``."""
        name = spec.name or spec.executable
        with (self.logs / f'{name}.log').open('ab') as log:
            # a session of its own: Ctrl-C reaches this process alone, which then stops the nodes in order
            self._running[name] = subprocess.Popen(
                spec.command(), stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == 'linux' else None)

    def process_id(self, name: str) -> int:
        """Return the process id of a node."""
        return self._running[name].pid

    def check(self) -> None:
        """Look after the nodes.

        :raises NodeDied: when one has ended
        """
        for name, process in self._running.items():
            status = process.poll()
            if status is not None:
                raise NodeDied(f'node {name} ended with status {status}; last lines of {self.logs / name}.log:\n'
                               f'{self.last_lines(name)}')

    def last_lines(self, name: str) -> str:
        """Return the end of a node's log."""
        lines = (self.logs / f'{name}.log').read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'  {line}' for line in lines[-LAST_LINES:]) or '  (it said nothing)'

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop nodes by SIGINT, and by SIGKILL those that do not obey in time; without names all of them."""
        chosen = {name: self._running.pop(name) for name in list(names if names is not None else self._running)}
        for process in chosen.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_S
        for process in chosen.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent is killed and cannot stop it."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
