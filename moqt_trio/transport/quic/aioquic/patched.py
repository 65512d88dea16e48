"""aioquic's connection with our fixes: credit follows the application, and work follows the busy streams.

Theory of operation
===================

Each patch below is a difference between aioquic 1.7 and what a server of many streams needs. It says what upstream
does, what that breaks, and which test in `tests/transport/test_aioquic_contract.py` or `test_aioquic_sending.py` fails
when upstream moves. The patches lean on private names; `test_private_attributes`, `test_overridden_methods` and
`test_parts_of_streams` list them.

1.  Windows. Upstream doubles its receive windows as bytes *arrive*, so a reader that stops never stops its sender, and
    memory grows with the peer's speed. Here MAX_DATA and MAX_STREAM_DATA grow by what the application consumed
    (`return_credit`), and a frame is sent once a quarter of the window was. Bytes that a reset keeps from being
    delivered return to the connection's window (`return_undelivered`).
    Tests: `test_credit_follows_consumption`, `test_what_upstream_has_not_fixed`.
2.  Streams. Upstream lets the peer open another stream as one leaves its table, whether it was read or not: a peer
    could open streams faster than the application reads them. Here the application must have read it too
    (`stream_read_whole`). Test: `test_stream_credit_follows_reading`.
3.  Gaps. Upstream accepts any number of gaps in a stream; each costs time on every later frame, so sparse frames make
    reassembly quadratic. `BoundedRanges` ends the connection past `Limits.max_gaps` in one stream, and past
    `Limits.max_connection_gaps` in all of them. Tests: `tests/faults/quic/test_gaps.py`.
4.  Service. Upstream walks every open stream for every packet. Here only streams with something to send are walked:
    `active` for frames, `credit_due` for MAX_STREAM_DATA, which `_StreamTable.values` returns in place of all streams.
    A stream enters `active` when something is written, reset, stopped, lost or finished, and leaves it when it has
    nothing left, or nothing that the peer's credit allows. Credit for the stream brings it back; those that wait for
    the connection's are in `waiting`, and come back as far as it reaches.
    Tests: `test_only_streams_with_work_are_visited`, `test_streams_without_credit_are_not_visited`,
    `test_many_small_streams_share_packets`.
    Upstream also walks all of them for every packet, full or not. Here a flush walks the first `WALKED_STREAMS`, and
    ends when each has had a turn. Tests: `test_a_packet_among_many_streams`, `test_every_stream_has_its_turn`.
5.  The end of a flush. Upstream finds that nothing is left to send by starting one more packet, which is half the cost
    of a small flush; and it makes all packets before the first can leave, while the peer waits for it. `Pacer` ends a
    flush when nothing is left, and after `FLUSH_PACKETS`.
    Tests: `test_a_flush_starts_no_empty_packet`, `test_a_flush_is_bounded`.
6.  Pacing. Upstream's bucket holds less than a timer's delay, so that a fast link idles between two wake-ups. Here it
    holds `PACER_BURST`. Test: `test_the_pacer_is_replaced`.
7.  Acknowledgements. Upstream sends a delayed acknowledgement in a packet of its own even when another packet left
    shortly before. Here any packet takes it along (`_write_application`).
8.  Reports. Upstream does not say that a FIN was acknowledged (`acknowledged`), that a send buffer has room again
    (`emptied`), that a stream left its table (`departed`), how much was written and not yet sent (`unsent`), or which
    side closed (`closed_by_peer`).
    Tests: `test_handshake_and_data_without_a_network`, `test_the_end_is_known_at_once`.
9.  STOP_SENDING. Upstream raises for a stream that it has forgotten; `refuse` does nothing then, and grants a stopped
    stream no more credit. Test: `test_what_upstream_has_not_fixed`.
10. Packets of nothing but acknowledgements. The peer acknowledges them only together with others, and upstream keeps
    each until then: a side that only receives would keep them for ever. Here every `ACK_ONLY_PACKETS` of them one takes
    a PING along (RFC 9000, section 13.2.4), and the older ones are forgotten if the peer does not acknowledge that.
    Tests: `test_a_side_that_only_receives_keeps_few_packets`, `test_a_peer_that_acknowledges_nothing`.
11. The end of a connection: see `endings.py`. The size of packets: see `path_mtu.py`. RESET_STREAM_AT: see
    `reset_at.py`. Paths that reorder packets: see `reordering.py`. What is kept without need: see `brief.py`.
12. Send buffers. Upstream keeps what was written on a stream that was reset until the peer acknowledges the reset, and
    does not say how much all streams hold together (`buffered`, `opened`).
    Test: `test_a_reset_drops_what_was_written`.

All of it runs in the task that calls the engine; nothing here waits or reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from aioquic.tls import Epoch

from .authentication import PeerChecks
from .brief import BriefConnection
from .handlers import share_frame_handlers
from .pacer import FLUSH_PACKETS, Pacer
from .path_mtu import SearchingConnection
from .quiet import QuietLogger
from .reordering import ReceivedPackets, Recovery
from .reset_at import ResetAtConnection
from .senders import Sender, packets_for
from .streams import BoundedReceiver, Credit, Gaps, Missing, StreamLimit, any_frames, missing_credit

if TYPE_CHECKING:
    from aioquic._buffer import Buffer
    from aioquic.quic.configuration import QuicConfiguration

    from ....limits import Limits

ACK_ONLY_PACKETS = 32
"""Packets of nothing but acknowledgements that are kept before one takes a PING along: the answer to a PING is a packet
for the peer to make, so that it costs 3 % more packets."""
WALKED_STREAMS = 128
"""Streams that are walked in one flush: they fill ten packets and more."""
_PACKET_OVERHEAD = 30
"""Bytes of a packet beside its frames, about."""
_LEAST_FRAME = 32
"""Bytes left in a packet that are worth another stream frame. Its header takes up to 13 bytes: with fewer, it would
carry less than it costs."""

_NO_RECEIVER = QuicStreamReceiver(None, readable=False)
_NO_SENDER = QuicStreamSender(None, writable=False)
"""The halves that unidirectional streams do not have: nothing is written to them."""


class _StreamTable(dict[int, QuicStream]):
    """The open streams (patch 4). `values()` returns those whose MAX_STREAM_DATA is due: aioquic uses it for that."""

    def __init__(self, owner: PatchedConnection) -> None:
        super().__init__()
        self._owner = owner

    def __setitem__(self, stream_id: int, stream: QuicStream) -> None:
        owner = self._owner
        if not stream.receiver.is_finished:
            stream.receiver = receiver = BoundedReceiver(stream_id, True, owner.gaps)
            receiver.owner = owner
        else:
            stream.receiver = _NO_RECEIVER
        if not stream.sender.is_finished:
            stream.sender = Sender(stream_id, True, owner, stream)
            owner.opened += stream_id & 1 != owner._is_client
        else:
            stream.sender = _NO_SENDER
        super().__setitem__(stream_id, stream)
        if stream_id & 1 == owner._is_client and stream_id >> 2 > owner._stream_limits[stream_id >> 1 & 1].used:
            # aioquic makes all streams up to one of which a frame arrived: the one before has had none.
            self._unmake(stream_id - 4)

    def _unmake(self, stream_id: int) -> None:
        stream = super().pop(stream_id)
        if isinstance(stream.sender, Sender):
            stream.sender.release()
        self._owner.stream_not_made(stream_id)

    def values(self) -> Iterable[QuicStream]:  # type: ignore[override]
        return tuple(self._owner.credit_due.values())

    def pop(self, stream_id: int) -> QuicStream:  # type: ignore[override]
        stream = super().pop(stream_id)
        if isinstance(stream.sender, Sender):
            self._owner.buffered -= len(stream.sender._buffer)
            stream.sender.release()
            self._owner.opened -= stream_id & 1 != self._owner._is_client
        if isinstance(stream.receiver, BoundedReceiver):
            stream.receiver._ranges.release()
        self._owner.stream_left(stream_id)
        return stream


class PatchedConnection(ResetAtConnection, SearchingConnection, BriefConnection):
    """aioquic's connection with the patches of this file.

    Attributes:
        checks: What the handshake demands of the peer; to be replaced before the first packet.
        gaps: The gaps of all streams, and their bounds.
        active: The streams that have something to send, or to be cleared away, in the order of service.
        waiting: Streams whose data waits for the peer's credit for the connection, in the order of service.
        credit_due: The streams whose MAX_STREAM_DATA has to be sent.
        acknowledged: The streams whose FIN was acknowledged since the owner replaced this list.
        emptied: The streams that got room (see `Sender.low`) since the owner replaced this list.
        unsent: Bytes written on streams that were in no packet yet and that the peer's credit for them allows.
        buffered: Bytes written on streams that the peer has not acknowledged.
        opened: Streams that this side opened and that have not ended.
        departed: The streams that left the table since the owner replaced this list.
        unfinished: True when the last flush ended with its `FLUSH_PACKETS`; there may be more to send.
    """

    def __init__(self, limits: Limits, *, configuration: QuicConfiguration, **ids: bytes | None) -> None:
        self.gaps = Gaps(limits.max_gaps, limits.max_connection_gaps)
        self.active: dict[int, QuicStream] = {}
        self.waiting: OrderedDict[int, QuicStream] = OrderedDict()
        self.credit_due: dict[int, QuicStream] = {}
        self.acknowledged: list[int] = []
        self.emptied: list[int] = []
        self.unsent = 0
        self.spoken = tuple(configuration.alpn_protocols or ())
        self.checks = PeerChecks(limits.max_handshake_message, limits.max_certificate_chain)
        self.buffered = 0
        self.opened = 0
        self.departed: list[int] = []
        self.unfinished = False
        self._read_whole: set[int] = set()
        # A quarter: fewer frames with more, but the peer must not run out of credit within a round trip.
        self._streams_step = max(1, limits.max_streams // 4)
        self._data_step = max(1, limits.connection_window // 4)
        self._stream_step = max(1, limits.stream_window // 4)
        self._data_unreturned = 0
        super().__init__(max_packet=limits.max_packet, configuration=configuration, **ids)
        self._loss = Recovery(self._loss)
        self._logger = self._loss._logger = QuietLogger(self._logger.logger, self._logger.extra)
        share_frame_handlers(self)
        self._streams = _StreamTable(self)
        bidi, uni = self._stream_limits = (
            StreamLimit(self._local_max_streams_bidi.frame_type, "max_streams_bidi", limits.max_streams),
            StreamLimit(self._local_max_streams_uni.frame_type, "max_streams_uni", limits.max_streams),
        )
        self._local_max_streams_bidi, self._local_max_streams_uni = bidi, uni
        self._pacer: Pacer | None = None
        if type(getattr(self._loss, "_pacer", None)) is QuicPacketPacer:
            self._loss._pacer = self._pacer = Pacer(self, configuration.max_datagram_size)

    # -- credit --------------------------------------------------------------------------------------------

    def return_credit(self, stream_id: int, count: int) -> bool:
        """Count bytes of a stream that were consumed. Return True when MAX_DATA or MAX_STREAM_DATA is to be sent."""
        due = False
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            receiver = stream.receiver
            assert isinstance(receiver, BoundedReceiver)
            receiver.unreturned += count
            if receiver.unreturned >= self._stream_step and not receiver.refused:
                stream.max_stream_data_local += receiver.unreturned
                receiver.unreturned = 0
                self.credit_due[stream_id] = stream
                due = True
        self._data_unreturned += count
        if self._data_unreturned < self._data_step:
            return due
        self._local_max_data.value += self._data_unreturned
        self._data_unreturned = 0
        return True

    def return_undelivered(self, stream_id: int) -> None:
        """Return the connection's credit for the bytes that a reset keeps from ever being delivered."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            # The half has ended, so that only the connection's window grows.
            self.return_credit(stream_id, stream.receiver.highest_offset - stream.receiver.starting_offset())

    def refuse(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING, and grant the stream no more credit. Does nothing for a half that has ended."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            assert isinstance(stream.receiver, BoundedReceiver)
            stream.receiver.refused = True
            stream.receiver.stop(code)
            self.active[stream_id] = stream

    def stream_read_whole(self, stream_id: int) -> Credit:
        """Called when the application needs a peer's stream no more. Return when MAX_STREAMS is to be sent."""
        if stream_id & 1 == int(not self._is_client):
            return Credit.LATER
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.is_finished:
            self._read_whole.add(stream_id)
            return Credit.LATER
        # It has ended on the wire, and leaves the table with the next packets; the peer need not wait for those.
        return self._grant(stream_id)

    def stream_left(self, stream_id: int) -> None:
        """Called when a stream that has ended on the wire left the table."""
        self.active.pop(stream_id, None)
        self.waiting.pop(stream_id, None)
        self.credit_due.pop(stream_id, None)
        self.departed.append(stream_id)
        if stream_id in self._read_whole:
            self._read_whole.remove(stream_id)
            self._grant(stream_id)

    def _grant(self, stream_id: int) -> Credit:
        limit = self._stream_limit(stream_id)
        assert isinstance(limit, StreamLimit)
        limit.granted += 1
        new = limit.granted - limit.sent
        if limit.sent - limit.used >= new:
            return Credit.LATER
        # One stream at a time would cost a packet for each.
        return Credit.NOW if new >= self._streams_step else Credit.SOON

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        bidi, uni = self._stream_limits
        data = self._local_max_data
        for limit, value in ((data, data.value), (bidi, bidi.granted), (uni, uni.granted)):
            if value == limit.sent:
                continue
            # MAX_STREAMS waits until the peer has less left than the frame would bring.
            if limit is not data and limit.sent - limit.used >= value - limit.sent:
                continue
            frame = builder.start_frame(
                limit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            frame.push_uint_var(value)
            limit.sent = value

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
        stream_id = buf.pull_uint_var()
        stream = self._streams.get(stream_id)
        buf.seek(start)
        sender = stream.sender if stream is not None else None
        before = sender.sendable if isinstance(sender, Sender) else 0
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        if isinstance(sender, Sender):
            after = sender.sendable
            if after > before:
                self.unsent += after - before
                self.activate(stream_id)
            if sender.low:
                sender.report_room()

    def _resume_waiting(self) -> None:
        """Put the streams that wait for credit of the connection back on the list, as far as it reaches now."""
        room = self._remote_max_data - self._remote_max_data_used
        while room > 0 and self.waiting:
            stream_id, stream = self.waiting.popitem(last=False)
            sender = stream.sender
            if isinstance(sender, Sender) and not sender.buffer_is_empty:
                self.active[stream_id] = stream
                room -= sender.sendable

    def report_room(self, stream_id: int, low: int) -> None:
        """Report the stream in `emptied`, once, when fewer than so many bytes are buffered and credit has room."""
        stream = self._streams.get(stream_id)
        if stream is not None and isinstance(stream.sender, Sender) and stream.sender._reset_error_code is None:
            stream.sender.low = low
            stream.sender.report_room()

    # -- service -------------------------------------------------------------------------------------------

    def activate(self, stream_id: int) -> None:
        """Put a stream on the list of those that are walked for the next packets."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.active[stream_id] = stream

    def discard_finished(self) -> None:
        """Forget the streams that have ended on the wire; aioquic does so only with the next packets."""
        for stream_id in [stream_id for stream_id, stream in self.active.items() if stream.is_finished]:
            self._streams.pop(stream_id)

    def has_work(self, now: float) -> bool:
        """Return False when there is surely nothing to send now: looking costs a fraction of trying.

        It is asked once for every datagram that is received or sent, and calls nothing of its own.
        """
        if not self._handshake_confirmed:
            return True
        for stream in self.active.values():
            sender = stream.sender
            if not sender.buffer_is_empty or sender.reset_pending or stream.receiver.stop_pending:
                return True
        for connection_id in self._host_cids:
            if not connection_id.was_sent:
                return True
        space = self._spaces[Epoch.ONE_RTT]
        path = self._network_paths[0]
        bidi, uni = self._stream_limits
        return (
            not path.is_validated
            or bool(path.remote_challenges)
            or (space.ack_at is not None and space.ack_at <= now)
            or bool(self.credit_due)
            or (bool(self.waiting) and self._remote_max_data > self._remote_max_data_used)
            or self._local_max_data.value != self._local_max_data.sent
            or bidi.sent - bidi.used < bidi.granted - bidi.sent
            or uni.sent - uni.used < uni.granted - uni.sent
            or self._probe_pending
            or self._handshake_done_pending
            or self._streams_blocked_pending
            or bool(self._ping_pending)
            or bool(self._datagrams_pending)
            or bool(self._retire_connection_ids)
            or not self._crypto_streams[Epoch.ONE_RTT].sender.buffer_is_empty
        )

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        if self.waiting:
            self._resume_waiting()
        queue = list(self.active.values())
        others: list[QuicStream] = []
        offsets: dict[QuicStream, int] = {}
        most = FLUSH_PACKETS
        if len(queue) > WALKED_STREAMS and self._pacer is not None:
            others = queue[WALKED_STREAMS:]
            del queue[WALKED_STREAMS:]
            offsets = {stream: stream.sender.highest_offset for stream in queue}
            most = min(most, packets_for(queue, self._max_datagram_size - _PACKET_OVERHEAD))
        self._streams_queue = queue
        space = self._spaces[Epoch.ONE_RTT]
        if space.ack_at is not None and space.ack_at > now and any_frames(self._streams_queue):
            # A packet leaves in any case: the acknowledgement need not cost one of its own later.
            space.ack_at = now
        if space.ack_at is not None and space.ack_at <= now:
            self._bound_ack_only(space)
        pacer = self._pacer
        self.unfinished = False
        if pacer is not None:
            pacer.packets = 0
            pacer.most = most
            pacer.ended = False
        try:
            super()._write_application(builder, network_path, now)
            # Nothing but pacing keeps the others from having their turn.
            self.unfinished = bool(others) and self._pacing_at is None
        finally:
            if pacer is not None and pacer.ended:
                self._pacing_at = None
                self.unfinished = pacer.packets >= most
            self.active = active = {}
            served: dict[int, QuicStream] = {}
            room = self._remote_max_data - self._remote_max_data_used
            for stream in self._streams_queue:
                sender, receiver = stream.sender, stream.receiver
                if (
                    not sender.buffer_is_empty
                    or sender.reset_pending
                    or receiver.stop_pending
                    or (sender.is_finished and receiver.is_finished)
                ):
                    assert stream.stream_id is not None
                    missing = missing_credit(stream, room)
                    if missing is Missing.CONNECTION:
                        self.waiting[stream.stream_id] = stream
                    elif missing is None and others and offsets[stream] != sender.highest_offset:
                        served[stream.stream_id] = stream
                    elif missing is None:
                        active[stream.stream_id] = stream
            if others:
                for stream in others:
                    assert stream.stream_id is not None
                    active[stream.stream_id] = stream
                active.update(served)
                if pacer is not None and not pacer.packets and len(active) == len(queue) + len(others):
                    # Nothing moves: another flush would not change that.
                    self.unfinished = False
            self._streams_queue = []

    def _bound_ack_only(self, space: QuicPacketSpace) -> None:
        """Called before an acknowledgement is written: see patch 10."""
        surplus = len(space.sent_packets) - space.ack_eliciting_in_flight - ACK_ONLY_PACKETS
        if surplus < 0:
            return
        if not space.ack_eliciting_in_flight:
            self._probe_pending = True
        elif surplus >= ACK_ONLY_PACKETS:
            # Their loss would change nothing: an acknowledgement is not sent again.
            for number in [number for number, packet in space.sent_packets.items() if not packet.is_ack_eliciting]:
                del space.sent_packets[number]
                surplus -= 1
                if surplus < 0:
                    break

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream, max_offset: int
    ) -> int:
        # aioquic asks every stream, also when the packet is full, and also those that wait for the peer's credit.
        sender = stream.sender
        if builder.remaining_flight_space < _LEAST_FRAME or (sender.next_offset >= max_offset and len(sender._pending)):
            return 0
        return super()._write_stream_frame(builder, space, stream, max_offset)

    def _on_ack_delivery(self, delivery: QuicDeliveryState, space: QuicPacketSpace, highest_acked: int) -> None:
        super()._on_ack_delivery(delivery, space, highest_acked)
        received = space.received_packets
        if delivery == QuicDeliveryState.ACKED and isinstance(received, ReceivedPackets):
            for number in received.not_in(highest_acked):
                space.ack_queue.add(number)

    # -- the rest ------------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._spaces[Epoch.ONE_RTT].received_packets = ReceivedPackets()  # type: ignore[assignment]
        self.checks.apply(self.tls)
        for stream in self._crypto_streams.values():
            stream.receiver = BoundedReceiver(None, True, self.gaps)

    def release(self) -> None:
        for stream in dict.values(self._streams):
            if isinstance(stream.sender, Sender):
                stream.sender.release()
        super().release()
        self.buffered = self.opened = 0
