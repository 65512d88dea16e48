"""RESET_STREAM_AT in aioquic's connection, in both directions: a reset after which the stream's first bytes arrive.

aioquic 1.7 does not know the extension. WebTransport needs it: the first bytes of a stream say to which session it
belongs, and a RESET_STREAM may overtake them.

Sending. A stream has a `prefix`: the bytes that are to arrive however it ends. A reset drops what was written after
them, and goes on sending and repeating them. The frame waits until all of them have been in a packet once, so that its
final size is within the peer's credit; it is sent with the same sizes until it is acknowledged. The half has ended once
the frame and the prefix are acknowledged. STOP_SENDING is answered at once: of the prefix, what was in no packet yet
is dropped, as the peer may grant no credit for it any more.

A peer that does not take the frame, as Chromium, gets RESET_STREAM instead, once it has acknowledged the prefix: what
it acknowledged it has. It takes a round trip. STOP_SENDING is answered at once: the peer knows the stream it stops. So
is a reset of a stream for whose prefix it grants no credit.

Receiving. The frame fixes the final size at once, for flow control and for what arrives later. The reset is reported
once the bytes below the reliable size are delivered. A further frame may only lower that size; RESET_STREAM is such a
frame with the reliable size 0.

Tests: `tests/transport/test_reset_at.py`; of the private names `test_reset_stream_at` in `test_aioquic_contract.py`.

Spec: draft-ietf-quic-reliable-stream-reset-11. Drafts up to 08 have another number for the transport parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioquic.quic.connection import (
    EPOCHS,
    RESET_STREAM_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionError,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

from .... import varint

if TYPE_CHECKING:
    from aioquic._buffer import Buffer
    from aioquic.quic.events import StreamReset

RESET_STREAM_AT = 0x24
_PARAMETERS = (0x1D, 0x17F7586D2CB571)
"""`reset_stream_at` from draft 09 on, and before."""
_EXTENSION = b"".join(varint.encode(parameter) + b"\x00" for parameter in _PARAMETERS)
_FRAME_HANDLERS = "_QuicConnection__frame_handlers"
_UINT_VAR_BYTES = 8


class ResetAtSender(QuicStreamSender):
    """The sending half.

    Attributes:
        prefix: How many of the first bytes are to arrive even if the half is reset. Once it was reset: how many do, the
            frame's reliable size.
        plain: True when the peer takes only RESET_STREAM.
    """

    prefix = 0
    plain = False
    _waiting = False
    _reset_acknowledged = False

    def reset(self, error_code: int) -> None:
        """Reset the half because the peer stopped it."""
        self.reset_at(error_code, 0 if self.plain else min(self.prefix, self.highest_offset))

    def give_up(self, error_code: int) -> None:
        """Reset the half because this side gives it up."""
        self.reset_at(error_code, min(self.prefix, self._buffer_stop))

    def reset_at(self, error_code: int, size: int) -> None:
        """Reset the half after its first bytes. A second call only shortens what the first one waits for."""
        if self.is_finished or (self._reset_error_code is not None and not self._waiting):
            return
        if self._reset_error_code is None:
            self._reset_error_code = error_code
        self.prefix = size
        end = max(size, self._buffer_start)
        if self._buffer_stop > end:
            self._pending.subtract(end, self._buffer_stop)
            self._buffer_stop = end
            del self._buffer[end - self._buffer_start :]
        self._buffer_fin = None
        self._pending_eof = False
        self.buffer_is_empty = not len(self._pending)
        self._waiting = True
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._waiting and (self._buffer_start if self.plain else self.highest_offset) >= self.prefix:
            self._waiting = False
            self.reset_pending = True

    def get_prefix_frame(self, max_size: int, max_offset: int | None) -> QuicStreamFrame | None:
        """Return a frame of a half that was reset: part of its prefix."""
        # aioquic asserts that there is none.
        code, self._reset_error_code = self._reset_error_code, None
        try:
            return super().get_frame(max_size, max_offset)
        finally:
            self._reset_error_code = code
            self._stop_waiting()

    def on_prefix_delivery(self, delivery: QuicDeliveryState, start: int, stop: int) -> None:
        """Called when a packet with bytes of a half that was reset is acknowledged or lost."""
        if start < self.prefix:
            code, self._reset_error_code = self._reset_error_code, None
            super().on_data_delivery(delivery, start, min(stop, self.prefix), False)
            self._reset_error_code = code
            self._stop_waiting()
        self._finish_reset()

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if delivery == QuicDeliveryState.ACKED:
            self._reset_acknowledged = True
            self._finish_reset()

    def _finish_reset(self) -> None:
        self.is_finished = self._reset_acknowledged and self._buffer_start >= self.prefix


class ResetAtReceiver(QuicStreamReceiver):
    """The receiving half.

    Attributes:
        offered_size: The reliable size of the frame that is being read; 0 for RESET_STREAM.
        reliable_size: The least reliable size of the half's frames.
        awaited: The reset, until the bytes below the reliable size are there.
    """

    offered_size = 0
    reliable_size = 0
    awaited: StreamReset | None = None

    def handle_reset(self, *, final_size: int, error_code: int = QuicErrorCode.NO_ERROR) -> StreamReset | None:
        size, self.offered_size = self.offered_size, 0
        if self.awaited is not None:
            if error_code != self.awaited.error_code:
                reason = "a reset with another error code"
                raise QuicConnectionError(QuicErrorCode.STREAM_STATE_ERROR, RESET_STREAM_AT, reason)
            size = min(size, self.reliable_size)
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        if event is None:
            return None
        self.reliable_size = size
        if self._buffer_start >= size:
            self.awaited = None
            return event
        self.is_finished = False
        self.awaited = event
        return None


class ResetAtConnection(QuicConnection):
    """A connection that takes RESET_STREAM_AT, and sends it to a peer that takes it.

    Attributes:
        takes_reset_at: True when the peer takes RESET_STREAM_AT.
        resets_awaited: The halves whose reset was not reported, and that still lacked bytes when it arrived.
    """

    takes_reset_at = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.resets_awaited: dict[int, ResetAtReceiver] = {}
        getattr(self, _FRAME_HANDLERS)[RESET_STREAM_AT] = (self._handle_reset_stream_at_frame, EPOCHS("01"))

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + _EXTENSION

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        offset = 0
        while offset < len(data):
            # Their lengths were just checked.
            parameter, offset = varint.decode(data, offset) or (0, len(data))
            length, offset = varint.decode(data, offset) or (0, len(data))
            offset += length
            if parameter in _PARAMETERS:
                if length:
                    reason = "reset_stream_at has a value"
                    raise QuicConnectionError(QuicErrorCode.TRANSPORT_PARAMETER_ERROR, QuicFrameType.CRYPTO, reason)
                self.takes_reset_at = True

    def _handle_reset_stream_at_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream_id, _, final_size = buf.pull_uint_var(), buf.pull_uint_var(), buf.pull_uint_var()
        reliable_size = buf.pull_uint_var()
        end = buf.tell()
        if reliable_size > final_size:
            reason = "the reliable size is larger than the final size"
            raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, reason)
        self._assert_stream_can_receive(frame_type, stream_id)
        receiver = self._get_or_create_stream(frame_type, stream_id).receiver
        assert isinstance(receiver, ResetAtReceiver)
        # All but the reliable size is as in RESET_STREAM.
        receiver.offered_size = reliable_size
        buf.seek(start)
        self._handle_reset_stream_frame(context, frame_type, buf)
        buf.seek(end)
        if receiver.awaited is not None:
            self.resets_awaited[stream_id] = receiver

    def complete_reset(self, stream_id: int) -> None:
        """Called when bytes of an awaited half were delivered. Adds the event of the reset when it is due."""
        receiver = self.resets_awaited[stream_id]
        event = receiver.awaited
        if event is not None and (receiver.is_finished or receiver.starting_offset() >= receiver.reliable_size):
            receiver.is_finished = True
            receiver.awaited = None
            self._events.append(event)

    def unreliable_bytes(self, stream_id: int) -> int:
        """Return how many of the last bytes that were delivered on a reset half are above its reliable size."""
        self.resets_awaited.pop(stream_id, None)
        stream = self._streams.get(stream_id)
        if stream is None or not isinstance(stream.receiver, ResetAtReceiver):
            return 0
        return max(0, stream.receiver.starting_offset() - stream.receiver.reliable_size)

    def _write_reset_stream_frame(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        sender = stream.sender
        if not (isinstance(sender, ResetAtSender) and sender.prefix) or sender.plain:
            super()._write_reset_stream_frame(builder, stream)
            return
        buf = builder.start_frame(
            RESET_STREAM_AT,
            capacity=RESET_STREAM_FRAME_CAPACITY + _UINT_VAR_BYTES,
            handler=sender.on_reset_delivery,
        )
        frame = sender.get_reset_frame()
        for value in (frame.stream_id, frame.error_code, frame.final_size, sender.prefix):
            buf.push_uint_var(value)
