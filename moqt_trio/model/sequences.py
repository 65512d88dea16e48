"""SequenceSet: the sequences of a track's groups, in bounded memory."""

from __future__ import annotations

import bisect


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
