"""SubscribeServer: answers one subscription, from a cursor over a track to group streams.

Theory of operation. The request arrives in the task that reads the socket. That task finds the track, attaches a cursor
to it and writes the reply, where the version allows a reply before the first group. Then it starts this server's own
task. From then on every event (a frame was appended, a stream has room again, the peer acknowledged a group, the link
has room, an update arrived) sets `wakeup`, and the task does everything that it can without waiting (`_pump`): it
reports the dropped groups, and writes the groups that are ready, the most important first, until the link, the streams
or the data run out. A group that could not be served goes back to the cursor.

    IDLE ──request──▶ WAITING ──found──▶ SERVING ──finish()──▶ FINISHING ──▶ ENDED
                         └──refused, cancelled──▶ ENDED

A group passes three steps: it is pending in the cursor, its stream is written (`SentGroups`), and its stream drains
until the peer has acknowledged all of it. The subscription's own stream is finished after its groups' streams, and the
subscription ends when that is acknowledged, too.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.cursor import GroupCursor, GroupRange
from ...model.track import state_of
from ...protocol.events import Event, SubscribeRequested
from ...tasks import defer_interrupts
from ...wire.messages import SubscribeUpdate
from .group import EndWait, GroupServer, SentGroup, SentGroups, StreamOwner
from .replies import Replies
from .scheduler import TURN

if TYPE_CHECKING:
    from ...model.origin import PublishedBroadcast
    from ...model.track import Track
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.stream import BidiStream
    from ...wire.messages import Subscribe
    from .request import Found, Serving

logger = Logger(__name__)

_EXPIRY_STEP = 1 / 8
"""The share of max age after which the draining groups are checked again. Checking every stream costs too much to do
for every frame, and a group that is dropped an eighth of its age late has used the link only a little longer."""
_LEAST_EXPIRY_STEP = 0.02
"""Seconds of the track's time that this is at least: a max age of 0 would have all of them checked for every frame."""

_LEAST_RTT = 0.005
"""The least round trip, in seconds: the measured one is 0 at first, and a process needs time to read."""


class _State(enum.Enum):
    IDLE = enum.auto()
    WAITING = enum.auto()
    SERVING = enum.auto()
    FINISHING = enum.auto()
    ENDED = enum.auto()


