# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of camera frames that hold in all views of what stands still in front of the camera.

A teacher's answers in single pictures are measurements; what is believed is one arrangement of the objects that many
pictures agree on (:mod:`sim2real_da.static_scene`). Where the camera was is told by the surroundings
(:mod:`sim2real_da.camera_motion`); where exactly an object is, and how large the scene, by outlines on edges in all
pictures (:mod:`sim2real_da.outline_fit`). Where the surroundings do not tell, cameras are found from the objects, and
outlines say how large the scene is (:mod:`sim2real_da.outlines`). Poses of the scene are labels in every picture, more
exact than the teacher's in any; an object that the teacher missed in one view has a label there, and what it took for
an object in another place is background.

Things are moved now and then, so an arrangement is fitted to a window of consecutive frames of one camera. Where one
object moved within a window, the frames of the shorter part disagree on it; it has a label there only if the pose
network sees it in the scene's place and the teacher is not surer of it in another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real_da.camera_motion import camera_motion
from sim2real_da.geometry import box_around, box_iou
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.estimator import Estimator, to_tensor
from sim2real_da.networks.pseudo_labels import DOUBTFUL, SURE, PseudoLabels
from sim2real_da.outline_fit import fit_outlines
from sim2real_da.outlines import log_size, mask, silhouette
from sim2real_da.samples import Detection, Frame, ObjectLabel, ObjectModel, Pose
from sim2real_da.static_scene import SceneError, StaticScene, fit_scene, unit_of_length, weighted_median

log = logging.getLogger(__name__)
Fitted = TypeVar('Fitted')

WINDOW, STRIDE = 15, 5  # frames of an arrangement, and between the first ones of two windows
SEEN = 0.5  # probability that a crop shows the object from which it counts as seen where the detector missed it
VISIBLE = 0.2  # share of the silhouette that other objects and the picture's edge have to leave
ALIKE = 0.5  # overlap (intersection over union) from which a found box is the silhouette's
CONNECTED = 0.5  # share of the frames whose cameras have to be known for objects to be fitted to them
MISFIT = 0.15  # logarithm; what is by so much larger or smaller than the others is not the object
WINDOWS = 3  # arrangements in which an object has to be measured before its size is believed
ALIKE_SIZES = 0.04  # logarithm within which the middle half of these measurements has to lie
VIEWS = 3  # crops of a measured pose; the scene is the mean over frames


class SceneLabeller:
    """Labels frames together and keeps the labels by the frames themselves.

    :param device: where the teacher runs

    ``log_sizes`` are the logarithms of how much larger than its model an object looks, as of the last look; of those
    objects alone of which it is sure.
    """

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        self.device = str(device)
        self.step: int | None = None  # of the learner, when it last looked
        self.log_sizes: dict[str, float] = {}
        self._frames: dict[int, Frame] = {}  # all that were looked at; while they are held their ids are their own
        self._labels: dict[int, PseudoLabels] = {}
        self._cameras: tuple[list[Frame], list[NDArray[np.float64] | None]] = [], []  # of the frames of the last look

    def of(self, frame: Frame) -> PseudoLabels | None:
        """Return a frame's labels; None where it fits no arrangement, or was not looked at."""
        return self._labels.get(id(frame))

    def keep(self, frames: Sequence[Frame]) -> None:
        """Let go of all frames but these."""
        kept = {id(frame) for frame in frames}
        for key in self._frames.keys() - kept:
            del self._frames[key]
            self._labels.pop(key, None)
        if not all(id(frame) in kept for frame in self._cameras[0]):
            self._cameras = [], []

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
        estimator, found = Estimator(asked, self.device, DOUBTFUL, outlines=False), []
        for frame in ordered:
            found.append(estimator.estimate(frame.image, frame.intrinsics))
            yield
        cameras = yield from self._cameras_of(ordered)
        sizes: dict[str, float] = {}
        if cameras:
            scenes, sizes = yield from _scenes(found, ordered, asked.objects, cameras)
        else:
            scenes = yield from _scenes_of_objects(found, ordered, asked.objects)
        for number, frame in enumerate(ordered):
            placed = placed_in(scenes, number)
            if placed:
                labels[id(frame)] = frame_labels(placed, frame, found[number], asked, self.device)
            yield
        self.step, self._frames, self._labels = step, {id(frame): frame for frame in ordered}, labels
        self.log_sizes = sizes
        log.info('static scene: %d of %d frames labelled, %.1f objects each', len(labels), len(ordered),
                 np.mean([len(x.boxes) for x in labels.values()]) if labels else 0)

    def _cameras_of(self, frames: list[Frame]) -> Generator[None, None, list[NDArray[np.float64] | None]]:
        """Return scene -> camera of each frame in one unknown unit; none where most frames' cameras are not known."""
        known, cameras = self._cameras
        if [id(frame) for frame in known] != [id(frame) for frame in frames]:
            try:
                cameras = yield from camera_motion(frames, torch.get_num_threads())
            except ModuleNotFoundError as error:
                log.warning('static scene: %s; cameras are found from the objects, less exactly (pip install pycolmap)',
                            error)
                cameras = [None] * len(frames)
            self._cameras = frames, cameras
        count = sum(camera is not None for camera in cameras)
        log.info('static scene: cameras of %d of %d frames are known from the surroundings', count, len(frames))
        return cameras if count > CONNECTED * len(frames) else []


