# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da``: render, train, evaluate, calibrate and report without ROS.

Only what a command needs is imported when it runs: torch and MuJoCo take seconds. A command lives in a module with
``add_arguments(parser)`` and ``run(options)``; an error that a user can mend is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

# command: (module with add_arguments and run, what it does)
COMMANDS = {
    'models': ('sim2real_da.simulation.models', 'make a models folder for the other commands from CAD meshes'),
    'render': ('sim2real_da.simulation.render', 'write labelled simulated frames in BOP layout'),
    'adapt': ('sim2real_da.adapt', 'adapt to unlabelled pictures: folders of classes, .npz files or BOP data'),
    'translate': ('sim2real_da.networks.translation', 'give a rendered set the look that a trained generator makes'),
    'train': ('sim2real_da.training', 'train source models from rendered frames'),
    'average': ('sim2real_da.networks.averaging', 'make one weights file of several trainings with a common start'),
    'evaluate': ('sim2real_da.evaluation.command', 'score weights on a data set with ground truth'),
    'calibrate': ('sim2real_da.evaluation.calibration', 'make the covariances of poses as large as their errors are'),
    'benchmark': ('sim2real_da.benchmark', 'measure techniques in rows, over seeds'),
    'report': ('sim2real_da.evaluation.report', "write report.html from the files of a run's folder"),
    'export': ('sim2real_da.networks.export', 'write the networks as ONNX files for other runtimes'),
    'weights': ('sim2real_da.networks.describe', 'show what a weights file says about itself'),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog='sim2real_da', description='Sim-to-real domain adaptation, the parts without '
                                     'ROS. The nodes start with `ros2 launch sim2real_da adapt.launch.py`.')
    parser.add_argument('--version', action='version', version=f'%(prog)s {_version()}')
    parser.add_argument('--traceback', action='store_true', help='show where an error came from')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    wanted = next((a for a in arguments if not a.startswith('-')), None)
    run = None
    try:
        for name, (module_name, help_line) in COMMANDS.items():
            sub = commands.add_parser(name, help=help_line, description=help_line)
            if name == wanted:
                module = importlib.import_module(module_name)
                module.add_arguments(sub)
                run = module.run
        options = parser.parse_args(arguments)
        assert run is not None  # argparse has left for anything but a command
        logging.basicConfig(level=logging.INFO, format='%(message)s')
        _check(options)
        run(options)
    except ModuleNotFoundError as error:
        if '--traceback' in arguments or (error.name or '').startswith('sim2real_da'):
            raise
        return _fail(f'the Python package {error.name} is missing; install it (requirements.txt) or run `make setup`')
    except (ValueError, OSError) as error:
        if '--traceback' in arguments:
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what no command can use, before any work is done.

    :raises ValueError: naming the option
    """
    if (seed := getattr(options, 'seed', 0)) < 0:
        raise ValueError(f'--seed {seed}: expected 0 or more')
    if (threads := getattr(options, 'threads', 0)) < 0:
        raise ValueError(f'--threads {threads}: expected 0 (as torch chooses) or more')
    if (device := getattr(options, 'device', 'cpu')) != 'cpu':
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f'--device {device}: {str(error).splitlines()[0]}') from error


def _fail(message: str) -> int:
    print(f'sim2real_da: {" ".join(message.split())}', file=sys.stderr)
    return 2


def _version() -> str:
    from sim2real_da import __version__

    return __version__


if __name__ == '__main__':
    sys.exit(main())
