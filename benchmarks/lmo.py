# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""LineMOD-Occluded: source-only, source-continued, adapted and target-only rows, from CAD models to a table.

``python benchmarks/lmo.py --data LMO --photos PHOTOS --work runs/lmo`` renders, trains, adapts and scores; every stage
is kept in ``--work`` and not done again. ``--measure`` scores the committed weights instead, in minutes.

Rules: the source is rendered from the CAD models with the views of LINEMOD's protocol. The 100 photographs with
ids <= 611 are the unlabelled stream; their labels are read by the target-only row alone. The other 40 are scored once,
at the end. Which recipe is ``lmo_adapted`` is decided by InfoMax on the unlabelled stream, the validator that the study
of validators found to rank best (benchmarks/validators.py): the answers of all rows at the same places, detector and
pose network added up, mean over the seeds. ``--proxy`` is another way to look without labels of photographs: renders
apart from the training ones as the surrogate world's sensor would have taken them, whose labels are simulation's own.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from online_adaptation import KEYS, adapt, score, spread
from provenance import provenance

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation import calibration
from sim2real_da.evaluation.evidence import find, target_rows
from sim2real_da.evaluation.validators import mutual_information
from sim2real_da.networks.averaging import average
from sim2real_da.networks.bundle import Bundle
from sim2real_da.online.stored import GATE_EVERY, TOLERANCE
from sim2real_da.outlines import log_size
from sim2real_da.samples import Frame, LabelledFrame
from sim2real_da.simulation.randomisation import Randomisation
from sim2real_da.simulation.render import render_dataset
from sim2real_da.simulation.sensor import Sensor
from sim2real_da.simulation.surrogate import load_appearance
from sim2real_da.training import Plan, train

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
CONTROL = 'source_continued'
HOLDOUT, SOURCE_FRAMES = 40, 340
FINE_TUNING_STEPS = 300  # target-only, on the 100 labelled photographs; not tuned
OUTLINE_STEPS = (2000, 1000)  # of the outline network: on renders as they are, and as cameras would have taken them
CLOSER = 96  # side of the crops in the last stage of the pose network's training
APART = 200  # renders that no training step sees
CROPS_OF_A_POSE = 9  # that a published pose is the mean of
IN_FULL_VIEW = 0.9  # visible share from which nothing hides an outline
PLAIN = Randomisation(light=False, colour=False, texture=False, camera=True, distractors=False)


def rendered(data: Path, out: Path, count: int, seed: int, photos: Path | None,
             randomisation: Randomisation | None = None) -> BopDataset:
    """Render a set, or go on where it stopped."""
    render_dataset(str(data), out, count, seed, photos=photos, randomisation=randomisation)
    return BopDataset(out, 'train')


def short_model(dataset: BopDataset, out: Path, steps: tuple[int, int], effects: bool) -> Bundle:
    """Train detector and pose network for so many steps each: two kinds of renders are to have the same budget."""
    if out.is_file():
        return Bundle.load(out)
    parts = [train(dataset, out.with_name(f'{out.stem}_{network}.safetensors'), Plan(
        steps=count, networks=(network,), backbone='efficientnet_lite0', pretrained=True, effects=effects,
        turn=45.0 if network == 'pose' else 20.0)) for network, count in zip(('detector', 'pose'), steps)]
    return merged(*parts, out)


def source_model(dataset: BopDataset, out: Path, minutes: tuple[float, ...]) -> Bundle:
    """Train detector and pose network, each for its time, and put them together.

    :param minutes: detector, pose network with a frozen backbone, on with one that learns, and on with larger crops and
        a second look (0: not); what follows are further trainings like the last one, and the pose network is the mean
        of what these end with
    """
    if out.is_file():
        return Bundle.load(out)
    parts: dict[str, Bundle] = {}
    ends: list[Bundle] = []
    further = [(f'closer{n}', 'pose', False) for n in range(2, len(minutes) - 2)]
    stages = (('detector', 'detector', True), ('frozen', 'pose', True), ('pose', 'pose', False),
              ('closer', 'pose', False), *further)
    for seed, ((name, network, frozen), share) in enumerate(zip(stages, minutes, strict=True)):
        if share:
            if name == 'closer':
                parts[network].look_closer(CLOSER, looks=2)
            parts[network] = train(dataset, out.with_name(f'{out.stem}_{name}.safetensors'), Plan(
                steps=10**6, minutes=share, networks=(network,), backbone='efficientnet_lite0', pretrained=True,
                frozen=frozen, effects=True, turn=45.0 if network == 'pose' else 20.0, seed=seed),
                bundle=parts.get(network))
            if name.startswith('closer'):
                ends.append(parts[network].copy())
    return merged(parts['detector'], average(ends) if len(ends) > 1 else parts['pose'], out)


