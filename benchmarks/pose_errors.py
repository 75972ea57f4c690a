# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What an ADD(-S) recall is lost to: rotation, depth, or place across the line of sight.

``python benchmarks/pose_errors.py --weights W --renders RENDERED_APART --photographs LMO``

The pose network alone, on crops around the true boxes, so that no detector speaks in it. Beside the recall of its poses
stands what it would be with one part of each pose replaced by the true one, and what the network makes of
crops cut around the true pose as if it were nearer or farther: an error of the first look that the second repeats.
Crops of photographs in which next to nothing hides the object come twice more: with the labelled objects drawn over
them by the renderer, and with grey around the objects. Where drawn objects err less, the real ones look unfamiliar.
Labels of photographs are read to explain a result; what was changed because of it is said in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import provenance

from sim2real_da.data.bop import BopDataset, lmo_split
from sim2real_da.evaluation.pose_error import add_or_add_s, angle_and_position
from sim2real_da.geometry import quaternion_from_matrix, transform_points
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.estimator import poses, to_tensor
from sim2real_da.networks.pose import PoseNetwork, apparent_box
from sim2real_da.samples import LabelledFrame, ObjectLabel, ObjectModel, Pose
from sim2real_da.simulation.objects import bop_objects
from sim2real_da.simulation.pose_masks import PoseMasks

log = logging.getLogger(__name__)
VISIBLE = 0.1  # smallest visible fraction of a crop that is asked about, as the recall of the metrics has it
GOOD = 0.1  # of the diameter
FULL = 0.9  # visible fraction of what is drawn: what hides an object without a label would vanish behind the drawing
FACES = 20000  # of a drawn object's mesh
GREY = np.uint8(120)
WRONG = (-0.2, 0.0, 0.2)  # logarithm of how much farther away the pose is that a crop is cut around


def posed(network: PoseNetwork, frames: Iterable[LabelledFrame], objects: dict[str, ObjectModel],
          visible: float) -> Iterator[tuple[ObjectLabel, ObjectModel, Pose | None]]:
    """Yield labels, their models and the network's poses on crops around the true boxes.

    :param visible: smallest visible fraction of an object that is asked about
    """
    names, size, models = list(objects), network.crop_size, list(objects.values())
    for labelled in frames:
        labels = [x for x in labelled.labels if x.visible is None or x.visible >= visible]
        if not labels:
            continue
        image, boxes, classes = labelled.frame.image, [x.box for x in labels], [names.index(x.name) for x in labels]
        transforms = [crop_transform(box, size) for box in boxes]
        output = network(to_tensor([cut(image, t, size) for t in transforms]))
        found = poses(network, output, image, labelled.frame.intrinsics, range(len(labels)), boxes, transforms, classes,
                      models)
        for label, solved in zip(labels, found):
            yield label, objects[label.name], solved[0] if solved else None


@torch.inference_mode()
def repeated(network: PoseNetwork, frames: Iterable[LabelledFrame], objects: dict[str, ObjectModel],
             visible: float) -> dict[str, float]:
    """Return for each wrong depth that a crop is cut for the median of what is wrong with the depth seen in it.

    Both are logarithms of found over true depth: a network that believes the crop repeats the number, one that looks
    says 0. One crop of each object, without further views.
    """
    names, size, seen = list(objects), network.crop_size, {wrong: [] for wrong in WRONG}
    for labelled in frames:
        labels = [x for x in labelled.labels if x.visible is None or x.visible >= visible]
        frame = labelled.frame
        for wrong in WRONG if labels else ():
            transforms = []
            for label in labels:
                square = apparent_box(label.pose, objects[label.name], frame.intrinsics)
                middle, half = (square[:2] + square[2:]) / 2, (square[2:] - square[:2]) / 2 * np.exp(-wrong)
                transforms.append(crop_transform(np.concatenate([middle - half, middle + half]), size))
            output = network(to_tensor([cut(frame.image, t, size) for t in transforms]))
            for row, (label, transform) in enumerate(zip(labels, transforms)):
                model = objects[label.name]
                (found,) = output.poses([row], [names.index(label.name)], [transform], [model], frame.intrinsics)
                if found is not None:
                    middle = model.middle[None]
                    depths = [transform_points(middle, pose)[0, 2] for pose in (found[0], label.pose)]
                    seen[wrong].append(np.log(depths[0] / depths[1]))
    return {f'{wrong:+.1f}': float(np.median(seen[wrong])) for wrong in WRONG if seen[wrong]}


