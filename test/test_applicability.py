# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The table of docs/techniques.md and the code agree on what applies to which network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import box_model

from sim2real_da.networks.bundle import Bundle
from sim2real_da.objectives import OBJECTIVES
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import RecipeError, load_recipe

REPO = Path(__file__).resolve().parent.parent
NETWORKS = ('classifier', 'pose', 'detector')


def table() -> dict[str, list[str]]:
    """Return for every objective its cells: classifier, pose network, detector, online."""
    text = (REPO / 'docs' / 'techniques.md').read_text()
    section = text.split('## What applies where')[1].split('\n## ')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in section.splitlines() if line[:1] == '|']
    return {name: row[2:] for row in rows[2:] if 'backbone' not in row[1] for name in re.findall(r'`(\w+)`', row[1])}


def test_every_objective_is_in_the_table_and_nothing_else():
    assert set(table()) == set(OBJECTIVES) - {'supervised'}


@pytest.mark.parametrize('name', sorted(set(OBJECTIVES) - {'supervised'}))
def test_networks_are_those_of_the_table(name):
    cells = table()[name]
    assert {n for n, cell in zip(NETWORKS, cells) if cell.startswith('yes')} == set(OBJECTIVES[name].networks)
    assert all(cell.startswith(('yes', 'no')) for cell in cells[:3])


def test_online_objectives_stand_in_a_recipe_for_both_networks():
    recipes = [load_recipe(path) for path in sorted((REPO / 'config' / 'recipes').glob('*.yaml'))]
    both = {name for recipe in recipes if {'detector', 'pose'} <= set(recipe.objectives)
            for network in ('detector', 'pose') for name, _ in recipe.objectives[network]}
    assert {name for name, cells in table().items() if cells[3] == 'yes'} <= both


@pytest.mark.parametrize('name', ['dsn', 'pixelda', 'cycada'])
def test_what_cannot_learn_online_is_refused_there(tmp_path, name):
    path = tmp_path / 'own.yaml'
    path.write_text(f'detector: {{supervised: }}\npose: {{supervised: , {name}: }}')
    small = {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16}
    bundle = Bundle.create({'box': box_model('box')}, *small)
    with pytest.raises(RecipeError, match='learns on stored pictures '):
        Learner(bundle, load_recipe(path))


def test_online_is_what_the_table_says():
    assert {name for name, cells in table().items() if cells[3] == 'no'} == {
        name for name, made in OBJECTIVES.items() if not made.online}
    generator = 'its generator, frozen'
    assert [name for name, cells in table().items() if cells[3] == generator] == ['pixelda']


def test_an_objective_on_a_network_that_it_is_not_for_is_refused(tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('classifier: {supervised: , class_mix: }')
    with pytest.raises(RecipeError, match='classifier: class_mix is made for pose, detector'):
        load_recipe(path)
