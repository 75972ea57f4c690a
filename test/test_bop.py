# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""BOP data sets: conventions worked out by hand, bad input, writing and reading back, and CAD models on photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from sim2real_da.data.bop import BopDataset, lmo_split, read_image, write_scene
from sim2real_da.geometry import project, transform_points
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectLabel, Pose

CAMERA = Intrinsics(64, 48, 60.0, 61.0, 30.5, 25.0)


def tiny_set(folder: Path, truth: bool = True) -> Path:
    """A data set of one picture and one object, turned by 90 degrees about z, written by hand."""
    scene = folder / 'test' / '000002'
    (scene / 'rgb').mkdir(parents=True)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[10, 20] = (0, 0, 255)  # red, in OpenCV's order
    cv2.imwrite(str(scene / 'rgb' / '000007.png'), picture)
    (scene / 'scene_camera.json').write_text(json.dumps({'7': {'cam_K': [60, 0, 30.5, 0, 61, 25, 0, 0, 1]}}))
    if truth:
        # det 1.003 as in LM-O: must be made a rotation
        entry = {'cam_R_m2c': [0, -1.001, 0, 1.001, 0, 0, 0, 0, 1.001], 'cam_t_m2c': [100, -200, 1000], 'obj_id': 5}
        gone = {**entry, 'obj_id': 6}
        (scene / 'scene_gt.json').write_text(json.dumps({'7': [entry, gone]}))
        (scene / 'scene_gt_info.json').write_text(json.dumps({'7': [
            {'bbox_visib': [10, 20, 4, 5], 'visib_fract': 0.25},
            {'bbox_visib': [-1, -1, -1, -1], 'visib_fract': 0.0}]}))
    return folder


def frame_of(mask: np.ndarray, visible: float = 0.5, name: str = 'obj_000003') -> LabelledFrame:
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5])
    pose = Pose(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.01, -0.02, 0.7]))
    image = np.full((48, 64, 3), 90, np.uint8)
    image[mask] = (200, 30, 40)
    return LabelledFrame(Frame(image, CAMERA), (ObjectLabel(name, box, pose, visible, mask),))


def test_conventions_by_hand(tmp_path: Path) -> None:
    data = BopDataset(tiny_set(tmp_path))
    assert data.ids() == [7] and data.has_ground_truth
    found = data.frame(7)
    assert tuple(found.frame.image[10, 20]) == (255, 0, 0), 'RGB, not BGR'
    assert found.frame.intrinsics == CAMERA
    assert len(found.labels) == 1, 'an object of which nothing is visible has no label'
    label = found.labels[0]
    assert label.name == 'obj_000005' and label.visible == 0.25
    np.testing.assert_allclose(label.pose.translation, [0.1, -0.2, 1.0])
    # a quarter turn about z: x y z w
    np.testing.assert_allclose(label.pose.quaternion, [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-9)
    # pixels 10..14 and 20..25 are in the box: BOP's width is last minus first
    np.testing.assert_allclose(label.box, [9.5, 19.5, 14.5, 25.5])


@pytest.mark.parametrize('camera', [{}, {'cam_K': [60, 0]}, {'cam_K': 'wide'}, {'cam_K': None}])
def test_a_camera_that_is_none_is_named(camera: dict, tmp_path: Path) -> None:
    folder = tiny_set(tmp_path)
    (folder / 'test' / '000002' / 'scene_camera.json').write_text(json.dumps({'7': camera}))
    with pytest.raises(ValueError, match='scene_camera.json: picture 7: .*expected cam_K with nine numbers'):
        BopDataset(folder).frame(7)


def test_poses_in_metres_are_named(tmp_path: Path) -> None:
    folder = tiny_set(tmp_path)
    truth = folder / 'test' / '000002' / 'scene_gt.json'
    truth.write_text(truth.read_text().replace('[100, -200, 1000]', '[0.1, -0.2, 1.0]'))
    with pytest.raises(ValueError, match='scene_gt.json: frame 7, entry 0: .*in metres, expected millimetres'):
        BopDataset(folder).frame(7)


def test_without_ground_truth_there_are_no_labels(tmp_path: Path) -> None:
    data = BopDataset(tiny_set(tmp_path, truth=False))
    assert not data.has_ground_truth
    assert data.frame(7).labels == ()


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere.*no such folder'):
        BopDataset(tmp_path / 'nowhere')
    tiny_set(tmp_path)
    with pytest.raises(FileNotFoundError, match='train.*no scene folders.*has test'):
        BopDataset(tmp_path, 'train')
    with pytest.raises(FileNotFoundError, match='models_info.json'):
        BopDataset(tmp_path).objects()
    with pytest.raises(KeyError, match='no frame 8'):
        BopDataset(tmp_path).frame(8)
    camera = tmp_path / 'test' / '000002' / 'scene_camera.json'
    camera.write_text('{"7": ')
    with pytest.raises(ValueError, match='scene_camera.json: not readable as JSON'):
        BopDataset(tmp_path)
    camera.unlink()
    with pytest.raises(FileNotFoundError, match='scene_camera.json: missing'):
        BopDataset(tmp_path)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_truncated_picture_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'picture{suffix}'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    assert read_image(path).shape == (40, 40, 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f'picture{suffix}: truncated'):
        read_image(path)


def test_truncated_png_of_a_set(tmp_path: Path) -> None:
    data = BopDataset(tiny_set(tmp_path))
    path = data.image_path(7)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match='000007.png'):
        data.frame(7)


