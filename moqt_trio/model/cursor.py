"""Cursor: one subscriber's position in a track, and the groups that were dropped for it.

Theory of operation. A cursor copies nothing. It has an entry (`GroupCursor`) for each group that is not wholly taken,
with the index of the next frame. The track calls it for every frame, group and end (`on_*`, `add`, `finish`, `abort`);
the server of the subscription asks it what is ready and takes frames. An entry leaves in one of three ways:

    take() returns finished      everything wanted was taken
    drop(key, code)              the group is dropped for this subscriber; `take_dropped` reports it, once
    remove(key)                  the subscriber no longer wants it; nothing is reported

Three sets of keys say what is to be done: `pending` (all entries), `_ready` (something happened since the server
looked) and `_backlogged` (something is to be taken). The backlog in bytes, frames and groups is kept as it changes, so
that the bounds of live and of reliable delivery cost a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from ..codes import StreamCode
from .ages import AgeOrder
from .group import frame_size
from .group_cursor import GroupCursor, newest_first_place, oldest_first_place

if TYPE_CHECKING:
    from ..frame import Frame
    from ..limits import Limits
    from .group import Group
    from .keys import GroupKey
    from .packed import PackedFrames

    Run = PackedFrames | list[Frame]

_MOST_FRAMES = 256
"""Frames that are taken at once. Frames that are empty have no bytes to bound them by."""
_ANY = 1 << 62
"""More than any frame has bytes."""


@attrs.frozen
class GroupRange:
    """Which groups and frames a subscriber wants.

    Attributes:
        start_group: The first group, or None to leave the start to the rule of `TrackState.attach`.
        end_group: The last group, inclusive; None for no end.
        start_frame: The object id of the first frame wanted of `start_group`: its index, where a group has no gap.
        end_frame: That of the last frame wanted of `end_group`, inclusive; None for all of it.
    """

    start_group: int | None = None
    end_group: int | None = None
    start_frame: int = 0
    end_frame: int | None = None

    def holds(self, sequence: int) -> bool:
        """Return whether a group is within the range."""
        return (self.start_group is None or sequence >= self.start_group) and (
            self.end_group is None or sequence <= self.end_group
        )

    def first_frame(self, sequence: int) -> int:
        """Return the object id of the first frame wanted of a group."""
        return self.start_frame if sequence == self.start_group else 0


@attrs.frozen
class Wish:
    """How a subscriber wants a track, whichever groups it wants: for a relay, which asks for all of them together.

    Attributes:
        priority: 0 … 255; under congestion higher goes first.
        max_age: Seconds for which a group is wanted after a newer one; None where the version does not say.
        ordered: True for groups in order.
    """

    priority: int
    max_age: float | None
    ordered: bool


class Cursor:
    """One subscriber's position in a track.

    Args:
        wake: Called when there may be something to do.
        limits: The bounds of live and of reliable delivery.
        reliable: True when no group is dropped for being behind.
        timescale: Timestamp units per second.
        range: The groups wanted.
        max_age: See below.
        replay: True to start at the oldest group that `max_age` allows, and in a group whose first frames are no
            longer kept at the first one that is (moq-lite-06, whose groups say where they start). False to start at
            `start_group` or, without one, at the latest group, and to drop a group whose first frames are gone.

    Attributes:
        replay: As above.
        range: The groups wanted; may be changed.
        max_age: Seconds after which a group that is not the latest is dropped.
        wish: How it wants the track; None for a fetch.
        pending: Groups that are not wholly taken, by their keys.
        ages: The same groups in the order in which they grow too old; None for reliable delivery, and before the first.
        backlog: Bytes that were written and not taken, with the properties of frames.
        backlog_frames: Frames that were written and not taken.
        dropped: The keys of groups that were dropped for this subscriber, each with a code, until `take_dropped`.
        dropped_groups: How many were dropped in all.
        earliest: The lowest sequence that was added; None while there is none.
        latest: The highest sequence that was added; -1 while there is none.
        end: The first sequence that will never be published, once the track has ended.
        aborted: The code that the whole track was aborted with; None while it was not.
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
        replay: bool,
    ) -> None:
        self._wake = wake
        self.replay = replay
        self._limits = limits
        self._reliable = reliable
        self._timescale = timescale
        self._room_made: Callable[[], None] | None = None
        self.range = range
        self.max_age = max_age
        self.wish: Wish | None = None
        self.pending: dict[GroupKey, GroupCursor] = {}
        self.ages: AgeOrder | None = None
        self.backlog = 0
        self.backlog_frames = 0
        self.dropped: list[tuple[GroupKey, int]] = []
        self.dropped_groups = 0
        self.end: int | None = None
        self.aborted: int | None = None
        self._ready: set[GroupKey] = set()
        self._backlogged: set[GroupKey] = set()
        # True once there was a group whose place among the others is not that of its sequence alone.
        self._mixed = False
        self.earliest: int | None = None
        self.latest = -1
        self._reached = -1

    # -- from the track ------------------------------------------------------------------------------------

    def watch_room(self, room_made: Callable[[], None] | None) -> None:
        """Set what is called when this cursor takes frames; None for nothing."""
        self._room_made = room_made

    def watch_frames(self, came: Callable[[GroupKey], None]) -> None:
        """Have `came` called with the key of the group of each frame that is appended from now on."""
        on_frame = self.on_frame

        def watched(group: Group, size: int) -> None:
            on_frame(group, size)
            came(group.key)

        # In this cursor alone: the others do nothing more for a frame than before.
        self.on_frame = watched  # type: ignore[method-assign]

    def on_sequence(self, sequence: int) -> None:
        """Called when the track has reached a sequence."""
        self._reached = max(self._reached, sequence)

    def add_kept(self, group: Group) -> None:
        """Add a group of the past; drop it when its first frames are gone, and the version can't leave them out."""
        first_frame = self.range.first_frame(group.sequence)
        if first_frame and type(group.key) is not int and group.complete and group.next_id <= first_frame:
            # Nothing of it is wanted. That the group has ended, its subgroup 0 says.
            self._note(group.sequence)
        elif self.replay or first_frame >= group.first_id:
            self.add(group)
        else:
            self._note(group.sequence)
            self.drop_taken(group.key, StreamCode.TOO_FAR_BEHIND)

    def add(self, group: Group) -> None:
        """Add a group that has just been opened, or one of the past that is kept from the first frame wanted on."""
        sequence, key = group.sequence, group.key
        self.on_sequence(sequence)
        past_end = self.end is not None and sequence >= self.end
        if past_end or not self.range.holds(sequence) or key in self.pending:
            if self.done:
                self._wake()
            return
        wanted = self.range
        last_id = wanted.end_frame if sequence == wanted.end_group else None
        entry = GroupCursor(group, wanted.first_frame(sequence), last_id)
        self.pending[key] = entry
        if group.traits is not None:
            self._mixed = True
        if not self._reliable:
            if self.ages is None:
                self.ages = AgeOrder(self.pending)
            self.ages.add(key)
        self.backlog += entry.waiting
        self.backlog_frames += entry.waiting_frames
        first = self.latest < 0
        self._note(sequence)
        self._ready.add(key)
        has_work = entry.has_frames or entry.finished
        if has_work:
            self._backlogged.add(key)
        self._keep_bound()
        # An empty group gives the server no work, but for the first one, with which the subscription is accepted.
        if first or has_work:
            self._wake()

    def _note(self, sequence: int) -> None:
        self.earliest = sequence if self.earliest is None else min(self.earliest, sequence)
        self.latest = max(self.latest, sequence)

    def on_frame(self, group: Group, size: int) -> None:
        """Called when a frame was appended to a group."""
        key = group.key
        entry = self.pending.get(key)
        if entry is None:
            return
        length = group.tail + len(group.frames)
        if (length <= entry.position or entry.stop is not None) and not entry.wants_last():
            if entry.finished:
                # The frame is beyond the range, and so is each one after it.
                self._note_end(key)
            return
        entry.waiting += size
        self.backlog += size
        self.backlog_frames += 1
        self._ready.add(key)
        self._backlogged.add(key)
        if not self._reliable:
            limits = self._limits
            if self.backlog > limits.live_backlog or len(self._backlogged) > limits.live_backlog_groups:
                self._keep_bound()
        self._wake()

    def on_end(self, group: Group) -> None:
        """Called when a group is complete or was reset."""
        key = group.key
        if key not in self.pending:
            return
        if group.aborted is not None:
            self.drop(key, group.aborted)
        else:
            self._note_end(key)

    def _note_end(self, key: GroupKey) -> None:
        self._ready.add(key)
        self._backlogged.add(key)
        self._wake()

    def on_trim(self, group: Group) -> None:
        """Called when leading frames of a group, or all of it, left the cache."""
        entry = self.pending.get(group.key)
        if entry is not None and entry.position < group.first:
            self.drop(group.key, StreamCode.TOO_FAR_BEHIND)

    def finish(self, end: int) -> None:
        """Called when no group at or after `end` will be published."""
        self.end = end
        self._wake()

    def abort(self, code: int) -> None:
        """Called when the whole track was aborted."""
        self.aborted = code
        self._wake()

    def expire(self, newest: int, timestamp_after: Callable[[GroupKey], int | None]) -> None:
        """Drop each group that is older than `max_age` as a whole.

        Args:
            newest: The newest frame's timestamp in the latest group that has a frame.
            timestamp_after: Returns the first timestamp after a given group, None while there is none.

        Spec: moq-lite-06, section 6.2.
        """
        if self.ages is None:
            return
        for key in self.ages.due(newest, self.max_age * self._timescale, self.latest, timestamp_after):
            self.drop(key, StreamCode.OLD)

    def _keep_bound(self) -> None:
        """Keep a live subscriber within its bound by dropping its oldest groups, never the latest.

        Of the latest group, parts are dropped when nothing else is left, and never the last one. A group of which
        everything was taken stays: it costs no memory, however long it is open.
        """
        if self._reliable:
            return
        limits = self._limits
        while self.backlog > limits.live_backlog or self.is_behind(limits.live_backlog_groups):
            backlogged = [key for key in self._backlogged if key < self.latest]
            if backlogged:
                self.drop(min(backlogged), StreamCode.TOO_FAR_BEHIND)
            elif len(self._backlogged) > 1:
                self.drop(self._least_part(), StreamCode.TOO_FAR_BEHIND)
            else:
                return

    def _least_part(self) -> GroupKey:
        """Return the part of the latest group to drop first.

        That is a datagram, then the oldest part that has ended, then the open one with the highest id: subgroups that
        are written side by side are layers, and the others need the lowest one.
        """
        ended = [group for key in self._backlogged if (group := self.pending[key].group).ended]
        if ended:
            return min(ended, key=lambda group: (not group.datagram, group.born, group.key)).key
        return max(self._backlogged)

    def backlogged(self) -> list[GroupKey]:
        """Return the groups that have something to take, their end included."""
        return list(self._backlogged)

    def is_behind(self, groups: int) -> bool:
        """Whether more than so many groups have something to take."""
        return len(self._backlogged) > groups

    # -- from the subscription's server --------------------------------------------------------------------

    def ready(self, *, newest_first: bool) -> Iterable[GroupCursor]:
        """Return the groups that something happened to since the last call, in the order to serve them."""
        ready = self._ready
        if not ready:
            return ()
        pending = self.pending
        if len(ready) == 1:
            entry = pending.get(ready.pop())
            return () if entry is None else (entry,)
        if self._mixed:
            entries = [pending[key] for key in ready if key in pending]
            ready.clear()
            return sorted(entries, key=newest_first_place if newest_first else oldest_first_place)
        keys = sorted(ready, reverse=newest_first)
        ready.clear()
        return [pending[key] for key in keys if key in pending]

    def requeue(self, entry: GroupCursor) -> None:
        """Make a group ready again: it could not be served now."""
        self._ready.add(entry.group.key)

    def take(self, entry: GroupCursor, max_bytes: int, longest: int = _ANY) -> tuple[list[Frame], bool]:
        """Take the next frames of a group, of which none was begun.

        Args:
            entry: The group.
            max_bytes: Payload bytes to take at most; one frame is taken even if it is longer.
            longest: The longest frame that is taken; the group's next frame may be longer, and then none is taken.

        Returns:
            The frames, which may be none, and whether everything wanted of the group was taken. In that case the cursor
            has removed the group.
        """
        group = entry.group
        frames: Run = group.frames
        first = group.tail
        end = first + len(frames)
        if entry.position < first:
            frames, first = group.run(entry.position)
        if entry.stop is not None and entry.stop < end:
            end = entry.stop
        index = entry.position - first
        most = min(end - first, len(frames), index + _MOST_FRAMES)
        size = 0
        described = group.traits is not None and group.traits.property_bytes
        if described:
            # Properties may be as long as many frames, and are not counted in what is taken.
            most = min(most, index + 1)
        taken: list[Frame] = []
        while index < most:
            frame = frames[index]
            length = len(frame)
            if size + length > max_bytes and (taken or length > longest):
                break
            taken.append(frame)
            size += length
            index += 1
        count = len(taken)
        if described and taken:
            size = frame_size(taken[0])
        entry.position += count
        entry.waiting -= size
        self.backlog -= size
        self.backlog_frames -= count
        entry.left = end - entry.position
        if entry.left <= 0:
            if group.complete or (entry.stop is not None and entry.position >= entry.stop):
                self._remove_taken(group)
                return taken, True
            self._backlogged.discard(group.key)
        if taken and self._room_made is not None:
            self._room_made()
        return taken, False

    def _remove_taken(self, group: Group) -> None:
        """Remove a group of which everything wanted was taken."""
        del self.pending[group.key]
        self._ready.discard(group.key)
        self._backlogged.discard(group.key)
        if self._room_made is not None:
            self._room_made()

    def take_part(self, entry: GroupCursor, max_bytes: int) -> tuple[Frame, int, bool]:
        """Take a part of a group's next frame; it has one.

        Args:
            entry: The group.
            max_bytes: Bytes to take at most.

        Returns:
            The frame, how many bytes of it were taken, and whether everything wanted of the group was taken. In that
            case the cursor has removed the group.
        """
        group = entry.group
        frame = group.frame(entry.position)
        end = group.length if entry.stop is None else min(group.length, entry.stop)
        count = min(max_bytes, len(frame) - entry.offset)
        entry.offset += count
        entry.waiting -= count
        self.backlog -= count
        entry.left = end - entry.position
        finished = False
        if entry.offset == len(frame):
            if frame.properties:
                beside = frame_size(frame) - len(frame)
                entry.waiting -= beside
                self.backlog -= beside
            entry.offset = -1
            entry.position += 1
            entry.left -= 1
            self.backlog_frames -= 1
            finished = entry.finished
            if finished:
                self._remove_taken(group)
            elif not entry.has_frames:
                self._backlogged.discard(group.key)
        if not finished and self._room_made is not None:
            self._room_made()
        return frame, count, finished

    def remove(self, key: GroupKey) -> None:
        """Remove a group, without a report."""
        entry = self.pending.pop(key, None)
        self._ready.discard(key)
        self._backlogged.discard(key)
        if entry is not None:
            self.backlog -= entry.waiting
            self.backlog_frames -= entry.waiting_frames
            if self._room_made is not None:
                self._room_made()

    def drop(self, key: GroupKey, code: int) -> None:
        """Drop a group that is pending for this subscriber; `take_dropped` reports it."""
        if key in self.pending:
            self.drop_taken(key, code)

    def drop_taken(self, key: GroupKey, code: int) -> None:
        """Drop a group, even one of which everything was taken: it did not reach the subscriber."""
        self.remove(key)
        self.dropped.append((key, code))
        self.dropped_groups += 1
        self._wake()

    def take_dropped(self) -> list[tuple[GroupKey, int]]:
        """Return the groups dropped since the last call, each with its code."""
        dropped, self.dropped = self.dropped, []
        return dropped

    @property
    def done(self) -> bool:
        """True once the track has ended or passed the range, and every group was taken or dropped and reported."""
        if self.aborted is not None:
            return True
        if self.pending or self.dropped:
            return False
        return self.end is not None or (self.range.end_group is not None and self._reached >= self.range.end_group)
