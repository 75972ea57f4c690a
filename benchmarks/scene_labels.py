# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""How exact labels of a static scene are, beside those that a teacher gives frame by frame.

``python benchmarks/scene_labels.py --weights W --data LMO --photos PHOTOS --json OUT`` renders arrangements that stand
still, each seen by the surrogate world's sensor, with photographs that training does not draw: by a camera that walks
around the table, and from anywhere with other surroundings each time, where cameras are found from the objects alone.
These frames and the photographs of LineMOD-Occluded's stream are labelled by both means. True labels tell how good they
are; nothing is chosen by those of photographs.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lmo import seen_by_another_camera
from provenance import provenance

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation.metrics import VISIBLE
from sim2real_da.evaluation.pose_error import add_or_add_s, angle_and_position
from sim2real_da.geometry import box_iou
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.pseudo_labels import PseudoLabels, pseudo_labels
from sim2real_da.networks.scene_labels import VIEWS, SceneLabeller
from sim2real_da.samples import LabelledFrame
from sim2real_da.simulation.objects import bop_objects
from sim2real_da.simulation.render import default_intrinsics
from sim2real_da.simulation.simulator import STANDING, Simulator

log = logging.getLogger(__name__)
GOOD = 0.1  # of the diameter
SEED = 900
AROUND, UP, NEARER = 0.15, 0.1, 0.05  # radians and metres from view to view, standard deviations


def static_scenes(data: Path, photos: Path, scenes: int, views: int, walks: bool) -> Iterator[list[LabelledFrame]]:
    """Yield the frames of each arrangement in the order they were taken; every object is there.

    :param walks: whether the camera goes around what stands still, surroundings and all
    """
    items, camera = bop_objects(data), default_intrinsics(str(data), 640, 480)
    layout = replace(STANDING, upright=1.0, present=1.0, reuse=views)
    for scene in range(scenes):
        simulator = Simulator(items, camera, seed=(SEED, scene), photos=photos, layout=layout)
        frames = walk(simulator, views) if walks else [simulator.sample() for _ in range(views)]
        simulator.close()
        yield [seen_by_another_camera(f, number) for number, f in enumerate(frames)]


def walk(simulator: Simulator, views: int) -> list[LabelledFrame]:
    """Return one arrangement as a camera sees it that goes around it and up and down."""
    first, world, layout = simulator.sample(), simulator.world, simulator.layout
    rng, frames = np.random.default_rng(views), []
    around, up, far = 0.0, np.radians(np.mean(layout.elevation)), np.mean(layout.distance)
    for number in range(views):
        around += rng.normal(0, AROUND)
        up = np.clip(up + rng.normal(0, UP), *np.radians(layout.elevation))
        far = np.clip(far + rng.normal(0, NEARER), *layout.distance)
        target = np.array([*rng.normal(0, 0.03, 2), 0.04])
        away = np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
        world.look(target + far * away, target, np.radians(rng.normal(0, 5.0)))
        world.refresh()
        frames.append(LabelledFrame(replace(first.frame, image=world.draw(), stamp=number),
                                    world.labels(minimum_pixels=8)))
    return frames


def quality(labels: Sequence[PseudoLabels | None], truth: Sequence[LabelledFrame], bundle: Bundle) -> dict[str, float]:
    """Return how many of the objects that can be seen are labelled, and how exact labels are.

    A box is right that overlaps the object's visible box by half, a pose by ADD(-S) at a tenth of the diameter.
    """
    objects = sum(bool((x.visible or 0) >= VISIBLE) for frame in truth for x in frame.labels)
    right, posed, poses, angles, depths = 0, 0, 0, [], []
    boxes = 0
    for own, frame in zip(labels, truth):
        if own is None:
            continue
        known = {x.name: x for x in frame.labels}
        boxes += len(own.names)
        right += sum(bool(name in known and box_iou(box, known[name].box) >= 0.5)
                     for box, name in zip(own.boxes, own.names))
        for label in own.posed:
            posed += 1
            if label.name not in known:
                continue
            model, true = bundle.objects[label.name], known[label.name].pose
            places = [model.box_centre(pose) for pose in (label.pose, true)]
            poses += bool(add_or_add_s(label.pose, true, model) < GOOD * model.diameter)
            angles.append(angle_and_position(label.pose, true, model)[0])
            depths.append(np.log(np.linalg.norm(places[0]) / np.linalg.norm(places[1])))
    return {'objects': objects, 'boxes': boxes, 'boxes_right': right / max(boxes, 1), 'poses': posed,
            'adds': poses / max(posed, 1), 'angle_deg': float(np.median(angles or [180.0])),
            'depth': float(np.median(np.abs(depths or [1.0]))), 'too_far': float(np.median(depths or [1.0]))}


def both(bundle: Bundle, parts: Sequence[Sequence[LabelledFrame]], device: str) -> dict[str, dict[str, float]]:
    """Label each part as a learner would and return the quality by kind of label."""
    alone: list[PseudoLabels | None] = []
    together: list[PseudoLabels | None] = []
    for part in parts:
        frames = [x.frame for x in part]
        alone += [pseudo_labels(bundle, frame, device) for frame in frames]
        labeller = SceneLabeller(device)
        for _ in labeller.look(bundle, frames):
            pass
        together += [labeller.of(frame) for frame in frames]
    truth = [x for part in parts for x in part]
    return {'frame by frame': quality(alone, truth, bundle), 'static scene': quality(together, truth, bundle)}


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', type=Path, required=True, help='the teacher')
    parser.add_argument('--data', type=Path, required=True, help='LineMOD-Occluded in BOP layout')
    parser.add_argument('--photos', type=Path, required=True, help='photographs for surfaces, apart from training')
    parser.add_argument('--scenes', type=int, default=2)
    parser.add_argument('--views', type=int, default=60)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    bundle = Bundle.load(options.weights)
    bundle.pose.views = min(bundle.pose.views, VIEWS)
    bundle.to(options.device)
    bundle.detector.eval()
    bundle.pose.eval()
    real = BopDataset(options.data)
    drawn = (options.data, options.photos, options.scenes, options.views)
    sets = {'renders': list(static_scenes(*drawn, True)),
            'renders, surroundings change': list(static_scenes(*drawn, False)),
            'photographs': [[real.frame(i) for i in lmo_split(real.ids())[0]]]}
    found = {name: both(bundle, parts, options.device) for name, parts in sets.items()}
    log.info('%s', json.dumps(found, indent=1))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**provenance(), 'rows': found}, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
