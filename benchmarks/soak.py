# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A long, mostly hostile camera stream against one recipe: is what is published ever worse than the source model?

``python benchmarks/soak.py --recipe dann --work runs/soak`` (``make soak`` does this for every online recipe)

The session runs on a stream of the surrogate world as fast as it goes. At the end of every segment the published model
and the source model are scored on labelled frames that the stream never shows: with the camera's ordinary look, and
with the segment's own look where it leaves anything to see. Labels are for that comparison alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from online_adaptation import score
from provenance import provenance

from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.bundle import Bundle
from sim2real_da.online import memory
from sim2real_da.online.session import AdaptationSession
from sim2real_da.online.store import WeightStore
from sim2real_da.recipes import load_recipe
from sim2real_da.resources import weights_path
from sim2real_da.samples import Frame, LabelledFrame
from sim2real_da.simulation.render import default_intrinsics, render_dataset
from sim2real_da.simulation.surrogate import SurrogateWorld

log = logging.getLogger(__name__)
Image = NDArray[np.uint8]
Look = Callable[[Image, float, np.random.Generator], Image]
SIZE = (320, 240)
STREAM, SCORED, SIMULATED = 96, 60, 224  # frames drawn: camera, scoring, simulation
STREAM_SEED, SCORED_SEED, SIMULATED_SEED = 9101, 9102, 9103  # no seed of another benchmark


# --- what a camera can go through ----------------------------------------
# a look takes a picture, how much of the segment has passed (0..1) and random numbers

def day(image: Image, _passed: float, _rng: np.random.Generator) -> Image:
    """Return the picture as it is."""
    return image


def night(image: Image, _passed: float, rng: np.random.Generator) -> Image:
    """Return a third of the light and a sensor's noise at high gain."""
    return _bytes(0.33 * image + rng.normal(0, 6, image.shape))


def drift(image: Image, passed: float, _rng: np.random.Generator) -> Image:
    """Return the picture with a white balance that turns warm slowly."""
    return _bytes(image * np.array([1 + 0.3 * passed, 1.0, 1 - 0.4 * passed]))


