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
from sim2real_da.networks.weights_file import read_weights, remove_unfinished, write_atomically

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
        try:
            remove_unfinished(self.folder)
        except OSError as error:  # a disk that is read-only can be started from
            log.warning('%s: what a killed process left cannot be removed: %s', self.folder, error)
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
        :raises FileExistsError: when another learner has written this version; it stays
        :raises OSError: when the disk is full or read-only; nothing is lost then
        """
        if bundle.version <= self._highest:
            raise ValueError(f'{self.folder}: version {bundle.version} is not above {self._highest}')
        path, state = self.path(bundle.version), self.learner_path(bundle.version)
        if path.exists():
            raise FileExistsError(f'{path}: exists already; does another learner write into this folder?')
        try:
            if learner is not None:
                write_atomically(state, learner)
            else:
                state.unlink(missing_ok=True)  # one that could not be removed before is not of these weights
            bundle.save(path)
        except BaseException:
            self._drop_states()  # on a full disk the new one takes the room that the next version needs
            raise
        self._highest = bundle.version
        kept = sorted(self.versions(), key=lambda v: (v != instead_of, v))
        for version in kept[:-self.keep]:
            _remove(self.path(version))
        self._drop_states()
        return path

    def learner(self, version: int) -> bytes | None:
        """Return the learner's state at a version, None where there is none or it cannot be read."""
        path = self.learner_path(version)
        try:
            return read_weights(path) if path.is_file() else None
        except (OSError, WeightsError) as error:
            log.warning('%s: this state of the learner cannot be read: %s', path, error)
            return None

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
                _remove(path)

    def load(self, version: int | None = None, like: Bundle | None = None) -> Bundle:
        """Return a version, or the newest one that can be read.

        :raises WeightsError: when there is none, or the disk cannot read it
        """
        if version is not None:
            try:
                return Bundle.load(self.path(version), like)
            except OSError as error:  # what the disk cannot read is as good as damaged
                raise WeightsError(f'{self.path(version)}: cannot be read: {error}') from error
        for candidate in reversed(self.versions()):
            try:
                return self.load(candidate, like)
            except WeightsError as error:
                log.warning('%s; trying the version before', error)
        raise WeightsError(f'{self.folder}: no usable version of the weights')


def _remove(path: Path) -> None:
    """Remove a file; one that stays costs room and is tried again at the next version."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning('%s: cannot be removed: %s', path, error)
