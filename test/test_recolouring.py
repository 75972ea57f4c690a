# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Colours change on the object and around it, each by itself, and the outline stays where it was."""

import numpy as np
import pytest

from sim2real_da.data import recolouring
from sim2real_da.data.recolouring import recoloured

CROP = np.random.default_rng(0).integers(90, 130, (48, 48, 3)).astype(np.uint8)
MASK = np.zeros((48, 48), np.uint8)
MASK[12:36, 10:40] = 255
ON = MASK > 0


def test_the_object_and_its_surroundings_change_by_themselves():
    seen = set()
    for seed in range(100):
        changed = recoloured(CROP, MASK, np.random.default_rng(seed))
        assert changed.shape == CROP.shape and changed.dtype == np.uint8
        seen.add((bool((changed[ON] != CROP[ON]).any()), bool((changed[~ON] != CROP[~ON]).any())))
    assert seen == {(False, False), (True, False), (False, True), (True, True)}


def test_colours_differ_from_place_to_place_of_one_plain_object(monkeypatch):
    monkeypatch.setattr(recolouring, 'OFTEN', 1.0)
    plain = np.full((48, 48, 3), 100, np.uint8)
    spreads = [recoloured(plain, MASK, np.random.default_rng(seed))[ON].astype(float).std(axis=0).max()
               for seed in range(50)]
    assert min(spreads) > 3 and max(spreads) > 30
    around = recoloured(plain, MASK, np.random.default_rng(0))[~ON]
    assert (around == 100).all(), 'what has no contrast keeps its colour'


def test_contrast_is_around_the_weighted_mean():
    stripes = np.zeros((4, 4, 3), np.float32)
    stripes[:, :2], stripes[:, 2:] = 10, 30
    share = np.ones((4, 4, 1), np.float32)
    share[:, 3] = 0  # a third of what counts is light: mean 50/3
    wider = recolouring._contrast(stripes, share, np.log(3))
    assert wider[0, 0, 0] == pytest.approx(50 / 3 - 3 * (50 / 3 - 10)) and wider[0, 2, 0] == pytest.approx(170 / 3)


def test_an_object_that_is_nowhere_to_be_seen_changes_nothing_of_itself(monkeypatch):
    monkeypatch.setattr(recolouring, 'CONTRAST_AROUND', (0.0, 0.0))
    for seed in range(20):
        np.testing.assert_array_equal(recoloured(CROP, np.zeros_like(MASK), np.random.default_rng(seed)), CROP)
