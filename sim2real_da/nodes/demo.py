# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The whole graph on one machine, scored before and after: ``python -m sim2real_da.nodes.demo``.

Simulator, camera, adaptation, perception and evaluator run as processes that talk over DDS. Three rows come out:
``source_only``, ``adapted`` (the recipe's steps) and ``source_continued``, the control: as many steps from the same
source model without a target loss. Scoring frames are never shown while learning; nothing learns while they are scored.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray, Detection3DArray

from sim2real_da.data.bop import BopDataset
from sim2real_da.evaluation.provenance import COMMIT
from sim2real_da.evaluation.report import METRICS, Overlay, write_overlays, write_report
from sim2real_da.networks.bundle import Bundle
from sim2real_da.nodes import messages
from sim2real_da.nodes.camera import split
from sim2real_da.nodes.evaluator import scored_objects
from sim2real_da.nodes.matching import StampMatcher
from sim2real_da.nodes.runner import NodeDied, NodeSpec, Runner, graph_environment
from sim2real_da.resources import weights_file
from sim2real_da.samples import Detection, Frame, ObjectLabel, ObjectModel
from sim2real_da.simulation.objects import cache_folder

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
OVERLAYS = 6
ATTEMPTS = 3  # at an order that comes during a long validation
SCORED = 60  # frames of the surrogate's scoring set; a data set is scored whole
ROWS = ('source_only', 'source_continued', 'adapted')
ROW_KEYS = ('ap50', 'ap', 'recall', 'mean_angle_deg', 'mean_angle_matched_deg', 'mean_position_m', 'adds_recall')
# First training, where no shipped model knows the objects
TRAINING_FRAMES, TRAINING_STEPS = 2000, 6000


class DemoError(RuntimeError):
    """The demo cannot go on; the text says why."""


class Observer:
    """A node in the demo's own process: gives orders, and watches the same topics as a robot's program would.

    :param check: raises when a process of the graph has ended
    """

    def __init__(self, domain: int, objects: Mapping[str, ObjectModel], check: Callable[[], None]) -> None:
        self._check, self._objects = check, objects
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('demo', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.status: dict[str, Any] = {}
        self.reports: list[dict[str, Any]] = []
        self.seen: dict[str, tuple[Frame, list[Detection], list[ObjectLabel]]] = {}
        self.pose_arrays: set[str] = set()
        self._intrinsics: Any = None
        topics = {
            'real/image': Image, 'ground_truth': Detection3DArray, 'perception/detections': Detection2DArray,
            'perception/detections_3d': Detection3DArray, 'perception/poses': PoseArray,
        }
        self._matcher = StampMatcher(topics, capacity=40)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, 50)
        self.node.create_subscription(String, 'evaluator/report', self._reported, LATCHED)
        self.node.create_subscription(CameraInfo, 'real/camera_info', self._camera, 1)
        for topic, kind in topics.items():
            self.node.create_subscription(kind, topic, self._collector(topic), 20)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _diagnosed(self, message: DiagnosticArray) -> None:
        self.status.update({status.name.lstrip('/'): status for status in message.status})

    def _reported(self, message: String) -> None:
        self.reports.append(json.loads(message.data))

    def _camera(self, message: CameraInfo) -> None:
        self._intrinsics = messages.read_camera_info(message, 'real/camera_info')

    def _collector(self, topic: str) -> Callable[[Any], None]:
        def collect(message: Any) -> None:
            found = self._matcher.add(topic, messages.nanoseconds(message.header.stamp), message)
            if found is not None and self._intrinsics is not None:
                self._keep(found)
        return collect

    def _keep(self, found: Mapping[str, Any]) -> None:
        """Remember what was found in each scoring frame, for the pictures before and after."""
        truth = found['ground_truth']
        if not truth.detections:
            return
        key = truth.detections[0].id.split('/')[0]
        self.pose_arrays.add(key)
        image = messages.read_image(found['real/image'], 'real/image')
        labels = messages.read_labels(truth, 'ground_truth', self._intrinsics, self._objects).labels
        detections = messages.read_detections(
            found['perception/detections'], found['perception/detections_3d'], 'perception')
        self.seen[key] = (Frame(image, self._intrinsics), [d for d in detections if d.score >= 0.3], list(labels))

    def value(self, node: str, key: str) -> str:
        """Return one value of a node's last diagnostics, empty when it has not spoken."""
        status = self.status.get(node)
        return next((v.value for v in status.values if v.key == key), '') if status is not None else ''

    def until(self, condition: Callable[[], Any], what: str, timeout: float,
              meanwhile: Callable[[], None] = lambda: None) -> None:
        """Listen until a condition holds.

        :raises DemoError: when it takes too long; the text has what the nodes say of themselves
        :raises NodeDied: when a node has ended
        """
        end = time.monotonic() + timeout
        while not condition():
            self._check()
            if time.monotonic() > end:
                told = '\n'.join(f'  {name}: {status.message}' for name, status in sorted(self.status.items()))
                raise DemoError(f'waited {timeout:.0f} s for {what}; the nodes say:\n{told}')
            self._executor.spin_once(timeout_sec=0.1)
            meanwhile()

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(kind, name)
        try:
            self.until(client.service_is_ready, f'the service {name}', 60)
            future = client.call_async(request)
            self.until(future.done, f'an answer of {name}', 120)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def order(self, name: str) -> str:
        """Call a std_srvs/Trigger.

        :raises DemoError: when it is refused
        """
        for _ in range(ATTEMPTS):
            answer = self.call(Trigger, name, Trigger.Request())
            if answer.success or messages.ASK_AGAIN not in answer.message:
                break
        if not answer.success:
            raise DemoError(f'{name} was refused: {answer.message}')
        return str(answer.message)

    def set_parameter(self, node: str, name: str, value: object) -> None:
        """Set a parameter.

        :raises DemoError: when it is refused
        """
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, f'{node}/set_parameters', request).results[0]
        if not result.successful:
            raise DemoError(f'{node}: {result.reason}')


