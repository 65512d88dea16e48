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

    from ..frame import Properties

_OBJECTS = 300
"""Bytes that a run takes beside what is in it."""
_ID = 40
"""Bytes of an object id, and of its place in a list."""
_PAIR = 160
"""Bytes of a property, beside those of its value: a tuple, two numbers, and their places."""


class PackedFrames:
    """Frames that follow each other in a group; each is made anew when it is asked for.

    Args:
        first: The index of the first one in its group.
        frames: The frames, at least one, each with a timestamp.

    Attributes:
        first: As above.
        size: Bytes that the run takes: the payloads, where they end, the timestamps, and the objects that hold them;
            and the object ids and properties, where a frame has one.
    """

    __slots__ = ("_earliest", "_ends", "_ids", "_payloads", "_properties", "_timestamps", "first", "size")

    def __init__(self, first: int, frames: Sequence[Frame]) -> None:
        timestamps = [frame.timestamp or 0 for frame in frames]
        self.first = first
        self._earliest = min(timestamps)
        self._payloads = b"".join(frames)
        self._ends = _smallest_array(list(accumulate(map(len, frames))))
        self._timestamps = _smallest_array([timestamp - self._earliest for timestamp in timestamps])
        numbers = len(frames) * (self._ends.itemsize + self._timestamps.itemsize)
        self.size = len(self._payloads) + numbers + _OBJECTS
        self._ids: list[int | None] | None = None
        self._properties: list[Properties] | None = None
        if any(frame.object_id is not None for frame in frames):
            self._ids = [frame.object_id for frame in frames]
            self.size += len(frames) * _ID
        if any(frame.properties for frame in frames):
            self._properties = [frame.properties for frame in frames]
            self.size += sum(map(properties_size, self._properties))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Frame:
        start = self._ends[index - 1] if index else 0
        frame = Frame(self._payloads[start : self._ends[index]], self._earliest + self._timestamps[index])
        if self._ids is not None:
            frame.object_id = self._ids[index]
        if self._properties is not None:
            frame.properties = self._properties[index]
        return frame

    @property
    def first_timestamp(self) -> int:
        """The timestamp of the first one."""
        return self._earliest + self._timestamps[0]

    def bytes_between(self, start: int, stop: int) -> int:
        """Return the payload bytes from one index up to another, exclusive; both count from the first frame."""
        if stop <= start:
            return 0
        return self._ends[stop - 1] - (self._ends[start - 1] if start else 0)


def properties_size(properties: Properties) -> int:
    """Return the bytes that the properties of one frame take."""
    return sum(_PAIR if isinstance(value, int) else _PAIR + len(value) for _, value in properties)


def _smallest_array(numbers: list[int]) -> array[int]:
    most = max(numbers)
    return array(next(code for code in "BHIQ" if most < 1 << 8 * array(code).itemsize), numbers)
