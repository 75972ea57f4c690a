# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Write the tables of the docs from the JSON files in ``benchmarks/results``: ``python benchmarks/tables.py``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. A test fails when a page and its results disagree.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rank_correlation import spearman

HERE = Path(__file__).parent
RESULTS = HERE / 'results'
DOCS = HERE.parent / 'docs'
COLUMNS = {'ap50': 'AP50', 'ap': 'AP', 'recall': 'recall', 'adds_recall': 'ADD(-S) recall', 'bop_ar': 'BOP AR',
           'mean_angle_deg': 'mean angle, deg', 'mean_angle_matched_deg': 'matched, deg',
           'mean_position_m': 'mean position, m'}
DEMO_COLUMNS = ('ap50', 'recall', 'mean_angle_deg', 'mean_angle_matched_deg', 'mean_position_m')
# accuracy in per cent: digits from table 1 of PixelDA's paper but cycada's, which are its own; signs from DSN's table 1
PUBLISHED: dict[str, dict[str, float]] = {
    'usps': {'source_only': 78.9, 'coral': 81.7, 'mmd': 81.1, 'dann': 85.1, 'dsn': 91.3, 'cogan': 91.2, 'pixelda': 95.9,
             'cycada': 95.6, 'cycada_pixel': 95.6, 'target_only': 96.5},
    'mnistm': {'source_only': 63.6, 'coral': 57.7, 'mmd': 76.9, 'dann': 77.4, 'dsn': 83.2, 'cogan': 62.0,
               'pixelda': 98.2, 'target_only': 96.4},
    'gtsrb': {'source_only': 85.1, 'coral': 86.9, 'mmd': 91.1, 'dann': 92.9, 'dsn': 93.1, 'target_only': 99.8},
}
DEPTH = ' (with depth)'  # what a published network saw that ours do not
# class and mean angle on crops of LINEMOD, from PixelDA's paper: table 3 (RGB), with depth table 2
PUBLISHED_CROPS: dict[str, dict[str, tuple[float, float, str]]] = {
    'black': {'source_only': (47.33, 89.2, ''), 'pixelda': (94.16, 55.74, ''), 'mmd': (72.35, 70.62, DEPTH),
              'dann': (99.9, 56.58, DEPTH), 'dsn': (100.0, 53.27, DEPTH), 'target_only': (100.0, 6.47, DEPTH)},
    # tables 4 and 6; 6 with 1,000 labels instead of 100
    'black_2_unseen': {'pixelda': (98.98, 31.69, DEPTH)},
    'black_100_labelled': {'source_continued': (99.89, 23.5, DEPTH), 'pixelda': (99.93, 13.31, DEPTH)},
    'photographs': {'source_only': (91.15, 50.18, ''), 'pixelda': (96.95, 36.79, '')},
}
UNMEASURED = 'Not measured yet.'
LEAST_ANGLE = 5.0  # degrees, as the next for accuracies
LEAST_DISTANCE = 0.05  # gain is not reported where target-only is nearer than this to what it is compared with


def number(key: str, value: float | dict[str, float]) -> str:
    """Return a value, or mean and standard deviation, with the digits its metric deserves."""
    digits = 1 if key.endswith('deg') else 3
    if isinstance(value, dict):
        return f'{value["mean"]:.{digits}f} ± {value["std"]:.{digits}f}'
    return f'{value:.{digits}f}'


