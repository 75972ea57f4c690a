# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Render labelled data sets to disk, in the BOP layout.

A set is made of scenes of :data:`FRAMES` pictures. Scene n of seed s is always the same, whoever draws it: an
interrupted run continues with the scenes that are missing, ``--jobs n`` draws in n processes, and several machines
share a set with ``--shard i/n``. When it is complete, ``contact_sheet.png`` shows what is in it.

``sim2real_da render --objects tools --out FOLDER --count 1000 --seed 1 --jobs 4``
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sim2real_da.samples import Intrinsics, LabelledFrame
from sim2real_da.simulation.models import write_models
from sim2real_da.simulation.objects import LIVE_FACES, SimObject, bop_names, bop_objects, load_objects, models_folder
from sim2real_da.simulation.randomisation import Randomisation
from sim2real_da.simulation.workers import in_processes

LOG = logging.getLogger(__name__)
FRAMES = 100
SPLIT = 'train'
SHEET = 'contact_sheet.png'
MODEL_FILES = ('.ply', '.json', '.png', '.jpg', '.jpeg')  # meshes, their table, textures
REPORT_S = 10.0  # between two lines of progress


def default_intrinsics(objects: str, width: int, height: int, fov_deg: float = 55.0) -> Intrinsics:
    """Return the camera of a BOP folder (``camera.json``) scaled to a size, or an ideal one.

    :param objects: ``tools`` or a BOP folder
    :param fov_deg: horizontal angle of view where there is no ``camera.json``
    """
    if objects != 'tools':
        for folder in (Path(objects), Path(objects).parent):
            stored = folder / 'camera.json'
            if stored.is_file():
                v = json.loads(stored.read_text())
                return Intrinsics(
                    int(v['width']), int(v['height']), v['fx'], v['fy'], v['cx'], v['cy']).scaled(width, height)
    focal = width / 2 / math.tan(math.radians(fov_deg) / 2)
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def render_dataset(
    objects: str, out: Path, count: int, seed: int, width: int = 640, height: int = 480,
    photos: Path | None = None, *, intrinsics: Intrinsics | None = None,
    randomisation: Randomisation | None = None, faces: int = LIVE_FACES, shard: tuple[int, int] = (0, 1),
    jobs: int = 1,
) -> int:
    """Render ``count`` pictures into ``out/train/NNNNNN``; scenes already there are kept.

    :param objects: ``tools`` or a BOP folder
    :param photos: photographs for surfaces; None: those packaged with scikit-image
    :param intrinsics: default: of the BOP folder's ``camera.json``, scaled, or 55 degrees
    :param faces: BOP meshes are simplified to so many faces, 0 leaves them as they are
    :param shard: ``(i, n)``: draw only the scenes i, i + n, i + 2n, ...
    :param jobs: processes that draw; the pictures do not depend on it
    :return: number of pictures drawn now
    :raises ValueError: when ``out`` holds a set made with other arguments
    """
    out = Path(out)
    camera = intrinsics or default_intrinsics(objects, width, height)
    items = load_objects(objects) if objects == 'tools' or faces == LIVE_FACES else bop_objects(Path(objects), faces)
    ids = object_ids(objects, items)
    _describe(out, objects, {
        'names': {str(number): name for name, number in ids.items()}, 'seed': seed,
        'diameters': {item.name: round(item.model.diameter, 6) for item in items},
        'camera': {'width': camera.width, 'height': camera.height, 'fx': camera.fx, 'fy': camera.fy,
                   'cx': camera.cx, 'cy': camera.cy},
        'faces': faces, 'randomisation': asdict(randomisation or Randomisation()), 'photographs': _names(photos)})
    sizes = {out / SPLIT / f'{scene:06d}': min(FRAMES, count - scene * FRAMES)
             for scene in range(math.ceil(count / FRAMES))}
    # a scene of a smaller set that this one goes on from has fewer pictures than it should
    missing = [(folder, frames) for folder, frames in list(sizes.items())[shard[0]::shard[1]]
               if pictures_in(folder) < frames]
    progress = _Progress(sum(frames for _, frames in missing))
    draw = _Draw(items, ids, camera, seed, randomisation, photos)
    if jobs > 1 and len(missing) > 1:
        in_processes(draw, [missing[n::jobs] for n in range(min(jobs, len(missing)))], progress)
    else:
        draw(missing, progress)
    if all(pictures_in(folder) >= frames for folder, frames in sizes.items()) and (
            missing or not (out / SHEET).is_file()):
        from sim2real_da.simulation.contact_sheet import write_contact_sheet

        write_contact_sheet(out, SPLIT, out / SHEET)
        LOG.info('%s: complete, %d pictures; %s shows some', out,
                 sum(pictures_in(folder) for folder in (out / SPLIT).iterdir()), SHEET)
    return progress.drawn


def pictures_in(scene: Path) -> int:
    """Return how many pictures a scene has; 0 when it is not there."""
    return sum(1 for _ in (scene / 'rgb').glob('*'))


def _names(photos: Path | None) -> dict[str, object]:
    """Return what tells one folder of photographs from another, wherever it lies."""
    if photos is None:
        return {'count': 0}
    names = sorted(path.name for path in Path(photos).iterdir())
    return {'count': len(names), 'names': f'{zlib.crc32(chr(10).join(names).encode()):08x}'}


