"""Parts of aioquic's streams with our fixes, and what they say of the peer's credit for streams; see `patched.py`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from aioquic.quic.connection import Limit, QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.rangeset import RangeSet

from .reset_at import ResetAtReceiver

if TYPE_CHECKING:
    from aioquic.quic.packet_builder import QuicDeliveryState
    from aioquic.quic.stream import QuicStream


class Credit(enum.Enum):
    """When MAX_STREAMS that the peer has earned is to be sent."""

    LATER = "later"
    SOON = "soon"
    NOW = "now"


class Missing(enum.Enum):
    """Which credit of the peer's a stream waits for."""

    STREAM = "stream"
    CONNECTION = "connection"


class Gaps:
    """How many gaps the streams of a connection have together, and the bounds (patch 3).

    Attributes:
        count: Their number.
        of_stream: The bound for one stream.
        of_connection: The bound for all.
    """

    __slots__ = ("count", "of_connection", "of_stream")

    def __init__(self, of_stream: int, of_connection: int) -> None:
        self.count = 0
        self.of_stream = of_stream
        self.of_connection = of_connection


class BoundedRanges(RangeSet):
    """The ranges of a stream that arrived out of order, with a bound on their number (patch 3)."""

    def __init__(self, gaps: Gaps) -> None:
        super().__init__()
        self._gaps = gaps

    def add(self, start: int, stop: int | None = None) -> None:
        gaps, before = self._gaps, len(self)
        super().add(start, stop)
        gaps.count += len(self) - before
        if len(self) > gaps.of_stream or gaps.count > gaps.of_connection:
            where = "a stream" if len(self) > gaps.of_stream else "the connection's streams"
            frame_type = QuicFrameType.STREAM_BASE
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, frame_type, f"too many gaps in {where}")

    def shift(self) -> range:
        self._gaps.count -= 1
        return super().shift()

    def release(self) -> None:
        """Called when the stream has left: its gaps no longer count."""
        self._gaps.count -= len(self)


class ReceiverOwner(Protocol):
    """The connection, as a receiver reports to it."""

    def activate(self, stream_id: int) -> None:
        """Called when the stream has something to send."""


class BoundedReceiver(ResetAtReceiver):
    """The receiving half, with a bound on its gaps."""

    def __init__(self, stream_id: int | None, readable: bool, gaps: Gaps) -> None:
        super().__init__(stream_id, readable)
        self._ranges: BoundedRanges = BoundedRanges(gaps)
        self.unreturned = 0
        self.refused = False
        self.owner: ReceiverOwner | None = None

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        if self.stop_pending and self.owner is not None and self._stream_id is not None:
            self.owner.activate(self._stream_id)


class StreamLimit(Limit):
    """How many streams the peer may open in all (patch 2).

    aioquic adds one as a stream leaves its table, and that is ignored. Only `granted` counts: the application must have
    read the stream too. An update is due when the peer has fewer streams left to open than it would bring; that
    comparison is written out where it is made for every packet.
    """

    def __init__(self, frame_type: int, name: str, value: int) -> None:
        self.granted = value
        super().__init__(frame_type, name, value)

    @property
    def value(self) -> int:
        return self.granted

    @value.setter
    def value(self, value: int) -> None:
        """Ignored: see the class."""


def any_frames(streams: Iterable[QuicStream]) -> bool:
    """Return whether one of the streams has something to send, whether credit allows it or not."""
    for stream in streams:
        sender = stream.sender
        if not sender.buffer_is_empty or sender.reset_pending or stream.receiver.stop_pending:
            return True
    return False


def missing_credit(stream: QuicStream, room: int) -> Missing | None:
    """Return the credit that all a stream has to send waits for; None when something can be sent without more.

    Args:
        stream: A stream with something to send, or to be cleared away.
        room: The peer's credit for the connection that is left.
    """
    sender = stream.sender
    if sender.buffer_is_empty or not len(sender._pending) or stream.receiver.stop_pending:
        return None
    start = sender.next_offset
    if start >= stream.max_stream_data_remote:
        return Missing.STREAM
    # What was lost has used its credit already.
    return Missing.CONNECTION if room <= 0 and start >= sender.highest_offset else None