def markdown(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    """Return a table; the first column holds the rows' names."""
    lines = [f'| {title} | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    return '\n'.join([*lines, *(f'| {name} | ' + ' | '.join(cells) + ' |' for name, cells in rows.items())])


def read(name: str) -> dict[str, Any]:
    """Return one result file."""
    return dict(json.loads((RESULTS / f'{name}.json').read_text(encoding='utf-8')))


def origin(result: dict[str, Any]) -> str:
    """Return the line under a table: command, commit, hardware."""
    commit = result['commit'][:7] + (' with uncommitted changes' if result.get('uncommitted') else '')
    return f'`{result["command"]}`, commit {commit}, {result["hardware"]}, torch {result["torch"]}'


def demo(data: str) -> str:
    """Return mean and range over the runs ``demo_<data>_<seed>.json`` (a run's ``summary.json``, unchanged)."""
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(RESULTS.glob(f'demo_{data}_*.json'))]
    rows: dict[str, list[str]] = {}
    for row in ('source_only', 'source_continued', 'adapted'):
        rows[row] = []
        for key in DEMO_COLUMNS:
            values = [run[row][key] for run in runs]
            low, high = number(key, min(values)), number(key, max(values))
            rows[row].append(f'{number(key, float(np.mean(values)))} ({low} to {high})')
    run = runs[0]
    about = (f'{run["frames_scored"]} scoring frames; recipe {run["recipe"]}; '
             f'{", ".join(str(r["promotions"]) for r in runs)} promotions; '
             f'{", ".join(str(round(r["seconds"])) for r in runs)} s; {run["hardware"]}; '
             f'commits {", ".join(sorted({r["commit"][:7] for r in runs}))}')
    return markdown(f'{data}, {len(runs)} run(s)', [COLUMNS[k] for k in DEMO_COLUMNS], rows) + f'\n\n{about}'


def adaptation(name: str) -> str:
    """Return the rows of an adaptation benchmark, with the gain where a target-only row allows one."""
    result = read(name)
    once = {row for row, runs in result.get('runs', {}).items() if len(runs) == 1}  # one seed has no spread
    lines = {row: [number(key, _mean(values[key]) if row in once else values[key]) for key in COLUMNS]
             for row, values in result['rows'].items()}
    text = markdown('row', list(COLUMNS.values()), lines)
    gains = [f'{row}: {", ".join(parts)}' for row in result['rows'] if (parts := _gains(result['rows'], row))]
    return '\n\n'.join([text, *(['Gain, ' + '; '.join(gains)] if gains else []), origin(result)])


def _mean(value: float | dict[str, float]) -> float:
    return value['mean'] if isinstance(value, dict) else value


def _gains(rows: dict[str, Any], row: str) -> list[str]:
    if 'target_only' not in rows or row in ('source_only', 'source_continued', 'target_only'):
        return []
    parts = []
    for key in ('ap50', 'adds_recall'):
        base = max(_mean(rows[r][key]) for r in ('source_only', 'source_continued'))
        distance = _mean(rows['target_only'][key]) - base
        if distance >= LEAST_DISTANCE:
            parts.append(f'{COLUMNS[key]} {100 * (_mean(rows[row][key]) - base) / distance:.0f} %')
        else:
            parts.append(f'{COLUMNS[key]} not reported (target-only is {100 * distance:.1f} points away)')
    return parts


def randomisation() -> str:
    """Return the 2 x 2 table: plain or randomised renders, source-only or adapted."""
    result = read('lmo_randomisation')
    lines = {f'{renders}, {row}': [number(key, values[key]) for key in COLUMNS]
             for renders, table in result['renders'].items() for row, values in table['rows'].items()}
    return markdown('renders, row', list(COLUMNS.values()), lines) + '\n\n' + origin(result)


def representation() -> str:
    """Return direct regression beside dense coordinates."""
    result = read('pose_representation')
    columns = {'mean_angle_deg': 'mean angle, deg', 'median_angle_deg': 'median, deg', 'adds_recall': 'ADD(-S) recall',
               'without_pose': 'without a pose'}
    lines = {}
    for arm, row in result['rows'].items():
        for frames in ('validation', 'photographs'):
            if frames in row:
                lines[f'{arm}, {frames}'] = [f'{row["crops_trained"]:,}', *(number(k, row[frames][k]) for k in columns)]
    text = markdown('representation, scored on', ['crops trained', *columns.values()], lines)
    return f'{text}\n\n{result["minutes"]:g} minutes each; {origin(result)}. {result.get("note", "")}'.rstrip()


def scene_labels() -> str:
    """Return how exact labels of a static scene are, beside those of single frames."""
    result = read('scene_labels')
    lines = {f'{frames}, {kind}': [
        f'{row["boxes"] / row["objects"]:.2f}', f'{row["boxes_right"]:.2f}', f'{row["poses"] / row["objects"]:.2f}',
        f'{row["adds"]:.2f}', f'{row["angle_deg"]:.1f}', f'{100 * row["depth"]:.1f}', f'{100 * row["too_far"]:+.1f}']
        for frames, kinds in result['rows'].items() for kind, row in kinds.items()}
    return markdown('labels of', ['boxes', 'of which right', 'poses', 'of which right (ADD(-S))', 'median angle, deg',
                                  'median depth error, %', 'with its sign'], lines) + '\n\n' + origin(result)


def pose_errors() -> str:
    """Return what of LineMOD-Occluded's poses is wrong, and what each part costs."""
    result = read('lmo_pose_errors')
    lines = {}
    for frames, row in result['rows'].items():
        median, recall = row['median'], row['adds_recall']
        again = row['repeated']
        lines[frames] = [str(row['crops']), f'{median["angle_deg"]:.1f}', f'{100 * median["depth"]:.1f}',
                         f'{100 * median["too_far"]:+.1f}', f'{100 * (again["+0.2"] - again["-0.2"]) / 0.4:.0f}',
                         f'{100 * median["across"]:.1f}', *(f'{value:.3f}' for value in recall.values())]
    columns = ['crops', 'median angle, deg', 'median depth error, % of the distance', 'with its sign', 'repeated by a '
               'second look, %', 'median error across, % of the diameter', 'ADD(-S) recall', 'with the true depth',
               'with the true rotation', 'with the true position']
    return f'{markdown("poses in", columns, lines)}\n\n{origin(result)}'


def speed() -> str:
    """Return times from message to message, and what modes and a learner beside change, for each set of weights."""
    lines, origins = {}, []
    for name in ('speed_cpu', 'speed_cpu_lmo'):
        result = read(name)
        origins.append(origin(result))
        for weights, found in result['weights'].items():
            whole = [found['message_to_message'][size]['whole'] for size in ('320x240', '640x480')]
            modes, learner = found['cpu']['array_to_poses'], found['cpu']['learner']
            learner = learner.get('array_to_poses', learner)  # older files timed nothing else beside it
            ratios = [f'{modes[m]["over_fp32"]["p50_ratio"]:.2f}' if m in modes else '–'
                      for m in ('channels_last', 'compile', 'half')]
            lines[weights] = [*(f'{w["p50_ms"]:.0f} / {w["p95_ms"]:.0f} / {w["p99_ms"]:.0f}' for w in whole), *ratios,
                              f'{learner["on_over_off"]["p50_ratio"]:.2f}']
    columns = ['message to message at 320x240, ms (p50 / p95 / p99)', 'at 640x480', 'channels-last', 'compiled',
               'bfloat16', 'while learning']
    return '\n\n'.join([markdown('weights', columns, lines), *origins])


def validators() -> str:
    """Return rank correlation and regret of every validator, a column for each set of checkpoints."""
    results = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(RESULTS.glob('validators_*.json'))]
    if not results:
        return UNMEASURED
    sets = {name: found for result in results for name, found in result['sets'].items()}
    rows: dict[str, list[str]] = {}
    for name in dict.fromkeys(n for found in sets.values() for n in found['validators']):
        said = [found['validators'].get(name) for found in sets.values()]
        rows[name] = [f'{v["spearman"]:+.2f}, {100 * v["regret"]:.1f}' if v else '' for v in said]
    columns = [f'{name}, {found["checkpoints"]} checkpoints' for name, found in sets.items()]
    truth = '; '.join(f'{name}: best {100 * t["best"]:.1f}, mean {100 * t["mean"]:.1f}, worst {100 * t["worst"]:.1f}'
                      for name, t in ((name, found['truth']) for name, found in sets.items()))
    return '\n\n'.join([markdown('rank correlation, regret in points', columns, rows), f'Truth, {truth}.',
                        *(origin(result) for result in results)])


