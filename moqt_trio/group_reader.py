"""A group on its way in: a bounded queue of frames between a stream and the application."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from .codes import StreamCode
from .model.frame import Frame
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from .transport.abc import ReceiveStream
    from .wire.messages import Frame as WireFrame


class GroupReader:
    """Reads one group. Iterate it: `async for frame in group`.

    Iteration ends when the publisher has finished the group. Reading gives the publisher credit for what was read,
    so a group that is not read stops its publisher at `Limits.stream_window`: close one that you do not want.

    Attributes:
        sequence: The group's number in its track.
        start_frame: The index of the first frame that comes; 0 for a whole group.
        datagram: True when the group came as a datagram.
    """

    def __init__(
        self,
        sequence: int,
        start_frame: int,
        stream: ReceiveStream | None,
        *,
        header_bytes: int = 0,
        datagram: bool = False,
    ) -> None:
        self.sequence = sequence
        self.start_frame = start_frame
        self.datagram = datagram
        self._stream = stream
        self._frames: deque[WireFrame] = deque()
        self._received = 0
        self._finished = False
        self._error: Exception | None = None
        self._waiter: trio.Event | None = None
        self._busy = False
        # Bytes of an unfinished frame that credit was given for because somebody waits for that frame. Below zero
        # while the header's are owed: a group without a frame counts as a stream until it is read, too.
        self._advanced = -header_bytes
        self._partial = 0

    # -- from the session ----------------------------------------------------------------------------------

    def deliver(self, frames: list[WireFrame], partial: int) -> None:
        """Takes frames that arrived, and how many bytes of the next one are there."""
        self._partial = partial
        for frame in frames:
            if self._advanced:
                early = min(self._advanced, frame.wire_size)
                self._advanced -= early
                frame.wire_size -= early
        self._frames.extend(frames)
        if self._waiter is not None:
            if frames:
                self._wake()
            else:
                self._advance()

    def deliver_finish(self) -> None:
        """Takes the end of the group."""
        self._finished = True
        self._wake()

    def deliver_error(self, error: Exception) -> None:
        """Takes the end of the stream before the end of the group. Frames that arrived whole stay readable."""
        if not self._finished and self._error is None:
            self._error = error
            # The frame that was cut off will never be whole; the frames before it, and the header of a group that has
            # none, keep their credit until read: else a peer could fill memory with groups that it resets.
            if self._stream is not None:
                self._stream.consumed(max(self._partial - max(self._advanced, 0), 0))
            self._partial = 0
            self._advanced = min(self._advanced, 0)
            self._wake()

    def release(self) -> None:
        """Gives the publisher credit for everything unread of a complete group, which stays readable."""
        if self._stream is not None:
            self._stream.stop(StreamCode.CANCELLED)

    @property
    def read_whole(self) -> bool:
        """True once the group is over and every frame was read."""
        return not self._frames and (self._finished or self._error is not None) and self._advanced >= 0

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    def _advance(self) -> None:
        """Gives credit for the part of a frame that is there, so that a frame longer than the window can come."""
        more = self._partial - self._advanced
        if more > 0 and self._stream is not None:
            self._advanced += more
            self._stream.consumed(more)

    # -- for the application -------------------------------------------------------------------------------

    async def receive(self) -> Frame:
        """Waits for the next frame and returns it. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The group is complete and was read to its end.
            StreamReset: The publisher gave the group up; the frames before came whole.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the group or its subscription.
            trio.BusyResourceError: Another task is receiving.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is receiving from this group")
        self._busy = True
        try:
            if self._frames or self._finished or self._error is not None:
                await trio.lowlevel.checkpoint()
            while not self._frames:
                self._advance()
                if self._error is not None:
                    raise self._error
                if self._finished:
                    raise trio.EndOfChannel
                self._waiter = waiter = trio.Event()
                try:
                    await waiter.wait()
                finally:
                    self._waiter = None
            return self._take()
        finally:
            self._busy = False

    def receive_nowait(self) -> Frame:
        """Returns the next frame if it is there.

        Raises:
            trio.WouldBlock: No whole frame is there yet.
            Otherwise as `receive`.
        """
        if self._frames:
            return self._take()
        if self._error is not None or self._finished:
            self._advance()
        if self._error is not None:
            raise self._error
        if self._finished:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    def _take(self) -> Frame:
        frame = self._frames.popleft()
        self._received += 1
        if self._stream is not None and frame.wire_size:
            self._stream.consumed(frame.wire_size)
        return Frame(frame.payload, frame.timestamp)

    async def receive_batch(self) -> list[Frame]:
        """Waits for a frame, and returns it with all that have arrived after it. For many small frames.

        Cancelling loses nothing. Raises as `receive`.
        """
        batch = [await self.receive()]
        while self._frames:
            batch.append(self._take())
        return batch

    async def read_all(self) -> list[Frame]:
        """Returns every frame that is left, once the group is complete. Raises as `receive`.

        Cancelled, the frames that it had read are lost; `receive` loses none.
        """
        frames: list[Frame] = []
        while True:
            try:
                frames += await self.receive_batch()
            except trio.EndOfChannel:
                return frames

    def close(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuses the rest of the group and drops what was not read. Does nothing the second time."""
        if self._error is None:
            # Also for a group that is complete: its end must not look as if everything had been read.
            self._finished = False
            self.deliver_error(trio.ClosedResourceError("this side closed the group"))
        self._frames.clear()
        self._advanced = 0
        if self._stream is not None:
            self._stream.stop(code)

    def __aiter__(self) -> GroupReader:
        return self

    async def __anext__(self) -> Frame:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        if isinstance(self._error, StreamReset):
            state = f"reset {self._error.code:#x}"
        elif self._error is not None:
            state = "closed"
        else:
            state = "complete" if self._finished else "open"
        return f"<GroupReader {self.sequence} {state}, {self._received} frames read, {len(self._frames)} waiting>"