def blur(image: Image, _passed: float, _rng: np.random.Generator) -> Image:
    """Return the picture far out of focus."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)


def covered(image: Image, passed: float, rng: np.random.Generator) -> Image:
    """Return the picture with something dark over half of the lens."""
    height, width = image.shape[:2]
    made = image.copy()
    cv2.ellipse(made, (int(width * (0.25 + 0.5 * passed)), height // 2), (width // 3, height // 2), 0, 0, 360,
                (20, 15, 12), -1)
    return _bytes(cv2.GaussianBlur(made, (0, 0), 3) + rng.normal(0, 2, image.shape))


def black(image: Image, _passed: float, rng: np.random.Generator) -> Image:
    """Return darkness with read noise."""
    return _bytes(np.abs(rng.normal(0, 3, image.shape)))


def white(image: Image, _passed: float, rng: np.random.Generator) -> Image:
    """Return a blinded sensor."""
    return _bytes(255 - np.abs(rng.normal(0, 3, image.shape)))


def other_camera(image: Image, _passed: float, _rng: np.random.Generator) -> Image:
    """Return what a wrong camera would show: upside down, red and blue exchanged, in another part of the room."""
    return np.ascontiguousarray(np.roll(image[::-1, ::-1, ::-1], image.shape[1] // 2, axis=1))


def _bytes(image: NDArray[np.floating[Any]]) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Segment:
    """A part of the stream.

    :param benign: what a robot goes through on an ordinary day
    :param scored: whether objects can be told in such pictures, so that the segment's own look is scored as well
    :param frames: which frames of the pool come: all, one (the robot stands still), poor (those with the fewest
        objects), none (unplugged)
    :param bad_labels: the simulator's labels are those of other pictures
    """

    name: str
    benign: bool
    look: Look = day
    scored: bool = False
    frames: str = 'all'
    bad_labels: bool = False


SEGMENTS = (
    Segment('day', True),
    Segment('standing still', False, frames='one'),
    Segment('night', True, night, True),
    Segment('out of focus', False, blur, True),
    Segment('colours drift', True, drift, True),
    Segment('lens covered', False, covered, True),
    Segment('black', False, black),
    Segment('white', False, white),
    Segment('unplugged', False, frames='none'),
    Segment('another camera', False, other_camera),
    Segment('label shift', False, frames='poor'),
    Segment('wrong labels', False, bad_labels=True),
    Segment('day again', True),
)


# --- the run ----------------------------------------

def simulation(work: Path, jobs: int) -> list[LabelledFrame]:
    """Return labelled simulated frames of the tools, drawn at the first time."""
    folder = work / 'simulation'
    render_dataset('tools', folder, SIMULATED, SIMULATED_SEED, *SIZE, jobs=jobs)
    dataset = BopDataset(folder, 'train')
    return [dataset.frame(i) for i in dataset.ids()]


def surrogate(seed: int, count: int) -> list[LabelledFrame]:
    """Return labelled frames of the surrogate world."""
    world = SurrogateWorld(default_intrinsics('tools', *SIZE), seed)
    frames = [world.sample() for _ in range(count)]
    world.close()
    return frames


class Scoring:
    """Scores models on frames that the stream never shows, in any look."""

    def __init__(self, frames: list[LabelledFrame], source: Bundle) -> None:
        self.frames, self.source = frames, source
        self._kept: dict[tuple[str, int], float] = {}

    def ap50(self, bundle: Bundle, look: Look) -> float:
        """Return AP50 in points; what was asked before is not asked again."""
        key = (look.__name__, bundle.version)
        if key not in self._kept:
            rng = np.random.default_rng(0)
            seen = [replace(f, frame=replace(f.frame, image=look(f.frame.image, 1.0, rng))) for f in self.frames]
            self._kept[key] = 100 * score(bundle, seen, 'cpu')['ap50']
        return self._kept[key]


def memory_mb(process: int | str = 'self') -> float:
    """Return the resident memory of a process, this one by default."""
    pages = int(Path(f'/proc/{process}/statm').read_text(encoding='ascii').split()[1])
    return pages * resource.getpagesize() / 2**20


class Stream:
    """Camera and simulator: hands a session what they show during a segment."""

    def __init__(self, session: AdaptationSession, stream: list[Frame], poor: list[Frame],
                 simulated: list[LabelledFrame], seed: int) -> None:
        self.session, self.simulated = session, simulated
        self.rng = np.random.default_rng([seed, 7])
        self.pools = {'all': stream, 'poor': poor, 'one': stream[:1], 'none': []}
        self.sent = self.admitted = 0

    def camera(self, segment: Segment, count: int, passed: float) -> None:
        """Show so many frames; an unplugged camera lets the time pass."""
        pool = self.pools[segment.frames]
        for _ in range(count):
            self.sent += 1
            if not pool:
                continue
            frame = pool[int(self.rng.integers(len(pool)))]
            image = segment.look(frame.image, passed, self.rng)
            if segment.frames == 'one':  # the same picture through the sensor again
                image = _bytes(image + self.rng.normal(0, 2, image.shape))
            self.admitted += self.session.add_target(replace(frame, image=image, stamp=self.sent))

    def simulator(self, segment: Segment) -> None:
        """Send a labelled frame."""
        first, second = (self.simulated[int(i)] for i in self.rng.integers(len(self.simulated), size=2))
        self.session.add_source(LabelledFrame(first.frame, second.labels) if segment.bad_labels else first)


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Run the stream once and return what happened."""
    simulated = simulation(options.work, options.jobs)
    stream, scored = surrogate(STREAM_SEED, STREAM), surrogate(SCORED_SEED, SCORED)
    by_objects = sorted(stream, key=lambda f: len(f.labels))
    poor = [f.frame for f in by_objects[:len(stream) // 6]]
    bundle = Bundle.load(weights_path(options.weights))
    scoring = Scoring(scored, bundle)
    per_step = max(1, round(options.frames / len(SEGMENTS) / options.steps))
    with tempfile.TemporaryDirectory() as folder:
        session = AdaptationSession(bundle, load_recipe(options.recipe), WeightStore(folder), seed=options.seed,
                                    gate_every=options.gate_every, buffer_bytes=options.buffer_mb * 2**20)
        source = session.source
        for labelled in simulated:
            session.add_source(labelled)
        flow = Stream(session, [f.frame for f in stream], poor, simulated[session.holdout:], options.seed)
        checkpoints = []
        for segment in SEGMENTS:
            begin = time.monotonic()
            for step in range(options.steps):
                flow.camera(segment, per_step, step / options.steps)
                flow.simulator(segment)
                session.work()
            checkpoint = {'segment': segment.name, 'benign': segment.benign, 'frames': flow.sent,
                          'admitted': flow.admitted, 'step': session.step, 'state': session.state,
                          'version': session.running.version, 'promotions': session.promotions,
                          'rejections': session.rejections, 'rollbacks': session.rollbacks,
                          'source_ap50': round(scoring.ap50(source, day), 3),
                          'published_ap50': round(scoring.ap50(session.running, day), 3)}
            if segment.scored:
                checkpoint['source_own_look'] = round(scoring.ap50(source, segment.look), 3)
                checkpoint['published_own_look'] = round(scoring.ap50(session.running, segment.look), 3)
            gc.collect()
            memory.release()  # what scoring has just freed is not the session's
            checkpoint['rss_mb'] = round(memory_mb(), 1)
            checkpoint['seconds'] = round(time.monotonic() - begin, 1)
            log.info('%s: %s', options.recipe, checkpoint)
            checkpoints.append(checkpoint)
        reasons = [session.reason] if session.state in ('frozen', 'faulted') else []
        written = Path(folder) / 'decisions.jsonl'  # not there when the session ended before its first gate
        decisions = [decision_of(line) for line in
                     (written.read_text(encoding='utf-8').splitlines() if written.is_file() else ())]
    return {'recipe': options.recipe, 'seed': options.seed, **summary(checkpoints), 'ended': reasons,
            'checkpoints': checkpoints, 'decisions': decisions}


def decision_of(line: str) -> dict[str, Any]:
    """Return what a line of decisions.jsonl says, shortened."""
    decision = json.loads(line)
    return {key: decision[key] for key in ('event', 'step', 'version', 'reason')} | {
        'numbers': {key: round(value, 4) for key, value in decision['numbers'].items()}}


def summary(checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the worst drop, the mean gains (points of AP50) and the counters of a run's checkpoints.

    Memory grows from the second checkpoint on: until then caches and the buffer fill.
    """
    gains: dict[str, list[float]] = {'benign': [], 'hostile': []}
    for checkpoint in checkpoints:
        kind = 'benign' if checkpoint['benign'] else 'hostile'
        gains[kind] += [checkpoint[f'published_{look}'] - checkpoint[f'source_{look}']
                        for look in ('ap50', 'own_look') if f'published_{look}' in checkpoint]
    last = checkpoints[-1]
    return {
        'frames': last['frames'],
        'worst_drop_below_source': {k: round(max([0.0, *(-g for g in v)]), 3) for k, v in gains.items()},
        'mean_gain': {k: round(float(np.mean(v)), 3) for k, v in gains.items() if v},
        'promotions': last['promotions'], 'rejections': last['rejections'], 'rollbacks': last['rollbacks'],
        'rss_growth_mb': round(last['rss_mb'] - checkpoints[min(1, len(checkpoints) - 1)]['rss_mb'], 1),
    }


def main() -> None:
    """Run and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--recipe', required=True, help='name, or path of a YAML file')
    parser.add_argument('--weights', default='tools', help='source model of the tools: file, or name of shipped ones')
    parser.add_argument('--work', type=Path, default=Path('runs/soak'), help='keeps the rendered simulation')
    parser.add_argument('--frames', type=int, default=65000, help='of the camera, over all segments')
    parser.add_argument('--steps', type=int, default=50, help='learning steps in each segment')
    parser.add_argument('--gate-every', type=int, default=25)
    parser.add_argument('--buffer-mb', type=int, default=32)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=1, help='processes that render')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path, help='default: benchmarks/results/soak_RECIPE.json')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    about = provenance()
    out = options.json or Path(__file__).parent / 'results' / f'soak_{Path(options.recipe).stem}.json'
    found = {**about, **soak(options)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    log.info('wrote %s', out)


if __name__ == '__main__':
    main()