@pytest.mark.parametrize('masks', ['instances', 'mask_visib', 'both', 'none'])
def test_what_is_written_is_read_back(tmp_path: Path, masks: str) -> None:
    mask = np.zeros((48, 64), bool)
    mask[12:30, 20:33] = True
    source = frame_of(mask)
    written = write_scene(
        tmp_path / 'train' / '000000', [source, source], {'obj_000003': 3}, lossless=True, masks=masks)
    data = BopDataset(tmp_path, 'train')
    assert written == 2 and data.ids() == [0, 1]
    found = data.frame(1)
    np.testing.assert_array_equal(found.frame.image, source.frame.image)
    assert found.frame.intrinsics == CAMERA
    label, expected = found.labels[0], source.labels[0]
    assert (label.name, label.visible) == ('obj_000003', 0.5)
    np.testing.assert_allclose(label.box, expected.box)
    np.testing.assert_allclose(label.pose.matrix(), expected.pose.matrix(), atol=1e-9)
    if masks == 'none':
        assert label.mask is None
    else:
        np.testing.assert_array_equal(label.mask, mask)
    files = {folder.name for folder in (tmp_path / 'train' / '000000').iterdir() if folder.is_dir()}
    assert files - {'rgb'} == {'instances', 'mask_visib'} & {masks} if masks != 'both' else {'instances', 'mask_visib'}


def test_several_scenes_have_distinct_ids(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), bool)
    mask[5:9, 5:9] = True
    for scene in (0, 3):
        write_scene(tmp_path / 'train' / f'{scene:06d}', [frame_of(mask, 0.1 * scene + 0.1)], {'obj_000003': 3})
    data = BopDataset(tmp_path, 'train')
    assert data.ids() == [0, 3_000_000] and data.scenes() == [[0], [3_000_000]]
    assert data.classes() == {'obj_000003'}
    assert data.frame(3_000_000).labels[0].visible == pytest.approx(0.4)


def test_interrupted_scene_is_not_there(tmp_path: Path) -> None:
    mask = np.ones((48, 64), bool)

    def broken():
        yield frame_of(mask)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / 'train' / '000000', broken(), {'obj_000003': 3})
    assert not (tmp_path / 'train' / '000000').exists()
    with pytest.raises(FileNotFoundError, match='no scene folders'):
        BopDataset(tmp_path, 'train')


def test_split_is_disjoint_and_complete(lmo: Path) -> None:
    ids = BopDataset(lmo).ids()
    adaptation, scoring = lmo_split(ids)
    assert (len(adaptation), len(scoring)) == (100, 40)
    assert not set(adaptation) & set(scoring)
    assert sorted(adaptation + scoring) == ids
    assert max(adaptation) == 611 and min(scoring) > 611


