# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Bounded memory of unlabelled real frames: varied, balanced, and kept across restarts where that is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real_da.online.frame_files import FrameFiles
from sim2real_da.rectification import rectified
from sim2real_da.samples import Frame

THUMBNAIL = (16, 12)
NOTHING = ('',)  # the class of a frame in which nothing was found
REFERENCES = 24  # frames that are kept to see what is forgotten


@dataclass
class _Entry:
    """A frame, what admission compares, and which classes the network finds in it (None: not asked yet)."""

    frame: Frame
    thumbnail: NDArray[np.float32]
    classes: tuple[str, ...] | None = None
    file: Path | None = None
    reference: bool = False
    held: bool = False


class FrameBuffer:
    """Keeps frames that differ from each other, within a fixed number of bytes.

    **Admission.** A robot that stands still sees one picture: a frame is admitted only when a blurred thumbnail of it
    differs from those of *all* kept frames, so that looking to and fro between two places does not fill the memory.

    **Balance.** Where room is needed the oldest frame of the most frequent class goes, and :meth:`sample` draws a class
    first and then a frame that shows it. Classes are what the network finds (:meth:`note`); frames it was not asked
    about, and frames in which it finds nothing, are classes of their own.

    **References.** Some frames (:meth:`refer`), at most half of all, stay while others come and go.

    Frames are kept as a pinhole camera sees them (:mod:`sim2real_da.rectification`), as simulation does.

    :param capacity_bytes: upper bound of the pixels kept
    :param novelty: least mean absolute difference of the thumbnails, grey levels 0..255
    :param folder: where the frames are kept as files; None: nowhere
    :raises ValueError: for a capacity that is not positive
    """

    def __init__(self, capacity_bytes: int, novelty: float = 2.0, folder: Path | None = None) -> None:
        if capacity_bytes <= 0:
            raise ValueError(f'buffer: expected a positive capacity in bytes, got {capacity_bytes}')
        self.capacity_bytes, self.novelty = capacity_bytes, novelty
        self.bytes = 0
        self.admitted = 0
        self.rejected = 0
        self._entries: list[_Entry] = []  # oldest first
        self._looks: NDArray[np.float32] | None = None  # thumbnails of all entries (N, H, W, 3)
        self._files: FrameFiles | None = None
        if folder is not None:
            files = FrameFiles(folder)
            for path, frame in files.load(capacity_bytes):
                self._keep(rectified(frame), _thumbnail(frame), path)
            self._files = files

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether another frame like the newest would push one out."""
        return bool(self._entries) and self.bytes + self._entries[-1].frame.image.nbytes > self.capacity_bytes

    def admit(self, frame: Frame) -> bool:
        """Add a frame, dropping others where room is needed; False when it shows nothing new or cannot fit."""
        thumbnail = _thumbnail(frame)
        if frame.image.nbytes > self.capacity_bytes or self._seen(thumbnail):
            self.rejected += 1
            return False
        while self.bytes + frame.image.nbytes > self.capacity_bytes:
            self._drop()
        own = rectified(frame)
        if not own.image.flags.owndata:  # a view of a message would keep the whole message alive
            own = replace(own, image=own.image.copy())
        self._keep(own, thumbnail, self._files.write(own) if self._files is not None else None)
        self.admitted += 1
        return True

    def sample(self, count: int, rng: np.random.Generator) -> list[Frame]:
        """Return ``count`` frames, balanced by class, without repeats where there are enough.

        :raises ValueError: when the buffer is empty
        """
        if not self._entries:
            raise ValueError('buffer: no real frame was admitted yet')
        shares = self._shares()
        chosen = rng.choice(len(shares), count, replace=len(shares) < count, p=shares / shares.sum())
        return [self._entries[i].frame for i in chosen]

    def frames(self) -> list[Frame]:
        """Return all frames."""
        return [entry.frame for entry in self._entries]

    def unnoted(self, count: int = 1) -> list[Frame]:
        """Return the newest frames whose classes are not known."""
        return [e.frame for e in reversed(self._entries) if e.classes is None][:count]

    def note(self, frame: Frame, classes: set[str]) -> None:
        """Remember what the network finds in a frame of :meth:`unnoted`; one that has been dropped is ignored."""
        for entry in self._entries:
            if entry.frame is frame:
                entry.classes = tuple(sorted(classes)) or NOTHING

    def index(self) -> dict[str, list[str]]:
        """Return which frames are kept as files, and what was found in each, for :meth:`restore` after a restart."""
        return {e.file.name: list(e.classes) for e in self._entries if e.file is not None and e.classes is not None}

    def restore(self, index: dict[str, list[str]], references: Sequence[str] = ()) -> None:
        """Take over what was found in frames before a restart, and which were references."""
        for entry in self._entries:
            if entry.file is not None and entry.file.name in index:
                entry.classes = tuple(str(c) for c in index[entry.file.name])
            entry.reference = entry.file is not None and entry.file.name in references

    def hold(self, frames: Sequence[Frame]) -> None:
        """Keep these frames, and no others any more, until it is known what becomes of them."""
        for entry in self._entries:
            entry.held = any(entry.frame is frame for frame in frames)

    def refer(self, frames: Sequence[Frame], rng: np.random.Generator) -> None:
        """Keep these frames beside the references of before; of more than :data:`REFERENCES`, or than half of all
        frames, chance leaves as many."""
        for entry in self._entries:
            entry.reference = entry.reference or any(entry.frame is frame for frame in frames)
        kept = [e for e in self._entries if e.reference]
        for i in rng.permutation(len(kept))[min(REFERENCES, len(self._entries) // 2):]:
            kept[i].reference = False

    def references(self) -> list[Frame]:
        """Return the frames that are kept as references."""
        return [e.frame for e in self._entries if e.reference]

    def reference_files(self) -> list[str]:
        """Return the files of the references, for :meth:`restore`."""
        return [e.file.name for e in self._entries if e.reference and e.file is not None]

    def forget_classes(self) -> None:
        """Forget what was found: other weights may see other things."""
        for entry in self._entries:
            entry.classes = None

    def classes(self) -> dict[str, int]:
        """Return how many frames show each class; '' counts those that show nothing."""
        return dict(Counter(c for e in self._entries for c in e.classes or ()))

    def clear(self) -> None:
        """Forget every frame, on disk as well."""
        for entry in self._entries:
            if entry.file is not None:
                FrameFiles.remove(entry.file)
        self._entries.clear()
        self._looks = None
        self.bytes = 0

    def _keep(self, frame: Frame, thumbnail: NDArray[np.float32], file: Path | None) -> None:
        self._entries.append(_Entry(frame, thumbnail, None, file))
        self._looks = None
        self.bytes += frame.image.nbytes

    def _drop(self) -> None:
        """Drop the oldest frame of the most frequent class, and no reference or held one where there is another."""
        spare = [i for i, e in enumerate(self._entries) if not (e.reference or e.held)]
        spare = spare or list(range(len(self._entries)))
        counts = Counter(c for i in spare for c in _groups(self._entries[i]))
        crowded = max(counts, key=counts.__getitem__)
        index = next(i for i in spare if crowded in _groups(self._entries[i]))
        entry = self._entries.pop(index)
        self._looks = None
        self.bytes -= entry.frame.image.nbytes
        if entry.file is not None:
            FrameFiles.remove(entry.file)

    def _seen(self, thumbnail: NDArray[np.float32]) -> bool:
        """Whether a kept frame looks the same; the newest is compared first, it is the likeliest."""
        if not self._entries:
            return False
        if float(np.abs(self._entries[-1].thumbnail - thumbnail).mean()) < self.novelty:
            return True
        if self._looks is None:
            self._looks = np.stack([e.thumbnail for e in self._entries])
        return bool((np.abs(self._looks - thumbnail).mean(axis=(1, 2, 3)) < self.novelty).any())

    def _shares(self) -> NDArray[np.float64]:
        """Return how likely each frame is to be drawn: a class, then a frame with it, all alike."""
        groups = [_groups(e) for e in self._entries]
        counts = Counter(c for own in groups for c in own)
        return np.array([sum(1 / counts[c] for c in own) for own in groups])


def _groups(entry: _Entry) -> tuple[str | None, ...]:
    return (None,) if entry.classes is None else entry.classes


def _thumbnail(frame: Frame) -> NDArray[np.float32]:
    return cv2.resize(frame.image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
