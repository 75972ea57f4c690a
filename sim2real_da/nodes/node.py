# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every node of this package shares: a managed life, checked parameters, watched topics, diagnostics, a clean end.

A node is a subclass of :class:`ManagedNode` with a table ``PARAMETERS`` and the hooks ``configure``, ``activate``,
``deactivate``, ``cleanup`` and ``diagnose``. The table is the only source of names, defaults, ranges and descriptions:
the parameters are declared from it, and config/<node>.yaml is written from it (tools/write_parameter_files.py).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterException, InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions

from sim2real_da.nodes.messages import MessageError
from sim2real_da.nodes.shared_memory import remove_leftovers

LONGEST = 500  # characters of why a message was refused, which may quote it
LOG_PERIOD_S = 5.0  # a complaint about one topic is repeated at most this often
EXIT_DEADLINE_S = 4.5  # after a signal; a launch system kills after 5 s


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter.

    :param default: also fixes the type
    :param text: one line for ``ros2 param describe`` and the parameter file
    :param low: smallest allowed number
    :param choices: allowed strings
    :param live: may change while the node is configured; others are read when it configures
    :param path: names a file or folder: read-only, given when the process starts and never over the graph, so that
        whoever can call services cannot choose what is read and written
    """

    name: str
    default: bool | int | float | str
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    path: bool = False

    def limits(self) -> str:
        """Return the allowed values as text, empty when everything of the type is allowed."""
        if self.choices:
            return ' | '.join(self.choices)
        if self.low is None:
            return ''
        return f'{self.low:g} to {self.high:g}'

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor with the range."""
        result = ParameterDescriptor(description=self.text, additional_constraints=self.limits(), read_only=self.path)
        if self.low is not None:
            assert self.high is not None, self.name
            if isinstance(self.default, int):
                result.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
            else:
                result.floating_point_range = [
                    FloatingPointRange(from_value=float(self.low), to_value=float(self.high))]
        return result


COMMON = (
    Parameter('autostart', True, 'configure and activate at start; false leaves that to a lifecycle manager'),
    Parameter('silence_timeout_s', 5.0, 'a required topic silent for longer is named in /diagnostics; 0 switches off',
              0, 3600, live=True),
)


def check_device(name: str) -> None:
    """Refuse what is no torch device.

    :raises ValueError: with what was expected
    """
    import torch  # a camera's driver need not wait for it

    try:
        torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'expected a torch device such as cpu, cuda or cuda:0 ({error})') from error


class _Topic:
    """What is known of one subscription."""

    def __init__(self, name: str, watched: bool) -> None:
        self.name = name
        self.watched = watched
        self.heard = time.monotonic()
        self.received = 0
        self.bad = 0
        self.last_error = ''
        self.last_log = -1e9
        self.silent = False


