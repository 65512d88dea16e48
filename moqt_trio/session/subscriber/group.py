"""A group on its way in, as the application reads it. What it has received waits in its `GroupBuffer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, StreamReset

if TYPE_CHECKING:
    from ...frame import Frame
    from .group_buffer import GroupBuffer


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
        """Waits for the next frame and returns it. Cancelling loses nothing.

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
        frame = await frames.receive()
        self._received += 1
        return frames.use(frame)

    def receive_nowait(self) -> Frame:
        """Returns the next frame if it is there.

        Raises:
            trio.WouldBlock: No whole frame is there yet.
            Otherwise as `receive`.
        """
        frames = self._frames
        if frames.items:
            self._received += 1
            return frames.use(frames.items.popleft())
        if frames.ended:
            frames.advance()
        frames.check_end()
        raise trio.WouldBlock

    async def receive_batch(self) -> list[Frame]:
        """Waits for a frame, and returns it with all that have arrived after it. For many small frames.

        Cancelling loses nothing. Raises as `receive`.
        """
        batch = [await self.receive()]
        while self._frames.items:
            batch.append(self.receive_nowait())
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
        self._frames.close("this side closed the group", code)

    def __aiter__(self) -> GroupReader:
        return self

    async def __anext__(self) -> Frame:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        error = self._frames.error
        if isinstance(error, StreamReset):
            state = f"reset {error.code:#x}"
        elif isinstance(error, LocalProtocolError):
            state = "not entered"
        elif error is not None:
            state = "closed"
        else:
            state = "complete" if self._frames.finished else "open"
        return f"<GroupReader {self.sequence} {state}, {self._received} frames read, {len(self._frames)} waiting>"
