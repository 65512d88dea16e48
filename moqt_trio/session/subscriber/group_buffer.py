"""The frames of one group between its stream and its reader, and the credit that they hold until they are read.

The stream's handler fills it; `GroupReader` is what the application sees of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...frame import Frame
from ...wire.messages import Frame as WireFrame
from .receive_queue import ReceiveQueue

if TYPE_CHECKING:
    from ...transport.abc import ReceiveStream


class GroupBuffer(ReceiveQueue[WireFrame]):
    """Frames that arrived whole and were not read.

    Args:
        stream: Where they come from; None for a datagram, and for a fetch that is not open yet.
        header_bytes: Bytes of the group's header, whose credit goes with the first frame or with the group's end.

    Attributes:
        stream: As above.
    """

    __slots__ = ("_advanced", "_partial", "stream")

    def __init__(self, stream: ReceiveStream | None = None, *, header_bytes: int = 0) -> None:
        super().__init__()
        self.stream = stream
        # Bytes of an unfinished frame that credit was given for because somebody waits for that frame. Below zero
        # while the header's are owed: a group without a frame counts as a stream until it is read, too.
        self._advanced = -header_bytes
        self._partial = 0

    def deliver(self, frames: list[WireFrame], partial: int) -> None:
        """Takes frames that arrived, and how many bytes of the next one are there."""
        self._partial = partial
        for frame in frames:
            if self._advanced:
                early = min(self._advanced, frame.wire_size)
                self._advanced -= early
                frame.wire_size -= early
        self.items.extend(frames)
        if frames:
            self._wake()
        elif self.awaited:
            self.advance()

    def fail(self, error: Exception) -> None:
        """Takes the end of the stream before the end of the group. Frames that arrived whole stay readable."""
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
        """Drops what was not read, and refuses the rest of the group with a code."""
        # Also for a group that is complete: its end must not look as if everything had been read.
        self.finished = False
        self.fail(trio.ClosedResourceError(reason))
        super().close(reason)
        self._advanced = 0
        self.release(code)

    def release(self, code: int = StreamCode.CANCELLED) -> None:
        """Refuses the rest. Gives credit for everything unread of a complete group, which stays readable."""
        if self.stream is not None:
            self.stream.stop(code)

    @property
    def read_whole(self) -> bool:
        """True once the group is over and every frame was read."""
        return not self.items and self.ended and self._advanced >= 0

    def advance(self) -> None:
        """Gives credit for the part of a frame that is there, so that a frame longer than the window can come."""
        more = self._partial - self._advanced
        if more > 0 and self.stream is not None:
            self._advanced += more
            self.stream.consumed(more)

    def use(self, frame: WireFrame) -> Frame:
        """Gives credit for a frame that was taken out, and returns what the application sees of it."""
        if self.stream is not None and frame.wire_size:
            self.stream.consumed(frame.wire_size)
        return Frame(frame.payload, frame.timestamp)