def windows(count: int) -> list[slice]:
    """Return the windows of consecutive frames that are taken as one arrangement."""
    last = max(count - WINDOW, 0)
    return [slice(first, first + WINDOW) for first in sorted({*range(0, last, STRIDE), last})]


def _in_windows(count: int, fit: Callable[[slice], Fitted]) -> Generator[None, None, list[tuple[int, Fitted]]]:
    """Return what is fitted to each window that shows an arrangement, with the number of its first frame."""
    fitted = []
    for part in windows(count):
        try:
            fitted.append((part.start, fit(part)))
        except SceneError as error:
            log.debug('frames %d to %d: %s', part.start, part.stop, error)
        yield
    return fitted


def _scenes(found: Sequence[Sequence[Detection]], frames: Sequence[Frame], objects: dict[str, ObjectModel],
            cameras: Sequence[NDArray[np.float64] | None],
            ) -> Generator[None, None, tuple[list[tuple[int, StaticScene]], dict[str, float]]]:
    """Return the arrangements of known cameras, each with its first frame: objects on edges, in metres.

    And the logarithms of how much larger than their models objects look, beside the median of all.
    """
    try:
        unit = unit_of_length(found, objects, cameras)
    except SceneError as error:
        log.debug('%s', error)
        return [], {}
    metres = np.ones((4, 4))
    metres[:3, 3] = unit
    metric = [None if camera is None else camera * metres for camera in cameras]
    fitted = yield from _in_windows(len(frames), lambda part: fit_outlines(
        fit_scene(found[part], objects, metric[part]), frames[part], objects, True))
    if not fitted:
        return [], {}
    size = weighted_median(np.concatenate([sizes for _, (_, sizes) in fitted]),
                           np.concatenate([scene.agrees.sum(axis=0) for _, (scene, _) in fitted]))
    scenes = []
    for first, (scene, sizes) in fitted:
        scene = scene.only(np.abs(sizes - size) <= MISFIT).scaled(float(np.exp(-size)), objects)
        scenes.append((first, fit_outlines(scene, frames[first:first + WINDOW], objects, False)[0]))
        yield
    return scenes, _log_sizes(fitted, size)


def _log_sizes(fitted: Sequence[tuple[int, tuple[StaticScene, NDArray[np.float64]]]], size: float) -> dict[str, float]:
    """Return by how much objects are larger than the scenes' size asks for, of those that arrangements agree on."""
    measured: dict[str, list[tuple[float, int]]] = {}
    for _, (scene, sizes) in fitted:
        for name, own, views in zip(scene.names, sizes, scene.agrees.sum(axis=0)):
            if abs(own - size) <= MISFIT:
                measured.setdefault(name, []).append((float(own - size), int(views)))
    return {name: weighted_median(*np.array(own).T) for name, own in measured.items()
            if len(own) >= WINDOWS and np.subtract(*np.percentile([s for s, _ in own], (75, 25))) <= ALIKE_SIZES}


