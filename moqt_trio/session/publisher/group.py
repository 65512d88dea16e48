"""GroupServer: writes groups from a cursor to streams. SentGroups: the group streams of one subscription.

A group is written first; then it drains until the peer has acknowledged all of it. `GroupServer` is what the servers of
subscriptions and fetches have in common: a cursor over a track, read as fast as the peer and the link allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from ...errors import SessionClosed, StreamReset
from ...model.track import state_of
from ...transport.interface import StreamHandler
from .request import RequestServer
from .scheduler import TURN

if TYPE_CHECKING:
    from ...frame import Frame
    from ...limits import Limits
    from ...model.cursor import Cursor, GroupRange
    from ...model.group_cursor import GroupCursor
    from ...model.keys import GroupKey
    from ...model.track import Track
    from ...model.track_state import TrackState
    from ...protocol.group import GroupSender
    from ...tasks import Wakeup
    from ...transport.send_stream import SendStream


_FEW_STREAMS = 4
"""Group streams that a subscription may have while the session is crowded. With one, a lost packet would stop it."""

_END_WAIT = 0.002
"""Seconds: a source that writes one frame and ends the group does so within one, also when it is itself a subscription
whose FIN comes in a packet of its own. No one sees a picture or hears a sound 2 ms later."""

_END_STEPS = 4
"""Steps of the scheduler in which the end of a group that has arrived comes from the socket to the group: the task that
reads the socket, the task that reads the subscription, and the one that copies the group."""


class GroupServer(RequestServer):
    """Writes groups of a track from a cursor, in turn with the session's other servers.

    Attributes:
        ended: Set once the request has ended and its streams are finished or reset.
    """

    _track: Track
    _track_state: TrackState
    _cursor: Cursor
    _priority: int
    ended: trio.Event

    def _read(
        self, track: Track, wanted: GroupRange, *, priority: int, max_age: float, replay: bool, paused: bool = False
    ) -> None:
        """Attach a cursor to a track, or have it rest for now; the other arguments are those of `Cursor`."""
        self.ended = trio.Event()
        self._track = track
        self._priority = priority
        self._track_state = log = state_of(track)
        self._cursor = log.cursor(self.wakeup.set, range=wanted, max_age=max_age, replay=replay)
        if paused:
            log.rest(self._cursor)
        else:
            log.attach(self._cursor)

    @property
    def send_priority(self) -> tuple[int, int]:
        """The subscriber's priority, then the publisher's; see `scheduler.Sender`."""
        return self._priority, self._track.priority

    def resume(self) -> None:
        """Called when the scheduler has picked this server: write at once."""
        if self.ended.is_set() or self.scope.cancel_called:
            return
        # The task gets the same error, and ends with it.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            self._pump()
        self.wakeup.set()

    def _pump(self) -> None:
        """Do everything that can be done without waiting."""
        raise NotImplementedError

    def _write_frames(
        self,
        entry: GroupCursor,
        stream: SendStream,
        encode: Callable[[Sequence[Frame]], bytes],
        allowance: int,
        *,
        opening: bytes = b"",
        fin: bool,
    ) -> tuple[int, bool]:
        """Write a group's frames while its stream and the link have room.

        Args:
            entry: The group; it has frames, or it has ended.
            stream: Where to write.
            encode: Makes the bytes of some frames.
            allowance: Bytes that may be written now, above 0.
            opening: Bytes that go before the first frame.
            fin: True to finish the stream with the group.

        Returns:
            The rest of the allowance, and whether the group was written to its end.

        Raises:
            StreamReset: The peer refused the stream.
            LocalProtocolError: A frame has a timestamp that the version can't carry.
        """
        cursor = self._cursor
        while (room := stream.room) > 0 or not entry.has_frames:
            frames: Sequence[Frame] = ()
            finished = False
            if entry.offset < 0:
                frames, finished = cursor.take(entry, min(allowance, room, TURN), room)
            if not frames and entry.left > 0:
                # The peer's credit, or the send buffer, has no room for the next frame as a whole.
                data, finished = self._take_part(entry, encode, max(room - len(opening), 1))
            else:
                data = encode(frames)
            if opening:
                data = opening + data
                opening = b""
            if data or (finished and fin):
                stream.write(data, finished and fin)
            if finished:
                return allowance - len(data), True
            allowance -= len(data)
            if entry.left <= 0:
                return allowance, False
            if allowance <= 0 and (allowance := self.serving.scheduler.allowance(self)) == 0:
                cursor.requeue(entry)
                return 0, False
        return allowance, False

    def _take_part(
        self, entry: GroupCursor, encode: Callable[[Sequence[Frame]], bytes], room: int
    ) -> tuple[bytes, bool]:
        """Return the next bytes of a group's next frame, with the header in front, and whether the group is written."""
        head = b""
        if entry.offset < 0:
            frame = entry.next_frame
            whole = encode((frame,))
            head = whole[: len(whole) - len(frame)]
            entry.offset = 0
        start = entry.offset
        frame, count, finished = self._cursor.take_part(entry, max(room - len(head), 1))
        return head + frame[start : start + count], finished


