"""What frames of the peer may cost: mistakes that aioquic 1.7 lets pass, and state that it keeps for nothing.

1.  Connection ids. aioquic replaces each id that the peer retires at once, also one that was never sent to it, so that
    one packet brings about as many as fit. Here such a retirement ends the connection (RFC 9000, section 19.16), and
    after `_ID_BURST` of them ids are replaced at `_IDS_PER_SECOND`. A token is derived when its id is made.
2.  Streams that are opened implicitly, by a frame for one with a higher id (RFC 9000, section 2.1). aioquic makes all
    of them: 132 bytes cost 2.6 MiB. Here each is made by its own first frame; ranges of ids stand for the others.

Tests: `tests/faults/quic/test_peer_frames.py`; `test_frames_of_the_peer` in `tests/transport/test_aioquic_contract.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.rangeset import RangeSet

from .endings import EndingConnection

if TYPE_CHECKING:
    from aioquic._buffer import Buffer
    from aioquic.quic.connection import QuicConnectionId
    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.stream import QuicStream

_ID_BURST = 64
"""Connection ids that a peer may retire at once: one for each of as many changes of its address."""
_IDS_PER_SECOND = 4
"""Those that it may retire in the long run. A peer changes its id when its path changes, or every few minutes."""


class FrugalConnection(EndingConnection):
    """A connection with the fixes of this file."""

    _highest_id_sent = 0
    _replacements = float(_ID_BURST)
    _replaced_at = 0.0
    _not_made: tuple[RangeSet, ...] = ()
    _early_credit: dict[int, int] | None = None

    # -- connection ids ------------------------------------------------------------------------------------

    def _handle_retire_connection_id_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() > self._highest_id_sent:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "a connection id that was not sent cannot be retired"
            )
        buf.seek(start)
        earned = (context.time - self._replaced_at) * _IDS_PER_SECOND
        self._replaced_at = context.time
        self._replacements = min(self._replacements + earned, _ID_BURST)
        super()._handle_retire_connection_id_frame(context, frame_type, buf)

    def _replenish_connection_ids(self) -> None:
        if self._replacements >= 1:
            made = self._host_cid_seq
            super()._replenish_connection_ids()
            if self._highest_id_sent:
                self._replacements -= self._host_cid_seq - made

    def _write_new_connection_id_frame(self, builder: QuicPacketBuilder, connection_id: QuicConnectionId) -> None:
        super()._write_new_connection_id_frame(builder, connection_id)
        # One that is thought lost counts as not sent for aioquic, and may have arrived.
        self._highest_id_sent = max(self._highest_id_sent, connection_id.sequence_number)

    # -- streams -------------------------------------------------------------------------------------------

    def stream_not_made(self, stream_id: int) -> None:
        """Called when a stream of the peer is open and has had no frame of its own."""
        self._leave_unmade(stream_id, stream_id // 4)
        self._streams_queue.pop()

    def _leave_unmade(self, stream_id: int, first: int) -> None:
        """Note that all streams of a kind from this number up to this id are open and are not made."""
        if not self._not_made:
            self._not_made = (RangeSet(), RangeSet())
        self._not_made[stream_id >> 1 & 1].add(first, stream_id // 4 + 1)
        # On this object alone, and for as long as there are any: both are called for every frame.
        self._get_or_create_stream = self._get_or_make_stream  # type: ignore[method-assign]
        self._stream_is_discarded = self._stream_was_discarded  # type: ignore[method-assign]

    def _is_not_made(self, stream_id: int) -> bool:
        return stream_id & 1 == self._is_client and stream_id // 4 in self._not_made[stream_id >> 1 & 1]

    def _get_or_make_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        if not self._is_not_made(stream_id):
            return super()._get_or_create_stream(frame_type, stream_id)
        limit, number = self._stream_limit(stream_id), stream_id // 4
        self._not_made[stream_id >> 1 & 1].subtract(number, number + 1)
        if not any(map(len, self._not_made)):
            del self._get_or_create_stream, self._stream_is_discarded
        # aioquic makes those from the first that was not used before.
        used, limit.used = limit.used, number
        try:
            stream = super()._get_or_create_stream(frame_type, stream_id)
        finally:
            limit.used = used
        if self._early_credit and (credit := self._early_credit.pop(stream_id, None)) is not None:
            stream.max_stream_data_remote = credit
        return stream

    def _stream_was_discarded(self, stream_id: int) -> bool:
        return super()._stream_is_discarded(stream_id) and not self._is_not_made(stream_id)

    def _opens_nothing_else(self, stream_id: int) -> bool:
        """Open a stream of the peer. Return False when it was made, or when aioquic is to refuse it."""
        limit, number = self._stream_limit(stream_id), stream_id // 4
        if stream_id & 1 != self._is_client or number >= limit.value:
            return False
        if number >= limit.used:
            self._leave_unmade(stream_id, limit.used)
            limit.used = number + 1
        return bool(self._not_made) and self._is_not_made(stream_id)

    def _handle_stream_data_blocked_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream_id, _ = buf.pull_uint_var(), buf.pull_uint_var()
        if not self._opens_nothing_else(stream_id):
            buf.seek(start)
            super()._handle_stream_data_blocked_frame(context, frame_type, buf)

    def _handle_max_stream_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream_id, credit = buf.pull_uint_var(), buf.pull_uint_var()
        if stream_id & 2 or not self._opens_nothing_else(stream_id):
            buf.seek(start)
            super()._handle_max_stream_data_frame(context, frame_type, buf)
            return
        if self._early_credit is None:
            self._early_credit = {}
        known = self._early_credit.get(stream_id, self._remote_max_stream_data_bidi_local)
        if credit > known:
            self._early_credit[stream_id] = credit
