# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""How long a picture takes: from message to message, from array to poses, part by part, and beside a learner.

``python benchmarks/speed.py --weights tools --json benchmarks/results/speed_cpu.json``

Runs without ROS (the part with messages is left out) and, with ``--data``, without MuJoCo; the file says what was left
out and why. Things to be compared take turns picture by picture, so that they share what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from provenance import provenance

from sim2real_da.data.bop import BopDataset
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import decode
from sim2real_da.networks.estimator import POSE_SCORE, Estimator, fit, seen, to_tensor
from sim2real_da.networks.pose import combined
from sim2real_da.networks.refinement import Found, refined
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import load_recipe
from sim2real_da.resources import weights_path
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame

log = logging.getLogger('speed')
SIZE = (640, 480)
SIZES = ((320, 240), SIZE)  # of the messages
WANTED = 5  # objects found in a picture
PICTURES, CANDIDATES = 8, 32
NICE, DUTY = 10, 0.8  # of the learner: defaults of the adaptation node
BLOCKS = 6  # of pictures, half of them beside a learner at work
MODES = ('half', 'channels_last', 'compile')  # besides fp32
Numbers = dict[str, Any]


class Stopwatch:
    """Collects wall and processor times by name.

    :param device: whose work is waited for at the end of a lap
    :param warming: first laps of each name that do not count
    """

    def __init__(self, device: str, warming: int = 0) -> None:
        self._cuda, self._warming = device != 'cpu', warming
        self._laps: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def start(self) -> None:
        """Begin a lap."""
        self._begin = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """End a lap and begin the next."""
        if self._cuda:
            torch.cuda.synchronize()
        self._laps[name].append((time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]))
        self.start()

    def result(self) -> dict[str, Numbers]:
        """Return percentiles in milliseconds; processor time is of all threads and does not count waiting."""
        result = {}
        for name, laps in self._laps.items():
            wall, processor = 1e3 * np.array(laps[self._warming:]).T
            result[name] = {
                **{f'p{q}_ms': round(float(np.percentile(wall, q)), 3) for q in (50, 95, 99)},
                'processor_p50_ms': round(float(np.median(processor)), 3), 'count': len(wall)}
        return result


def over(first: Numbers, second: Numbers) -> Numbers:
    """Return how many times longer the first takes."""
    return {f'{key}_ratio': round(first[f'{key}_ms'] / second[f'{key}_ms'], 3)
            for key in ('p50', 'p95', 'p99', 'processor_p50') if second[f'{key}_ms'] > 0}


# --- pictures ----------------------------------------

def candidates(data: Path | None) -> list[LabelledFrame]:
    """Return labelled simulated frames: of a rendered set, or rendered here."""
    if data is not None:
        dataset = BopDataset(data, 'train')
        return [dataset.frame(i) for i in dataset.ids()[:CANDIDATES]]
    if importlib.util.find_spec('mujoco') is None:
        raise SystemExit('speed: MuJoCo is missing; give a set written by sim2real_da render with --data')
    from sim2real_da.simulation.objects import tools
    from sim2real_da.simulation.simulator import Simulator

    simulator = Simulator(tools(), Intrinsics(*SIZE, 600.0, 600.0, 319.5, 239.5), seed=5)
    frames = [simulator.sample() for _ in range(CANDIDATES)]
    simulator.close()
    return frames


def resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """Return the frame as a camera of this size would have taken it."""
    if size == (frame.intrinsics.width, frame.intrinsics.height):
        return frame
    return Frame(np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8),
                 frame.intrinsics.scaled(*size))


def chosen(bundle: Bundle, frames: list[LabelledFrame]) -> tuple[list[Frame], float]:
    """Return the pictures with about :data:`WANTED` objects found, and how many are found in one on average."""
    if strangers := {label.name for f in frames for label in f.labels} - set(bundle.classes):
        raise SystemExit(f'speed: the pictures show {sorted(strangers)}, which the weights do not know; give --data')
    estimator = Estimator(bundle)
    counted = []
    for labelled in frames:
        frame = resized(labelled.frame, SIZE)
        counted.append((len(estimator.estimate(frame.image, frame.intrinsics)), frame))
    counted.sort(key=lambda pair: abs(pair[0] - WANTED))
    counted = counted[:PICTURES]
    return [frame for _, frame in counted], float(np.mean([count for count, _ in counted]))


