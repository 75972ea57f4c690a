# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A graph of node processes in a DDS domain of its own, and a probe node in the test's process that talks to it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_srvs.srv import Trigger

from sim2real_da.nodes.runner import NodeSpec, Runner, graph_environment, transport_environment

# The test's process is one end of the image transport, so it needs the documented setting, too.
os.environ.update(transport_environment())

TIMEOUT_S = 90.0  # generous: two loaded cores and a cold start of torch
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
_domains = itertools.count(os.getpid())


class Graph:
    """Node processes and a probe."""

    def __init__(self, folder: Path) -> None:
        self.domain = 1 + next(_domains) % 100
        self.runner = Runner(folder / 'logs', graph_environment(self.domain))
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.probe = rclpy.create_node('probe', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.probe)
        self.diagnostics: dict[str, Any] = {}
        self.probe.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, 50)

    def close(self) -> None:
        """Stop everything."""
        self.runner.stop()
        self._executor.shutdown()
        self.probe.destroy_node()
        rclpy.shutdown(context=self.context)

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name.lstrip('/')] = status

    def start(self, executable: str, parameters: Mapping[str, object] | None = None,
              remappings: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start a node and wait until its diagnostics say that it is active."""
        self.runner.start(NodeSpec(executable, '', parameters or {}, remappings or {}))
        if wait:
            self.until(lambda: executable in self.diagnostics
                       and 'not configured' not in self.diagnostics[executable].message, f'{executable} to start')

    def collect(self, kind: Any, topic: str, qos: Any = 50) -> list[Any]:
        """Return a list that fills with the messages of a topic."""
        messages: list[Any] = []
        self.probe.create_subscription(kind, topic, messages.append, qos)
        return messages

    def publisher(self, kind: Any, topic: str, qos: Any = 10) -> Any:
        """Return a publisher once someone listens to it."""
        publisher = self.probe.create_publisher(kind, topic, qos)
        self.until(lambda: publisher.get_subscription_count() > 0, f'someone to listen to {topic}')
        return publisher

    def spin(self, seconds: float) -> None:
        """Process messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S,
              meanwhile: Callable[[], None] | None = None, period: float = 0.1) -> Any:
        """Process messages until a condition holds; ``meanwhile`` is called every ``period`` seconds.

        :return: the condition's value
        """
        end, due = time.monotonic() + timeout, 0.0
        while not (result := condition()):
            self.runner.check()
            if time.monotonic() > end:
                told = {name: f'{s.message} {self.values(name)}' for name, s in self.diagnostics.items()}
                raise AssertionError(f'waited {timeout:.0f} s for {what}; diagnostics: {told}')
            if meanwhile is not None and time.monotonic() >= due:
                meanwhile()
                due = time.monotonic() + period
            self._executor.spin_once(timeout_sec=0.02)
        return result

    def values(self, node: str) -> dict[str, str]:
        """Return the key-values of a node's last diagnostics."""
        return {v.key: v.value for v in self.diagnostics[node].values} if node in self.diagnostics else {}

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return the answer."""
        client = self.probe.create_client(kind, name)
        self.until(client.service_is_ready, f'service {name}')
        self._meet(name.rpartition('/')[0])
        future = client.call_async(request)
        self.until(future.done, f'an answer of {name}')
        self.probe.destroy_client(client)
        return future.result()

    def _meet(self, node: str) -> None:
        """Wait until a node knows all clients made so far.

        A service is ready for its client once the client's side has found it; what is asked before the other side has
        found the client is lost. Discovery keeps the order, so whoever answers a later client knows the earlier ones.
        Unlike most requests this one may be sent again and again.
        """
        client = self.probe.create_client(GetParameters, f'{node}/get_parameters')
        asked: list[Any] = []

        def ask() -> None:
            if client.service_is_ready():
                asked.append(client.call_async(GetParameters.Request(names=['autostart'])))

        self.until(lambda: any(f.done() for f in asked), f'{node} to answer at all', meanwhile=ask, period=1.0)
        self.probe.destroy_client(client)

    def order(self, name: str) -> Any:
        """Call a std_srvs/Trigger."""
        return self.call(Trigger, name, Trigger.Request())

    def set_parameter(self, node: str, name: str, value: object) -> Any:
        """Set a parameter and return the result with its reason."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f'{node}/set_parameters', request).results[0]
