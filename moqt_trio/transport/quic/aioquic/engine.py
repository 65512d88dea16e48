"""The default QUIC engine: `engine.Engine` on aioquic 1.7.

It translates calls and events. `making.py` makes one from settings. aioquic's fixes are in `patched.py`.
"""

from __future__ import annotations

import hmac
import logging
import math
from typing import TYPE_CHECKING

from aioquic.quic import events
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.tls import Epoch
from cryptography.hazmat.primitives.serialization import Encoding

from ....errors import printable
from ...connection import TransportStatistics, cut_reason
from ..engine import Engine, EngineHandler, Termination
from ..stateless_reset import TOKEN_BYTES
from .endings import may_be_reset
from .reset_at import ResetAtSender
from .streams import Credit

if TYPE_CHECKING:
    from collections import deque

    from ....limits import Limits
    from ...sockets import Address
    from .patched import PatchedConnection

# Without logging set up, Python would print aioquic's warnings; what they report is raised as errors here.
logging.getLogger("quic").addHandler(logging.NullHandler())

_SHORT_HEADER_BYTES = 1 + 2 + 16
"""The flags, the packet number and the authentication tag around a short packet's connection id and payload."""
_DATAGRAM_HEADER_BYTES = 1 + 2
"""The frame type, and a length of up to 16,383 bytes."""
_STREAM_BYTES = 2560
"""What a stream that this side opened takes in memory beside its bytes, in aioquic and above."""
_RELEASED = 16 * 1024
"""Bytes that are delivered at once beyond those that have just arrived. One packet can fill gaps of many streams and
release megabytes. Of frames of two bytes, these take seconds to read."""
_IDLE = "Idle timeout"
"""The text by which aioquic says that the peer fell silent."""