def validators_runs() -> str:
    """Return how every validator ranks the checkpoints of one run, the gate's question, as a mean over the runs."""
    sets = {name: found for path in sorted(RESULTS.glob('validators_*.json'))
            for name, found in read(path.stem)['sets'].items()}
    rows: dict[str, list[str]] = {}
    for column, found in enumerate(sets.values()):
        runs: dict[str, list[dict[str, Any]]] = {}
        for checkpoint in found['all']:
            if checkpoint['name'].count('/') == 2:  # recipe, seed, step; the source model is of no run
                runs.setdefault(checkpoint['name'].rsplit('/', 1)[0], []).append(checkpoint)
        for name in found['validators']:
            said = [spearman([c['scores'][name] for c in own], [c['truth'] for c in own]) for own in runs.values()]
            rows.setdefault(name, [''] * len(sets))[column] = f'{np.mean(said):+.2f} ({min(said):+.2f})'
    columns = [f'{name}, {sum(c["name"].count("/") == 2 for c in found["all"])} checkpoints'
               for name, found in sets.items()]
    return markdown('rank correlation within a run: mean (worst run)', columns, rows)


def soak() -> str:
    """Return what long hostile streams did with every recipe, and the course of each over its segments."""
    results = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(RESULTS.glob('soak_*.json'))]
    if not results:
        return UNMEASURED
    kinds = ('benign', 'hostile')
    rows = {r['recipe']: [str(r['frames']), *(f'{r["worst_drop_below_source"][k]:.1f}' for k in kinds),
                          *(f'{r["mean_gain"][k]:+.1f}' for k in kinds),
                          f'{r["promotions"]} / {r["rejections"]} / {r["rollbacks"]}', f'{r["rss_growth_mb"]:+.0f}']
            for r in results}
    columns = ['frames', 'worst drop, benign', 'hostile', 'mean gain, benign', 'hostile',
               'promotions / rejections / rollbacks', 'memory, MB']
    course = {of_all[0]['segment']: [f'{c["published_ap50"] - c["source_ap50"]:+.1f}' for c in of_all]
              for of_all in zip(*(r['checkpoints'] for r in results))}
    return '\n\n'.join([markdown('recipe', columns, rows), 'Published above source model, points of AP50 with the '
                        "camera's ordinary look, after each segment:",
                        markdown('segment', [r['recipe'] for r in results], course), *(origin(r) for r in results)])


