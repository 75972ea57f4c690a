# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Picture sets: folders, .npz files, digits and signs; and errors that name the file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sim2real_da.data.digits import blend, load_digits, photographs
from sim2real_da.data.pictures import Pictures, from_arrays, load
from sim2real_da.data.signs import real_signs, synthetic_signs, templates


def picture(path, value: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), (0, 0, value), np.uint8))  # red


def test_a_folder_of_classes(tmp_path):
    picture(tmp_path / 'nut' / 'a.png', 10)
    picture(tmp_path / 'bolt' / 'b.png', 20)
    picture(tmp_path / 'bolt' / 'c.png', 30, (4, 6))
    found = load(tmp_path, 8)
    assert found.names == ('bolt', 'nut') and found.labels.tolist() == [0, 0, 1]
    assert found.images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(found.images[:, 0, 0], [[20, 0, 0], [30, 0, 0], [10, 0, 0]])
    with pytest.raises(ValueError, match='c.png: 6x4 pixels, b.png has 8x8'):
        load(tmp_path)


def test_a_folder_without_classes_has_no_labels(tmp_path):
    picture(tmp_path / 'a.png', 10)
    assert load(tmp_path).labels is None


@pytest.mark.parametrize('files, said', [
    ([], 'no PNG or JPEG'), (['a/1.png', '2.png'], r'2.png\) and folders of pictures \(a\)'),
    (['a/1.png', 'b/readme.txt'], 'b: no PNG or JPEG pictures of this class')])
def test_folders_that_cannot_be_used(tmp_path, files, said):
    for name in files:
        if name.endswith('png'):
            picture(tmp_path / name, 1)
        else:
            (tmp_path / name).parent.mkdir()
    with pytest.raises(ValueError, match=said):
        load(tmp_path)


def test_npz(tmp_path):
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / 'a.npz', images=images, labels=[2, 0, 1])
    found = load(tmp_path / 'a.npz')
    assert found.labels.tolist() == [2, 0, 1] and found.names == ()
    np.testing.assert_array_equal(found.images[..., 2], images)
    np.savez(tmp_path / 'b.npz', images=images, labels=['x', 'a', 'x'])
    assert load(tmp_path / 'b.npz').names == ('a', 'x')
    assert load(tmp_path / 'b.npz').labels.tolist() == [1, 0, 1]


def test_a_target_is_pictures_alone(tmp_path):
    np.savez(tmp_path / 'a.npz', images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.array([object(), 1.5]))
    assert load(tmp_path / 'a.npz', labelled=False).labels is None
    with pytest.raises(ValueError, match='a.npz: damaged, or not an .npz file of plain arrays'):
        load(tmp_path / 'a.npz')
    for name in ('top.png', 'day/1.png', 'day/night/2.png'):
        picture(tmp_path / 'target' / name, 1)
    (tmp_path / 'target' / 'empty').mkdir()
    found = load(tmp_path / 'target', labelled=False)
    assert len(found) == 3 and found.labels is None


