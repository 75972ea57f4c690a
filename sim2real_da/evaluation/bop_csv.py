# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Estimated poses as a results file of the BOP challenge (https://bop.felk.cvut.cz/challenges).

One line for each estimate: ``scene_id,im_id,obj_id,score,R,t,time``. ``R`` is the rotation matrix row by row and ``t``
the translation in millimetres, object to camera, separated by spaces; ``time`` is the seconds that the whole picture
took, the same for all its estimates. The evaluation at BOP wants the file named ``METHOD_DATASET-SPLIT.csv``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sim2real_da.data.bop import BopDataset
from sim2real_da.geometry import matrix_from_quaternion
from sim2real_da.samples import Detection

HEADER = 'scene_id,im_id,obj_id,score,R,t,time'
LARGEST_ID = 9999  # ids are looked for up to here; BOP's own go to 33


def write_csv(path: Path, dataset: BopDataset, answers: Iterable[tuple[int, list[Detection], float]]) -> None:
    """Write what was found on frames of a data set, but no detections without a pose or of a class it does not have.

    :param answers: frame id, detections and seconds of each frame
    """
    ids = {dataset.name(number): number for number in range(1, LARGEST_ID + 1)}
    known = {name: ids[name] for name in dataset.objects() if name in ids}
    lines = [HEADER]
    for frame_id, detections, seconds in answers:
        picture = dataset.image_path(frame_id)  # .../scene/rgb/number.png; a frame id alone does not tell the scene
        image = f'{int(picture.parent.parent.name)},{int(picture.stem)}'
        for found in detections:
            if found.pose is not None and found.name in known:
                rotation = ' '.join(f'{v:.9f}' for v in matrix_from_quaternion(found.pose.quaternion).ravel())
                translation = ' '.join(f'{1000 * v:.6f}' for v in found.pose.translation)
                lines.append(f'{image},{known[found.name]},{found.score:.6f},{rotation},{translation},{seconds:.6f}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
