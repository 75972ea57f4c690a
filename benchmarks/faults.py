# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Faults tried on running graphs and counted: is anything lost or broken, does a node die, does it come back?

``python benchmarks/faults.py --kills 200`` (``make soak`` does this as well)

Two robots share a DDS domain, each in a namespace of its own with a perception and an adaptation node. The network is
untrained and the gate tolerates everything, so that a version is written every two steps. This process is their camera.
What each number means is in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from provenance import provenance
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from soak import memory_mb
from std_msgs.msg import UInt8MultiArray
from vision_msgs.msg import Detection2DArray

from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.nodes import messages
from sim2real_da.nodes.runner import NodeSpec, graph_environment, transport_environment
from sim2real_da.simulation.objects import tools
from sim2real_da.simulation.render import default_intrinsics, render_dataset

log = logging.getLogger(__name__)
SIZE = (320, 240)
NODES = ('perception', 'adaptation')
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
START_S = 120.0  # for a node to answer, on loaded cores
PERIOD_S = 0.2  # between two pictures
DISK_MB = 220  # of the small disk; five versions with their learner states fit
SECOND = 10**9


class Robot:
    """One robot's nodes, its camera, and what was heard from them.

    :param node: of this process
    :param simulation: rendered set
    """

    def __init__(self, name: str, folder: Path, weights: Path, simulation: Path, node: Any,
                 environment: dict[str, str], state: Path | None = None, **parameters: object) -> None:
        self.name, self.state = name, state or folder / f'{name}_state'
        self.log = folder / f'{name}.log'
        self.environment = environment
        self.parameters: dict[str, dict[str, object]] = {
            'perception': {'weights': str(weights), 'score_threshold': 0.0, **parameters},
            'adaptation': {
                'weights': str(weights), 'state_dir': str(self.state), 'source': 'folder',
                'source_folder': str(simulation), 'holdout': 4, 'gate_every': 2, 'tolerance': 1.0, 'batch_source': 2,
                'batch_target': 2, 'duty_cycle': 1.0, 'nice': 0, 'evidence': False, **parameters}}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.published: list[int] = []
        self.unverified = 0  # weights on the topic that cannot be used, or were not on the disk before
        self.answers: list[int] = []
        self.strangers = 0  # answers to another robot's camera
        self.status: dict[str, DiagnosticStatus] = {}
        self.reports = 0
        self.image = node.create_publisher(Image, f'/{name}/real/image', 5)
        self.info = node.create_publisher(CameraInfo, f'/{name}/real/camera_info', 5)
        node.create_subscription(UInt8MultiArray, f'/{name}/adaptation/weights', self._weights, LATCHED)
        node.create_subscription(Detection2DArray, f'/{name}/perception/detections', self._answer, 50)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._report, 100)

    def _weights(self, message: UInt8MultiArray) -> None:
        try:
            version = Bundle.from_bytes(bytes(message.data)).version
        except WeightsError as error:
            log.error('%s published weights that cannot be used: %s', self.name, error)
            self.unverified += 1
            return
        self.unverified += version > max(self.versions(), default=0)
        self.published.append(version)

    def _answer(self, message: Detection2DArray) -> None:
        self.strangers += message.header.frame_id != self.name
        self.answers.append(messages.nanoseconds(message.header.stamp))

    def _report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f'/{self.name}/'):
                self.status[status.name.rsplit('/', 1)[1]] = status
                self.reports += 1

    def versions(self) -> list[int]:
        """Return the versions on the disk."""
        return sorted(int(p.name[1:7]) for p in self.state.glob('v??????.safetensors'))

    def value(self, node: str, key: str) -> str:
        """Return a value of a node's last diagnostics, '' where there is none."""
        status = self.status.get(node)
        return next((v.value for v in status.values if v.key == key), '') if status else ''

    def start(self, *nodes: str) -> None:
        """Start nodes; they are not waited for."""
        for node in nodes or NODES:
            remap = {'weights': 'adaptation/weights'} if node == 'perception' else {}
            words = NodeSpec(node, '', self.parameters[node], remap).command()
            with self.log.open('ab') as file:
                self.processes[node] = subprocess.Popen(
                    [*words, '-r', f'__ns:=/{self.name}'], stdout=file, stderr=subprocess.STDOUT,
                    env=self.environment, start_new_session=True)

    def end(self, node: str, number: int = signal.SIGKILL) -> float:
        """Send a signal to a node and return after how many seconds it was gone."""
        process, begin = self.processes.pop(node), time.monotonic()
        self.status.pop(node, None)
        process.send_signal(number)
        process.wait(30)
        return time.monotonic() - begin

    def damage(self) -> list[str]:
        """Return what is wrong with the files in the state folder."""
        found = []
        for version in self.versions():
            try:
                Bundle.load(self.state / f'v{version:06d}.safetensors')
            except WeightsError as error:
                found.append(str(error))
        return found