@defer_interrupts
class SubscribeServer(GroupServer, StreamOwner):
    """Answers one subscription: moves groups from a cursor to group streams, as fast as the peer takes them.

    Attributes:
        publication: The publication of the track, once it was found.
    """

    codes = "subscribe"
    machine: SubscribeResponder
    publication: PublishedBroadcast
    _groups: SentGroups

    def __init__(self, serving: Serving, stream: BidiStream, machine: SubscribeResponder) -> None:
        super().__init__(serving, stream, machine)
        self._features = self.context.dialect.features
        self._quirks = self.context.dialect.quirks
        self._state = _State.IDLE
        self._early_update: SubscribeUpdate | None = None
        # True once there was an update, which may want an answer.
        self._answers = False
        self._replies = Replies(stream, machine, self._features)
        self._subscribe_id = 0
        self._ordered = False
        # True while a group waits for a stream: for the peer to allow one, or for an earlier group to be delivered.
        self._short_of_streams = False
        self._open_cancelled = False
        # True once the subscriber has acknowledged the end of the subscription's own stream, or reads it no more.
        self._end_delivered = False
        self._end_wait = EndWait() if self._quirks.fin_with_frame else None
        self._expired_at = -1

    # -- from the peer -------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        match event:
            case SubscribeRequested():
                self._state = _State.WAITING
                self.find(event.path, event.request.track, partial(self._answer, event))
            case SubscribeUpdate():
                self._answers = True
                if self._state in (_State.SERVING, _State.FINISHING):
                    self._update(event)
                else:
                    self._early_update = event
            case _:
                super().handle(event)

    def _answer(self, event: SubscribeRequested, found: Found | None) -> None:
        if found is None or self.context.going_away.is_set():
            logger.info("refused track %s of %s", printable(event.request.track), printable(str(event.path)))
            self._state = _State.ENDED
            self.cancel(StreamCode.NOT_FOUND if found is None else StreamCode.GOING_AWAY)
            return
        self.publication, track = found
        request = event.request
        self._subscribe_id = request.subscribe_id
        self._state = _State.SERVING
        wish = self._early_update or request
        self._ordered = wish.ordered or track.delivery == "reliable"
        self._groups = SentGroups(self.context.limits)
        start_group, start_frame = self._start(track, wish)
        self._read(
            track,
            GroupRange(start_group, wish.end_group, start_frame, wish.end_frame),
            priority=wish.priority,
            # Where the version has no such field, the publisher's own bound applies.
            max_age=request.max_age_ms / 1000 if self._features.max_age else track.max_age,
            replay=self._features.frame_ranges,
        )
        if self._features.max_age:
            # The age in the request says where delivery starts; that in an update, what is dropped on its way.
            self._cursor.max_age = wish.max_age_ms / 1000
        if self._cursor.dropped and not self._features.subscribe_drop:
            # Only the end of the subscription can say that its first group can't be had.
            self._cursor.abort(StreamCode.TOO_FAR_BEHIND)
        self.serving.subscriptions[self.publication].add(self)
        if not self._features.subscribe_ok_needs_group:
            # The task gets the same error, and ends with it.
            following = self._track_state.next
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                latest = self._track_state.group(following - 1) if following else None
                self._replies.accept(
                    min(self._cursor.pending, default=None),
                    following - 1 if following else None,
                    None if latest is None else latest.length,
                )
        self.context.start(self._run)

    def _start(self, track: Track, wish: Subscribe | SubscribeUpdate) -> tuple[int | None, int]:
        """Return the first group of a subscription, and the first frame of it."""
        rule = self.machine.start
        if wish.start_group is not None or rule == "latest":
            return wish.start_group, wish.start_frame
        log = state_of(track)
        latest = log.group(log.next - 1) if rule == "object" and log.next else None
        if latest is None or latest.complete:
            return log.next, 0
        return log.next - 1, latest.length

    def _update(self, update: SubscribeUpdate) -> None:
        """Apply an update to the groups not yet sent. If it moves the end of the range, kept groups are added."""
        cursor = self._cursor
        ended = cursor.range.end_group is not None
        start_group, start_frame = update.start_group, update.start_frame
        if start_group is None and self.machine.start != "latest":
            # It started at a place that no group names.
            start_group, start_frame = cursor.range.start_group, cursor.range.start_frame
        cursor.range = GroupRange(start_group, update.end_group, start_frame, update.end_frame)
        if self._features.max_age:
            cursor.max_age = update.max_age_ms / 1000
        self._ordered = update.ordered or self._track_state.reliable
        self._priority = update.priority
        self.serving.scheduler.priority_changed(self)
        for sequence in [number for number in cursor.pending if not cursor.range.holds(number)]:
            self._cancel_group(sequence)
        if ended and (cursor.latest >= 0 or update.start_group is not None):
            self._track_state.extend(cursor)
        self.wakeup.set()

    # -- from the transport --------------------------------------------------------------------------------

    def group_refused(self, sequence: int) -> None:
        if sequence in self._groups:
            self._cancel_group(sequence)
            self.wakeup.set()

    def group_ready(self, sequence: int) -> None:
        entry = self._cursor.pending.get(sequence)
        if entry is not None:
            self._cursor.requeue(entry)
        self.wakeup.set()

    def stop_received(self, code: int) -> None:
        super().stop_received(code)
        # Nothing that was written will be acknowledged any more.
        self.send_finished()

    def send_finished(self) -> None:
        self._end_delivered = True
        self.wakeup.set()

    def group_delivered(self, sequence: int) -> None:
        if self._groups.release(sequence) is not None and (
            self._short_of_streams or self._state is _State.FINISHING or self._cursor.done
        ):
            self.wakeup.set()

    # -- from the session ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the subscription once what was written has been delivered; groups that are still open are reset."""
        if self._state is _State.SERVING:
            self._state = _State.FINISHING
        if self._cursor.end is None:
            # For this subscription the track ends here; others may still get later groups.
            latest = self._track.latest
            self._cursor.finish(0 if latest is None else latest + 1)
        self.wakeup.set()

    # -- the task ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Serve until the track has ended and everything was delivered, or the request or the session has ended."""
        code: int = StreamCode.SESSION_CLOSED
        cursor = self._cursor
        try:
            with self.scope:
                # A subscription that was cancelled before the task's first step is released already.
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._quirks.accept_before_groups:
                    await self._wait_acceptance_read()
                while True:
                    self._pump()
                    if self._is_complete():
                        break
                    if self._is_alone():
                        # No other track has something for the same packet.
                        self.context.connection.flush()
                    if self._end_wait is None:
                        await self.wakeup.wait()
                    else:
                        await self._end_wait.wait(self.wakeup)
                if cursor.aborted is not None:
                    code = cursor.aborted
                else:
                    if cursor.end is not None:
                        self._replies.end(cursor.end)
                    self._replies.finish()
                    # An update that crosses the end changes nothing any more.
                    self._state = _State.ENDED
                    while not self._end_delivered:
                        # A session that closes leaves unsaid what was lost on its way.
                        await self.wakeup.wait()
            if self.scope.cancelled_caught:
                code = StreamCode.CANCELLED
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._state = _State.ENDED
            if cursor.done:
                # All of the range or of the track was written before the subscription ended.
                self.serving.rate.give_back()
            self._track_state.detach(cursor)
            self.serving.scheduler.release(self)
            self.serving.short_of_streams.pop(self, None)
            served = self.serving.subscriptions[self.publication]
            served.discard(self)
            if not served:
                del self.serving.subscriptions[self.publication]
            self._groups.reset_all(code)
            if not self.stream.send_ended:
                self.cancel(code)
            self.machine.release()
            self.ended.set()

    async def _wait_acceptance_read(self) -> None:
        """Wait until the acceptance was acknowledged and the subscriber has had time to read it."""
        while True:
            await trio.sleep(2 * max(self.context.connection.statistics().rtt, _LEAST_RTT))
            if not self.stream.buffered:
                return

    def _is_alone(self) -> bool:
        """Return whether the session serves no other subscription."""
        served = self.serving.subscriptions
        return len(served) == 1 and len(served[self.publication]) == 1

    def _is_complete(self) -> bool:
        cursor = self._cursor
        if cursor.aborted is not None:
            return True
        if cursor.pending or self._groups:
            return False
        if self._state is _State.FINISHING:
            return True
        # The end of the range is not the end of the track, and peers treat a FIN as the end of the track.
        return cursor.done and not self._replies.drops and (cursor.end is not None or not self._replies.accepted)

    def _pump(self) -> None:
        cursor = self._cursor
        if self._groups.draining and not self._track_state.reliable:
            self._expire_draining()
        if not self.machine.accepted and cursor.earliest is not None:
            self._replies.accept(cursor.earliest)
        if cursor.dropped or self._replies.drops:
            self._report_dropped()
        if self._state is _State.FINISHING and not self._open_cancelled:
            self._open_cancelled = True
            self._cancel_open(list(cursor.pending.values()))
        if self._answers and self.stream.writable and (answers := self.machine.answer_updates()):
            self.stream.write(answers)
        self._short_of_streams = False
        entries = cursor.ready(newest_first=not self._ordered)
        if self._end_wait is not None and self._state is not _State.FINISHING:
            entries = self._end_wait.release(entries, cursor)
        if entries:
            allowance = self.serving.scheduler.allowance(self)
            for entry in entries:
                allowance = self._serve(entry, allowance)
            if self._state is _State.FINISHING:
                self._cancel_open(entries)
        if cursor.end is None and cursor.range.end_group is not None and cursor.done and self._replies.accepted:
            self._replies.drop_missing(cursor, self._track_state)
            self._replies.flush()

    def _serve(self, entry: GroupCursor, allowance: int) -> int:
        """Write what is ready of a group; return the rest of the allowance."""
        sequence = entry.group.sequence
        sent = self._groups.streams.get(sequence)
        if sent is None:
            if not entry.has_frames and not entry.finished:
                return allowance
            if self._short_of_streams:
                # No further stream can be opened now. Groups that have one go on.
                self._cursor.requeue(entry)
                return allowance
            if allowance <= 0 and (allowance := self.serving.scheduler.allowance(self)) == 0:
                self._cursor.requeue(entry)
                return 0
            if entry.group.datagram and (size := self._send_datagram(entry)):
                return allowance - size
            sent = self._open(entry)
            if sent is None:
                return allowance
        elif allowance <= 0 and entry.has_frames and (allowance := self.serving.scheduler.allowance(self)) == 0:
            # Without frames to write it is finished all the same: a FIN costs the link almost nothing.
            self._cursor.requeue(entry)
            return 0
        if sent.opening and entry.has_frames and not sent.stream.room:
            # The peer allows nothing on the stream: not even its opening is written.
            return allowance
        try:
            allowance, finished = self._write_frames(
                entry, sent.stream, sent.sender.frames, allowance, opening=sent.opening, fin=True
            )
            sent.opening = b""
            if finished:
                self._groups.drain(sent)
        except StreamReset:
            self.group_refused(sequence)
        except LocalProtocolError as error:
            # A timestamp that the version cannot carry: only this group is dropped.
            logger.warning("group %d of track %s cannot be sent: %s", sequence, printable(self._track.name), error)
            self._cursor.drop_taken(sequence, StreamCode.INTERNAL_ERROR)
            self._report_dropped()
        return allowance

    def _open(self, entry: GroupCursor) -> SentGroup | None:
        """Return a new stream for a group; None when no stream can be opened now, and the group waits."""
        sequence = entry.group.sequence
        groups = self._groups
        if groups.all_writing:
            self._drop_for(sequence)
        stream = None
        if not groups.full(crowded=self.context.connection.crowded):
            try:
                stream = self.context.connection.open_uni_nowait()
            except trio.WouldBlock:
                self.serving.short_of_streams[self] = None
        if stream is None:
            self._short_of_streams = True
            self._cursor.requeue(entry)
            return None
        sent = SentGroup(self, stream, self.context.core.group(self._subscribe_id, sequence, entry.start))
        groups.add(sent)
        self.context.map_codes(stream, "group")
        stream.handler = sent
        return sent

    def _send_datagram(self, entry: GroupCursor) -> int:
        """Send a group as a datagram; return its size, or 0 when it has to go on a stream."""
        connection = self.context.connection
        if not self._features.datagrams or not connection.max_datagram_size:
            return 0
        frame = entry.group.frames[0]
        try:
            body = self.context.core.datagram(self._subscribe_id, entry.group.sequence, frame.timestamp or 0, frame)
        except LocalProtocolError:
            return 0
        if len(body) > connection.max_datagram_size:
            return 0
        connection.send_datagram(body)
        self._cursor.take(entry, TURN)
        return len(body)

    # -- dropped groups ------------------------------------------------------------------------------------

    def _drop_for(self, sequence: int) -> None:
        """Drop the oldest open group that still has frames waiting, so that a newer one can have a stream."""
        cursor = self._cursor
        backlogged = cursor.backlogged()
        if self._ordered or sequence < max(backlogged, default=-1):
            return
        backlogged = [number for number in backlogged if number in self._groups and cursor.pending[number].has_frames]
        if backlogged:
            cursor.drop(min(backlogged), StreamCode.TOO_FAR_BEHIND)
            self._report_dropped()

    def _expire_draining(self) -> None:
        """Drop groups that were written whole, are held up in their streams, and have become too old.

        The cursor no longer has them. Bytes that were sent already may still arrive.
        """
        log, cursor = self._track_state, self._cursor
        step = max(cursor.max_age * _EXPIRY_STEP, _LEAST_EXPIRY_STEP) * self._track.timescale
        if abs(log.newest - self._expired_at) < step:
            return
        self._expired_at = log.newest
        for sent in self._groups:
            if sent.draining is not None and sent.stream.held_up and log.too_old(sent.sequence, cursor.max_age):
                cursor.drop_taken(sent.sequence, StreamCode.OLD)

    def _report_dropped(self) -> None:
        """Reset the streams of the groups that the cursor dropped, and report the groups to the subscriber."""
        for sequence, code in self._cursor.take_dropped():
            self._groups.reset(sequence, code)
            self._replies.drop(sequence, code)
        self._replies.flush()

    def _cancel_open(self, entries: Iterable[GroupCursor]) -> None:
        """Cancel those of some groups that are open and of which everything was sent: the subscription ends."""
        for entry in entries:
            sequence = entry.group.sequence
            if sequence in self._cursor.pending and not entry.has_frames and not entry.group.ended:
                self._cancel_group(sequence)

    def _cancel_group(self, sequence: int) -> None:
        """Deliver no more of a group, without a report."""
        self._cursor.remove(sequence)
        self._groups.reset(sequence, StreamCode.CANCELLED)

    @property
    def track(self) -> Track:
        """What is served."""
        return self._track

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that the subscriber has not acknowledged."""
        return self._cursor.backlog + sum(sent.stream.buffered for sent in self._groups)

    @property
    def dropped_groups(self) -> int:
        """Groups that were dropped because this subscriber was too slow or they were too old."""
        return self._cursor.dropped_groups

    def __repr__(self) -> str:
        if not hasattr(self, "publication"):
            # Not found yet, or never: the request was refused.
            return f"<SubscribeServer {self._state.name.lower()}>"
        return (
            f"<SubscribeServer {self._track.name!r} of {str(self.publication.path)!r}, "
            f"{len(self._groups)} groups open, {self._cursor.backlog} bytes waiting>"
        )