def faults() -> str:
    """Return what was counted while faults were tried on running graphs."""
    if not (RESULTS / 'faults.json').is_file():
        return UNMEASURED
    result = read('faults')
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return ', '.join(f'{k} {v}' for k, v in value.items())
        return {True: 'yes', False: 'no'}[value] if isinstance(value, bool) else str(value)

    rows = {f'{fault}: {name}'.replace('_', ' '): [shown(value)] for fault, found in result.items()
            for name, value in found.items() if name not in (
                'took_s', 'it_says', 'command', 'commit', 'torch', 'hardware')}
    return '\n\n'.join([markdown('fault', ['counted'], rows), *dict.fromkeys(origin(f) for f in result.values())])


def grasps() -> str:
    """Return how often a gripper lifted what it was sent to, by the poses of every row."""
    if not (RESULTS / 'grasp.json').is_file():
        return UNMEASURED
    result = read('grasp')
    found = {row: values for row, values in result.items() if isinstance(values, dict) and 'success_rate' in values}
    names = sorted(next(iter(found.values()))['runs'][0]['objects'])
    rows = {row: [f'{100 * values["success_rate"]:.1f} ± {100 * values["success_rate_std"]:.1f}', str(values['grasps']),
                  str(sum(run['with_pose'] for run in values['runs'])),
                  *(f'{100 * np.mean([run["objects"][name] for run in values["runs"]]):.0f}' for name in names)]
            for row, values in found.items()}
    return '\n\n'.join([markdown('row', ['lifted, %', 'grasps', 'poses published', *(f'{n}, %' for n in names)], rows),
                        origin(result)])


def costs() -> str:
    """Return what a step of every recipe costs over a bare forward and backward, a column for each network."""
    if not (RESULTS / 'objectives_cpu.json').is_file():
        return UNMEASURED
    result = read('objectives_cpu')
    networks = result['networks']
    rows = {recipe: [f'{cell["gradients_ratio"]:.2f}, {cell["step_ratio"]:.2f}' if 'step_ratio' in (
        cell := networks[kind].get(recipe, {})) else '' for kind in networks]
        for recipe in dict.fromkeys(r for found in networks.values() for r in found)}
    bare = '; '.join(f'{kind} {min(c["bare_ms"] for c in found.values() if c.get("target")):.1f} ms'
                     for kind, found in networks.items() if any(c.get('target') for c in found.values()))
    return '\n\n'.join([markdown('gradients alone, whole step', list(networks), rows),
                        f'Bare pass over both domains: {bare}.', origin(result)])


