"""A track: one writer's side, the groups that are kept, and the cursors of those who read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

from ..codes import StreamCode
from ..limits import Limits
from .cache import GroupCache
from .cursor import Cursor, GroupRange
from .frame import Frame
from .group import Group, GroupWriter
from .sequences import SequenceSet

Delivery = Literal["live", "reliable"]

MAX_SEQUENCE = 2**62 - 1
MAX_DATAGRAM_PAYLOAD = 1200 - 3 * 8
"""A datagram's body has at most 1200 bytes, of which three varints take up to eight each (moq-lite-06, 6.4)."""


class Track:
    """A named series of groups. Make one with `Broadcast.track`.

    Two ways of delivery. `"live"`: writing never waits; a subscriber that falls behind loses its oldest groups, is
    told so, and always gets the newest. `"reliable"`: writing waits until the slowest subscriber is within the
    bound, and nobody loses anything. Either way memory is bounded in bytes.

    Attributes:
        name: The track's name within its broadcast.
        priority: 0 … 255, higher goes first; decides between subscriptions of equal priority.
        delivery: `"live"` or `"reliable"`.
        max_age: Seconds that a group is kept after a newer one has come.
        timescale: Timestamp units per second.

    Limits: `cache_bytes`, `cache_frames`, `cache_groups`, `live_backlog`, `live_backlog_groups`, `reliable_backlog`,
        `reliable_backlog_frames`, `reliable_backlog_groups`, `max_frame`.
    """

    def __init__(
        self,
        name: str,
        *,
        priority: int = 127,
        delivery: Delivery = "live",
        max_age: float = 5.0,
        timescale: int = 1000,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        if len(name.encode()) > limits.max_track_name:
            raise ValueError(f"a track's name has at most {limits.max_track_name} bytes in UTF-8")
        if not 0 <= priority <= 255:
            raise ValueError(f"priority is 0 … 255, not {priority}")
        if delivery not in ("live", "reliable"):
            raise ValueError(f"delivery is 'live' or 'reliable', not {delivery!r}")
        if max_age < 0:
            raise ValueError(f"max_age is a number of seconds from 0 on, not {max_age}")
        if not 1 <= timescale <= MAX_SEQUENCE:
            raise ValueError(f"timescale is at least 1 unit per second, not {timescale}")
        self.name = name
        self.priority = priority
        self.delivery: Delivery = delivery
        self.max_age = max_age
        self.timescale = timescale
        self._limits = limits
        self._next = 0
        self._used = SequenceSet(limits.cache_groups)
        self._final: int | None = None
        self._aborted: int | None = None
        self._cursors: set[Cursor] = set()
        self._cache = GroupCache(
            self._cursors, limits=limits, reliable=delivery == "reliable", max_age=max_age, timescale=timescale
        )
        self._demand = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._room: trio.Event | None = None
        self._epoch: float | None = None

    def __repr__(self) -> str:
        state = "finished" if self._final is not None else "aborted" if self._aborted is not None else "open"
        return f"<Track {self.name!r} {state}, next group {self._next}, {len(self._cursors)} subscribers>"

    # -- what the application writes -----------------------------------------------------------------------

    def open_group(self, sequence: int | None = None) -> GroupWriter:
        """Opens a group.

        Args:
            sequence: Its number; None takes the next one.

        Returns:
            A writer to be used as an async context manager.

        Raises:
            ValueError: The number was used, or is out of range.
            trio.ClosedResourceError: The track has ended.
        """
        return GroupWriter(self, self._open(sequence))

    async def write(self, payload: bytes, timestamp: int | None = None) -> int:
        """Writes a group of one frame.

        Returns:
            The group's sequence.

        Raises: what `open_group` and `GroupWriter.send` raise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.reliable:
            await self.wait_room()
        sequence = self._write_group(payload, timestamp)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return sequence

    def write_nowait(self, payload: bytes, timestamp: int | None = None) -> int:
        """Writes a group of one frame without waiting.

        Raises: `trio.WouldBlock` when the track is reliable and a subscriber is behind the bound.
        """
        if self.reliable and not self.has_room():
            raise trio.WouldBlock
        return self._write_group(payload, timestamp)

    def send_datagram(self, payload: bytes, timestamp: int | None = None) -> int:
        """Sends a group of one frame as a datagram: not repeated when lost, and not kept.

        A subscriber whose connection cannot carry it that way gets it on a stream.

        Returns:
            The group's sequence.

        Raises:
            ValueError: The payload is longer than 1176 bytes.
            trio.ClosedResourceError: The track has ended.
            trio.WouldBlock: The track is reliable and a subscriber is behind the bound.
        """
        if len(payload) > MAX_DATAGRAM_PAYLOAD:
            raise ValueError(
                f"a datagram's payload has at most {MAX_DATAGRAM_PAYLOAD} bytes, not {len(payload)}; use a group"
            )
        sequence = self._check_open(None)
        if self.reliable and not self.has_room():
            raise trio.WouldBlock
        group = Group(sequence, trio.current_time(), datagram=True)
        group.frames.append(Frame(payload, self._stamp(timestamp)))
        self._use(sequence)
        group.size = len(payload)
        group.complete = True
        for cursor in list(self._cursors):
            cursor.add(group)
        return sequence

    def finish(self) -> None:
        """Ends the track: no group after the last one will come. Groups that are open may still be written."""
        if self._final is None and self._aborted is None:
            self._final = self._next
            for cursor in list(self._cursors):
                cursor.finish(self._final)

    def abort(self, *, code: int = StreamCode.CANCELLED) -> None:
        """Gives the whole track up: every subscription is reset with the code."""
        if self._aborted is None:
            self._aborted = code
            for cursor in list(self._cursors):
                cursor.abort(code)
            self._made_room()

    @property
    def ended(self) -> bool:
        """True once the track was finished or given up."""
        return self._final is not None or self._aborted is not None

    @property
    def subscribers(self) -> int:
        """How many subscriptions read this track now, on all sessions."""
        return len(self._cursors)

    @property
    def latest(self) -> int | None:
        """The highest sequence that was opened; None before the first."""
        return self._next - 1 if self._next else None

    async def wait_subscribed(self) -> None:
        """Waits until somebody subscribes; returns at once while somebody does."""
        await trio.lowlevel.checkpoint()
        while not self._cursors:
            await self._demand.wait()

    async def wait_unsubscribed(self) -> None:
        """Waits until nobody is subscribed."""
        await trio.lowlevel.checkpoint()
        while self._cursors:
            await self._idle.wait()

    # -- what a writer of a group asks ---------------------------------------------------------------------

    @property
    def reliable(self) -> bool:
        """True when writing waits for slow subscribers."""
        return self.delivery == "reliable"

    def has_room(self) -> bool:
        """Returns True when every subscriber is within the bound of reliable delivery."""
        limits = self._limits
        return all(
            cursor.backlog < limits.reliable_backlog
            and cursor.backlog_frames < limits.reliable_backlog_frames
            and not cursor.lags(limits.reliable_backlog_groups)
            for cursor in self._cursors
        )

    async def wait_room(self) -> None:
        """Waits until `has_room`, or until the track was given up. A checkpoint only when it waits."""
        while not self.has_room() and self._aborted is None:
            if self._room is None:
                self._room = trio.Event()
                for cursor in self._cursors:
                    cursor.watch_room(self._made_room)
            await self._room.wait()

    def append(self, group: Group, payload: bytes, timestamp: int | None) -> None:
        """Adds a frame and tells every cursor."""
        if group.ended or self._aborted is not None:
            raise trio.ClosedResourceError("the group has ended")
        if len(payload) > self._limits.max_frame:
            raise ValueError(f"a frame has at most {self._limits.max_frame} bytes, not {len(payload)}")
        frame = Frame(payload, self._stamp(timestamp))
        group.frames.append(frame)
        size = len(frame)
        group.size += size
        self._cache.grew(group, size)
        for cursor in list(self._cursors):
            cursor.grew(group, size)
        self._cache.evict()
        self._cache.expire()

    def complete(self, group: Group) -> None:
        """Ends a group cleanly."""
        if not group.ended:
            group.complete = True
            for cursor in list(self._cursors):
                cursor.ended(group)

    def abort_group(self, group: Group, code: int) -> None:
        """Gives a group up for every subscriber, and forgets it."""
        if not group.ended:
            group.aborted = code
            self._cache.forget(group)
            for cursor in list(self._cursors):
                cursor.ended(group)

    # -- what a subscription or a fetch asks ---------------------------------------------------------------

    def attach(self, cursor: Cursor, *, replay: bool) -> None:
        """Places a cursor at its start and keeps it informed from now on.

        Args:
            cursor: A new cursor.
            replay: True to start at the oldest group that `max_age` allows (moq-lite-06); False to start at
                `start_group` or, without one, at the latest group (versions before).
        """
        for group in self._cache.initial(cursor.range, cursor.max_age, replay=replay):
            cursor.add(group)
        cursor.reach(self._next - 1)
        if self._final is not None:
            cursor.finish(self._final)
        if self._aborted is not None:
            cursor.abort(self._aborted)
        if self._room is not None:
            cursor.watch_room(self._made_room)
        self._cursors.add(cursor)
        self._demand.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    def detach(self, cursor: Cursor) -> None:
        """Forgets a cursor."""
        self._cursors.discard(cursor)
        cursor.watch_room(None)
        if not self._cursors and self._demand.is_set():
            self._demand = trio.Event()
            self._idle.set()
        self._made_room()

    def cursor(self, wake: Callable[[], None], *, range: GroupRange, max_age: float) -> Cursor:
        """Returns a cursor with this track's bounds; `attach` places it."""
        return Cursor(
            wake,
            limits=self._limits,
            reliable=self.reliable,
            timescale=self.timescale,
            range=range,
            max_age=max_age,
        )

    def group(self, sequence: int) -> Group | None:
        """Returns a group that is kept, or None."""
        return self._cache.get(sequence)

    @property
    def newest(self) -> int:
        """The newest timestamp of the latest group that has a frame; -1 while there is none."""
        return self._cache.newest

    def too_old(self, sequence: int, max_age: float) -> bool:
        """Returns True when a group lies wholly outside `max_age` seconds; the latest one never does.

        Spec: moq-lite-06, section 6.2.
        """
        return not self.reliable and self._cache.too_old(sequence, max_age)

    # -- bookkeeping ---------------------------------------------------------------------------------------

    def _check_open(self, sequence: int | None) -> int:
        if self._final is not None or self._aborted is not None:
            raise trio.ClosedResourceError(f"the track {self.name!r} has ended")
        if sequence is None:
            sequence = self._next
        if not 0 <= sequence <= MAX_SEQUENCE:
            raise ValueError(f"a group's sequence is 0 … 2**62-1, not {sequence}")
        if sequence in self._used:
            raise ValueError(f"group {sequence} of track {self.name!r} was opened before")
        return sequence

    def _open(self, sequence: int | None) -> Group:
        sequence = self._check_open(sequence)
        group = Group(sequence, trio.current_time())
        self._use(sequence)
        self._cache.add(group)
        for cursor in list(self._cursors):
            cursor.add(group)
        return group

    def _write_group(self, payload: bytes, timestamp: int | None) -> int:
        sequence = self._check_open(None)
        if len(payload) > self._limits.max_frame:
            raise ValueError(f"a frame has at most {self._limits.max_frame} bytes, not {len(payload)}")
        group = Group(sequence, trio.current_time())
        group.frames.append(Frame(payload, self._stamp(timestamp)))
        group.size = len(payload)
        group.complete = True
        self._use(sequence)
        self._cache.add(group)
        for cursor in list(self._cursors):
            cursor.add(group)
        self._cache.evict()
        self._cache.expire()
        return sequence

    def _stamp(self, timestamp: int | None) -> int:
        if timestamp is None:
            now = trio.current_time()
            if self._epoch is None:
                self._epoch = now
            return int((now - self._epoch) * self.timescale)
        if not 0 <= timestamp <= MAX_SEQUENCE:
            raise ValueError(f"a timestamp is 0 … 2**62-1, not {timestamp}")
        return timestamp

    def _use(self, sequence: int) -> None:
        self._used.add(sequence)
        self._next = max(self._next, sequence + 1)

    def _made_room(self) -> None:
        if self._room is not None and (self._aborted is not None or self.has_room()):
            self._room.set()
            self._room = None
            for cursor in self._cursors:
                cursor.watch_room(None)
