"""PastGroup: a group of a subscription that was published before that began. GroupHead: the part of the newest one.

JoinedGroupReader reads such a part, and then the rest of the group.

Theory of operation. In moq-transport a subscription starts behind the newest object. What its group had before, the
head, is asked for beside it, and comes on the stream of a reply. The rest of the group, the tail, comes on the stream
of a subgroup, as any group. Neither waits for the other:

    tail ─▶ held, until it is known whether there is a head ─▶ a group of its own that starts late (no head)
                                                           └─▶ continues the head
    head ─▶ a group; at its end the reader goes on with the tail, and drops what it has read already

A publisher with nothing left to send opens a stream without an object for the tail, which ends the group. One that does
not open it leaves the end open: then the group ends a moment after a newer one has begun, or with the subscription. A
group that arrives whole after all needs no head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import trio

from ...codes import StreamCode
from ...errors import fresh
from ...tasks import defer_interrupts
from ...timeouts import Timeout
from .group import GroupBuffer, GroupReader
from .reply_stream import ReceivedReply

if TYPE_CHECKING:
    from ...frame import Frame
    from ...protocol.events import GroupStarted
    from ...protocol.ietf.fetch import ReplyReceiver
    from ...transport.receive_stream import ReceiveStream
    from ..context import SessionContext
    from .group_queue import GroupQueue, GroupSource

_NOT_TAKEN = 1 << 62
"""The arrival of a tail while it is not known whether it continues a group: no look at unread groups counts it."""


class PastGroup:
    """A group of a subscription that comes by a reply, from the request on.

    Args:
        context: The session's.
        queue: The subscription's groups.
        sequence: The group.

    Attributes:
        sequence: As above.
        buffer: The frames; None until their stream began.
        scope: Cancelled when the reply is not wanted any more, and its stream has not begun.
        decided: Set once it is known whether the frames come.
        closed: Set once no more of them will arrive.
    """

    def __init__(self, context: SessionContext, queue: GroupQueue, sequence: int) -> None:
        self.sequence = sequence
        self.buffer: GroupBuffer | None = None
        self.scope = trio.CancelScope()
        self.decided = trio.Event()
        self.closed = trio.Event()
        self._context = context
        self._queue = queue

    def begin(self, stream: ReceiveStream, machine: ReplyReceiver, header_bytes: int) -> ReceivedReply | None:
        """Called when the stream of the reply has begun; None to have it refused."""
        if self.decided.is_set():
            return None
        buffer = GroupBuffer(counts=self._queue.counts)
        source = ReceivedReply(self._context, stream, machine, buffer, header_bytes, self._ended)
        self.buffer = buffer
        self.decided.set()
        if not self._queue.begin(self._reader(buffer), buffer, source, self.sequence):
            self.buffer = None
            self.do_without()
            self._given_up()
            self._queue.past_decided()
            return None
        self._begun(buffer)
        return source

    def refused(self) -> None:
        """Called when the reply was refused, or did not come in time."""
        if not self.decided.is_set():
            self.do_without()
            self._given_up()
            self._queue.past_decided()

    def end(self, error: Exception | None) -> None:
        """Called when the subscription has ended. What has begun goes on, as any group does."""
        if not self.decided.is_set():
            self.do_without()
            self._given_up()

    def do_without(self) -> None:
        """Record that the reply does not come, or is not wanted."""
        self.decided.set()
        self.closed.set()
        self.scope.cancel()

    def _reader(self, buffer: GroupBuffer) -> GroupReader:
        return GroupReader(self.sequence, 0, buffer)

    def _begun(self, buffer: GroupBuffer) -> None:
        """Called once the group was added to the subscription."""

    def _given_up(self) -> None:
        """Called when the frames do not come."""

    def _ended(self, source: ReceivedReply, incomplete: bool) -> None:
        self.closed.set()
        self._queue.end(source, source.buffer, reset=incomplete)


class GroupHead(PastGroup):
    """The head of one group, from the acceptance of the subscription on.

    Attributes:
        tail: The frames of the tail; None until its stream began.
    """

    def __init__(self, context: SessionContext, queue: GroupQueue, sequence: int) -> None:
        super().__init__(context, queue, sequence)
        self.tail: GroupBuffer | None = None
        self._tail_source: GroupSource | None = None
        self._tail_started: GroupStarted | None = None
        self._reading: ref[JoinedGroupReader] | None = None
        self._error: Exception | None = None
        # True once no tail is wanted any more.
        self._over = False
        self._late: Timeout | None = None
        self._changed: trio.Event | None = None

    # -- from the streams ----------------------------------------------------------------------------------

    def take_tail(self, buffer: GroupBuffer, source: GroupSource, event: GroupStarted) -> bool:
        """Take a stream of the group as its tail; return False when it is a group of its own.

        Args:
            buffer: Its frames.
            source: The stream.
            event: Its header.
        """
        if self.tail is not None or self._over:
            return False
        if event.whole and not self.decided.is_set():
            self._over = True
            self.do_without()
            return False
        self.tail, self._tail_source, self._tail_started = buffer, source, event
        reader = None if self._reading is None else self._reading()
        if reader is not None:
            reader._describe(event)
        if self.buffer is None:
            buffer.sequence = buffer.key = self.sequence
            buffer.arrival = _NOT_TAKEN
        else:
            self._queue.continue_group(buffer, self.buffer, source)
        self._wake()
        return True

    def group_began(self, sequence: int) -> None:
        """Called when another group of the subscription has begun."""
        if sequence > self.sequence:
            self.overtaken()

    def overtaken(self) -> None:
        """Called when the tail is late, should it not have begun."""
        if self._late is None:
            self._late = Timeout(self._context.limits.late_group_timeout)
            self._wake()

    def end(self, error: Exception | None) -> None:
        super().end(error)
        self._end_tail(error)

    def leave(self, error: Exception) -> None:
        """Called when the group is read no more: its tail is refused, or will be."""
        source = self._tail_source
        self._end_tail(error)
        if source is not None:
            source.refuse(StreamCode.CANCELLED)

    def _end_tail(self, error: Exception | None) -> None:
        self._over = True
        self._error = self._error or error
        self._wake()

    def _reader(self, buffer: GroupBuffer) -> GroupReader:
        reader = JoinedGroupReader(self.sequence, buffer, self)
        # Whether the group ends with it, its tail says.
        reader.ends_group = False
        if self._tail_started is not None:
            reader._describe(self._tail_started)
        self._reading = ref(reader)
        return reader

    def _begun(self, buffer: GroupBuffer) -> None:
        if self.tail is not None and self._tail_source is not None:
            self._queue.continue_group(self.tail, buffer, self._tail_source)

    def _given_up(self) -> None:
        """Make the tail a group of its own."""
        self._over = True
        if self.tail is not None and self._tail_source is not None:
            assert self._tail_started is not None
            reader = GroupReader(self.sequence, self._tail_started.start_frame, self.tail)
            reader._describe(self._tail_started)
            if not self._queue.begin(reader, self.tail, self._tail_source, self.sequence):
                self._tail_source.refuse(StreamCode.CANCELLED)

    def _ended(self, source: ReceivedReply, incomplete: bool) -> None:
        super()._ended(source, incomplete)
        if incomplete:
            # The reader gets the error of the head, and never comes to the tail.
            self.leave(source.buffer.error or trio.ClosedResourceError("the group was closed"))

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # -- for the reader ------------------------------------------------------------------------------------

    async def wait_tail(self) -> GroupBuffer | None:
        """Wait for the tail; None when the group ends without one. Raises how the group or its subscription failed."""
        while self.tail is None and not self._over:
            if self._late is None:
                await self._wait_change()
            elif not await self._late.wait(self._wait_change):
                self._over = True
        if self._error is not None and (self.tail is None or self.tail.error is not None):
            raise fresh(self._error)
        return self.tail

    @property
    def ended(self) -> bool:
        """True when no tail will come."""
        return self._over or (self._late is not None and self._late.deadline <= trio.current_time())

    async def _wait_change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()


@defer_interrupts
class JoinedGroupReader(GroupReader):
    """Reads a group that was joined in its middle: see above."""

    def __init__(self, sequence: int, buffer: GroupBuffer, head: GroupHead) -> None:
        super().__init__(sequence, 0, buffer)
        self._head = head
        # The index of the last frame that was read.
        self._last = -1
        self._waits = False

    async def receive(self) -> Frame:
        while True:
            try:
                frame = await super().receive()
            except trio.EndOfChannel:
                if not await self._go_on():
                    raise
            else:
                if self._is_new(frame):
                    return frame

    def receive_nowait(self) -> Frame:
        while True:
            try:
                frame = super().receive_nowait()
            except trio.EndOfChannel:
                if self._frames is not self._head.buffer or self._head.ended:
                    raise
                if self._head.tail is None:
                    raise trio.WouldBlock from None
                self._frames = self._head.tail
            else:
                if self._is_new(frame):
                    return frame

    async def receive_batch(self) -> list[Frame]:
        while True:
            try:
                frames = await super().receive_batch()
            except trio.EndOfChannel:
                if not await self._go_on():
                    raise
            else:
                frames = [frame for frame in frames if self._is_new(frame)]
                if frames:
                    return frames

    async def read_all(self) -> list[Frame]:
        frames: list[Frame] = []
        while True:
            try:
                frames += await self.receive_batch()
            except trio.EndOfChannel:
                return frames

    async def __anext__(self) -> Frame:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def close(self, code: int = StreamCode.CANCELLED) -> None:
        self._head.leave(trio.ClosedResourceError("this side closed the group"))
        super().close(code)
        tail = self._head.tail
        if tail is not None and tail is not self._frames:
            tail.close("this side closed the group", code)

    async def _go_on(self) -> bool:
        """Go on with the tail, once it is there; return False at the end of the group."""
        if self._frames is not self._head.buffer:
            return False
        if self._waits:
            raise trio.BusyResourceError("another task is receiving here")
        self._waits = True
        try:
            tail = await self._head.wait_tail()
        finally:
            self._waits = False
        if tail is None:
            return False
        self._frames = tail
        return True

    def _is_new(self, frame: Frame) -> bool:
        """Return whether a frame was not read before: the tail may begin with what the head ended with."""
        index = self._last + 1 if frame.object_id is None else frame.object_id
        new = index > self._last
        self._last = max(index, self._last)
        return new
