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

NETWORKS = ('detector', 'pose', 'classifier')
SCHEDULES = ('cosine', 'dann')


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file and what was expected."""


@dataclass(frozen=True)
class Offline:
    """Pace of adaptation on stored pictures, where nothing has to keep up with a camera.

    :param learning_rate: AdamW, falling by the schedule
    :param schedule: 'cosine', half a wave down to 0, or 'dann', DANN's annealing mu_p
    :param batch: pictures of a step and domain
    :param warm_up: share of the run over which the rate rises from 0
    :param ema: decay of the averaged teacher
    :param averaged: whether the teacher is the result, as it is online; else the network itself
    """

    learning_rate: float = 1e-3
    batch: int = 64
    warm_up: float = 0.0
    ema: float = 0.99
    averaged: bool = True
    schedule: str = 'cosine'

    def __post_init__(self) -> None:
        """Check what has few values."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f'schedule {self.schedule!r}: expected one of {SCHEDULES}')
        if not 0 <= self.warm_up < 1:
            raise ValueError(f'warm_up {self.warm_up}: expected a share of the run, 0 to less than 1')


@dataclass(frozen=True)
class Recipe:
    """Objectives by network, and the learner's pace.

    :param objectives: for each network a tuple of (objective name, options)
    :param offline: pace where the pictures are stored; the others are the online learner's
    :param learning_rate: AdamW
    :param discriminator_rate: Adam of the objectives' own players
    :param ema: decay of the teacher, which is what gets published; its first step copies
    :param source_frames: simulated frames of a step
    :param target_frames: real frames of a step
    :param crops: crops of a step and domain
    :param annealing: steps that stand for progress 1 of DANN's learning-rate annealing; None: a constant rate
    :param warm_up: steps over which the rates rise from 0
    :param rare_classes: draw simulated frames by what they show, rare objects more often
    """

    name: str
    description: str = ''
    objectives: Mapping[str, tuple[tuple[str, dict[str, Any]], ...]] = field(default_factory=dict)
    offline: Offline = field(default_factory=Offline)
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-3
    ema: float = 0.999
    source_frames: int = 4
    target_frames: int = 4
    crops: int = 16
    annealing: int | None = None
    warm_up: int = 0
    rare_classes: bool = False

    def __post_init__(self) -> None:
        """Check what has few values."""
        if self.annealing is not None and self.annealing < 1:
            raise ValueError(f'annealing {self.annealing}: expected a number of steps')

    def looks_at_target(self, network: str) -> bool:
        """Return whether any objective of a network looks at target samples."""
        return any(OBJECTIVES[name].needs_target for name, _ in self.objectives.get(network, ()))

    def check_length(self, network: str, steps: int) -> None:
        """Refuse a run that would end before an objective begins.

        :raises RecipeError: naming the objective and its first step
        """
        for name, values in self.objectives.get(network, ()):
            if values.get('start', 0) >= steps:
                raise RecipeError(f'recipe {self.name}: {name} starts at step {values["start"]}, but --steps {steps}: '
                                  'it would be the control under another name')

    def build(self, network: str, channels: tuple[int, ...]) -> list[Objective]:
        """Return fresh objectives for one network.

        :param network: 'detector', 'pose' or 'classifier'
        :param channels: of its feature maps
        :raises RecipeError: for an option that an objective does not have or cannot take, or a network the recipe does
            not train
        """
        if network not in self.objectives:
            raise RecipeError(f'recipe {self.name}: nothing for the {network}, only for {sorted(self.objectives)}')
        built = []
        for name, options in self.objectives[network]:
            try:
                built.append(OBJECTIVES[name](channels, **options))
            except (TypeError, ValueError) as error:
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
        raise RecipeError(f'recipe {path}: expected a mapping with the keys description, learner and '
                          'detector, pose or classifier')
    unknown = set(content) - {'description', 'learner', 'offline', *NETWORKS}
    if unknown:
        raise RecipeError(
            f'recipe {path}: unknown keys {sorted(unknown)}, expected description, learner, offline and detector, '
            'pose or classifier')
    objectives = {network: _objectives(path, network, content[network]) for network in NETWORKS if network in content}
    if not objectives:
        raise RecipeError(f'recipe {path}: no objectives; expected a key detector, pose or classifier')
    section = 'offline'
    try:
        offline = Offline(**(content.get('offline') or {}))
        section = 'learner'
        return Recipe(path.stem, str(content.get('description', '')), objectives, offline,
                      **(content.get('learner') or {}))
    except (TypeError, ValueError) as error:
        raise RecipeError(f'recipe {path}: {section}: {error}') from error


def _objectives(path: Path, network: str, entries: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    if not isinstance(entries, dict) or 'supervised' not in entries:
        raise RecipeError(f'recipe {path}: {network}: expected objectives by name, supervised among them')
    for name in entries:
        if name not in OBJECTIVES:
            raise RecipeError(
                f'recipe {path}: {network}: unknown objective {name!r}, expected one of {sorted(OBJECTIVES)}')
        if network not in OBJECTIVES[name].networks:
            raise RecipeError(f'recipe {path}: {network}: {name} is made for {", ".join(OBJECTIVES[name].networks)}')
        needed = OBJECTIVES[name].beside
        if needed and needed not in entries:
            raise RecipeError(f'recipe {path}: {network}: {name} does nothing without {needed}; expected it beside it')
    return tuple((name, dict(options or {})) for name, options in entries.items())
