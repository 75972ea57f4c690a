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


@pytest.fixture
def always(monkeypatch):
    """Both change in every crop; what a test is not about is off."""
    for name, value in (('OFTEN', 1.0), ('LIGHTER', 0.0), ('TINTED', 0.0), ('CONTRAST_ON', (0.0, 0.0)),
                        ('CONTRAST_AROUND', (0.0, 0.0))):
        monkeypatch.setattr(recolouring, name, value)
    return monkeypatch


def plain(on: int, around: int) -> np.ndarray:
    return np.where(ON[..., None], on, around).repeat(3, axis=2).astype(np.uint8)


def changed(crop: np.ndarray, seeds: int = 40, mask: np.ndarray = MASK) -> list[np.ndarray]:
    return [recoloured(crop, mask, OTHER, np.random.default_rng(seed)) for seed in range(seeds)]


def test_brightness_differs_from_place_to_place_and_tint_with_it(always):
    always.setattr(recolouring, 'LIGHTER', 0.35)
    for crop in changed(plain(100, 50)):
        assert crop[ON].std() > 3 and np.ptp(crop[ON], axis=1).max() <= 1, 'grey stays grey, brighter here than there'
    always.setattr(recolouring, 'TINTED', 0.12)
    assert all(np.ptp(crop[ON], axis=1).max() > 3 for crop in changed(plain(100, 50)))


def test_what_gets_too_bright_is_white(always):
    always.setattr(recolouring, 'LIGHTER', 1.0)
    bright = np.concatenate([crop[ON].ravel() for crop in changed(plain(240, 50))])
    # a value that wrapped around would be black, where exp of a few deviations leaves nothing darker than 10
    assert bright.max() == 255 and (bright == 255).mean() > 0.2 and bright.min() > 4


def test_contrast_of_the_object_and_around_it(always):
    spread = CROP[ON].std(), CROP[~ON].std()
    always.setattr(recolouring, 'CONTRAST_ON', (np.log(0.5), np.log(0.5)))
    for crop in changed(CROP, 5):
        assert crop[ON].std() == pytest.approx(spread[0] / 2, rel=0.05)
    always.setattr(recolouring, 'CONTRAST_AROUND', (np.log(2), np.log(2)))
    own = [crop for crop in changed(CROP) if crop[~ON].std(axis=0).max() > 1]  # the other picture is of one colour
    assert len(own) > 5
    for crop in own:
        assert crop[~ON].std() == pytest.approx(2 * spread[1], rel=0.05)
        np.testing.assert_allclose(crop[~ON].mean(axis=0), CROP[~ON].mean(axis=0), atol=1)


def test_surroundings_are_another_picture_in_its_own_colour_or_the_objects(always):
    kinds = set()
    for crop in changed(plain(100, 50), 60):
        assert (crop[ON] == 100).all() and (crop[~ON] == crop[0, 0]).all()
        kinds.add(tuple(int(c) for c in crop[0, 0]))
    assert kinds == {(50, 50, 50), (100, 100, 100), (10, 200, 60)}


def test_a_pixel_that_is_half_object_is_half_changed(always):
    half = MASK.copy()
    half[12, 10] = 128
    crop = plain(100, 50)
    crop[12, 10] = 80
    mixed = next(c for c in changed(crop, 60, half) if tuple(c[0, 0]) == (10, 200, 60))
    share = 128 / 255
    np.testing.assert_allclose(mixed[12, 10], 80 * share + np.array([10, 200, 60]) * (1 - share), atol=1)


def test_a_crop_without_the_object_gets_other_contrast_and_no_other_picture(always):
    nothing = np.zeros_like(MASK)
    assert all((crop == CROP).all() for crop in changed(CROP, mask=nothing))
    always.setattr(recolouring, 'CONTRAST_AROUND', (np.log(2), np.log(2)))
    assert all(crop.std() == pytest.approx(2 * CROP.std(), rel=0.05) for crop in changed(CROP, mask=nothing))


def test_contrast_is_around_the_weighted_mean():
    stripes = np.zeros((4, 4, 3), np.float32)
    stripes[:, :2], stripes[:, 2:] = 10, 30
    share = np.ones((4, 4, 1), np.float32)
    share[:, 3] = 0  # a third of what counts is light: mean 50/3
    wider = recolouring._contrast(stripes, share, np.log(3))
    assert wider[0, 0, 0] == pytest.approx(50 / 3 - 3 * (50 / 3 - 10)) and wider[0, 2, 0] == pytest.approx(170 / 3)
