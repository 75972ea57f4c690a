# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The table of docs/benchmarks.md from the summaries of `make demo` runs: ``python benchmarks/demo_table.py``.

``benchmarks/results/demo_<data>_<seed>.json`` is a run's ``demo_output/summary.json``, unchanged.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / 'results'
ROWS = ('source_only', 'source_continued', 'adapted')
COLUMNS = {'ap50': 'AP50', 'recall': 'recall', 'mean_angle_deg': 'mean angle, deg',
           'mean_angle_matched_deg': 'matched, deg', 'mean_position_m': 'mean position, m'}


def table(data: str) -> str:
    """Return the markdown table of one data set: mean and, with several runs, the range over them.

    :raises FileNotFoundError: when there is no run
    """
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in sorted(RESULTS.glob(f'demo_{data}_*.json'))]
    if not runs:
        raise FileNotFoundError(f'{RESULTS}: no demo_{data}_*.json; copy a run\'s summary.json there')
    lines = [f'| {data}, {len(runs)} run(s) | ' + ' | '.join(COLUMNS.values()) + ' |',
             '|---' * (len(COLUMNS) + 1) + '|']
    for row in ROWS:
        cells = []
        for key in COLUMNS:
            values = [run[row][key] for run in runs]
            digits = 1 if key.endswith('deg') else 3
            spread = f' ({min(values):.{digits}f} to {max(values):.{digits}f})' if len(values) > 1 else ''
            cells.append(f'{np.mean(values):.{digits}f}{spread}')
        lines.append(f'| {row} | ' + ' | '.join(cells) + ' |')
    run = runs[0]
    lines += ['', f'{run["frames_scored"]} scoring frames; recipe {run["recipe"]}; '
              f'{", ".join(str(r["promotions"]) for r in runs)} promotions; '
              f'{", ".join(str(round(r["seconds"])) for r in runs)} s; {run["hardware"]}; '
              f'commits {", ".join(sorted({r["commit"][:7] for r in runs}))}']
    return '\n'.join(lines)


if __name__ == '__main__':
    print('\n\n'.join(table(data) for data in ('surrogate', 'lmo')))
