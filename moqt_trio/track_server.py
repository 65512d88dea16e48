"""Serving one subscription: from a cursor over a track to group streams."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .codes import StreamCode
from .driver import SessionDriver, give_up
from .errors import LocalProtocolError, SessionClosed
from .model.cursor import GroupCursor, GroupRange
from .model.wakeup import Wakeup
from .transport.abc import BidiStream, SendStream, StreamSink
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from .model.track import Track
    from .origin import Publication
    from .session.group import GroupSender
    from .session.subscribe import TrackPublisher
    from .wire.messages import Subscribe, SubscribeUpdate

CHUNK = 4 * 1024
"""Bytes of frames that are written in one go: enough to fill packets, little enough to let others go first."""
_EXPIRY_STEP = 1 / 8
"""The share of max age after which the groups that were written are looked at again."""


_LEAST_RTT = 0.005
"""Seconds that a round trip surely takes, for a path that was not measured yet."""


class _GroupStream(StreamSink):
    """One group stream on its way to the subscriber."""

    __slots__ = ("draining", "sender", "sequence", "server", "started", "stream")

    def __init__(self, server: TrackServer, stream: SendStream, sender: GroupSender, sequence: int) -> None:
        self.server = server
        self.stream = stream
        self.sender = sender
        self.sequence = sequence
        self.started = False
        self.draining: int | None = None

    def stop_received(self, code: int) -> None:
        self.server.group_refused(self)

    def send_ready(self) -> None:
        self.server.group_ready(self)

    def send_finished(self) -> None:
        self.server.group_delivered(self)


class TrackServer:
    """Serves one subscription: moves groups from a cursor to group streams, as fast as the peer takes them.

    Attributes:
        publication: What it reads from.
        wakeup: Set whenever there may be something to do.
        done: Set once the subscription is over.
    """

    def __init__(
        self,
        driver: SessionDriver,
        stream: BidiStream,
        machine: TrackPublisher,
        request: Subscribe,
        publication: Publication,
        track: Track,
        scope: trio.CancelScope,
    ) -> None:
        self.publication = publication
        self.wakeup = Wakeup()
        self.done = trio.Event()
        self._driver = driver
        self._stream = stream
        self._machine = machine
        self._subscribe_id = request.subscribe_id
        self._ordered = request.ordered or track.reliable
        self._priority = request.priority
        self._track = track
        self._scope = scope
        self._groups: dict[int, _GroupStream] = {}
        self._draining_groups = 0
        self._draining_bytes = 0
        self._expired_at = -1
        self._congested = False
        self._leaving = False
        self._end_told = False
        self._drops: list[tuple[int, int, int]] = []
        wanted = GroupRange(request.start_group, request.end_group, request.start_frame, request.end_frame)
        self._cursor = track.cursor(self.wakeup.set, range=wanted, max_age=self._max_age(request))

    def _max_age(self, wish: Subscribe | SubscribeUpdate) -> float:
        # Where the version cannot say it, the publisher's own bound holds.
        return wish.max_age_ms / 1000 if self._driver.core.dialect.features.max_age else self._track.max_age

    # -- from the peer and from the transport --------------------------------------------------------------

    def update(self, update: SubscribeUpdate) -> None:
        """Takes a SUBSCRIBE_UPDATE: it bounds what is sent from here on."""
        cursor = self._cursor
        cursor.range = GroupRange(update.start_group, update.end_group, update.start_frame, update.end_frame)
        cursor.max_age = self._max_age(update)
        self._ordered = update.ordered or self._track.reliable
        self._priority = update.priority
        for sequence in [number for number in cursor.pending if not cursor.range.holds(number)]:
            cursor.remove(sequence)
            self._reset_group(sequence, StreamCode.CANCELLED)
        self.wakeup.set()

    def group_refused(self, out: _GroupStream) -> None:
        """The subscriber does not want a group."""
        if self._forget(out):
            self._cursor.remove(out.sequence)
            self.wakeup.set()

    def group_ready(self, out: _GroupStream) -> None:
        """A group's send buffer has room again."""
        entry = self._cursor.pending.get(out.sequence)
        if entry is not None:
            self._cursor.again(entry)
        self.wakeup.set()

    def group_delivered(self, out: _GroupStream) -> None:
        """The subscriber has all of a group."""
        if self._forget(out) and (self._congested or self._cursor.done or self._leaving):
            self.wakeup.set()

    def streams_available(self) -> None:
        """The peer allows more streams."""
        if self._congested:
            self.wakeup.set()

    @property
    def urgency(self) -> tuple[int, int]:
        """The subscriber's priority, then the publisher's; the higher goes first (moq-lite-06, section 6.1.1)."""
        return self._priority, self._track.priority

    def resume(self) -> None:
        """Goes on at once: the scheduler has picked this subscription."""
        if self.done.is_set() or self._scope.cancel_called:
            return
        # The task meets the same error, and ends for it.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            self._pump()
        self.wakeup.set()

    def leave(self) -> None:
        """Ends the subscription once what is there has been delivered; groups that are still open are cut."""
        self._leaving = True
        if self._cursor.end is None:
            # For this subscriber the track ends here, whatever it brings to others.
            latest = self._track.latest
            self._cursor.finish(0 if latest is None else latest + 1)
        self.wakeup.set()

    def cancel(self) -> None:
        """Ends the subscription at once."""
        self._scope.cancel()

    # -- the task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until the track has ended and everything was delivered, or the peer or the session gave up."""
        code: int = StreamCode.SESSION_CLOSED
        try:
            with self._scope:
                self._track.attach(self._cursor, replay=self._driver.core.dialect.features.frame_ranges)
                self._accept_early()
                if self._driver.core.dialect.features.accept_before_groups:
                    await trio.sleep(2 * max(self._driver.connection.statistics().rtt, _LEAST_RTT))
                while not self._finished():
                    self._pump()
                    if not self._finished():
                        await self.wakeup.wait()
                if self._cursor.aborted is not None:
                    code = self._cursor.aborted
                else:
                    self._tell_end()
                    self._machine.finish()
                    self._stream.finish()
            if self._scope.cancelled_caught:
                code = StreamCode.CANCELLED
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._track.detach(self._cursor)
            self._driver.scheduler.leave(self)
            for out in self._groups.values():
                out.stream.reset(code)
            self._groups.clear()
            if not self._stream.send_ended:
                give_up(self._stream, code)
            self.done.set()

    def _finished(self) -> bool:
        if self._cursor.aborted is not None:
            return True
        if self._leaving and not self._groups and not self._cursor.pending:
            return True
        return self._cursor.done and not self._groups and not self._drops

    def _accept_early(self) -> None:
        if not self._driver.core.dialect.features.subscribe_ok_needs_group:
            first = min(self._cursor.pending, default=None)
            self._stream.write(self._machine.accept(first, latest_group=self._track.latest))

    def _pump(self) -> None:
        """Does everything that can be done without waiting."""
        if self._draining_groups and not self._track.reliable:
            self._expire_draining()
        self._tell_dropped()
        cursor = self._cursor
        if self._leaving:
            for entry in list(cursor.pending.values()):
                if not entry.has_frames and not entry.group.ended:
                    self._cut(entry)
        if not self._machine.accepted and cursor.pending:
            self._stream.write(self._machine.accept(min(cursor.pending)))
        self._congested = False
        left: list[GroupCursor] = []
        for entry in cursor.news(newest_first=not self._ordered):
            if self._congested and entry.group.sequence not in self._groups:
                # No further stream can be opened now; those that are open go on.
                left.append(entry)
            else:
                self._serve(entry)
        if left:
            cursor.again(*left)
        if cursor.end is not None:
            self._tell_end()

    def _serve(self, entry: GroupCursor) -> None:
        if not entry.has_frames and not entry.finished:
            return
        sequence = entry.group.sequence
        out = self._groups.get(sequence)
        # The end of a group that is open costs the link nothing.
        if (out is None or entry.has_frames) and not self._driver.scheduler.may_send(self):
            self._cursor.again(entry)
            return
        if out is None:
            if entry.group.datagram and self._send_datagram(entry):
                return
            if len(self._groups) - self._draining_groups >= self._driver.limits.max_open_groups:
                self._make_way(sequence)
            out = self._open(entry)
            if out is None:
                self._congested = True
                self._cursor.again(entry)
                return
        try:
            self._write(out, entry)
        except StreamReset:
            self.group_refused(out)

    def _make_way(self, sequence: int) -> None:
        """Gives up the oldest open group that still has frames waiting, so that a newer one need not wait for it."""
        cursor = self._cursor
        if self._ordered or sequence < max(cursor.pending):
            return
        behind = [number for number in self._groups if number in cursor.pending and cursor.pending[number].has_frames]
        if behind:
            cursor.drop(min(behind), StreamCode.TOO_FAR_BEHIND)
            self._tell_dropped()

    def _open(self, entry: GroupCursor) -> _GroupStream | None:
        limits = self._driver.limits
        writing = len(self._groups) - self._draining_groups
        if (
            writing >= limits.max_open_groups
            or len(self._groups) >= limits.max_unacknowledged_groups
            or self._draining_bytes >= limits.connection_window
        ):
            return None
        try:
            stream = self._driver.connection.open_uni_nowait()
        except trio.WouldBlock:
            return None
        sequence = entry.group.sequence
        sender = self._driver.core.group(self._subscribe_id, sequence, entry.start)
        out = _GroupStream(self, stream, sender, sequence)
        self._groups[sequence] = out
        self._driver.spell_codes(stream, "group")
        stream.sink = out
        return out

    def _write(self, out: _GroupStream, entry: GroupCursor) -> None:
        cursor = self._cursor
        stream = out.stream
        while entry.has_frames:
            if not stream.writable:
                return
            if out.started and not self._driver.scheduler.may_send(self):
                cursor.again(entry)
                return
            data = out.sender.frames(cursor.take(entry, CHUNK))
            if not out.started:
                out.started = True
                data = out.sender.opening + data
            finished = entry.finished
            stream.write(data, finished)
            if finished:
                self._drain(out)
                return
        if entry.finished:
            stream.write(b"" if out.started else out.sender.opening, True)
            out.started = True
            self._drain(out)
            cursor.remove(entry.group.sequence)

    def _drain(self, out: _GroupStream) -> None:
        """Notes that all of a group was written; the peer still has to acknowledge it."""
        out.draining = out.stream.buffered
        self._draining_bytes += out.draining
        self._draining_groups += 1

    def _expire_draining(self) -> None:
        """Gives up groups that were written whole, cannot leave, and have become too old.

        The cursor has let go of them. What is on its way may arrive: it no longer burdens the link.
        """
        track, cursor = self._track, self._cursor
        # Looking at every stream is too dear for every frame.
        if abs(track.newest - self._expired_at) < cursor.max_age * track.timescale * _EXPIRY_STEP:
            return
        self._expired_at = track.newest
        for out in self._groups.values():
            if out.draining is not None and out.stream.held_up and track.too_old(out.sequence, cursor.max_age):
                cursor.lose(out.sequence, StreamCode.OLD)

    def _forget(self, out: _GroupStream) -> bool:
        """Drops a stream from the count; returns False when it was dropped before."""
        if self._groups.pop(out.sequence, None) is None:
            return False
        if out.draining is not None:
            self._draining_bytes -= out.draining
            self._draining_groups -= 1
        return True

    def _send_datagram(self, entry: GroupCursor) -> bool:
        """Sends a group as a datagram; returns False when it has to go on a stream."""
        connection = self._driver.connection
        if not self._driver.core.dialect.features.datagrams or not connection.max_datagram_size:
            return False
        frame = entry.group.frames[0]
        try:
            body = self._driver.core.datagram(
                self._subscribe_id, entry.group.sequence, frame.timestamp or 0, frame.payload
            )
        except LocalProtocolError:
            return False
        if len(body) > connection.max_datagram_size:
            return False
        connection.send_datagram(body)
        self._cursor.take(entry, CHUNK)
        return True

    def _cut(self, entry: GroupCursor) -> None:
        sequence = entry.group.sequence
        self._cursor.remove(sequence)
        self._reset_group(sequence, StreamCode.CANCELLED)

    def _reset_group(self, sequence: int, code: int) -> None:
        out = self._groups.get(sequence)
        if out is not None and self._forget(out):
            out.stream.reset(code)

    # -- what the subscribe stream says --------------------------------------------------------------------

    def _tell_dropped(self) -> None:
        for sequence, code in self._cursor.take_dropped():
            self._reset_group(sequence, code)
            self._add_drop(sequence, code)
        if self._drops and self._machine.accepted and self._stream.writable:
            self._stream.write(b"".join(self._machine.drop(*drop) for drop in self._drops))
            self._drops.clear()
        elif self._drops and not self._driver.core.dialect.features.subscribe_drop:
            self._drops.clear()

    def _add_drop(self, sequence: int, code: int) -> None:
        if self._drops:
            first, last, last_code = self._drops[-1]
            if sequence == last + 1 and code == last_code:
                self._drops[-1] = (first, sequence, code)
                return
        self._drops.append((sequence, sequence, code))

    def _tell_end(self) -> None:
        end = self._cursor.end
        if not self._end_told and end is not None:
            self._end_told = True
            self._stream.write(self._machine.end(end))

    @property
    def dropped_groups(self) -> int:
        """Groups that this subscriber lost because it was too slow or they were too old."""
        return self._cursor.dropped_groups

    def __repr__(self) -> str:
        return (
            f"<TrackServer {self._track.name!r} of {str(self.publication.path)!r}, {len(self._groups)} groups open, "
            f"{self._cursor.backlog} bytes behind>"
        )


async def leave_all(servers: Iterable[TrackServer], timeout: float) -> None:
    """Lets subscriptions end once what is there has been delivered; ends at once what is not done in time.

    Cancelled, it ends all of them at once.
    """
    leaving = list(servers)
    for server in leaving:
        server.leave()
    try:
        with trio.move_on_after(timeout):
            for server in leaving:
                await server.done.wait()
    finally:
        for server in leaving:
            server.cancel()