def outlined(source: Bundle, dataset: BopDataset, out: Path) -> Bundle:
    """Return the source model with a network that puts its poses on outlines."""
    if out.is_file():
        return Bundle.load(out)
    clear, effects = (Plan(steps=steps, networks=('outline',), effects=effects)
                      for steps, effects in zip(OUTLINE_STEPS, (False, True), strict=True))
    first = train(dataset, out.with_name(f'{out.stem}_clear.safetensors'), clear, bundle=source.copy())
    return train(dataset, out, effects, bundle=first)


def calibrate(weights: Path, apart: Path, out: Path, device: str = 'cpu') -> None:
    """Write the weights with poses of nine crops put on outlines, and covariances fitted to the errors of those.

    Figure and numbers lie beside ``out``; see :mod:`sim2real_da.evaluation.calibration`.

    :param apart: folder of renders that no training step saw
    """
    calibration.run(argparse.Namespace(
        weights=str(weights), data=apart, split='train', count=None, views=CROPS_OF_A_POSE, no_outlines=False,
        out=out, figure=out.with_name('calibration.png'), json=out.with_name('calibration.json'), device=device))


def merged(detector: Bundle, pose: Bundle, out: Path) -> Bundle:
    """Put the detector of one bundle and the pose network of another into one file."""
    whole = detector.copy()
    whole.pose = pose.pose
    whole.created = {'detector': detector.created, 'pose': pose.created}
    whole.save(out)
    return whole


def fine_tuned(source: Bundle, data: Path, ids: list[int], out: Path) -> Bundle:
    """Return the upper bound: the source model trained on with labelled photographs.

    How large objects look beside their models is measured at their true poses, for the outline network to learn with.
    """
    if out.is_file():
        return Bundle.load(out)

    class Development(BopDataset):
        def ids(self) -> list[int]:
            return ids

        def frame(self, frame_id: int) -> LabelledFrame:
            # some copies of the set come with masks: the bound is the same for all
            labelled = super().frame(frame_id)
            return replace(labelled, labels=tuple(replace(label, mask=None) for label in labelled.labels))

    bundle, development = source.copy(), Development(data)
    labelled = [development.frame(number) for number in ids]
    measured = {name: log_size((frame.frame, [(model, label.pose) for label in frame.labels
                                              if label.name == name and (label.visible or 0) >= IN_FULL_VIEW])
                               for frame in labelled) for name, model in bundle.objects.items()}
    bundle.log_sizes = {name: size for name, size in measured.items() if size is not None}
    for network in source.networks():
        frozen = getattr(source, network).config.get('frozen', False)
        bundle = train(development, out.with_name(f'{out.stem}_{network}.safetensors'), Plan(
            steps=FINE_TUNING_STEPS, networks=(network,), effects=True, rate=3e-4, frozen=frozen), bundle=bundle)
    bundle.recipe = 'target_only'
    bundle.save(out)
    return bundle


def unseen_camera(dataset: BopDataset, ids: list[int]) -> list[LabelledFrame]:
    """Return simulated frames as the surrogate world's sensor would have taken them."""
    return [seen_by_another_camera(dataset.frame(number), number) for number in ids]


def seen_by_another_camera(labelled: LabelledFrame, number: int) -> LabelledFrame:
    """Return a frame as the surrogate world's sensor would have taken it; the number draws what chance does."""
    frame = labelled.frame
    image = surrogate_sensor().capture(frame.image, np.random.default_rng(number))
    return LabelledFrame(replace(frame, image=image), labelled.labels)


@cache
def surrogate_sensor() -> Sensor:
    """Return the camera of the surrogate world."""
    return Sensor(**{k: tuple(v) if isinstance(v, list) else v for k, v in load_appearance()['camera'].items()})