class Demo:
    """One run.

    :param options: of the command line
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.begin = time.monotonic()
        self.out: Path = options.out
        self.data: Path | None = options.data.resolve() if options.data else None
        self.spec = str(self.data) if self.data else 'tools'
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.state_dir = self.out / 'state'
        self.frames = len(split(BopDataset(self.data).ids())[1]) if self.data else SCORED
        self.rows: dict[str, dict[str, Any]] = {}
        self.pictures: dict[str, dict[str, tuple[Frame, list[Detection], list[ObjectLabel]]]] = {}
        self.arms: dict[str, dict[str, Any]] = {}

    # --- progress ----------------------------------------

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        spent = int(time.monotonic() - self.begin)
        self.console.print(f'[dim]{spent // 60:2d}:{spent % 60:02d}[/dim]  {text}', soft_wrap=True)

    def follow(self, observer: Observer, what: str, condition: Callable[[], Any], timeout: float, total: float,
               reached: Callable[[], float], note: Callable[[], str] = lambda: '') -> None:
        """Wait with a progress bar, or with a line every 15 s where there is no terminal."""
        last = [time.monotonic()]
        columns = (SpinnerColumn(), TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[note]}'),
                   TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(what, total=total, note='')

            def show() -> None:
                progress.update(task, completed=reached(), note=note())
                if not self.console.is_terminal and time.monotonic() - last[0] > 15:
                    last[0] = time.monotonic()
                    self.say(f'{what}: {reached():.0f} of {total:.0f}  {note()}')

            observer.until(condition, what, timeout, show)

    # --- graph ----------------------------------------

    def perception(self, weights: Path) -> NodeSpec:
        """Perception shows weak detections, too: average precision needs them."""
        return NodeSpec('perception', parameters={
            'weights': str(weights), 'device': self.device, 'score_threshold': 0.05, **_reliable('real/image')},
            remappings={'weights': 'adaptation/weights'})

    def camera(self) -> NodeSpec:
        """Camera on the data set, or on the surrogate world."""
        source = {'source': str(self.data)} if self.data else {}
        return NodeSpec('camera', parameters={
            **source, 'stream': 'scoring', 'rate': self.options.rate, 'count': self.frames})

    def adaptation(self, weights: Path, recipe: str, steps: int) -> NodeSpec:
        """Adaptation for one arm; versions go on from those of the arm before."""
        return NodeSpec('adaptation', parameters={
            'weights': str(weights), 'recipe': recipe, 'state_dir': str(self.state_dir), 'device': self.device,
            'seed': self.options.seed, 'gate_every': self.options.gate_every,
            'tolerance': self.options.tolerance, 'max_steps': steps, 'duty_cycle': 1.0,
            # the control is published to be measured; evidence would keep it back
            'evidence': recipe != 'source_continued',
            'nice': 5, **_reliable('real/image')})

    def run(self) -> dict[str, Any]:
        """Run everything and return the summary.

        :raises DemoError: when something takes too long or refuses
        :raises NodeDied: when a node ended
        """
        if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / 'logs').is_dir():
            raise DemoError(f'{self.out} holds something else than a demo\'s results; name another folder by --out')
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        weights = self.prepare_weights()
        objects = scored_objects(self.spec)
        domain = 1 + os.getpid() % 100
        environment = graph_environment(domain)
        os.environ.update(environment)
        with Runner(self.out / 'logs', environment) as runner:
            observer = Observer(domain, objects, runner.check)
            try:
                self.start(runner, observer, weights)
                self.score(observer, 'source_only')
                steps = self.adapt(runner, observer, weights, 'adapted', self.options.recipe, self.options.steps)
                self.adapt(runner, observer, weights, 'source_continued', 'source_continued', steps)
            finally:
                observer.close()
        return self.finish(objects)

    def prepare_weights(self) -> Path:
        """Return the source model of these objects: shipped, trained earlier, or trained now."""
        if self.options.weights:
            return Path(self.options.weights)
        names = list(scored_objects(self.spec))
        for path in (weights_file('tools'), weights_file('lmo'), self._trained_path()):
            if path.is_file() and list(Bundle.load(path).classes) == names:
                self.say(f'source model: {path.name}')
                return path
        from sim2real_da.simulation.render import render_dataset
        from sim2real_da.training import Plan, train

        path = self._trained_path()
        self.say(f'no source model knows {self.spec}: rendering {TRAINING_FRAMES} pictures and training on them; this '
                 f'happens once and takes an hour or more on two cores')
        rendered = path.with_suffix('')
        render_dataset(self.spec, rendered, TRAINING_FRAMES, seed=0, jobs=os.cpu_count() or 1)
        train(BopDataset(rendered, 'train'), path, Plan(steps=TRAINING_STEPS, device=self.device, effects=True))
        return path

    def _trained_path(self) -> Path:
        return cache_folder() / f'source-{self.data.name if self.data else "tools"}.safetensors'

    def start(self, runner: Runner, observer: Observer, weights: Path) -> None:
        """Start what runs all the time."""
        self.say('starting camera, perception and evaluator' + (
            '' if self.data else ' (the first time the surrogate world is drawn, about a minute)'))
        for spec in (self.camera(), self.perception(weights), NodeSpec('evaluator', parameters={
                'objects': self.spec, 'frames': self.frames, **_reliable('real/image')},
                remappings={'detections': 'perception/detections', 'detections_3d': 'perception/detections_3d'})):
            runner.start(spec)
        for name in ('camera', 'perception', 'evaluator'):
            self._wait_active(observer, name)

    def _wait_active(self, observer: Observer, name: str) -> None:
        observer.until(lambda: name in observer.status and 'not configured' not in observer.status[name].message
                       and 'inactive' not in observer.status[name].message, f'{name} to start', 300)

    # --- scoring ----------------------------------------

    def score(self, observer: Observer, row: str) -> None:
        """Score what perception publishes now on every frame of the scoring set."""
        observer.set_parameter('camera', 'stream', 'scoring')
        observer.reports.clear()
        observer.order('evaluator/start')
        # what was seen with other weights is forgotten only now: images in flight belong to the old stream
        observer.seen.clear()
        observer.pose_arrays.clear()
        observer.reports.clear()
        self.follow(
            observer, f'scoring {row}', lambda: observer.reports and len(observer.pose_arrays) >= self.frames, 300,
            self.frames, lambda: float(observer.value('evaluator', 'frames_scored') or 0))
        report = observer.reports[-1]
        if 'error' in report:
            raise DemoError(f'evaluator: {report["error"]}')
        self.rows[row] = report
        self.pictures[row] = dict(observer.seen)
        self.say(f'[bold]{row}[/bold]: AP50 {report["ap50"]:.3f}, recall {report["recall"]:.3f}, mean angle '
                 f'{report["mean_angle_deg"]:.1f} degrees ({report["frames_scored"]} frames, weights version '
                 f'{observer.value("perception", "weights_version")})')

    # --- adaptation ----------------------------------------

    def adapt(self, runner: Runner, observer: Observer, weights: Path, row: str, recipe: str, steps: int) -> int:
        """Learn by one recipe, score, and put the source model back; return the steps taken."""
        observer.set_parameter('camera', 'stream', 'adaptation')
        runner.start(NodeSpec('simulator', parameters={
            'objects': self.spec, 'seed': self.options.seed, 'rate': self.options.rate}))
        observer.status.pop('adaptation', None)
        runner.start(self.adaptation(weights, recipe, steps))
        self.say(f'adapting by the recipe {recipe}, {steps} steps')
        self._wait_active(observer, 'adaptation')
        began = [0.0]
        limit = [steps]

        def step() -> float:
            return float(observer.value('adaptation', 'step') or 0)

        def note() -> str:
            said = [observer.value('adaptation', key) or '0' for key in ('state', 'promotions', 'rejections')]
            return f'{said[0]}, {said[1]} promoted, {said[2]} rejected'

        def finished() -> bool:
            state = observer.value('adaptation', 'state')
            if state == 'faulted':
                raise DemoError(f'adaptation: {observer.value("adaptation", "reason")}')
            if step() > 0 and not began[0]:
                began[0] = time.monotonic()
            late = began[0] and time.monotonic() - began[0] > self.options.seconds_per_arm
            if row == 'adapted' and late and limit[0] == steps and step() < steps:
                # a slow machine: end at the next validation; the control gets as many steps
                every = self.options.gate_every
                limit[0] = min(steps, (int(step()) // every + 1) * every)
                observer.set_parameter('adaptation', 'max_steps', limit[0])
                self.say(f'{self.options.seconds_per_arm:.0f} s are over: this arm ends at step {limit[0]}')
            return state == 'done'

        self.follow(observer, f'adapting by {recipe}', finished, 900, steps, step, note)
        runner.stop(['simulator'])
        version = observer.value('adaptation', 'version')
        observer.until(lambda: observer.value('perception', 'weights_version') == version,
                       f'perception to take version {version}', 60)
        self.arms[row] = {key: float(observer.value('adaptation', key) or 0)
                          for key in ('promotions', 'rejections', 'buffer_frames', 'source_frames')}
        observer.order('adaptation/save')  # writes the history up to the last step, a rejected candidate's included
        shutil.copy(self.state_dir / 'history.json', self.out / f'history_{row}.json')
        self.say(f'{recipe}: {self.arms[row]["promotions"]:.0f} promoted, {self.arms[row]["rejections"]:.0f} rejected')
        self.score(observer, row)
        observer.order('adaptation/pause')
        self.say(observer.order('adaptation/reset'))
        observer.until(lambda: observer.value('perception', 'weights_version') not in ('', version),
                       'perception to take the source model back', 60)
        runner.stop(['adaptation'])
        return limit[0]

    # --- result ----------------------------------------

    def finish(self, objects: Mapping[str, ObjectModel]) -> dict[str, Any]:
        """Write summary, pictures, curves and page; print the table."""
        adapted = self.rows['adapted']
        summary = {
            **{row: {**{k: self.rows[row][k] for k in ROW_KEYS}, 'objects': self.rows[row]['objects']} for row in ROWS},
            'latency_ms': adapted['latency_ms'],
            'frames_in': sum(self.rows[row]['frames_in'] for row in ROWS),
            'frames_out': sum(self.rows[row]['frames_out'] for row in ROWS),
            'frames_scored': adapted['frames_scored'],
            'promotions': int(self.arms['adapted']['promotions']),
            'rejections': int(self.arms['adapted']['rejections']),
            'steps': len(json.loads((self.out / 'history_adapted.json').read_text(encoding='utf-8'))),
            'recipe': self.options.recipe, 'data': self.data.name if self.data else 'surrogate',
            'seed': self.options.seed, 'seconds': round(time.monotonic() - self.begin, 1),
            'command': ' '.join([Path(sys.executable).name, '-m', 'sim2real_da.nodes.demo', *sys.argv[1:]]),
            'commit': COMMIT, 'hardware': _hardware(self.device),
        }
        (self.out / 'summary.json').write_text(json.dumps(summary, indent=1), encoding='utf-8')
        shutil.copy(self.out / 'history_adapted.json', self.out / 'history.json')
        before, after = self.pictures['source_only'], self.pictures['adapted']
        keys = sorted(before.keys() & after.keys(), key=int)
        chosen = keys[::max(1, len(keys) // OVERLAYS)][:OVERLAYS]
        write_overlays(self.out, [Overlay(f'frame_{int(k):06d}', before[k][0], before[k][1], after[k][1], before[k][2])
                                  for k in chosen], objects)
        page = write_report(self.out)
        self.table()
        self.say(f'report: {page}')
        return summary

    def table(self) -> None:
        """Print the three rows."""
        table = Table(title=f'{self.data.name if self.data else "surrogate"}: {self.rows["adapted"]["frames_scored"]} '
                            f'scoring frames')
        table.add_column('row', no_wrap=True)
        shown = [metric for metric in METRICS if metric.key not in ('ap', 'adds_recall', 'bop_ar')]  # for 80 columns
        for metric in shown:
            table.add_column(metric.title, justify='right')
        for row in ROWS:
            table.add_row(row, *[metric.text(self.rows[row].get(metric.key)) for metric in shown])
        self.console.print(table)


def _reliable(topic: str) -> dict[str, object]:
    """Every image counts here; a robot's nodes take what arrives."""
    return {f'qos_overrides./{topic}.subscription.reliability': 'reliable'}


