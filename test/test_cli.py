# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, expected errors in one line, and a start without heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sim2real_da import benchmark
from sim2real_da.cli import COMMANDS, main
from sim2real_da.samples import ObjectModel

DIAMETER = 0.102  # metres; that of LineMOD's first object
ROWS = {name: {'ap50': 0.5, 'mean_angle_deg': 90.0} for name in ('source_only', 'source_continued', 'adapted')}


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sim2real_da.networks.bundle import Bundle

    rng, objects = np.random.default_rng(0), {}
    for name in ('obj_000001', 'obj_000002'):
        points = rng.normal(size=(50, 3)).astype(np.float32) * 0.03
        objects[name] = ObjectModel(name, points, points.min(axis=0), np.ptp(points, axis=0), DIAMETER)
    bundle = Bundle.create(objects)
    bundle.version, bundle.note = 7, 'untrained, for a test'
    return bundle.save(tmp_path_factory.mktemp('weights') / 'some.safetensors')


def test_help_lists_the_commands_without_importing_them():
    program = ("import sys; from sim2real_da.cli import main\n"
               "try: main(['--help'])\n"
               "except SystemExit: pass\n"
               "print([m for m in ('torch', 'mujoco', 'matplotlib', 'cv2') if m in sys.modules])")
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).resolve().parent.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, '--help'])
    assert left.value.code == 0
    assert COMMANDS[command][1] in ' '.join(capsys.readouterr().out.split())


def test_report(tmp_path):
    (tmp_path / 'summary.json').write_text(json.dumps(ROWS))
    assert main(['report', str(tmp_path)]) == 0
    assert (tmp_path / 'report.html').exists()


def test_expected_errors_are_one_line_and_status_2(tmp_path, capsys):
    assert main(['report', str(tmp_path / 'nothing')]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert 'summary.json: no such file' in said
    assert main(['weights', str(tmp_path / 'none.safetensors')]) == 2
    assert 'none.safetensors: no such weights file' in capsys.readouterr().err
    (tmp_path / 'text.safetensors').write_text('these are no weights')
    assert main(['weights', str(tmp_path / 'text.safetensors')]) == 2
    assert 'text.safetensors' in capsys.readouterr().err
    with pytest.raises(ValueError, match='no such file'):
        main(['--traceback', 'report', str(tmp_path / 'nothing')])


def test_weights_shows_the_manifest(weights, capsys):
    assert main(['weights', str(weights)]) == 0
    said = capsys.readouterr().out
    for text in ('checksum right', 'version:   7', 'untrained, for a test', 'obj_000001, obj_000002'):
        assert text in said
    assert main(['weights', '--json', str(weights)]) == 0
    assert json.loads(capsys.readouterr().out)['version'] == 7


def test_damaged_weights_are_refused(weights, tmp_path, capsys):
    data = bytearray(weights.read_bytes())
    data[-10] ^= 0xFF
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(data)
    assert main(['weights', str(broken)]) == 2
    assert 'checksum' in capsys.readouterr().err


@pytest.mark.parametrize('text, said', [('12 x7', "got 'x7'"), ('  \n', 'no frame ids'), (None, 'no such file')])
def test_bad_id_files(text, said, tmp_path):
    from sim2real_da.evaluation.command import read_ids

    path = tmp_path / 'ids.txt'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_ids(path)


def test_evaluate_on_photographs(lmo, weights, tmp_path, capsys):
    ids, out = tmp_path / 'ids.txt', tmp_path / 'out' / 'scores.json'
    ids.write_text('3\n')
    arguments = ['evaluate', '--weights', str(weights), '--data', str(lmo), '--ids', str(ids), '--json', str(out)]
    assert main(arguments) == 0
    assert 'AP50' in capsys.readouterr().out
    scores = json.loads(out.read_text())
    assert scores['frames'] == 1
    assert scores['version'] == 7
    assert scores['instances'] == len(scores['objects']) > 4
    ids.write_text('3 999999\n')
    assert main(arguments) == 2
    assert 'frame 999999 is not in' in capsys.readouterr().err


@pytest.mark.parametrize(('method', 'start'), [('dsn', 500), ('cogan', 1000)])
def test_a_benchmark_that_ends_before_its_technique_begins_is_refused(method, start, monkeypatch, capsys):
    monkeypatch.setitem(benchmark.BENCHMARKS, 'digits', lambda _: [SimpleNamespace(kind='classifier', name='usps')])
    assert main(['benchmark', 'digits', '--data', 'none', '--method', method, '--steps', str(start)]) == 2
    assert f'{method} starts at step {start}' in capsys.readouterr().err
