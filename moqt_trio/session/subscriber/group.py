"""GroupReader: a received group, as the application reads it. GroupBuffer: its frames and the credit that they hold.

Theory of operation. The peer may send as many bytes as it has credit for, and gets credit back for what the application
has read. Every byte of the stream belongs to the header, to a frame or to an incomplete frame:

- a frame that is read returns its size on the stream, which the decoder counted;
- the header's bytes go with the first frame, or are returned with the end of a group that has none: a group without a
  frame counts as a stream until it is read, too;
- an incomplete frame returns nothing until a reader waits for it. Then the bytes that have arrived are returned early
  (`advance`), so that a frame longer than the window can arrive. The rest is returned when the frame is read.

A frame takes more memory than its bytes, and a frame may have one byte. So what the windows allow does not bound what
the frames take, nor the time that decoding them takes. Only some frames are decoded ahead of the reader: `AHEAD` of a
group, and `SESSION_AHEAD` of a session. What follows stays as bytes (`raw`), and is decoded as the reader goes on
(`_refill`). While there are such bytes there is a frame before them in `items`, so that a reader who waits has seen
everything. FIN, and a mistake of the peer, take effect when the bytes before were decoded.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

import trio

from ...codes import StreamCode, describe_stream_code
from ...errors import Malformed, RemoteProtocolError, StreamReset
from ...frame import Frame
from ...tasks import defer_interrupts
from ..context import UnreadFrames
from .receive_queue import FrameCounts, QueueState, ReceiveQueue

if TYPE_CHECKING:
    from weakref import ref

    from ...model.keys import GroupKey
    from ...protocol.events import GroupStarted
    from ...transport.receive_stream import ReceiveStream
    from ...wire.dialect import FrameDecoder

AHEAD = 256
"""Frames of a group that are decoded before they are read: enough for a reader that takes them in batches, and less
than a millisecond's work."""
SESSION_AHEAD = 1280
"""The same over all groups of a session, of which each has one in any case: a frame takes up to 280 bytes."""
ARRIVING_AHEAD = SESSION_AHEAD - AHEAD
"""The part of it that groups may use as they arrive. The rest is for the group that is read: it goes on in batches,
however many groups wait."""

_STATES = {
    QueueState.UNOPENED: "not entered",
    QueueState.OPEN: "open",
    QueueState.FINISHED: "complete",
    QueueState.FAILED: "closed",
    QueueState.CLOSED: "closed",
}


class FrameSource(Protocol):
    """The stream that frames come from."""

    def broken(self, error: RemoteProtocolError) -> None:
        """Called after a mistake of the peer in what was decoded, or at its end."""

    def finished(self) -> None:
        """Called when all was decoded to a clean end."""

    def closed(self) -> None:
        """Called when the reader wants no more, though more may come."""


_NO_BYTES: deque[bytes] = deque()
"""Shared by the buffers that keep no bytes, as most never do; it stays empty."""

_UNCOUNTED = UnreadFrames()
"""Shared by the buffers whose frames no session counts; its count means nothing, and is never looked at."""


