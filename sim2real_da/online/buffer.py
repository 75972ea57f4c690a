# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Bounded memory of unlabelled real frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.samples import Frame

THUMBNAIL = (16, 12)


class FrameBuffer:
    """Keeps the newest frames that differ from those before, within a fixed number of bytes.

    A robot that stands still sees one picture: a frame is admitted only when a blurred thumbnail of it differs from the
    last admitted one.

    :param capacity_bytes: upper bound of the pixels kept
    :param novelty: least mean absolute difference of the thumbnails, grey levels 0..255
    :raises ValueError: for a capacity that is not positive
    """

    def __init__(self, capacity_bytes: int, novelty: float = 2.0) -> None:
        if capacity_bytes <= 0:
            raise ValueError(f'buffer: expected a positive capacity in bytes, got {capacity_bytes}')
        self.capacity_bytes, self.novelty = capacity_bytes, novelty
        self.bytes = 0
        self.admitted = 0
        self.rejected = 0
        self._frames: list[Frame] = []
        self._last: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def admit(self, frame: Frame) -> bool:
        """Add a frame, dropping the oldest ones where room is needed; False when it shows nothing new or cannot fit."""
        size = frame.image.nbytes
        thumbnail = cv2.resize(frame.image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        seen = self._last is not None and float(np.abs(thumbnail - self._last).mean()) < self.novelty
        if seen or size > self.capacity_bytes:
            self.rejected += 1
            return False
        while self.bytes + size > self.capacity_bytes:
            self.bytes -= self._frames.pop(0).image.nbytes
        # own the pixels: a view of a message would keep the whole message alive
        image = frame.image if frame.image.flags.owndata else frame.image.copy()
        self._frames.append(Frame(image, frame.intrinsics, frame.stamp, frame.frame_id))
        self.bytes += size
        self.admitted += 1
        self._last = thumbnail
        return True

    def sample(self, count: int, rng: np.random.Generator) -> list[Frame]:
        """Return ``count`` frames, without repeats where there are enough.

        :raises ValueError: when the buffer is empty
        """
        if not self._frames:
            raise ValueError('buffer: no real frame was admitted yet')
        replace = len(self._frames) < count
        return [self._frames[i] for i in rng.choice(len(self._frames), count, replace=replace)]

    def clear(self) -> None:
        """Forget every frame."""
        self._frames.clear()
        self.bytes, self._last = 0, None
