# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of features and of a discriminator's accuracy."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sim2real_da.evaluation.embedding import (
    COLOURS,
    Features,
    accuracy_curves,
    draw_accuracy,
    draw_embedding,
    principal_plane,
    projected,
)


def test_principal_plane_of_points_whose_axes_are_known():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    along = np.zeros((8, 5))
    along[:, 0] = [3, -3, 0, 0, 0, 0, 0, 0]
    along[:, 1] = [0, 0, 2, -2, 0, 0, 0, 0]
    along[:, 2] = [0, 0, 0, 0, 1, -1, 0, 0]
    mean, axes, shares = principal_plane(along @ turn + 7.0)
    np.testing.assert_allclose(mean, 7)
    np.testing.assert_allclose(np.abs(axes @ turn.T), np.eye(5)[:2], atol=1e-12)
    np.testing.assert_allclose(shares, [18 / 28, 8 / 28])
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in axes)
    np.testing.assert_allclose(principal_plane(-along @ turn)[1], axes, atol=1e-12)  # not mirrored by chance
    for wrong in (np.zeros((1, 5)), np.zeros((5, 1)), np.zeros(5)):
        with pytest.raises(ValueError, match='at least two rows of at least two numbers'):
            principal_plane(wrong)


def shown(path, colour: str) -> int:
    """Return how many pixels of a picture have about this hex colour on white."""
    picture = cv2.imread(str(path))[..., ::-1].astype(float)
    wanted = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)])
    blended = 0.6 * wanted + 0.4 * 255
    return int((np.abs(picture - blended).max(axis=2) < 30).sum())


@pytest.mark.parametrize('hue', [None, 4])
def test_embedding_shows_both_domains_in_their_colours_or_classes_as_hues(tmp_path, hue):
    rng = np.random.default_rng(0)
    labels = None if hue is None else np.full(60, hue)
    panels = [Features(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + shift, labels, labels) for shift in (4, 0)]
    path = tmp_path / 'made' / 'embedding.png'
    draw_embedding(*json.loads(json.dumps([projected(p) for p in panels])), path)
    for colour in COLOURS.values():
        assert (shown(path, colour) > 300) == (hue is None)
    assert (shown(path, '#2ca02c') > 300) == (hue is not None)  # the fifth of matplotlib's tab20


HISTORY = [{'step': 5 * i, 'class': 1.0, 'domain_accuracy': 0.9 - 0.1 * i} for i in range(4)]


def test_accuracies_are_found_by_name_and_steps_counted_where_not_logged():
    assert accuracy_curves(HISTORY) == {'domain_accuracy': ([0, 5, 10, 15], pytest.approx([0.9, 0.8, 0.7, 0.6]))}
    sparse = [{}, {'pose/image_domain_accuracy': 0.5, 'pose/domain_accuracy': float('nan')}, {'detector/heat': 2.0}]
    assert accuracy_curves(sparse) == {'pose/image_domain_accuracy': ([1], [0.5])}


def test_accuracy_is_drawn_and_its_absence_is_an_error(tmp_path):
    draw_accuracy({'dann': HISTORY, 'pixelda': [{'image_domain_accuracy': 0.5}] * 30}, tmp_path / 'accuracy.png')
    picture = cv2.imread(str(tmp_path / 'accuracy.png'))
    # matplotlib's first two colours, blue and orange, in BGR
    for colour in ((180, 119, 31), (14, 127, 255)):
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 30).sum() > 100
    with pytest.raises(ValueError, match='none was logged'):
        draw_accuracy({'source_continued': [{'class': 1.0}]}, tmp_path / 'none.png')
