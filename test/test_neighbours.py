# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Nearest target pictures and the figure that shows them."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest
import torch

from sim2real_da.evaluation.neighbours import compared, draw, nearest


def test_a_memorised_picture_has_distance_zero_and_a_shift_its_size():
    target = torch.rand(300, 3, 8, 8)
    wanted = torch.tensor([7, 299, 7])
    index, distance = nearest(target[wanted] + torch.tensor([0.0, 0.01, 0.02])[:, None, None, None], target)
    assert torch.equal(index, wanted)
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.01, 0.02]), atol=1e-5, rtol=0)


def test_many_pictures_are_compared_in_parts_with_the_same_result():
    pictures, target = torch.rand(600, 3, 4, 4), torch.rand(50, 3, 4, 4)
    index, distance = nearest(pictures, target)
    whole = (pictures[:, None] - target[None]).square().mean(dim=(2, 3, 4)).sqrt().min(dim=1)
    assert torch.equal(index, whole.indices)
    torch.testing.assert_close(distance, whole.values)


def test_the_figure_is_a_picture_and_says_how_near_copies_are(tmp_path):
    source, target = torch.rand(5, 3, 8, 8), torch.rand(20, 3, 8, 8)
    found = json.loads(json.dumps(compared(source, target[:5], target, columns=3)))
    assert found['distances'] == [0, 0, 0] and found['median'] == 0
    assert found['median_of_targets'] == pytest.approx(nearest(target[:5], target[5:])[1].median().item())
    rows = cv2.imdecode(np.frombuffer(base64.b64decode(found['png']), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert rows.shape == (3 * 10, 3 * 10, 3)
    for row, pictures in enumerate((source, target, target)):
        tile = torch.tensor(rows[10 * row:10 * row + 8, 20:28].copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(tile, pictures[2], atol=0.003, rtol=0)
    draw(found, tmp_path / 'new' / 'rows.png')
    picture = cv2.imread(str(tmp_path / 'new' / 'rows.png'))
    assert picture is not None and picture.shape[0] > 300 and picture.std() > 10


def test_what_does_not_belong_together_is_named():
    with pytest.raises(ValueError, match='same channels'):
        nearest(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 9, 8))
    with pytest.raises(ValueError, match='at least one'):
        nearest(torch.rand(2, 3, 8, 8), torch.rand(0, 3, 8, 8))
    with pytest.raises(ValueError, match='2, 3, 8, 8.*3, 3, 8, 8'):
        compared(torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8), torch.rand(2, 3, 8, 8))
