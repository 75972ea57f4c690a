# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One robot's adaptation from start to end: data in, micro-steps, validated weights out. Knows no ROS.

Order of a promotion: the gate passes, the new version is written to disk, and only then handed to the caller.
A session is used from one thread at a time, except ``add_source`` and ``add_target``, which may be called from another.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from sim2real_da.data import rare_classes
from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.distributed import own_seed
from sim2real_da.online import camera_evidence, memory
from sim2real_da.online.buffer import FrameBuffer
from sim2real_da.online.camera_evidence import FRAMES, LEAST
from sim2real_da.online.gate import Decision, Gate
from sim2real_da.online.learner import Learner
from sim2real_da.online.store import WeightStore
from sim2real_da.recipes import Recipe
from sim2real_da.rectification import rectified_labels
from sim2real_da.samples import Frame, LabelledFrame

log = logging.getLogger(__name__)

REPLAY = 96  # newest simulated frames kept for training
GAP = 8  # simulated frames left out between the held-out scenes and the training ones, which may share a scene
FEWEST_TARGETS = 8  # real frames needed before the first step
FAILURES_BEFORE_FAULT = 20  # steps in a row without a finite loss
HISTORY = 20_000  # steps whose numbers are kept
LOOK_NEW = 0.5  # share of the kept real frames that are new, from which all are looked at together again
LOOK_REST = 25  # but not before so many steps
LOOK_EVERY = 100  # steps after which a better teacher does, where a recipe wants labels that hold in many views
PATIENCE = 4  # candidates rejected in a row after which learning begins again from the running version
SLOWEST = 0.125  # of the pace, which halves every time
LEARNERS_APART = 1_000_003  # between the seeds of one session's learners
RETREATS = 3  # automatic rollbacks after which learning is frozen
DECISIONS_BYTES = 8_000_000  # of decisions.jsonl, which then becomes decisions.jsonl.1 and begins anew


@dataclass(frozen=True)
class Promotion:
    """New weights to publish; they are on disk already.

    :param data: the safetensors bytes
    :param decision: why they may be published
    :param back: these are earlier weights, because those in use are not wanted any more
    """

    version: int
    data: bytes
    decision: Decision
    back: bool = False


