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
from ...model.group import GroupTraits
from ...model.keys import sequence_of
from ...model.objects import MAX_ID
from ...protocol.group import Subgroup
from .group import GroupServer, SentGroup, SentGroups, StreamOwner
from .scheduler import TURN

if TYPE_CHECKING:
    from ...model.group import Group
    from ...model.group_cursor import GroupCursor
    from ...model.keys import GroupKey
    from ...protocol.group import GroupSender
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
_PLAIN = GroupTraits()


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
        self._properties_left_out = False
        # The last group that was reported for one of its parts, in a version that has none.
        self._parts_dropped = -1

    # -- from the groups' streams --------------------------------------------------------------------------

    def group_refused(self, key: GroupKey) -> None:
        if key in self._groups:
            self._cancel_group(key)
            self.wakeup.set()

    def group_ready(self, key: GroupKey) -> None:
        entry = self._cursor.pending.get(key)
        if entry is not None:
            self._cursor.requeue(entry)
        self.wakeup.set()

    # -- writing -------------------------------------------------------------------------------------------

    def _serve(self, entry: GroupCursor, allowance: int) -> int:
        """Write what is ready of a group; return the rest of the allowance."""
        key = entry.group.key
        sent = self._groups.streams.get(key)
        if sent is None:
            if not entry.has_frames and not entry.finished:
                return allowance
            if self._short_of_streams:
                # No further stream can be opened now. Groups that have one go on.
                self._cursor.requeue(entry)
                return allowance
            if entry.group.traits is not None and not self._can_carry(entry.group):
                return allowance
            if allowance <= 0 and (allowance := self.serving.scheduler.allowance(self)) == 0:
                self._cursor.requeue(entry)
                return 0
            if entry.group.datagram:
                if not entry.has_frames:
                    # The range leaves out its frame.
                    self._cursor.remove(key)
                    return allowance
                if size := self._send_datagram(entry):
                    return allowance - size
            sent = self._open(entry)
            if sent is None:
                return allowance
        elif entry.group.traits is not None and not self._can_carry(entry.group):
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
            self.group_refused(key)
        except LocalProtocolError as error:
            # A timestamp that the version cannot carry: only this group is dropped.
            name = printable(self._track.name)
            logger.warning("group %d of track %s cannot be sent: %s", entry.group.sequence, name, error)
            self._cursor.drop_taken(key, StreamCode.INTERNAL_ERROR)
            self._report_dropped()
        return allowance

    def _can_carry(self, group: Group) -> bool:
        """Return whether the version can carry a group that has traits; drop the group if it cannot.

        Where frames are counted, it carries the payloads of one part of a group: of the subgroup 0, once that was
        opened. The others are removed beside it. That properties are left out is logged once.
        """
        traits = group.traits
        if self._features.subgroups or traits is None:
            return True
        if self._has_carried(group.key):
            self._cancel_group(group.key)
            return False
        if traits.property_bytes and not self._properties_left_out:
            self._properties_left_out = True
            logger.info(
                "the properties of frames of track %s are left out: %s has none",
                printable(self._track.name),
                self.context.dialect.name,
            )
        if not group.sparse and not traits.subgroup:
            return True
        logger.debug("group %r of track %s has no place in %s", group, self._track.name, self.context.dialect.name)
        self._cursor.drop(group.key, StreamCode.INTERNAL_ERROR)
        self._report_dropped()
        return False

    def _has_carried(self, key: GroupKey) -> bool:
        """Return whether the subgroup 0 stands for the group of a part, in a version that has no parts."""
        return type(key) is not int and self._track_state.was_opened(sequence_of(key))

    def _open(self, entry: GroupCursor) -> SentGroup | None:
        """Return a new stream for a group; None when no stream can be opened now, and the group waits."""
        group = entry.group
        groups = self._groups
        if groups.all_writing:
            self._drop_for(group.sequence)
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
        sent = SentGroup(self, group.key, stream, self._sender(entry))
        groups.add(sent)
        self.context.map_codes(stream, "group")
        stream.handler = sent
        return sent

    def _sender(self, entry: GroupCursor) -> GroupSender:
        """Return the machine that writes a group's stream."""
        subgroup = self._subgroup(entry) if self._features.subgroups else None
        return self.context.core.group(self._subscribe_id, entry.group.sequence, entry.start, subgroup)

    def _subgroup(self, entry: GroupCursor) -> Subgroup:
        """Return what the header of a group's stream, or of its datagram, says beside its number."""
        group = entry.group
        traits = group.traits or _PLAIN
        number = traits.subgroup or 0
        if group.datagram and group.traits is not None:
            # Should it go on a stream, it is a subgroup of its own, with an id that none beside it is likely to have.
            number = MAX_ID - group.id_at(0)
        return Subgroup(
            number,
            self._track.priority if traits.priority is None else traits.priority,
            # Where the range ends within the group, the end of the stream is not that of the group.
            ends_group=traits.ends_group and entry.stop is None,
            is_first=entry.start == 0 and not traits.headless,
        )

    def _send_datagram(self, entry: GroupCursor) -> int:
        """Send a group as a datagram; return its size, or 0 when it has to go on a stream."""
        connection = self.context.connection
        if not self._features.datagrams or not connection.max_datagram_size:
            return 0
        frame = entry.group.frames[0]
        subgroup = self._subgroup(entry) if self._features.subgroups else None
        try:
            body = self.context.core.datagram(
                self._subscribe_id, entry.group.sequence, frame.timestamp or 0, frame, subgroup
            )
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
        if self._ordered or sequence < sequence_of(max(backlogged, default=-1)):
            return
        backlogged = [
            key for key in backlogged if key < sequence and key in self._groups and cursor.pending[key].has_frames
        ]
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
            if sent.draining is not None and sent.stream.held_up and log.too_old(sent.key, cursor.max_age):
                cursor.drop_taken(sent.key, StreamCode.OLD)

    def _report_dropped(self) -> None:
        """Reset the streams of the groups that the cursor dropped, and report the groups to the subscriber."""
        for key, code in self._cursor.take_dropped():
            self._groups.reset(key, code)
            if type(key) is int or self._features.subgroups:
                self._replies.drop(sequence_of(key), code)
            elif not self._has_carried(key) and self._parts_dropped != (sequence := sequence_of(key)):
                # The group as a whole, and once.
                self._parts_dropped = sequence
                self._replies.drop(sequence, code)
        self._replies.flush()

    def _cancel_open(self, entries: Iterable[GroupCursor]) -> None:
        """Cancel those of some groups that are open and of which everything was sent: the subscription ends."""
        for entry in entries:
            key = entry.group.key
            if key in self._cursor.pending and not entry.has_frames and not entry.group.ended:
                self._cancel_group(key)

    def _cancel_group(self, key: GroupKey) -> None:
        """Deliver no more of a group, without a report."""
        self._cursor.remove(key)
        self._groups.reset(key, StreamCode.CANCELLED)
