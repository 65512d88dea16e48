"""GroupDelivery: writes the groups of one subscription, each on a stream of its own or as a datagram.

A group that can't be written now goes back to the cursor: the link has no room, the peer allows no further stream, or
the group's stream is full. A group that is dropped, by the cursor or here, has its stream reset and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, StreamReset, printable
from ...loggers import Logger
from .group import GroupServer, SentGroup, SentGroups, StreamOwner
from .scheduler import TURN

if TYPE_CHECKING:
    from ...model.cursor import GroupCursor
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.stream import BidiStream
    from .replies import Replies
    from .request import Serving

logger = Logger(__name__)

_EXPIRY_STEP = 1 / 8
"""The share of max age after which the draining groups are checked again. Checking every stream costs too much to do
for every frame, and a group that is dropped an eighth of its age late has used the link only a little longer."""
_LEAST_EXPIRY_STEP = 0.02
"""Seconds of the track's time that this is at least: a max age of 0 would have all of them checked for every frame."""


class GroupDelivery(GroupServer, StreamOwner):
    """The part of a subscription's server that writes groups."""

    machine: SubscribeResponder
    _groups: SentGroups
    _replies: Replies

    def __init__(self, serving: Serving, stream: BidiStream, machine: SubscribeResponder) -> None:
        super().__init__(serving, stream, machine)
        self._features = self.context.dialect.features
        self._subscribe_id = 0
        self._ordered = False
        # True while a group waits for a stream: for the peer to allow one, or for an earlier group to be delivered.
        self._short_of_streams = False
        self._expired_at = -1

    # -- from the groups' streams --------------------------------------------------------------------------

    def group_refused(self, sequence: int) -> None:
        if sequence in self._groups:
            self._cancel_group(sequence)
            self.wakeup.set()

    def group_ready(self, sequence: int) -> None:
        entry = self._cursor.pending.get(sequence)
        if entry is not None:
            self._cursor.requeue(entry)
        self.wakeup.set()

    # -- writing -------------------------------------------------------------------------------------------

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
