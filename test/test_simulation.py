# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The simulator: labels against OpenCV's projection, what the switches do, determinism, the tools, the second world."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

pytest.importorskip('mujoco', reason='the simulator needs MuJoCo: pip install mujoco')

from sim2real_da.data.bop import BopDataset  # noqa: E402
from sim2real_da.resources import config_folder  # noqa: E402
from sim2real_da.samples import Intrinsics, LabelledFrame, ObjectLabel  # noqa: E402
from sim2real_da.simulation import render  # noqa: E402
from sim2real_da.simulation.models import write_models  # noqa: E402
from sim2real_da.simulation.objects import bop_objects, bop_symmetries, continuous_symmetry, load_objects  # noqa: E402
from sim2real_da.simulation.randomisation import Randomisation  # noqa: E402
from sim2real_da.simulation.sensor import Sensor  # noqa: E402
from sim2real_da.simulation.simulator import DROPPED, Layout, Simulator, _room_textures, arrange_upright  # noqa: E402
from sim2real_da.simulation.surrogate import SurrogateWorld, load_appearance  # noqa: E402
from sim2real_da.simulation.textures import PACKAGED, PACKAGED_SURROGATE  # noqa: E402
from sim2real_da.simulation.workers import in_processes  # noqa: E402
from sim2real_da.simulation.world import RoomTextures, World  # noqa: E402

# a principal point far from the middle and unequal focal lengths: a sign or axis mixed up cannot pass
CAMERA = Intrinsics(320, 240, 290.0, 310.0, 190.0, 95.0)
SMALL = Intrinsics(160, 120, 150.0, 150.0, 79.5, 59.5)
GREY = RoomTextures([np.full((8, 8, 3), 128, np.uint8)], [np.full((8, 8, 3), 255, np.uint8)])
OFF = Randomisation(light=False, colour=False, texture=False, camera=False, distractors=False)
GROUPS = tuple(Randomisation.__dataclass_fields__)


