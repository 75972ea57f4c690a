# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Read and write data sets in the BOP layout (https://bop.felk.cvut.cz).

BOP counts millimetres and writes rotation matrices, some of them not orthonormal: both are converted here, once.
Beyond the standard this file knows three additions of its own: ``instances/NNNNNN.png`` (one picture of object numbers,
faster to read than one mask per object; 0 is background, n is the n-th entry of that frame's ground truth), and class
names other than ``obj_%06d`` from ``dataset.json`` (``names``, by id) or ``models_info.json`` (``name`` of an entry).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.data.decoding import decoded
from sim2real_da.geometry import matrix_from_quaternion, project, quaternion_from_matrix, transform_points
from sim2real_da.samples import Frame, Intrinsics, LabelledFrame, ObjectLabel, ObjectModel, Pose
from sim2real_da.simulation.objects import (
    SimObject,
    bop_diameters,
    bop_models,
    bop_names,
    bop_objects,
    load_objects,
)

LOG = logging.getLogger(__name__)
_T = TypeVar('_T')
SCENE_STEP = 1_000_000  # id of a frame = scene * SCENE_STEP + number, where a split has several scenes
LMO_LAST_ADAPTATION = 611
MASKS = {'instances': ('instances',), 'mask_visib': ('mask_visib',), 'both': ('instances', 'mask_visib'), 'none': ()}
NEAREST = 0.01  # metres from the camera to an object's origin
_ENDINGS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9'}


def class_name(number: int) -> str:
    """Return the class name of a BOP object id."""
    return f'obj_{number:06d}'


def lmo_split(ids: Iterable[int]) -> tuple[list[int], list[int]]:
    """Split LineMOD-Occluded's frames by time: ``(adaptation, scoring)``; they never overlap."""
    ordered = sorted(set(ids))
    return [i for i in ordered if i <= LMO_LAST_ADAPTATION], [i for i in ordered if i > LMO_LAST_ADAPTATION]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a PNG or JPEG as RGB uint8 ``(H, W, 3)``.

    :raises FileNotFoundError: when there is no such file
    :raises ValueError: when the file is truncated or not a picture
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such picture')
    data = path.read_bytes()
    ending = _ENDINGS.get(path.suffix.lower(), b'')
    # decoders fill up what is missing with grey and say nothing; a complete file has its end marker
    if ending not in data[-64:]:
        raise ValueError(f'{path}: truncated ({len(data)} bytes, no end marker); copy the file again')
    picture = decoded(data)
    if picture is None:
        raise ValueError(f'{path}: not readable as a picture ({len(data)} bytes); copy the file again')
    return picture


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: not readable as JSON ({error}); copy the file again') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected a JSON object by frame number, got a {type(content).__name__}')
    return content


