"""aioquic's connection, mended: credit that follows the application, and work that follows the busy streams.

The engine as it comes doubles its receive windows when bytes *arrive*, returns the right to open streams when a
stream ends on the wire, accepts any number of gaps in a stream, and walks every open stream for every packet.
The subclasses here change exactly that. They lean on private names of aioquic 1.7;
`tests/transport/test_aioquic_contract.py` fails when one of them moves.

This file and its neighbours `aioquic.py` and `aioquic_packets.py` are the only ones that know aioquic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnection,
    QuicConnectionError,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from aioquic.tls import Epoch

from ..engine import Credit

if TYPE_CHECKING:
    from aioquic._buffer import Buffer
    from aioquic.quic import events
    from aioquic.quic.configuration import QuicConfiguration

    from ....limits import Limits

PACER_BURST = 0.002
"""Seconds of sending that may leave in one burst. Timers fire a millisecond late; with less, the link idles."""
FLUSH_PACKETS = 32
"""Packets of one flush: a millisecond's work. With more, either side waits for the other in turn."""
_NO_APPLICATION_PROTOCOL = QuicErrorCode.CRYPTO_ERROR + 120
"""The TLS alert of that name (RFC 7301, section 3.2), as QUIC carries it (RFC 9001, section 4.8)."""
_LEAST_FRAME = 32
"""Bytes left in a packet that are worth another stream frame, whose own header takes up to a third of them."""


class _Receiver(QuicStreamReceiver):
    """The receiving half, with a bound on its gaps."""

    def __init__(self, stream_id: int | None, readable: bool, max_gaps: int) -> None:
        super().__init__(stream_id, readable)
        self.max_gaps = max_gaps
        self.unreturned = 0
        self.refused = False
        self.activate: Callable[[int], None] | None = None

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        event = super().handle_frame(frame)
        # Each range costs time on every later frame: sparse frames make reassembly quadratic.
        if len(self._ranges) > self.max_gaps:
            frame_type = QuicFrameType.STREAM_BASE
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, frame_type, "too many gaps in a stream")
        return event

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        if self.stop_pending and self.activate is not None and self._stream_id is not None:
            self.activate(self._stream_id)


class _Sender(QuicStreamSender):
    """The sending half; it reports when a packet of its own was lost, or when it is finished."""

    def __init__(self, stream_id: int | None, writable: bool, owner: PatchedConnection, stream: QuicStream) -> None:
        super().__init__(stream_id, writable)
        self._owner = owner
        self._stream: QuicStream | None = stream

    def release(self) -> None:
        """Lets go of the stream, which is over: a pair that hold each other are work for the garbage collector."""
        self._stream = None

    @property
    def sendable(self) -> int:
        """Bytes that were in no packet yet, as far as the peer's credit for the stream reaches."""
        if self._stream is None:
            return 0
        return max(0, min(self._buffer_stop, self._stream.max_stream_data_remote) - self.highest_offset)

    def write(self, data: bytes, end_stream: bool = False) -> None:
        before = self.sendable
        super().write(data, end_stream)
        self._owner.unsent += self.sendable - before

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        before = self.highest_offset
        frame = super().get_frame(max_size, max_offset)
        self._owner.unsent -= self.highest_offset - before
        if not (len(self._pending) or self._pending_eof):
            # aioquic would find that out by asking once more.
            self.buffer_is_empty = True
        return frame

    def reset(self, error_code: int) -> None:
        if self._reset_error_code is None and not self.is_finished:
            self._owner.unsent -= self.sendable
        super().reset(error_code)

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        super().on_data_delivery(delivery, start, stop, fin)
        stream_id = self._stream_id
        if stream_id is None:
            return
        if self.is_finished:
            self._owner.acknowledged.append(stream_id)
            self._owner.activate(stream_id)
        elif not self.buffer_is_empty:
            self._owner.activate(stream_id)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if self._stream_id is not None:
            self._owner.activate(self._stream_id)


