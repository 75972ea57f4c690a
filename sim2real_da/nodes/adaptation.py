# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptation node: labelled simulation and unlabelled camera images in, validated weights out.

Simulation comes from a running simulator's topics, or from a folder rendered before. Callbacks only translate and
store; a thread of low priority does the micro-steps, so perception (another process) never waits for it. New weights
are on disk before they are on the topic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import UInt8MultiArray
from std_srvs.srv import Trigger

from sim2real_da.data.folder import RenderedFrames, labelled_set
from sim2real_da.networks.bundle import Bundle, write_atomically
from sim2real_da.nodes import messages
from sim2real_da.nodes.camera_input import COMPRESSED, RECTIFIED, CameraInput
from sim2real_da.nodes.labels import LABEL_SOURCES, LabelSource
from sim2real_da.nodes.labels import PARAMETERS as LABELS
from sim2real_da.nodes.node import ManagedNode, Parameter, check_device, printable, run
from sim2real_da.online.curves import Curves
from sim2real_da.online.gate import Decision
from sim2real_da.online.session import GAP, REPLAY, AdaptationSession, Promotion
from sim2real_da.online.store import WeightStore, alone_in
from sim2real_da.recipes import load_recipe
from sim2real_da.resources import weights_path
from sim2real_da.samples import LabelledFrame

