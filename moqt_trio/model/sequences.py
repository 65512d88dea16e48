"""SequenceSet, KeySet: the sequences of a track's groups, and the keys of their parts, in bounded memory."""

from __future__ import annotations

import bisect
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from .keys import DATAGRAM, PartKey, sequence_of

if TYPE_CHECKING:
    from .keys import GroupKey

_LEAST_RANGES = 16
"""Ranges of the parts of one group that are stored in any case: its subgroups and its datagrams are two at least."""


class SequenceSet:
    """A set of sequences, stored as ranges: a series without gaps is one range, however long.

    Args:
        most: Ranges to store at most. Beyond that, the lowest gap is closed: its numbers, the oldest, count as used.
    """

    __slots__ = ("_most", "_starts", "_stops")

    def __init__(self, most: int) -> None:
        self._most = most
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __contains__(self, number: int) -> bool:
        index = bisect.bisect_right(self._starts, number) - 1
        return index >= 0 and number < self._stops[index]

    def covers(self, first: int, last: int) -> bool:
        """Return whether the set has every number between two, inclusive."""
        index = bisect.bisect_right(self._starts, first) - 1
        return first > last or (index >= 0 and last < self._stops[index])

    @property
    def ranges(self) -> int:
        """How many ranges are stored."""
        return len(self._starts)

    @property
    def lowest(self) -> int | None:
        """The lowest number; None while there is none."""
        return self._starts[0] if self._starts else None

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges between two numbers, inclusive, that have no number in the set."""
        found: list[tuple[int, int]] = []
        index = bisect.bisect_right(self._stops, first)
        for start, stop in zip(self._starts[index:], self._stops[index:], strict=True):
            if start > last:
                break
            if first < start:
                found.append((first, start - 1))
            first = max(first, stop)
        if first <= last:
            found.append((first, last))
        return found

    def add(self, number: int) -> None:
        """Add a number."""
        self.add_range(number, number)

    def add_range(self, first: int, last: int) -> None:
        """Add every number between two, inclusive; some may be in the set already."""
        stop = last + 1
        # The new range merges with those that it overlaps or touches.
        low, high = bisect.bisect_left(self._stops, first), bisect.bisect_right(self._starts, stop)
        if low < high:
            first, stop = min(first, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high], self._stops[low:high] = [first], [stop]
        self._bound()

    def _bound(self) -> None:
        if len(self._starts) > self._most:
            del self._starts[1], self._stops[0]


class KeySet(SequenceSet):
    """A set of the keys of groups. As a `SequenceSet` it has the sequences of which any part is in the set.

    Where a group has one part, and that is its subgroup 0, only the sequence is stored. The parts of a group are stored
    as ranges, too.

    Args:
        most: Ranges to store at most, as above, and as many of parts. Beyond that, the parts of the lowest group are
            forgotten: every part of it and of the groups before it counts as used. Of the last group that is left, the
            lowest gap is closed.

    Attributes:
        in_parts: True once a group was known that has other parts than the subgroup 0.
    """

    __slots__ = ("_closed_below", "_count", "_lowest", "_parts", "in_parts")

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.in_parts = False
        # The parts of each group that has others than the subgroup 0, and how many ranges they are.
        self._parts: dict[int, SequenceSet] = {}
        self._count = 0
        # A heap of those groups.
        self._lowest: list[int] = []
        self._closed_below = 0

    def has_key(self, key: GroupKey) -> bool:
        """Return whether a part of a group is in the set."""
        sequence = sequence_of(key)
        if sequence not in self:
            return False
        if sequence < self._closed_below:
            return True
        parts = self._parts.get(sequence)
        part = key.part if isinstance(key, PartKey) else 0
        return part in parts if parts is not None else part == 0

    def has_datagrams_only(self, sequence: int) -> bool:
        """Return whether nothing of a group is in the set but its datagrams."""
        parts = self._parts.get(sequence)
        return parts is not None and parts.lowest == DATAGRAM

    def add_key(self, key: GroupKey) -> None:
        """Add a part of a group."""
        sequence = sequence_of(key)
        parts = self._parts.get(sequence)
        if isinstance(key, PartKey) or parts is not None:
            if parts is None:
                self.in_parts = True
                parts = self._parts[sequence] = SequenceSet(max(self._most, _LEAST_RANGES))
                heappush(self._lowest, sequence)
                if sequence in self:
                    parts.add(0)
                    self._count += 1
            self._count -= parts.ranges
            parts.add(key.part if isinstance(key, PartKey) else 0)
            self._count += parts.ranges
            while self._count > self._most and len(self._parts) > 1:
                lowest = heappop(self._lowest)
                self._count -= self._parts.pop(lowest).ranges
                self._closed_below = max(self._closed_below, lowest + 1)
        self.add(sequence)