class GroupBuffer(ReceiveQueue[Frame]):
    """Complete frames that were not read, and the credit that they hold.

    Args:
        stream: Their stream; None for a datagram, and for a fetch that is not open yet.
        header_bytes: Bytes of the group's header.
        block: As for `ReceiveQueue`.
        counts: Counts the frames that arrive; None to count none.

    Attributes:
        stream: As above.
        counts: As above.
        reader: A reference to the reader of a group of a subscription, which is dead once the application dropped it.
        sequence: The group's number; -1 for a fetch, which has no place in a subscription.
        key: The key of the group.
        arrival: How many groups of the subscription began before it.
        frames_read: Frames that were taken out.
        raw: Bytes that wait to be decoded; their first `_raw_start` were.
    """

    __slots__ = (
        "_advanced",
        "_decoder",
        "_finishing",
        "_partial",
        "_raw_start",
        "_sizes",
        "_source",
        "_unread",
        "arrival",
        "counts",
        "frames_read",
        "key",
        "raw",
        "reader",
        "sequence",
        "stream",
    )

    def __init__(
        self,
        stream: ReceiveStream | None = None,
        *,
        header_bytes: int = 0,
        block: str | None = None,
        counts: FrameCounts | None = None,
    ) -> None:
        super().__init__(block)
        self.stream = stream
        self.counts = counts
        self.reader: ref[GroupReader] | None = None
        self.sequence = -1
        self.key: GroupKey = -1
        self.arrival = 0
        self.frames_read = 0
        # The bytes to return for each item, in the same order.
        self._sizes: deque[int] = deque()
        # Bytes of an incomplete frame for which credit was returned early; below zero while the header's are held.
        self._advanced = -header_bytes
        # Bytes that arrived of an incomplete frame.
        self._partial = 0
        self.raw = _NO_BYTES
        self._raw_start = 0
        self._finishing = False
        self._decoder: FrameDecoder | None = None
        self._source: FrameSource | None = None
        self._unread = _UNCOUNTED

    def attach(self, stream: ReceiveStream, header_bytes: int) -> None:
        """Set the stream, where it is known only now; the arguments are those of the constructor."""
        self.stream = stream
        self._advanced = -header_bytes

    def read_from(self, source: FrameSource, decoder: FrameDecoder, unread: UnreadFrames) -> None:
        """Set where the frames come from, what decodes them, and the count of the session's."""
        self._source, self._decoder, self._unread = source, decoder, unread

    def _most(self, session: int) -> int:
        """Return how many frames may be decoded now, when the session may have so many; one in any case."""
        return max(1, min(AHEAD - len(self.items), session - self._unread.count))

    def feed(self, data: bytes, *, fin: bool) -> None:
        """Add bytes of the stream after the header, and whether they were the last."""
        self._finishing = fin
        if self.raw:
            if data:
                self.raw.append(data)
            return
        start = self._decode(data, 0, self._most(ARRIVING_AHEAD))
        if start < len(data):
            self.keep(data, start)
            if not self.items:
                # What was decoded was no frame: a reader would wait for one that is here.
                self._refill()
        elif fin:
            self._end()

    def keep(self, data: bytes, start: int) -> None:
        """Keep bytes, from an offset on, for later: a frame before them was decoded, and none waits before."""
        self.raw = deque((data,))
        self._raw_start = start

    def _decode(self, data: bytes, start: int, most: int) -> int:
        """Decode so many frames at most. Return the offset after what was decoded."""
        decoder = self._decoder
        if decoder is None:
            # Nothing more is wanted.
            self.deliver(len(data) - start, [], [])
            return len(data)
        frames: list[Frame] = []
        sizes: list[int] = []
        try:
            stop = decoder.feed_untrusted(data, frames, sizes, start, most)
        except RemoteProtocolError as error:
            self.deliver(len(data) - start, frames, sizes)
            self.give_up(error)
            return len(data)
        self.deliver(stop - start, frames, sizes)
        return stop

    def give_up(self, error: RemoteProtocolError) -> None:
        """End the group after a mistake of the peer in the bytes that were decoded last; complete frames stay."""
        source, self._source, self._decoder = self._source, None, None
        # What follows the mistake counts as a part of a frame that will not be complete.
        self._partial += sum(map(len, self.raw)) - self._raw_start
        self.raw.clear()
        self._raw_start = 0
        self._return_partial()
        if source is not None:
            source.broken(error)

    def _refill(self) -> None:
        """Decode on, until there is a frame to read or nothing is left."""
        raw = self.raw
        while raw and not self.items:
            data, start = raw.popleft(), self._raw_start
            self._raw_start = 0
            stop = self._decode(data, start, self._most(SESSION_AHEAD))
            if stop < len(data):
                raw.appendleft(data)
                self._raw_start = stop
        if raw:
            return
        if self.ended:
            self._return_partial()
        elif self._finishing:
            self._end()

    def _end(self) -> None:
        decoder, source = self._decoder, self._source
        if decoder is not None and decoder.pending_bytes:
            self.give_up(Malformed("FIN inside a frame", code=StreamCode.MALFORMED_TRACK, scope="stream"))
        elif decoder is not None:
            self.finish()
            self._source = None
            if source is not None:
                source.finished()

    def _return_partial(self) -> None:
        """Return the credit of a frame that will not be complete: nothing more is decoded."""
        # The stream knows its buffer. Parted here, they cost the garbage collector nothing.
        self._source = None
        partial, self._partial = self._partial, 0
        if self.stream is not None:
            self.stream.consumed(max(partial - max(self._advanced, 0), 0))
        self._advanced = min(self._advanced, 0)

    def deliver(self, received: int, frames: list[Frame], sizes: list[int]) -> None:
        """Add what arrived.

        Args:
            received: Bytes of the stream, without the header's.
            frames: The frames that these bytes completed.
            sizes: The bytes that each frame took on the stream.
        """
        self._partial += received
        if not frames:
            if self._waiter is not None:
                self.advance()
            return
        self._partial -= sum(sizes)
        if self._advanced < 0:
            # The first frame holds the header's credit, too.
            sizes[0] -= self._advanced
            self._advanced = 0
        elif self._advanced:
            sizes = [self._unadvanced(size) for size in sizes]
        self.items.extend(frames)
        self._sizes.extend(sizes)
        self._unread.count += len(frames)
        counts = self.counts
        if counts is not None:
            counts.frames += len(frames)
            counts.bytes += sum(map(len, frames))
        waiter = self._waiter
        if waiter is not None:
            waiter.set()
            self._waiter = None

    def _unadvanced(self, size: int) -> int:
        """Return the credit that a frame still holds of its size."""
        early = min(self._advanced, size)
        self._advanced -= early
        return size - early

    def take(self) -> Frame:
        """Take the next frame out, and return its credit."""
        self.frames_read += 1
        size = self._sizes.popleft()
        if size and self.stream is not None:
            self.stream.consumed(size)
        self._unread.count -= 1
        frame = self.items.popleft()
        if self.raw and not self.items:
            self._refill()
        return frame

    def take_all(self) -> list[Frame]:
        """Take out every frame that was decoded, and return their credit."""
        frames = list(self.items)
        size = sum(self._sizes)
        self.frames_read += len(frames)
        self._unread.count -= len(frames)
        self.items.clear()
        self._sizes.clear()
        if size and self.stream is not None:
            self.stream.consumed(size)
        if self.raw:
            self._refill()
        return frames

    def fail(self, error: Exception) -> None:
        """End the group early. Complete frames stay readable."""
        if self.ended:
            return
        # The incomplete frame returns its credit now. Frames before it, and the header of a group that has none, keep
        # their credit until they are read: otherwise a peer could fill memory with groups that it resets.
        if not self.raw:
            self._return_partial()
        super().fail(error)

    def close(self, reason: str, code: int = StreamCode.CANCELLED) -> None:
        """Drop what was not read, and refuse the rest of the group with a code.

        A group that is complete counts as closed, too: its end must not look as if everything had been read.
        """
        source = self._source
        self.fail(trio.ClosedResourceError(reason))
        self.uncount()
        super().close(reason)
        self._sizes.clear()
        self.raw.clear()
        self._source = self._decoder = None
        self._partial = self._advanced = 0
        self.release(code)
        if source is not None:
            source.closed()

    def drop(self, code: int) -> None:
        """Drop what was not read, and refuse the rest of the group with a code, which its reader gets too."""
        error = StreamReset(code, by_peer=False)
        self.fail(error)
        if self.error is None:
            # The group was complete: its end must not look as if everything had been read.
            self.error = error
        self.close("the group was dropped", code)

    def uncount(self) -> None:
        """Count the unread frames no more for the session: it no longer has them."""
        self._unread.count -= len(self.items)
        self._unread = UnreadFrames()
        self._unread.count = len(self.items)

    @property
    def held(self) -> int:
        """Bytes of the group that hold the publisher's credit."""
        return 0 if self.stream is None else self.stream.unconsumed

    def release(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuse the rest. Return the credit of everything unread of a complete group, which stays readable."""
        if self.stream is not None:
            self.stream.stop(code)

    @property
    def read_whole(self) -> bool:
        """True once the group has ended and every frame was read."""
        return not self.items and self.ended and self._advanced >= 0

    def advance(self) -> None:
        """Return credit for the part of a frame that has arrived."""
        more = self._partial - self._advanced
        if more > 0 and self.stream is not None:
            self._advanced += more
            self.stream.consumed(more)


@defer_interrupts
class GroupReader:
    """Reads one group. Iterate over it: `async for frame in group`.

    Iteration ends when the publisher has finished the group. Reading returns credit to the publisher, so a group that
    is not read stops its publisher at `Limits.stream_window`. The rest of a group is refused when you close it, or drop
    the last reference to its reader and the session needs the room. A group that you hold and do not read, while you
    take later ones, is dropped when it holds back the session: its reader gets `StreamReset` with TOO_FAR_BEHIND.

    Attributes:
        sequence: The group's number in its track.
        start_frame: The index of the first frame; 0 for a whole group. Where frames have an `object_id`, it is that.
        datagram: True when the group arrived as a datagram.
        subgroup: Which part of the group this is. In moq-transport a group may have several, each with a reader of its
            own; elsewhere it is 0. None for a datagram of moq-transport, of which a group may have several, too. Of a
            group in whose middle the subscription began, the reader of subgroup 0 has first what all subgroups had
            before, in the order of the object ids.
        priority: The publisher's, 0 … 255, higher goes first; None for the track's.
        ends_group: True when the last frame here is the last one of the group, as far as its publisher has said so.
    """

    subgroup: int | None = 0
    priority: int | None = None
    ends_group: bool = True
    # False where the publisher's first frame of the subgroup is one before those that arrive.
    _begins = True

    def __init__(self, sequence: int, start_frame: int, frames: GroupBuffer, *, datagram: bool = False) -> None:
        self.sequence = sequence
        self.start_frame = start_frame
        self.datagram = datagram
        self._frames = frames
        # True when the last step of an iteration gave a frame.
        self._stepped = False

    def _describe(self, event: GroupStarted) -> None:
        """Take over what the header of a subgroup says, where that is not what it says of nearly every group."""
        self.priority = event.priority
        if event.subgroup or not event.whole or event.ends_group is not self.ends_group:
            self.subgroup, self.ends_group, self._begins = event.subgroup, event.ends_group, event.whole

    async def receive(self) -> Frame:
        """Wait for the next frame and return it. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The group is complete and was read to its end.
            StreamReset: The publisher reset the group, or this side did after a mistake of the publisher, which is the
                `__cause__`: `LimitExceeded` for a frame that is too long. The frames before it are complete.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the group or its subscription.
            trio.BusyResourceError: Another task is receiving.
        """
        frames = self._frames
        if not frames.items:
            frames.advance()
        await frames.wait_item()
        return frames.take()

    def receive_nowait(self) -> Frame:
        """Return the next frame, without waiting.

        Raises:
            trio.WouldBlock: No complete frame has arrived.
            Otherwise as `receive`.
        """
        frames = self._frames
        if frames.items:
            return frames.take()
        if frames.ended:
            frames.advance()
        frames.check_end()
        raise trio.WouldBlock

    async def receive_batch(self) -> list[Frame]:
        """Wait for a frame, and return it with those that have arrived after it, up to 256. For many small frames.

        Cancelling loses nothing. Raises as `receive`.
        """
        frames = self._frames
        if not frames.items:
            frames.advance()
        await frames.wait_item()
        return frames.take_all()

    async def read_all(self) -> list[Frame]:
        """Return every frame that is left, once the group is complete. Raises as `receive`.

        When it is cancelled, the frames that it had read are lost; `receive` loses none.
        """
        frames: list[Frame] = []
        while True:
            try:
                frames += await self.receive_batch()
            except trio.EndOfChannel:
                return frames
            if self._frames.read_whole and self._frames.finished:
                # A small group is mostly there as a whole: then its end costs no step of the scheduler.
                return frames

    def close(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuse the rest of the group and drop the unread frames. Does nothing the second time."""
        self._frames.close("this side closed the group", code)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        frames = self._frames
        if self._stepped and frames.finished and frames.read_whole:
            # The frame before was a checkpoint, and a reader of small groups would pay for two of them a group.
            self._stepped = False
            raise StopAsyncIteration
        try:
            frame = await self.receive()
        except trio.EndOfChannel:
            self._stepped = False
            raise StopAsyncIteration from None
        self._stepped = True
        return frame

    def __repr__(self) -> str:
        queue = self._frames
        error = queue.error
        state = f"reset {describe_stream_code(error.code)}" if isinstance(error, StreamReset) else _STATES[queue.state]
        return f"<GroupReader {self.sequence} {state}, {queue.frames_read} frames read, {len(queue)} waiting>"
