# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What killed processes left of Fast DDS's shared memory.

A participant owns a segment (32 MB with config/fastdds.xml) and a lock file beside it, on which it holds an exclusive
``flock`` as long as it lives. A process that is killed frees the lock and leaves both files behind; nobody removes
them, and some hundred kills fill the memory of the machine (eProsima/Fast-DDS issue 2790).
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

FOLDER = Path('/dev/shm')
LOCK = re.compile(r'(fastrtps|fastdds)_[0-9a-f]{16}_el')  # Fast DDS 2 and 3
YOUNGEST_S = 10.0  # a participant makes its lock file before it locks it


def remove_leftovers(folder: Path = FOLDER, youngest_s: float = YOUNGEST_S) -> int:
    """Remove the segments of processes that are gone and return how many bytes that freed.

    Those of living processes, of other users, and those made a moment ago stay.

    :param folder: where shared memory lies; nothing is done where there is no such folder
    """
    freed = 0
    for lock in folder.iterdir() if folder.is_dir() else ():
        if not LOCK.fullmatch(lock.name):
            continue
        segment = lock.with_name(lock.name.removesuffix('_el'))
        try:
            if time.time() - lock.stat().st_mtime < youngest_s:
                continue
            handle = os.open(lock, os.O_RDWR)
        except OSError:  # gone in the meantime, or another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = segment.stat().st_size if segment.is_file() else 0
            segment.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            freed += size
        except OSError:  # its owner lives
            continue
        finally:
            os.close(handle)
    return freed