class AioquicEngine(Engine):
    """A connection of aioquic as an `Engine`."""

    def __init__(
        self,
        quic: PatchedConnection,
        limits: Limits,
        handler: EngineHandler,
        *,
        address_validated: bool = False,
    ) -> None:
        self.send_high = limits.send_high
        # Whatever is written after a look fits in the rest.
        self._full_at = limits.send_buffer - min(limits.send_high, limits.send_buffer // 2)
        self.connection_id = quic.host_cid
        self.heard_at = -math.inf
        self.termination = None
        self.unfinished = False
        self.undelivered = False
        self._deliverable = 0
        self._quic = quic
        self._handler = handler
        self._address_validated = address_validated
        self._max_datagrams = limits.max_datagrams
        self._events: deque[events.QuicEvent] = quic._events
        self._streams_allowed = (0, 0)
        self._peer_address: Address | None = None
        self._pings = 0
        # Streams that wait until the send buffers are not full.
        self._waiting_for_all: dict[int, None] = {}
        self._last_statistics: TransportStatistics | None = None

    def __repr__(self) -> str:
        return f"<AioquicEngine {printable(self.connection_id.hex())} {self._quic._state.name}>"

    # -- datagrams and time --------------------------------------------------------------------------------

    @property
    def idle_timeout(self) -> float:
        ours, theirs = self._quic.configuration.idle_timeout, self._quic._remote_max_idle_timeout
        return ours if theirs is None else min(ours, theirs)

    def answer_due(self) -> float:
        quic = self._quic
        assert quic._close_at is not None
        if not quic._ack_eliciting_sent_since_receipt:
            return quic._close_at
        # Three probe timeouts: the least that an idle timeout may be (RFC 9000, section 10.1).
        return quic._close_at - quic._idle_timeout() + 3 * quic._loss.get_probe_timeout()

    def connect(self, address: Address, now: float) -> None:
        self._peer_address = address
        self._quic.connect(address, now)

    def receive_datagram_untrusted(self, data: bytes, address: Address, now: float) -> None:
        quic = self._quic
        self._deliverable += len(data)
        token = quic._peer_cid.stateless_reset_token
        # In constant time: how long it takes must not tell how much of a guess is right (RFC 9000, section 10.3.1).
        if token and hmac.compare_digest(data[-TOKEN_BYTES:], token) and may_be_reset(data):
            quic.end_by_reset(now)
            return
        sent = quic._ack_eliciting_sent_since_receipt
        # aioquic clears it with each packet that is authentic and new, and with no other.
        quic._ack_eliciting_sent_since_receipt = True
        quic.receive_datagram(data, address, now)
        if quic._ack_eliciting_sent_since_receipt:
            quic._ack_eliciting_sent_since_receipt = sent
        else:
            self.heard_at = now
        acknowledged = quic._spaces[Epoch.ONE_RTT].largest_acked_packet
        if acknowledged >= quic._packet_number and acknowledged > 0:
            # It would have this side send faster than the path takes (RFC 9000, section 13.1).
            quic.close(QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.ACK, "this packet was not sent")
        if self._address_validated and quic._network_paths:
            # The token of a Retry has proved the address already (RFC 9000, section 8.1.2).
            quic._network_paths[0].is_validated = True
            self._address_validated = False

    @property
    def established(self) -> bool:
        return self._quic._state is not QuicConnectionState.FIRSTFLIGHT

    def deliver_events(self) -> None:
        quic, handler, queue = self._quic, self._handler, self._events
        left, self._deliverable = self._deliverable + _RELEASED, 0
        self.undelivered = False
        while queue and self.termination is None:
            event = queue.popleft()
            if isinstance(event, events.StreamDataReceived):
                if len(event.data) > left:
                    self._deliver_piece(event, left)
                    self.undelivered = True
                    break
                left -= self._deliver_data(event, left)
            elif isinstance(event, events.StreamReset):
                quic.return_undelivered(event.stream_id)
                quic.activate(event.stream_id)
                droppable = quic.unreliable_bytes(event.stream_id)
                handler.stream(event.stream_id).deliver_reset(event.error_code, droppable)
            elif isinstance(event, events.StopSendingReceived):
                quic.activate(event.stream_id)
                handler.stream(event.stream_id).deliver_stop(event.error_code)
            elif isinstance(event, events.DatagramFrameReceived):
                handler.datagram_received(event.data)
            elif isinstance(event, events.HandshakeCompleted):
                if self._awaits_verdict():
                    queue.appendleft(event)
                    break
                self._complete_handshake(event)
            elif isinstance(event, events.ConnectionIdIssued):
                handler.connection_id_issued(event.connection_id)
            elif isinstance(event, events.ConnectionIdRetired):
                handler.connection_id_retired(event.connection_id)
        if quic.acknowledged:
            acknowledged, quic.acknowledged = quic.acknowledged, []
            for stream_id in acknowledged:
                if (stream := handler.streams.get(stream_id)) is not None:
                    stream.deliver_send_finished()
        if self._waiting_for_all and not self.send_full:
            waiting, self._waiting_for_all = self._waiting_for_all, {}
            for stream_id in waiting:
                self.stream_watch(stream_id)
        if quic.emptied:
            emptied, quic.emptied = quic.emptied, []
            for stream_id in emptied:
                if (stream := handler.streams.get(stream_id)) is not None:
                    stream.deliver_send_ready()
        allowed = (quic._remote_max_streams_bidi, quic._remote_max_streams_uni)
        if allowed != self._streams_allowed:
            self._streams_allowed = allowed
            if quic._handshake_complete and self.termination is None:
                handler.streams_available()
        if quic.active:
            quic.discard_finished()
        if quic.departed:
            self._release_departed()
        self._note_path(self.heard_at)
        if quic._close_event is not None:
            self._note_end()
        elif quic.handshake_kept and quic._handshake_confirmed:
            quic.forget_handshake()

    def _note_path(self, now: float) -> None:
        """Find that the peer is reached on another path."""
        paths = self._quic._network_paths
        if paths and (address := paths[0].addr) != self._peer_address:
            same_host = self._peer_address is not None and self._peer_address[0] == address[0]
            self._peer_address = address
            self._quic.path_changed(now, same_host=same_host)
            self._handler.peer_moved(address)

    def _deliver_piece(self, event: events.StreamDataReceived, size: int) -> None:
        """Deliver so many bytes of an event, and put the rest back."""
        rest = events.StreamDataReceived(event.data[size:], event.end_stream, event.stream_id)
        self._events.appendleft(rest)
        if size > 0:
            self._handler.stream(event.stream_id).deliver(event.data[:size], False)

    def _deliver_data(self, event: events.StreamDataReceived, most: int) -> int:
        """Deliver the data of an event, and of those after it on its stream, up to so many bytes. Return how many."""
        queue, data, fin, stream_id = self._events, event.data, event.end_stream, event.stream_id
        if queue and not fin:
            # The data of a run of packets on one stream is delivered at once.
            run = [data]
            size = len(data)
            while queue and not fin:
                following = queue[0]
                if not isinstance(following, events.StreamDataReceived) or following.stream_id != stream_id:
                    break
                size += len(following.data)
                if size > most:
                    break
                queue.popleft()
                run.append(following.data)
                fin = following.end_stream
            if len(run) > 1:
                data = b"".join(run)
        if fin:
            self._quic.activate(stream_id)
        if self._quic.resets_awaited and stream_id in self._quic.resets_awaited:
            # All of the stream may be there; the peer has reset it all the same.
            fin = False
            self._quic.complete_reset(stream_id)
            if not data:
                return 0
        stream = self._handler.streams.get(stream_id)
        if stream is None:
            stream = self._handler.stream(stream_id)
        stream.deliver(data, fin)
        return len(data)

    def _awaits_verdict(self) -> bool:
        """Return whether a client that was asked for a certificate has no answer to it yet.

        The handshake of TLS 1.3 ends for a client before the server has looked at its certificate. Only HANDSHAKE_DONE
        says that it was accepted (RFC 9001, section 4.1.2).
        """
        quic = self._quic
        return quic._is_client and quic.tls._certificate_request is not None and not quic._handshake_confirmed

    def _complete_handshake(self, event: events.HandshakeCompleted) -> None:
        if not self._quic._remote_max_idle_timeout:
            # The peer has no such timeout (RFC 9000, section 18.2); aioquic takes 0 as the number.
            self._quic._remote_max_idle_timeout = None
        certificate = self._quic.tls._peer_certificate
        if certificate is not None and not self._quic.configuration.is_client:
            self.client_certificate = certificate.public_bytes(Encoding.DER)
        name = self._quic.configuration.server_name if self._quic.configuration.is_client else None
        self._handler.handshake_completed(event.alpn_protocol, name)

    def _note_end(self) -> None:
        event = self._quic._close_event
        # What the peer sent before it closed comes first.
        if event is None or self.termination is not None or (self.undelivered and self._quic.closed_by_peer):
            return
        # aioquic reports the end only after its closing period; for the application it is now.
        self.termination = Termination(
            code=event.error_code,
            reason=event.reason_phrase,
            application=event.frame_type is None,
            by_peer=self._quic.closed_by_peer,
            idle=event.reason_phrase == _IDLE and not self._quic.closed_by_peer,
        )

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        quic = self._quic
        if not quic._network_paths:
            # aioquic indexes the list before the first packet has arrived.
            return []
        if quic.shrunk:
            self._drop_long_datagrams()
        datagrams = quic.datagrams_to_send(now)
        if quic.probe_at <= now:
            datagrams += quic.probe(now)
        self.unfinished = quic.unfinished
        # aioquic reports an id when it writes it, and the peer may address its very next packet to it.
        while self._events and isinstance(issued := self._events[-1], events.ConnectionIdIssued):
            self._events.pop()
            self._handler.connection_id_issued(issued.connection_id)
        if quic.departed:
            self._release_departed()
        return datagrams

    def _drop_long_datagrams(self) -> None:
        """Drop the datagrams that fit no packet any more: aioquic would keep them, and those that follow, for ever."""
        self._quic.shrunk = False
        pending, longest = self._quic._datagrams_pending, self.max_datagram_payload
        fitting = [data for data in pending if len(data) <= longest]
        pending.clear()
        pending.extend(fitting)

    def _release_departed(self) -> None:
        if self.undelivered:
            # A stream that has left may still be among the events.
            return
        departed, self._quic.departed = self._quic.departed, []
        for stream_id in departed:
            if (stream := self._handler.streams.pop(stream_id, None)) is not None:
                stream.deliver_released()

    def has_work(self, now: float) -> bool:
        return self._quic.probe_at <= now or self._quic.has_work(now)

    def next_timeout(self) -> float | None:
        timer = self._quic.get_timer()
        return timer if timer is None or timer <= self._quic.probe_at else self._quic.probe_at

    def handle_timeout(self, now: float) -> None:
        timer = self._quic.get_timer()
        if timer is not None and now >= timer:
            self._quic.handle_timer(now)
            # The new path was not validated in time: the last one counts.
            self._note_path(now)
            self._note_end()

    def ping(self) -> None:
        self._pings += 1
        self._quic.send_ping(self._pings)

    def close(self, code: int, reason: str, *, application: bool = True) -> None:
        if self.termination is None:
            self._quic.close(code, None if application else QuicFrameType.CRYPTO, cut_reason(reason))
            self._note_end()

    def release(self) -> None:
        self._last_statistics = self.statistics()
        del self._handler
        self._quic.release()

    # -- streams -------------------------------------------------------------------------------------------

    def open_stream(self, *, unidirectional: bool) -> int | None:
        quic = self._quic
        stream_id = quic.get_next_available_stream_id(unidirectional)
        allowed = quic._remote_max_streams_uni if unidirectional else quic._remote_max_streams_bidi
        if stream_id // 4 >= allowed:
            return None
        quic.send_stream_data(stream_id, b"")
        return stream_id

    @property
    def bidi_left(self) -> int:
        quic = self._quic
        return quic._remote_max_streams_bidi - quic.get_next_available_stream_id() // 4

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        stream = self._quic._streams.get(stream_id)
        if stream is None:
            return
        if stream.sender._reset_error_code is None and stream.sender._buffer_fin is None:
            stream.sender.write(data, fin)
            self._quic.active[stream_id] = stream
        self._handler.wake(len(data) + 1)

    def stream_buffered(self, stream_id: int) -> int:
        stream = self._quic._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def stream_held_up(self, stream_id: int) -> bool:
        stream = self._quic._streams.get(stream_id)
        # While a flush is due, what is unsent has not had its chance.
        if stream is None or self._handler.flush_due or self.termination is not None:
            return False
        sender = stream.sender
        return sender._reset_error_code is None and sender._buffer_stop > sender.highest_offset

    def stream_room(self, stream_id: int) -> int:
        stream = self._quic._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return self.send_high
        sender = stream.sender
        return min(self.send_high - len(sender._buffer), stream.max_stream_data_remote - sender._buffer_stop)

    @property
    def send_held(self) -> int:
        return self._quic.buffered + self._quic.opened * _STREAM_BYTES

    @property
    def send_full(self) -> bool:
        return self._quic.buffered + self._quic.opened * _STREAM_BYTES >= self._full_at

    def stream_watch(self, stream_id: int) -> None:
        if self.send_full:
            self._waiting_for_all[stream_id] = None
        else:
            self._quic.report_room(stream_id, max(self.send_high // 2, 1))

    def stream_keep_prefix(self, stream_id: int, size: int) -> None:
        stream = self._quic._streams.get(stream_id)
        if stream is not None and isinstance(stream.sender, ResetAtSender):
            stream.sender.prefix, stream.sender.plain = size, not self._quic.takes_reset_at

    def stream_reset(self, stream_id: int, code: int) -> None:
        stream = self._quic._streams.get(stream_id)
        if stream is not None:
            if isinstance(stream.sender, ResetAtSender):
                stream.sender.give_up(code)
            self._quic.active[stream_id] = stream
            self._handler.wake()

    def stream_stop(self, stream_id: int, code: int) -> None:
        if self.termination is None:
            self._quic.refuse(stream_id, code)
            self._handler.wake()

    def stream_consumed(self, stream_id: int, count: int) -> None:
        if self.termination is None and self._quic.return_credit(stream_id, count):
            self._handler.wake()

    def stream_done(self, stream_id: int) -> None:
        if self.termination is not None:
            return
        credit = self._quic.stream_read_whole(stream_id)
        if credit is Credit.NOW:
            self._handler.wake()
        elif credit is Credit.SOON:
            self._handler.wake_later()

    def send_state(self) -> tuple[int, int, int, bool]:
        quic, loss = self._quic, self._quic._loss
        congestion_window, unsent = loss.congestion_window, quic.unsent
        if quic._datagrams_pending:
            unsent += sum(map(len, quic._datagrams_pending))
        full = quic.buffered + quic.opened * _STREAM_BYTES >= self._full_at
        return congestion_window, max(congestion_window - loss.bytes_in_flight, 0), unsent, full

    # -- datagrams -----------------------------------------------------------------------------------------

    @property
    def peer_datagram_limit(self) -> int | None:
        return self._quic._remote_max_datagram_frame_size

    @property
    def max_datagram_payload(self) -> int:
        peer_limit = self._quic._remote_max_datagram_frame_size
        if not peer_limit:
            return 0
        # aioquic keeps a datagram that fits no packet at the head of its queue for ever.
        room = self._quic._max_datagram_size - _SHORT_HEADER_BYTES - len(self._quic._peer_cid.cid)
        return max(0, min(room, peer_limit) - _DATAGRAM_HEADER_BYTES)

    def send_datagram(self, data: bytes) -> bool:
        pending = self._quic._datagrams_pending
        full = len(pending) >= self._max_datagrams
        if full:
            pending.popleft()
        pending.append(data)
        return not full

    # -- numbers -------------------------------------------------------------------------------------------

    def statistics(self) -> TransportStatistics:
        if self._last_statistics is not None:
            return self._last_statistics
        loss = self._quic._loss
        return TransportStatistics(
            rtt=loss._rtt_smoothed, congestion_window=loss.congestion_window, bytes_in_flight=loss.bytes_in_flight
        )