def projected(label: ObjectLabel, points: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Project CAD points with OpenCV alone, from the label's quaternion."""
    turn, _ = cv2.Rodrigues(Rotation.from_quat(label.pose.quaternion).as_matrix())
    pixels, _ = cv2.projectPoints(points.astype(np.float64), turn, label.pose.translation, camera.matrix(), None)
    return pixels.reshape(-1, 2)


def vertices(name: str, objects: list) -> np.ndarray:
    item = next(o for o in objects if o.name == name)
    return np.concatenate([part.vertices for part in item.parts if part.draw])


def compare_with_opencv(label: ObjectLabel, objects: list, camera: Intrinsics) -> None:
    """Box and mask of a wholly visible object against OpenCV's projection of its vertices, to about a pixel."""
    assert label.mask is not None
    pixels = projected(label, vertices(label.name, objects), camera)
    expected = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
    np.testing.assert_allclose(label.box, expected, atol=1.1, err_msg=label.name)
    near = cv2.dilate(label.mask.astype(np.uint8), np.ones((3, 3)))
    seen = np.round(pixels).astype(int)
    assert near[seen[:, 1], seen[:, 0]].mean() > 0.99, f'{label.name}: vertices beside the mask'


def look_at_each(objects: list, camera: Intrinsics) -> None:
    """Compare every object, alone, at three poses seen from three places."""
    world = World(objects, camera, GREY, primitives=0, sheets=0)
    rng = np.random.default_rng(0)
    for body in range(len(objects)):
        for other in range(world.bodies):
            world.park(other)
        for _ in range(3):
            world.place(body, [*rng.normal(0, 0.03, 2), 0.2], Rotation.from_quat(rng.normal(size=4)))
            eye = np.array([*rng.normal(0, 0.5, 2), 0.9])
            world.look(eye, [0, 0, 0.2], rng.normal(0, 0.3))
            world.refresh()
            (label,) = world.labels()
            assert label.visible == pytest.approx(1)
            compare_with_opencv(label, objects, camera)
    world.close()


@pytest.fixture(scope='module')
def bench() -> Iterator[Simulator]:
    simulator = Simulator(load_objects('tools'), CAMERA, seed=3, randomisation=Randomisation(distractors=False),
                          layout=Layout(spread=0.16, distance=(0.7, 1.0), reuse=2))
    yield simulator
    simulator.close()


def test_labels_agree_with_opencv() -> None:
    look_at_each(load_objects('tools'), CAMERA)


def test_labels_of_bop_models_agree_with_opencv(lmo: Path) -> None:
    look_at_each(load_objects(str(lmo)), CAMERA)


def test_bop_models_stand_upright(lmo: Path) -> None:
    simulator = Simulator(load_objects(str(lmo)), SMALL, seed=1, layout=Layout(upright=1.0, reuse=1))
    ups = [label.pose.matrix()[:3, 2] for _ in range(3) for label in simulator.sample().labels]
    simulator.close()
    # the CAD frame's z axis points away from the floor: upwards in the picture
    assert np.mean([up[1] < 0 for up in ups]) > 0.9


def test_label_fields(bench: Simulator) -> None:
    found = bench.sample()
    names = [label.name for label in found.labels]
    assert names == [o.name for o in load_objects('tools') if o.name in names], 'in the order of the objects'
    assert found.frame.image.shape == (240, 320, 3) and found.frame.intrinsics == CAMERA
    for label in found.labels:
        assert label.visible is not None and 0 < label.visible <= 1
        assert label.mask is not None and label.mask.sum() >= 8
        rows, columns = np.nonzero(label.mask)
        np.testing.assert_allclose(
            label.box, [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5])
        assert 0.3 < np.linalg.norm(label.pose.translation) < 1.6


def test_visible_fraction_against_drawing_each_object_alone() -> None:
    objects = load_objects('tools')
    world = World(objects, SMALL, GREY, primitives=0, sheets=0)
    for body in range(world.bodies):
        world.park(body)
    upright = Rotation.identity()
    mug, drill = world.body('mug'), world.body('drill')
    world.place(drill, [0.0, 0.05, 0.13], upright)
    world.place(mug, [0.02, -0.1, 0.02], upright)
    world.ambient([0.5] * 3)
    world.look([0, -0.6, 0.25], [0, 0, 0.08])
    world.refresh()
    fractions = {label.name: label.visible for label in world.labels()}
    masks = {label.name: label.mask for label in world.labels()}
    world.park(mug)
    world.refresh()
    alone = (world.instances() == drill).sum()
    covered = masks['drill'].sum() / alone
    assert 0.2 < covered < 0.9, 'the mug hides a part of the drill'
    assert fractions['drill'] == pytest.approx(covered, abs=0.03)
    assert fractions['mug'] == pytest.approx(1.0, abs=0.03)
    world.close()


def test_object_that_leaves_the_picture_is_partly_visible() -> None:
    world = World(load_objects('tools'), SMALL, GREY, primitives=0, sheets=0)
    for body in range(world.bodies):
        world.park(body)
    world.place(world.body('mug'), [0, 0, 0], Rotation.identity())
    world.look([0, -0.5, 0.3], [0.31, 0, 0.05])  # the mug's middle at the left edge
    world.refresh()
    (label,) = world.labels()
    assert label.box[0] == -0.5 and label.visible is not None and 0.2 < label.visible < 0.8
    world.close()


def twice(switches: Randomisation) -> tuple[LabelledFrame, LabelledFrame]:
    """Two pictures of one arrangement."""
    simulator = Simulator(load_objects('tools'), SMALL, seed=5, randomisation=switches,
                          layout=Layout(present=1.0, reuse=2, spread=0.12))
    frames = simulator.sample(), simulator.sample()
    simulator.close()
    return frames


def test_everything_switched_off_changes_nothing() -> None:
    first, second = twice(OFF)
    np.testing.assert_array_equal(first.frame.image, second.frame.image)


@pytest.mark.parametrize('group', GROUPS)
def test_each_switch_changes_its_own_group(group: str) -> None:
    first, second = twice(Randomisation(**{name: name == group for name in GROUPS}))
    change = np.abs(first.frame.image.astype(int) - second.frame.image).max(axis=2)
    still = all(np.allclose(a.pose.matrix(), b.pose.matrix()) for a, b in zip(first.labels, second.labels))
    assert still == (group != 'camera'), 'poses move with the camera alone'
    tools = np.zeros(change.shape, bool)
    for label in (*first.labels, *second.labels):
        tools |= label.mask
    edge = cv2.dilate(tools.astype(np.uint8), np.ones((5, 5))) > 0
    if group == 'colour':
        assert change[tools].mean() > 4 and change[~edge].max() <= 1, 'objects change, the room does not'
    elif group == 'texture':
        inner = cv2.erode(tools.astype(np.uint8), np.ones((5, 5))) > 0
        assert change[~edge].mean() > 10 and change[inner].mean() < 1, 'the room changes, objects do not'
    elif group == 'distractors':
        assert change.max() > 10, 'sheets move'
    else:
        assert change.mean() > 4


def test_distractors_are_there_only_when_switched_on() -> None:
    for wanted in (True, False):
        simulator = Simulator(load_objects('tools'), SMALL, seed=2, randomisation=Randomisation(distractors=wanted),
                              layout=Layout(reuse=1, upright=1.0))
        simulator.sample()
        world = simulator.world
        shown = [body for body in range(len(world.objects), world.bodies) if world.present(body)]
        assert bool(shown) == wanted
        simulator.close()


def test_same_seed_same_stream() -> None:
    streams = []
    for seed in (7, 7, 8):
        simulator = Simulator(load_objects('tools'), SMALL, seed=seed)
        streams.append([simulator.sample() for _ in range(5)])
        simulator.close()
    for a, b, c in zip(*streams):
        np.testing.assert_array_equal(a.frame.image, b.frame.image)
        assert [x.name for x in a.labels] == [x.name for x in b.labels]
        for x, y in zip(a.labels, b.labels):
            np.testing.assert_array_equal(x.pose.matrix(), y.pose.matrix())
        assert not np.array_equal(a.frame.image, c.frame.image)


def test_every_scene_draws_photographs_of_its_own(tmp_path: Path) -> None:
    for n in range(160):
        cv2.imwrite(str(tmp_path / f'{n:03d}.png'), np.full((8, 8, 3), n, np.uint8))
    drawn = [{int(p[0, 0, 0]) for p in _room_textures(tmp_path, (1, scene)).flat[42:]} for scene in (0, 1)]
    assert [len(shades) for shades in drawn] == [120, 120] and drawn[0] != drawn[1]
    assert len(drawn[0] | drawn[1]) > 140  # of 160
    assert _room_textures(tmp_path, (1, 0)) is _room_textures(tmp_path, (1, 0))


def test_two_simulators_at_once_do_not_disturb_each_other() -> None:
    first = Simulator(load_objects('tools'), SMALL, seed=7)
    alone = first.sample().frame.image
    first.close()
    one, two = Simulator(load_objects('tools'), SMALL, seed=7), Simulator(load_objects('tools'), CAMERA, seed=1)
    two.sample()
    np.testing.assert_array_equal(one.sample().frame.image, alone)
    del two
    assert one.sample().frame.image.std() > 5
    one.close()


def test_a_program_that_does_not_close_its_simulator_ends_quietly() -> None:
    program = """
import weakref
class Kept:
    pass
kept = Kept()
weakref.finalize(kept, print, end='')  # as torch does on import: what ends at exit is set up before the display
from sim2real_da.samples import Intrinsics
from sim2real_da.simulation.objects import load_objects
from sim2real_da.simulation.simulator import Simulator
simulator = Simulator(load_objects('tools'), Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5))
simulator.sample()
"""
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, '')