def _hardware(device: str) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    gpu = f', {torch.cuda.get_device_name()}' if device == 'cuda' else ', no GPU'
    return f'{platform.machine()}, {cores} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}'


def arguments() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog='python -m sim2real_da.nodes.demo', description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, help='BOP data set: its models are simulated, its photographs the camera')
    parser.add_argument('--weights', type=Path, help='source model; by default the shipped one of these objects')
    parser.add_argument('--out', type=Path, default=Path('demo_output'), help='folder of the results; it is replaced')
    parser.add_argument('--recipe', default='dann', help='how to adapt')
    parser.add_argument('--steps', type=int, default=100, help='learning steps of each arm')
    parser.add_argument('--gate-every', type=int, default=25, help='steps between two validations')
    parser.add_argument('--tolerance', type=float, default=0.05, help='how far AP50 and pose score on held-out '
                        'simulation may fall; a demo has few frames to measure it on')
    parser.add_argument('--seconds-per-arm', type=float, default=150.0, help='the adapting arm ends at the next '
                        'validation after this long; the control gets as many steps')
    parser.add_argument('--rate', type=float, default=3.0, help='camera and simulator images in a second; on two '
                        'cores a higher rate leaves the learner less')
    parser.add_argument('--seed', type=int, default=0)
    return parser


def main(args: list[str] | None = None) -> int:
    """Run the demo; 0 when it came to its end, 1 when a node died or something did not come about."""
    options = arguments().parse_args(args)
    # ended by a supervisor as by Ctrl-C: the nodes are stopped in order
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    try:
        Demo(options, console).run()
    except (DemoError, NodeDied, OSError, ValueError) as error:
        console.print(f'[bold red]the demo failed:[/bold red] {error}', markup=True)
        return 1
    except KeyboardInterrupt:
        console.print('stopped')
        return 130
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
