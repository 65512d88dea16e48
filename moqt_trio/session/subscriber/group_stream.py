"""GroupStream: a unidirectional stream of the peer, which has a group or the peer's SETUP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import RemoteProtocolError, StreamReset
from ...model.keys import key_of
from ...protocol.events import Event, GroupReset, GroupStarted
from ...protocol.group import GroupReceiver
from ...protocol.ietf.events import TrackEnded
from ...protocol.ietf.fetch import ReplyReceiver
from ...protocol.ietf.subgroup import SubgroupReceiver
from ...transport.interface import StreamHandler
from ...wire.ietf.objects import MalformedTrack
from ...wire.messages import Goaway, Setup, StreamKind
from ..stream import receive_events
from .group import AHEAD, ARRIVING_AHEAD, FrameSource, GroupBuffer, GroupReader

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...frame import Frame
    from ...protocol.machine import StreamMachine
    from ...transport.receive_stream import ReceiveStream
    from ..context import SessionContext
    from .group_queue import GroupQueue, Joined
    from .unread import UnreadGroups


class GroupStream(StreamHandler, FrameSource):
    """A unidirectional stream that the peer opened.

    Args:
        context: The session's.
        stream: The stream.
        queues: The queue of each subscription, by the subscription's id.
        unread: Is called with the queue of each group.
    """

    keeps_after_reset = True
    __slots__ = (
        "_buffer",
        "_context",
        "_group",
        "_held",
        "_held_fin",
        "_incoming",
        "_mapped",
        "_over",
        "_queue",
        "_queues",
        "_refused",
        "_stream",
        "_unread",
    )

    def __init__(
        self,
        context: SessionContext,
        stream: ReceiveStream,
        queues: Mapping[int, GroupQueue],
        unread: UnreadGroups,
    ) -> None:
        self._context = context
        self._stream = stream
        self._queues = queues
        self._unread = unread
        self._incoming = context.core.accept_uni()
        self._group: GroupReceiver | SubgroupReceiver | None = None
        # Bytes that arrived before the subscription was known, and whether the end did.
        self._held = 0
        self._held_fin = False
        self._buffer: GroupBuffer | None = None
        self._queue: GroupQueue | None = None
        self._mapped = False
        self._over = False
        self._refused = False
        context.pending_streams.add(self)

    def data_received(self, data: bytes, fin: bool) -> None:
        buffer = self._buffer
        decoder = None if self._group is None else self._group.frames
        if decoder is None or buffer is None:
            self._read(data, fin)
            return
        if fin or buffer.raw or buffer.items or self._context.unread_frames.count > ARRIVING_AHEAD - AHEAD:
            self._deliver(buffer, data, fin)
            return
        # The hot path: after the header and before FIN there are only frames. As `GroupBuffer.feed`, in line.
        frames: list[Frame] = []
        sizes: list[int] = []
        try:
            stop = decoder.feed_untrusted(data, frames, sizes, 0, AHEAD)
        except RemoteProtocolError as error:
            buffer.deliver(len(data), frames, sizes)
            buffer.give_up(error)
            return
        buffer.deliver(stop, frames, sizes)
        if stop < len(data):
            buffer.keep(data, stop)

    def _read(self, data: bytes, fin: bool) -> None:
        """Read bytes of any part of the stream: its type, a header, frames, a SETUP, FIN."""
        events, error = receive_events(self._incoming, data, fin)
        machine = self._incoming.machine
        if machine is not None and machine.parked and error is None:
            self._park(machine, len(data), fin)
            return
        if isinstance(machine, ReplyReceiver) and machine.frames is not None:
            self._hand_over(machine, len(data) + self._held, fin)
            return
        self._classify(events, len(data) + self._held)
        if machine is not None and machine.unread:
            self._context.turns.add(self)
        if error is not None:
            if not self._refused:
                self.broken(error)
        elif self._group is not None and self._buffer is not None:
            rest, self._group.rest = self._group.rest, b""
            self._deliver(self._buffer, rest, fin)
            self._note_gap()

    def _park(self, machine: StreamMachine, received: int, fin: bool) -> None:
        """Keep a group whose subscription is not known yet, with its credit. It goes on by `go_on`, or is refused."""
        self._held += received
        self._held_fin = fin
        self._context.parked[machine] = self
        # It is refused when the subscription does not become known in time.
        self._context.pending_streams.add(self)

    def _hand_over(self, machine: ReplyReceiver, received: int, fin: bool) -> None:
        """Pass the stream of a reply on to the request, once its header has arrived."""
        self._context.pending_streams.discard(self)
        begin = self._context.replies.pop(machine.request_id, None)
        if (queue := self._queues.get(machine.request_id)) is not None:
            # The fill of a subscription is one of its streams.
            queue.stream_arrived()
        handler = None if begin is None else begin(self._stream, machine, min(machine.header_bytes, received))
        if handler is None:
            self.refuse(StreamCode.CANCELLED)
            return
        self._stream.handler = handler
        handler.data_received(machine.rest, fin)

    def go_on(self) -> None:
        """Called when the subscription of a parked group is known."""
        self._read(b"", self._held_fin)

    def _deliver(self, buffer: GroupBuffer, data: bytes, fin: bool) -> None:
        buffer.feed(data, fin=fin)
        if fin and self._queue is not None and not self._over:
            # What was not decoded yet may still turn out to be broken.
            self._incoming.release()
            self._queue.end(self, buffer)

    def finished(self) -> None:
        group, queue, buffer = self._group, self._queue, self._buffer
        if isinstance(group, SubgroupReceiver) and queue is not None and buffer is not None:
            event, ends = group.group, group.ends
            assert event is not None
            assert ends is not None
            if ends.end is not None and buffer.reader is not None and (reader := buffer.reader()) is not None:
                reader.ends_group = True
            if ends.group_gap:
                queue.note_gap(event.sequence, ends.group_gap)
            queue.read_whole(event.sequence, ends, ends_group=event.ends_group)

    def _note_gap(self) -> None:
        """Report the groups that do not exist, as the objects of this one say; the first object says it already."""
        group, queue = self._group, self._queue
        if (
            isinstance(group, SubgroupReceiver)
            and group.ends is not None
            and group.ends.group_gap
            and queue is not None
        ):
            assert group.group is not None
            queue.note_gap(group.group.sequence, group.ends.group_gap)

    def closed(self) -> None:
        """Nothing: the stream was refused with its reader."""

    def _classify(self, events: list[Event], received: int) -> None:
        """Read the kind of the stream, and begin its group once the header is there.

        Until the header of a group is complete, and on a SETUP stream, credit returns at once: these are few bytes, and
        they are read.
        """
        if self._incoming.kind is not None:
            self._context.pending_streams.discard(self)
        for event in events:
            if isinstance(event, Setup):
                self._context.setup_received.set()
            elif isinstance(event, Goaway):
                self._context.goaway_received.set()
                self._context.going_away.set()
            elif isinstance(event, TrackEnded):
                self._map_codes()
                if (queue := self._queues.get(event.subscribe_id)) is not None:
                    queue.track_ended(event.group)
                    queue.stream_arrived()
            elif isinstance(event, GroupStarted):
                machine = self._incoming.machine
                assert isinstance(machine, GroupReceiver | SubgroupReceiver)
                self._map_codes()
                # Earlier parts of the header have returned their credit.
                header_bytes = min(machine.header_bytes, received)
                queue = self._queues.get(event.subscribe_id)
                if queue is None:
                    self.refuse(StreamCode.CANCELLED)
                    return
                buffer = GroupBuffer(self._stream, header_bytes=header_bytes, counts=queue.counts)
                assert machine.frames is not None
                buffer.read_from(self, machine.frames, self._context.unread_frames)
                if not self._begin_group(queue, event, buffer):
                    self.refuse(StreamCode.CANCELLED)
                    return
                self._group, self._buffer, self._queue = machine, buffer, queue
                self._unread.group_arrived(queue)
                return
        self._stream.consumed(received)

    def _begin_group(self, queue: GroupQueue, event: GroupStarted, buffer: GroupBuffer) -> bool:
        """Add the group to its subscription; return False to have it refused."""
        if not self._context.dialect.features.subgroups:
            return queue.begin(GroupReader(event.sequence, event.start_frame, buffer), buffer, self)
        if queue.on_middle is not None:
            on_middle, queue.on_middle = queue.on_middle, None
            if not event.whole and not event.subgroup:
                on_middle(event.sequence)
        taken = queue.head is not None and self._continue_head(queue.head, event, buffer)
        if not taken:
            reader = GroupReader(event.sequence, event.start_frame, buffer)
            reader._describe(event)
            taken = queue.begin(reader, buffer, self, key_of(event.sequence, event.subgroup))
        # The last stream ends the subscription, once it belongs to it.
        queue.stream_arrived()
        return taken

    def _continue_head(self, head: Joined, event: GroupStarted, buffer: GroupBuffer) -> bool:
        """Add the stream to the group in whose middle the subscription began; return False when it is no part of it."""
        return head.sequence == event.sequence and not event.subgroup and head.take_tail(buffer, self, event)

    def reset_received(self, code: int) -> None:
        events = self._incoming.receive_reset(code)
        if self._incoming.kind is StreamKind.SETUP and self._context.core.keeps_setup_stream:
            self._context.start(self._context.control_lost, "the peer reset its control stream")
        self._release()
        if self._buffer is None:
            # Nothing of a group that was parked can be read any more.
            self._stream.consumed(self._held)
        for event in events:
            if isinstance(event, GroupReset) and self._queue is not None and self._buffer is not None:
                self._buffer.fail_by_reset(StreamReset(event.code), self._context.connection)
                self._queue.end(self, self._buffer, reset=True)

    def connection_lost(self, error: MoqtError) -> None:
        self._release()
        self._end(error, reset=False)

    @property
    def buffer(self) -> GroupBuffer | None:
        """The group's frames, once its header arrived."""
        return self._buffer

    @property
    def over(self) -> bool:
        """True when no more will arrive, also because this side refused the rest."""
        return self._stream.receive_ended

    def refuse(self, code: int) -> None:
        """Refuse the rest of the stream."""
        self._refused = True
        self._release()
        self._map_codes()
        self._stream.stop(code)
        self._end(trio.ClosedResourceError("the subscription was closed"), reset=False)

    def broken(self, error: RemoteProtocolError) -> None:
        """Called after a mistake of the peer."""
        self._over = True
        self._release()
        if error.scope == "session":
            self._context.violated(error)
        else:
            self._map_codes()
            # The complete frames can be read. They keep their credit until then: otherwise a peer could fill memory
            # with broken groups.
            self._stream.stop(error.code, keep_unread=True)
        self._end(StreamReset.after(error), reset=True)
        if isinstance(error, MalformedTrack) and self._queue is not None:
            self._queue.malformed(error)

    def _map_codes(self) -> None:
        """Map the stream's codes for its kind, once the kind is known or the stream is refused."""
        if not self._mapped:
            self._mapped = True
            self._context.map_codes(self._stream, "group" if self._incoming.kind is StreamKind.GROUP else "stream")

    def _release(self) -> None:
        if self._held and self._incoming.machine is not None:
            self._context.parked.pop(self._incoming.machine, None)
        self._incoming.release()
        self._context.pending_streams.discard(self)

    def _end(self, error: Exception, *, reset: bool) -> None:
        if self._queue is not None and self._buffer is not None:
            self._buffer.fail(error)
            self._queue.end(self, self._buffer, reset=reset)
