# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of camera frames that hold in all views of what stands still in front of the camera.

A teacher's answers in single pictures are measurements; what is believed is one arrangement of the objects that many
pictures agree on (:mod:`sim2real_da.static_scene`), at the size that makes outlines lie on edges
(:mod:`sim2real_da.outlines`). Its poses are labels in every picture, more exact than the teacher's in any; an object
that the teacher missed in one view has a label there, and what it took for an object in another place is background.

Things are moved now and then, so an arrangement is fitted to a window of consecutive frames of one camera. Where one
object moved within a window, the frames of the shorter part disagree on it; it has a label there only if the pose
network sees it in the scene's place and the teacher is not surer of it in another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.estimator import Estimator, to_tensor
from sim2real_da.networks.pseudo_labels import DOUBTFUL, SURE, PseudoLabels
from sim2real_da.outlines import log_size, mask, silhouette
from sim2real_da.samples import Detection, Frame, ObjectLabel, ObjectModel
from sim2real_da.static_scene import SceneError, StaticScene, fit_scene

log = logging.getLogger(__name__)

WINDOW, STRIDE = 15, 5  # frames of an arrangement, and between the first ones of two windows
SEEN = 0.5  # probability that a crop shows the object from which it counts as seen where the detector missed it
VISIBLE = 0.2  # share of the silhouette that other objects and the picture's edge have to leave
ALIKE = 0.5  # overlap (intersection over union) from which a found box is the silhouette's
VIEWS = 3  # crops of a measured pose; the scene is the mean over frames


class SceneLabeller:
    """Labels frames together and keeps the labels by the frames themselves.

    :param device: where the teacher runs
    """

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        self.device = str(device)
        self.step: int | None = None  # of the learner, when it last looked
        self._frames: dict[int, Frame] = {}  # all that were looked at; while they are held their ids are their own
        self._labels: dict[int, PseudoLabels] = {}

    def of(self, frame: Frame) -> PseudoLabels | None:
        """Return a frame's labels; None where it fits no arrangement, or was not looked at."""
        return self._labels.get(id(frame))

    def keep(self, frames: Sequence[Frame]) -> None:
        """Let go of all frames but these."""
        kept = {id(frame) for frame in frames}
        for key in self._frames.keys() - kept:
            del self._frames[key]
            self._labels.pop(key, None)

    @property
    def share(self) -> float:
        """Share of the frames of the last look that have labels."""
        return len(self._labels) / max(len(self._frames), 1)

    def looked_at(self, frame: Frame) -> bool:
        """Whether a frame was among those of the last look."""
        return id(frame) in self._frames

    def look(self, teacher: Bundle, frames: Sequence[Frame], step: int = 0) -> Iterator[None]:
        """Label frames anew, a little with each item that is drawn; the new labels hold when there are no more.

        Labels of frames that are not among them are forgotten then.

        :param teacher: in evaluation mode
        :param frames: of pinhole cameras; their stamps say in which order they were taken
        :param step: of the learner
        """
        ordered = sorted(frames, key=lambda frame: (frame.frame_id, frame.stamp))
        asked, labels = teacher.copy(), {}
        asked.pose.views = min(VIEWS, asked.pose.views)
        estimator, found = Estimator(asked, self.device, DOUBTFUL), []
        for frame in ordered:
            found.append(estimator.estimate(frame.image, frame.intrinsics))
            yield
        best: dict[int, tuple[float, StaticScene, int]] = {}  # of each frame: how much agrees, where, its number there
        last = max(len(ordered) - WINDOW, 0)
        starts = sorted({*range(0, last, STRIDE), last})
        for first, following in zip(starts, [*starts[1:], len(ordered)]):
            part = slice(first, first + WINDOW)
            try:
                scene = sized(fit_scene(found[part], asked.objects), ordered[part], asked.objects)
                for number in map(int, np.flatnonzero(scene.known)):
                    agreeing = float(scene.agrees[number].sum())
                    if agreeing > best.get(first + number, (0.0,))[0]:
                        best[first + number] = agreeing, scene, number
            except SceneError as error:
                log.debug('frames %d to %d: %s', first, first + WINDOW, error)
            for place in range(first, following):  # no later window has these
                if place in best:
                    _, scene, number = best.pop(place)
                    frame = ordered[place]
                    labels[id(frame)] = frame_labels(scene, number, frame, found[place], asked, self.device)
            yield
        self.step, self._frames, self._labels = step, {id(frame): frame for frame in ordered}, labels
        log.info('static scene: %d of %d frames labelled, %.1f objects each', len(labels), len(ordered),
                 np.mean([len(x.boxes) for x in labels.values()]) if labels else 0)