def classification(benchmark: str, task: str) -> str:
    """Return the rows of ``sim2real_da benchmark`` for one target, with gain and published figures."""
    rows, about = task_rows(benchmark, task)
    more = any(_mean(v['accuracy']) != _mean(v['accuracy_all']) for v in rows.values())
    lines = {}
    for row, values in rows.items():
        lines[row] = [percent(values, 'accuracy'), *([percent(values, 'accuracy_all')] if more else []),
                      _accuracy_gain(rows, row), f'{values["seconds"]["mean"]:.0f}',
                      str(PUBLISHED.get(task, {}).get(row, ''))]
    columns = ['accuracy, %', *(['of all 43 classes, %'] if more else []), 'gain', 'seconds', 'published, %']
    return markdown('row', columns, lines) + about if rows else UNMEASURED


def task_rows(benchmark: str, task: str) -> tuple[dict[str, Any], str]:
    """Return one target's rows in the tables' order, and the text under them.

    Rows may lie in several files, ``<benchmark>*.json``.

    :raises ValueError: when two files have the same row
    """
    rows: dict[str, Any] = {}
    where: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob(f'{benchmark}*.json')):
        result = read(path.stem)
        for row, values in result['tasks'].get(task, {}).items():
            if row in rows:
                raise ValueError(f'{path.name}: {task} {row} is in another file, too; expected every row once')
            rows[row], where[path.name] = values, result
    first = ('source_only', 'source_continued')
    order = [*(r for r in first if r in rows), *(r for r in rows if r not in (*first, 'target_only')),
             *(r for r in rows if r == 'target_only')]
    return {row: rows[row] for row in order}, '\n\n' + _origins(where, task)


def _origins(files: dict[str, dict[str, Any]], task: str) -> str:
    """Return seeds, steps and :func:`origin` of every file; of several, what their commands begin with once."""
    def about(result: dict[str, Any]) -> str:
        runs = len(next(iter(result['tasks'][task].values()))['runs'])
        return f'{runs} seed{"s" * (runs != 1)}, {result["source_steps"]} + {result["steps"]} steps'

    if len(files) == 1:
        ((name, result),) = files.items()
        return f'{name}: {about(result)}, {origin(result)}'
    begin = os.path.commonprefix([result['command'].split() for result in files.values()])
    while begin and begin[-1].startswith('--'):  # an option stays with its value
        begin.pop()
    rest = {name: {**result, 'command': ' '.join(['…', *result['command'].split()[len(begin):]])}
            for name, result in files.items()}
    lines = [f'- {name}: {about(result)}, {origin(result)}' for name, result in rest.items()]
    return '\n'.join([f'`{" ".join(begin)} …`:', '', *lines])


def crops(task: str) -> str:
    """Return the rows of the benchmark ``crops`` for one background, with PixelDA's own figures."""
    rows, about = task_rows('crops', task)
    if task.endswith('_labelled') and rows:  # the bound learns from all labels, here as in the table without any
        plain = task.split('_')[0]
        rows['target_only'] = task_rows('crops', plain)[0]['target_only']
        about += f'\n\n*target_only* is that of the task `{plain}`.'
    lines = {}
    for row, values in rows.items():
        published = PUBLISHED_CROPS.get(task, {}).get(row)
        lines[row] = [percent(values, 'accuracy'), _gain(rows, row, 'accuracy', LEAST_DISTANCE),
                      number('mean_angle_deg', values['mean_angle_deg']),
                      _gain(rows, row, 'mean_angle_deg', LEAST_ANGLE), f'{values["seconds"]["mean"]:.0f}',
                      '{}, {}{}'.format(*published) if published else '']
    columns = ['accuracy, %', 'gain', 'mean angle, deg', 'gain', 'seconds', 'published: %, deg']
    return markdown('row', columns, lines) + about if rows else UNMEASURED


