"""GroupCursor: one group on its way to one subscriber; and the place of such a group among the others.

A range of frames is one of object ids, and a cursor counts frames. The two are the same until a group has a gap. Then
the index at which a range begins or ends is known once a frame behind that place is written (`wants_last`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .keys import PartKey

if TYPE_CHECKING:
    from ..frame import Frame
    from .group import Group


class GroupCursor:
    """One group on its way to one subscriber.

    Attributes:
        group: The group.
        start: The index of the first frame to deliver.
        position: The index of the next frame to deliver.
        offset: Bytes of that frame that were taken; -1 while it was not begun.
        stop: The index after the last frame wanted, or a higher one; None for all.
        left: Frames that the last `take` left.
        waiting: Bytes that were written, are wanted, and were not taken, with the properties of frames.
    """

    __slots__ = ("_first_id", "_last_id", "group", "left", "offset", "position", "start", "stop", "waiting")

    def __init__(self, group: Group, first_id: int = 0, last_id: int | None = None) -> None:
        self.group = group
        self._first_id = first_id
        self._last_id = last_id
        start = first_id
        stop = None if last_id is None else last_id + 1
        if group.traits is not None and group.sparse:
            # Where the frame is not written yet, the index is the highest that it can have.
            start = group.position_of(first_id) + max(first_id - group.next_id, 0)
            if last_id is not None:
                stop = group.position_of(last_id + 1) + max(last_id + 1 - group.next_id, 0)
        self.start = self.position = start = max(start, group.first)
        self.stop = stop
        self.left = 0
        self.offset = -1
        self.waiting = group.bytes_between(start, group.length if stop is None else stop)

    @property
    def waiting_frames(self) -> int:
        """Frames that were written, are wanted, and were not taken."""
        end = self.group.length if self.stop is None else min(self.group.length, self.stop)
        return max(end - self.position, 0)

    def wants_last(self) -> bool:
        """Return whether the frame that was just written is wanted. A gap before it may move the ends of the range."""
        group = self.group
        length = group.length
        if group.sparse:
            number = group.id_at(length - 1)
            if number < self._first_id:
                return False
            if length <= self.position:
                # The range begins with this frame: the ids before it do not exist.
                self.start = self.position = length - 1
            if self._last_id is not None:
                self.stop = length - 1 if number > self._last_id else length + self._last_id - number
        return length > self.position and (self.stop is None or length <= self.stop)

    @property
    def finished(self) -> bool:
        """True once everything wanted of the group was taken."""
        position, group = self.position, self.group
        if self.stop is not None and position >= self.stop:
            return True
        return group.complete and position >= group.tail + len(group.frames)

    @property
    def next_frame(self) -> Frame:
        """The next frame to deliver; there has to be one."""
        return self.group.frame(self.position)

    @property
    def has_frames(self) -> bool:
        """True while a frame is there to be taken."""
        position, group = self.position, self.group
        return position < group.tail + len(group.frames) and (self.stop is None or position < self.stop)


def oldest_first_place(entry: GroupCursor) -> tuple[int, int, int]:
    """Return the place of a group: by priority, by sequence, and by the subgroup's id (IETF draft 18, section 7.2)."""
    group = entry.group
    traits, key = group.traits, group.key
    return 0 if traits is None else -traits.rank, group.sequence, key.part if isinstance(key, PartKey) else 0


def newest_first_place(entry: GroupCursor) -> tuple[int, int, int]:
    """Return the same for newest first, which the subgroups of one group are not."""
    priority, sequence, part = oldest_first_place(entry)
    return priority, -sequence, part