# --- what is timed ----------------------------------------

def answering(bundle: Bundle, frames: list[Frame], size: tuple[int, int]) -> Callable[..., None]:
    """Return what answers the i-th picture as the perception node does on the CPU, from image message to pose messages.

    :raises ImportError: without ROS
    """
    from sim2real_da.nodes import messages

    estimator, head = Estimator(bundle.copy()), messages.header(1, 'camera')
    sent = [(messages.image_message(f.image, head), messages.camera_info_message(f.intrinsics, head))
            for f in (resized(frame, size) for frame in frames)]

    def answer(i: int, lap: Callable[[str], None] = lambda name: None) -> None:
        message, info = sent[i % len(sent)]
        image = messages.read_any_image(message, 'image')
        intrinsics = messages.read_camera_info(info, 'camera_info', size)
        lap('reading')
        found = estimator.estimate(image, intrinsics)
        lap('estimating')
        messages.detections_2d_message(found, head)
        messages.detections_3d_message(found, bundle.objects, head)
        messages.pose_array_message(found, head)
        messages.best_poses(found, head)
        lap('writing')

    return answer


def message_to_message(bundle: Bundle, frames: list[Frame], repetitions: int) -> Numbers:
    """Time the perception node's way from an image message to pose messages on the CPU, by image size."""
    result = {}
    for size in SIZES:
        answer = answering(bundle, frames, size)
        whole, watch = Stopwatch('cpu', len(frames)), Stopwatch('cpu', len(frames))
        for i in range(len(frames) + repetitions):
            whole.start()
            watch.start()
            answer(i, watch.lap)
            whole.lap('whole')
        result[f'{size[0]}x{size[1]}'] = {**whole.result(), **watch.result()}
    return result


def in_half(network: torch.nn.Module, device: str) -> None:
    """Let a network compute in 16 bits where that is safe; its answer has 32 again."""
    forward, kind = network.forward, torch.bfloat16 if device == 'cpu' else torch.float16

    def run(x: torch.Tensor) -> Any:
        with torch.autocast(device, kind):
            output = forward(x)
        return type(output)(**{k: v.float() if isinstance(v, torch.Tensor) else v for k, v in vars(output).items()})

    network.forward = run  # type: ignore[method-assign]


def estimator_in(mode: str, bundle: Bundle, device: str) -> Estimator:
    """Return an estimator whose networks run in one of :data:`MODES` or as they are."""
    estimator = Estimator(bundle.copy(), device)
    for network in (estimator.bundle.detector, estimator.bundle.pose):
        if mode == 'half':
            in_half(network, device)
        elif mode == 'channels_last':
            network.to(memory_format=torch.channels_last)
        elif mode == 'compile':
            network.compile()
    return estimator


def array_to_poses(bundle: Bundle, frames: list[Frame], device: str, repetitions: int, modes: list[str]) -> Numbers:
    """Time the estimator in several modes, taking turns."""
    watch, estimators, result = Stopwatch(device), {}, {}
    for mode in modes:
        begin = time.perf_counter()
        try:
            estimator = estimator_in(mode, bundle, device)
            for frame in frames:  # warm: a compiler needs every number of crops once
                estimator.estimate(frame.image, frame.intrinsics)
        except Exception as error:  # a compiler's own error types; without a C compiler there is none
            result[mode] = {'failed': f'{type(error).__name__}: {error}'.splitlines()[0]}
            continue
        estimators[mode] = estimator
        result[mode] = {'warming_s': round(time.perf_counter() - begin, 1)}
    for i in range(repetitions):
        frame = frames[i % len(frames)]
        for mode, estimator in estimators.items():
            watch.start()
            estimator.estimate(frame.image, frame.intrinsics)
            watch.lap(mode)
    times = watch.result()
    return {mode: {**told, **times[mode], 'over_fp32': over(times[mode], times['fp32'])} if mode in times else told
            for mode, told in result.items()}


