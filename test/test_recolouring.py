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
OTHER = np.full((30, 40, 3), (10, 200, 60), np.uint8)


def test_the_object_and_its_surroundings_change_by_themselves():
    seen = set()
    for seed in range(100):
        changed = recoloured(CROP, MASK, OTHER, np.random.default_rng(seed))
        assert changed.shape == CROP.shape and changed.dtype == np.uint8
        seen.add((bool((changed[ON] != CROP[ON]).any()), bool((changed[~ON] != CROP[~ON]).any())))
    assert seen == {(False, False), (True, False), (False, True), (True, True)}


def test_colours_differ_from_place_to_place_of_one_plain_object(monkeypatch):
    monkeypatch.setattr(recolouring, 'OFTEN', 1.0)
    plain = np.full((48, 48, 3), 100, np.uint8)
    spreads = [recoloured(plain, MASK, plain, np.random.default_rng(seed))[ON].astype(float).std(axis=0).max()
               for seed in range(50)]
    assert min(spreads) > 3 and max(spreads) > 30


def test_surroundings_are_another_picture_in_its_own_colour_or_the_objects(monkeypatch):
    monkeypatch.setattr(recolouring, 'CONTRAST_ON', (0.0, 0.0))
    monkeypatch.setattr(recolouring, 'LIGHTER', 0.0)
    monkeypatch.setattr(recolouring, 'TINTED', 0.0)
    plain, kinds = np.full((48, 48, 3), 100, np.uint8), set()
    for seed in range(60):
        changed = recoloured(plain, MASK, OTHER, np.random.default_rng(seed))
        assert (changed[ON] == 100).all() and (changed[~ON] == changed[0, 0]).all()
        kinds.add(tuple(int(c) for c in changed[0, 0]))
    assert kinds == {(100, 100, 100), (10, 200, 60)}


def test_a_crop_without_the_object_gets_no_other_picture(monkeypatch):
    monkeypatch.setattr(recolouring, 'CONTRAST_AROUND', (0.0, 0.0))
    for seed in range(40):
        same = recoloured(CROP, np.zeros_like(MASK), OTHER, np.random.default_rng(seed))
        np.testing.assert_array_equal(same, CROP)


def test_contrast_is_around_the_weighted_mean():
    stripes = np.zeros((4, 4, 3), np.float32)
    stripes[:, :2], stripes[:, 2:] = 10, 30
    share = np.ones((4, 4, 1), np.float32)
    share[:, 3] = 0  # a third of what counts is light: mean 50/3
    wider = recolouring._contrast(stripes, share, np.log(3))
    assert wider[0, 0, 0] == pytest.approx(50 / 3 - 3 * (50 / 3 - 10)) and wider[0, 2, 0] == pytest.approx(170 / 3)