def _scenes_of_objects(found: Sequence[Sequence[Detection]], frames: Sequence[Frame], objects: dict[str, ObjectModel],
                       ) -> Generator[None, None, list[tuple[int, StaticScene]]]:
    """Return the arrangements, each with its first frame; cameras are found from the objects."""
    return (yield from _in_windows(len(frames), lambda part: sized(
        fit_scene(found[part], objects), frames[part], objects)))


def placed_in(scenes: Sequence[tuple[int, StaticScene]], number: int) -> dict[str, tuple[Pose, bool]]:
    """Return where the objects are in a frame, and whether the teacher sees them there.

    Of several arrangements that one counts for an object which the teacher agrees with in this frame, then that which
    it agrees with in most.
    """
    best: dict[str, tuple[bool, int, Pose]] = {}
    for first, scene in scenes:
        if not 0 <= number - first < len(scene.known) or not scene.known[number - first]:
            continue
        for name, agrees in zip(scene.names, scene.agrees.T):
            here = bool(agrees[number - first]), int(agrees.sum())
            if name not in best or here > best[name][:2]:
                best[name] = *here, scene.pose(number - first, name)
    return {name: (pose, here) for name, (here, _, pose) in best.items()}


def sized(scene: StaticScene, frames: Sequence[Frame], objects: dict[str, ObjectModel]) -> StaticScene:
    """Return a scene at the size that makes the outlines of what was seen lie on edges; as it is where none does."""
    larger = log_size(
        (frame, [(objects[name], scene.pose(number, name)) for name, agrees in zip(scene.names, row) if agrees])
        for number, (frame, row) in enumerate(zip(frames, scene.agrees)))
    return scene if larger is None else scene.scaled(float(np.exp(-larger)), objects)


def frame_labels(placed: Mapping[str, tuple[Pose, bool]], frame: Frame, found: Sequence[Detection], teacher: Bundle,
                 device: str) -> PseudoLabels:
    """Return the labels of one frame.

    :param placed: where the scene has the objects, and whether the teacher sees them there
    """
    height, width = frame.image.shape[:2]
    whole: list[ObjectLabel] = []  # with silhouettes as masks, the nearest first
    poses = {name: pose for name, (pose, _) in placed.items()}
    for name in sorted(poses, key=lambda n: float(np.linalg.norm(teacher.objects[n].box_centre(poses[n])))):
        shape = silhouette(teacher.objects[name], poses[name], frame.intrinsics)
        covered = None if shape is None else mask(shape, width, height)
        if shape is not None and covered is not None and covered.any():
            share = min(covered.sum() / max(np.count_nonzero(shape.cells), 1), 1.0)
            whole.append(ObjectLabel(name, box_around(covered), poses[name], float(share), covered))
    agrees = np.array([placed[label.name][1] for label in whole], bool)
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
            kept.append(_as_found(replace(label, box=box_around(shown), visible=visible, mask=shown), found))
    # of what is not believed to be in the scene's place the teacher may be right
    doubtful += [d.box for d in found if d.name not in {label.name for label in kept}]
    return PseudoLabels(frame, _boxes([label.box for label in kept]), tuple(label.name for label in kept),
                        _boxes(doubtful), tuple(kept))


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
            if box_iou(d.box, label.box) >= ALIKE or label.mask is None:
                return label
            x0, y0, x1, y1 = np.rint(inner).astype(int)
            seen = np.zeros_like(label.mask)
            seen[max(y0, 0):y1 + 1, max(x0, 0):x1 + 1] = label.mask[max(y0, 0):y1 + 1, max(x0, 0):x1 + 1]
            return replace(label, box=inner, mask=seen)
    return label


def _boxes(boxes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
