# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered set as a stream of labelled simulation: validation frames from scenes of their own, the rest for ever."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from sim2real_da.data.bop import BopDataset
from sim2real_da.samples import LabelledFrame

LOG = logging.getLogger(__name__)


def labelled_set(folder: Path, split: str, classes: Collection[str]) -> BopDataset:
    """Return a BOP data set that has labels, all of classes that the model knows.

    :raises FileNotFoundError: when there is no such set
    :raises ValueError: when it has no ground truth, or shows other classes
    """
    dataset = BopDataset(folder, split)
    if not dataset.has_ground_truth:
        raise ValueError(f'{folder}: no ground truth (scene_gt.json); expected labelled frames, such as '
                         'a set written by sim2real_da render')
    if unknown := dataset.classes() - set(classes):
        raise ValueError(f'{folder}: shows {", ".join(sorted(unknown))}, which the model does not know; it knows '
                         f'{", ".join(classes)}. Take frames of its objects, or weights trained on these')
    return dataset


class RenderedFrames:
    """Frames of a set written by ``sim2real_da render``, in an order given by the seed.

    :param classes: what the model knows
    :param holdout: number of validation frames; they come from the last scenes, which are not trained on
    :raises FileNotFoundError: when there is no such set
    :raises ValueError: when it has no ground truth, other classes, or too few scenes to set some apart
    """

    def __init__(self, folder: Path, classes: Collection[str], holdout: int, seed: int = 0) -> None:
        self._dataset = labelled_set(folder, 'train', classes)
        scenes = self._dataset.scenes()
        count = len(scenes)
        apart: list[int] = []
        while scenes and len(apart) < holdout:
            apart += scenes.pop()
        if len(apart) < holdout or not scenes:
            frames = len(self._dataset.ids())
            raise ValueError(f'{folder}: {frames} frames in {count} scenes (of up to 100 frames), expected {holdout} '
                             'frames for validation in scenes apart from those to train on; render more, or set '
                             'holdout lower')
        self._rng = np.random.default_rng([seed, 2])
        self.held_out_ids = [apart[i] for i in self._rng.permutation(len(apart))[:holdout]]
        self.training_ids = [frame_id for scene in scenes for frame_id in scene]

    def diameters(self) -> dict[str, float]:
        """Return :meth:`.BopDataset.diameters`."""
        return self._dataset.diameters()

    def held_out(self) -> list[LabelledFrame]:
        """Read the frames for validation.

        :raises ValueError: when one of them cannot be read
        """
        return [self._dataset.frame(frame_id) for frame_id in self.held_out_ids]

    def training(self) -> Iterator[LabelledFrame]:
        """Yield frames to train on: all of them before any comes again; what cannot be read is named and left out."""
        usable = list(self.training_ids)
        while usable:
            for frame_id in [usable[i] for i in self._rng.permutation(len(usable))]:
                try:
                    frame = self._dataset.frame(frame_id)
                except (ValueError, OSError) as error:
                    LOG.warning('left out from now on: %s', error)
                    usable.remove(frame_id)
                else:
                    yield frame