class _StreamLimit(Limit):
    """How many streams the peer may open in all.

    aioquic adds one as a stream leaves its table. Only `grant` counts here: the application must have read the
    stream too.
    """

    def __init__(self, frame_type: int, name: str, value: int) -> None:
        self._granted = value
        super().__init__(frame_type, name, value)

    @property
    def value(self) -> int:
        return self._granted

    @value.setter
    def value(self, value: int) -> None:
        """Ignored: see the class."""

    def grant(self) -> None:
        self._granted += 1


def _is_due(limit: Limit) -> bool:
    """True when the peer has fewer streams left to open than an update would bring."""
    return limit.sent - limit.used < limit.value - limit.sent


def _has_frames(stream: QuicStream) -> bool:
    """True when a stream has something to send, as far as credit allows."""
    sender = stream.sender
    return not sender.buffer_is_empty or sender.reset_pending or stream.receiver.stop_pending


class _StreamTable(dict[int, QuicStream]):
    """The open streams. `values()` gives those whose MAX_STREAM_DATA is due, which is what aioquic asks it for."""

    def __init__(self, owner: PatchedConnection) -> None:
        super().__init__()
        self._owner = owner

    def __setitem__(self, stream_id: int, stream: QuicStream) -> None:
        owner = self._owner
        if not stream.receiver.is_finished:
            stream.receiver = receiver = _Receiver(stream_id, True, owner.max_gaps)
            receiver.activate = owner.activate
        if not stream.sender.is_finished:
            stream.sender = _Sender(stream_id, True, owner, stream)
        super().__setitem__(stream_id, stream)

    def values(self) -> Iterable[QuicStream]:  # type: ignore[override]
        return tuple(self._owner.credit_due.values())

    def pop(self, stream_id: int) -> QuicStream:  # type: ignore[override]
        stream = super().pop(stream_id)
        if isinstance(stream.sender, _Sender):
            stream.sender.release()
        self._owner.stream_left(stream_id)
        return stream


