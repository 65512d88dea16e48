"""Stateless reset in aioquic's connection (RFC 9000, section 10.3): tokens from a key, and the end by the peer's.

aioquic 1.7 gives out random tokens, which nothing can repeat after a restart, and keeps the peer's without looking at
them. Test: `test_stateless_reset`.
"""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from ..stateless_reset import SHORTEST_RESET, reset_token

_LONG_HEADER = 0x80
_REASON = "the server no longer knows the connection (stateless reset)"


def may_be_reset(data: bytes) -> bool:
    """Return whether a datagram has the length and the header of a reset; its token is the caller's to compare.

    Only the token of the id that this side sends to counts: an id that was not used yet, or that was retired, is in no
    packet that the peer could fail to read (RFC 9000, section 10.3.1). A packet that can be read has the token by
    chance once in 2**128.
    """
    return len(data) >= SHORTEST_RESET and not data[0] & _LONG_HEADER


class ResettableConnection(QuicConnection):
    """A connection whose tokens come from a key, and that ends when its peer resets it."""

    _reset_key: bytes | None = None

    def use_reset_key(self, key: bytes) -> None:
        """Derive the tokens of a server's connection ids from a key; call it before the first packet."""
        self._reset_key = key
        self._derive_tokens()

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._derive_tokens()

    def _derive_tokens(self) -> None:
        if self._reset_key is not None:
            for connection_id in self._host_cids:
                connection_id.stateless_reset_token = reset_token(self._reset_key, connection_id.cid)

    def end_by_reset(self, now: float) -> None:
        """End the connection without a packet: the peer has no keys for it."""
        if self._close_event is None:
            self._close_event = ConnectionTerminated(QuicErrorCode.NO_ERROR, QuicFrameType.PADDING, _REASON)
            self._close_begin(is_initiator=False, now=now)
