# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Digits and signs: classifiers of small pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sim2real_da.data.digits import load_digits, photographs
from sim2real_da.data.pictures import Pictures
from sim2real_da.data.signs import real_signs, synthetic_signs, templates
from sim2real_da.evaluation.classification import accuracy
from sim2real_da.networks.classifier import Classifier
from sim2real_da.networks.classifier_weights import load_classifier, save_classifier
from sim2real_da.offline import Adapted, adapt
from sim2real_da.recipes import Recipe
from sim2real_da.tasks.base import Task, fingerprint, labelled_rows
from sim2real_da.tasks.figures import figures

SIGN_COUNT, SIGN_SIZE = 20000, 32


class PictureTask(Task):
    """Pictures of classes.

    :param target: training split, labelled for target_only alone
    :param test: scored at the end
    :param labelled: so many target pictures show their labels to every row (semi-supervised)
    :param options: keyword arguments of the classifier
    """

    kind = 'classifier'
    metrics = ('accuracy', 'accuracy_all')

    def __init__(self, name: str, source_name: str, source: Pictures, target: Pictures, test: Pictures,
                 device: str = 'cpu', labelled: int = 0, **options: Any) -> None:
        super().__init__(name, f'{source_name}_{fingerprint(source.images)}',
                         f'{labelled}_labelled' if labelled else '')
        self.source, self.target, self.test, self.device, self.options = source, target, test, device, options
        self.known = self._of_source(target)
        self.labelled = None
        if labelled:
            chosen = labelled_rows(len(self.known), labelled)
            self.labelled = self.known[chosen]

    def network(self, seed: int) -> Classifier:
        """Return an untrained classifier."""
        torch.manual_seed(seed)
        return Classifier(len(self.source.names), names=self.source.names, **self.options).to(self.device)

    def pretrain(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Classifier]:
        """Train on the source alone."""
        assert isinstance(network, Classifier)
        return adapt(network, recipe, self.source, None, steps, seed)

    def adapt(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Classifier]:
        """Train; the target is a bare array, no objective can read a label of it."""
        assert isinstance(network, Classifier)
        return adapt(network, recipe, self.source, self.target.images, steps, seed, self.labelled)

    def supervise(self, network: nn.Module, recipe: Recipe, steps: int, seed: int) -> Adapted[Classifier]:
        """Train on labelled target pictures of the source's classes, by the source's class numbers."""
        assert isinstance(network, Classifier)
        return adapt(network, recipe, self.known, None, steps, seed)

    def _of_source(self, pictures: Pictures) -> Pictures:
        """Return the pictures of the source's classes, by the source's class numbers."""
        labels = self.numbers(pictures)
        return Pictures(pictures.images[labels >= 0], labels[labels >= 0], self.source.names)

    def numbers(self, pictures: Pictures) -> NDArray[np.int64]:
        """Return labels as the source's class numbers, -1 where it has no such class."""
        assert pictures.labels is not None
        names = self.source.names
        return np.array([names.index(n) if n in names else -1 for n in pictures.names])[pictures.labels]

    def figures(self, before: nn.Module, made: Adapted[nn.Module]) -> dict[str, Any]:
        """Return what figures show; classes that the source does not have are left out."""
        return figures(before, made, self.source, self.target.images, self._of_source(self.test))

    def score(self, network: nn.Module) -> dict[str, Any]:
        """Return :func:`.classification.accuracy`."""
        assert isinstance(network, Classifier)
        return accuracy(network, self.test)

    def save(self, path: Path, network: nn.Module, recipe: str, note: str = '', created: dict[str, Any] | None = None,
             half: bool = False) -> None:
        """Write a classifier's weights file."""
        assert isinstance(network, Classifier)
        save_classifier(path, network, recipe, note, created, half)

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """Return a classifier and its manifest."""
        return load_classifier(path, self.device)


def digits(options: argparse.Namespace) -> list[Task]:
    """Return MNIST -> USPS and MNIST -> MNIST-M."""
    source = load_digits(options.data, 'mnist', 'train')
    return [PictureTask(name, 'mnist', source, load_digits(options.data, name, 'train'),
                        load_digits(options.data, name, 'test'), options.device, options.labelled, size=28,
                        channels=(16, 32))
            for name in ('usps', 'mnistm')]


def signs(options: argparse.Namespace) -> list[Task]:
    """Return synthetic signs -> GTSRB; target_only learns from the classes that have a template."""
    photos = photographs(options.photos or options.data.parent / 'digits' / 'bsds', 'train')
    source = synthetic_signs(templates(options.data), photos, SIGN_COUNT).resized(SIGN_SIZE)
    real = {split: real_signs(options.data, split).resized(SIGN_SIZE) for split in ('train', 'test')}
    return [PictureTask('gtsrb', 'signs', source, real['train'], real['test'], options.device, options.labelled,
                        size=SIGN_SIZE, channels=(16, 32, 64))]
