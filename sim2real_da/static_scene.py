# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One arrangement of objects that stands still, seen by a camera from many places: where everything is, from poses.

A network errs in each picture anew; what stands still relative to each other is one arrangement for all of them. The
poses found in many frames are therefore measurements of few unknowns, the place of each object in the scene and the
camera of each frame, and all of them are fitted together (bundle adjustment with objects as landmarks: SLAM++, Salas-
Moreno et al., CVPR 2013; Merrill et al., *Symmetry and uncertainty-aware object SLAM*, CVPR 2022). It does not matter
whether the camera goes around the table or the table turns in front of it.

Each measured pose counts by its covariance and, since errors have long tails, by the weight of Student's t
distribution, for rotation and position apart: a view that looks like another one still says where the object is. A
network that sees an object at the wrong distance does so in every frame, whose mean would be wrong as well; so each
object has one factor on all its measured distances, which is 1 unless the other objects speak against it. The scale of
the whole scene is what most objects' sizes say.

Where the cameras are known (:mod:`sim2real_da.camera_motion`), nothing but each object's place is left to find, and no
other object need agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from sim2real_da.geometry import quaternion_from_matrix
from sim2real_da.samples import Detection, ObjectModel, Pose

Array = NDArray[np.float64]

FREEDOM = 4.0  # degrees of freedom of Student's t
OWN_SCALE = 0.03  # spread of what networks err in an object's distance in all frames alike, as a share
LARGEST_FACTOR = 0.25  # logarithm; what is seen as wrong as that is something else that looks like the object
LEAST_ACROSS, LEAST_ALONG, LEAST_TURN = 0.01, 0.01, 0.03  # of the diameter, of the distance, radians: nothing is surer
FEWEST_OBJECTS = 3  # that have to agree on a frame's camera
FEWEST_FRAMES = 6  # that have to show one arrangement
SHARE = 1 / 3  # of the frames in which an object is found, in which it has to be in one place
SIDES_DEG = 15.0  # that the camera has to have gone around: seen from one side alone, errors agree as well
FEWEST_VIEWS = 3  # frames of known cameras that have to show an object in one place
NEAR = 15  # frames within which an object is taken to stand still, for the unit of length
LOOSE = 0.2  # of the way between two cameras: a pair of poses that disagrees by more says little
AGREES = 12.0  # squared deviations in units of the spread up to which a measurement agrees (three of them: 99 %)
STEPS = 60
WIDER = (3.0, 2.0, 1.0)  # spreads are taken this much wider at first: far from the answer everything deviates
ANCHORS = 4  # objects from which a first guess is made, those that are found most often
ALIKE, RESECTIONS, GUESSES = 4, 10, 40  # of one measured pose, of a frame's camera, of an object's place


class SceneError(ValueError):
    """The frames do not show one arrangement that stands still; the message says what was found instead."""


@dataclass(frozen=True)
class StaticScene:
    """What was fitted.

    :param names: classes of the objects in the scene
    :param cameras: scene -> camera ``(F, 4, 4)``, one a frame
    :param objects: object's CAD frame -> scene ``(K, 4, 4)``
    :param known: whether a frame's camera is known: enough objects agree on it ``(F,)``
    :param agrees: whether the pose measured of an object in a frame is the scene's, ``(F, K)``; False where none was
    :param factors: measured over true distance of each object ``(K,)``
    """

    names: tuple[str, ...]
    cameras: Array
    objects: Array
    known: NDArray[np.bool_]
    agrees: NDArray[np.bool_]
    factors: Array

    def pose(self, frame: int, name: str) -> Pose:
        """Return the pose of an object before a frame's camera, whether it is seen there or not."""
        whole = self.cameras[frame] @ self.objects[self.names.index(name)]
        return Pose(quaternion_from_matrix(whole[:3, :3]), whole[:3, 3])

    def only(self, kept: NDArray[np.bool_]) -> StaticScene:
        """Return the scene of some of its objects ``(K,)``."""
        return replace(self, names=tuple(n for n, k in zip(self.names, kept) if k), objects=self.objects[kept],
                       agrees=self.agrees[:, kept], factors=self.factors[kept])

    def scaled(self, factor: float, models: Mapping[str, ObjectModel]) -> StaticScene:
        """Return the scene with all distances between objects and cameras times ``factor``; objects keep their size."""
        cameras, objects = self.cameras.copy(), self.objects.copy()
        cameras[:, :3, 3] *= factor
        for name, own in zip(self.names, objects):  # the middles of the objects' boxes are what moves
            own[:3, 3] += (factor - 1) * (own[:3, :3] @ models[name].middle + own[:3, 3])
        return replace(self, cameras=cameras, objects=objects)


