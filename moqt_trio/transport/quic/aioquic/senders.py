"""The sending half of aioquic's streams, which reports what aioquic does not: patches 4, 8 and 13 of `patched.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .reset_at import ResetAtSender

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioquic.quic.packet import QuicStreamFrame
    from aioquic.quic.packet_builder import QuicDeliveryState
    from aioquic.quic.stream import QuicStream


class SenderOwner(Protocol):
    """The connection, as a sender reports to it; the attributes are those of `PatchedConnection`."""

    unsent: int
    buffered: int
    acknowledged: list[int]
    emptied: list[int]

    def activate(self, stream_id: int) -> None:
        """Called when the stream has something to send, or is to be cleared away."""


class Sender(ResetAtSender):
    """The sending half; it reports when a packet of its own was lost, or when it is finished.

    Attributes:
        low: The number of buffered bytes below which it reports once that there is room, when the peer's credit for the
            stream has room too; 0 for no report.
    """

    def __init__(self, stream_id: int | None, writable: bool, owner: SenderOwner, stream: QuicStream) -> None:
        super().__init__(stream_id, writable)
        self.low = 0
        self._owner = owner
        self._stream: QuicStream | None = stream

    def release(self) -> None:
        """Drop the stream, which has ended: two objects that hold each other are work for the garbage collector."""
        self._stream = None

    @property
    def sendable(self) -> int:
        """Bytes that were in no packet yet, as far as the peer's credit for the stream reaches."""
        if self._stream is None:
            return 0
        return max(0, min(self._buffer_stop, self._stream.max_stream_data_remote) - self.highest_offset)

    @property
    def room(self) -> int:
        """Bytes that the peer's credit for the stream allows beyond what was written; 0 or less for none."""
        return 0 if self._stream is None else self._stream.max_stream_data_remote - self._buffer_stop

    def write(self, data: bytes, end_stream: bool = False) -> None:
        before = self._buffer_stop
        super().write(data, end_stream)
        owner = self._owner
        owner.buffered += len(data)
        if self._stream is not None:
            credit = self._stream.max_stream_data_remote
            owner.unsent += min(self._buffer_stop, credit) - min(before, credit)

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        before = self.highest_offset
        if self._reset_error_code is None:
            frame = super().get_frame(max_size, max_offset)
        else:
            frame = self.get_prefix_frame(max_size, max_offset)
        self._owner.unsent -= self.highest_offset - before
        if not (len(self._pending) or self._pending_eof):
            # aioquic would find that out by asking once more.
            self.buffer_is_empty = True
        return frame

    def reset_at(self, error_code: int, size: int) -> None:
        if self.plain and self._stream is not None and self._stream.max_stream_data_remote < size:
            size = 0
        sendable, buffered = self.sendable, len(self._buffer)
        super().reset_at(error_code, size)
        self._owner.unsent += self.sendable - sendable
        self._owner.buffered += len(self._buffer) - buffered
        self.low = 0

    def report_room(self) -> None:
        """Report, if that is asked for, that there is room again."""
        if len(self._buffer) < self.low and self.room > 0 and self._stream_id is not None:
            self.low = 0
            self._owner.emptied.append(self._stream_id)

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        before = len(self._buffer)
        if self._reset_error_code is None:
            super().on_data_delivery(delivery, start, stop, fin)
        else:
            self.on_prefix_delivery(delivery, start, stop)
        self._owner.buffered -= before - len(self._buffer)
        stream_id = self._stream_id
        if stream_id is None:
            return
        if self.low:
            self.report_room()
        if self.is_finished:
            self._owner.acknowledged.append(stream_id)
            self._owner.activate(stream_id)
        elif self.reset_pending or not self.buffer_is_empty:
            self._owner.activate(stream_id)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if self._stream_id is not None:
            self._owner.activate(self._stream_id)


_FRAME_OVERHEAD = 8
"""Bytes of a stream's frame beside its data, about."""


def packets_for(streams: Iterable[QuicStream], payload: int) -> int:
    """Return how many packets of so many bytes the streams fill in one turn each, or one less; at least one."""
    size = 0
    for stream in streams:
        if isinstance(stream.sender, Sender):
            size += min(stream.sender.sendable + _FRAME_OVERHEAD, payload)
    return max(1, size // payload)