CAMERA_NAME = re.compile(r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*')
LIVE = ('max_steps', 'gate_every', 'tolerance', 'evidence')  # parameters that a running session follows
IDLE_S = 0.1  # pause of the worker when there is nothing to do
REST_S = 0.002  # least pause between two steps, so that a waiting service gets the lock
JOIN_S = 3.5
PATIENCE_S = 30.0  # that a service waits for the step or validation in work
WATCH_S = 60.0  # between two looks at the published weights while nothing is learnt


def _of(session: AdaptationSession) -> Promotion:
    """Return the session's current version as it is published when a node starts."""
    current = session.current()
    return Promotion(current.version, current.to_bytes(), Decision(True, 'the newest on disk'))


def _what(promotion: Promotion) -> str:
    return f'version {promotion.version}: {promotion.decision.reason}'


class Adaptation(ManagedNode):
    """See the module and the table of topics in the README."""

    PARAMETERS = (
        Parameter('weights', 'tools', 'source model: safetensors file, or the name of a shipped one', path=True),
        Parameter('source', 'topics', 'labelled simulation: topics of a running simulator, or a folder rendered before',
                  choices=('topics', 'folder')),
        Parameter('source_folder', '', 'a set written by sim2real_da render, for source folder', path=True),
        *LABELS,
        Parameter('recipe', 'dann', 'recipe of config/recipes, or the path of a YAML file', path=True),
        Parameter('state_dir', '~/.ros/sim2real_da', 'folder of the weight versions; adaptation goes on from there',
                  path=True),
        Parameter('device', 'cpu', 'torch device: cpu, cuda, cuda:0 …'),
        Parameter('seed', 0, 'seed of batches and of the validation', 0, 2**31 - 1),
        Parameter('gate_every', 25, 'learning steps between two candidates', 1, 100_000, live=True),
        Parameter('tolerance', 0.01, 'how far AP50 and pose score on held-out simulation may fall (0.01: one point)',
                  0.0, 1.0, live=True),
        Parameter('evidence', True, 'unlabelled camera frames have a say in the gate; false: simulation alone',
                  live=True),
        Parameter('labelled_folder', '',
                  'a few labelled camera frames as BOP data (split test): the gate decides by them alone', path=True),
        Parameter('shadow', False, 'learn, judge and keep versions, but publish none: see what would be', live=True),
        Parameter('holdout', 24, 'first simulated frames, kept for validation alone', 1, 1000),
        Parameter('buffer_mb', 128, 'memory for real frames', 1, 65_536),
        Parameter('keep_buffer', False, 'keep real frames in state_dir/frames, for the next start'),
        Parameter('max_steps', 0, 'stop to learn after so many steps; 0: never', 0, 1_000_000_000, live=True),
        Parameter('max_minutes', 0.0, 'stop to learn after so many minutes of work; 0: never', 0.0, 1e6, live=True),
        Parameter('max_load', 0.0, 'no step while the load average of a minute, a core, is above; 0: whatever it is',
                  0.0, 1000.0, live=True),
        Parameter('tensorboard', False, 'write the learner\'s curves to state_dir/tensorboard'),
        Parameter('duty_cycle', 0.8, 'share of the time the learner works', 0.01, 1.0, live=True),
        Parameter('nice', 10, 'how much the learner yields to other processes', 0, 19),
        Parameter('batch_source', 0, 'simulated frames in one step; 0: as the recipe says', 0, 256),
        Parameter('batch_target', 0, 'real frames in one step; 0: as the recipe says', 0, 256),
        Parameter('cameras', 'real', 'cameras to learn from, by spaces: <name>/image and <name>/camera_info of each'),
        COMPRESSED,
        RECTIFIED,
    )

    def __init__(self, **options: Any) -> None:
        super().__init__('adaptation', **options)
        self._worker: threading.Thread | None = None
        self._feeder: threading.Thread | None = None
        self._session: AdaptationSession | None = None
        self._curves: Curves | None = None
        self._alone = contextlib.ExitStack()

    def check_parameter(self, name: str, value: Any) -> None:
        """Refuse no device, and a list of cameras that is empty, names one twice, or has what is no name of a topic."""
        if name == 'device':
            check_device(value)
        if name != 'cameras':
            return
        names = value.split()
        if len(names) != max(len(set(names)), 1):
            raise ValueError('expected the names of one or more cameras, each once')
        if odd := [n for n in names if not CAMERA_NAME.fullmatch(n)]:
            raise ValueError(f'{odd[0]!r} is no name of a topic: letters, digits, _ and /, no digit first')

    # --- life ----------------------------------------

    def configure(self) -> None:
        """Load model, recipe and earlier versions, and make the topics."""
        recipe = load_recipe(self.get('recipe'))
        for name, parameter in (('source_frames', 'batch_source'), ('target_frames', 'batch_target')):
            if self.get(parameter):
                recipe = dataclasses.replace(recipe, **{name: self.get(parameter)})
        self._state_dir = Path(self.get('state_dir')).expanduser()
        self._alone.enter_context(alone_in(self._state_dir))
        bundle = Bundle.load(weights_path(self.get('weights')))
        # before the session, which writes the first version: a folder that cannot be used leaves nothing behind
        self._rendered = self._open_folder(bundle) if self.get('source') == 'folder' else None
        self._session = AdaptationSession(
            bundle, recipe, WeightStore(self._state_dir),
            device=self.get('device'), seed=self.get('seed'), holdout=self.get('holdout'),
            gate_every=self.get('gate_every'), tolerance=self.get('tolerance'),
            buffer_bytes=self.get('buffer_mb') * 1024 * 1024, max_steps=self.get('max_steps'),
            buffer_folder=self._state_dir / 'frames' if self.get('keep_buffer') else None,
            evidence=self.get('evidence'), labelled=self._labelled(bundle))
        for labelled in self._rendered.held_out() if self._rendered else ():  # validation frames come first
            self._session.add_source(labelled)
        self._lock = threading.Lock()  # the session is used from one thread at a time
        self._curves = Curves(self._state_dir / 'tensorboard') if self.get('tensorboard') else None
        self._held = False
        self._outlet = threading.Lock()  # orders that hold weights back wait for a publication, and it for them
        self._newest = _of(self._session)
        self._published: Promotion | None = None  # the newest weights on the topic
        self._watched = time.monotonic()
        self._fault = ''
        self._load = 0.0  # of a core, where it is too high to learn
        self._state = self._reason = self._last_state = ''
        self._metrics: dict[str, float] = {}

        self._weights = self.publish_on(UInt8MultiArray, '~/weights', latched=True)
        self._status = self.publish_on(DiagnosticStatus, '~/status', latched=True)
        self._simulation: LabelSource | None = None
        if self._rendered is None:
            self._simulation = LABEL_SOURCES[self.get('labels')](
                self, self._session.source.objects, self._session.add_source)
        for prefix in self.get('cameras').split():
            self._camera_input(prefix)
        self.every(1.0, self._every_second)
        for name, order in (('pause', self._pause), ('resume', self._resume), ('hold', self._hold),
                            ('release', self._release), ('save', self._save), ('rollback', self._rollback),
                            ('reset', self._reset)):
            self.offer(Trigger, f'~/{name}', self._service(name, order))

    def activate(self) -> None:
        """Publish the current version for perception nodes that come later, and start to learn."""
        assert self._session is not None
        self._catch_up(self._session)
        if self._let_out() and self._published is not None:
            self._publish(self._published)
        self._stop = threading.Event()  # a step in work from before a deactivation looks at its own
        self._worker = threading.Thread(target=self._learn, name='learner', daemon=True)
        self._worker.start()
        if self._rendered is not None:
            self._feeder = threading.Thread(
                target=self._feed, args=(self._session, self._rendered), name='feeder', daemon=True)
            self._feeder.start()

    def deactivate(self) -> None:
        """Stop after the step in work."""
        if self._worker is None:
            return
        self._stop.set()
        self._worker.join(JOIN_S)
        if self._worker.is_alive():
            self.get_logger().warning('a learning step or validation is still in work; what it finds is not published')
        self._worker = None
        if self._feeder is not None:
            self._feeder.join(JOIN_S)
            self._feeder = None
        self._write_history()

    def cleanup(self) -> None:
        """Forget the session; its versions stay on disk."""
        if self._session is not None:
            self._session.close()  # a validation that outlasts this writes nothing: the folder may be another's
        self._alone.close()
        curves, self._curves = self._curves if self._session is not None else None, None
        if curves is not None:
            try:
                curves.close()
            except Exception as error:  # a full disk stops nothing
                self.get_logger().warning(f'tensorboard: {error}')
        self._session = None

    # --- simulation from a folder ----------------------------------------

    def _open_folder(self, bundle: Bundle) -> RenderedFrames:
        folder = self.get('source_folder')
        if not folder:
            raise ValueError('source_folder: empty, expected the folder of a set written by sim2real_da render')
        rendered = RenderedFrames(Path(folder).expanduser(), bundle.classes, self.get('holdout'), self.get('seed'))
        bundle.check_sizes(rendered.diameters(), folder)
        self.get_logger().info(f'{folder}: {len(rendered.training_ids)} frames to train on, '
                               f'{len(rendered.held_out_ids)} of other scenes for validation')
        return rendered

    def _labelled(self, bundle: Bundle) -> list[LabelledFrame]:
        """Return the labelled camera frames by which the gate decides, where there are any."""
        folder = self.get('labelled_folder')
        if not folder:
            return []
        try:
            dataset = labelled_set(Path(folder).expanduser(), 'test', bundle.classes)
            bundle.check_sizes(dataset.diameters(), folder)
        except (ValueError, OSError) as error:
            raise ValueError(f'labelled_folder {error}') from error
        frames = [dataset.frame(frame_id) for frame_id in dataset.ids()]
        self.get_logger().info(f'{folder}: the gate decides by {len(frames)} labelled camera frames')
        return frames

    def _feed(self, session: AdaptationSession, rendered: RenderedFrames) -> None:
        """Fill the replay, then read on as fast as steps use frames up."""
        try:
            self._read_on(session, rendered, self._stop)
        except Exception as error:
            self._fault = f'{self.get("source_folder")}: {type(error).__name__}: {error}'
            self.get_logger().error(f'no more simulated frames are read: {self._fault}\n{traceback.format_exc()}')

    def _read_on(self, session: AdaptationSession, rendered: RenderedFrames, stop: threading.Event) -> None:
        os.nice(self.get('nice'))
        due, step, frames = GAP + REPLAY, session.step, rendered.training()
        while not stop.is_set():
            if session.step != step:
                due, step = min(due + session.recipe.source_frames, REPLAY), session.step
            if not due or session.state == 'paused':  # a paused session takes no frames
                stop.wait(IDLE_S)
                continue
            labelled = next(frames, None)
            if labelled is None:
                self.get_logger().error(f'{self.get("source_folder")}: no frame to train on can be read any more; '
                                        'learning goes on with those read before')
                return
            session.add_source(labelled)
            due -= 1

    # --- camera ----------------------------------------

    def _camera_input(self, prefix: str) -> None:
        def take(message: Image | CompressedImage) -> None:
            assert self._session is not None
            self._session.add_target(camera.frame(message))

        camera = CameraInput(self, prefix, take)

    # --- learning ----------------------------------------

    def _learn(self) -> None:
        """Work in steps until told to stop; an exception ends the learning, never the node or what perception runs."""
        assert self._session is not None
        session, stop = self._session, self._stop
        os.nice(self.get('nice'))  # on Linux of this thread and of those torch starts from it
        while not stop.is_set():
            started = time.monotonic()
            busy = False
            with self._lock:
                if stop.is_set():
                    return
                try:
                    busy = self._work(session, stop)
                except Exception as error:
                    self._fault = f'{type(error).__name__}: {error}'
                    self.get_logger().error(printable(
                        f'learning stopped: {self._fault}; ~/resume, ~/rollback or ~/reset goes on\n'
                        f'{traceback.format_exc()}'))
            if not busy:
                stop.wait(IDLE_S)
                continue
            spent = time.monotonic() - started
            duty = self.get('duty_cycle')
            stop.wait(max(REST_S, spent * (1 - duty) / duty))

    def _work(self, session: AdaptationSession, stop: threading.Event) -> bool:
        """Take a step, or look after what is published while there is none to take; return whether it was a step."""
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        self._load = load if 0 < self.get('max_load') < load else 0.0
        for name in LIVE:
            setattr(session, name, self.get(name))
        session.max_seconds = 60 * self.get('max_minutes')
        busy = not self._fault and not self._load and session.state == 'adapting'
        promotion = session.work() if busy else self._watch(session)
        if stop.is_set():  # the next activation publishes what was found
            return busy
        if promotion is not None:
            self._announce(promotion)
        else:
            self._catch_up(session)
            if self._kept_back:
                self._let_out()  # shadow or a pause may be over
        if busy:
            self._draw_curves(session)
            self._remember(session)  # the status seldom finds the lock free while steps follow each other
        return busy

    def _watch(self, session: AdaptationSession) -> Promotion | None:
        """Look now and then whether what is published is still good when nothing is learnt."""
        if time.monotonic() - self._watched < WATCH_S:
            return None
        self._watched = time.monotonic()
        try:
            return session.watch()
        except OSError as error:  # full or read-only: the next look is another chance
            self.get_logger().warning(f'{self._state_dir}: no way back can be written: {error}')
            return None

    def _draw_curves(self, session: AdaptationSession) -> None:
        if self._curves is None or not session.history:
            return
        try:
            self._curves.add(session.history[-1])
        except Exception as error:  # TensorBoard hands on whatever its own thread died of
            self.get_logger().warning(f'tensorboard: no more curves are written: {error}')
            self._curves = None

    def _announce(self, promotion: Promotion) -> str:
        """Publish weights that are on disk already, unless they are to be kept back; return what was done."""
        self._write_history()
        self._newest = promotion
        kept = self._let_out()
        if kept:
            self.get_logger().info(kept)
        return kept or f'published weights {_what(promotion)}'

    @property
    def _kept_back(self) -> bool:
        """Whether the newest weights are not the ones on the topic."""
        return self._published is None or self._published.version != self._newest.version

    def _let_out(self) -> str:
        """Publish the newest weights; return why not when something keeps them back.

        In shadow nothing is published, except earlier weights instead of ones that were published before. During a
        pause, for which somebody scores what is published, nothing but these either.
        """
        with self._outlet:
            newest = self._newest
            if self.get('shadow') and not (newest.back and self._published):
                return f'shadow: kept and not published, {_what(newest)}'
            if self._held:
                return f'waits until ~/release, {_what(newest)}'
            if self._session is not None and self._session.state == 'paused' and not newest.back and self._published:
                return f'waits until ~/resume, {_what(newest)}'
            self._publish(newest)
        self.get_logger().info(f'published weights {_what(newest)}')
        return ''

    def _catch_up(self, session: AdaptationSession) -> None:
        """Take note of weights that a validation found which outlasted a deactivation."""
        if self._newest.version != session.current().version:
            self._newest = _of(session)

    def _publish(self, promotion: Promotion) -> None:
        self._weights.publish(messages.weights_message(promotion.data))
        self._published = promotion

    def _write_history(self) -> None:
        """Keep what the learning curves need beside the weights; a disk that refuses is said and stops nothing."""
        assert self._session is not None
        path = self._state_dir / 'history.json'
        try:
            write_atomically(path, json.dumps(list(self._session.history)).encode())
        except OSError as error:
            self.get_logger().warning(f'{path}: cannot be written: {error}')

    # --- services ----------------------------------------

    def _service(self, name: str, order: Callable[[AdaptationSession], str]) -> Callable[[Any, Any], Any]:
        def serve(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            session = self._session
            assert session is not None
            # hold and pause count from now on; the others wait for the step or validation in work, but not for ever
            at_once = name in ('hold', 'pause')
            if not at_once and not self._lock.acquire(timeout=PATIENCE_S):
                response.message = (f'a validation is in work for {PATIENCE_S:g} s; {messages.ASK_AGAIN}, nothing has '
                                    'changed')
                response.success = False
                return response
            try:
                response.message = order(session)
                response.success = True
            except (ValueError, OSError) as error:
                response.success, response.message = False, str(error)
            except Exception as error:  # a device without memory ends the order, never the node
                response.success, response.message = False, f'{type(error).__name__}: {error}'
                self.get_logger().error(f'{name}: {traceback.format_exc()}')
            finally:
                if not at_once:
                    self._lock.release()
            self.get_logger().info(f'{name}: {response.message}')
            self._tick()
            return response
        return serve

    def _pause(self, session: AdaptationSession) -> str:
        before = session.state == 'paused'
        session.pause()
        return f'{messages.PAUSED_ALREADY if before else "learning is paused"}, at step {session.step}'

    def _resume(self, session: AdaptationSession) -> str:
        if session.state != 'paused':
            self._fault = ''
        session.resume()
        return f'learning goes on at step {session.step}'

    def _hold(self, _session: AdaptationSession) -> str:
        with self._outlet:
            self._held = True
        return 'no weights are published until ~/release'

    def _release(self, _session: AdaptationSession) -> str:
        self._held = False
        if not self._kept_back:
            return 'nothing waited'
        return self._let_out() or f'published weights {_what(self._newest)}'

    def _save(self, session: AdaptationSession) -> str:
        self._write_history()
        return f'saved {session.save()}'

    def _rollback(self, session: AdaptationSession) -> str:
        return self._restarted(session.rollback())

    def _reset(self, session: AdaptationSession) -> str:
        return self._restarted(session.reset())

    def _restarted(self, promotion: Promotion) -> str:
        self._fault = ''
        return self._announce(promotion)

    # --- status ----------------------------------------

    def _every_second(self) -> None:
        if self._simulation is not None:
            self._simulation.tick()
        self._tick()

    def _tick(self) -> None:
        if not self.active:
            return
        status = self.status()
        self._status.publish(status)
        if self._state != self._last_state:
            self.get_logger().info(f'{self._state}: {self._reason}' if self._reason else self._state)
            self._last_state = self._state

    def _refresh(self) -> None:
        """Take a consistent picture of the session; while a step is in work the last one stands.

        Read in the middle of a step, a session that has reached ``max_steps`` would already call itself done although
        its last candidate is still being validated.
        """
        session = self._session
        assert session is not None
        if not self._lock.acquire(blocking=False):
            if session.step != self._metrics.get('step') and session.step % session.gate_every == 0:
                self._state, self._reason = 'validating', f'candidate of step {session.step}'
            return
        try:
            self._remember(session)
        finally:
            self._lock.release()

    def _remember(self, session: AdaptationSession) -> None:
        """Keep what the status says of a session between two steps."""
        self._state, self._reason, self._metrics = session.state, session.reason, session.metrics
        if self._load and self._state == 'adapting':
            self._state = 'waiting for the load'
            self._reason = f'{self._load:.2f} a core over the last minute, max_load {self.get("max_load"):g}'
        if self._held and self._kept_back:
            self._state, self._reason = 'held', f'version {self._newest.version} waits until ~/release'
        if self._fault:
            self._state, self._reason = 'faulted', self._fault

    def diagnose(self) -> tuple[bytes, str, Mapping[str, object]]:
        """Say the state, its reason, and every number of the session."""
        assert self._session is not None
        self._refresh()
        state, reason = self._state, self._reason
        values: dict[str, object] = {
            'state': state, 'reason': reason, 'recipe': self._session.recipe.name, 'held': self._held,
            'source': self.get('source_folder') if self._rendered else 'topics',
            **self._metrics, 'step': self._session.step,
        }
        if self._simulation is not None:
            values |= {'matched': self._simulation.matched, 'unmatched': self._simulation.unmatched}
            if self._simulation.unknown:
                values['unknown_classes'] = dict(self._simulation.unknown)
        text = f'{state}: {reason}' if reason else state
        if state == 'faulted':
            return DiagnosticStatus.ERROR, text, values
        if state == 'frozen':
            return DiagnosticStatus.WARN, text, values
        complaint = self._simulation.complaint() if self._simulation is not None else ''
        if complaint:
            return DiagnosticStatus.WARN, f'{text}; {complaint}', values
        return DiagnosticStatus.OK, text, values


def main(args: list[str] | None = None) -> int:
    """Run the node; the console script ``adaptation``."""
    return run(Adaptation, args)


if __name__ == '__main__':
    raise SystemExit(main())
