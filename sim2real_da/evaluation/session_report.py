# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A page about a recorded session: which weights ran when, what the gate decided, what was found, what went wrong.

Reads the recorder node's MCAP files, and any rosbag2 recording of the same topics, without a ROS installation.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.camera_info import intrinsics_of
from sim2real_da.data.recordings import Spread, is_bag, recorded_picture
from sim2real_da.evaluation.drawing import draw
from sim2real_da.evaluation.report import embedded, template
from sim2real_da.samples import Detection, Intrinsics, ObjectModel, Pose

DIAGNOSTICS = '/diagnostics'  # one topic for all robots
PICTURES = 8  # shown
KEPT = 64  # while reading: not every picture was answered
MOST_LINES = 60  # of the course; a learner that changes its mind every second fills no page


@dataclass
class Session:
    """What a recording says; times are seconds from its begin.

    :param robot: namespace of the topics, with slashes around it
    :param course: time, state of the learner with its reason
    :param versions: time, version of the weights that perception runs
    :param found: time of an answer, scores by class
    :param pictures: time, stamp, frame_id, ``(H, W, 3)``; some, spread over the recording
    :param boxes: detections without poses by stamp
    :param solids: detections with poses by stamp and the frame of the poses
    :param objects: sizes by class, as the 3-D boxes have them
    :param gate: time, the gate's numbers
    :param complaints: how often a node warned of what
    """

    name: str
    robot: str = '/'
    seconds: float = 0.0
    course: list[tuple[float, str]] = field(default_factory=list)
    versions: list[tuple[float, int, str]] = field(default_factory=list)
    found: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    pictures: Spread[tuple[float, int, str, NDArray[np.uint8]]] = field(default_factory=lambda: Spread(KEPT))
    boxes: dict[int, list[Detection]] = field(default_factory=dict)
    solids: dict[tuple[int, str], list[Detection]] = field(default_factory=dict)
    objects: dict[str, ObjectModel] = field(default_factory=dict)
    camera: Any = None
    numbers: dict[str, str] = field(default_factory=dict)
    gate: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    complaints: Counter[str] = field(default_factory=Counter)


def is_session(path: Path) -> bool:
    """Whether a path is a recording."""
    return is_bag(path)


def read_session(path: Path, robot: str | None = None) -> Session:
    """Read a recording. A message that is damaged is counted among the complaints.

    :param robot: namespace of whose topics are read; None: the only one
    :raises ValueError: for a file that is none, one without any of the topics, or with those of several robots
    """
    from rosbags.highlevel import AnyReader, AnyReaderError
    from rosbags.typesys import Stores, get_typestore

    session = Session(path.name)
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            begin = reader.start_time
            session.seconds = (reader.end_time - begin) / 1e9
            known = {topic: found for topic in reader.topics if (found := _known(topic)) is not None}
            robots = sorted({namespace for namespace, _ in known.values()} - {DIAGNOSTICS})
            if not robots:
                raise ValueError(f'{path}: none of the topics of perception and adaptation; it has '
                                 f'{sorted(reader.topics)}')
            if robot is None and len(robots) > 1:
                raise ValueError(f'{path}: topics of several robots, name one with --robot: {", ".join(robots)}')
            session.robot = robots[0] if robot is None else f'/{robot.strip("/")}/'.replace('//', '/')
            if session.robot not in robots:
                raise ValueError(f'{path}: no topics of robot {robot!r}, expected one of {", ".join(robots)}')
            wanted = [c for c in reader.connections
                      if c.topic in known and known[c.topic][0] in (session.robot, DIAGNOSTICS)]
            for connection, stamp, data in reader.messages(wanted):
                taker = known[connection.topic][1]
                try:
                    taker(session, (stamp - begin) / 1e9, reader.deserialize(data, connection.msgtype))
                except Exception as error:  # whatever a damaged message makes the library raise
                    session.complaints[f'recording: {connection.topic}: {type(error).__name__}: {error}'] += 1
    except (AnyReaderError, OSError) as error:
        raise ValueError(f'{path}: cannot be read as a recording: {error}; one that was cut off by a kill has no end '
                         f'and cannot') from error
    return session


