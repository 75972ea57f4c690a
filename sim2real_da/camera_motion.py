# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera was when it took each of many pictures, from what stands still in them (structure from motion).

COLMAP does it (Schönberger and Frahm, *Structure-from-Motion Revisited*, CVPR 2016): features of the surroundings are
matched between pictures, and cameras and points fitted together. It needs no label, no model of anything and no marker,
and is far more exact than cameras found from estimated poses; the unit of length alone is unknown.
"""

from __future__ import annotations

import atexit
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.samples import Frame

Array = NDArray[np.float64]

LISTENS = 0.05  # seconds
FEATURES = 2000  # of a picture
FAINT = 0.003  # contrast of a feature: half of the usual, for dim and noisy pictures
FIRST, NEXT = 50, 20  # matches that fit, of the first two pictures, and of each further one: half of the usual
APART_DEG = 8.0  # between the first two cameras, seen from the points
NEIGHBOURS = 20  # later pictures each is compared with, and those 2, 4, 8... later


def camera_motion(frames: Sequence[Frame], threads: int = -1) -> Generator[None, None, list[Array | None]]:
    """Find the cameras of pictures of one place, beside whoever asks; closing the generator ends it.

    :param frames: of pinhole cameras, in the order they were taken
    :param threads: of the processor; -1: all
    :yields: twenty times a second, until it is done
    :returns: scene -> camera ``(4, 4)`` of each frame, in a unit of length of its own; None where a picture has too
        little in common with the others. Of parts that nothing connects the largest one is returned
    :raises ModuleNotFoundError: where there is no pycolmap
    """
    import pycolmap  # there is none for every kind of processor

    if not frames:
        return []
    ended: Any = pycolmap.CancellationToken()
    found: Future[list[Array | None]] = Future()

    def find() -> None:
        try:
            found.set_result(_cameras(frames, threads, ended))
        except Exception as error:  # the caller's to know of
            found.set_exception(error)

    def end() -> None:
        ended.cancel()
        worker.join()

    worker = Thread(target=find, daemon=True, name='camera_motion')
    worker.start()
    atexit.register(end)  # a program that exits does not wait for cameras
    try:
        while True:
            try:
                return found.result(LISTENS)
            except NotYet:
                yield
    finally:
        end()
        atexit.unregister(end)


def _cameras(frames: Sequence[Frame], threads: int, ended: Any) -> list[Array | None]:
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(0)
    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.num_threads = matching.num_threads = threads
    extraction.sift.max_num_features, extraction.sift.peak_threshold = FEATURES, FAINT
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap, pairing.quadratic_overlap = NEIGHBOURS, True
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads = threads
    mapping.ba_refine_focal_length = mapping.ba_refine_principal_point = mapping.ba_refine_extra_params = False
    mapping.mapper.init_min_num_inliers, mapping.mapper.abs_pose_min_num_inliers = FIRST, NEXT
    mapping.mapper.init_min_tri_angle = APART_DEG
    names = [f'{number:06d}.png' for number in range(len(frames))]
    cameras: list[Array | None] = [None] * len(frames)
    with TemporaryDirectory(prefix='camera_motion') as folder:
        pictures, database, out = Path(folder) / 'pictures', Path(folder) / 'database.db', Path(folder) / 'out'
        pictures.mkdir()
        for name, frame in zip(names, frames):
            cv2.imwrite(str(pictures / name), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        for intrinsics in dict.fromkeys(frame.intrinsics for frame in frames):
            reader = pycolmap.ImageReaderOptions()
            reader.camera_model = 'PINHOLE'
            # its pixels' middles are at halves
            reader.camera_params = f'{intrinsics.fx},{intrinsics.fy},{intrinsics.cx + 0.5},{intrinsics.cy + 0.5}'
            pycolmap.extract_features(
                database, pictures, [n for n, frame in zip(names, frames) if frame.intrinsics == intrinsics],
                pycolmap.CameraMode.SINGLE, reader, extraction, pycolmap.Device.cpu, ended)
        pycolmap.match_sequential(database, matching, pairing, device=pycolmap.Device.cpu, cancellation_token=ended)
        parts = pycolmap.incremental_mapping(database, pictures, out, mapping,
                                              cancellation_token=ended).values()
        for image in max(parts, key=lambda part: part.num_reg_images()).images.values() if parts else ():
            if image.has_pose:
                cameras[int(Path(image.name).stem)] = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
    return cameras