@torch.inference_mode()
def parts(bundle: Bundle, frames: list[Frame], device: str, repetitions: int) -> Numbers:
    """Time the steps of the estimator one by one, as :meth:`Estimator.estimate` takes them."""
    estimator, watch = Estimator(bundle.copy(), device), Stopwatch(device, len(frames))
    bundle, threshold = estimator.bundle, estimator.score_threshold
    size, models, crops_cut = bundle.pose.crop_size, list(bundle.objects.values()), 0
    for i in range(len(frames) + repetitions):
        frame = frames[i % len(frames)]
        watch.start()
        fitted, scale = fit(frame.image, bundle.detector.input_size)
        images = to_tensor([fitted], device)
        watch.lap('fitting the picture')
        output = bundle.detector(images)
        watch.lap('detector')
        boxes, scores, classes = (t.cpu() for t in decode(output, threshold**2, 2 * estimator.max_detections)[0])
        boxes = boxes.double().numpy() / scale
        watch.lap('decoding boxes')
        if not len(boxes):
            continue
        crops_cut += len(boxes)
        transforms = [crop_transform(box, size) for box in boxes]
        crops = to_tensor([cut(frame.image, t, size) for t in transforms], device)
        watch.lap('crops')
        posed = bundle.pose(crops)
        watch.lap('pose network')
        sure = posed.classes.softmax(1).cpu()[torch.arange(len(classes)), classes]
        rows = torch.nonzero((scores * sure).sqrt() >= max(threshold, POSE_SCORE))[:, 0].tolist()
        looks = seen(bundle.pose, posed, frame.image, frame.intrinsics, rows, [boxes[r] for r in rows],
                     [transforms[r] for r in rows], [int(classes[r]) for r in rows], models) if rows else []
        found = [(models[int(classes[r])], solved, own) for r, own in zip(rows, looks)
                 if (solved := combined(own, models[int(classes[r])])) is not None]
        watch.lap('poses, from further views and looks too')
        if bundle.outline is not None:
            refined([Found(model, 1.0, *solved, [view[0] for view in own if view is not None])
                     for model, solved, own in found], frame.image, frame.intrinsics, bundle.outline)
            watch.lap('poses on outlines')
    return {'crops_of_a_picture': round(crops_cut / (len(frames) + repetitions), 2), **watch.result()}


# --- beside a learner ----------------------------------------

def learn(weights: Path, frames: list[LabelledFrame], device: str, flags: dict[str, Any]) -> None:
    """Take learning steps while told to, with the adaptation node's priority and pauses; runs in its own process."""
    os.nice(NICE)
    learner, rng = Learner(Bundle.load(weights), load_recipe('dann'), device), np.random.default_rng(0)
    count = learner.recipe.source_frames
    while not flags['stop'].is_set():
        if not flags['on'].wait(0.1):
            continue
        flags['idle'].clear()
        begin = time.perf_counter()
        picked = [frames[i] for i in rng.permutation(len(frames))]
        learner.step(picked[:count], [f.frame for f in picked[count:2 * count]])
        flags['steps'].value += 1
        flags['idle'].set()
        time.sleep((time.perf_counter() - begin) * (1 - DUTY) / DUTY)


@contextlib.contextmanager
def learner_process(bundle: Bundle, frames: list[LabelledFrame], device: str) -> Iterator[Callable[[bool], int]]:
    """Start the learner; what is returned switches it on or off, waits for that, and returns its steps so far."""
    context = multiprocessing.get_context('spawn')
    flags = {'on': context.Event(), 'stop': context.Event(), 'idle': context.Event(), 'steps': context.Value('i', 0)}

    def wait(condition: Callable[[], bool]) -> None:
        while not condition():
            if not process.is_alive():
                raise RuntimeError('the learner has ended')
            time.sleep(0.02)

    def switch(on: bool) -> int:
        before = flags['steps'].value
        if on:
            flags['on'].set()
            wait(lambda: flags['steps'].value > before)
        else:
            flags['on'].clear()
            time.sleep(0.2)  # it may have just read the flag
            wait(flags['idle'].is_set)
        return int(flags['steps'].value)

    with tempfile.TemporaryDirectory() as folder:
        weights = bundle.save(Path(folder) / 'source.safetensors')
        process = context.Process(target=learn, args=(weights, frames, device, flags), daemon=True)
        process.start()
        try:
            yield switch
        finally:
            flags['stop'].set()
            process.join()


