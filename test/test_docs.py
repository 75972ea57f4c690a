# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""README and docs name files, headings, commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim2real_da.cli import COMMANDS

REPO = Path(__file__).resolve().parent.parent
PAGES = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as they are made on the web."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if '://' in link:
            continue
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f'{page.name}: {link} does not exist'
        if anchor:
            there = anchors(target)
            assert anchor in there, f'{page.name}: {link}: no such heading, there are {sorted(there)}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    for command in re.findall(r'^(?:.*`)?sim2real_da (\w+)', text, re.MULTILINE):
        if command not in ('and', 'adapt', 'demo'):
            assert command in COMMANDS, f'{page.name}: sim2real_da {command}'
    targets = re.findall(r'^([\w-]+):', (REPO / 'Makefile').read_text(), re.MULTILINE)
    for target in re.findall(r'(?:^|`)make ([a-z-]+)', text, re.MULTILINE):
        assert target in targets, f'{page.name}: make {target}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_folders_and_files_named_exist(page: Path) -> None:
    for name in re.findall(r'`((?:config|launch|docs|tools|sim2real_da|test|benchmarks)/[\w./-]*)`', page.read_text()):
        assert (REPO / name).exists(), f'{page.name}: {name} does not exist'