def object_ids(objects: str, items: Sequence[SimObject]) -> dict[str, int]:
    """Return a BOP id for each class: that of a BOP folder, else the place in the list, from 1."""
    if objects == 'tools':
        return {item.name: place for place, item in enumerate(items, start=1)}
    return {name: number for number, name in bop_names(Path(objects)).items()}


class _Progress:
    """Counts pictures and says now and then how fast they come and how long it will take."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.drawn = wanted, 0
        self._first = self._said = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        self.drawn += 1
        if self.drawn == 1:  # the clock starts here: processes and worlds take long to start, once
            self._first = self._said = now
        elif now - self._said >= REPORT_S or self.drawn == self.wanted:
            self._said = now
            rate = (self.drawn - 1) / max(now - self._first, 1e-3)
            minutes, seconds = divmod(round((self.wanted - self.drawn) / rate), 60)
            LOG.info('%d of %d pictures, %.1f a second, %d:%02d min left', self.drawn, self.wanted, rate, minutes,
                     seconds)


@dataclass(frozen=True)
class _Draw:
    """Draws scenes; everything it needs travels to another process with it."""

    items: Sequence[SimObject]
    ids: dict[str, int]
    camera: Intrinsics
    seed: int
    randomisation: Randomisation | None
    photos: Path | None

    def __call__(self, scenes: Sequence[tuple[Path, int]], drawn: Callable[[], None]) -> None:
        from sim2real_da.data.bop import write_scene

        for folder, count in scenes:
            write_scene(folder, self._frames(int(folder.name), count, drawn), self.ids, masks='both',
                        objects={item.name: item.model for item in self.items})

    def _frames(self, scene: int, count: int, drawn: Callable[[], None]) -> Iterator[LabelledFrame]:
        from sim2real_da.simulation.simulator import Simulator  # MuJoCo is loaded when pictures are drawn, not before

        simulator = Simulator(
            self.items, self.camera, seed=(self.seed, scene), randomisation=self.randomisation, photos=self.photos)
        try:
            for _ in range(count):
                yield simulator.sample()
                drawn()
        finally:
            simulator.close()


def _describe(out: Path, objects: str, described: dict[str, Any]) -> None:
    """Write down what the set was made with, and as BOP does what camera.

    :raises ValueError: when it was made with something else; where the models lie makes no difference
    """
    path = out / 'dataset.json'
    if path.is_file():
        stored = json.loads(path.read_text())
        for name, value in described.items():
            if stored.get(name, value) != value:  # a set of an earlier version has fewer entries
                raise ValueError(f'{path}: the set here was made with other arguments: {name} was {stored[name]}, is '
                                 f'{value}; choose another folder')
        return
    spec, models = objects, out / 'models'
    out.mkdir(parents=True, exist_ok=True)
    if objects == 'tools':
        write_models(load_objects(objects), models)
    else:
        folder = models_folder(Path(objects)).resolve()
        spec = str(folder)
        models.mkdir(exist_ok=True)
        for file in folder.iterdir():  # so that the set is of use wherever it is taken, to other tools, too
            if file.suffix.lower() in MODEL_FILES and folder != models.resolve():
                shutil.copyfile(file, models / file.name)
    path.write_text(json.dumps({'objects': spec, **described}, indent=1))
    (out / 'camera.json').write_text(json.dumps({**described['camera'], 'depth_scale': 1.0}, indent=1))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da render``."""
    parser.add_argument('--objects', default='tools', help='tools, or a BOP folder with models/')
    parser.add_argument('--out', type=Path, required=True, help='folder of the data set; its scenes go to train/')
    parser.add_argument('--count', type=int, default=1000, help='number of pictures')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--photos', type=Path, default=None, help='folder of photographs for tables and walls')
    parser.add_argument('--faces', type=int, default=LIVE_FACES, help='simplify BOP meshes to this; 0: do not')
    parser.add_argument('--jobs', type=int, default=1, help='processes that draw; the pictures do not depend on it')
    parser.add_argument('--shard', default='0/1', help='i/n: draw every n-th scene from the i-th on (several machines)')
    for group in Randomisation.__dataclass_fields__:
        parser.add_argument(f'--no-{group}', dest=group, action='store_false', help=f'do not randomise: {group}')


def run(values: argparse.Namespace) -> None:
    """Render as asked for on the command line.

    :raises ValueError: for a number below 1, or a shard that is not i/n with 0 <= i < n
    """
    for name in ('count', 'width', 'height', 'jobs'):
        if getattr(values, name) < 1:
            raise ValueError(f'--{name} {getattr(values, name)}: expected at least 1')
    part, _, parts = values.shard.partition('/')
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise ValueError(f'--shard {values.shard}: expected i/n with 0 <= i < n')
    switches = Randomisation(**{group: getattr(values, group) for group in Randomisation.__dataclass_fields__})
    render_dataset(values.objects, values.out, values.count, values.seed, values.width, values.height, values.photos,
                   randomisation=switches, faces=values.faces, shard=(int(part), int(parts)), jobs=values.jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as ``python -m sim2real_da.simulation.render``."""
    parser = argparse.ArgumentParser(description='Render labelled pictures of objects on a table (BOP layout).')
    add_arguments(parser)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    run(parser.parse_args(arguments))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
