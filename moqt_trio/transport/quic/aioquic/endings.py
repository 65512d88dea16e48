"""The end of aioquic's connection: how it is said, stateless reset, and what is left of the connection.

1.  Stateless reset (RFC 9000, section 10.3). aioquic 1.7 keeps the peer's token without looking at it. Here it ends the
    connection. Test: `test_stateless_reset`.
2.  ALPN. With aioquic a client learns only that no protocol is shared. `close` adds what this server speaks.
3.  Which side closed (`closed_by_peer`). Test: `test_the_end_is_known_at_once`.
4.  A connection of aioquic is one ring of references. `release` parts them, so that it is freed at its end and not by
    the garbage collector. Test: `test_a_released_connection_is_freed_at_once`.
"""

from __future__ import annotations

from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from ..stateless_reset import SHORTEST_RESET
from .connection_ids import OwnIdsConnection

_LONG_HEADER = 0x80
_NO_APPLICATION_PROTOCOL = QuicErrorCode.CRYPTO_ERROR + 120
"""The TLS alert of that name (RFC 7301, section 3.2), as QUIC carries it (RFC 9001, section 4.8)."""
_KEPT = ("_configuration", "_remote_max_datagram_frame_size", "_remote_max_idle_timeout", "_state")
"""What a connection that has ended is still asked."""
_REASON = "the server no longer knows the connection (stateless reset)"


def may_be_reset(data: bytes) -> bool:
    """Return whether a datagram has the length and the header of a reset; its token is the caller's to compare.

    Only the token of the id that this side sends to counts: an id that was not used yet, or that was retired, is in no
    packet that the peer could fail to read (RFC 9000, section 10.3.1). A packet that can be read has the token by
    chance once in 2**128.
    """
    return len(data) >= SHORTEST_RESET and not data[0] & _LONG_HEADER


class EndingConnection(OwnIdsConnection):
    """A connection with the fixes of this file.

    Attributes:
        closed_by_peer: True when the peer closed the connection.
        spoken: What this side offers by ALPN.
    """

    closed_by_peer = False
    spoken: tuple[str, ...] = ()

    def end_by_reset(self, now: float) -> None:
        """End the connection without a packet: the peer has no keys for it."""
        if self._close_event is None:
            self._close_event = ConnectionTerminated(QuicErrorCode.NO_ERROR, QuicFrameType.PADDING, _REASON)
            self._close_begin(is_initiator=False, now=now)

    def close(
        self, error_code: int = QuicErrorCode.NO_ERROR, frame_type: int | None = None, reason_phrase: str = ""
    ) -> None:
        if error_code == _NO_APPLICATION_PROTOCOL and frame_type is not None and not self._is_client:
            # ALPN says only that it failed, and not what this side would have taken.
            reason_phrase = f"this server speaks {', '.join(self.spoken)}"
        super().close(error_code, frame_type, reason_phrase)

    def _close_begin(self, is_initiator: bool, now: float) -> None:
        self.closed_by_peer = not is_initiator
        super()._close_begin(is_initiator, now)

    def release(self) -> None:
        """Drop everything but `_KEPT`; see `Engine.release`. The methods that take a stream find none."""
        for space in self._loss.spaces:
            # A packet with an acknowledgement knows its space.
            space.sent_packets.clear()
        kept = {name: value for name, value in vars(self).items() if name in _KEPT}
        vars(self).clear()
        vars(self).update(kept, _streams={})