class StreamOwner(Protocol):
    """What a group's stream calls when its state changes."""

    def group_refused(self, key: GroupKey) -> None:
        """Called when the subscriber refuses a group."""

    def group_ready(self, key: GroupKey) -> None:
        """Called when a group's send buffer has room again."""

    def group_delivered(self, key: GroupKey) -> None:
        """Called when the subscriber has acknowledged all of a group."""


class SentGroup(StreamHandler):
    """The stream of one group to the subscriber.

    Attributes:
        stream: The stream.
        sender: Makes its bytes.
        key: The group's key.
        opening: Bytes that have to be written first; empty once they were.
        draining: The bytes in the send buffer when all of the group had been written; None until then.
    """

    __slots__ = ("_owner", "draining", "key", "opening", "sender", "stream")

    def __init__(self, owner: StreamOwner, key: GroupKey, stream: SendStream, sender: GroupSender) -> None:
        self._owner = owner
        self.key = key
        self.stream = stream
        self.sender = sender
        self.opening = sender.opening
        self.draining: int | None = None

    def stop_received(self, code: int) -> None:
        self._owner.group_refused(self.key)

    def send_ready(self) -> None:
        self._owner.group_ready(self.key)

    def send_finished(self) -> None:
        self._owner.group_delivered(self.key)


class EndWait:
    """Holds frames back until their groups end or a moment has passed (`Quirks.fin_with_frame`)."""

    def __init__(self) -> None:
        self._due: dict[GroupKey, float] = {}
        self._passed = -math.inf

    def release(self, entries: Iterable[GroupCursor], cursor: Cursor) -> list[GroupCursor]:
        """Return those of the groups that may be served now; the others stay ready, and come again at `next`."""
        before, self._due = self._due, {}
        now = trio.current_time()
        served: list[GroupCursor] = []
        for entry in entries:
            key = entry.group.key
            due = before.get(key, now + _END_WAIT)
            if entry.group.ended or not entry.has_frames or due <= self._passed:
                served.append(entry)
            else:
                self._due[key] = due
                cursor.requeue(entry)
        return served

    async def wait(self, wakeup: Wakeup) -> None:
        """Wait for the wake-up, or until a group may be served though it has not ended."""
        with trio.move_on_at(min(self._due.values(), default=math.inf)) as scope:
            await wakeup.wait()
        if scope.cancelled_caught:
            passed = trio.current_time()
            # Time passes while other tasks run, too: the source gets its turn before it counts as late.
            for _ in range(_END_STEPS):
                await trio.lowlevel.checkpoint()
            self._passed = passed


class SentGroups:
    """The open group streams of one subscription, by the groups' keys.

    Args:
        limits: For `max_open_groups`, `max_unacknowledged_groups` and `connection_window`.

    Attributes:
        streams: The streams, by the group's key.
        draining: How many of them drain.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.streams: dict[GroupKey, SentGroup] = {}
        self._draining_bytes = 0
        self.draining = 0

    def __len__(self) -> int:
        return len(self.streams)

    def __iter__(self) -> Iterator[SentGroup]:
        return iter(self.streams.values())

    def __contains__(self, key: GroupKey) -> bool:
        return key in self.streams

    @property
    def all_writing(self) -> bool:
        """True when as many groups are being written as may be at once."""
        return len(self.streams) - self.draining >= self._limits.max_open_groups

    def full(self, *, crowded: bool) -> bool:
        """Return whether no further stream may be opened now.

        Args:
            crowded: True when the session holds much: then what is left is for subscriptions that hold little.
        """
        return (
            self.all_writing
            or (crowded and len(self.streams) >= _FEW_STREAMS)
            or len(self.streams) >= self._limits.max_unacknowledged_groups
            or self._draining_bytes >= self._limits.connection_window
        )

    def add(self, sent: SentGroup) -> None:
        """Add a stream that was just opened."""
        self.streams[sent.key] = sent

    def drain(self, sent: SentGroup) -> None:
        """Record that all of a group was written."""
        sent.draining = sent.stream.buffered
        self._draining_bytes += sent.draining
        self.draining += 1

    def release(self, key: GroupKey) -> SentGroup | None:
        """Remove a group, and return its stream; None when it has none."""
        sent = self.streams.pop(key, None)
        if sent is not None and sent.draining is not None:
            self._draining_bytes -= sent.draining
            self.draining -= 1
        return sent

    def reset(self, key: GroupKey, code: int) -> None:
        """Reset the stream of a group, if it has one."""
        sent = self.release(key)
        if sent is not None:
            sent.stream.reset(code)

    def reset_all(self, code: int) -> None:
        """Reset the streams of every group."""
        for sent in self.streams.values():
            sent.stream.reset(code)
        self.streams.clear()
        self._draining_bytes = self.draining = 0
