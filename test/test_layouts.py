# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""RViz and Foxglove layouts show topics, services and numbers that the nodes have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

REPO = Path(__file__).parent.parent
INTERFACES = (REPO / 'docs' / 'interfaces.md').read_text(encoding='utf-8')


def documented(topic: str) -> bool:
    """Whether docs/interfaces.md has a topic or service ``/node/name``."""
    node, _, name = topic.lstrip('/').partition('/')
    return f'`{topic}`' in INTERFACES or f'~/{name}`' in INTERFACES or f'`{node}/{name}`' in INTERFACES


def test_rviz() -> None:
    read = yaml.safe_load((REPO / 'config' / 'rviz' / 'sim2real_da.rviz').read_text(encoding='utf-8'))
    displays = read['Visualization Manager']['Displays']
    topics = [d['Topic']['Value'] for d in displays if 'Topic' in d]
    assert {'/perception/overlay', '/perception/markers', '/perception/poses'} <= set(topics)
    assert all(documented(topic) for topic in topics)
    assert all(d['Class'].startswith('rviz_default_plugins/') for d in displays)


def test_foxglove() -> None:
    text = (REPO / 'config' / 'foxglove' / 'sim2real_da.json').read_text(encoding='utf-8')
    read = json.loads(text)
    named = set(re.findall(r'"(/(?:perception|adaptation)/\w+|/diagnostics)', text))
    assert {'/perception/overlay', '/adaptation/status', '/adaptation/pause', '/diagnostics'} <= named
    assert all(documented(name) or name == '/diagnostics' for name in named)

    def panels(part: object) -> set[str]:
        return {part} if isinstance(part, str) else panels(part['first']) | panels(part['second'])  # type: ignore[index]

    assert panels(read['layout']) == set(read['configById'])
    curves = re.findall(r'key==\\"(\S+?)\\"', text)
    gate = (REPO / 'sim2real_da' / 'online' / 'session.py').read_text() + (
        REPO / 'sim2real_da' / 'online' / 'gate.py').read_text()
    assert len(curves) == 3 and all(curve.split('/')[1].split('_')[0] in gate for curve in curves)