def test_a_damaged_array_is_named(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez_compressed(path, images=np.random.default_rng(0).integers(0, 255, (20, 16, 16), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(ValueError, match='a.npz: damaged'):
        load(path)


@pytest.mark.parametrize('arrays, said', [
    ({'labels': np.zeros(2, int)}, 'no array images, it has labels'),
    ({'images': np.zeros((2, 4, 4)), 'labels': np.zeros(2, int)}, 'expected uint8'),
    ({'images': np.zeros((2, 4, 4), np.uint8), 'labels': np.zeros(3, int)}, r'\(3,\) labels of 2 pictures'),
    ({'images': np.zeros((2, 4, 4), np.uint8), 'labels': np.zeros(2)}, 'labels are float64'),
    ({'images': np.zeros((2, 4, 4), np.uint8), 'labels': np.array([0, -1])}, 'labels from -1')])
def test_npz_that_cannot_be_used(tmp_path, arrays, said):
    np.savez(tmp_path / 'bad.npz', **arrays)
    with pytest.raises(ValueError, match=f'bad.npz: .*{said}'):
        load(tmp_path / 'bad.npz')


def test_what_is_no_npz_file(tmp_path):
    (tmp_path / 'bad.npz').write_text('no zip')
    with pytest.raises(ValueError, match='bad.npz: damaged, or not an .npz file'):
        load(tmp_path / 'bad.npz')
    with pytest.raises(FileNotFoundError, match='none.npz: no such folder or file'):
        load(tmp_path / 'none.npz')


def test_resizing_keeps_a_constant_picture_and_its_labels():
    found = from_arrays(np.full((2, 16, 16), 77, np.uint8), np.array([1, 0])).resized(28)
    assert found.images.shape == (2, 28, 28, 3) and (found.images == 77).all() and found.labels.tolist() == [1, 0]


def test_labels_have_to_be_indices_of_the_names():
    with pytest.raises(ValueError, match='labels from 0 to 2'):
        Pictures(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]), ('a', 'b'))


def test_difference_blend_closed_form():
    digits = np.array([[[0, 255], [100, 30]]], np.uint8)
    made = blend(digits, [np.full((5, 5, 3), (10, 20, 200), np.uint8)], np.random.default_rng(0))
    np.testing.assert_array_equal(made[0, 0], [[10, 20, 200], [245, 235, 55]])
    np.testing.assert_array_equal(made[0, 1], [[90, 80, 100], [20, 10, 170]])


def test_photographs_are_split_once_and_for_all(tmp_path):
    for i in range(160):
        picture(tmp_path / f'{i:03d}.jpg', 0, (i + 1, 4))
    train, test = photographs(tmp_path, 'train'), photographs(tmp_path, 'test')
    shown = [{len(p) for p in split} for split in (train, test)]  # every picture has a height of its own
    assert len(shown[0]) == 150 and len(shown[1]) == 10 and not shown[0] & shown[1]
    with pytest.raises(FileNotFoundError, match='0 photographs'):
        photographs(tmp_path / 'none', 'train')


def sign(folder, name: str, colour: tuple[int, int, int]) -> None:
    shape = np.zeros((32, 32, 4), np.uint8)
    cv2.circle(shape, (16, 16), 15, (*colour, 255), -1)
    (folder / 'signs').mkdir(exist_ok=True)
    cv2.imwrite(str(folder / 'signs' / f'{name}.png'), shape)


def test_synthetic_signs(tmp_path):
    sign(tmp_path, '03', (0, 0, 255))
    sign(tmp_path, '07', (255, 0, 0))
    photos = [np.full((200, 300, 3), 40, np.uint8)]
    made, again, other = (synthetic_signs(templates(tmp_path), photos, 20, seed) for seed in (3, 3, 4))
    assert made.names == ('03', '07') and made.labels.tolist() == [0, 1] * 10
    np.testing.assert_array_equal(made.images, again.images)
    assert (other.images != made.images).any()
    middle = made.images[:, 16:24, 16:24].mean(axis=(1, 2))
    assert (middle[0::2, 0] > middle[0::2, 2]).all() and (middle[1::2, 2] > middle[1::2, 0]).all()


def test_templates_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match='no templates'):
        templates(tmp_path)
    (tmp_path / 'signs').mkdir()
    cv2.imwrite(str(tmp_path / 'signs' / '09.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match='09.png: expected a PNG picture with an alpha'):
        templates(tmp_path)


def test_digits(digits_data):
    usps, mixed = load_digits(digits_data, 'usps', 'test'), load_digits(digits_data, 'mnistm', 'test')
    assert usps.images.shape == (2007, 28, 28, 3) and mixed.images.shape == (10000, 28, 28, 3)
    np.testing.assert_array_equal(mixed.images, load_digits(digits_data, 'mnistm', 'test').images)
    digits = load_digits(digits_data, 'mnist', 'test')
    np.testing.assert_array_equal(mixed.labels, digits.labels)
    # where the digit is black the photograph shows, and it is in colour
    assert mixed.images[digits.images == 0].mean() > 20 and np.ptp(mixed.images, axis=3).mean() > 5


def test_signs(digits_data, gtsrb_data):
    made = synthetic_signs(templates(gtsrb_data), photographs(digits_data / 'bsds', 'train'), 38)
    real = real_signs(gtsrb_data, 'test')
    assert len(made.names) == 38 and len(real.names) == 43 and len(real) == 1311
    assert set(real.names) - set(made.names) == {'21', '22', '24', '28', '30'}
