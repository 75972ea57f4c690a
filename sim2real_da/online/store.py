# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Versions of the weights on disk: written atomically, read back checked, the newest few kept.

Beside a version lies the learner's state at that moment. It is written first: a version that is there has its state.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sim2real_da.networks.bundle import Bundle, WeightsError
from sim2real_da.networks.weights_file import remove_unfinished, write_atomically

log = logging.getLogger(__name__)
NAME = re.compile(r'v(\d{6})\.safetensors')


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; the lock goes with the process, however it ends.

    It is on the folder itself, so that a disk that is read-only can be started from.

    :raises ValueError: when another process has it
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'{folder}: in use by another process; give every robot a state_dir of its own') from error
        yield
    finally:
        os.close(opened)


class WeightStore:
    """A folder of good versions. Versions only grow, also after a rollback.

    :param keep: newest versions kept on disk
    """

    def __init__(self, folder: Path | str, keep: int = 5) -> None:
        self.folder, self.keep = Path(folder), keep
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        self._highest = max(self.versions(), default=0)
        self._drop_states()

    def versions(self) -> list[int]:
        """Return the versions on disk, oldest first."""
        found = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def next_version(self) -> int:
        """Return a version number that was never used here."""
        return self._highest + 1

    def path(self, version: int) -> Path:
        """Return the file of a version."""
        return self.folder / f'v{version:06d}.safetensors'

    def learner_path(self, version: int) -> Path:
        """Return the file of the learner's state at a version."""
        return self.folder / f'v{version:06d}.learner.safetensors'

    def save(self, bundle: Bundle, learner: bytes | None = None, instead_of: int = 0) -> Path:
        """Write a new version and drop the oldest beyond ``keep``.

        :param learner: the learner's state
        :param instead_of: earlier version with the same weights, dropped before others: going back costs none
        :raises ValueError: for a version that is not above every earlier one
        :raises OSError: when the disk is full or read-only; nothing is lost then
        """
        if bundle.version <= self._highest:
            raise ValueError(f'{self.folder}: version {bundle.version} is not above {self._highest}')
        if learner is not None:
            write_atomically(self.learner_path(bundle.version), learner)
        path = bundle.save(self.path(bundle.version))
        self._highest = bundle.version
        kept = sorted(self.versions(), key=lambda v: (v != instead_of, v))
        for version in kept[:-self.keep]:
            self.path(version).unlink(missing_ok=True)
        self._drop_states()
        return path

    def learner(self, version: int) -> bytes | None:
        """Return the learner's state at a version, None where there is none."""
        path = self.learner_path(version)
        return path.read_bytes() if path.is_file() else None

    def readable(self) -> bool:
        """Whether any version can be read, whatever it was made for."""
        try:
            self.load()
        except WeightsError:
            return False
        return True

    def _drop_states(self) -> None:
        """Remove learners' states without a version: it was dropped, or its writer was killed in between."""
        wanted = {self.learner_path(v) for v in self.versions()}
        for path in self.folder.glob('v*.learner.safetensors'):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def load(self, version: int | None = None, like: Bundle | None = None) -> Bundle:
        """Return a version, or the newest one that can be read.

        :raises WeightsError: when there is none
        """
        if version is not None:
            return Bundle.load(self.path(version), like)
        for candidate in reversed(self.versions()):
            try:
                return Bundle.load(self.path(candidate), like)
            except WeightsError as error:
                log.warning('%s; trying the version before', error)
        raise WeightsError(f'{self.folder}: no usable version of the weights')