def test_models_of_lmo(lmo: Path) -> None:
    objects = BopDataset(lmo).objects()
    assert list(objects) == [f'obj_{n:06d}' for n in (1, 5, 6, 8, 9, 10, 11, 12)]
    for name, model in objects.items():
        assert model.points.shape == (4096, 3)
        np.testing.assert_allclose(model.points.min(axis=0), model.minimum, atol=2e-3)
        np.testing.assert_allclose(np.ptp(model.points, axis=0), model.size, atol=3e-3)
        assert np.linalg.norm(model.size) >= model.diameter >= model.size.max(), name
        assert model.symmetric == (name in ('obj_000010', 'obj_000011'))
        # a symmetry moves the surface onto itself
        for symmetry in model.symmetries[1:]:
            moved = model.points[::16] @ symmetry[:3, :3].T + symmetry[:3, 3]
            gaps = np.linalg.norm(moved[:, None] - model.points[None], axis=2).min(axis=1)
            assert np.percentile(gaps, 90) < 0.03 * model.diameter


def test_models_fall_on_the_photographs(lmo: Path) -> None:
    """Projected CAD points cover the boxes people measured, and the pixels below have the models' colours."""
    data = BopDataset(lmo)
    objects = data.objects()
    overlaps, colours = [], {}
    for frame_id in data.ids()[::10]:
        found = data.frame(frame_id)
        info = json.loads((lmo / 'test' / '000002' / 'scene_gt_info.json').read_text())[str(frame_id)]
        truth = json.loads((lmo / 'test' / '000002' / 'scene_gt.json').read_text())[str(frame_id)]
        whole = {f'obj_{t["obj_id"]:06d}': i['bbox_obj'] for t, i in zip(truth, info)}
        for label in found.labels:
            pixels = project(transform_points(objects[label.name].points, label.pose), found.frame.intrinsics)
            x, y, w, h = whole[label.name]
            low, high = pixels.min(axis=0), pixels.max(axis=0)
            inter = np.prod(np.clip(np.minimum(high, [x + w, y + h]) - np.maximum(low, [x, y]), 0, None))
            overlaps.append(inter / (np.prod(high - low) + w * h - inter))
            if label.visible and label.visible > 0.95:
                middle = np.round(np.median(pixels, axis=0)).astype(int)
                patch = found.frame.image[middle[1] - 3:middle[1] + 4, middle[0] - 3:middle[0] + 4]
                colours.setdefault(label.name, []).append(patch.reshape(-1, 3).mean(axis=0))
    assert np.mean(overlaps) > 0.9 and np.percentile(overlaps, 5) > 0.8
    ape, duck, bench = (np.mean(colours[f'obj_{n:06d}'], axis=0) for n in (1, 9, 12))
    assert ape[0] > 1.3 * ape[2], 'the ape is red'
    assert duck[0] > 1.3 * duck[2] and duck[1] > 1.3 * duck[2], 'the duck is yellow'
    assert bench[2] > 1.1 * bench[0], 'the hole puncher is blue'


def test_every_lmo_frame_reads(lmo: Path) -> None:
    data = BopDataset(lmo)
    for frame_id in data.ids()[::20]:
        for label in data.frame(frame_id).labels:
            assert label.visible is not None and 0 < label.visible <= 1
            assert np.all(label.box[2:] > label.box[:2])
            assert 0.2 < np.linalg.norm(label.pose.translation) < 2.0


def test_a_set_without_models_borrows_those_named(lmo: Path, tmp_path: Path) -> None:
    tiny_set(tmp_path)
    (tmp_path / 'models').mkdir()
    shutil.copy(lmo / 'models' / 'models_info.json', tmp_path / 'models')
    with pytest.raises(FileNotFoundError, match='obj_000001.ply: missing'):
        BopDataset(tmp_path).objects()
    assert 'obj_000005' in BopDataset(tmp_path, models=lmo / 'models').objects()
