"""What aioquic's connection keeps without need: the state of its handshake, and connection ids by the dozen.

Python's garbage collector looks at each of these objects in every full collection, and they are half of an idle
connection.

1.  The handshake. aioquic 1.7 keeps the TLS context, and for each encryption level keys, a stream, a packet number
    space and buffers, until the connection ends. `forget_handshake` drops what none of its packets needs any more
    (RFC 9001, section 4.9). Packets of those levels meet parts without keys, which all connections share, and are
    dropped as before. A server expects no further message of TLS, so that one ends the connection at its first byte
    (RFC 8446, section 4.6; RFC 9001, sections 4.4 and 6). A client still takes session tickets.
2.  Connection ids. aioquic has eight in each direction. Here there are `CONNECTION_IDS`.
3.  Halves of streams. aioquic makes both for a unidirectional stream. Here all share the one that they do not have; see
    `_StreamTable` in `patched.py`.

Tests: `tests/transport/test_forgotten_handshake.py`, which fails when the names of aioquic that are used move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aioquic.quic.connection import QuicConnection, QuicConnectionError
from aioquic.quic.crypto import CryptoPair, NoCallback
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import AlertDescription, Epoch

if TYPE_CHECKING:
    from typing import Any

    from aioquic._buffer import Buffer
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicReceiveContext

CONNECTION_IDS = 4
"""Ids in each direction: the one in use, and some for paths that are tried (RFC 9000, section 5.1.1)."""

_HANDLERS = "_QuicConnection__frame_handlers"
_PAST: Final = (Epoch.INITIAL, Epoch.ZERO_RTT, Epoch.HANDSHAKE)

_NO_KEYS = CryptoPair()
_NO_SPACE = QuicPacketSpace()
_NO_SPACE.discarded = True
_NO_STREAM = QuicStream()
_PAST_INITIAL: dict[int, CryptoPair] = dict.fromkeys(
    (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2), _NO_KEYS
)
_PAST_STREAMS: dict[Epoch, QuicStream] = {
    epoch: _NO_STREAM for epoch in (Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ONE_RTT)
}
"""The streams of a server's connection. Nothing is written on them, and no frame reaches them."""
_NO_BUFFERS: dict[Epoch, Buffer] = {}


class BriefConnection(QuicConnection):
    """A connection with the fixes of this file.

    Attributes:
        handshake_kept: True until `forget_handshake`.
    """

    handshake_kept = True

    def __init__(self, *, configuration: QuicConfiguration, **others: Any) -> None:
        super().__init__(configuration=configuration, **others)
        self._local_active_connection_id_limit = CONNECTION_IDS

    def _replenish_connection_ids(self) -> None:
        self._remote_active_connection_id_limit = min(self._remote_active_connection_id_limit, CONNECTION_IDS)
        super()._replenish_connection_ids()

    def forget_handshake(self) -> None:
        """Drop what only the handshake needed; call it once the handshake is confirmed, and between two packets."""
        self.handshake_kept = False
        keys = self._cryptos[Epoch.ONE_RTT]
        for direction in (keys.recv, keys.send):
            # They report to aioquic's trace, which is never on.
            direction._setup_cb = direction._teardown_cb = NoCallback
        self._cryptos.update(dict.fromkeys(_PAST, _NO_KEYS))
        self._cryptos_initial = _PAST_INITIAL
        self._spaces[Epoch.INITIAL] = self._spaces[Epoch.HANDSHAKE] = _NO_SPACE
        self._loss.spaces = [self._spaces[Epoch.ONE_RTT]]
        self._remote_version_information = None
        # The handlers of frames that the handshake brought are made again if another one comes.
        getattr(self, _HANDLERS).clear()
        if self._is_client:
            self._crypto_streams[Epoch.INITIAL] = self._crypto_streams[Epoch.HANDSHAKE] = _NO_STREAM
        else:
            self._crypto_streams = _PAST_STREAMS
            self._crypto_buffers = _NO_BUFFERS
            del self.tls

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        if self._crypto_streams is _PAST_STREAMS:
            code = QuicErrorCode.CRYPTO_ERROR + AlertDescription.unexpected_message
            raise QuicConnectionError(code, frame_type, "no message of TLS follows the handshake")
        super()._handle_crypto_frame(context, frame_type, buf)