def test_camera_can_change_while_running(bench: Simulator) -> None:
    bench.set_intrinsics(Intrinsics(200, 150, 180.0, 180.0, 99.5, 74.5, (0.1, 0, 0, 0)))
    found = bench.sample()
    assert found.frame.image.shape == (150, 200, 3)
    assert found.frame.intrinsics.distortion == (), 'the simulated camera is a pinhole'
    bench.set_intrinsics(CAMERA)
    assert bench.sample().frame.image.shape == (240, 320, 3)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match='no objects'):
        World([], SMALL, GREY)
    with pytest.raises(ValueError, match='pinhole'):
        World(load_objects('tools'), Intrinsics(64, 48, 50, 50, 32, 24, (0.1, 0, 0, 0)), GREY)
    with pytest.raises(FileNotFoundError, match='models_info.json'):
        load_objects('/nonexistent')


# ---------------------------------------------------------------------- the tools
def test_tools_have_sizes_of_tools() -> None:
    tools = load_objects('tools')
    assert [t.name for t in tools] == ['hammer', 'screwdriver', 'wrench', 'mug', 'drill']
    for tool in tools:
        assert 0.08 <= tool.model.size.max() <= 0.25, tool.name
        assert tool.model.points.shape == (4096, 3)
        assert np.all(tool.model.points >= tool.model.minimum - 1e-6)
        assert np.all(tool.model.points <= tool.model.minimum + tool.model.size + 1e-6)
        for part in tool.parts:
            corners = part.vertices[part.faces]
            volume = np.einsum('ij,ij->', corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
            assert volume > 0, f'{tool.name}: faces look inwards'


def surface(tool) -> np.ndarray:
    """Points and colours of the surface: what two looks of an object differ in."""
    rows = []
    for part in tool.parts:
        colour = np.broadcast_to(part.colours, (len(part.faces), 3))
        rows.append(np.hstack([part.vertices[part.faces].mean(axis=1), 0.1 * colour]))
    return np.concatenate(rows)


def test_only_the_screwdriver_looks_the_same_turned() -> None:
    for tool in load_objects('tools'):
        look = surface(tool)
        tree = cKDTree(look)

        def change(turn: np.ndarray, look: np.ndarray = look, tree: cKDTree = tree) -> float:
            moved = np.hstack([look[:, :3] @ turn[:3, :3].T + turn[:3, 3], look[:, 3:]])
            return float(tree.query(moved)[0].mean())

        assert tool.model.symmetric == (tool.name == 'screwdriver')
        np.testing.assert_allclose(tool.model.symmetries[0], np.eye(4))
        assert all(change(turn) < 1e-3 for turn in tool.model.symmetries)
        middle = tool.model.minimum + tool.model.size / 2
        for axis in np.eye(3):
            for angle in (90, 180):
                if tool.name == 'screwdriver' and axis[2]:
                    continue
                turn = np.eye(4)
                turn[:3, :3] = Rotation.from_rotvec(axis * np.radians(angle)).as_matrix()
                turn[:3, 3] = middle - turn[:3, :3] @ middle
                assert change(turn) > 4e-3, f'{tool.name} turned {angle} degrees about {axis}'


def test_symmetries_of_bop_entries() -> None:
    half = [-1, 0, 0, 10, 0, -1, 0, 20, 0, 0, 1, 0, 0, 0, 0, 1]
    found = bop_symmetries({
        'symmetries_discrete': [half], 'symmetries_continuous': [{'axis': [0, 0, 1], 'offset': [0, 0, 0]}]})
    assert found.shape == (128, 4, 4)
    np.testing.assert_allclose(found[0], np.eye(4))
    np.testing.assert_allclose(found[64, :3, 3], [0.01, 0.02, 0], err_msg='millimetres become metres')
    turns = continuous_symmetry([0, 0, 2.0], [0.1, 0, 0], 4)
    np.testing.assert_allclose(turns[1] @ [0.2, 0, 0.3, 1], [0.1, 0.1, 0.3, 1], atol=1e-9)
    assert bop_symmetries({}).shape == (1, 4, 4)


def test_upright_places_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    sizes = [(0.1, 0.2), (0.15, 0.05), (0.1, 0.1), (0.2, 0.08), (0.05, 0.05)]
    places = arrange_upright(sizes, 0.05, rng)
    field = np.zeros((400, 400), int)
    for (x, y, yaw), size in zip(places, sizes):
        corners = cv2.boxPoints(((200 + 250 * x, 200 + 250 * y), (248 * size[0], 248 * size[1]), np.degrees(yaw)))
        one = np.zeros((400, 400), np.uint8)
        cv2.fillConvexPoly(one, np.round(corners).astype(int), 1)
        field += cv2.erode(one, np.ones((3, 3)))
    assert field.max() == 1


# ---------------------------------------------------------------------- the second world
@pytest.fixture(scope='module')
def second() -> list[LabelledFrame]:
    world = SurrogateWorld(SMALL, seed=0)
    frames = [world.sample() for _ in range(4)]
    world.close()
    return frames


def test_surrogate_repeats_by_seed_and_streams_are_disjoint(second: list[LabelledFrame]) -> None:
    pictures = {}
    for seed in (0, 1):
        world = SurrogateWorld(SMALL, seed=seed)
        pictures[seed] = [world.sample().frame.image for _ in range(3)]
        world.close()
    for again, before in zip(pictures[0], second):
        np.testing.assert_array_equal(again, before.frame.image)
    for other in pictures[1]:
        for before in second:
            assert not np.array_equal(other, before.frame.image)


def test_surrogate_has_the_same_tools_and_honest_labels(second: list[LabelledFrame]) -> None:
    known = {tool.name for tool in load_objects('tools')}
    names = {label.name for found in second for label in found.labels}
    assert names <= known and len(names) >= 3, 'clutter has no labels'
    for found in second:
        for label in found.labels:
            pixels = projected(label, vertices(label.name, load_objects('tools')), SMALL)
            # hidden parts make the visible box smaller, never larger
            assert np.all(label.box[:2] > pixels.min(axis=0) - 1.1) and np.all(label.box[2:] < pixels.max(axis=0) + 1.1)


def test_surrogate_shares_no_photograph_with_the_simulator() -> None:
    look = load_appearance()
    shown = {t['picture'] for t in look['tables']} | set(look['surroundings'])
    assert shown <= set(PACKAGED_SURROGATE)
    assert not set(PACKAGED) & set(PACKAGED_SURROGATE)


def test_surrogate_appearance_is_left_alone() -> None:
    """Every number measured on the surrogate holds for this file alone; with another one all of them are void."""
    found = hashlib.sha256((config_folder() / 'surrogate.yaml').read_bytes()).hexdigest()
    assert found == '58262eaff0b4d5d2d5e0d32ffd436649b1d52241f06686636ca576be43112b19'


def test_appearance_file_errors_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'surrogate.yaml'
    path.write_text('tables: []\n')
    with pytest.raises(ValueError, match='surrogate.yaml: sections missing: camera, clutter'):
        load_appearance(path)


def test_sensor_blurs_darkens_corners_and_adds_noise() -> None:
    look = {k: tuple(v) if isinstance(v, list) else v for k, v in load_appearance()['camera'].items()}
    grey = np.full((120, 160, 3), 120, np.uint8)
    picture = Sensor(**look).capture(grey, np.random.default_rng(0)).astype(float)
    assert picture.shape == grey.shape
    corner, middle = picture[:15, :15].mean(), picture[52:68, 72:88].mean()
    assert corner < 0.9 * middle, 'vignetting'
    assert picture[52:68, 72:88].std(axis=(0, 1)).max() > 0.5, 'noise'
    assert picture[..., 0].mean() > picture[..., 2].mean(), 'a warm cast'
    edge = np.zeros((120, 160, 3), np.uint8)
    edge[:, 80:] = 200
    line = Sensor(**{**look, 'jpeg_quality': (100, 100), 'shot_noise': 0.0, 'read_noise': 0.0}).capture(
        edge, np.random.default_rng(0)).astype(float)[60, :, 1]
    rise = np.count_nonzero((line > 0.1 * line.max()) & (line < 0.9 * line.max()))
    assert rise >= 1, 'a sharp edge is no longer sharp'


# ---------------------------------------------------------------------- to disk
def test_rendered_set_reads_back_resumes_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, 'FRAMES', 2)
    arguments = ['--objects', 'tools', '--count', '4', '--seed', '3', '--width', '160', '--height', '120']
    assert render.main(['--out', str(tmp_path / 'whole'), *arguments]) == 0
    for part in ('0/2', '1/2'):
        render.main(['--out', str(tmp_path / 'parts'), '--shard', part, *arguments])
    whole, parts = BopDataset(tmp_path / 'whole', 'train'), BopDataset(tmp_path / 'parts', 'train')
    assert whole.ids() == parts.ids() and len(whole.ids()) == 4
    assert list(whole.objects()) == ['hammer', 'screwdriver', 'wrench', 'mug', 'drill']
    for frame_id in whole.ids():
        a, b = whole.frame(frame_id), parts.frame(frame_id)
        np.testing.assert_array_equal(a.frame.image, b.frame.image)
        assert [x.name for x in a.labels] == [x.name for x in b.labels]
        assert all(x.mask is not None for x in a.labels)
        assert {x.name for x in a.labels} <= set(whole.objects())
    camera = json.loads((tmp_path / 'whole' / 'dataset.json').read_text())['camera']
    assert (camera['width'], camera['height']) == (160, 120)
    # nothing is drawn twice
    assert render.render_dataset('tools', tmp_path / 'whole', 4, 3, 160, 120) == 0
    with pytest.raises(ValueError, match='other arguments: seed was 3, is 4'):
        render.render_dataset('tools', tmp_path / 'whole', 4, 4, 160, 120)
    with pytest.raises(ValueError, match='other arguments: randomisation'):
        render.render_dataset('tools', tmp_path / 'whole', 4, 3, 160, 120, randomisation=Randomisation(light=False))
    assert json.loads((tmp_path / 'whole' / 'camera.json').read_text())['width'] == 160