def segmentation() -> str:
    """Return the rows of the benchmark ``segmentation``, with the IoU of background and the mean over objects."""
    rows, about = task_rows('segmentation', 'lmo')
    lines = {}
    for row, values in rows.items():
        background = np.mean([run['iou']['background'] for run in values['runs']])
        objects = [v for run in values['runs'] for name, v in run['iou'].items() if name != 'background']
        lines[row] = [percent(values, 'miou'), _gain(rows, row, 'miou', LEAST_DISTANCE), f'{100 * background:.1f}',
                      f'{100 * np.mean(objects):.1f}', f'{values["seconds"]["mean"]:.0f}']
    columns = ['mIoU, %', 'gain', 'background, %', 'objects, %', 'seconds']
    return markdown('row', columns, lines) + about if rows else UNMEASURED


def percent(row: dict[str, Any], key: str) -> str:
    """Return mean and standard deviation of a row's share as percentages; of a single run it is said."""
    value = row[key]
    spread = f'± {100 * value["std"]:.1f}' if len(row['runs']) > 1 else '(one seed)'
    return f'{100 * value["mean"]:.1f} {spread}'


def _accuracy_gain(rows: dict[str, Any], row: str) -> str:
    return _gain(rows, row, 'accuracy', LEAST_DISTANCE)


def _gain(rows: dict[str, Any], row: str, key: str, least: float) -> str:
    """Return the share of the way from the better control to target-only; of an angle less is better."""
    controls = [r for r in ('source_only', 'source_continued') if r in rows]
    if row in ('source_only', 'source_continued', 'target_only') or 'target_only' not in rows or not controls:
        return ''
    sign = -1 if key.endswith('deg') else 1
    base = max(sign * _mean(rows[r][key]) for r in controls)
    distance = sign * _mean(rows['target_only'][key]) - base
    if distance <= 0:
        return 'nothing to gain'
    if distance < least:
        amount = f'{distance:.1f} degrees' if sign < 0 else f'{100 * distance:.1f} points'
        return f'not reported ({amount} to gain)'
    return f'{100 * (sign * _mean(rows[row][key]) - base) / distance:.0f} %'


TABLES: dict[str, Callable[[], str]] = {
    'demo_surrogate': lambda: demo('surrogate'), 'demo_lmo': lambda: demo('lmo'),
    'lmo': lambda: adaptation('lmo'), 'lmo_single_frames': lambda: adaptation('lmo_single_frames'),
    'lmo_networks_alone': lambda: adaptation('lmo_networks_alone'),
    'lmo_proxy': lambda: adaptation('lmo_proxy'),
    'lmo_randomisation': randomisation, 'pose_representation': representation,
    'lmo_pose_errors': pose_errors, 'scene_labels': scene_labels,
    'digits_usps': lambda: classification('digits', 'usps'),
    'usps_long': lambda: classification('usps_long', 'usps'),
    'digits_mnistm': lambda: classification('digits', 'mnistm'),
    'signs': lambda: classification('signs', 'gtsrb'),
    'gtsrb_long': lambda: classification('gtsrb_long', 'gtsrb'), 'crops_black': lambda: crops('black'),
    'crops_black_labelled': lambda: crops('black_100_labelled'),
    'crops_black_unseen': lambda: crops('black_2_unseen'),
    'crops_photographs': lambda: crops('photographs'),
    'segmentation': segmentation, 'validators': validators, 'validators_runs': validators_runs,
    'objectives': costs, 'speed': speed, 'soak': soak, 'faults': faults,
    'grasps': grasps,
}


def filled(page: str) -> str:
    """Return a page with every table written anew.

    :raises KeyError: for a table that nobody makes
    """
    return re.sub(r'(<!-- table: (\w+) -->\n).*?(<!-- end -->)',
                  lambda match: f'{match[1]}{TABLES[match[2]]()}\n{match[3]}', page, flags=re.DOTALL)


def main() -> None:
    """Fill every page of the docs."""
    for path in sorted(DOCS.glob('*.md')):
        before = path.read_text(encoding='utf-8')
        after = filled(before)
        if after != before:
            path.write_text(after, encoding='utf-8')
            print(f'{path.name}: written')


if __name__ == '__main__':
    main()