def sized(scene: StaticScene, frames: Sequence[Frame], objects: dict[str, ObjectModel]) -> StaticScene:
    """Return a scene at the size that makes the outlines of what was seen lie on edges; as it is where none does."""
    larger = log_size(
        (frame, [(objects[name], scene.pose(number, name)) for name, agrees in zip(scene.names, row) if agrees])
        for number, (frame, row) in enumerate(zip(frames, scene.agrees)))
    return scene if larger is None else scene.scaled(float(np.exp(-larger)), objects)


def frame_labels(scene: StaticScene, number: int, frame: Frame, found: Sequence[Detection], teacher: Bundle,
                 device: str) -> PseudoLabels:
    """Return the labels of one frame of a scene."""
    height, width = frame.image.shape[:2]
    whole: list[ObjectLabel] = []  # with silhouettes as masks, the nearest first
    poses = {name: scene.pose(number, name) for name in scene.names}
    for name in sorted(poses, key=lambda n: float(np.linalg.norm(teacher.objects[n].box_centre(poses[n])))):
        shape = silhouette(teacher.objects[name], poses[name], frame.intrinsics)
        covered = None if shape is None else mask(shape, width, height)
        if shape is not None and covered is not None and covered.any():
            share = min(covered.sum() / max(np.count_nonzero(shape.cells), 1), 1.0)
            whole.append(ObjectLabel(name, _around(covered), poses[name], float(share), covered))
    agrees = np.array([scene.agrees[number, scene.names.index(label.name)] for label in whole], bool)
    moved = np.array([_elsewhere(label, found) for label in whole], bool)
    sure = (agrees | _shown(teacher, frame, whole, device)) & ~moved
    kept, doubtful, hidden = [], [], np.zeros((height, width), bool)
    for label, believed in zip(whole, sure):
        assert label.mask is not None and label.visible is not None
        if not believed:
            doubtful.append(label.box)
            continue
        shown = label.mask & ~hidden
        hidden |= label.mask  # what is not believed to be there hides nothing
        visible = label.visible * float(shown.sum() / label.mask.sum())
        if visible >= VISIBLE:
            kept.append(_as_found(replace(label, box=_around(shown), visible=visible, mask=shown), found))
    # of what is not believed to be in the scene's place the teacher may be right
    doubtful += [d.box for d in found if d.name not in {label.name for label in kept}]
    return PseudoLabels(frame, _boxes([label.box for label in kept]), tuple(label.name for label in kept),
                        _boxes(doubtful), tuple(kept))


def _around(shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the box of pixels ``(H, W)`` that show something, xyxy."""
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])


@torch.inference_mode()
def _shown(teacher: Bundle, frame: Frame, labels: Sequence[ObjectLabel], device: str) -> NDArray[np.bool_]:
    """Return whether the pose network sees in a crop around each label its object ``(n,)``."""
    if not labels:
        return np.zeros(0, bool)
    size, names = teacher.pose.crop_size, list(teacher.objects)
    crops = [cut(frame.image, crop_transform(label.box, size), size) for label in labels]
    probability = teacher.pose(to_tensor(crops, device)).classes.softmax(1)
    own = probability[torch.arange(len(labels)), torch.tensor([names.index(label.name) for label in labels])]
    return np.asarray(own.cpu().numpy() >= SEEN)


def _elsewhere(label: ObjectLabel, found: Sequence[Detection]) -> bool:
    """Whether the teacher is surer of the object in another place: it was moved, or the scene has something like it."""
    here = max((d.score for d in found if d.name == label.name and _at(label, d)), default=0.0)
    return any(d.score > max(here, SURE) for d in found if d.name == label.name and not _at(label, d))


def _at(label: ObjectLabel, d: Detection) -> bool:
    """Whether the middle of what was found lies in the label's box."""
    middle = (d.box[:2] + d.box[2:]) / 2
    return bool((label.box[:2] <= middle).all() and (middle <= label.box[2:]).all())


def _as_found(label: ObjectLabel, found: Sequence[Detection]) -> ObjectLabel:
    """Return the label with the box that was found, where something unknown hides a part of the silhouette.

    That is, where the box of the object at this place is much smaller than the silhouette's.
    """
    for d in sorted(found, key=lambda d: -d.score):
        if d.name == label.name and _at(label, d):
            inner = np.r_[np.maximum(d.box[:2], label.box[:2]), np.minimum(d.box[2:], label.box[2:])]
            overlap, own = _area(inner), _area(label.box)
            if overlap / (own + _area(d.box) - overlap) >= ALIKE or label.mask is None:
                return label
            x0, y0, x1, y1 = np.rint(inner).astype(int)
            seen = np.zeros_like(label.mask)
            seen[max(y0, 0):y1 + 1, max(x0, 0):x1 + 1] = label.mask[max(y0, 0):y1 + 1, max(x0, 0):x1 + 1]
            return replace(label, box=inner, mask=seen)
    return label


def _area(box: NDArray[np.float64]) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 1e-6)))


def _boxes(boxes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
