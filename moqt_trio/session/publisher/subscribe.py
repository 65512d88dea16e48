"""Serving one subscription: from a cursor over a track to group streams."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...model.cursor import GroupCursor, GroupRange
from ...model.track import state_of
from ...tasks import Wakeup
from ..context import SessionContext, give_up, logger
from .group import SentGroup, SentGroups, StreamOwner

if TYPE_CHECKING:
    from ...model.origin import PublishedBroadcast
    from ...model.track import Track
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.abc import BidiStream
    from ...wire.messages import Subscribe, SubscribeUpdate

CHUNK = 4 * 1024
"""Bytes of frames that are written in one go: enough to fill packets, little enough to let others go first."""
_EXPIRY_STEP = 1 / 8
"""The share of max age after which the groups that were written are looked at again."""


_LEAST_RTT = 0.005
"""Seconds that a round trip surely takes, for a path that was not measured yet."""


class SubscribeServer(StreamOwner):
    """Serves one subscription: moves groups from a cursor to group streams, as fast as the peer takes them.

    Attributes:
        publication: What it reads from.
        wakeup: Set whenever there may be something to do.
        done: Set once the subscription is over.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: SubscribeResponder,
        request: Subscribe,
        publication: PublishedBroadcast,
        track: Track,
        scope: trio.CancelScope,
    ) -> None:
        self.publication = publication
        self.wakeup = Wakeup()
        self.done = trio.Event()
        self._context = context
        self._stream = stream
        self._machine = machine
        self._subscribe_id = request.subscribe_id
        self._log = state_of(track)
        self._ordered = request.ordered or self._log.reliable
        self._priority = request.priority
        self._track = track
        self._scope = scope
        self._groups = SentGroups(context.limits)
        self._expired_at = -1
        self._congested = False
        self._leaving = False
        self._end_told = False
        self._untold = 0
        self._drops: list[tuple[int, int, int]] = []
        wanted = GroupRange(request.start_group, request.end_group, request.start_frame, request.end_frame)
        self._cursor = self._log.cursor(self.wakeup.set, range=wanted, max_age=self._max_age(request))

    def _max_age(self, wish: Subscribe | SubscribeUpdate) -> float:
        # Where the version cannot say it, the publisher's own bound holds.
        return wish.max_age_ms / 1000 if self._context.core.dialect.features.max_age else self._track.max_age

    # -- from the peer and from the transport --------------------------------------------------------------

    def update(self, update: SubscribeUpdate) -> None:
        """Takes a SUBSCRIBE_UPDATE: it bounds what is sent from here on. Behind a later end kept groups follow, too."""
        cursor = self._cursor
        ended = cursor.range.end_group is not None
        cursor.range = GroupRange(update.start_group, update.end_group, update.start_frame, update.end_frame)
        cursor.max_age = self._max_age(update)
        self._ordered = update.ordered or self._log.reliable
        self._priority = update.priority
        for sequence in [number for number in cursor.pending if not cursor.range.holds(number)]:
            self._give_up(sequence, StreamCode.CANCELLED)
        if ended and (cursor.latest >= 0 or update.start_group is not None):
            self._log.extend(cursor)
        self.wakeup.set()

    def group_refused(self, sequence: int) -> None:
        if sequence in self._groups:
            self._give_up(sequence, StreamCode.CANCELLED)
            self.wakeup.set()

    def group_ready(self, sequence: int) -> None:
        entry = self._cursor.pending.get(sequence)
        if entry is not None:
            self._cursor.again(entry)
        self.wakeup.set()

    def group_delivered(self, sequence: int) -> None:
        if self._groups.forget(sequence) is not None and (self._congested or self._cursor.done or self._leaving):
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
                self._log.attach(self._cursor, replay=self._context.core.dialect.features.frame_ranges)
                self._accept_early()
                if self._context.core.dialect.features.accept_before_groups:
                    await self._acceptance_read()
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
            self._log.detach(self._cursor)
            self._context.scheduler.leave(self)
            self._groups.reset_all(code)
            if not self._stream.send_ended:
                give_up(self._stream, code)
            self.done.set()

    async def _acceptance_read(self) -> None:
        """Waits until the subscriber has surely read the acceptance: it has arrived, and time to read it has passed."""
        while True:
            await trio.sleep(2 * max(self._context.connection.statistics().rtt, _LEAST_RTT))
            if not self._stream.buffered:
                return

    def _finished(self) -> bool:
        if self._cursor.aborted is not None:
            return True
        if self._leaving and not self._groups and not self._cursor.pending:
            return True
        if not self._cursor.done or self._groups or self._drops:
            return False
        # The end of the range is not the end of the track, and peers take this side's FIN for that.
        return self._cursor.end is not None or not self._machine.accepted

    def _accept_early(self) -> None:
        if not self._context.core.dialect.features.subscribe_ok_needs_group:
            first = min(self._cursor.pending, default=None)
            self._stream.write(self._machine.accept(first, latest_group=self._track.latest))

    def _pump(self) -> None:
        """Does everything that can be done without waiting."""
        if self._groups.draining and not self._log.reliable:
            self._expire_draining()
        self._tell_dropped()
        cursor = self._cursor
        if self._leaving:
            for entry in list(cursor.pending.values()):
                if not entry.has_frames and not entry.group.ended:
                    self._give_up(entry.group.sequence, StreamCode.CANCELLED)
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
        elif cursor.done and self._machine.accepted:
            self._tell_missing()

    def _serve(self, entry: GroupCursor) -> None:
        if not entry.has_frames and not entry.finished:
            return
        sequence = entry.group.sequence
        out = self._groups.get(sequence)
        # The end of a group that is open costs the link nothing.
        if (out is None or entry.has_frames) and not self._context.scheduler.may_send(self):
            self._cursor.again(entry)
            return
        if out is None:
            if entry.group.datagram and self._send_datagram(entry):
                return
            if self._groups.all_writing:
                self._make_way(sequence)
            out = self._open(entry)
            if out is None:
                self._congested = True
                self._cursor.again(entry)
                return
        try:
            self._write(out, entry)
        except StreamReset:
            self.group_refused(sequence)
        except LocalProtocolError as error:
            # A timestamp that the version can't spell: this group is given up, and nothing else.
            logger.warning("group %d of track %s cannot be sent: %s", sequence, printable(self._track.name), error)
            self._cursor.remove(sequence)
            self._cursor.lose(sequence, StreamCode.INTERNAL_ERROR)
            self._tell_dropped()

    def _make_way(self, sequence: int) -> None:
        """Gives up the oldest open group that still has frames waiting, so that a newer one need not wait for it."""
        cursor = self._cursor
        if self._ordered or sequence < max(cursor.pending):
            return
        behind = [number for number, entry in cursor.pending.items() if number in self._groups and entry.has_frames]
        if behind:
            cursor.drop(min(behind), StreamCode.TOO_FAR_BEHIND)
            self._tell_dropped()

    def _open(self, entry: GroupCursor) -> SentGroup | None:
        if self._groups.full:
            return None
        try:
            stream = self._context.connection.open_uni_nowait()
        except trio.WouldBlock:
            return None
        sequence = entry.group.sequence
        sender = self._context.core.group(self._subscribe_id, sequence, entry.start)
        out = SentGroup(self, stream, sender, sequence)
        self._groups.add(out)
        self._context.map_codes(stream, "group")
        stream.handler = out
        return out

    def _write(self, out: SentGroup, entry: GroupCursor) -> None:
        cursor = self._cursor
        stream = out.stream
        while entry.has_frames:
            if not stream.writable:
                return
            if out.started and not self._context.scheduler.may_send(self):
                cursor.again(entry)
                return
            data = out.sender.frames(cursor.take(entry, CHUNK))
            if not out.started:
                out.started = True
                data = out.sender.opening + data
            finished = entry.finished
            stream.write(data, finished)
            if finished:
                self._groups.drain(out)
                return
        if entry.finished:
            stream.write(b"" if out.started else out.sender.opening, True)
            out.started = True
            self._groups.drain(out)
            cursor.remove(entry.group.sequence)

    def _expire_draining(self) -> None:
        """Gives up groups that were written whole, cannot leave, and have become too old.

        The cursor has let go of them. What is on its way may arrive: it no longer burdens the link.
        """
        log, cursor = self._log, self._cursor
        # Looking at every stream is too dear for every frame.
        if abs(log.newest - self._expired_at) < cursor.max_age * self._track.timescale * _EXPIRY_STEP:
            return
        self._expired_at = log.newest
        for out in self._groups:
            if out.draining is not None and out.stream.held_up and log.too_old(out.sequence, cursor.max_age):
                cursor.lose(out.sequence, StreamCode.OLD)

    def _send_datagram(self, entry: GroupCursor) -> bool:
        """Sends a group as a datagram; returns False when it has to go on a stream."""
        connection = self._context.connection
        if not self._context.core.dialect.features.datagrams or not connection.max_datagram_size:
            return False
        frame = entry.group.frames[0]
        try:
            body = self._context.core.datagram(
                self._subscribe_id, entry.group.sequence, frame.timestamp or 0, frame.payload
            )
        except LocalProtocolError:
            return False
        if len(body) > connection.max_datagram_size:
            return False
        connection.send_datagram(body)
        self._cursor.take(entry, CHUNK)
        return True

    def _give_up(self, sequence: int, code: int) -> None:
        """Delivers no more of a group."""
        self._cursor.remove(sequence)
        out = self._groups.forget(sequence)
        if out is not None:
            out.stream.reset(code)

    # -- what the subscribe stream says --------------------------------------------------------------------

    def _tell_dropped(self) -> None:
        for sequence, code in self._cursor.take_dropped():
            self._give_up(sequence, code)
            self._add_drop(sequence, code)
        if self._drops and self._machine.accepted and self._stream.writable:
            self._stream.write(b"".join(self._machine.drop(*drop) for drop in self._drops))
            self._drops.clear()
        elif self._drops and not self._context.core.dialect.features.subscribe_drop:
            self._drops.clear()

    def _add_drop(self, sequence: int, code: int) -> None:
        if self._drops:
            first, last, last_code = self._drops[-1]
            if sequence == last + 1 and code == last_code:
                self._drops[-1] = (first, sequence, code)
                return
        self._drops.append((sequence, sequence, code))

    def _tell_missing(self) -> None:
        """Says which groups of a range that is over will never come: the subscriber sees that it has them all."""
        wanted, earliest = self._cursor.range, self._cursor.earliest
        last = wanted.end_group
        if last is None or last < self._untold:
            return
        untold, self._untold = self._untold, last + 1
        first = last if wanted.start_group is None else wanted.start_group
        # What is not kept any more, and then what never was.
        behind = last if earliest is None else min(earliest - 1, last)
        missing = [(max(first, untold), behind)]
        if earliest is not None:
            missing += self._log.gaps(max(earliest, untold), last)
        self._drops += [(low, high, StreamCode.NOT_FOUND) for low, high in missing if low <= high]
        self._tell_dropped()

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
            f"<SubscribeServer {self._track.name!r} of {str(self.publication.path)!r}, "
            f"{len(self._groups)} groups open, {self._cursor.backlog} bytes behind>"
        )


async def leave_all(servers: Iterable[SubscribeServer], timeout: float) -> None:
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