def write_session_report(path: Path, robot: str | None = None, rectified: bool = False) -> Path:
    """Write ``report.html`` into a recording's folder, or ``NAME.html`` beside a lone file, and return it.

    :param rectified: the pictures are rectified: poses are drawn by P of camera_info, not by K and D
    :raises ValueError: see :func:`read_session`
    """
    session = read_session(path, robot)
    with tempfile.TemporaryDirectory() as folder:
        curves = _curves(session, Path(folder) / 'curves.png')
        page = template('session.html.jinja').render(
            session=session, classes=_classes(session), pictures=_drawn(session, Path(folder), rectified),
            curves=embedded(curves) if curves else None, course=session.course[:MOST_LINES],
            more=max(len(session.course) - MOST_LINES, 0), rate=len(session.found) / max(session.seconds, 1e-9))
    out = path / 'report.html' if path.is_dir() else path.with_suffix('.html')
    out.write_text(page, encoding='utf-8')
    return out


# --- one message each ----------------------------------------

def _known(topic: str) -> tuple[str, Any] | None:
    """Return what stands before a robot's topic, with a slash at the end, and what takes its messages.

    None for a topic of no report.
    """
    if topic == DIAGNOSTICS:
        return DIAGNOSTICS, _take_diagnostics
    return next(((topic.removesuffix(end), taker) for end, taker in TAKERS.items() if topic.endswith(f'/{end}')), None)


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _take_status(session: Session, time: float, message: Any) -> None:
    if not session.course or session.course[-1][1].split(':')[0] != message.message.split(':')[0]:
        session.course.append((time, message.message))
    values = {v.key: v.value for v in message.values}
    before = session.numbers
    session.numbers = {k: values[k] for k in ('recipe', 'step', 'promotions', 'rejections', 'rollbacks', 'version',
                                              'buffer_frames', 'source_frames') if k in values}
    decided = [session.numbers.get(k) for k in ('promotions', 'rejections')]
    if decided != [before.get(k) for k in ('promotions', 'rejections')]:
        numbers = {k.removeprefix('gate/'): float(v) for k, v in values.items() if k.startswith('gate/')}
        if numbers:
            session.gate.append((time, numbers))


def _take_diagnostics(session: Session, _time: float, message: Any) -> None:
    for status in message.status:
        if not f'/{status.name.lstrip("/")}'.startswith(session.robot):
            continue
        if int.from_bytes(bytes([status.level]) if isinstance(status.level, int) else status.level, 'little'):
            # the state comes first; what is complained of counts as one thing however its numbers run on
            for what in status.message.split('; ')[1:] or [status.message]:
                session.complaints[f'{status.name}: ' + re.sub(r'\b\d+(\.\d+)?\b', '…', what)] += 1


def _take_version(session: Session, time: float, message: Any) -> None:
    if not session.versions or session.versions[-1][1] != message.database_version:
        session.versions.append((time, int(message.database_version), message.method))


def _take_boxes(session: Session, time: float, message: Any) -> None:
    best: dict[str, float] = {}
    detections = []
    for found in message.detections:
        result = found.results[0].hypothesis
        best[result.class_id] = max(best.get(result.class_id, 0.0), float(result.score))
        centre, width, height = found.bbox.center.position, found.bbox.size_x, found.bbox.size_y
        detections.append(Detection(result.class_id, float(result.score), np.array(
            [centre.x - width / 2, centre.y - height / 2, centre.x + width / 2, centre.y + height / 2])))
    session.found.append((time, best))
    session.boxes[_stamp(message.header)] = detections


def _take_solids(session: Session, _time: float, message: Any) -> None:
    posed = []
    for found in message.detections:
        name, size = found.results[0].hypothesis.class_id, found.bbox.size
        extent = np.array([size.x, size.y, size.z])
        p, q = found.bbox.center.position, found.bbox.center.orientation
        session.objects.setdefault(name, ObjectModel(
            name, np.zeros((0, 3), np.float32), -extent / 2, extent, float(np.linalg.norm(extent))))
        pose = Pose(np.array([q.x, q.y, q.z, q.w]), np.array([p.x, p.y, p.z]))
        posed.append(Detection(name, float(found.results[0].hypothesis.score), np.full(4, np.nan), pose))
    session.solids[_stamp(message.header), message.header.frame_id] = posed