class _Scene:
    """One scene folder: its pictures' numbers, cameras and ground truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        camera = folder / 'scene_camera.json'
        if not camera.is_file():
            raise FileNotFoundError(f'{camera}: missing; expected a BOP scene with one camera entry per picture')
        self.cameras = {int(k): v for k, v in _json(camera).items()}
        truth, info = folder / 'scene_gt.json', folder / 'scene_gt_info.json'
        self.truth = {int(k): v for k, v in _json(truth).items()} if truth.is_file() else None
        self.info = {int(k): v for k, v in _json(info).items()} if info.is_file() else {}
        pictures = folder / 'rgb'
        self.images = {int(p.stem): p for p in sorted(pictures.glob('*')) if p.suffix.lower() in _ENDINGS}
        if not self.images:
            raise FileNotFoundError(f'{pictures}: no PNG or JPEG pictures; expected rgb/NNNNNN.png')

    def camera(self, number: int, width: int, height: int) -> Intrinsics:
        if number not in self.cameras:
            raise ValueError(f'{self.folder}/scene_camera.json: no entry for picture {number}')
        try:
            k = [float(v) for v in self.cameras[number]['cam_K']]
            return Intrinsics(width, height, k[0], k[4], k[2], k[5])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f'{self.folder}/scene_camera.json: picture {number}: {type(error).__name__} {error}; '
                             'expected cam_K with nine numbers') from error

    def masks(self, number: int, count: int) -> list[NDArray[np.bool_] | None]:
        together = self.folder / 'instances' / f'{number:06d}.png'
        if together.is_file():
            numbers = cv2.imread(str(together), cv2.IMREAD_UNCHANGED)
            if numbers is None:
                raise ValueError(f'{together}: not readable as a picture; copy the file again')
            return [np.asarray(numbers == n + 1) for n in range(count)]
        found: list[NDArray[np.bool_] | None] = []
        for n in range(count):
            path = self.folder / 'mask_visib' / f'{number:06d}_{n:06d}.png'
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
            found.append(None if mask is None else np.asarray(mask > 0))
        return found


class BopDataset:
    """A split of a BOP data set.

    :param folder: the data set (has ``split/`` and, mostly, ``models/``)
    :param models: folder of the models, where it is not in ``folder``
    :raises FileNotFoundError: when the folder, the split or its pictures are missing
    :raises ValueError: when a JSON file cannot be read
    """

    def __init__(self, folder: Path | str, split: str = 'test', models: Path | str | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f'{self.folder}: no such folder; expected a BOP data set')
        base = self.folder / split
        scenes = sorted(p for p in base.glob('*') if p.is_dir() and p.name.isdigit()) if base.is_dir() else []
        if not scenes:
            present = ', '.join(sorted(p.name for p in self.folder.iterdir() if p.is_dir())) or 'nothing'
            raise FileNotFoundError(f'{base}: no scene folders (NNNNNN); {self.folder} has {present}')
        self._models = Path(models) if models is not None else None
        self._scenes = {int(p.name): _Scene(p) for p in scenes}
        self._many = len(self._scenes) > 1
        camera_file = self.folder / 'camera.json'
        camera = _json(camera_file) if camera_file.is_file() else {}
        self._size = (camera['width'], camera['height']) if {'width', 'height'} <= set(camera) else None
        described = self.folder / 'dataset.json'
        self._description = _json(described) if described.is_file() else {}
        self._names = {int(k): str(v) for k, v in self._description.get('names', {}).items()} or self._model_names()

    @property
    def has_ground_truth(self) -> bool:
        """Whether every scene has labels."""
        return all(scene.truth is not None for scene in self._scenes.values())

    def _model_names(self) -> dict[int, str]:
        try:
            return bop_names(self._models or self.folder)
        except FileNotFoundError:  # pictures can be read without models; objects() says what is missing
            return {}

    @cached_property
    def _object_models(self) -> dict[str, ObjectModel]:
        if self._of_tools():
            return {item.name: item.model for item in load_objects('tools')}
        return self._from_models(bop_models)

    def _of_tools(self) -> bool:
        return self._models is None and self._description.get('objects') == 'tools'

    def _from_models(self, read: Callable[[Path], _T]) -> _T:
        """Read the models where they are: beside the pictures, or where the set was rendered from."""
        spec = str(self._description.get('objects', ''))
        candidates = [self._models] if self._models else [self.folder, *([Path(spec)] if spec else [])]
        errors = []
        for candidate in candidates:
            try:
                return read(candidate)
            except FileNotFoundError as error:
                errors.append(str(error))
        raise FileNotFoundError('; '.join(errors))

    def diameters(self) -> dict[str, float]:
        """Return the objects' diameters in metres by class name; empty where there are no models."""
        if self._of_tools():
            return {name: model.diameter for name, model in self.objects().items()}
        try:
            return self._from_models(bop_diameters)
        except FileNotFoundError:
            return {}

    def objects(self) -> dict[str, ObjectModel]:
        """Return the object models by class name, in order of their ids.

        :raises FileNotFoundError: when there is no models folder
        """
        return dict(self._object_models)

    def drawn_objects(self) -> list[SimObject]:
        """Return the objects as the simulator draws them, in the same order.

        :raises FileNotFoundError: when there is no models folder
        """
        return load_objects('tools') if self._of_tools() else self._from_models(bop_objects)

    def name(self, number: int) -> str:
        """Return the class name of an object id."""
        return self._names.get(number, class_name(number))

    def classes(self) -> set[str]:
        """Return the names of all classes in the ground truth."""
        return {
            self.name(int(entry['obj_id']))
            for scene in self._scenes.values() for entries in (scene.truth or {}).values() for entry in entries
        }

    def instances(self, least: float) -> int:
        """Return how many labelled objects are visible by at least this share; without the share they count."""
        return sum(float(info.get('visib_fract', 1.0)) >= least
                   for scene in self._scenes.values() for number, entries in (scene.truth or {}).items()
                   for info in (scene.info.get(number) or [{}] * len(entries)))

    def shares(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Return which share of each frame's pixels shows each class ``(N, C)``, in the order of their names.

        All pictures have the first one's size.

        :raises ValueError: where ``scene_gt_info.json`` counts no pixels
        """
        names = sorted(self.classes())
        counts = np.zeros((len(ids), len(names)))
        for row, frame_id in enumerate(ids):
            scene, number = self._find(frame_id)
            entries = (scene.truth or {}).get(number, [])
            for entry, info in zip(entries, scene.info.get(number) or [{}] * len(entries)):
                if 'px_count_visib' not in info:
                    raise ValueError(f'{scene.folder}/scene_gt_info.json: picture {number} has no px_count_visib; '
                                     'expected the visible pixels of every object (the BOP toolkit counts them)')
                counts[row, names.index(self.name(int(entry['obj_id'])))] += info['px_count_visib']
        return counts / self.frame(ids[0]).frame.image[..., 0].size

    def ids(self) -> list[int]:
        """Return the ids of all frames in order; with one scene they are the pictures' numbers."""
        return [frame_id for scene in self.scenes() for frame_id in scene]

    def scenes(self) -> list[list[int]]:
        """Return the ids of the frames of each scene, in order."""
        return [
            [number * SCENE_STEP * self._many + picture for picture in sorted(content.images)]
            for number, content in sorted(self._scenes.items())
        ]

    def _find(self, frame_id: int) -> tuple[_Scene, int]:
        scene, number = divmod(frame_id, SCENE_STEP) if self._many else (next(iter(self._scenes)), frame_id)
        if scene not in self._scenes or number not in self._scenes[scene].images:
            raise KeyError(f'{self.folder}: no frame {frame_id}; ids() lists those there are')
        return self._scenes[scene], number

    def image_path(self, frame_id: int) -> Path:
        """Return the file of a frame's picture."""
        scene, number = self._find(frame_id)
        return scene.images[number]

    def frame(self, frame_id: int) -> LabelledFrame:
        """Read a frame; ``stamp`` is its id.

        Objects of which nothing is visible have no label. Without ground truth there are no labels at all.

        :raises ValueError: when the picture is truncated or an entry is malformed
        """
        scene, number = self._find(frame_id)
        image = read_image(scene.images[number])
        height, width = image.shape[:2]
        if self._size is not None and (width, height) != self._size:
            raise ValueError(f'{scene.images[number]}: {width}x{height} pixels, {self.folder / "camera.json"} says '
                             f'{self._size[0]}x{self._size[1]}; intrinsics and labels are of that size')
        frame = Frame(image, scene.camera(number, width, height), frame_id)
        entries = (scene.truth or {}).get(number, [])
        info = scene.info.get(number, [])
        masks = scene.masks(number, len(entries))
        if any(mask is not None and mask.shape != (height, width) for mask in masks):
            raise ValueError(f'{scene.folder}: the masks of picture {number} have another size than the picture, '
                             f'{width}x{height}')
        labels = []
        for index, entry in enumerate(entries):
            try:
                label = self._label(entry, info[index] if index < len(info) else {}, masks[index])
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f'{scene.folder}/scene_gt.json: frame {number}, entry {index}: {error}') from error
            if label is not None:
                labels.append(label)
        return LabelledFrame(frame, tuple(labels))

    def _label(
        self, entry: Mapping[str, Any], info: Mapping[str, Any], mask: NDArray[np.bool_] | None,
    ) -> ObjectLabel | None:
        name = self.name(int(entry['obj_id']))
        pose = Pose(
            quaternion_from_matrix(np.asarray(entry['cam_R_m2c'], dtype=np.float64).reshape(3, 3)),
            np.asarray(entry['cam_t_m2c'], dtype=np.float64) / 1000)
        if np.linalg.norm(pose.translation) < NEAREST:
            raise ValueError(f'cam_t_m2c {entry["cam_t_m2c"]}: an object closer than a centimetre; it seems to be in '
                             'metres, expected millimetres')
        visible = float(info['visib_fract']) if 'visib_fract' in info else None
        if visible == 0:
            return None
        if 'bbox_visib' in info:
            x, y, w, h = (float(v) for v in info['bbox_visib'])
            if w < 0 or h < 0:  # BOP writes -1 for nothing visible
                return None
            # BOP: w = last pixel - first pixel; our box holds whole pixels
            box = np.array([x - 0.5, y - 0.5, x + w + 0.5, y + h + 0.5])
        elif mask is not None and mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
        else:
            raise ValueError('no bbox_visib in scene_gt_info.json and no mask; compute one with the BOP toolkit')
        return ObjectLabel(name, box, pose, visible, mask)


