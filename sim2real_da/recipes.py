# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe says which objectives each network is trained with, and how fast. Read from ``config/recipes/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sim2real_da.objectives import OBJECTIVES, Objective
from sim2real_da.resources import config_folder

NETWORKS = ('detector', 'pose')


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file and what was expected."""


@dataclass(frozen=True)
class Recipe:
    """Objectives by network, and the learner's pace.

    :param objectives: for each network a tuple of (objective name, options)
    :param learning_rate: AdamW
    :param discriminator_rate: Adam of the objectives' own players
    :param ema: decay of the teacher, which is what gets published; its first step copies
    :param source_frames: simulated frames of a step
    :param target_frames: real frames of a step
    :param crops: crops of a step and domain
    """

    name: str
    description: str = ''
    objectives: Mapping[str, tuple[tuple[str, dict[str, Any]], ...]] = field(default_factory=dict)
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-3
    ema: float = 0.999
    source_frames: int = 4
    target_frames: int = 4
    crops: int = 16

    def build(self, network: str, channels: tuple[int, ...]) -> list[Objective]:
        """Return fresh objectives for one network.

        :param network: 'detector' or 'pose'
        :param channels: of its feature maps
        :raises RecipeError: for an option that an objective does not have
        """
        built = []
        for name, options in self.objectives[network]:
            try:
                built.append(OBJECTIVES[name](channels, **options))
            except TypeError as error:
                raise RecipeError(f'recipe {self.name}: {network}: {name}: {error}') from error
        return built


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by its name (a file of config/recipes) or by the path of a YAML file.

    :raises RecipeError: no such recipe, not YAML, an unknown objective, network or key
    """
    path = Path(name)
    if path.suffix not in ('.yaml', '.yml'):
        path = config_folder() / 'recipes' / f'{name}.yaml'
    if not path.is_file():
        known = sorted(p.stem for p in (config_folder() / 'recipes').glob('*.yaml'))
        raise RecipeError(f'recipe {name}: no file {path}; the package has {known}')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise RecipeError(f'recipe {path}: not YAML: {error}') from error
    if not isinstance(content, dict):
        raise RecipeError(f'recipe {path}: expected a mapping with the keys description, detector, pose, learner')
    unknown = set(content) - {'description', 'learner', *NETWORKS}
    if unknown:
        raise RecipeError(
            f'recipe {path}: unknown keys {sorted(unknown)}, expected description, detector, pose, learner')
    objectives = {network: _objectives(path, network, content.get(network)) for network in NETWORKS}
    learner = content.get('learner') or {}
    try:
        return Recipe(path.stem, str(content.get('description', '')), objectives, **learner)
    except TypeError as error:
        raise RecipeError(f'recipe {path}: learner: {error}') from error


def _objectives(path: Path, network: str, entries: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    if not isinstance(entries, dict) or 'supervised' not in entries:
        raise RecipeError(f'recipe {path}: {network}: expected objectives by name, supervised among them')
    for name in entries:
        if name not in OBJECTIVES:
            raise RecipeError(
                f'recipe {path}: {network}: unknown objective {name!r}, expected one of {sorted(OBJECTIVES)}')
    return tuple((name, dict(options or {})) for name, options in entries.items())