def parts(pose: Pose, truth: Pose, model: ObjectModel) -> dict[str, Any]:
    """Return errors of rotation (degrees), depth (share of the distance, signed), across (of the diameter), and poses.

    ``poses`` are the pose itself and it with the true depth, rotation or position. Rotations are exchanged about the
    middle of the object's box, and depth is along the true line of sight to it.
    """
    middle = model.middle
    (place,), (true,) = (transform_points(middle[None], p) for p in (pose, truth))
    sight = true / np.linalg.norm(true)
    depth = float((place - true) @ sight)
    across = place - true - depth * sight

    def at(rotation: Pose, where: NDArray[np.float64]) -> Pose:
        turn = rotation.matrix()[:3, :3]
        return Pose(quaternion_from_matrix(turn), where - turn @ middle)

    return {'angle_deg': angle_and_position(pose, truth, model)[0], 'depth': depth / np.linalg.norm(true),
            'across': np.linalg.norm(across) / model.diameter,
            'poses': {'as_found': pose, 'true_depth': at(pose, place - depth * sight),
                      'true_rotation': at(truth, place), 'true_position': at(pose, true)}}


@torch.inference_mode()
def errors(network: PoseNetwork, frames: Iterable[LabelledFrame], objects: dict[str, ObjectModel]) -> dict[str, Any]:
    """Return medians of the errors and ADD(-S) recalls; a crop without a pose counts for the recalls alone.

    Beside the median size of the depth's error stands its median with the sign (positive: seen too far away), over all
    crops and by object.
    """
    network.eval()
    found, good, missing = [], [], 0
    depths: dict[str, list[float]] = {}
    for label, model, pose in posed(network, frames, objects, VISIBLE):
        if pose is None:
            missing += 1
            continue
        seen = parts(pose, label.pose, model)
        found.append([seen['angle_deg'], abs(seen['depth']), seen['across'], seen['depth']])
        depths.setdefault(label.name, []).append(seen['depth'])
        good.append({name: add_or_add_s(changed, label.pose, model) < GOOD * model.diameter
                     for name, changed in seen['poses'].items()})
    if not found:
        raise SystemExit('pose errors: no pose found; expected frames with labelled objects, and weights made for them')
    crops = len(found) + missing
    medians = np.median(found, axis=0)
    return {'crops': crops, 'without_pose': missing / crops,
            'median': dict(zip(('angle_deg', 'depth', 'across', 'too_far'), map(float, medians))),
            'too_far': {name: float(np.median(some)) for name, some in sorted(depths.items())},
            'adds_recall': {name: sum(g[name] for g in good) / crops for name in good[0]}}


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--renders', type=Path, required=True, help='rendered frames that training never saw')
    parser.add_argument('--photographs', type=Path, help='LM-O')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    bundle, renders = Bundle.load(options.weights), BopDataset(options.renders, 'train')
    frames = {'renders': [renders.frame(i) for i in renders.ids()]}
    if options.photographs:
        real = BopDataset(options.photographs)
        frames['photographs'] = [real.frame(i) for i in lmo_split(real.ids())[1]]
        # what the network makes of them when a part of the picture is no photograph
        painter = PoseMasks(bop_objects(options.photographs, FACES))
        drawn = [painter.drawn(labelled) for labelled in frames['photographs']]
        painter.close()
        grey = [LabelledFrame(replace(real.frame, image=np.where(
            np.any([x.mask for x in masked.labels], axis=0)[..., None], real.frame.image, GREY)), real.labels)
            for real, masked in zip(frames['photographs'], drawn)]
        for name, some in (('in full view', frames['photographs']), ('objects drawn', drawn), ('grey around', grey)):
            frames[name] = [replace(x, labels=tuple(y for y in x.labels if (y.visible or 0) >= FULL)) for x in some]
    rows = {name: {**errors(bundle.pose, some, bundle.objects),
                   'repeated': repeated(bundle.pose, some, bundle.objects, VISIBLE)} for name, some in frames.items()}
    log.info('%s', json.dumps(rows, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**provenance(), 'rows': rows}, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