def write_scene(
    folder: Path, frames: Iterable[LabelledFrame], object_ids: Mapping[str, int], *, first: int = 0,
    quality: int = 92, lossless: bool = False, masks: str = 'instances',
    objects: Mapping[str, ObjectModel] | None = None,
) -> int:
    """Write frames as one BOP scene; the folder appears when it is complete.

    :param folder: the scene, ``.../split/NNNNNN``; one of that name is replaced
    :param object_ids: class name -> BOP object id
    :param first: number of the first picture
    :param quality: of the JPEG pictures
    :param lossless: write PNG pictures
    :param objects: what the classes look like, for the boxes of whole objects (``bbox_obj``); None: none are written
    :param masks: ``instances`` (one picture a frame), ``mask_visib`` (BOP's, one an object), ``both`` or ``none``
    :return: number of frames written
    :raises ValueError: for another word for ``masks``
    :raises KeyError: for a class without an id
    """
    if masks not in MASKS:
        raise ValueError(f'masks: got {masks!r}, expected {", ".join(MASKS)}')
    folder = Path(folder)
    partial = folder.with_name(f'.{folder.name}.{os.getpid()}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for needed in ('rgb', *MASKS[masks]):
        (partial / needed).mkdir(parents=True)
    try:
        number = _write_frames(partial, frames, object_ids, first, quality, lossless, MASKS[masks], objects or {})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return number


def _write_frames(
    partial: Path, frames: Iterable[LabelledFrame], object_ids: Mapping[str, int], first: int, quality: int,
    lossless: bool, masks: Sequence[str], objects: Mapping[str, ObjectModel],
) -> int:
    camera: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    info: dict[str, Any] = {}
    number = first - 1
    for number, labelled in enumerate(frames, start=first):
        picture = cv2.cvtColor(labelled.frame.image, cv2.COLOR_RGB2BGR)
        name = f'{number:06d}'
        if lossless:
            _save(partial / 'rgb' / f'{name}.png', picture, [])
        else:
            _save(partial / 'rgb' / f'{name}.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if 'instances' in masks:
            _save_instances(partial / 'instances' / f'{name}.png', labelled)
        if 'mask_visib' in masks:
            _save_visible(partial / 'mask_visib', name, labelled)
        camera[str(number)] = {'cam_K': labelled.frame.intrinsics.matrix().ravel().tolist(), 'depth_scale': 1.0}
        truth[str(number)] = [_truth(label, object_ids) for label in labelled.labels]
        info[str(number)] = [_info(label, labelled.frame.intrinsics, objects.get(label.name))
                             for label in labelled.labels]
    for file, content in (('scene_camera', camera), ('scene_gt_info', info), ('scene_gt', truth)):
        (partial / f'{file}.json').write_text(json.dumps(content))
    return number - first + 1


def _save(path: Path, picture: NDArray[Any], options: Sequence[int]) -> None:
    if not cv2.imwrite(str(path), picture, list(options)):
        raise OSError(f'{path}: could not be written; is the disk full?')


def _save_instances(path: Path, labelled: LabelledFrame) -> None:
    numbers = np.zeros(labelled.frame.image.shape[:2], dtype=np.uint8)
    for index, label in enumerate(labelled.labels):
        if label.mask is not None:
            numbers[label.mask] = index + 1
    _save(path, numbers, [])  # OpenCV's own choice is both faster and smaller than any level asked for


def _save_visible(folder: Path, name: str, labelled: LabelledFrame) -> None:
    for index, label in enumerate(labelled.labels):
        if label.mask is not None:
            mask = np.uint8(255) * label.mask.astype(np.uint8)
            _save(folder / f'{name}_{index:06d}.png', mask, [])


def _truth(label: ObjectLabel, object_ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        'cam_R_m2c': matrix_from_quaternion(label.pose.quaternion).ravel().tolist(),
        'cam_t_m2c': (1000 * label.pose.translation).tolist(),
        'obj_id': object_ids[label.name],
    }


def _info(label: ObjectLabel, intrinsics: Intrinsics, model: ObjectModel | None) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(v) for v in label.box)
    entry: dict[str, Any] = {'bbox_visib': [x0 + 0.5, y0 + 0.5, x1 - x0 - 1, y1 - y0 - 1]}
    if model is not None:  # the whole object, also what is hidden or outside of the picture
        pixels = np.rint(project(transform_points(model.points, label.pose), intrinsics))
        left, top, right, bottom = (int(v) for v in (*np.nanmin(pixels, axis=0), *np.nanmax(pixels, axis=0)))
        entry['bbox_obj'] = [left, top, right - left, bottom - top]
    if label.visible is not None:
        entry['visib_fract'] = label.visible
    if label.mask is not None:
        seen = int(label.mask.sum())
        entry['px_count_visib'] = seen
        if label.visible:
            # of the whole silhouette; there is no depth picture that could lack any of them
            entry['px_count_all'] = entry['px_count_valid'] = round(seen / label.visible)
    return entry
