# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Something in front of an object changes the picture there, its mask, its box and what is visible of it."""

import numpy as np
import pytest

from sim2real_da.data.occlusion import LEAST, occluded
from sim2real_da.samples import ObjectLabel, Pose

IMAGE, OTHER = np.zeros((60, 80, 3), np.uint8), np.full((20, 30, 3), 200, np.uint8)
BOX = np.array([20.0, 10, 60, 50])


def label(mask: np.ndarray | None = None) -> ObjectLabel:
    return ObjectLabel('box', BOX, Pose(np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 1])), 0.8, mask)


@pytest.mark.parametrize('masked', [True, False])
def test_what_is_hidden_is_neither_seen_nor_boxed(masked):
    square = np.zeros((60, 80), bool)
    square[10:50, 20:60] = True
    untouched, shares = 0, []
    for seed in range(200):
        image, seen = occluded(IMAGE, label(square if masked else None), OTHER, np.random.default_rng(seed))
        cover = image[..., 0] > 0
        if not cover.any():
            untouched += 1
            assert image is IMAGE and seen.box is BOX
            continue
        left = square & ~cover
        assert set(np.unique(image)) == {0, 200}
        if masked:
            np.testing.assert_array_equal(seen.mask, left)
        rows, columns = np.nonzero(left)
        np.testing.assert_array_equal(
            seen.box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        shares.append(left.sum() / square.sum())
        assert seen.visible == pytest.approx(0.8 * shares[-1])
    assert not IMAGE.any(), 'a picture is not changed in place'
    assert 70 < untouched < 130 and min(shares) >= LEAST and min(shares) < 0.45 and max(shares) > 0.85


def test_an_object_that_would_vanish_stays_as_it_is():
    thin = np.zeros((60, 80), bool)
    thin[49, 20:60] = True  # the lowest row of its box
    for seed in range(50):
        image, seen = occluded(IMAGE, label(thin), OTHER, np.random.default_rng(seed))
        assert seen.mask.sum() >= LEAST * 40
        assert (image is IMAGE) == (seen.mask is thin)
