"""A cursor: one subscriber's place in a track, and what became of each group for it.

A cursor copies nothing. It holds, for each group that is not yet delivered, the index of the next frame; the track
tells it what is new, and whoever serves the subscription asks it what to send next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from ..codes import StreamCode

if TYPE_CHECKING:
    from ..frame import Frame
    from ..limits import Limits
    from .group import Group


@attrs.frozen
class GroupRange:
    """Which groups and frames a subscriber wants.

    Attributes:
        start_group: The first group, or None to leave the start to the rule of `TrackState.attach`.
        end_group: The last group, inclusive; None for no end.
        start_frame: The first frame wanted of `start_group`.
        end_frame: The last frame wanted of `end_group`, inclusive; None for all of it.
    """

    start_group: int | None = None
    end_group: int | None = None
    start_frame: int = 0
    end_frame: int | None = None

    def holds(self, sequence: int) -> bool:
        """Returns True when a group lies within the range."""
        return (self.start_group is None or sequence >= self.start_group) and (
            self.end_group is None or sequence <= self.end_group
        )

    def first_frame(self, sequence: int) -> int:
        """Returns the index of the first frame wanted of a group."""
        return self.start_frame if sequence == self.start_group else 0


class GroupCursor:
    """One group on its way to one subscriber.

    Attributes:
        group: The group.
        start: The index of the first frame to deliver.
        position: The index of the next frame to deliver.
        stop: The index after the last frame wanted; None for all.
        waiting: Bytes that were written, are wanted, and were not taken.
    """

    __slots__ = ("group", "position", "start", "stop", "waiting")

    def __init__(self, group: Group, start: int, stop: int | None) -> None:
        self.group = group
        self.start = start
        self.position = start
        self.stop = stop
        end = None if stop is None else max(stop - group.first, 0)
        self.waiting = sum(len(frame) for frame in group.frames[start - group.first : end])

    @property
    def waiting_frames(self) -> int:
        """Frames that were written, are wanted, and were not taken."""
        end = self.group.length if self.stop is None else min(self.group.length, self.stop)
        return max(end - self.position, 0)

    @property
    def finished(self) -> bool:
        """True once everything wanted of the group was taken."""
        if self.stop is not None and self.position >= self.stop:
            return True
        return self.group.complete and self.position >= self.group.length

    @property
    def has_frames(self) -> bool:
        """True while a frame is there to be taken."""
        return self.position < self.group.length and (self.stop is None or self.position < self.stop)

    @property
    def behind(self) -> bool:
        """True while there is something to take: a frame, or the end of the group."""
        return self.has_frames or self.finished


class Cursor:
    """One subscriber's place in a track.

    Attributes:
        range: The groups wanted; may be changed.
        max_age: Seconds after which a group that is not the latest is dropped.
        pending: Groups that are not wholly taken, by sequence.
        backlog: Bytes that were written and not taken.
        backlog_frames: Frames that were written and not taken.
        dropped: Groups that this subscriber loses, with the code, until `take_dropped`.
        dropped_groups: How many were lost in all.
        earliest: The lowest group that it took in; None while there is none.
        latest: The highest one; -1 while there is none.
        end: The first sequence that will never come, once the track has ended.
        aborted: The code that the whole track was given up with.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        limits: Limits,
        reliable: bool,
        timescale: int,
        range: GroupRange,
        max_age: float,
    ) -> None:
        self._wake = wake
        self._limits = limits
        self._reliable = reliable
        self._timescale = timescale
        self._room_made: Callable[[], None] | None = None
        self.range = range
        self.max_age = max_age
        self.pending: dict[int, GroupCursor] = {}
        self.backlog = 0
        self.backlog_frames = 0
        self.dropped: list[tuple[int, int]] = []
        self.dropped_groups = 0
        self.end: int | None = None
        self.aborted: int | None = None
        self._news: set[int] = set()
        self._behind: set[int] = set()
        self.earliest: int | None = None
        self.latest = -1
        self._reached = -1

    # -- from the track ------------------------------------------------------------------------------------

    def watch_room(self, room_made: Callable[[], None] | None) -> None:
        """Sets who is told when this cursor takes frames; None for nobody."""
        self._room_made = room_made

    def reach(self, sequence: int) -> None:
        """Takes note that the track has come to a sequence."""
        self._reached = max(self._reached, sequence)

    def add(self, group: Group) -> None:
        """Takes in a group that has just been opened, or one that the cursor starts with."""
        sequence = group.sequence
        self.reach(sequence)
        past_end = self.end is not None and sequence >= self.end
        if past_end or not self.range.holds(sequence) or sequence in self.pending:
            if self.done:
                self._wake()
            return
        start = self.range.first_frame(sequence)
        stop = None
        if sequence == self.range.end_group and self.range.end_frame is not None:
            stop = self.range.end_frame + 1
        entry = GroupCursor(group, start, stop)
        self.pending[sequence] = entry
        self.backlog += entry.waiting
        self.backlog_frames += entry.waiting_frames
        first = self.latest < 0
        self.earliest = sequence if self.earliest is None else min(self.earliest, sequence)
        self.latest = max(self.latest, sequence)
        self._news.add(sequence)
        if entry.behind:
            self._behind.add(sequence)
        self._bound()
        # A group that is still empty gives nothing to do, but for the first: a subscription is accepted with it.
        if first or entry.behind:
            self._wake()

    def grew(self, group: Group, size: int) -> None:
        """Takes note of a frame that was appended."""
        entry = self.pending.get(group.sequence)
        if entry is None or group.length <= entry.position:
            return
        if entry.stop is not None and group.length > entry.stop:
            return
        entry.waiting += size
        self.backlog += size
        self.backlog_frames += 1
        self._news.add(group.sequence)
        self._behind.add(group.sequence)
        self._bound()
        self._wake()

    def ended(self, group: Group) -> None:
        """Takes note that a group is complete or was given up."""
        if group.sequence not in self.pending:
            return
        if group.aborted is not None:
            self.drop(group.sequence, group.aborted)
        else:
            self._news.add(group.sequence)
            self._behind.add(group.sequence)
            self._wake()

    def trimmed(self, group: Group) -> None:
        """Takes note that leading frames of a group, or all of it, left the cache."""
        entry = self.pending.get(group.sequence)
        if entry is not None and entry.position < group.first:
            self.drop(group.sequence, StreamCode.TOO_FAR_BEHIND)

    def finish(self, end: int) -> None:
        """Takes note that no group at or after `end` will come."""
        self.end = end
        self._wake()

    def abort(self, code: int) -> None:
        """Takes note that the whole track was given up."""
        self.aborted = code
        self._wake()

    def expire(self, newest: int, reach_of: Callable[[int], int | None]) -> None:
        """Drops each group that lies wholly outside `max_age`.

        Args:
            newest: The newest frame's timestamp in the latest group that has a frame.
            reach_of: Returns the first timestamp after a given group, None while there is none.

        Spec: moq-lite-06, section 6.2.
        """
        budget = self.max_age * self._timescale
        for sequence in [number for number in self.pending if number < self.latest]:
            reach = reach_of(sequence)
            if reach is not None and newest - reach >= budget:
                self.drop(sequence, StreamCode.OLD)

    def _bound(self) -> None:
        """Keeps a live subscriber within its bound by dropping its oldest groups, never the latest.

        A group of which everything was taken stays: it is no burden, however long it is open.
        """
        if self._reliable:
            return
        limits = self._limits
        while self.backlog > limits.live_backlog or self.lags(limits.live_backlog_groups):
            behind = [number for number in self._behind if number < self.latest]
            if not behind:
                return
            self.drop(min(behind), StreamCode.TOO_FAR_BEHIND)

    def lags(self, groups: int) -> bool:
        """Returns True when more than so many groups have something to take."""
        return len(self._behind) > groups

    # -- from whoever serves the subscription --------------------------------------------------------------

    def news(self, *, newest_first: bool) -> Iterable[GroupCursor]:
        """Returns the groups that something happened to since the last call, in the order to serve them."""
        if not self._news:
            return ()
        numbers = sorted(self._news, reverse=newest_first)
        self._news.clear()
        return [self.pending[number] for number in numbers if number in self.pending]

    def again(self, *entries: GroupCursor) -> None:
        """Puts groups back among the news: they could not be served now."""
        self._news.update(entry.group.sequence for entry in entries)

    def take(self, entry: GroupCursor, max_bytes: int) -> list[Frame]:
        """Takes the next frames of a group: at least one if there is one, then as many as fit in `max_bytes`."""
        group = entry.group
        index = entry.position - group.first
        frames = group.frames
        stop = len(frames) if entry.stop is None else min(len(frames), entry.stop - group.first)
        size = 0
        taken: list[Frame] = []
        while index < stop:
            frame = frames[index]
            if taken and size + len(frame) > max_bytes:
                break
            taken.append(frame)
            size += len(frame)
            index += 1
        entry.position = index + group.first
        entry.waiting -= size
        self.backlog -= size
        self.backlog_frames -= len(taken)
        if entry.finished:
            self.remove(group.sequence)
            return taken
        if not entry.behind:
            self._behind.discard(group.sequence)
        if taken and self._room_made is not None:
            self._room_made()
        return taken

    def remove(self, sequence: int) -> None:
        """Forgets a group."""
        entry = self.pending.pop(sequence, None)
        self._news.discard(sequence)
        self._behind.discard(sequence)
        if entry is not None:
            self.backlog -= entry.waiting
            self.backlog_frames -= entry.waiting_frames
            if self._room_made is not None:
                self._room_made()

    def drop(self, sequence: int, code: int) -> None:
        """Gives a group up for this subscriber; it is reported by `take_dropped`."""
        if sequence in self.pending:
            self.remove(sequence)
            self.dropped.append((sequence, code))
            self.dropped_groups += 1
            self._wake()

    def lose(self, sequence: int, code: int) -> None:
        """Notes that a group of which everything was taken is given up on its way; `take_dropped` reports it."""
        self.dropped.append((sequence, code))
        self.dropped_groups += 1

    def take_dropped(self) -> list[tuple[int, int]]:
        """Returns the groups given up since the last call, each with its code."""
        dropped, self.dropped = self.dropped, []
        return dropped

    @property
    def done(self) -> bool:
        """True once the track has ended or come to the end of the range, and every group was taken or dropped."""
        if self.aborted is not None:
            return True
        if self.pending or self.dropped:
            return False
        return self.end is not None or (self.range.end_group is not None and self._reached >= self.range.end_group)