def test_a_smaller_set_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(render, 'FRAMES', 2)
    caplog.set_level('INFO')
    assert render.render_dataset('tools', tmp_path / 'grown', 1, 3, 160, 120) == 1
    assert render.render_dataset('tools', tmp_path / 'grown', 3, 3, 160, 120) == 3  # the first scene again, whole
    assert 'complete, 3 pictures' in caplog.text
    assert render.render_dataset('tools', tmp_path / 'whole', 3, 3, 160, 120) == 3
    grown, whole = (BopDataset(tmp_path / name, 'train') for name in ('grown', 'whole'))
    assert grown.ids() == whole.ids()
    for frame_id in whole.ids():
        np.testing.assert_array_equal(grown.frame(frame_id).frame.image, whole.frame(frame_id).frame.image)


def test_a_set_is_read_by_others(tmp_path: Path) -> None:
    """What the BOP toolkit expects, read with nothing of this package."""
    render.render_dataset('tools', tmp_path, 2, 3, 160, 120)
    scene = tmp_path / 'train' / '000000'
    truth, info, camera = (json.loads((scene / f'{name}.json').read_text())
                           for name in ('scene_gt', 'scene_gt_info', 'scene_camera'))
    assert list(truth) == list(info) == list(camera) == ['0', '1']
    models = json.loads((tmp_path / 'models' / 'models_info.json').read_text())
    assert {str(p['obj_id']) for poses in truth.values() for p in poses} <= set(models)
    for number in truth:
        assert cv2.imread(str(scene / 'rgb' / f'{int(number):06d}.jpg')).shape == (120, 160, 3)
        k = camera[number]['cam_K']
        for i, (pose, about) in enumerate(zip(truth[number], info[number], strict=True)):
            mask = cv2.imread(str(scene / 'mask_visib' / f'{int(number):06d}_{i:06d}.png'), cv2.IMREAD_UNCHANGED)
            rows, columns = np.nonzero(mask)
            assert set(np.unique(mask)) <= {0, 255} and about['px_count_visib'] == len(rows)
            x, y, width, height = about['bbox_visib']
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max(), rows.max())
            left, top, wide, high = about['bbox_obj']
            assert left <= x + 2 and top <= y + 2 and left + wide >= x + width - 2 and top + high >= y + height - 2
            assert about['px_count_all'] >= about['px_count_visib'] and 0 < about['visib_fract'] <= 1
            # millimetres, and the model's origin is where the picture shows the object
            tx, ty, tz = pose['cam_t_m2c']
            assert 200 < tz < 3000 and left - wide < k[0] * tx / tz + k[2] < left + 2 * wide