class _Pacer(QuicPacketPacer):
    """The pacer, with a bucket that holds `PACER_BURST` seconds. It also ends a flush.

    aioquic asks it before every packet. It finds that there is nothing more to send by starting a packet in vain, half
    of what a flush of one small packet costs; and it makes all packets before the first can leave, while the peer
    waits for it.

    Attributes:
        packets: How many packets of this flush have something in them.
        ended: True when this flush was ended here, and not for pacing.
    """

    def __init__(self, owner: PatchedConnection, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._owner = owner
        self.packets = 0
        self.ended = False

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        if self.packets >= FLUSH_PACKETS or (self.packets and not self._owner.unsent and not self._owner.has_work(now)):
            self.ended = True
            return now
        return super().next_send_time(now)

    def update_after_send(self, now: float) -> None:
        self.packets += 1
        super().update_after_send(now)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        self.bucket_max = max(self.bucket_max, PACER_BURST)


class PatchedConnection(QuicConnection):
    """aioquic's connection with the mends of this file.

    Attributes:
        active: The streams that have something to send, or to be cleared away, in the order of service.
        credit_due: The streams whose MAX_STREAM_DATA has to be sent.
        acknowledged: The streams whose FIN was acknowledged since somebody emptied this list.
        unsent: Bytes written on streams that were in no packet yet and that the peer's credit for them allows.
        departed: The streams that left the table since somebody emptied this list.
        closed_by_peer: True when the peer closed the connection.
        unfinished: True when the last flush ended with its `FLUSH_PACKETS`, whatever there is more to send.
    """

    def __init__(self, limits: Limits, *, configuration: QuicConfiguration, **ids: bytes | None) -> None:
        self.max_gaps = limits.max_gaps
        self.active: dict[int, QuicStream] = {}
        self.credit_due: dict[int, QuicStream] = {}
        self.acknowledged: list[int] = []
        self.unsent = 0
        self.departed: list[int] = []
        self.closed_by_peer = False
        self.unfinished = False
        self._read_whole: set[int] = set()
        self._streams_step = max(1, limits.max_streams // 4)
        self._data_step = max(1, limits.connection_window // 4)
        self._stream_step = max(1, limits.stream_window // 4)
        self._data_unreturned = 0
        super().__init__(configuration=configuration, **ids)  # type: ignore[arg-type]
        self._streams = _StreamTable(self)
        for name in ("_local_max_streams_bidi", "_local_max_streams_uni"):
            stock: Limit = getattr(self, name)
            setattr(self, name, _StreamLimit(stock.frame_type, stock.name, limits.max_streams))
        self._pacer: _Pacer | None = None
        if type(getattr(self._loss, "_pacer", None)) is QuicPacketPacer:
            self._loss._pacer = self._pacer = _Pacer(self, configuration.max_datagram_size)

    def close(
        self, error_code: int = QuicErrorCode.NO_ERROR, frame_type: int | None = None, reason_phrase: str = ""
    ) -> None:
        if error_code == _NO_APPLICATION_PROTOCOL and frame_type is not None and not self._is_client:
            # ALPN tells a client only that it failed, and not what this side would have taken.
            reason_phrase = f"this server speaks {', '.join(self._configuration.alpn_protocols or ())}"
        super().close(error_code, frame_type, reason_phrase)

    # -- credit --------------------------------------------------------------------------------------------

    def return_data(self, count: int) -> bool:
        """Counts bytes that the application read. Returns True when MAX_DATA is to be sent."""
        self._data_unreturned += count
        if self._data_unreturned < self._data_step:
            return False
        self._local_max_data.value += self._data_unreturned
        self._data_unreturned = 0
        return True

    def return_stream_data(self, stream_id: int, count: int) -> bool:
        """Counts bytes of one stream that the application read. Returns True when MAX_STREAM_DATA is to be sent."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            return False
        receiver = stream.receiver
        assert isinstance(receiver, _Receiver)
        receiver.unreturned += count
        if receiver.unreturned < self._stream_step or receiver.refused:
            return False
        stream.max_stream_data_local += receiver.unreturned
        receiver.unreturned = 0
        self.credit_due[stream_id] = stream
        return True

    def return_undelivered(self, stream_id: int) -> None:
        """Returns the connection's credit for the bytes that a reset keeps from ever being delivered."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.return_data(stream.receiver.highest_offset - stream.receiver.starting_offset())

    def refuse(self, stream_id: int, code: int) -> None:
        """Sends STOP_SENDING, and grants the stream no more credit. Does nothing for a half that has ended."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            assert isinstance(stream.receiver, _Receiver)
            stream.receiver.refused = True
            stream.receiver.stop(code)
            self.active[stream_id] = stream

    def stream_read_whole(self, stream_id: int) -> Credit:
        """Notes that the application needs a peer's stream no more. Returns when MAX_STREAMS is to be sent."""
        if stream_id & 1 == int(not self._is_client):
            return Credit.LATER
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.is_finished:
            self._read_whole.add(stream_id)
            return Credit.LATER
        # Over on the wire: it leaves the table with the next packets, but the peer need not wait for those.
        return self._grant(stream_id)

    def stream_left(self, stream_id: int) -> None:
        """Notes that a stream is over on the wire."""
        self.active.pop(stream_id, None)
        self.credit_due.pop(stream_id, None)
        self.departed.append(stream_id)
        if stream_id in self._read_whole:
            self._read_whole.remove(stream_id)
            self._grant(stream_id)

    def _grant(self, stream_id: int) -> Credit:
        limit = self._stream_limit(stream_id)
        assert isinstance(limit, _StreamLimit)
        limit.grant()
        if not _is_due(limit):
            return Credit.LATER
        # One stream at a time would cost a packet for each.
        return Credit.NOW if limit.value - limit.sent >= self._streams_step else Credit.SOON

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        for limit in (self._local_max_data, self._local_max_streams_bidi, self._local_max_streams_uni):
            if limit.value == limit.sent:
                continue
            # MAX_STREAMS waits until the peer has less left than the frame would bring.
            if limit is not self._local_max_data and not _is_due(limit):
                continue
            frame = builder.start_frame(
                limit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            frame.push_uint_var(limit.value)
            limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        stream_id = stream.stream_id
        assert stream_id is not None
        if not stream.receiver.is_finished:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            frame.push_uint_var(stream_id)
            frame.push_uint_var(stream.max_stream_data_local)
        del self.credit_due[stream_id]

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        if delivery != QuicDeliveryState.ACKED and stream.stream_id in self._streams:
            self.credit_due[stream.stream_id] = stream

    def _handle_max_stream_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream = self._streams.get(buf.pull_uint_var())
        buf.seek(start)
        sender = stream.sender if stream is not None else None
        before = sender.sendable if isinstance(sender, _Sender) else 0
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        if isinstance(sender, _Sender) and sender._reset_error_code is None:
            self.unsent += sender.sendable - before

    # -- service -------------------------------------------------------------------------------------------

    def activate(self, stream_id: int) -> None:
        """Puts a stream on the list of those that are looked at for the next packets."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.active[stream_id] = stream

    def discard_finished(self) -> None:
        """Forgets the streams that are over on the wire; aioquic does so only along with the next packets."""
        for stream_id in [stream_id for stream_id, stream in self.active.items() if stream.is_finished]:
            self._streams.pop(stream_id)

    def has_work(self, now: float) -> bool:
        """Returns False when there is surely nothing to send now: looking costs a fraction of trying."""
        if not self._handshake_confirmed:
            return True
        space = self._spaces[Epoch.ONE_RTT]
        path = self._network_paths[0]
        return (
            not path.is_validated
            or bool(path.remote_challenges)
            or (space.ack_at is not None and space.ack_at <= now)
            or any(map(_has_frames, self.active.values()))
            or bool(self.credit_due)
            or self._local_max_data.value != self._local_max_data.sent
            or _is_due(self._local_max_streams_bidi)
            or _is_due(self._local_max_streams_uni)
            or self._probe_pending
            or self._handshake_done_pending
            or self._streams_blocked_pending
            or bool(self._ping_pending)
            or bool(self._datagrams_pending)
            or bool(self._retire_connection_ids)
            or not all(connection_id.was_sent for connection_id in self._host_cids)
            or not self._crypto_streams[Epoch.ONE_RTT].sender.buffer_is_empty
        )

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        self._streams_queue = list(self.active.values())
        space = self._spaces[Epoch.ONE_RTT]
        if space.ack_at is not None and space.ack_at > now and any(map(_has_frames, self._streams_queue)):
            # A packet goes out in any case: the acknowledgement need not cost one of its own later.
            space.ack_at = now
        pacer = self._pacer
        self.unfinished = False
        if pacer is not None:
            pacer.packets = 0
            pacer.ended = False
        try:
            super()._write_application(builder, network_path, now)
        finally:
            if pacer is not None and pacer.ended:
                self._pacing_at = None
                self.unfinished = pacer.packets >= FLUSH_PACKETS
            self.active = {
                stream.stream_id: stream
                for stream in self._streams_queue
                if stream.stream_id is not None and (_has_frames(stream) or stream.is_finished)
            }
            self._streams_queue = []

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream, max_offset: int
    ) -> int:
        # aioquic asks every stream, also when the packet is full, and also those that wait for the peer's credit.
        sender = stream.sender
        if builder.remaining_flight_space < _LEAST_FRAME or (sender.next_offset >= max_offset and len(sender._pending)):
            return 0
        return super()._write_stream_frame(builder, space, stream, max_offset)

    # -- the rest ------------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        for stream in self._crypto_streams.values():
            stream.receiver = _Receiver(None, True, self.max_gaps)

    def _close_begin(self, is_initiator: bool, now: float) -> None:
        self.closed_by_peer = not is_initiator
        super()._close_begin(is_initiator, now)
