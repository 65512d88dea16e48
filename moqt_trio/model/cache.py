"""The groups of one track that are kept: bounded in bytes, frames, groups and age.

It evicts groups that exceed a bound, and drops them for the cursors that have not read them.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from ..errors import printable
from ..loggers import Logger
from .keys import PartKey, sequence_of
from .pool import FRAME_COST, GROUP_COST
from .sequences import SequenceSet

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..frame import Frame
    from ..limits import Limits
    from .cursor import Cursor, GroupRange
    from .group import Group
    from .keys import GroupKey
    from .pool import CacheAccount, CachePool

logger = Logger(__name__)

SLACK = 16
"""An endless group is trimmed by a sixteenth of the cache at a time: moving the frames that stay is too slow to do for
every frame, and one sixteenth less history costs subscribers little."""


_RUN_SHARE = 16
"""The share of the cache that a run of packed frames may take: an endless group is trimmed by whole runs."""


_FEW_PARTS = 16
"""Parts of the latest group, those with the highest ids, among which the newest timestamp is looked for: more than a
video has layers."""


class GroupCache:
    """Keeps a track's groups for late subscribers and fetches.

    Args:
        name: The track's name, for the log.
        cursors: The cursors on the track; a live view.
        limits: For `cache_bytes`, `cache_frames` and `cache_groups`.
        reliable: True when a group stays as long as a cursor still has to read it.
        max_age: Seconds that a group is kept after a newer one was opened.
        timescale: Timestamp units per second.

    Attributes:
        lacking: The sequences of groups of which some parts left the cache, so that the others are not all of it.
    """

    def __init__(
        self,
        name: str,
        cursors: Collection[Cursor],
        *,
        limits: Limits,
        reliable: bool,
        max_age: float,
        timescale: int,
    ) -> None:
        self._name = name
        self._cursors = cursors
        self._limits = limits
        self._reliable = reliable
        self._max_age = max_age
        self._timescale = timescale
        self._groups: dict[GroupKey, Group] = {}
        # The keys of all groups, of those that have a frame, and of those that have ended; in order.
        self._order: list[GroupKey] = []
        self._timed: list[GroupKey] = []
        self._ended: list[GroupKey] = []
        self._bytes = 0
        self._frames = 0
        self._warned = False
        # True once there was a part of a group.
        self._in_parts = False
        self.lacking = SequenceSet(limits.cache_groups)
        # In the pool that it shares with others, if it does.
        self._account: CacheAccount | None = None

    def share(self, pool: CachePool) -> None:
        """Share a pool with the caches of other tracks from now on."""
        self._account = pool.open(self)
        self._bill()

    @property
    def cost(self) -> int:
        """Bytes of memory that the groups take, about."""
        return self._bytes + GROUP_COST * len(self._order) + FRAME_COST * self._frames

    def _bill(self) -> None:
        if self._account is not None:
            self._account.bill(self.cost)

    def get(self, key: GroupKey) -> Group | None:
        """Return a group that is kept, or None."""
        return self._groups.get(key)

    def parts(self, sequence: int) -> list[Group]:
        """Return what is kept of a group: its subgroups, in order."""
        found = []
        for key in self._order[bisect.bisect_left(self._order, sequence) :]:
            if sequence_of(key) != sequence:
                break
            found.append(self._groups[key])
        return found

    def add(self, group: Group) -> None:
        """Keep a new group, empty or whole, and drop the older groups that are now too many or too old."""
        self._groups[group.key] = group
        _insert(self._order, group.key)
        if type(group.key) is not int:
            self._in_parts = True
        if group.ended:
            _insert(self._ended, group.key)
        if group.frames:
            self._note_first_frame(group)
        self._bytes += group.size
        self._frames += len(group.frames)
        self._drop_expired(group.born)
        if self._account is not None:
            self._account.use()
            self._bill()

    def append(self, group: Group, frame: Frame, size: int) -> bool:
        """Append a frame of so many bytes to a group that is kept; return whether `keep_bounds` has something to do."""
        group.frames.append(frame)
        group.size += size
        if group.tail + len(group.frames) == 1:
            self._note_first_frame(group)
        self._bytes += size
        self._frames += 1
        if len(group.frames) >= group.LONG and not len(group.frames) % group.RUN:
            self._pack(group)
        limits = self._limits
        return (
            (len(self._order) > 1 and not self._reliable)
            or self._bytes > limits.cache_bytes
            or self._frames > limits.cache_frames
            or self._account is not None
        )

    def _pack(self, group: Group) -> None:
        """Pack a group's oldest frames, unless they are large: that would save nothing, and they are trimmed as one."""
        if group.size_of(group.frames[: group.RUN]) > self._limits.cache_bytes // _RUN_SHARE:
            return
        before = group.size
        group.pack()
        self._bytes += group.size - before
        self._frames -= group.RUN

    def __len__(self) -> int:
        return len(self._order)

    @property
    def size(self) -> int:
        """Bytes of the groups that are kept."""
        return self._bytes

    @property
    def settled(self) -> bool:
        """True when no group that is kept is still being written."""
        return len(self._ended) == len(self._order)

    def age(self, now: float) -> None:
        """Drop the groups that are too old by now, though no group has been added."""
        self._drop_expired(now)

    def clear(self) -> None:
        """Keep no group that has ended. The cursors that have one to read still have it."""
        for group in tuple(self._groups.values()):
            if group.ended:
                self.remove(group)

    def keep_bounds(self) -> None:
        """Bring the cache back within its bounds, and drop for each cursor the groups that it finds too old."""
        limits = self._limits
        if self._bytes > limits.cache_bytes or self._frames > limits.cache_frames:
            self._evict()
        self._bill()
        if len(self._order) > 1 and not self._reliable and self._timed:
            newest = self.newest
            for cursor in tuple(self._cursors):
                cursor.expire(newest, self._timestamp_after)

    def _note_first_frame(self, group: Group) -> None:
        """Called when a group has its first frame: the groups before it are as old as its timestamp says."""
        key, timed = group.key, self._timed
        last = not timed or key > timed[-1]
        _insert(timed, key)
        if not last:
            self._start_over()
            return
        for cursor in self._cursors:
            if cursor.ages is not None:
                cursor.ages.follow(group.sequence, group.first_timestamp or 0)

    def end(self, group: Group) -> None:
        """Called when a group has all of its frames."""
        if group.key in self._groups:
            _insert(self._ended, group.key)

    def remove(self, group: Group) -> None:
        """Remove a group. The caller informs the cursors."""
        del self._groups[group.key]
        if self._in_parts and group.length:
            self.lacking.add(group.sequence)
        _remove(self._order, group.key)
        _remove(self._ended, group.key)
        if group.frames:
            _remove(self._timed, group.key)
            following = self._timestamp_after(group.key)
            # Without a group that follows, the next one may have any timestamp.
            if following is None or following < (group.first_timestamp or 0):
                self._start_over()
        self._bytes -= group.size
        self._frames -= len(group.frames)
        self._bill()

    def _evict(self) -> None:
        """Drop the oldest groups first, parts of the latest one last, then the start of those that must stay."""
        index = 0
        spared = self._spared()
        while index < len(self._ended) and (key := self._ended[index]) < spared[0]:
            group = self._groups[key]
            if key in spared or (self._reliable and self._pending(group)):
                index += 1
                continue
            self._drop(group)
            if not self._overfull():
                return
        for key in self._order:
            self._trim(self._groups[key])
            if not self._overfull():
                return

    def _spared(self) -> tuple[GroupKey, ...]:
        """Return the last key, and the one added last where both are parts of the latest group: these are not dropped.

        The other parts of it are. Most parts are opened in the order of their keys: the lowest ones are the oldest.
        """
        last = self._order[-1]
        added = next(reversed(self._groups))
        if isinstance(last, PartKey) and sequence_of(added) == last.sequence:
            return last, added
        return (last,)

    def initial(self, wanted: GroupRange, max_age: float, *, replay: bool) -> list[Group]:
        """Return the groups that a new cursor starts with; the arguments are those of `Cursor`."""
        if self._account is not None:
            self._account.use()
        chosen: list[Group] = []
        latest = sequence_of(self._order[-1]) if self._order else -1
        for key in self._order:
            group = self._groups[key]
            if not wanted.holds(group.sequence):
                continue
            if group.sequence != latest:
                if not replay and wanted.start_group is None:
                    continue
                if replay and self.too_old(key, max_age):
                    continue
            chosen.append(group)
        return chosen

    def after(self, sequence: int, wanted: GroupRange) -> list[Group]:
        """Return the groups of a range that come after a sequence."""
        found = (self._groups[key] for key in self._order[bisect.bisect_right(self._order, sequence) :])
        return [group for group in found if group.sequence != sequence and wanted.holds(group.sequence)]

    def between(self, first: int, last: int) -> list[int]:
        """Return the sequences from `first` to `last`, inclusive, of the groups that are kept, in order."""
        keys = self._order[bisect.bisect_left(self._order, first) : bisect.bisect_left(self._order, last + 1)]
        return list(dict.fromkeys(map(sequence_of, keys)))

    @property
    def largest(self) -> tuple[int, int] | None:
        """The latest group that has a frame, and the highest object id in it; None while there is none."""
        if not self._timed:
            return None
        sequence = sequence_of(self._timed[-1])
        return sequence, max(group.next_id for group in self.parts(sequence)) - 1

    @property
    def newest(self) -> int:
        """The newest timestamp of the latest group that has a frame; -1 while there is none."""
        timed = self._timed
        if not timed:
            return -1
        key = timed[-1]
        if type(key) is int:
            return self._groups[key].last_timestamp or 0
        # Of many parts, most were written one after another: not all of them are looked at for each frame.
        first = bisect.bisect_left(timed, sequence_of(key))
        keys = [timed[first], *timed[max(first, len(timed) - _FEW_PARTS) :]]
        return max(self._groups[key].last_timestamp or 0 for key in keys)

    def too_old(self, key: GroupKey, max_age: float) -> bool:
        """Return whether a group is older than `max_age` as a whole; the latest one never is."""
        following = self._timestamp_after(key)
        return following is not None and self.newest - following >= max_age * self._timescale

    def _timestamp_after(self, key: GroupKey) -> int | None:
        """Return the first timestamp after a group, which the group cannot exceed (moq-lite-06, section 6.2)."""
        timed = self._timed
        index = bisect.bisect_right(timed, key)
        if index < len(timed) and type(timed[index]) is not int:
            index = _after_parts(timed, key)
        return self._groups[timed[index]].first_timestamp if index < len(timed) else None

    def _drop_expired(self, now: float) -> None:
        """Drop groups that a newer one replaced more than `max_age` ago, and those beyond the count."""
        index = 0
        order = self._order
        latest = order[-1] if order else -1
        if type(latest) is not int:
            latest = sequence_of(latest)
            self._drop_surplus_parts(latest)
        while index < len(self._ended) and (key := self._ended[index]) < latest:
            group = self._groups[key]
            following = bisect.bisect_right(order, key)
            if type(order[following]) is not int:
                following = _after_parts(order, key)
            successor = self._groups[order[following]]
            surplus = len(self._order) > self._limits.cache_groups
            if not surplus and now - successor.born <= self._max_age:
                return
            if (self._reliable or not surplus) and self._pending(group):
                index += 1
            else:
                self._drop(group)

    def _drop_surplus_parts(self, latest: int) -> None:
        """Drop parts of the latest group where they alone exceed the count of groups."""
        index = first = bisect.bisect_left(self._ended, latest)
        while len(self._order) - first > self._limits.cache_groups and index < len(self._ended):
            group = self._groups[self._ended[index]]
            if group.key in self._spared() or (self._reliable and self._pending(group)):
                index += 1
            else:
                self._drop(group)

    def _pending(self, group: Group) -> bool:
        return any(group.key in cursor.pending for cursor in self._cursors)

    def _overfull(self) -> bool:
        return self._bytes > self._limits.cache_bytes or self._frames > self._limits.cache_frames

    def _drop(self, group: Group) -> None:
        """Remove a whole group, and drop it for each cursor that has not read all of it."""
        self.remove(group)
        group.first = group.tail = group.length
        group.frames = []
        group.packed = None
        group.size = 0
        self._notify_trimmed(group)

    def _trim(self, group: Group) -> None:
        """Drop frames from the start of a group, never the newest, so that an endless group stays bounded.

        Trims by a part of the cache (`SLACK`), so that the remaining frames are not moved in memory for every new one.
        """
        limits = self._limits
        excess = self._bytes - limits.cache_bytes + limits.cache_bytes // SLACK
        excess_frames = 0
        if self._frames > limits.cache_frames:
            excess_frames = self._frames - limits.cache_frames + limits.cache_frames // SLACK
        if self._trim_by(group, excess, excess_frames) and not group.ended and not self._warned:
            self._warned = True
            logger.warning(
                "group %d of track %s is longer than the cache, which lets go of its first frames: late subscribers "
                "start behind them, or get nothing of the group where the version cannot say so; open a new group "
                "before it has %d bytes, or the track's groups %d frames (Limits.cache_bytes, Limits.cache_frames)",
                group.sequence,
                printable(self._name),
                limits.cache_bytes,
                limits.cache_frames,
            )

    def _trim_by(self, group: Group, excess: int, excess_frames: int) -> bool:
        """Drop frames from the start of a group: so many bytes, and so many frames. Return whether there were any."""
        keep_from = group.length - 1
        if self._reliable:
            for cursor in self._cursors:
                entry = cursor.pending.get(group.key)
                if entry is not None:
                    keep_from = min(keep_from, entry.position)
        freed = 0
        start, before = group.first, group.first_timestamp
        while group.packed and group.first + group.RUN <= keep_from and (freed < excess or excess_frames > 0):
            run = group.packed.popleft()
            freed += run.size
            _note_trimmed_id(group, run[group.RUN - 1])
            group.first += group.RUN
        count = 0
        if not group.packed:
            plain = group.traits is None
            while group.first + count < keep_from and (freed < excess or count < excess_frames):
                freed += len(group.frames[count]) if plain else group.size_of(group.frames[count : count + 1])
                count += 1
            if count:
                _note_trimmed_id(group, group.frames[count - 1])
            del group.frames[:count]
            group.first += count
            group.tail += count
        group.size -= freed
        self._bytes -= freed
        self._frames -= count
        if before is not None and (group.first_timestamp or 0) < before:
            self._start_over()
        self._notify_trimmed(group)
        return group.first > start

    # -- for the pool --------------------------------------------------------------------------------------

    def drop_oldest(self) -> bool:
        """Drop the oldest group that has ended and is not the latest; return whether there was one."""
        for key in self._ended:
            spared = self._spared()
            if key >= spared[0]:
                break
            if key not in spared and not (self._reliable and self._pending(self._groups[key])):
                self._drop(self._groups[key])
                return True
        return False

    def halve_latest(self) -> bool:
        """Drop the first half of a group that has several frames; return whether there was one."""
        return any(
            self._trim_by(group, group.size // 2, 0 if group.packed else len(group.frames) // 2)
            for group in map(self._groups.__getitem__, self._order)
        )

    def _start_over(self) -> None:
        """Called when the groups that follow others, or their timestamps, have changed out of order."""
        for cursor in self._cursors:
            if cursor.ages is not None:
                cursor.ages.start_over()

    def _notify_trimmed(self, group: Group) -> None:
        for cursor in list(self._cursors):
            cursor.on_trim(group)


def _note_trimmed_id(group: Group, last: Frame) -> None:
    """Record the object id of the last frame that was trimmed, where ids are stored."""
    if group.traits is not None and last.object_id is not None:
        group.traits.first_id = last.object_id + 1


def _after_parts(keys: list[GroupKey], key: GroupKey) -> int:
    """Return the index of the first key of a group after that of another key: the parts of a group do not follow it."""
    return bisect.bisect_left(keys, sequence_of(key) + 1)


def _insert(ordered: list[GroupKey], key: GroupKey) -> None:
    if not ordered or key > ordered[-1]:
        ordered.append(key)
    else:
        bisect.insort(ordered, key)


def _remove(ordered: list[GroupKey], key: GroupKey) -> None:
    index = bisect.bisect_left(ordered, key)
    if index < len(ordered) and ordered[index] == key:
        del ordered[index]
