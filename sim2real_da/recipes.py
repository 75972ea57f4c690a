# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A recipe says which objectives each network is trained with, and how fast. Read from ``config/recipes/*.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sim2real_da.objectives import OBJECTIVES, Objective
from sim2real_da.recipe_options import check_options
from sim2real_da.resources import config_folder

NETWORKS = ('detector', 'pose', 'classifier')
SCHEDULES = ('cosine', 'dann')


class _Loader(yaml.SafeLoader):
    """YAML 1.1, which PyYAML reads, takes 1e-3 for a text; here it is the number that everybody means."""


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$'), list('-+0123456789'))


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
    :param frozen_statistics: networks whose batch normalisation keeps the running statistics that it begins with
    """

    learning_rate: float = 1e-3
    batch: int = 64
    warm_up: float = 0.0
    ema: float = 0.99
    averaged: bool = True
    schedule: str = 'cosine'
    frozen_statistics: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check every value."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f'schedule {self.schedule!r}: expected one of {SCHEDULES}')
        check_options(vars(self), Offline)
        if not set(self.frozen_statistics) <= set(NETWORKS):
            raise ValueError(f'frozen_statistics {self.frozen_statistics}: expected some of {NETWORKS}')
        if not 0 <= self.warm_up < 1:
            raise ValueError(f'warm_up {self.warm_up}: expected a share of the run, 0 to less than 1')
        if self.ema > 1:
            raise ValueError(f'ema {self.ema}: expected a share, 0 to 1')


@dataclass(frozen=True)
class Recipe:
    """Objectives by network, and the learner's pace.

    :param objectives: for each network a tuple of (objective name, options)
    :param offline: pace where the pictures are stored; the others are the online learner's
    :param offline_options: for each network and objective the options that differ there
    :param learning_rate: AdamW
    :param discriminator_rate: Adam of the objectives' own players
    :param ema: decay of the teacher, which is what gets published; its first step copies
    :param source_frames: simulated frames of a step
    :param target_frames: real frames of a step
    :param crops: crops of a step and domain
    :param target_crops: of real frames, where it is another number than of simulated ones
    :param annealing: steps that stand for progress 1 of DANN's learning-rate annealing; None: a constant rate
    :param warm_up: steps over which the rates rise from 0
    :param rare_classes: draw simulated frames by what they show, rare objects more often
    """

    name: str
    description: str = ''
    objectives: Mapping[str, tuple[tuple[str, dict[str, Any]], ...]] = field(default_factory=dict)
    offline: Offline = field(default_factory=Offline)
    offline_options: Mapping[str, Mapping[str, dict[str, Any]]] = field(default_factory=dict)
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-3
    ema: float = 0.999
    source_frames: int = 4
    target_frames: int = 4
    crops: int = 16
    target_crops: int | None = None
    annealing: int | None = None
    warm_up: int = 0
    rare_classes: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        check_options(vars(self), Recipe)
        if self.ema > 1:
            raise ValueError(f'ema {self.ema}: expected a share, 0 to 1')

    def looks_at_target(self, network: str) -> bool:
        """Return whether any objective of a network looks at target samples."""
        return any(OBJECTIVES[name].needs_target for name, _ in self.objectives.get(network, ()))

    def check_length(self, network: str, steps: int) -> None:
        """Refuse a run on stored crops or pictures that would end before an objective begins, or that has no frames.

        :raises RecipeError: naming the objective and its first step, or what it needs
        """
        for name, values in self.options(network, offline=True):
            if values.get('static_scene'):
                raise RecipeError(f'recipe {self.name}: {network}: static_scene wants frames of a camera (a robot, or '
                                  'adapt on BOP data); crops and pictures do not say from where they were taken')
            if values.get('start', 0) >= steps:
                raise RecipeError(f'recipe {self.name}: {name} starts at step {values["start"]}, but --steps {steps}: '
                                  'it would be the control under another name')

    def options(self, network: str, offline: bool) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return the objectives of a network with their options, online or for a run of known length."""
        own = self.offline_options.get(network, {}) if offline else {}
        return tuple((name, {**options, **own.get(name, {})}) for name, options in self.objectives.get(network, ()))

    def build(self, network: str, channels: tuple[int, ...], offline: bool = False) -> list[Objective]:
        """Return fresh objectives for one network.

        :param network: 'detector', 'pose' or 'classifier'
        :param channels: of its feature maps
        :param offline: whether they are for a run of known length
        :raises RecipeError: for an option that an objective does not have or cannot take, or a network the recipe does
            not train
        """
        if network not in self.objectives:
            raise RecipeError(f'recipe {self.name}: nothing for the {network}, only for {sorted(self.objectives)}')
        built = []
        for name, options in self.options(network, offline):
            try:
                check_options(options, OBJECTIVES[name])
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
        content = yaml.load(path.read_text(encoding='utf-8'), _Loader)  # noqa: S506 - a safe loader
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
    section, own = 'offline', _differing(path, content.get('offline'), objectives)
    try:
        offline = Offline(**{k: v for k, v in _mapping(content.get('offline')).items() if k not in NETWORKS})
        section = 'learner'
        return Recipe(path.stem, str(content.get('description', '')), objectives, offline,
                      own, **_mapping(content.get('learner')))
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
        options = _checked(path, network, name, entries[name])
        if network != 'detector' and 'instance' in (options.get('levels') or ()):
            raise RecipeError(f"recipe {path}: {network}: {name}: level 'instance' is the detector's; a picture or a "
                              'crop shows one thing, expected sample or location')
    return tuple((name, _mapping(options)) for name, options in entries.items())


def _differing(path: Path, offline: Any, objectives: Mapping[str, tuple[tuple[str, dict[str, Any]], ...]],
               ) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the options that the section ``offline`` gives to objectives of the networks."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for network in (n for n in NETWORKS if isinstance(offline, dict) and n in offline):
        known, entries = dict(objectives.get(network, ())), offline[network]
        if not isinstance(entries, dict) or not set(entries) <= set(known):
            raise RecipeError(f'recipe {path}: offline: {network}: {entries!r}: expected options for some of '
                              f'{sorted(known)}, the objectives that this network has')
        found[network] = {name: _checked(path, f'offline: {network}', name, own) for name, own in entries.items()}
    return found


def _checked(path: Path, where: str, name: str, options: Any) -> dict[str, Any]:
    try:
        options = _mapping(options)
        check_options(options, OBJECTIVES[name])
    except ValueError as error:
        raise RecipeError(f'recipe {path}: {where}: {name}: {error}') from error
    return dict(options)


def _mapping(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f'{options!r}: expected options by name')
    return dict(options)