class AdaptationSession:
    """See the module's text.

    :param bundle: the source model; version 0 counts as never published
    :param store: where versions are kept; when it already holds some, the newest good one is continued
    :param holdout: first simulated frames, kept for the gate alone
    :param gate_every: steps between two candidates
    :param tolerance: how far the scores on held-out simulation may fall, 0..1
    :param max_steps: stop learning after so many steps (0: never)
    :param max_seconds: stop learning after so many seconds of work, validation included (0: never)
    :param evidence: whether camera frames have a say in the gate; without, simulation decides alone
    :param buffer_folder: where the real frames are kept for the next session; None: nowhere
    :param labelled: a small set of labelled camera frames by which the gate decides, instead of held-out simulation
        (then ``holdout`` counts for nothing) and of what unlabelled frames say
    """

    def __init__(
        self, bundle: Bundle, recipe: Recipe, store: WeightStore, *, device: str = 'cpu', seed: int = 0,
        holdout: int = 24, gate_every: int = 25, tolerance: float = 0.01, buffer_bytes: int = 128 * 1024 * 1024,
        max_steps: int = 0, max_seconds: float = 0.0, buffer_folder: Path | None = None, evidence: bool = True,
        labelled: Sequence[LabelledFrame] = (),
    ) -> None:
        self.recipe, self.store, self.device, self.seed = recipe, store, device, seed
        self.holdout = 0 if labelled else holdout
        self.gate_every, self.tolerance, self.max_steps, self.evidence = gate_every, tolerance, max_steps, evidence
        self.max_seconds = max_seconds
        self.seconds = 0.0  # of work
        self.labelled = tuple(labelled)
        self.source = bundle
        self.running = bundle
        self.buffer = FrameBuffer(buffer_bytes, folder=buffer_folder)
        self.history: deque[dict[str, float]] = deque(maxlen=HISTORY)
        self._last_decision: Decision | None = None
        self.promotions = self.rejections = self.rollbacks = 0
        self._lock = threading.Lock()
        self._replay: deque[LabelledFrame] = deque(maxlen=REPLAY)
        self._held_out: list[LabelledFrame] = []
        self._source_seen = 0
        self._gate: Gate | None = None
        self._learners = 0  # made after the first
        self._learner = Learner(bundle, recipe, device, seed)
        self._looking: Iterator[None] | None = None
        self._rng = np.random.default_rng(own_seed(seed, 1))  # of several processes each draws samples of its own
        self._camera_rng = np.random.default_rng([seed, 2])  # and all judge by the same frames
        self._paused = False
        self._retreats = 0  # automatic rollbacks since an operator's last order
        self._frozen = ''
        self._closed = False
        self._refused = 0  # candidates in a row
        self._pace = 1.0
        self._fault = ''
        self._bad_steps = 0
        self._last_reason = ''
        try:
            self.running = store.load(like=bundle)
            self._learner = self._learner_at(self.running, self.running.version, random=True)
            self._last_reason = f'continued from version {self.running.version} in {store.folder}'
        except WeightsError as error:
            if store.readable():  # of other weights: what begins again here would push them out
                raise WeightsError(f'{error}; those in it are of other weights, give another state_dir') from error
            self.running = bundle.copy()
            # perception runs this very file, and takes only what is newer than the version in it
            self.running.version, self.running.parent = max(store.next_version(), bundle.version), 0
            if store.versions():
                self._last_reason = f'{error}; began again from the source model as version {self.running.version}'
                log.warning('%s', self._last_reason)
            store.save(self.running)
        # the source model keeps a version of its own that no promotion can take
        self.source = bundle.copy()
        self.source.version = -1

    # data in

    def add_source(self, labelled: LabelledFrame) -> None:
        """Take one simulated frame; one through a lens is straightened.

        :raises ValueError: for a class that the model does not know; nothing of the frame is kept then
        """
        known = self.source.objects
        for label in labelled.labels:
            if label.name not in known:
                raise ValueError(f'labels: class {label.name!r} is not known to the model, expected {sorted(known)}')
        labelled = rectified_labels(labelled)
        with self._lock:
            if self._paused:
                return
            self._source_seen += 1
            if len(self._held_out) < self.holdout:
                self._held_out.append(labelled)
            elif self._source_seen > self.holdout + GAP:
                self._replay.append(labelled)

    def add_target(self, frame: Frame) -> bool:
        """Take one real frame; False when it was not admitted (nothing new in it, or paused)."""
        with self._lock:
            return not self._paused and self.buffer.admit(frame)

    # learning

    def work(self) -> Promotion | None:
        """Do one micro-step if there is data and nothing speaks against it; return weights that passed the gate."""
        if self.state != 'adapting':
            return None
        begin = time.monotonic()
        try:
            return self._step()
        finally:
            self.seconds += time.monotonic() - begin

    def _step(self) -> Promotion | None:
        self._note_classes()
        if self._look_around():
            return None
        with self._lock:
            replay = list(self._replay)
            count = self.recipe.source_frames
            if self.recipe.rare_classes and any(labelled.labels for labelled in replay):
                drawn = rare_classes.draw(rare_classes.frame_shares(replay), count, self._rng)
            else:
                drawn = self._rng.choice(len(replay), count, replace=len(replay) < count)
            source = [replay[i] for i in drawn]
            target = self.buffer.sample(self.recipe.target_frames, self._rng) if self._learner.needs_target else []
        skipped = self._learner.skipped
        report = self._learner.step(source, target)
        self._bad_steps = self._bad_steps + 1 if self._learner.skipped > skipped else 0
        if self._bad_steps >= FAILURES_BEFORE_FAULT:
            self._fault = f'{self._bad_steps} steps in a row without a finite loss; reset or roll back'
            return None
        self.history.append({'step': float(self.step), **report})
        if self._bad_steps == 0 and self.step % self.gate_every == 0:
            return self._validate()
        return None

    def _note_classes(self) -> None:
        """Ask the teacher about one frame of the buffer, which is balanced by what it finds."""
        if not self._learner.needs_target:
            return
        with self._lock:
            frames = self.buffer.unnoted()
        for frame in frames:
            found = self._learner.classes(frame)
            with self._lock:
                self.buffer.note(frame, found)

    def _look_around(self) -> bool:
        """Let the learner label all frames together: at first, when many are new, and when the teacher has learnt.

        :returns: whether this micro-step was for that
        """
        scene = self._learner.scene
        if scene is None:
            return False
        if self._looking is None:
            with self._lock:
                frames = self.buffer.frames()
            scene.keep(frames)  # the buffer's bound is on memory: what it drops is to be gone
            since = np.inf if scene.step is None else self.step - scene.step
            new = sum(not scene.looked_at(frame) for frame in frames)
            # a camera that shows new things all the time must not keep the learner from learning
            if since >= LOOK_EVERY or (since >= LOOK_REST and new > LOOK_NEW * len(frames)):
                self._looking = scene.look(self._learner.candidate(), frames, self.step)
        if self._looking is not None and next(self._looking, self) is self:
            self._looking = None
        return self._looking is not None

    def _validate(self) -> Promotion | None:
        if self._gate is None:
            try:
                self._gate = Gate(self.labelled or self._held_out, self.source.objects, self.tolerance, self.device,
                                  self.seed, bool(self.labelled))
            except ValueError as error:
                if self.labelled:
                    raise
                with self._lock:  # what comes next may show something; no scene of it is trained on
                    self._held_out.clear()
                    self._replay.clear()
                    self._source_seen = 0
                self._last_reason = f'{error}; other frames are taken'
                log.warning('%s', self._last_reason)
                return None
        self._gate.tolerance = self.tolerance
        candidate = self._learner.candidate()
        camera = self._camera() if self.evidence else None
        reference = self._reference() if self.evidence else []
        decision = self._gate.decide(candidate, self.running, self.source, camera, reference)
        with self._lock:
            if camera and (decision.promote or not reference) and decision.numbers.get('camera_places', 0) >= LEAST:
                self.buffer.refer(camera, self._camera_rng)  # later candidates must not forget what this was judged by
            self.buffer.hold([])
        promotion: Promotion | None = None
        try:
            if decision.promote:
                promotion = self._publish(candidate, decision, self._learner)
                self._refused, self._pace = 0, 1.0
                self._learner.slow(0.5 ** self._retreats)
            elif decision.decline:  # a candidate that passes is no worse than the source model: no need to go back
                promotion = self._retreat(decision.decline, camera or [])
            else:
                self._refused += 1
                if self._refused == PATIENCE:
                    decision = replace(decision, reason=f'{decision.reason}; {self._begin_again()}')
        except OSError as error:  # full or read-only: what is published stays, and the next candidate is another chance
            decision = replace(decision, promote=False, reason=(
                f'not published, for it cannot be written ({error}); {decision.reason}'))
        self._last_decision = decision
        self.history[-1] |= {f'gate/{k}': v for k, v in decision.numbers.items()} | {
            'gate/promoted': float(decision.promote)}
        if promotion is None or decision.promote:  # going back gave a reason of its own
            self._last_reason = decision.reason
        log.info('step %d: %s', self.step, decision.reason)
        self.promotions += decision.promote
        self.rejections += not decision.promote
        self._log('gate', decision, promotion.version if promotion is not None and decision.promote else None)
        if promotion is not None and not decision.promote:
            self.history[-1]['gate/went_back_to'] = float(promotion.version)
            self._log('automatic rollback', promotion.decision, promotion.version)
        memory.release()
        return promotion

    def watch(self) -> Promotion | None:
        """Look whether camera frames speak against the running weights while no candidate is judged; go back if so.

        :returns: what to publish instead
        :raises OSError: when the disk takes nothing; nothing has changed then
        """
        if not self.evidence or self.labelled or self.running.recipe == self.source.recipe != self.recipe.name:
            return None  # the source model is what one would go back to
        camera = self._camera()
        with self._lock:
            self.buffer.hold([])  # none of them becomes a reference
        decline = camera_evidence.worse(self.running, self.source, camera, self.seed) if camera else ''
        if not decline:
            return None
        promotion = self._retreat(decline, camera)
        self._log('automatic rollback', promotion.decision, promotion.version)
        return promotion

    def _camera(self) -> list[Frame]:
        with self._lock:
            count = min(FRAMES, len(self.buffer))
            frames = self.buffer.sample(count, self._camera_rng) if count else []
            self.buffer.hold(frames)  # others go on to come while a candidate is judged
            return frames

    def _reference(self) -> list[Frame]:
        with self._lock:
            kept = self.buffer.references()
        return [kept[i] for i in self._camera_rng.permutation(len(kept))[:FRAMES]]

    def _begin_again(self) -> str:
        """Learn on from the running version at half the pace: from where the learner is, nothing passes the gate."""
        step = self.step
        self._learner = self._learner_at(self.running, self.running.version, random=False)
        self._looking = None
        self._learner.step_count = step  # ``max_steps`` counts on; schedules are where that version's were
        self._pace = max(SLOWEST, 0.5 * self._pace)
        self._learner.slow(self._pace * 0.5 ** self._retreats)
        self._refused = 0
        with self._lock:
            self.buffer.forget_classes()
        return (f'after {PATIENCE} rejections in a row learning begins again from version {self.running.version}, at '
                f'{self._pace:g} of the pace')

    def _retreat(self, decline: str, camera: Sequence[Frame]) -> Promotion:
        """Go back to the newest earlier version that camera frames do not speak against, at least to the source model.

        Learning goes on from there at half the pace of before, and not at all after :data:`RETREATS` times.
        """
        bundle, name, version = self.source.copy(), 'the source model', 0
        learner = None
        for earlier in self._earlier():
            if not camera_evidence.worse(earlier, self.source, camera, self.seed):
                bundle, name, version = earlier, f'version {earlier.version}', earlier.version
                learner = self._learner_at(earlier, version, random=False)
                break
        if learner is None:
            learner = self._fresh_learner(bundle)
        reason = f'went back to {name}: {decline}'
        learner.step_count = self.step
        retreats = self._retreats + 1
        learner.slow(0.5 ** retreats)
        frozen = f'{retreats} times {reason}; ~/resume learns on, ~/reset begins anew' if retreats >= RETREATS else ''
        return self._restart(bundle, learner, reason, bundle.parent if version else 0, version, retreats, frozen)

    def _earlier(self) -> Iterator[Bundle]:
        """Yield the versions before the running one that can be read, the newest first.

        A damaged one must not keep worse weights in use: the next older one takes its place.
        """
        parent = self.running.parent
        while parent:
            kept = [v for v in self.store.versions() if v <= parent]
            if not kept:
                return
            try:
                bundle = self.store.load(kept[-1], like=self.source)
            except WeightsError as error:
                log.warning('%s; going further back', error)
                parent = kept[-1] - 1
                continue
            yield bundle
            parent = min(bundle.parent, kept[-1] - 1)

    def _log(self, event: str, decision: Decision, version: int | None) -> None:
        """Add a line to decisions.jsonl beside the versions; a disk that refuses is said and stops nothing.

        :param event: 'gate', 'automatic rollback', 'rollback' or 'reset'
        :param version: what was published by it
        """
        line = {'time': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'event': event, 'step': self.step,
                'promoted': decision.promote, 'version': version, 'running': self.running.version,
                'reason': decision.reason, 'numbers': decision.numbers}
        path = self.store.folder / 'decisions.jsonl'
        try:
            if path.is_file() and path.stat().st_size > DECISIONS_BYTES:
                path.replace(path.with_suffix('.jsonl.1'))
            with path.open('a', encoding='utf-8') as file:
                file.write(json.dumps(line) + '\n')
        except OSError as error:
            log.warning('%s: a decision of the gate cannot be written: %s', path, error)

    def _publish(self, bundle: Bundle, decision: Decision, learner: Learner, parent: int | None = None,
                 instead_of: int = 0, retreats: int | None = None, frozen: str = '', forget: bool = False,
                 ) -> Promotion:
        """Persist first, publish second.

        :param parent: version before it; None: the running one
        :param instead_of: version with the same weights, which need not be kept any more
        :param retreats: automatic rollbacks up to and with this one; None: as many as before
        :param frozen: why learning ends here
        :param forget: a restart shall know nothing of the buffer's frames
        :raises OSError: when the disk takes nothing, or after :meth:`close`; nothing has changed then
        """
        if self._closed:
            raise OSError(f'{self.store.folder}: this session is closed')
        bundle.parent = self.running.version if parent is None else parent
        bundle.version = self.store.next_version()
        bundle.recipe = self.recipe.name
        path = self.store.save(bundle, learner.state({
            'generator': self._rng.bit_generator.state, 'camera': self._camera_rng.bit_generator.state,
            'buffer': {} if forget else self.buffer.index(),
            'references': [] if forget else self.buffer.reference_files(),
            'retreats': self._retreats if retreats is None else retreats, 'frozen': frozen}), instead_of)
        self.running = bundle
        return Promotion(bundle.version, path.read_bytes(), decision)

    # state

    @property
    def step(self) -> int:
        """Learning steps taken."""
        return self._learner.step_count

    @property
    def state(self) -> str:
        """One of: faulted, paused, frozen, done, waiting for data, adapting."""
        if self._fault:
            return 'faulted'
        if self._paused:
            return 'paused'
        if self._frozen:
            return 'frozen'
        if (self.max_steps and self.step >= self.max_steps) or (self.max_seconds and self.seconds >= self.max_seconds):
            return 'done'
        return 'waiting for data' if self._missing() else 'adapting'

    @property
    def reason(self) -> str:
        """Why the session is in this state, for a person."""
        if self._fault or self._frozen:
            return self._fault or self._frozen
        if self.state == 'waiting for data':
            return self._missing()
        return self._last_reason

    def _missing(self) -> str:
        if len(self._held_out) < self.holdout:
            return f'simulated frames for validation: {len(self._held_out)} of {self.holdout}'
        if len(self._replay) < self.recipe.source_frames:
            return f'simulated frames for training: {len(self._replay)} of {self.recipe.source_frames}'
        if self._learner.needs_target and len(self.buffer) < FEWEST_TARGETS:
            found = f'real frames: {len(self.buffer)} of {FEWEST_TARGETS}'
            return f'{found}; the buffer holds no more of this size, give it more memory' if self.buffer.full else found
        return ''

    @property
    def metrics(self) -> dict[str, float]:
        """Counters, the numbers of the last step and those of the gate's last decision."""
        last = self.history[-1] if self.history else {}
        decision = self._last_decision
        decided = {f'gate/{k}': v for k, v in decision.numbers.items()} | {
            'gate/promoted': float(decision.promote)} if decision is not None else {}
        return {
            'version': float(self.running.version), 'promotions': float(self.promotions),
            'rejections': float(self.rejections), 'rollbacks': float(self.rollbacks),
            'source_frames': float(self._source_seen), 'buffer_frames': float(len(self.buffer)),
            'buffer_bytes': float(self.buffer.bytes), 'buffer_rejected': float(self.buffer.rejected),
            'skipped_steps': float(self._learner.skipped), 'seconds': self.seconds, **decided, **last,
            'step': float(self.step),
        }

    def current(self) -> Bundle:
        """Return the version that is published now."""
        return self.running

    # an operator's orders

    def pause(self) -> None:
        """Stop learning and admitting frames."""
        self._paused = True

    def resume(self) -> None:
        """Go on after :meth:`pause`; when not paused, although rollbacks or failures had ended the learning."""
        if self._paused:
            self._paused = False  # a pause for scoring thaws nothing
            return
        self._retreats, self._frozen = 0, ''
        self._fault, self._bad_steps = '', 0

    def close(self) -> None:
        """Write no version any more, whatever another thread is at: another session may use the folder."""
        self._closed = True

    def save(self) -> Path:
        """Return the file of the published version; every published version is on disk already."""
        return self.store.path(self.running.version)

    def rollback(self) -> Promotion:
        """Publish the version before the running one again, under a new number, and learn on from it.

        :raises ValueError: when there is none
        """
        bundle = next(self._earlier(), None)
        if bundle is None:
            raise ValueError(f'rollback: no version before {self.running.version} in {self.store.folder}; ~/reset goes '
                             'back to the source model')
        learner = self._learner_at(bundle, bundle.version, random=False)
        learner.step_count = self.step  # ``max_steps`` counts on; schedules are where that version's were
        promotion = self._restart(bundle, learner, f'rolled back to version {bundle.version}', bundle.parent,
                                  bundle.version)
        self._log('rollback', promotion.decision, promotion.version)
        return promotion

    def reset(self) -> Promotion:
        """Publish the source model again, forget the buffer, and start learning from it."""
        source = self.source.copy()
        learner = self._fresh_learner(source)
        promotion = self._restart(source, learner, 'reset to the source model', self.running.version, forget=True)
        with self._lock:
            self.buffer.clear()
        self._log('reset', promotion.decision, promotion.version)
        return promotion

    def _fresh_learner(self, bundle: Bundle) -> Learner:
        """Return a learner without a past, and with random numbers of its own: repeated ones would repeat the harm."""
        self._learners += 1
        return Learner(bundle, self.recipe, self.device, self.seed + LEARNERS_APART * self._learners)

    def _learner_at(self, bundle: Bundle, version: int, random: bool) -> Learner:
        """Return a learner that goes on where a version was made, with fresh moments where its state is of no use."""
        data = self.store.learner(version)
        if data is not None:
            learner = self._fresh_learner(bundle)
            try:
                about = learner.load_state(data, random)
                if random:
                    self._retreats, self._frozen = int(about.get('retreats', 0)), str(about.get('frozen', ''))
                    learner.slow(0.5 ** self._retreats)
                    self._rng.bit_generator.state = about['generator']
                    self._camera_rng.bit_generator.state = about.get('camera', self._camera_rng.bit_generator.state)
                    self.buffer.restore(about.get('buffer', {}), about.get('references', ()))
                return learner
            except (WeightsError, KeyError, ValueError, TypeError) as error:
                log.warning('%s: %s; learning begins anew from version %d',
                            self.store.learner_path(version), error, version)
        return self._fresh_learner(bundle)

    def _restart(self, bundle: Bundle, learner: Learner, reason: str, parent: int, instead_of: int = 0,
                 retreats: int = 0, frozen: str = '', forget: bool = False) -> Promotion:
        """Publish earlier weights and learn on from them; see :meth:`_publish`."""
        # a disk that takes nothing raises here, before anything has changed
        promotion = self._publish(bundle, Decision(True, reason), learner, parent, instead_of, retreats, frozen,
                                  forget)
        self._learner, self._looking = learner, None
        with self._lock:
            self.buffer.forget_classes()
        self._fault, self._bad_steps, self._last_reason = '', 0, reason
        self._refused, self._pace = 0, 1.0
        self._retreats, self._frozen = retreats, frozen
        self.rollbacks += 1
        return replace(promotion, back=True)
