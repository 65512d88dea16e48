"""A group on its way in: the reader that the application has, and the buffer between its stream and that reader.

Credit. The peer may send what it has credit for, and gets credit back for what the application has read. Every byte of
the stream belongs to the header, to a frame or to a frame that is not complete, so nothing is computed by difference:

- a frame that is read returns its size on the stream, which the decoder counted;
- the header's bytes go with the first frame, or are returned with the end of a group that has none: a group without a
  frame counts as a stream until it is read, too;
- a frame that is not complete returns nothing, until a reader waits for it: then what is there of it is returned early
  (`advance`), so that a frame longer than the window can come. The rest follows when the frame is read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Self

import trio

from ...codes import StreamCode, describe_stream_code
from ...errors import StreamReset
from ...frame import Frame
from .receive_queue import QueueState, ReceiveQueue

if TYPE_CHECKING:
    from ...transport.receive_stream import ReceiveStream

_STATES = {
    QueueState.UNOPENED: "not entered",
    QueueState.OPEN: "open",
    QueueState.FINISHED: "complete",
    QueueState.FAILED: "closed",
    QueueState.CLOSED: "closed",
}


class FrameCounts:
    """Frames that arrived for one subscription.

    Attributes:
        frames: Their number.
        bytes: The bytes of their payloads.
    """

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0


class GroupBuffer(ReceiveQueue[Frame]):
    """Frames that arrived whole and were not read, and the credit that they hold.

    Args:
        stream: Where they come from; None for a datagram, and for a fetch that is not open yet.
        header_bytes: Bytes of the group's header.
        block: As for `ReceiveQueue`.
        counts: Where the frames that arrive are counted; None for nowhere.

    Attributes:
        stream: As above.
        counts: As above.
    """

    __slots__ = ("_advanced", "_partial", "_sizes", "counts", "stream")

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
        # The bytes to return for each item, in the same order.
        self._sizes: deque[int] = deque()
        # Bytes of an unfinished frame for which credit was returned early; below zero while the header's are owed.
        self._advanced = -header_bytes
        # Bytes that arrived of an unfinished frame.
        self._partial = 0

    def deliver(self, received: int, frames: list[Frame], sizes: list[int]) -> None:
        """Add what arrived.

        Args:
            received: Bytes of the stream, the header's not included.
            frames: The frames that they completed.
            sizes: What each of these took on the stream.
        """
        self._partial += received
        if not frames:
            if self._waiter is not None:
                self.advance()
            return
        self._partial -= sum(sizes)
        if self._advanced:
            sizes = [self._unadvanced(size) for size in sizes]
        self.items.extend(frames)
        self._sizes.extend(sizes)
        counts = self.counts
        if counts is not None:
            counts.frames += len(frames)
            counts.bytes += sum(map(len, frames))
        waiter = self._waiter
        if waiter is not None:
            waiter.set()
            self._waiter = None

    def _unadvanced(self, size: int) -> int:
        """Return what is left to return of a frame's size, with the header's for the first frame."""
        early = min(self._advanced, size)
        self._advanced -= early
        return size - early

    def take(self) -> Frame:
        """Take the next frame out, and return its credit."""
        size = self._sizes.popleft()
        if size and self.stream is not None:
            self.stream.consumed(size)
        return self.items.popleft()

    def fail(self, error: Exception) -> None:
        """End the group before its end. Frames that arrived whole stay readable."""
        if self.ended:
            return
        # The frame that was cut off will never be whole; the frames before it, and the header of a group that has
        # none, keep their credit until read: else a peer could fill memory with groups that it resets.
        if self.stream is not None:
            self.stream.consumed(max(self._partial - max(self._advanced, 0), 0))
        self._partial = 0
        self._advanced = min(self._advanced, 0)
        super().fail(error)

    def close(self, reason: str, code: int = StreamCode.CANCELLED) -> None:
        """Drop what was not read, and refuse the rest of the group with a code.

        Also a group that is complete counts as closed then: its end must not look as if everything had been read.
        """
        self.fail(trio.ClosedResourceError(reason))
        super().close(reason)
        self._sizes.clear()
        self._partial = self._advanced = 0
        self.release(code)

    def release(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuse the rest. Return the credit of everything unread of a complete group, which stays readable."""
        if self.stream is not None:
            self.stream.stop(code)

    @property
    def read_whole(self) -> bool:
        """True once the group is over and every frame was read."""
        return not self.items and self.ended and self._advanced >= 0

    def advance(self) -> None:
        """Return the credit of the part of a frame that is there."""
        more = self._partial - self._advanced
        if more > 0 and self.stream is not None:
            self._advanced += more
            self.stream.consumed(more)


class GroupReader:
    """Reads one group. Iterate it: `async for frame in group`.

    Iteration ends when the publisher has finished the group. Reading gives the publisher credit for what was read,
    so a group that is not read stops its publisher at `Limits.stream_window`: close one that you do not want.

    Attributes:
        sequence: The group's number in its track.
        start_frame: The index of the first frame that comes; 0 for a whole group.
        datagram: True when the group came as a datagram.
    """

    def __init__(self, sequence: int, start_frame: int, frames: GroupBuffer, *, datagram: bool = False) -> None:
        self.sequence = sequence
        self.start_frame = start_frame
        self.datagram = datagram
        self._frames = frames
        self._received = 0

    async def receive(self) -> Frame:
        """Wait for the next frame and return it. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The group is complete and was read to its end.
            StreamReset: The publisher gave the group up, or this side did for a mistake of the publisher's, which is
                the `__cause__`: `LimitExceeded` for a frame that is too long. The frames before came whole.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the group or its subscription.
            trio.BusyResourceError: Another task is receiving.
        """
        frames = self._frames
        if not frames.items:
            frames.advance()
        await frames.wait_item()
        self._received += 1
        return frames.take()

    def receive_nowait(self) -> Frame:
        """Return the next frame if it is there.

        Raises:
            trio.WouldBlock: No whole frame is there yet.
            Otherwise as `receive`.
        """
        frames = self._frames
        if frames.items:
            self._received += 1
            return frames.take()
        if frames.ended:
            frames.advance()
        frames.check_end()
        raise trio.WouldBlock

    async def receive_batch(self) -> list[Frame]:
        """Wait for a frame, and return it with all that have arrived after it. For many small frames.

        Cancelling loses nothing. Raises as `receive`.
        """
        batch = [await self.receive()]
        while self._frames.items:
            batch.append(self.receive_nowait())
        return batch

    async def read_all(self) -> list[Frame]:
        """Return every frame that is left, once the group is complete. Raises as `receive`.

        Cancelled, the frames that it had read are lost; `receive` loses none.
        """
        frames: list[Frame] = []
        while True:
            try:
                frames += await self.receive_batch()
            except trio.EndOfChannel:
                return frames

    def close(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuse the rest of the group and drop what was not read. Does nothing the second time."""
        self._frames.close("this side closed the group", code)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        queue = self._frames
        error = queue.error
        state = f"reset {describe_stream_code(error.code)}" if isinstance(error, StreamReset) else _STATES[queue.state]
        return f"<GroupReader {self.sequence} {state}, {self._received} frames read, {len(queue)} waiting>"