def _take_camera(session: Session, _time: float, message: Any) -> None:
    session.camera = message


def _take_picture(session: Session, time: float, message: Any) -> None:
    if not session.pictures.wanted():
        return
    try:
        image = recorded_picture(message)
    except ValueError as error:
        session.complaints[f'recording: a picture {error}'] += 1
        return
    session.pictures.add((time, _stamp(message.header), message.header.frame_id, image))


TAKERS = {
    'adaptation/status': _take_status, 'perception/vision_info': _take_version,
    'perception/detections': _take_boxes, 'perception/detections_3d': _take_solids, 'real/camera_info': _take_camera,
    'real/image': _take_picture, 'real/image/compressed': _take_picture}


# --- the page's parts ----------------------------------------

def _classes(session: Session) -> list[tuple[str, int, float]]:
    """Return for each class in how many answers it was, and its mean score there."""
    scores: dict[str, list[float]] = {}
    for _, best in session.found:
        for name, score in best.items():
            scores.setdefault(name, []).append(score)
    return [(name, len(s), float(np.mean(s))) for name, s in sorted(scores.items())]


def _drawn(session: Session, folder: Path, rectified: bool) -> list[tuple[str, str]]:
    """Return time and data URL of pictures with what was found in them; of answered ones where there are any."""
    shown = []
    known = [p for p in session.pictures.kept if p[1] in session.boxes] or session.pictures.kept
    times = np.array([p[0] for p in known])
    wanted = np.linspace(times[0], times[-1], PICTURES) if known else ()
    for index in sorted({int(np.abs(times - time).argmin()) for time in wanted}):
        time, stamp, frame_id, image = known[index]
        found, size = session.boxes.get(stamp, []), (image.shape[1], image.shape[0])
        try:
            camera = intrinsics_of(session.camera, size, rectified)
            found = found + session.solids.get((stamp, frame_id), [])  # poses in another frame cannot be drawn
        except (ValueError, AttributeError):  # no camera_info, or none of this size: boxes need none
            camera = Intrinsics(*size, 1.0, 1.0, 0.0, 0.0)
        path = folder / f'{stamp}.png'
        cv2.imwrite(str(path), cv2.cvtColor(draw(image, found, camera, session.objects), cv2.COLOR_RGB2BGR))
        url = embedded(path, True)
        if url:
            shown.append((f'{time:.1f}', url))
    return shown


def _curves(session: Session, path: Path) -> Path | None:
    """Draw scores by class, versions and the gate over time; None when there is nothing to draw."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    names = [name for name, _, _ in _classes(session)]
    if not names and not session.gate:
        return None
    with pyplot.rc_context({'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
                            'grid.alpha': 0.25, 'legend.frameon': False}):
        figure, axes = pyplot.subplots(1 + bool(session.gate), 1, figsize=(6.4, 3 * (1 + bool(session.gate))),
                                       sharex=True, squeeze=False, layout='constrained')
        axis = axes[0, 0]
        for name in names:
            points = [(time, best[name]) for time, best in session.found if name in best]
            axis.plot(*zip(*points), '.', markersize=3, label=name)
        for time, version, _ in session.versions:
            axis.axvline(time, color='#2a9d4a', linewidth=1.2)
            axis.text(time, 1.02, f'v{version}', fontsize=8, color='#2a9d4a', transform=axis.get_xaxis_transform())
        axis.set_ylim(0, 1)
        axis.set_ylabel('best score in a picture')
        axis.legend(loc='upper center', bbox_to_anchor=(0.5, -0.08 if session.gate else -0.22), ncols=4, fontsize=9)
        if session.gate:
            axis = axes[1, 0]
            for name in ('candidate_ap50', 'running_ap50', 'source_ap50'):
                points = [(time, numbers[name]) for time, numbers in session.gate if name in numbers]
                if points:
                    axis.plot(*zip(*points), marker='o', markersize=4, label=name.removesuffix('_ap50'))
            axis.set_ylabel('gate: AP50 on simulation')
            axis.legend(loc='upper center', bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize=9)
        axes[-1, 0].set_xlabel('seconds')
        figure.savefig(path, dpi=140)
        pyplot.close(figure)
    return path