class ManagedNode(LifecycleNode):
    """Base of the nodes.

    :raises rclpy.exceptions.InvalidParameterException: an override of the wrong type or out of range
    """

    PARAMETERS: tuple[Parameter, ...] = ()

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.active = False
        self._configured = False
        self._topics: dict[str, _Topic] = {}
        self._undo: list[Callable[[], object]] = []
        self._hand_over: list[Callable[[], None]] = []
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._table = {p.name: p for p in (*self.PARAMETERS, *COMMON)}
        for parameter in self._table.values():
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
            self._check(parameter.name, self.get(parameter.name))
        self.add_on_set_parameters_callback(self._on_set)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', 10, qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        logging.getLogger('sim2real_da').addHandler(_ToRos(self.get_logger()))
        logging.getLogger('sim2real_da').setLevel(logging.INFO)

    # --- hooks ----------------------------------------

    def configure(self) -> None:
        """Read parameters, load models, make publishers and subscriptions."""

    def activate(self) -> None:
        """Start to work; publishers are already enabled."""

    def deactivate(self) -> None:
        """Stop to work; publishers are still enabled, so what was accepted can be answered."""

    def cleanup(self) -> None:
        """Free what configure made; entities made by this class's helpers go by themselves."""

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Return level (DiagnosticStatus.OK …), one line and key-values for /diagnostics."""
        return DiagnosticStatus.OK, 'running', {}

    def check_parameter(self, name: str, value: Any) -> None:
        """Refuse a value by a ValueError that says what was expected."""

    # --- parameters ----------------------------------------

    def get(self, name: str) -> Any:
        """Return the value of a parameter."""
        return self.get_parameter(name).value

    def _check(self, name: str, value: Any) -> None:
        choices = self._table[name].choices
        if choices and value not in choices:
            raise InvalidParameterValueException(name, value, f'expected one of {", ".join(choices)}')
        try:
            self.check_parameter(name, value)
        except ValueError as error:
            raise InvalidParameterValueException(name, value, str(error)) from error

    def _on_set(self, parameters: list[Any]) -> SetParametersResult:
        for parameter in parameters:
            known = self._table.get(parameter.name)
            if known is None:
                continue
            if self._configured and not known.live and parameter.value != self.get(parameter.name):
                return SetParametersResult(successful=False, reason=(
                    f'parameter {parameter.name} is read when the node configures; deactivate and clean it up first'))
            try:
                self._check(parameter.name, parameter.value)
            except InvalidParameterValueException as error:
                return SetParametersResult(successful=False, reason=printable(error))
        return SetParametersResult(successful=True)

    # --- entities ----------------------------------------

    def publish_on(self, kind: Any, topic: str, depth: int | None = None, latched: bool = False) -> Any:
        """Make a reliable publisher that speaks while the node is active.

        :param depth: of the queue; default: 10, or 1 when latched
        """
        publisher = self.create_lifecycle_publisher(
            kind, topic, _qos(depth, latched), qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._undo.append(lambda: self.destroy_lifecycle_publisher(publisher))
        return publisher

    def listen_to(self, kind: Any, topic: str, callback: Callable[[Any], None], depth: int | None = None, *,
                  latched: bool = False, sensor: bool = False, watched: bool = False,
                  group: CallbackGroup | None = None, raw: bool = False) -> Any:
        """Make a subscription whose callback runs while the node is active.

        A latched message that came before is handed over on activation: its publisher does not send it again.

        :param callback: its MessageError is counted and logged with the topic's name, and the message is dropped; so is
            one that it cannot bear, with the traceback
        :param depth: of the queue; default: 10, or 1 when latched
        :param sensor: best effort, which matches every publisher
        :param watched: silence of this topic is reported
        :param raw: the callback gets the message's bytes, undecoded
        """
        state = self._topics.setdefault(topic, _Topic(self.resolve_topic_name(topic), watched))
        qos = _qos(depth, latched, sensor)
        missed: deque[Any] = deque(maxlen=qos.depth)  # as many as the middleware keeps for one that comes late

        def receive(message: Any) -> None:
            state.heard = time.monotonic()
            state.received += 1
            if self.active:
                take(message)
            elif latched:
                missed.append(message)

        def take(message: Any) -> None:
            try:
                callback(message)
            except MessageError as error:
                self.refuse(topic, error)
            except Exception as error:  # no message may end a node, whatever is wrong with it
                self.get_logger().error(printable(f'{state.name}: {traceback.format_exc()}'))
                self.refuse(topic, f'{type(error).__name__}: {error}')

        def hand_over() -> None:
            while missed:
                take(missed.popleft())

        if latched:
            self._hand_over.append(hand_over)
        subscription = self.create_subscription(
            kind, topic, receive, qos, callback_group=group, raw=raw,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._undo.append(lambda: self.destroy_subscription(subscription))
        return subscription

    def offer(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Make a service whose response has a ``message``."""
        def answer(request: Any, response: Any) -> Any:
            response = callback(request, response)
            response.message = printable(response.message)
            return response

        service = self.create_service(kind, name, answer)
        self._undo.append(lambda: self.destroy_service(service))

    def every(self, period_s: float, callback: Callable[[], None]) -> Any:
        """Make a timer on the steady clock: a jump of ROS time neither stops nor floods it."""
        timer = self.create_timer(period_s, callback, clock=self._steady)
        self._undo.append(lambda: self.destroy_timer(timer))
        return timer

    def now(self) -> int:
        """Return the node's ROS time in nanoseconds, for stamps only."""
        return int(self.get_clock().now().nanoseconds)

    # --- bad messages, silence, diagnostics ----------------------------------------

    def refuse(self, topic: str, error: object) -> None:
        """Count a message that cannot be used and say why, not more often than every few seconds a topic."""
        state = self._topics.setdefault(topic, _Topic(self.resolve_topic_name(topic), False))
        state.bad += 1
        state.last_error = printable(error)[:LONGEST]
        now = time.monotonic()
        if now - state.last_log >= LOG_PERIOD_S:
            state.last_log = now
            self.get_logger().warning(f'refused a message on {state.name} ({state.bad} so far): {state.last_error}')

    def silent_topics(self) -> list[str]:
        """Return a sentence for each watched topic that has been silent for too long."""
        limit = float(self.get('silence_timeout_s'))
        result = []
        for state in list(self._topics.values()):
            quiet = time.monotonic() - state.heard
            silent = state.watched and self.active and limit > 0 and quiet > limit
            if silent:
                count = self.count_publishers(state.name)
                hint = f'{count} publishers, is its QoS compatible?' if count else 'no publisher, is it remapped?'
                result.append(f'no message on {state.name} for {quiet:.0f} s ({hint})')
                if not state.silent:
                    self.get_logger().warning(result[-1])
            elif state.silent and state.watched and self.active:
                self.get_logger().info(f'{state.name} speaks again')
            state.silent = silent
        return result

    def _publish_diagnostics(self) -> None:
        try:
            message = DiagnosticArray(status=[self.status()])
            message.header.stamp = self.get_clock().now().to_msg()
            self._diagnostics.publish(message)
        except Exception:  # a state that cannot be told is no reason to end
            self.get_logger().error(printable(f'no diagnostics: {traceback.format_exc()}'),
                                    throttle_duration_sec=LOG_PERIOD_S)

    def status(self) -> DiagnosticStatus:
        """Return the node's state with its reason, silent topics and refused messages."""
        level, text, values = self.diagnose() if self._configured else (DiagnosticStatus.OK, 'not configured', {})
        if self._configured and not self.active:
            text = f'inactive; {text}'
        silent = self.silent_topics()
        if silent:
            level, text = max(level, DiagnosticStatus.WARN), '; '.join([text, *silent])
        counts: dict[str, object] = {}
        for state in list(self._topics.values()):
            counts[f'received {state.name}'] = state.received
            if state.bad:
                counts[f'refused {state.name}'] = state.bad
                counts[f'last refusal {state.name}'] = state.last_error
        return DiagnosticStatus(
            level=level, name=self.get_fully_qualified_name(), message=printable(text), hardware_id='sim2real_da',
            values=[KeyValue(key=printable(k), value=_text(v)) for k, v in {**values, **counts}.items()])

    # --- life ----------------------------------------

    def _attempt(self, what: str, steps: list[Callable[[], object]]) -> bool:
        """Run the steps of a transition; rclpy itself would swallow the exception without a trace."""
        try:
            for step in steps:
                step()
        except Exception as error:
            detail = '' if isinstance(error, ValueError | OSError) else f'\n{traceback.format_exc()}'
            self.get_logger().error(printable(f'{what} failed: {type(error).__name__}: {error}{detail}'))
            return False
        return True

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; on failure everything made so far is undone and the node stays unconfigured."""
        if self._attempt('configure', [self.configure, lambda: super(ManagedNode, self).on_configure(state)]):
            self._configured = True
            return TransitionCallbackReturn.SUCCESS
        self._clear()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; on failure the node stays inactive."""
        for topic in self._topics.values():
            topic.heard, topic.silent = time.monotonic(), False

        def enable() -> None:
            super(ManagedNode, self).on_activate(state)
            self.active = True

        if self._attempt('activate', [enable, self.activate, *self._hand_over]):
            return TransitionCallbackReturn.SUCCESS
        self.active = False
        self._attempt('deactivate', [self.deactivate, lambda: super(ManagedNode, self).on_deactivate(state)])
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to accept, answer what was accepted, then silence the publishers."""
        self.active = False
        done = self._attempt('deactivate', [self.deactivate, lambda: super(ManagedNode, self).on_deactivate(state)])
        return TransitionCallbackReturn.SUCCESS if done else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        return TransitionCallbackReturn.SUCCESS if self._clear() else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and free everything, from any state."""
        if self.active:
            self.on_deactivate(state)
        self._clear()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything and go back to unconfigured, from where the node can be configured again."""
        self.active = False
        self._clear()
        return TransitionCallbackReturn.SUCCESS

    def _clear(self) -> bool:
        self._configured = False
        done = self._attempt('cleanup', [self.cleanup])
        while self._undo:
            done = self._attempt('cleanup', [self._undo.pop()]) and done
        self._topics.clear()
        self._hand_over.clear()
        return done

    def start(self) -> bool:
        """Configure and activate when ``autostart`` says so; return whether that went well."""
        if not self.get('autostart'):
            return True
        return (self.trigger_configure() == TransitionCallbackReturn.SUCCESS
                and self.trigger_activate() == TransitionCallbackReturn.SUCCESS)


def _qos(depth: int | None, latched: bool = False, sensor: bool = False) -> QoSProfile:
    return QoSProfile(
        depth=depth or (1 if latched else 10),
        reliability=QoSReliabilityPolicy.BEST_EFFORT if sensor else QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE)


def printable(text: object) -> str:
    """Return text from outside as logs and messages can carry it.

    rclpy raises for a lone surrogate, which JSON and file names may hold, and cuts the text at a NUL.
    """
    return str(text).encode('utf-8', 'backslashreplace').decode().replace('\0', '\\0')


def _text(value: object) -> str:
    return f'{value:.6g}' if isinstance(value, float) else printable(value)


class _ToRos(logging.Handler):
    """Forwards the core's log to the node's, which knows the user's log level."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy ties a severity to the line that logs, so each severity has its own
        text = printable(self.format(record))
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def run(make: Callable[[], ManagedNode], args: list[str] | None = None) -> NoReturn:
    """Run a node until SIGINT or SIGTERM and end the process; status 1 when it could not start or failed."""
    status = _live(make, args)
    # All is stopped and on disk. Tearing down an interpreter with torch in it takes seconds under load, in which the
    # deadline's thread is dead already, and a launch system grants five from the signal on.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _live(make: Callable[[], ManagedNode], args: list[str] | None) -> int:
    """Run a node until SIGINT or SIGTERM and return the exit status.

    The signal handlers are this function's own: rclpy's would invalidate the context at once, and an image that was
    accepted could no longer be answered.
    """
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if not stop.is_set():
            stop.set()
            # a library call that does not return in time; what has to survive is on disk already
            timer = threading.Timer(EXIT_DEADLINE_S, lambda: os._exit(0))
            timer.daemon = True
            timer.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    freed = remove_leftovers()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node: ManagedNode | None = None
    try:
        try:
            node = make()
        except (InvalidParameterException, InvalidParameterValueException, InvalidParameterTypeException) as error:
            print(f'cannot start: {error}', file=sys.stderr)
            return 1
        if freed:
            node.get_logger().info(f'removed {freed / 2**20:.0f} MB of shared memory that killed processes had left')
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if not node.start():
            return 1
        while not stop.is_set():
            # Python runs a signal handler only between two waits, hence the short one
            executor.spin_once(timeout_sec=0.2)
        return 0
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        if node is not None:
            node.on_shutdown(LifecycleState(label='', state_id=0))
            node.destroy_node()
        rclpy.try_shutdown()


def parameter_file(table: tuple[Parameter, ...]) -> str:
    """Return the text of config/<node>.yaml: every parameter with its default and its description."""
    lines = ['# Defaults of the node, written from its parameter table by tools/write_parameter_files.py.',
             '/**:', '  ros__parameters:']
    for p in (*table, *COMMON):
        notes = '; '.join(n for n in (p.limits(), 'may change at run time' if p.live else '',
                                   'fixed when the node starts' if p.path else '') if n)
        lines += [f'    # {p.text}' + (f' ({notes})' if notes else ''), f'    {p.name}: {_yaml(p.default)}']
    return '\n'.join(lines) + '\n'


def _yaml(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f"'{value}'" if isinstance(value, str) else repr(value)
