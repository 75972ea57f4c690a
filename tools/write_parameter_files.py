# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Write config/<node>.yaml and the parameters in docs/interfaces.md from the nodes' parameter tables.

``python tools/write_parameter_files.py`` (needs ROS 2)
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from sim2real_da.nodes.node import COMMON, ManagedNode, Parameter, parameter_file
from sim2real_da.resources import config_folder

NODES = ('perception', 'adaptation', 'simulator', 'camera', 'evaluator', 'recorder')
DOCUMENT = Path(__file__).resolve().parent.parent / 'docs' / 'interfaces.md'
BEGIN, END = '<!-- parameters: written by tools/write_parameter_files.py -->\n', '<!-- end of parameters -->\n'


def tables() -> dict[str, tuple[Parameter, ...]]:
    """Return each node's parameter table, without the parameters all nodes have."""
    result = {}
    for name in NODES:
        module = importlib.import_module(f'sim2real_da.nodes.{name}')
        node = next(value for value in vars(module).values() if inspect.isclass(value)
                    and issubclass(value, ManagedNode) and value.__module__ == module.__name__)
        result[name] = node.PARAMETERS
    return result


def texts() -> dict[str, str]:
    """Return the text of each node's parameter file."""
    return {name: parameter_file(table) for name, table in tables().items()}


def document(text: str) -> str:
    """Return the text of docs/interfaces.md with the parameters in their place.

    :raises ValueError: when the marks are not in the text
    """
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    parts = []
    for name, table in {**tables(), 'all nodes': COMMON}.items():
        parts.append(f'### {name}\n| parameter | default | | |\n|---|---|---|---|\n')
        for p in table:
            notes = (p.limits().replace('|', 'or'), '*live*' if p.live else '', '*fixed*' if p.path else '')
            limits = ', '.join(note for note in notes if note)
            default = str(p.default).lower() if isinstance(p.default, bool) else p.default
            shown = '' if default == '' else f'`{default}`'
            parts.append(f'| `{p.name}` | {shown} | {p.text.replace("|", "or")} | {limits} |\n')
        parts.append('\n')
    return before + BEGIN + ''.join(parts) + END + after


if __name__ == '__main__':
    for name, text in texts().items():
        (config_folder() / f'{name}.yaml').write_text(text, encoding='utf-8')
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding='utf-8')), encoding='utf-8')
