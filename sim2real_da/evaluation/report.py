# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and a page about one adaptation run.

A run's folder holds ``summary.json``, and where the run made them ``history.json`` (the session's history: a list with
one mapping a step), ``before_after.png`` and ``overlays/NAME_before.png`` with ``overlays/NAME_after.png``.
:func:`write_report` draws ``learning_curves.png`` and turns all of it into ``report.html``, one file that needs nothing
beside it.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.evaluation.drawing import draw
from sim2real_da.evaluation.metrics import SCORE
from sim2real_da.samples import Detection, Frame, ObjectLabel, ObjectModel

__all__ = ['Overlay', 'draw', 'learning_curves', 'write_overlays', 'write_report']

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
CURVES = ('#1f6fb4', '#e07b00', '#7d4bb3', '#16a0a0', '#8c564b', '#d1579b')  # apart from the green and red of the gate
_Curve = tuple[list[float], list[float]]  # steps, values

ROWS = {
    'source_only': ('Source only', 'trained in simulation, as shipped'),
    'source_continued': ('Source continued', 'the control: the same extra steps on simulation, no adaptation'),
    'adapted': ('Adapted', 'the extra steps on simulation and unlabelled camera frames'),
}


@dataclass(frozen=True)
class Metric:
    """How one number of a row is shown."""

    key: str
    title: str
    unit: str
    digits: int
    higher_is_better: bool
    meaning: str

    def text(self, value: float | None) -> str:
        """Return the value with its unit, a dash where there is none."""
        return '–' if value is None else f'{value:.{self.digits}f}{self.unit}'


METRICS = (
    Metric('ap50', 'AP50', '', 3, True, 'average precision of the boxes at IoU 0.5, mean over objects'),
    Metric('ap', 'AP', '', 3, True, 'the same, mean over IoU 0.50 to 0.95'),
    Metric('recall', 'Recall', '', 3, True, 'share of instances found at IoU 0.5 with a score of at least 0.3'),
    Metric('mean_angle_deg', 'Mean angle', '°', 1, False,
           'rotation error over all instances up to symmetry; a miss counts 180°'),
    Metric('mean_angle_matched_deg', 'Mean angle, matched', '°', 1, False, 'rotation error of those found, only'),
    Metric('mean_position_m', 'Mean position', ' m', 3, False, 'distance over all instances; a miss counts 1 m'),
    Metric('adds_recall', 'ADD(-S) recall', '', 3, True,
           'share of instances with ADD (ADD-S if symmetric) below 0.1 diameter, mean over objects'),
    Metric('bop_ar', 'BOP AR without VSD', '', 3, True,
           'mean of the average recalls MSSD and MSPD of the BOP challenge'),
)
PER_OBJECT = tuple(m for m in METRICS if m.key in ('ap50', 'mean_angle_deg', 'adds_recall'))


@dataclass(frozen=True)
class Overlay:
    """One scoring frame with what was found before and after the run.

    :param name: a file name without suffix, for instance the frame's id
    :param truth: drawn thin and white where given
    """

    name: str
    frame: Frame
    before: Sequence[Detection]
    after: Sequence[Detection]
    truth: Sequence[ObjectLabel] = ()


def write_overlays(folder: Path, overlays: Sequence[Overlay], objects: Mapping[str, ObjectModel]) -> list[Path]:
    """Write each frame before and after the run, and a sheet with all of them; scores below 0.3 are not shown.

    :param folder: the run's folder
    :return: the files, the sheet ``before_after.png`` first
    :raises ValueError: when there is nothing to draw
    :raises OSError: when a file cannot be written
    """
    if not overlays:
        raise ValueError('overlays: no frames to draw')
    (folder / 'overlays').mkdir(parents=True, exist_ok=True)
    rows, files = [], []
    for overlay in overlays:
        frame, pair = overlay.frame, []
        for when, detections in (('before', overlay.before), ('after', overlay.after)):
            seen = [d for d in detections if d.score >= SCORE]  # what recall and pose errors look at
            picture = draw(frame.image, seen, frame.intrinsics, objects, overlay.truth)
            files.append(_save(folder / 'overlays' / f'{overlay.name}_{when}.png', picture))
            pair.append(picture)
        rows.append(pair)
    return [_save(folder / 'before_after.png', _sheet(rows, ('before', 'after'))), *files]


