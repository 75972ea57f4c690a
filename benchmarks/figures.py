# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Draw the figures of the docs from the JSON files in ``benchmarks/results``: ``python benchmarks/figures.py``.

``figures_*.json`` (of ``sim2real_da benchmark --figures``): translated pictures beside their nearest target pictures,
and features before and after. Result files of digits, signs and crops: the discriminators' accuracy over the steps of
seed 0. ``lmo_calibration.json`` (of ``sim2real_da calibrate``): predicted and observed errors.
"""

from __future__ import annotations

import json
from pathlib import Path

from sim2real_da.evaluation import calibration, neighbours
from sim2real_da.evaluation.embedding import accuracy_curves, draw_accuracy, draw_embedding

HERE = Path(__file__).parent
RESULTS = HERE / 'results'
IMAGES = HERE.parent / 'docs' / 'images'


def main(results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw every figure; return the files."""
    made = []
    for path in sorted(results.glob('figures_*.json')):
        for task, methods in json.loads(path.read_text(encoding='utf-8'))['tasks'].items():
            for method, found in methods.items():
                made.append(images / f'embedding_{task}_{method}.png')
                draw_embedding(found['embedding']['before'], found['embedding']['after'], made[-1])
                if 'neighbours' in found:
                    made.append(images / f'neighbours_{task}_{method}.png')
                    neighbours.draw(found['neighbours'], made[-1])
    courses: dict[str, dict[str, list[dict[str, float]]]] = {}
    for benchmark in ('digits', 'usps_long', 'signs', 'gtsrb_long', 'crops'):
        for path in sorted(results.glob(f'{benchmark}*.json')):
            for task, rows in json.loads(path.read_text(encoding='utf-8'))['tasks'].items():
                for method, row in rows.items():
                    if accuracy_curves(row['runs'][0]['course']):
                        name = benchmark if benchmark.endswith('_long') else task
                        courses.setdefault(name, {})[method] = row['runs'][0]['course']
    for task, histories in courses.items():
        made.append(images / f'discriminators_{task}.png')
        draw_accuracy(histories, made[-1])
    fitted = results / 'lmo_calibration.json'
    if fitted.is_file():
        found = json.loads(fitted.read_text(encoding='utf-8'))
        made.append(images / 'calibration.png')
        calibration.draw(found['before'], found['after'], made[-1])
    return made


if __name__ == '__main__':
    for file in main():
        print(file.relative_to(HERE.parent))