class Graph:
    """This process's node, the robots, and time that passes with pictures in it."""

    def __init__(self, folder: Path, simulation: Path, domain: int) -> None:
        os.environ.update(transport_environment())
        self.folder, self.simulation = folder, simulation
        self.environment = graph_environment(domain)
        self.weights = folder / 'untrained.safetensors'
        torch.manual_seed(0)
        Bundle.create({t.name: t.model for t in tools()}, {'input_size': (160, 120), 'width': 8},
                      {'width': 8, 'hidden': 16}).save(self.weights)
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('faults', context=self.context)
        self.clock = self.node.create_publisher(Clock, '/clock', 5)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.rng = np.random.default_rng(0)
        self.stamp = SECOND
        self.robots: list[Robot] = []
        self._due = 0.0

    def robot(self, name: str, **options: Any) -> Robot:
        """Return a robot whose nodes have not been started."""
        made = Robot(name, self.folder, self.weights, self.simulation, self.node, self.environment, **options)
        self.robots.append(made)
        return made

    def show(self, robot: Robot, again: bool = False) -> int:
        """Show a new picture, or the last one again, and return its stamp."""
        self.stamp += SECOND // 100
        head = messages.header(self.stamp, robot.name)
        if not again:
            pixels = self.rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
            self._picture = messages.image_message(pixels.repeat(8, axis=0).repeat(8, axis=1), head)
            robot.info.publish(messages.camera_info_message(default_intrinsics('tools', *SIZE), head))
        self._picture.header = head
        robot.image.publish(self._picture)
        return self.stamp

    def spin(self, seconds: float, period: float = PERIOD_S) -> None:
        """Let time pass; every robot with a running node sees pictures."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= self._due:
                self._due = now + period
                for robot in self.robots:
                    if robot.processes:
                        self.show(robot)
            self.listen(0.02)

    def listen(self, seconds: float) -> None:
        """Take at most one message."""
        self._executor.spin_once(timeout_sec=seconds)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = START_S) -> float:
        """Let time pass until a condition holds and return how long that took.

        :raises SystemExit: when it does not come true in time
        """
        begin = time.monotonic()
        while not condition():
            if time.monotonic() > begin + timeout:
                raise SystemExit(f'faults: waited {timeout:.0f} s for {what}; logs in {self.folder}')
            self.spin(0.05)
        return time.monotonic() - begin

    def close(self) -> None:
        """Stop everything."""
        for robot in self.robots:
            for node in list(robot.processes):
                robot.end(node, signal.SIGTERM)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def learning(robot: Robot) -> Callable[[], bool]:
    """Return whether the robot has published something new since this was called."""
    before = len(robot.published)
    return lambda: len(robot.published) > before and robot.published[-1] > max(robot.published[:before], default=0)


# --- the faults ----------------------------------------

def kills(graph: Graph, robots: list[Robot], count: int) -> dict[str, Any]:
    """Kill nodes at random moments, their starts included, and start them again at once."""
    lost = broken = done = 0
    hit = dict.fromkeys(NODES, 0)
    while done < count:
        graph.spin(float(graph.rng.uniform(0, 5)))
        robot = robots[int(graph.rng.integers(len(robots)))]
        node = NODES[int(graph.rng.integers(2))]
        robot.end(node)
        graph.spin(0.1)  # what it had published may still be on its way
        if node == 'adaptation':
            lost += max(robot.versions(), default=0) < max(robot.published, default=0)
            broken += len(robot.damage())
        robot.start(node)
        hit[node] += 1
        done += 1
        if done % 20 == 0:
            log.info('%d kills, versions %s', done, [max(r.versions(), default=0) for r in robots])
    slowest = max(graph.until(learning(r), f'{r.name} to publish again') for r in robots)
    for robot in robots:
        graph.until(lambda r=robot: r.value('perception', 'weights_version') == str(r.published[-1]),
                    f'perception of {robot.name} to take the newest version')
    leftovers = sum(time.time() - p.stat().st_mtime > 30 for r in robots for p in r.state.glob('.*.unfinished'))
    return {**hit, 'lost_promotions': lost, 'broken_files': broken, 'unverified': sum(r.unverified for r in robots),
            'leftovers_after_restart': leftovers, 'versions_written': sum(max(r.versions()) for r in robots),
            'slowest_return_s': round(slowest, 1),
            'shared_memory_mb': round(sum(p.stat().st_size for name in ('fastrtps', 'fastdds')
                                          for p in Path('/dev/shm').glob(f'{name}_*')) / 2**20)}


def two_robots(graph: Graph, robots: list[Robot]) -> dict[str, Any]:
    """Answers and weights stay in their namespaces: one robot stops to learn, the other goes on."""
    first, second = robots
    first.end('adaptation', signal.SIGTERM)
    graph.spin(1.0)
    version = first.value('perception', 'weights_version')
    graph.until(learning(second), 'the second robot to go on')
    graph.spin(2.0)
    kept = first.value('perception', 'weights_version') == version
    first.start('adaptation')
    graph.until(learning(first), 'the first robot to come back')
    return {'answers': sum(len(r.answers) for r in robots), 'answers_to_the_other_camera': sum(
        r.strangers for r in robots), 'weights_of_the_other_taken': int(not kept)}


def late_joiner(graph: Graph, robot: Robot) -> dict[str, Any]:
    """A perception node that comes after the publication takes the latched weights."""
    robot.end('perception', signal.SIGTERM)
    graph.until(learning(robot), 'a publication in its absence')
    robot.start('perception')
    seconds = graph.until(lambda: robot.value('perception', 'weights_version') == str(robot.published[-1]),
                          'the late perception to take the newest version')
    return {'took_the_newest': True, 'seconds_from_start': round(seconds, 1)}


def clock_jumps(graph: Graph, robot: Robot) -> dict[str, Any]:
    """Stamps and /clock jump; every picture shown singly is answered and diagnostics go on."""
    shown = answered = 0
    others, graph.robots = graph.robots, []  # no pictures in between
    reports = []
    for jump in (86_400, -172_800, 3_600, -1, 0):
        graph.stamp = max(SECOND, graph.stamp + jump * SECOND)
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = divmod(graph.stamp, SECOND)
        graph.clock.publish(clock)
        before = robot.reports
        for _ in range(5):
            stamp = graph.show(robot)
            shown += 1
            end = time.monotonic() + 5
            while stamp not in robot.answers and time.monotonic() < end:
                graph.spin(0.02)
            answered += stamp in robot.answers
        graph.spin(3.0)
        reports.append(robot.reports - before)
    graph.robots = others
    return {'shown': shown, 'answered': answered, 'fewest_diagnostics_in_3_s': min(reports)}


def high_rate(graph: Graph, robot: Robot, seconds: float = 20.0, rate: float = 300.0) -> dict[str, Any]:
    """Pictures at ten times a camera's 30 a second."""
    others, graph.robots = graph.robots, [robot]
    graph.spin(3.0)
    memory = {node: memory_mb(robot.processes[node].pid) for node in NODES}
    begin, first, answers = time.monotonic(), graph.stamp, len(robot.answers)
    due = begin
    while (now := time.monotonic()) < begin + seconds:
        if now >= due:
            graph.show(robot, again=True)
            due += 1 / rate
        else:
            graph.listen(due - now)
    sent = (graph.stamp - first) // (SECOND // 100)
    graph.robots = []
    graph._due = 0.0
    last = graph.stamp
    end = time.monotonic() + 10
    while last not in robot.answers and time.monotonic() < end:
        graph.spin(0.02)
    found = {'sent_a_second': round(sent / seconds, 1), 'answered_a_second': round(
        (len(robot.answers) - answers) / seconds, 1), 'newest_answered': last in robot.answers,
        'rss_growth_mb': {node: round(memory_mb(robot.processes[node].pid) - memory[node], 1) for node in NODES}}
    graph.robots = others
    return found


