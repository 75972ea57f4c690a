# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def release() -> None:
    """Ask glibc to give back what it keeps of freed memory; elsewhere nothing happens.

    Validations and steps allocate and free hundreds of megabytes in changing sizes, which leaves holes: without this a
    learner's process grows by some hundred megabytes in its first hours although it holds no more than before.
    """
    if sys.platform == 'linux':
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # musl has none
        if trim is not None:
            trim(0)