def rows(options: argparse.Namespace, source: Bundle, simulation: BopDataset, target: list[Frame],
         scoring: list[LabelledFrame], work: Path, keep: Path | None = None) -> dict[str, Any]:
    """Adapt by every recipe and seed and return source-only and recipe rows.

    :param work: folder of adapted models, which are not made again
    :param keep: where the weights of the control and of the recipe chosen by InfoMax go (seed 0)
    """
    source = shipped(source)
    replay = [simulation.frame(i) for i in simulation.ids()[-SOURCE_FRAMES:]]
    runs: dict[str, list[dict[str, float]]] = {}
    bundles: dict[str, list[Bundle]] = {}
    only = score(source, scoring, options.device)
    log.info('source_only: %s', only)
    for recipe in options.recipes:
        row = Path(recipe).stem
        runs[row], bundles[row] = [], []
        for seed in range(options.seeds):
            name = f'{row}_{options.steps}_{seed}' + f'_{options.tolerance:g}' * (options.tolerance != TOLERANCE)
            bundle, course = adapted_model(options, work / f'{name}.safetensors', source, recipe, seed, replay, target)
            bundle = shipped(bundle)
            bundles[row].append(bundle)
            runs[row].append({**score(bundle, scoring, options.device), **course})
            log.info('%s seed %d: %s', row, seed, runs[row][-1])
    seen = infomax({'source_only': [source], **bundles}, target)
    adapted = max((row for row in bundles if row != CONTROL), key=lambda row: sum(seen[row].values()), default=None)
    log.info('InfoMax on the stream: %s; adapted is %s', seen, adapted)
    if keep is not None:
        for recipe, name in ((CONTROL, CONTROL), (adapted, 'adapted')):
            if recipe in bundles:
                bundles[recipe][0].save(keep / f'lmo_{name}.safetensors', half=True)
    return {'adapted': adapted, 'infomax': seen, 'runs': runs,
            'rows': {'source_only': only, **{k: spread(v) for k, v in runs.items()}}}


def shipped(bundle: Bundle) -> Bundle:
    """Return the weights as they are committed, in 16 bits: a row is of what anyone can measure again."""
    return Bundle.from_bytes(bundle.to_bytes(half=True))