def shutdown(graph: Graph, robot: Robot) -> dict[str, Any]:
    """SIGINT and SIGTERM at random moments; how long the slowest node took to end."""
    slowest: dict[str, float] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        for _ in range(3):
            graph.spin(float(graph.rng.uniform(0, 6)))
            for node in NODES:
                slowest[node] = round(max(slowest.get(node, 0.0), robot.end(node, number)), 2)
            robot.start()
    graph.until(learning(robot), f'{robot.name} to publish again')
    return {f'slowest_{node}_s': seconds for node, seconds in slowest.items()}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small disk; None where this process may not."""
    folder.mkdir()
    options = ['mount', '-t', 'tmpfs', '-o', f'size={DISK_MB}m', 'tmpfs', str(folder)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def disk(graph: Graph, folder: Path) -> dict[str, Any]:
    """A disk that fills up, empties, and becomes read-only under a learning node."""
    robot = graph.robot('small', state=folder / 'state')
    robot.start('adaptation')
    graph.until(learning(robot), 'the first version on the small disk')
    refused = 'cannot be written'

    def says_so() -> bool:
        return refused in robot.value('adaptation', 'reason')

    with (folder / 'filler').open('wb') as filler:
        try:
            while True:
                filler.write(bytes(2**16))
                filler.flush()
        except OSError:
            log.info('the disk is full')
    found: dict[str, Any] = {'full_named': graph.until(says_so, 'a full disk to be named') > 0}
    version = robot.published[-1]
    graph.spin(5.0)
    found |= {'published_while_full': robot.published[-1] - version, 'broken_files': len(robot.damage())}
    (folder / 'filler').unlink()
    found['seconds_to_go_on'] = round(graph.until(learning(robot), 'a version once there is room'), 1)
    subprocess.run(['mount', '-o', 'remount,ro', str(folder)], check=True)
    found['read_only_named'] = graph.until(says_so, 'a read-only disk to be named') > 0
    version = robot.published[-1]
    graph.spin(5.0)
    found['published_while_read_only'] = robot.published[-1] - version
    robot.end('adaptation')
    count = len(robot.published)
    robot.start('adaptation')
    graph.until(lambda: len(robot.published) > count, 'the last version after a start on a read-only disk')
    found['starts_from_a_read_only_disk_with'] = robot.published[-1] - version  # versions later or earlier
    other = graph.robot('empty', state=folder / 'none')
    other.start('adaptation')
    found['status_of_a_start_without_versions'] = other.processes.pop('adaptation').wait(START_S)
    found['it_says'] = next((line for line in reversed(other.log.read_text(errors='replace').splitlines())
                             if 'failed' in line), '').split(': ', 1)[-1].replace(str(graph.folder), 'FOLDER')
    subprocess.run(['mount', '-o', 'remount,rw', str(folder)], check=True)
    graph.until(learning(robot), 'a version once the disk is writable')
    found |= {'went_on_from_disk': robot.published[-1] > version, 'unverified': robot.unverified}
    robot.end('adaptation')
    return found


def main() -> None:
    """Try the faults and write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--disk-only', action='store_true', help='leave out what concerns two robots')
    parser.add_argument('--domain', type=int, default=77, help='ROS_DOMAIN_ID of the graphs')
    parser.add_argument('--json', type=Path, default=Path(__file__).parent / 'results' / 'faults.json')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    # a shell that starts this in the background hands down an ignored SIGINT: nodes would not hear it while they load
    signal.signal(signal.SIGINT, signal.default_int_handler)
    about = provenance()
    folder = Path(tempfile.mkdtemp(prefix='sim2real_da_faults_'))
    render_dataset('tools', folder / 'simulation', 120, 9201, *SIZE)
    graph = Graph(folder, folder / 'simulation', options.domain)
    found: dict[str, Any] = json.loads(options.json.read_text(encoding='utf-8')) if options.json.is_file() else {}

    def note(name: str, fault: Callable[[], dict[str, Any]]) -> None:
        begin = time.monotonic()
        found[name] = fault() | {'took_s': round(time.monotonic() - begin, 1), **about}
        log.info('%s: %s', name, found[name])
        options.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')

    try:
        if not options.disk_only:
            on_robots(graph, options.kills, note)
        with small_disk(folder / 'disk') as mounted:
            note('disk', lambda: disk(graph, mounted) if mounted else {'not_tried': 'no right to mount a small disk'})
    finally:
        graph.close()
    shutil.rmtree(folder, ignore_errors=True)


def on_robots(graph: Graph, count: int, note: Callable[[str, Callable[[], dict[str, Any]]], None]) -> None:
    """Start two robots, try everything that concerns them, and stop them."""
    robots = [graph.robot('left'), graph.robot('right', use_sim_time=True)]
    for robot in robots:
        robot.start()
    for robot in robots:
        graph.until(learning(robot), f'{robot.name} to publish')
        graph.until(lambda r=robot: r.answers, f'{robot.name} to answer')
    first, second = robots
    note('two_robots', lambda: two_robots(graph, robots))
    note('late_joiner', lambda: late_joiner(graph, first))
    note('clock_jumps', lambda: clock_jumps(graph, second))
    note('high_rate', lambda: high_rate(graph, first))
    note('shutdown', lambda: shutdown(graph, first))
    note('kills', lambda: kills(graph, robots, count))
    for robot in robots:
        for node in list(robot.processes):
            robot.end(node, signal.SIGTERM)


if __name__ == '__main__':
    main()