@dataclass
class _Measured:
    """All measured poses, one a frame and object; rotations and places are of the objects' boxes' middles.

    ``spreads``: standard deviations across the ray in metres, along it as a share of the distance, of the rotation.
    """

    frame: NDArray[np.int64]  # (M,)
    item: NDArray[np.int64]  # (M,)
    rotation: Array  # (M, 3, 3)
    place: Array  # (M, 3)
    spreads: Array  # (M, 3)
    weight: Array  # (M,), square of the score

    def taken(self, rows: NDArray[np.int64]) -> _Measured:
        return _Measured(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def wider(self, factor: float) -> _Measured:
        return replace(self, spreads=self.spreads * factor)


@dataclass
class _State:
    """Unknowns: scene -> camera ``(F, 3, 3)``, ``(F, 3)``; objects in the scene; logarithms of their factors."""

    turns: Array
    shifts: Array
    rotations: Array
    places: Array
    factors: Array


def fit_scene(detections: Sequence[Sequence[Detection]], objects: Mapping[str, ObjectModel],
              cameras: Sequence[Array | None] | None = None) -> StaticScene:
    """Fit one scene to what was found in its frames.

    Of several detections of a class in a frame the one that fits counts: there is one of each object.

    :param detections: of each frame, through one pinhole camera or several; without pose or covariance they say nothing
    :param cameras: scene -> camera ``(4, 4)`` of each frame in metres, None of a frame that is to be left out; not
        given: they are found from the objects
    :raises SceneError: where too little was found, or most of it does not fit one arrangement
    """
    if cameras is not None:
        return _fit_objects(detections, objects, cameras)
    names = _often_found(detections, objects, FEWEST_FRAMES)
    if len(names) < FEWEST_OBJECTS:
        raise SceneError(f'scene: {len(names)} objects were found in {FEWEST_FRAMES} frames or more of '
                         f'{len(detections)}, expected at least {FEWEST_OBJECTS} to tell the camera from the objects')
    models = [objects[n] for n in names]
    measured = _measured(detections, names, models)
    symmetries = [m.symmetries[:, :3, :3] for m in models]
    rng = np.random.default_rng(0)
    most = -np.inf
    found_in = np.bincount(measured.item[_first(measured, measured.weight)], minlength=len(names))
    for anchor in np.argsort(-found_in)[:ANCHORS]:
        state = _begin(measured, len(detections), symmetries, anchor)
        for wider in WIDER:
            state = _improved(state, measured.wider(wider), symmetries, rng)
        agreement = float(_votes(state, measured, symmetries)[_chosen(state, measured, symmetries)].sum())
        if agreement > most:
            best, most = state, agreement
    for _ in range(2):
        best = _improved(best, measured, symmetries, rng, STEPS)
    return _scene(best, measured.taken(_chosen(best, measured, symmetries)), symmetries, names, models, len(detections))


def _often_found(detections: Sequence[Sequence[Detection]], objects: Mapping[str, ObjectModel], least: int,
                 ) -> tuple[str, ...]:
    return tuple(n for n in objects if sum(
        any(d.name == n and _useful(d) for d in found) for found in detections) >= least)


def unit_of_length(detections: Sequence[Sequence[Detection]], objects: Mapping[str, ObjectModel],
                   cameras: Sequence[Array | None]) -> float:
    """Return how many metres the unit of cameras is: what most pairs of poses of one object ask for.

    :param cameras: scene -> camera ``(4, 4)`` of each frame, in an unknown unit; None where it is not known
    :raises SceneError: where no object was found in two frames
    """
    names = tuple(objects)
    found, whole = _of_known(detections, cameras)
    if not _often_found(found, objects, 2):
        raise SceneError('scene: no object was found in two frames of known cameras, expected some to tell how large '
                         'it is')
    measured = _measured(found, names, [objects[n] for n in names])
    whole = whole[measured.frame]
    # an object's middle is R^T (place - unit * shift), the same in all frames
    place = np.einsum('nji,nj->ni', whole[:, :3, :3], measured.place)
    shift = np.einsum('nji,nj->ni', whole[:, :3, :3], whole[:, :3, 3])
    logarithms, weights = [], []
    for item in range(len(names)):
        rows = np.flatnonzero(measured.item == item)
        first, second = np.triu_indices(len(rows), 1)
        near = np.abs(measured.frame[rows[first]] - measured.frame[rows[second]]) < NEAR
        first, second = rows[first[near]], rows[second[near]]
        moved, asked = shift[first] - shift[second], place[first] - place[second]
        unit = (moved * asked).sum(axis=1) / np.maximum(np.square(moved).sum(axis=1), 1e-12)
        first, second, moved, asked, unit = (x[unit > 0] for x in (first, second, moved, asked, unit))
        length = np.linalg.norm(moved, axis=1)
        off = np.linalg.norm(asked - unit[:, None] * moved, axis=1) / np.maximum(unit * length, 1e-9)
        logarithms.append(np.log(unit))
        weights.append(measured.weight[first] * measured.weight[second] * length / (1 + (off / LOOSE) ** 2))
    if not sum(map(len, logarithms)):
        raise SceneError('scene: the objects\' poses speak against the cameras, expected some that agree with them')
    return float(np.exp(weighted_median(np.concatenate(logarithms), np.concatenate(weights))))


def _of_known(detections: Sequence[Sequence[Detection]], cameras: Sequence[Array | None],
              ) -> tuple[list[Sequence[Detection]], Array]:
    """Return what was found in frames of known cameras, and all cameras ``(F, 4, 4)``; of the others nothing counts."""
    found = [own if camera is not None else [] for own, camera in zip(detections, cameras)]
    return found, np.stack([np.eye(4) if camera is None else camera for camera in cameras])


def weighted_median(values: Array, weights: Array) -> float:
    """Return the value up to which half of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _fit_objects(detections: Sequence[Sequence[Detection]], objects: Mapping[str, ObjectModel],
                 cameras: Sequence[Array | None]) -> StaticScene:
    """Fit each object's place to known cameras."""
    found, whole = _of_known(detections, cameras)
    names = _often_found(found, objects, FEWEST_VIEWS)
    if not names:
        raise SceneError(f'scene: no object was found in {FEWEST_VIEWS} frames of known cameras')
    models = [objects[n] for n in names]
    measured, symmetries = _measured(found, names, models), [m.symmetries[:, :3, :3] for m in models]
    state = _State(whole[:, :3, :3], whole[:, :3, 3], np.repeat(np.eye(3)[None], len(names), 0),
                   np.zeros((len(names), 3)), np.zeros(len(names)))
    rng = np.random.default_rng(0)
    for wider in (*WIDER, 1.0):
        own = measured.wider(wider)
        state = _objects(state, own, symmetries, rng)
        state = _fit(state, own.taken(_chosen(state, own, symmetries)), symmetries, STEPS, still=True)
    measured = measured.taken(_chosen(state, measured, symmetries))
    agrees, there = _agreeing(state, measured, symmetries, len(cameras))
    agrees[:, agrees.sum(axis=0) < np.maximum(SHARE * there, FEWEST_VIEWS)] = False
    kept = np.asarray(agrees.any(axis=0))
    if not kept.any():
        raise SceneError(f'scene: no object is in one place in {FEWEST_VIEWS} frames; does everything stand still?')
    _check_sides(state, np.asarray(agrees.any(axis=1)), kept)
    return _result(state, names, models, np.array([camera is not None for camera in cameras]), agrees, kept)


def _useful(d: Detection) -> bool:
    """Whether a find says where the object is, and how exactly."""
    return d.pose is not None and d.covariance is not None and bool(np.isfinite(d.covariance).all())


def _measured(detections: Sequence[Sequence[Detection]], names: Sequence[str], models: Sequence[ObjectModel],
              ) -> _Measured:
    rows = []
    for frame, found in enumerate(detections):
        for d in found:
            if d.name not in names or not _useful(d):
                continue
            assert d.pose is not None and d.covariance is not None
            item = names.index(d.name)
            model, turn = models[item], d.pose.matrix()[:3, :3]
            arm = turn @ model.middle
            place = d.pose.translation + arm
            # turning by w moves the middle by w x arm
            lever = np.hstack([np.eye(3), -_cross(arm[None])[0]])
            middle = lever @ d.covariance @ lever.T
            ray = place / np.linalg.norm(place)
            along = ray @ middle @ ray
            across = np.sqrt(max((np.trace(middle) - along) / 2, 0.0))
            spreads = (max(across, LEAST_ACROSS * model.diameter),
                       max(np.sqrt(max(along, 0.0)) / np.linalg.norm(place), LEAST_ALONG),
                       max(np.sqrt(np.trace(d.covariance[3:, 3:]) / 3), LEAST_TURN))
            rows.append((frame, item, turn, place, spreads, d.score**2))
    return _Measured(*(np.array(column) for column in zip(*rows)))  # type: ignore[arg-type]


def _votes(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> Array:
    """Return how much each measurement speaks for a state, 0..1 ``(M,)``: its weight, less where it deviates."""
    return np.asarray(measured.weight / (1 + _deviations(state, measured, symmetries).sum(axis=1) / 6))


def _first(measured: _Measured, value: Array) -> NDArray[np.int64]:
    """Return for each frame and object the row of the largest value."""
    order = np.lexsort((-value, measured.item, measured.frame))
    pairs = np.stack([measured.frame[order], measured.item[order]])
    first = np.r_[True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)]
    return np.asarray(order[first])


def _chosen(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> NDArray[np.int64]:
    """Return for each frame and object the measurement that fits best."""
    return _first(measured, _votes(state, measured, symmetries))


def _nearest(rotation: Array, to: Array, symmetries: Array) -> Array:
    """Return of the rotations that look alike the nearest to ``to``; both ``(N, 3, 3)``."""
    alike = rotation[:, None] @ symmetries[None]  # (N, S, 3, 3)
    best = np.einsum('nsij,nij->ns', alike, to).argmax(axis=1)
    return np.asarray(alike[np.arange(len(rotation)), best])


def _medoid(rotations: Array, places: Array, weights: Array, symmetries: Array) -> int:
    """Return which of many poses of one object most others, by weight, are near to."""
    alike = rotations[:, None] @ symmetries[None]
    trace = np.einsum('nsij,mij->nms', alike, rotations).max(axis=2)
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    return int((np.minimum((angle / 0.5) ** 2 + (distance / 0.1) ** 2, 1.0) @ weights).argmin())


def _begin(measured: _Measured, frames: int, symmetries: Sequence[Array], anchor: int) -> _State:
    """Return a first guess: each object as most frames have it relative to one of them. Cameras are not known yet.

    One that is never seen together with that one is put in its place, until cameras are known.
    """
    measured = measured.taken(_first(measured, measured.weight))
    count = len(symmetries)
    state = _State(np.repeat(np.eye(3)[None], frames, 0), np.tile([0.0, 0.0, 1.0], (frames, 1)),
                   np.repeat(np.eye(3)[None], count, 0), np.zeros((count, 3)), np.zeros(count))
    row = -np.ones((frames, count), np.int64)
    row[measured.frame, measured.item] = np.arange(len(measured.frame))
    for other in range(count):
        both = np.flatnonzero((row[:, anchor] >= 0) & (row[:, other] >= 0))
        if other == anchor or not len(both):
            continue
        base, seen = row[both, anchor], row[both, other]
        back = measured.rotation[base].transpose(0, 2, 1)
        turned = back @ measured.rotation[seen]
        moved = np.einsum('nij,nj->ni', back, measured.place[seen] - measured.place[base])
        weight = measured.weight[base] * measured.weight[seen]
        middle = _medoid(turned, moved, weight, symmetries[other])
        state.rotations[other], state.places[other] = turned[middle], moved[middle]
    return state


def _improved(state: _State, measured: _Measured, symmetries: Sequence[Array], rng: np.random.Generator,
              steps: int = 12) -> _State:
    """Look for better cameras, then for better places of the objects, and fit everything after each."""
    for look in (_cameras, _objects):
        state = look(state, measured, symmetries, rng)
        state = _fit(state, measured.taken(_chosen(state, measured, symmetries)), symmetries, steps)
    return state


def _cameras(state: _State, measured: _Measured, symmetries: Sequence[Array], rng: np.random.Generator) -> _State:
    """Return the state with each frame's camera the best of those that objects, or the middles of some, ask for."""
    turns, shifts = state.turns.copy(), state.shifts.copy()
    for frame in np.unique(measured.frame):
        rows = np.flatnonzero(measured.frame == frame)
        guesses = [(turns[frame], shifts[frame])]
        for row in rows:
            item = measured.item[row]
            for symmetry in symmetries[item][:: max(len(symmetries[item]) // ALIKE, 1)]:
                turn = measured.rotation[row] @ (state.rotations[item] @ symmetry).T
                guesses.append((turn, measured.place[row] - turn @ state.places[item]))
        guesses += _resections(state, measured, rows, rng)
        own = measured.taken(np.tile(rows, len(guesses)))
        own.frame = np.repeat(np.arange(len(guesses)), len(rows))
        tried = replace(state, turns=np.stack([t for t, _ in guesses]), shifts=np.stack([s for _, s in guesses]))
        turns[frame], shifts[frame] = guesses[_most(own.frame, own.item, _votes(tried, own, symmetries))]
    return replace(state, turns=turns, shifts=shifts)


def _resections(state: _State, measured: _Measured, rows: NDArray[np.int64], rng: np.random.Generator,
                ) -> list[tuple[Array, Array]]:
    """Return cameras from which the middles of four objects each are seen where they were, whatever their poses."""
    found = []
    for _ in range(RESECTIONS if len(np.unique(measured.item[rows])) >= 4 else 0):
        drawn = rng.permutation(rows)
        _, first = np.unique(measured.item[drawn], return_index=True)
        some = drawn[np.sort(first)[:4]]
        seen = measured.place[some, :2] / measured.place[some, 2:]
        known, turn, shift = cv2.solvePnP(state.places[measured.item[some]], seen, np.eye(3), None,
                                          flags=cv2.SOLVEPNP_AP3P)
        if known and np.isfinite(shift).all() and shift[2, 0] > 0:
            found.append((cv2.Rodrigues(turn)[0], shift[:, 0]))
    return found


def _objects(state: _State, measured: _Measured, symmetries: Sequence[Array], rng: np.random.Generator) -> _State:
    """Return the state with each object's place in the scene the best of those that single frames ask for."""
    rotations, places = state.rotations.copy(), state.places.copy()
    for item in range(len(places)):
        rows = np.flatnonzero(measured.item == item)
        drawn = rng.permutation(rows)[:GUESSES]
        back = state.turns[measured.frame[drawn]].transpose(0, 2, 1)
        guesses = [(rotations[item], places[item]), *zip(
            back @ measured.rotation[drawn],
            np.einsum('nij,nj->ni', back, measured.place[drawn] - state.shifts[measured.frame[drawn]]))]
        own = measured.taken(np.tile(rows, len(guesses)))
        own.item = np.repeat(np.arange(len(guesses)), len(rows))
        tried = replace(state, rotations=np.stack([r for r, _ in guesses]), places=np.stack([p for _, p in guesses]),
                        factors=np.full(len(guesses), state.factors[item]))
        votes = _votes(tried, own, [symmetries[item]] * len(guesses))
        rotations[item], places[item] = guesses[_most(own.item, own.frame, votes)]
    return replace(state, rotations=rotations, places=places)


def _most(guess: NDArray[np.int64], of: NDArray[np.int64], votes: Array) -> int:
    """Return the guess with the largest sum of votes; of each ``of`` the best one counts."""
    best = np.zeros((guess.max() + 1, of.max() + 1))
    np.maximum.at(best, (guess, of), votes)
    return int(best.sum(axis=1).argmax())


def _residuals(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Return residuals in units of their spreads ``(M, 6)`` (across 2, along, turn 3), and where objects should be.

    :returns: residuals, places before the camera ``(M, 3)``, rotations of the frames ``(M, 3, 3)``
    """
    turn, item = state.turns[measured.frame], measured.item
    place = np.einsum('nij,nj->ni', turn, state.places[item]) + state.shifts[measured.frame]
    depth = np.maximum(place[:, 2], 0.05)
    across = (place[:, :2] / depth[:, None] - measured.place[:, :2] / measured.place[:, 2:]) * measured.place[:, 2:]
    along = np.log(depth / measured.place[:, 2]) + state.factors[item]
    expected = turn @ state.rotations[item]
    seen = np.empty_like(measured.rotation)
    for i, own in enumerate(symmetries):
        rows = item == i
        seen[rows] = _nearest(measured.rotation[rows], expected[rows], own)
    off = Rotation.from_matrix(expected @ seen.transpose(0, 2, 1)).as_rotvec()
    spreads = measured.spreads
    residuals = [across / spreads[:, :1], along[:, None] / spreads[:, 1:2], off / spreads[:, 2:]]
    return np.concatenate(residuals, axis=1), place, turn


def _deviations(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> Array:
    """Return squared deviations of position and rotation ``(M, 2)``, each the sum of three."""
    squares = _residuals(state, measured, symmetries)[0] ** 2
    return np.stack([squares[:, :3].sum(axis=1), squares[:, 3:].sum(axis=1)], axis=1)


def _fit(state: _State, measured: _Measured, symmetries: Sequence[Array], steps: int, still: bool = False) -> _State:
    """Return the state after Levenberg's steps on reweighted squares; ``still``: cameras stay as they are."""
    damping, cost = 1e-3, _cost(state, measured, symmetries)
    for _ in range(steps):
        matrix, gradient = _normal_equations(state, measured, symmetries)
        if still:
            held = 6 * len(state.turns)
            matrix[:held], matrix[:, :held], gradient[:held] = 0, 0, 0
        for _ in range(6):
            damped = matrix + damping * np.diag(np.diag(matrix)) + 1e-9 * np.eye(len(matrix))
            moved = _moved(state, np.asarray(np.linalg.solve(damped, -gradient), dtype=np.float64))
            new = _cost(moved, measured, symmetries)
            if new < cost:
                break
            damping = min(damping * 8, 1e6)
        else:
            break
        done = cost - new < 1e-6 * cost
        state, cost, damping = moved, new, max(damping / 4, 1e-9)
        if done:
            break
    return state


def _cost(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> float:
    """Return twice the negative logarithm of the likelihood, up to a constant."""
    deviations = _deviations(state, measured, symmetries)
    own = (state.factors / OWN_SCALE) ** 2
    return float((FREEDOM + 3) * (measured.weight @ np.log1p(deviations / FREEDOM)).sum() + 2 * np.log1p(own).sum())


def _normal_equations(state: _State, measured: _Measured, symmetries: Sequence[Array]) -> tuple[Array, Array]:
    """Return J'WJ and J'Wr; unknowns: each frame's turn and shift, then each object's turn, place and factor."""
    residuals, place, turn = _residuals(state, measured, symmetries)
    count, frames, items = len(place), len(state.turns), len(state.places)
    spreads, depth = measured.spreads, np.maximum(place[:, 2], 0.05)
    # of across and along with respect to the place
    look = np.zeros((count, 3, 3))
    look[:, 0, 0] = look[:, 1, 1] = measured.place[:, 2] / depth / spreads[:, 0]
    look[:, :2, 2] = -place[:, :2] * (measured.place[:, 2] / depth**2 / spreads[:, 0])[:, None]
    look[:, 2, 2] = 1 / depth / spreads[:, 1]
    arm = place - state.shifts[measured.frame]
    of_frame, of_item = np.zeros((count, 6, 6)), np.zeros((count, 6, 7))
    of_frame[:, :3, :3], of_frame[:, :3, 3:] = -look @ _cross(arm), look
    of_frame[:, 3:, :3] = np.eye(3) / spreads[:, 2, None, None]
    of_item[:, :3, 3:6] = look @ turn
    of_item[:, 3:, :3] = turn / spreads[:, 2, None, None]
    of_item[:, 2, 6] = 1 / spreads[:, 1]
    squares = residuals**2
    weights = np.repeat((FREEDOM + 3) / (FREEDOM + np.stack(
        [squares[:, :3].sum(axis=1), squares[:, 3:].sum(axis=1)], axis=1)), 3, axis=1) * measured.weight[:, None]
    size = 6 * frames + 7 * items
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    at_frame = 6 * measured.frame[:, None] + np.arange(6)
    at_item = 6 * frames + 7 * measured.item[:, None] + np.arange(7)
    for first, own in ((at_frame, of_frame), (at_item, of_item)):
        weighted = own * weights[:, :, None]
        np.add.at(gradient, first, np.einsum('nri,nr->ni', weighted, residuals))
        for second, other in ((at_frame, of_frame), (at_item, of_item)):
            np.add.at(matrix, (first[:, :, None], second[:, None, :]), np.einsum('nri,nrj->nij', weighted, other))
    at = 6 * frames + 7 * np.arange(items) + 6
    weight = 2 / (1 + (state.factors / OWN_SCALE) ** 2) / OWN_SCALE**2
    matrix[at, at] += weight
    gradient[at] += weight * state.factors
    return matrix, gradient


def _moved(state: _State, step: Array) -> _State:
    frames = len(state.turns)
    of_frame, of_item = step[:6 * frames].reshape(-1, 6), step[6 * frames:].reshape(-1, 7)
    return _State(
        Rotation.from_rotvec(of_frame[:, :3]).as_matrix() @ state.turns, state.shifts + of_frame[:, 3:],
        Rotation.from_rotvec(of_item[:, :3]).as_matrix() @ state.rotations, state.places + of_item[:, 3:6],
        np.clip(state.factors + of_item[:, 6], -LARGEST_FACTOR, LARGEST_FACTOR))


def _cross(vectors: Array) -> Array:
    """Return the matrices ``(N, 3, 3)`` that multiply crosswise by vectors ``(N, 3)``."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


def _scene(state: _State, measured: _Measured, symmetries: Sequence[Array], names: tuple[str, ...],
           models: Sequence[ObjectModel], frames: int) -> StaticScene:
    """Return the result, or say why it is none."""
    agrees, there = _agreeing(state, measured, symmetries, frames)
    agrees = _one_scene(agrees, np.maximum(SHARE * there, FEWEST_OBJECTS))
    known, kept = np.asarray(agrees.any(axis=1)), np.asarray(agrees.any(axis=0))
    if known.sum() < FEWEST_FRAMES:
        raise SceneError(f'scene: in {known.sum()} of {frames} frames {FEWEST_OBJECTS} objects are where one '
                         f'arrangement has them, expected at least {FEWEST_FRAMES}; does everything stand still?')
    _check_sides(state, known, kept)
    return _result(state, names, models, known, agrees, kept)


def _check_sides(state: _State, frames: NDArray[np.bool_], kept: NDArray[np.bool_]) -> None:
    """Raise a :class:`SceneError` unless the camera went around the objects."""
    eyes = -np.einsum('fji,fj->fi', state.turns[frames], state.shifts[frames]) - state.places[kept].mean(axis=0)
    sights = eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
    around = float(np.degrees(np.arccos(np.clip(sights @ sights.T, -1, 1)).max()))
    if around < SIDES_DEG:
        raise SceneError(f'scene: seen from one side, within {around:.0f} degrees, expected {SIDES_DEG:.0f}: what a '
                         'network does wrong there it does wrong in every frame; move the camera around it')


def _agreeing(state: _State, measured: _Measured, symmetries: Sequence[Array], frames: int,
              ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether what was found in a frame is where the scene has it ``(F, K)``, and in how many it was found."""
    agrees = np.zeros((frames, len(symmetries)), bool)
    agrees[measured.frame, measured.item] = (_deviations(state, measured, symmetries) < AGREES).all(axis=1)
    # what is seen as much too small or too large, or mostly elsewhere, is something else that looks like the object
    agrees &= np.abs(state.factors) < LARGEST_FACTOR
    return agrees, np.bincount(measured.item, minlength=len(symmetries))


def _result(state: _State, names: Sequence[str], models: Sequence[ObjectModel], known: NDArray[np.bool_],
            agrees: NDArray[np.bool_], kept: NDArray[np.bool_]) -> StaticScene:
    """Return a state as the scene of the objects that are ``kept``."""
    count = len(state.turns)
    cameras, placed = np.repeat(np.eye(4)[None], count, 0), np.repeat(np.eye(4)[None], len(names), 0)
    cameras[:, :3, :3], cameras[:, :3, 3] = state.turns, state.shifts
    placed[:, :3, :3] = state.rotations
    middles = np.stack([m.middle for m in models])
    placed[:, :3, 3] = state.places - np.einsum('kij,kj->ki', state.rotations, middles)
    return StaticScene(tuple(names), cameras, placed, known, agrees, np.exp(state.factors)).only(kept)


def _one_scene(agrees: NDArray[np.bool_], least: Array) -> NDArray[np.bool_]:
    """Return what hangs together of frames and objects that agree ``(F, K)``: the largest part.

    A frame counts with :data:`FEWEST_OBJECTS` objects or more, an object with ``least`` ``(K,)`` frames that count. Two
    groups of objects that no frame shows together are two scenes: nothing says where one is from the other.
    """
    agrees = agrees.copy()
    while True:
        before = agrees.sum()
        agrees[agrees.sum(axis=1) < FEWEST_OBJECTS] = False
        agrees[:, agrees.sum(axis=0) < least] = False
        if agrees.sum() == before:
            break
    frames, items = agrees.shape
    edges = np.zeros((frames + items, frames + items), bool)
    edges[:frames, frames:] = agrees
    _, part = connected_components(edges, directed=False)
    counts = np.bincount(part[:frames], weights=agrees.sum(axis=1))
    agrees[part[:frames] != counts.argmax()] = False
    return agrees
