# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered set as a stream: validation and training share no scene, every frame comes, bad sets are named."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

import pytest
from helpers import box_model, rendered_set

from sim2real_da.data.bop import SCENE_STEP, BopDataset
from sim2real_da.data.folder import RenderedFrames

BOX = {'box': box_model('box')}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rendered_set(tmp_path / 'set', scenes=3, frames=4)


def test_validation_and_training_share_no_scene(folder: Path) -> None:
    for holdout, scenes in ((3, {2}), (4, {2}), (5, {1, 2})):
        found = RenderedFrames(folder, BOX, holdout)
        assert len(found.held_out_ids) == len(set(found.held_out_ids)) == len(found.held_out()) == holdout
        assert {i // SCENE_STEP for i in found.held_out_ids} <= scenes
        assert {i // SCENE_STEP for i in found.training_ids} == {0, 1, 2} - scenes
    assert all(frame.labels[0].name == 'box' for frame in found.held_out())


def test_every_frame_comes_before_any_comes_again(folder: Path) -> None:
    found = RenderedFrames(folder, BOX, 4, seed=1)
    stamps = [frame.frame.stamp for frame in islice(found.training(), 24)]
    for round_ in (stamps[:8], stamps[8:16], stamps[16:]):
        assert sorted(round_) == found.training_ids
    assert stamps[:8] != stamps[8:16], 'another order each time'
    again, other = RenderedFrames(folder, BOX, 4, seed=1), RenderedFrames(folder, BOX, 4, seed=2)
    assert [frame.frame.stamp for frame in islice(again.training(), 24)] == stamps
    assert [frame.frame.stamp for frame in islice(other.training(), 24)] != stamps


def test_frames_that_cannot_be_read_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, found = BopDataset(folder, 'train'), RenderedFrames(folder, BOX, 4)
    data.image_path(1).write_bytes(b'')
    with caplog.at_level(logging.WARNING):
        stamps = [frame.frame.stamp for frame in islice(found.training(), 21)]
    assert 1 not in stamps and set(stamps) == set(found.training_ids) - {1}
    assert len(caplog.records) == 1 and '000001.jpg: truncated' in caplog.text
    for frame_id in found.training_ids:
        data.image_path(frame_id).unlink()
    assert list(found.training()) == []


def test_sets_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        RenderedFrames(tmp_path / 'nowhere', BOX, 4)
    with pytest.raises(ValueError, match='shows box, which the model does not know; it knows mug, cup'):
        RenderedFrames(folder, ('mug', 'cup'), 4)
    with pytest.raises(ValueError, match='12 frames in 3 scenes.*expected 9 frames for validation.*render more'):
        RenderedFrames(folder, BOX, 9)
    (folder / 'train' / '000001' / 'scene_gt.json').unlink()
    with pytest.raises(ValueError, match='no ground truth'):
        RenderedFrames(folder, BOX, 4)
