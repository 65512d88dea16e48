"""TrackState: the groups of a track that are kept, the cursors that read them, and the room for writers.

`Track` and `GroupWriter` are the application's side of it. The server of a subscription or a fetch attaches a cursor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..arguments import want_number, want_payload
from ..block import NotOnTrio
from ..frame import Frame
from .cache import GroupCache
from .cursor import Cursor, GroupRange
from .group import copy_group, frame_size, new_group, whole_group
from .keys import DATAGRAM, PartKey, key_of
from .objects import check_id, check_payload, check_subgroup, make_datagram, make_object, note_object, timestamp_of
from .room import Room
from .sequences import KeySet

if TYPE_CHECKING:
    import weakref

    from ..frame import Properties
    from ..limits import Limits
    from .cursor import Wish
    from .group import Group, GroupTraits
    from .keys import GroupKey
    from .pool import CachePool

MAX_SEQUENCE = 2**62 - 1
AGE_BOUND = 2.0**51
"""Seconds; every `max_age` is below it, so that its milliseconds fit in a varint."""

_new_bytes = bytes.__new__


class TrackState:
    """One writer's groups and frames, for any number of cursors.

    Attributes:
        name: The track's name.
        reliable: True when writing waits for slow subscribers.
        final: The first sequence that will never be published; None while the track has not been finished.
        aborted: The code that the track was aborted with; None while it was not.
        next: The sequence after the highest one that was used.
        ageing: True while the track has something that ages without being written, and its broadcast knows.
        changed: Returns what is called for that, a method of the broadcast, which itself refers to its tracks.
        wishes_changed: Called when the wish of a subscriber came, went or changed; None for nothing.
    """

    def __init__(self, name: str, *, limits: Limits, reliable: bool, max_age: float, timescale: int) -> None:
        self.name = name
        self.reliable = reliable
        self.final: int | None = None
        self.aborted: int | None = None
        self.next = 0
        self.ageing = False
        self.changed: weakref.WeakMethod[Callable[[TrackState], None]] | None = None
        self.wishes_changed: Callable[[], None] | None = None
        self._max_age = max_age
        self._ended_at: float | None = None
        self._let_go = False
        self._limits = limits
        self._timescale = timescale
        self._used = KeySet(limits.cache_groups)
        # The lowest sequence that was opened; all are below this one while there is none.
        self._begins = 0
        self._datagrams = 0
        self._cursors: set[Cursor] = set()
        # Cursors of subscriptions that pause: they are called for the end of the track, and for nothing else.
        self._resting: set[Cursor] = set()
        self._cache = GroupCache(
            name, self._cursors, limits=limits, reliable=reliable, max_age=max_age, timescale=timescale
        )
        self._demand = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._room = Room(self._cursors, limits)
        self._epoch: float | None = None
        # The newest frame that was written as a datagram, which no cache keeps.
        self._apart: tuple[int, int] | None = None

    # -- writing -------------------------------------------------------------------------------------------

    def open(self, sequence: int | None) -> Group:
        """Open a group: the one of this number, or the next one.

        Raises: what `Track.open_group` raises.
        """
        number = self._check_open(sequence)
        group = new_group(number)
        self._publish(group)
        return group

    def open_part(self, sequence: int | None, traits: GroupTraits) -> Group:
        """Open a group that is a subgroup, or has a priority of its own.

        Raises: what `Track.open_group` raises.
        """
        subgroup = traits.subgroup
        new = subgroup is None or sequence is None
        number = self._check_open(sequence) if new else self._check_number(sequence or 0)
        key = key_of(number, subgroup)
        if subgroup is not None:
            check_subgroup(subgroup)
            if self._used.has_key(key):
                raise ValueError(f"subgroup {subgroup} of group {number} of {self.name!r} was opened before")
            first = self.group(number)
            if first is not None and (first.traits is None or first.traits.subgroup is None):
                raise ValueError(f"group {number} of {self.name!r} was opened without subgroups")
        group = new_group(number)
        group.key, group.traits = key, traits
        self._publish(group)
        return group

    def write(self, payload: bytes, timestamp: int | None) -> int:
        """Write a group of one frame; return its sequence. Raises what `Track.write` raises."""
        sequence = self._check_open(None)
        check_payload(payload, self._limits)
        group = whole_group(sequence, Frame(payload, self._stamp(timestamp)))
        self._publish(group)
        self._cache.keep_bounds()
        return sequence

    def write_datagram(self, payload: bytes, timestamp: int | None) -> int:
        """Write a group of one frame that is not kept; return its sequence. Raises as `Track.send_datagram`."""
        sequence = self._check_open(None)
        if self.reliable and not self.has_room():
            raise trio.WouldBlock
        self._publish(whole_group(sequence, Frame(payload, self._stamp(timestamp)), datagram=True))
        self._apart = max(self._apart or (0, 0), (sequence, 0))
        return sequence

    def write_part_datagram(
        self,
        payload: bytes,
        timestamp: int | None,
        sequence: int | None,
        object_id: int,
        properties: Properties,
        traits: GroupTraits,
    ) -> int:
        """Write a datagram of a group that may have several; return its sequence. Raises as `Track.send_datagram`."""
        number = self._check_number(self.next if sequence is None else sequence)
        if self.reliable and not self.has_room():
            raise trio.WouldBlock
        frame = make_object(payload, self._stamp(timestamp, properties), properties)
        self._datagrams += 1
        group = make_datagram(number, frame, object_id, traits, self._datagrams)
        self._apart = max(self._apart or (0, 0), (number, object_id))
        self._publish(group)
        return number

    def append(self, group: Group, payload: bytes, timestamp: int | None) -> None:
        """Add a frame to a group, and call every cursor."""
        if group.complete or group.aborted is not None or self.aborted is not None:
            raise trio.ClosedResourceError("the group has ended")
        if type(payload) is not bytes:
            want_payload(payload)
        size = len(payload)
        if size > self._limits.max_frame:
            check_payload(payload, self._limits)
        # As `Frame(…)` does, in line: a call costs as much as the rest of a small frame.
        frame = _new_bytes(Frame, payload)
        frame.timestamp = self._stamp(timestamp)
        traits = group.traits
        if traits is not None and traits.next_id is not None:
            check_id(group, None)
            frame.object_id = traits.next_id
            traits.next_id += 1
        due = self._cache.append(group, frame, size)
        # A cursor for which a group is dropped may end its subscription, which changes the set: iterate over a copy.
        for cursor in tuple(self._cursors):
            cursor.on_frame(group, size)
        if due:
            self._cache.keep_bounds()

    def append_object(
        self, group: Group, payload: bytes, timestamp: int | None, object_id: int | None, properties: Properties
    ) -> None:
        """Add a frame that has an object id or properties to a group, and call every cursor."""
        if group.ended or self.aborted is not None:
            raise trio.ClosedResourceError("the group has ended")
        check_payload(payload, self._limits)
        check_id(group, object_id)
        frame = make_object(payload, self._stamp(timestamp, properties), properties)
        note_object(group, frame, object_id)
        size = frame_size(frame)
        due = self._cache.append(group, frame, size)
        for cursor in tuple(self._cursors):
            cursor.on_frame(group, size)
        if due:
            self._cache.keep_bounds()

    def _publish(self, group: Group) -> None:
        """Mark a new group's sequence as used, keep the group unless it is a datagram, and add it to every cursor."""
        sequence = group.sequence
        if group.traits is None and (group.datagram or not self._used.in_parts):
            self._used.add(sequence)
        else:
            # The datagrams of a group are one part of it here: there may be any number of them.
            self._used.add_key(PartKey(sequence, DATAGRAM) if group.datagram else group.key)
        self._begins = sequence if not self.next else min(self._begins, sequence)
        self.next = max(self.next, sequence + 1)
        if not group.datagram:
            self._cache.add(group)
            if not self.ageing:
                self._begin_ageing()
        for cursor in tuple(self._cursors):
            cursor.add(group)

    def complete(self, group: Group) -> None:
        """Complete a group."""
        if not group.ended:
            group.complete = True
            self._cache.end(group)
            for cursor in list(self._cursors):
                cursor.on_end(group)

    def abort_group(self, group: Group, code: int) -> None:
        """Reset a group for every subscriber, and remove it from the cache."""
        if not group.ended:
            group.aborted = code
            self._cache.remove(group)
            for cursor in list(self._cursors):
                cursor.on_end(group)

    def finish(self) -> None:
        """Finish the track: see `Track.finish`."""
        if not self.ended:
            self.final = self.next
            for cursor in (*self._cursors, *self._resting):
                cursor.finish(self.final)
            self._end()

    def abort(self, code: int) -> None:
        """Abort the track: see `Track.abort`."""
        if self.aborted is None:
            self.aborted = code
            for cursor in (*self._cursors, *self._resting):
                cursor.abort(code)
            self._room.wake()
            self._end()

    @property
    def ended(self) -> bool:
        """True once the track was finished or aborted."""
        return self.final is not None or self.aborted is not None

    # -- at rest -------------------------------------------------------------------------------------------

    def _end(self) -> None:
        # A track may be finished outside Trio: then the first look counts as its end.
        if self._ended_at is None and trio.lowlevel.in_trio_run():
            self._ended_at = trio.current_time()
        self._begin_ageing()

    def _begin_ageing(self) -> None:
        self.ageing = True
        changed = self.changed() if self.changed is not None else None
        if changed is not None:
            changed(self)

    @property
    def at_rest(self) -> bool:
        """True when the track has ended, all of its groups are written, and nothing reads it."""
        return self.ended and not self._cursors and self._cache.settled

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._cache.size

    def age(self, now: float) -> bool:
        """Drop the groups that are too old by now. Return True while there is something that will be too old."""
        self._cache.age(now)
        if self.ended and self._ended_at is None:
            self._ended_at = now
        self.ageing = self.ended or len(self._cache) > 1
        return self.ageing

    def is_old(self, now: float) -> bool:
        """Return whether the track is at rest, and ended more than `max_age` ago."""
        return self._ended_at is not None and now - self._ended_at >= self._max_age and self.at_rest

    def share_cache(self, pool: CachePool) -> None:
        """Keep groups within a bound that other tracks share, besides this track's own."""
        self._cache.share(pool)

    def keep_past(self, group: Group) -> None:
        """Keep a copy of a whole group of the past for fetches and late subscribers; the present ones do not get it.

        Only of one that this track has had and no longer keeps, or from before its first: any other may still come.
        """
        sequence = group.sequence
        past = sequence < self._begins or self._used.has_key(sequence)
        whole = group.complete and not group.first and group.traits is None
        if past and whole and not (self._used.in_parts or self.ended or self.parts(sequence)):
            self._used.add(sequence)
            self._cache.add(copy_group(group))
            self._begin_ageing()

    def let_go(self) -> None:
        """Keep no groups any more, once nothing reads the track: it is no longer in its broadcast."""
        self._let_go = True
        self.changed = None
        if not self._cursors:
            self._cache.clear()

    # -- subscribers, and waiting for them -----------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """The number of cursors."""
        return len(self._cursors)

    async def wait_subscribed(self) -> None:
        """Wait until there is a cursor."""
        await trio.lowlevel.checkpoint()
        while not self._cursors:
            await self._demand.wait()

    async def wait_unsubscribed(self) -> None:
        """Wait until there is no cursor."""
        await trio.lowlevel.checkpoint()
        while self._cursors:
            await self._idle.wait()

    def has_room(self) -> bool:
        """Return whether every subscriber is within the bounds of reliable delivery."""
        return self._room.has()

    async def wait_room(self) -> None:
        """Wait until `has_room`, or until the track was aborted. A checkpoint only when it waits."""
        await self._room.wait(lambda: self.aborted is not None)

    def tell_wishes(self) -> None:
        """Called when the wish of a subscriber came, went or changed."""
        if self.wishes_changed is not None:
            self.wishes_changed()

    @property
    def wishes(self) -> list[Wish]:
        """What the subscribers want of the whole track."""
        return [cursor.wish for cursor in self._cursors if cursor.wish is not None]

    # -- for the servers of subscriptions and fetches ------------------------------------------------------

    def was_opened(self, sequence: int) -> bool:
        """Return whether a group was opened, or its subgroup 0 where it has several."""
        return self._used.has_key(sequence)

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the groups from `first` to `last`, inclusive, that the track has not had, as inclusive ranges."""
        return self._used.gaps(first, last)

    def cursor(self, wake: Callable[[], None], *, range: GroupRange, max_age: float, replay: bool) -> Cursor:
        """Return a cursor with this track's bounds, for `attach`; the arguments are those of `Cursor`."""
        return Cursor(
            wake,
            limits=self._limits,
            reliable=self.reliable,
            timescale=self._timescale,
            range=range,
            max_age=max_age,
            replay=replay,
        )

    def attach(self, cursor: Cursor) -> None:
        """Add the groups that a new cursor starts with, and call it for every change from now on."""
        for group in self._cache.initial(cursor.range, cursor.max_age, replay=cursor.replay):
            cursor.add_kept(group)
        cursor.on_sequence(self.next - 1)
        self._end_cursor(cursor)
        self._resting.discard(cursor)
        self._cursors.add(cursor)
        if cursor.wish is not None:
            self.tell_wishes()
        self._demand.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    def rest(self, cursor: Cursor) -> None:
        """Detach a cursor, or keep a new one detached, and call it for the end of the track alone; `attach` ends it."""
        self.detach(cursor)
        self._resting.add(cursor)
        self._end_cursor(cursor)

    def _end_cursor(self, cursor: Cursor) -> None:
        """Call a cursor for the end of the track, if that was before."""
        if self.final is not None:
            cursor.finish(self.final)
        if self.aborted is not None:
            cursor.abort(self.aborted)

    def extend(self, cursor: Cursor) -> None:
        """Add the groups that are new to a cursor whose range was extended."""
        for group in self._cache.after(cursor.latest, cursor.range):
            cursor.add_kept(group)

    def detach(self, cursor: Cursor) -> None:
        """Remove a cursor."""
        self._cursors.discard(cursor)
        self._resting.discard(cursor)
        if not self._cursors and self._demand.is_set():
            self._demand = trio.Event()
            self._idle.set()
            if self._let_go:
                self._cache.clear()
        self._room.wait_no_longer_for(cursor)
        if cursor.wish is not None:
            self.tell_wishes()

    def group(self, key: GroupKey) -> Group | None:
        """Return a group that is kept, or None. By a sequence it is the subgroup 0, or the only one."""
        return self._cache.get(key)

    def parts(self, sequence: int) -> list[Group]:
        """Return what is kept of a group: its subgroups, in order. There is one, unless its writer made several."""
        return self._cache.parts(sequence)

    def lacks_parts(self, sequence: int) -> bool:
        """Return whether the track has had subgroups of a kept group that it does not keep any more."""
        return sequence in self._cache.lacking

    def kept(self, first: int, last: int) -> list[int]:
        """Return the sequences from `first` to `last`, inclusive, of the groups that are kept, in order."""
        return self._cache.between(first, last)

    @property
    def largest(self) -> tuple[int, int] | None:
        """The newest group that has a frame, and the index of its last one; None before the first frame."""
        kept = self._cache.largest
        return kept if self._apart is None or (kept is not None and kept > self._apart) else self._apart

    @property
    def next_frame(self) -> tuple[int, int]:
        """Where the next frame is expected: in the highest group while that is open, else at the start of the next."""
        parts = self.parts(self.next - 1) if self.next else []
        is_open = any(not group.ended for group in parts)
        return (self.next - 1, max(group.next_id for group in parts)) if is_open else (self.next, 0)

    @property
    def newest(self) -> int:
        """The newest timestamp of the latest group that has a frame; -1 while there is none."""
        return self._cache.newest

    def too_old(self, key: GroupKey, max_age: float) -> bool:
        """Return whether a group is older than `max_age` seconds as a whole; the latest one never is.

        Spec: moq-lite-06, section 6.2.
        """
        return not self.reliable and self._cache.too_old(key, max_age)

    # -- bookkeeping ---------------------------------------------------------------------------------------

    def _check_open(self, sequence: int | None) -> int:
        if sequence is None and self.next <= MAX_SEQUENCE and not self.ended:
            # It is above every number that was used.
            return self.next
        sequence = self._check_number(self.next if sequence is None else sequence)
        if sequence in self._used and not self._used.has_datagrams_only(sequence):
            raise ValueError(f"group {sequence} of track {self.name!r} was opened before")
        return sequence

    def _check_number(self, sequence: int) -> int:
        if self.ended:
            raise trio.ClosedResourceError(f"the track {self.name!r} has ended")
        if type(sequence) is not int:
            want_number("a group's sequence", sequence)
        if not 0 <= sequence <= MAX_SEQUENCE:
            raise ValueError(f"a group's sequence is 0 … 2**62-1, not {sequence}")
        return sequence

    def _stamp(self, timestamp: int | None, properties: Properties = ()) -> int:
        if timestamp is None and properties:
            timestamp = timestamp_of(properties)
        if timestamp is None:
            try:
                now = trio.current_time()
            except RuntimeError:
                raise NotOnTrio from None
            if self._epoch is None:
                self._epoch = now
            return int((now - self._epoch) * self._timescale)
        if type(timestamp) is not int:
            want_number("a timestamp, in units of the track's timescale,", timestamp)
        if not 0 <= timestamp <= MAX_SEQUENCE:
            raise ValueError(f"a timestamp is 0 … 2**62-1, not {timestamp}")
        return timestamp