def beside_learner(bundle: Bundle, frames: list[Frame], simulated: list[LabelledFrame], device: str,
                   repetitions: int, answers: dict[str, Callable[..., None]]) -> Numbers:
    """Time the estimator with a learner in a second process, off and on in alternating blocks.

    :param answers: what else takes turns with it by name, called with the number of the picture
    """
    estimator, watch = Estimator(bundle.copy(), device), Stopwatch(device)

    def array_to_poses(i: int) -> None:
        frame = frames[i % len(frames)]
        estimator.estimate(frame.image, frame.intrinsics)

    timed = {'array_to_poses': array_to_poses, **answers}
    steps, seconds = 0, 0.0
    with learner_process(bundle, simulated, device) as switch:
        switch(True)  # its first step is slower than the others
        for block in range(BLOCKS):
            on = block % 2 == 1
            before, begin = switch(on), time.perf_counter()
            for i in range(repetitions):
                for name, run in timed.items():
                    watch.start()
                    run(i)
                    watch.lap(f'{name} {on}')
            if on:  # from the end of a step to the end of a step
                steps += switch(True) - before
                seconds += time.perf_counter() - begin
    times = watch.result()
    beside = {name: (times[f'{name} False'], times[f'{name} True']) for name in timed}
    return {**{name: {'off': off, 'on': on, 'on_over_off': over(on, off)} for name, (off, on) in beside.items()},
            'learner_steps_beside': steps, 'seconds_beside': round(seconds, 2)}


def measure(bundle: Bundle, simulated: list[LabelledFrame], repetitions: int, modes: list[str]) -> Numbers:
    """Return all numbers of one weights file."""
    frames, found = chosen(bundle, simulated)
    result: Numbers = {
        'pose': bundle.pose.config, 'detector': bundle.detector.config, 'objects_found': found, 'left_out': {}}
    answers: dict[str, Callable[..., None]] = {}
    try:
        result['message_to_message'] = message_to_message(bundle, frames, repetitions)
        answers = {'message_to_message_{}x{}'.format(*SIZES[0]): answering(bundle, frames, SIZES[0])}
    except ImportError as error:
        result['left_out']['message_to_message'] = str(error)
    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    if 'cuda' not in devices:
        result['left_out']['cuda'] = 'there is no GPU'
    for device in devices:
        log.info('on %s', device)
        result[device] = {
            'array_to_poses': array_to_poses(bundle, frames, device, repetitions, modes),
            'parts': parts(bundle, frames, device, repetitions),
            'learner': beside_learner(
                bundle, frames, simulated, device, repetitions, answers if device == 'cpu' else {})}
    return result


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', nargs='+', default=['tools'], help='files, or names of shipped ones')
    parser.add_argument('--data', type=Path, help='set written by sim2real_da render; without: rendered here')
    parser.add_argument('--repetitions', type=int, default=200, help='pictures of a measurement or block')
    parser.add_argument('--without', nargs='+', default=[], choices=MODES, help='modes to leave out')
    parser.add_argument('--json', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    simulated, modes = candidates(options.data), ['fp32', *(m for m in MODES if m not in options.without)]
    result: Numbers = {
        **provenance(), 'cores': os.cpu_count(), 'nice': os.nice(0), 'learner_nice': min(os.nice(0) + NICE, 19),
        'modes_left_out': options.without, 'load_before': os.getloadavg()[0], 'weights': {}}
    for name in options.weights:
        log.info('%s', name)
        path = weights_path(name)
        result['weights'][path.stem] = measure(Bundle.load(path), simulated, options.repetitions, modes)
    result['load_after'] = os.getloadavg()[0]
    text = json.dumps(result, indent=1) + '\n'
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text, encoding='utf-8')
    else:
        logging.info('%s', text)


if __name__ == '__main__':
    main()