def learning_curves(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw what a session did over its steps: losses, adversary, gate; promotions as vertical lines.

    :param history: one mapping per step (``AdaptationSession.history``)
    :raises ValueError: for an empty history
    """
    import matplotlib

    matplotlib.use('Agg')
    from cycler import cycler
    from matplotlib import pyplot

    if not history:
        raise ValueError('learning curves: the history is empty; nothing was learnt')
    panels = [(title, unit, curves) for title, unit, curves in _panels(history) if curves]
    promoted = [e['step'] for e in history if e.get('gate/promoted') == 1]
    rejected = [e['step'] for e in history if e.get('gate/promoted') == 0]
    style = {'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
             'grid.alpha': 0.25, 'legend.frameon': False, 'axes.prop_cycle': cycler(color=CURVES)}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(len(panels), 1, figsize=(6.4, 2.7 * len(panels)), sharex=True, squeeze=False,
                                       layout='constrained')
        for axis, (title, unit, curves) in zip(axes[:, 0], panels, strict=True):
            first, last = axis is axes[0, 0], axis is axes[-1, 0]
            for name, (steps, values) in curves.items():
                few = len(steps) < 40 or name.endswith('lambda')  # no noise to look through
                lines = axis.plot(steps, values, linewidth=1.4, marker='o' if len(steps) < 40 else None, markersize=4,
                                  alpha=1.0 if few else 0.3, label=name if few else None)
                if not few:
                    axis.plot(steps, smoothed(values, len(values) // 20), linewidth=1.8, label=name,
                              color=lines[0].get_color())
            for number, step in enumerate(promoted):
                axis.axvline(step, color='#2a9d4a', linewidth=1.2, label=None if number or not first else 'promoted')
            for number, step in enumerate(rejected):
                axis.axvline(step, color='#c0392b', linewidth=1.4, linestyle=':',
                             label=None if number or not first else 'rejected')
            axis.set_title(title, loc='left', fontsize=11, fontweight='bold')
            axis.set_ylabel(unit)
            if last:
                axis.set_xlabel('step')
            # Under the axes, so that the figure is wide enough to be read on a phone, too.
            axis.legend(loc='upper center', bbox_to_anchor=(0.5, -0.24 if last else -0.08), ncols=3, fontsize=9)
        figure.savefig(path, dpi=140)
        pyplot.close(figure)
    return path


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run.

    :param folder: holds ``summary.json``; the other files of this module's head are used where they are
    :return: the page
    :raises ValueError: for a missing or unreadable summary, or one without the rows; the message names the file
    """
    summary = _read_json(folder / 'summary.json')
    rows = summary.get('rows', summary) if isinstance(summary, dict) else {}
    missing = [name for name in ROWS if not isinstance(rows.get(name), dict)]
    if missing:
        raise ValueError(f'{folder / "summary.json"}: no row {", ".join(missing)}, expected {", ".join(ROWS)}')
    history = _read_json(folder / 'history.json') if (folder / 'history.json').exists() else []
    if history:
        learning_curves(history, folder / 'learning_curves.png')
    page = template('report.html.jinja').render(
        summary=summary, rows=ROWS, metrics=METRICS, headline=_headline(rows),
        table=[(m, _cells(m, [rows[name] for name in ROWS])) for m in METRICS if any(m.key in rows[n] for n in ROWS)],
        object_tables=_object_tables(rows), overlays=_embedded_overlays(folder / 'overlays'),
        curves=embedded(folder / 'learning_curves.png'), decisions=_decisions(history), facts=_facts(summary))
    path = folder / 'report.html'
    path.write_text(page, encoding='utf-8')
    return path


def template(name: str) -> Any:
    """Return a page's template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader('sim2real_da.evaluation', '.'), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da report``."""
    parser.add_argument('folder', type=Path, help='what a run left (demo_output), or a recording of the recorder node')
    parser.add_argument('--robot', help='of a recording with several: the namespace whose topics are read')
    parser.add_argument('--rectified', action='store_true', help='of a recording: its pictures are rectified')


def run(options: argparse.Namespace) -> None:
    """Write the page as asked for on the command line."""
    from sim2real_da.evaluation.session_report import is_session, write_session_report

    session = is_session(options.folder)
    path = write_session_report(options.folder, options.robot, options.rectified) if session else write_report(
        options.folder)
    log.info('wrote %s', path)


def _cells(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """Return (text, is the best) of one metric for each row."""
    values = [row.get(metric.key) for row in rows]
    known = [v for v in values if v is not None]
    best = (max(known) if metric.higher_is_better else min(known)) if len(set(known)) > 1 else None
    return [(metric.text(v), v is not None and v == best) for v in values]


def _headline(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the adapted row against the better of the two others, for the metrics a reader asks for first."""
    result = []
    for metric in (m for m in METRICS if m.key in ('ap50', 'mean_angle_deg')):
        before = [rows[name][metric.key] for name in ('source_only', 'source_continued')]
        reference = max(before) if metric.higher_is_better else min(before)
        value = rows['adapted'][metric.key]
        gain = value - reference if metric.higher_is_better else reference - value
        shown = metric.text(abs(gain))
        same = float(f'{abs(gain):.{metric.digits}f}') == 0
        result.append({'title': metric.title, 'value': metric.text(value), 'reference': metric.text(reference),
                       'change': 'no change' if same else f'{shown} {"better" if gain > 0 else "worse"}',
                       'kind': 'same' if same else ('good' if gain > 0 else 'bad')})
    return result


def _object_tables(rows: Mapping[str, Any]) -> list[tuple[Metric, list[tuple[str, list[tuple[str, bool]]]]]]:
    """Return for each metric (object, cells of the rows)."""
    objects = [rows[name].get('objects', {}) for name in ROWS]
    names = sorted({name for per_row in objects for name in per_row})
    return [(metric, [(name, _cells(metric, [per_row.get(name, {}) for per_row in objects])) for name in names])
            for metric in PER_OBJECT] if names else []


def _decisions(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps at which the gate decided, with its reason or else the numbers it saw."""
    decisions = []
    for entry in history:
        if 'gate/promoted' in entry:
            numbers = [f'{name} {entry[f"gate/{name}_ap50"]:.3f}' for name in ('candidate', 'running', 'source')
                       if f'gate/{name}_ap50' in entry]
            for where, frames in (('camera', 'camera frames'), ('reference', 'earlier camera frames')):
                for part in ('detector', 'pose'):
                    key = f'gate/{where}_%s_{part}_infomax'
                    if key % 'candidate' in entry:
                        numbers.append(f'InfoMax of the {part} on {frames} ' + ', '.join(
                            f'{name} {entry[key % name]:.3f}' for name in ('candidate', 'running', 'source')))
            if entry.get('gate/went_back_to'):
                numbers.append(f'the running version was replaced by version {entry["gate/went_back_to"]:.0f}')
            decisions.append({'step': int(entry['step']), 'promoted': bool(entry['gate/promoted']),
                              'reason': entry.get('reason') or 'AP50 on held-out simulation: ' + ', '.join(numbers)})
    return decisions


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return everything in the summary that is not a row, as text."""
    facts = []
    for key, value in summary.items():
        if key in ROWS or key == 'rows':
            continue
        if isinstance(value, dict):
            text = ', '.join(f'{k} {_number(v)}' for k, v in value.items() if not isinstance(v, dict | list))
        elif isinstance(value, list):
            text = ', '.join(_number(v) for v in value if not isinstance(v, dict | list))
        else:
            text = _number(value)
        if text:
            facts.append((key.replace('_', ' '), text))
    return facts


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) and math.isfinite(value) else str(value)


def _panels(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, dict[str, _Curve]]]:
    """Sort the numbers of a history into (title, unit, curves by name)."""
    keys = list(dict.fromkeys(key for entry in history for key in entry))
    adversary = [k for k in keys if k.endswith(('/lambda', '/domain_accuracy'))]

    def curves(wanted: Sequence[str], prefix: str) -> dict[str, _Curve]:
        found = {}
        for key in wanted:
            points = [(float(e['step']), float(e[key])) for e in history
                      if isinstance(e.get(key), int | float) and math.isfinite(e[key])]
            if points:
                name = key.removeprefix(prefix).removesuffix('_ap50').removesuffix('_pose_score').replace('domain_', '')
                found[name.replace('/', ' ').replace('_', ' ')] = ([p[0] for p in points], [p[1] for p in points])
        return found

    def losses(network: str) -> dict[str, _Curve]:
        return curves([k for k in keys if k.startswith(f'{network}/') and k not in adversary], f'{network}/')

    return [
        ('Detector', 'loss', losses('detector')),
        ('Pose network', 'loss', losses('pose')),
        ('Adversary (0.5: the domains look alike)', 'accuracy, lambda', curves(adversary, '')),
        ('Gate: detection on held-out simulation', 'AP50', curves([k for k in keys if k.endswith('_ap50')], 'gate/')),
        ('Gate: rotation on held-out simulation', '1 - angle / 180°',
         curves([k for k in keys if k.endswith('_pose_score')], 'gate/')),
    ]


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Return the mean over ``reach`` values before and after each."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return list((sums[last] - sums[first]) / (last - first))


def _sheet(rows: Sequence[Sequence[Image]], titles: Sequence[str]) -> Image:
    """Put pictures of one size into a grid under column titles."""
    gap, head = 6, 34
    height, width = rows[0][0].shape[:2]
    total = (head + len(rows) * (height + gap), len(titles) * (width + gap) - gap)
    sheet = np.full((*total, 3), 24, dtype=np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(sheet, title, (column * (width + gap) + 8, head - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.75,
                    (255, 255, 255), 1, cv2.LINE_AA)
        for row, pictures in enumerate(rows):
            top, left = head + row * (height + gap), column * (width + gap)
            sheet[top:top + height, left:left + width] = cv2.resize(pictures[column], (width, height))
    return sheet


def _save(path: Path, picture: Image) -> Path:
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f'{path}: the picture could not be written; is the folder writable and the disk not full?')
    return path


def embedded(path: Path, photograph: bool = False) -> str | None:
    """Return a picture as a data URL, None when there is no such file; a photograph as JPEG, a tenth of the bytes."""
    if not path.exists():
        return None
    data, kind = path.read_bytes(), 'png'
    if photograph:
        picture = cv2.imread(str(path))
        if picture is None:
            raise ValueError(f'{path}: not a readable picture; remove it or run again')
        data, kind = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes(), 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def _embedded_overlays(folder: Path) -> list[tuple[str, str, str]]:
    """Return (name, before, after) of each pair of overlays."""
    result = []
    for before in sorted(folder.glob('*_before.png')):
        name = before.name.removesuffix('_before.png')
        first, second = embedded(before, True), embedded(folder / f'{name}_after.png', True)
        if first and second:
            result.append((name, first, second))
    return result


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise ValueError(f'{path}: no such file; run the demo first, or name the folder it left') from error
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: not JSON ({error}); the run that wrote it may have been cut off') from error
