# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of several topics with exactly the same stamp, brought together in bounded memory. Knows no ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


class StampMatcher:
    """Collects one message a topic and stamp until the set is complete.

    :param required: topics that make a set complete
    :param capacity: incomplete sets kept; the oldest is dropped first
    """

    def __init__(self, required: Iterable[str], capacity: int = 20) -> None:
        self.required = set(required)
        self.capacity = capacity
        self.matched = 0
        self.dropped: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self._sets: dict[int, dict[str, Any]] = {}

    def add(self, topic: str, stamp: int, message: Any) -> dict[str, Any] | None:
        """Add one message; return the set by topic when this one completes it.

        :param stamp: nanoseconds
        """
        found = self._sets.setdefault(stamp, {})
        found[topic] = message
        if self.required <= found.keys():
            del self._sets[stamp]
            self.matched += 1
            return found
        while len(self._sets) > self.capacity:
            # insertion order, not stamp order: after a simulator's restart stamps begin again at zero
            left = self._sets.pop(next(iter(self._sets)))
            self.dropped.update(left.keys())
            self.missing.update(self.required - left.keys())
        return None

    def clear(self) -> None:
        """Forget incomplete sets; the counters stay."""
        self._sets.clear()

    def complaint(self) -> str:
        """Say which topic had no partner of the same stamp, empty when every message found one."""
        if not self.dropped:
            return ''
        held = ', '.join(f'{count} on {topic}' for topic, count in sorted(self.dropped.items()))
        lacking = ', '.join(sorted(self.missing))
        return f'messages without a partner of the same stamp: {held}; missing: {lacking}'
