# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Real frames as files, for a buffer that outlives its process: pixels and camera in one safetensors file a frame.

Written whole or not at all, so that a process that dies leaves no half ones; reading decodes and executes nothing.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sim2real_da.networks.weights_file import remove_unfinished, write_atomically
from sim2real_da.samples import Frame, Intrinsics

log = logging.getLogger(__name__)
NAME = re.compile(r'(\d{9})\.safetensors')
LARGEST = 2**28  # bytes of a picture that is read from another robot's folder
NUMBERS = ('width', 'height', 'fx', 'fy', 'cx', 'cy')


class FrameFiles:
    """A folder of frames, numbered in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        self._next = max((int(p.stem) for p in self._files()), default=-1) + 1
        self._complained = False

    def write(self, frame: Frame) -> Path | None:
        """Write a frame; None when the disk does not take it, which is said once."""
        path = self.folder / f'{self._next:09d}.safetensors'
        camera = frame.intrinsics
        about = {**{name: getattr(camera, name) for name in NUMBERS}, 'distortion': list(camera.distortion),
                 'stamp': frame.stamp, 'frame_id': frame.frame_id}
        data = save({'image': np.ascontiguousarray(frame.image)}, {'frame': json.dumps(about)})
        try:
            write_atomically(path, data)
        except OSError as error:
            if not self._complained:
                log.warning('%s: frames of the buffer cannot be kept: %s; adaptation goes on without', path, error)
            self._complained = True
            return None
        self._complained = False
        self._next += 1
        return path

    def load(self, capacity_bytes: int) -> list[tuple[Path, Frame]]:
        """Return the newest frames that fit, oldest first; older ones and damaged files are removed."""
        found: list[tuple[Path, Frame]] = []
        room = capacity_bytes
        for path in sorted(self._files(), reverse=True):
            frame = _read(path, room)
            if frame is None:
                self.remove(path)
                continue
            found.append((path, frame))
            room -= frame.image.nbytes
        return found[::-1]

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a frame's file; a disk that refuses is said."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning('%s: cannot be removed: %s', path, error)

    def _files(self) -> Iterator[Path]:
        return (p for p in self.folder.iterdir() if NAME.fullmatch(p.name))


def read_frames(folder: Path) -> Iterator[Frame]:
    """Yield the frames of a folder, oldest first, and leave it as it is; damaged files are named and passed over."""
    for path in sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name)):
        frame = _read(path, LARGEST)
        if frame is not None:
            yield frame


def _read(path: Path, room: int) -> Frame | None:
    """Return the frame of a file, None for one that is damaged or larger than the room, which is said."""
    try:
        with safe_open(path, 'np') as file:
            height, width, _ = shape = file.get_slice('image').get_shape()
            if int(np.prod(shape)) > room:
                raise ValueError(f'a picture of {width} x {height}, there is room for {room} bytes')
            about = json.loads((file.metadata() or {})['frame'])
            image = file.get_tensor('image')
        intrinsics = Intrinsics(**{name: about[name] for name in NUMBERS}, distortion=tuple(about['distortion']))
        return Frame(image, intrinsics, int(about['stamp']), str(about['frame_id']))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        log.warning('%s: left out: %s', path, error)
        return None