def test_models_of_a_set_of_tools_are_the_tools(tmp_path: Path) -> None:
    """Shape, size and symmetries survive as a BOP models folder, in which other tools look for them."""
    write_models(load_objects('tools'), tmp_path)
    for written, own in zip(bop_objects(tmp_path, faces=0), load_objects('tools'), strict=True):
        assert (written.name, written.upright) == (own.name, own.upright)
        assert written.model.diameter == pytest.approx(own.model.diameter)
        np.testing.assert_allclose(written.model.minimum, own.model.minimum, atol=1e-6)
        np.testing.assert_allclose(written.model.size, own.model.size, atol=1e-6)
        np.testing.assert_allclose(written.model.symmetries, own.model.symmetries, atol=1e-6)
        drawn = [part for part in own.parts if part.draw]
        assert len(written.parts[0].faces) == sum(len(part.faces) for part in drawn)
        wanted = np.concatenate([np.broadcast_to(part.colours, (len(part.faces), 3)) for part in drawn])
        found = np.broadcast_to(written.parts[0].colours, wanted.shape)
        np.testing.assert_allclose(found, np.clip(wanted, 0, 1), atol=0.01)  # eight bits a channel


def test_a_set_can_be_taken_elsewhere(lmo: Path, tmp_path: Path) -> None:
    shutil.copytree(lmo / 'models', tmp_path / 'cad' / 'models')
    assert render.render_dataset(str(tmp_path / 'cad'), tmp_path / 'set', 1, 3, 160, 120) == 1
    table = tmp_path / 'cad' / 'models' / 'models_info.json'
    infos = json.loads(table.read_text())
    infos['1']['diameter'] *= 1.1
    table.write_text(json.dumps(infos))
    with pytest.raises(ValueError, match='other arguments: diameters'):  # other objects of the same names
        render.render_dataset(str(tmp_path / 'cad'), tmp_path / 'set', 2, 3, 160, 120)
    shutil.rmtree(tmp_path / 'cad')
    (tmp_path / 'set').rename(tmp_path / 'carried')
    carried = BopDataset(tmp_path / 'carried', 'train')
    assert list(carried.objects()) == list(BopDataset(lmo).objects()) and carried.frame(0).labels
    assert len(carried.drawn_objects()) == 8


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_pictures_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(render, 'FRAMES', 2)
    caplog.set_level('INFO')
    for jobs in (1, 2):  # a folder of the same name: the contact sheet shows it
        assert render.render_dataset('tools', tmp_path / str(jobs) / 'set', 5, 3, 160, 120, jobs=jobs) == 5
    one, two = content(tmp_path / '1' / 'set'), content(tmp_path / '2' / 'set')
    assert sorted(one) == sorted(two) and all(one[name] == two[name] for name in one)
    assert {'contact_sheet.png', 'train/000002/rgb/000000.jpg', 'train/000000/mask_visib/000001_000000.png'} <= set(one)
    assert not [name for name in one if 'partial' in name]
    assert '5 of 5 pictures' in caplog.text and 'a second, 0:00 min left' in caplog.text
    sheet = cv2.imread(str(tmp_path / '2' / 'set' / 'contact_sheet.png'))
    assert sheet.shape[1] > 5 * 400 and sheet.std() > 20


def test_a_process_that_fails_ends_the_command_with_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render, 'FRAMES', 2)
    photos = tmp_path / 'photos'
    photos.mkdir()
    (photos / 'broken.jpg').write_bytes(b'this is no picture')
    with pytest.raises(ValueError, match='broken.jpg'):
        render.render_dataset('tools', tmp_path / 'set', 4, 3, 160, 120, photos, jobs=2)
    assert not list((tmp_path / 'set').rglob('*.jpg'))


def die(_share: int, report: Callable[[], None]) -> None:
    report()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_noticed() -> None:
    counted: list[int] = []
    with pytest.raises(OSError, match='ended with status -9'):
        in_processes(die, [1], lambda: counted.append(1))
    assert counted == [1]


@pytest.mark.parametrize('option, says', [(('--jobs', '0'), '--jobs 0'), (('--shard', '2/2'), '0 <= i < n'),
                                          (('--shard', 'half'), 'expected i/n'), (('--count', '-1'), '--count -1')])
def test_bad_options_are_named(option: tuple[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        render.main(['--out', str(tmp_path), *option])


def test_layout_defaults() -> None:
    assert DROPPED.upright == 0 and DROPPED.reuse > 1