def adapted_model(options: argparse.Namespace, out: Path, source: Bundle, recipe: str, seed: int,
                  replay: list[LabelledFrame], target: list[Frame]) -> tuple[Bundle, dict[str, float]]:
    """Adapt by one recipe, or find what that gave before."""
    course = out.with_suffix('.json')
    if course.is_file():
        return Bundle.load(out), json.loads(course.read_text(encoding='utf-8'))
    # a row shows what a recipe does, the control's too: evidence would keep most of it from being published
    bundle, numbers = adapt(
        source, recipe, seed, replay, target, steps=options.steps, holdout=HOLDOUT, gate_every=options.gate_every,
        tolerance=options.tolerance, device=options.device, evidence=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(out)
    course.write_text(json.dumps(numbers), encoding='utf-8')
    return bundle, numbers


def infomax(bundles: dict[str, list[Bundle]], frames: list[Frame]) -> dict[str, dict[str, float]]:
    """Return by row and network the mean InfoMax at the places where any of the bundles finds something.

    :raises ValueError: when none finds anything; networks that see nothing are not fit to be compared
    """
    places = find([b for some in bundles.values() for b in some], frames)
    if not any(len(p.boxes) for p in places):
        raise ValueError(f'no row finds an object in {len(frames)} frames of the stream; train the source model longer')
    seen: dict[str, dict[str, float]] = {}
    for row, some in bundles.items():
        asked = [target_rows(b, frames, places) for b in some]
        seen[row] = {part: float(np.mean([mutual_information(a[part]) for a in asked])) for part in asked[0]}
    return seen


def measure(options: argparse.Namespace, scoring: list[LabelledFrame]) -> dict[str, Any]:
    """Score the committed weights."""
    found = {}
    for row in ('source_only', 'source_continued', 'adapted', 'target_only'):
        found[row] = score(Bundle.load(HERE / 'weights' / f'lmo_{row}.safetensors'), scoring, options.device)
        log.info('%-16s %s', row, '  '.join(f'{k} {found[row][k]:.3f}' for k in KEYS))
    return {'rows': found}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**provenance(), **content}, indent=1) + '\n', encoding='utf-8')


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='LineMOD-Occluded in BOP layout')
    parser.add_argument('--photos', type=Path, help='photographs for surfaces')
    parser.add_argument('--photos-apart', type=Path, help='other photographs, for renders apart from the training ones')
    parser.add_argument('--work', type=Path, default=Path('runs/lmo'), help='renders and unfinished weights')
    parser.add_argument('--source', type=Path, help='adapt these weights instead of training: 400 --frames do')
    parser.add_argument('--measure', action='store_true', help='score the committed weights and nothing else')
    parser.add_argument('--proxy', action='store_true', help='adapt to simulation seen by another camera, to choose')
    parser.add_argument('--randomisation', action='store_true', help='the 2 x 2 table: plain or randomised renders')
    parser.add_argument('--frames', type=int, default=5000)
    parser.add_argument('--minutes', type=float, nargs='+', default=(80, 62, 125, 100, 40, 40, 110),
                        help='of training: detector, pose network with a frozen backbone, with one that learns, with '
                        'larger crops, and further ones with these, whose ends are averaged')
    parser.add_argument('--short-steps', type=int, nargs=2, default=(600, 500),
                        help='--randomisation: training steps of detector and pose network, the same for both renders')
    parser.add_argument('--gate-every', type=int, default=GATE_EVERY, help='steps between two candidates')
    parser.add_argument('--tolerance', type=float, default=TOLERANCE,
                        help='of the gate that adapts: how far scores on simulation may fall; 1 opens it')
    parser.add_argument('--recipes', nargs='+', default=[CONTROL, 'dann', 'self_training'],
                        help='names, or paths of YAML files; a row has the name of its file')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=125)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--json', type=Path, help='default: benchmarks/results/lmo*.json')
    options = parser.parse_args()
    options.minutes = [*options.minutes, *[0.0] * (4 - len(options.minutes))]  # stages that are not named are left out
    if any(options.minutes[4:]) and not options.minutes[3]:
        parser.error('--minutes: further trainings on larger crops go on from a first one')
    if options.minutes[3] and not any(options.minutes[1:3]):
        parser.error('--minutes: larger crops go on from a pose network that was trained on small ones')
    if options.source and not options.source.is_file():
        parser.error(f'--source: {options.source}: no such file')
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    if options.threads:
        torch.set_num_threads(options.threads)
    real = BopDataset(options.data)
    stream, scored = lmo_split(real.ids())
    scoring = [real.frame(i) for i in scored]
    results = HERE / 'results'
    if options.measure:
        write(options.json or results / 'lmo_weights.json', measure(options, scoring))
        return
    simulation = rendered(options.data, options.work / 'sim', options.frames, 11, options.photos)
    target = [real.frame(i).frame for i in stream]
    if options.randomisation:
        plain = rendered(options.data, options.work / 'plain', options.frames, 12, options.photos, PLAIN)
        table = {}
        for name, dataset in (('plain', plain), ('randomised', simulation)):
            # camera effects belong to randomisation
            model = short_model(dataset, options.work / f'{name}_short.safetensors', options.short_steps,
                                name == 'randomised')
            table[name] = rows(options, model, dataset, target, scoring, options.work / f'{name}_adapted')
        write(options.json or results / 'lmo_randomisation.json', {
            'training_steps': options.short_steps, 'tolerance': options.tolerance, 'renders': table})
        return
    path, apart = options.source or options.work / 'source.safetensors', options.work / 'val'
    if not path.is_file():
        model = source_model(simulation, options.work / 'networks.safetensors', options.minutes)
        outlined(model, simulation, options.work / 'uncalibrated.safetensors')
        rendered(options.data, apart, APART, 77, options.photos_apart)
        calibrate(options.work / 'uncalibrated.safetensors', apart, path, options.device)
    source = Bundle.load(path)
    if options.proxy:
        proxy = rendered(options.data, apart, APART, 77, options.photos_apart)
        frames = unseen_camera(proxy, proxy.ids())
        found = rows(options, source, simulation, [f.frame for f in frames[:100]], frames[100:],
                     options.work / 'proxy_adapted')
        write(options.json or results / 'lmo_proxy.json', found)
        return
    weights = HERE / 'weights'
    source.save(weights / 'lmo_source_only.safetensors', half=True)
    found = rows(options, source, simulation, target, scoring, options.work / 'adapted', weights)
    bound = fine_tuned(source, options.data, stream, options.work / 'target_only.safetensors')
    bound.save(weights / 'lmo_target_only.safetensors', half=True)
    found['rows']['target_only'] = score(shipped(bound), scoring, options.device)
    log.info('target_only: %s', found['rows']['target_only'])
    write(options.json or results / 'lmo.json', found)


if __name__ == '__main__':
    main()
