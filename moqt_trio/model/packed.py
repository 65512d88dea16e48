"""PackedFrames: a run of a long group's older frames, without an object for each.

A frame of twelve bytes takes 300 as an object, and about 20 in a run. So a sensor that writes its readings into one
endless group keeps hours of them in the memory that would hold minutes.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

from ..frame import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

_OBJECTS = 300
"""Bytes that a run takes beside what is in it."""


class PackedFrames:
    """Frames that follow each other in a group; each is made anew when it is asked for.

    Args:
        first: The index of the first one in its group.
        frames: The frames, at least one, each with a timestamp.

    Attributes:
        first: As above.
        size: Bytes that the run takes: the payloads, where they end, the timestamps, and the objects that hold them.
    """

    __slots__ = ("_earliest", "_ends", "_payloads", "_timestamps", "first", "size")

    def __init__(self, first: int, frames: Sequence[Frame]) -> None:
        timestamps = [frame.timestamp or 0 for frame in frames]
        self.first = first
        self._earliest = min(timestamps)
        self._payloads = b"".join(frames)
        self._ends = _smallest_array(list(accumulate(map(len, frames))))
        self._timestamps = _smallest_array([timestamp - self._earliest for timestamp in timestamps])
        numbers = len(frames) * (self._ends.itemsize + self._timestamps.itemsize)
        self.size = len(self._payloads) + numbers + _OBJECTS

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Frame:
        start = self._ends[index - 1] if index else 0
        return Frame(self._payloads[start : self._ends[index]], self._earliest + self._timestamps[index])

    @property
    def first_timestamp(self) -> int:
        """The timestamp of the first one."""
        return self._earliest + self._timestamps[0]

    def bytes_between(self, start: int, stop: int) -> int:
        """Return the payload bytes from one index up to another, exclusive; both count from the first frame."""
        if stop <= start:
            return 0
        return self._ends[stop - 1] - (self._ends[start - 1] if start else 0)


def _smallest_array(numbers: list[int]) -> array[int]:
    most = max(numbers)
    return array(next(code for code in "BHIQ" if most < 1 << 8 * array(code).itemsize), numbers)
