"""A WebTransport session as a `Connection`: several may share one QUIC connection.

Owns the session's life on its CONNECT stream, its streams and its datagrams.

Spec: draft-ietf-webtrans-http3, sections 4 to 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ... import varint
from ...errors import Malformed, MoqtError, SessionClosed, fresh
from ...url import printable_url
from ..code_mapping import HTTP3_CODES, stream_code_from_http3
from ..connection import Connection
from ..http3.constants import BIDI_WEBTRANSPORT, UNI_WEBTRANSPORT, H3Error
from ..http3.fields import text
from ..stream import BidiStream
from .capsule import CapsuleReader, CloseSession, DrainSession, encode_close, encode_drain

if TYPE_CHECKING:
    from ...limits import Limits
    from ..connection import TransportStatistics
    from ..http3.demux import Demux
    from ..http3.exchange import Exchange
    from ..http3.fields import Headers
    from ..interface import AnyStream
    from ..receive_stream import ReceiveStream
    from ..send_stream import SendStream

_FIRST_SWEEP = 64
"""Streams of a session at which those that have ended are first removed: few enough to keep, and many enough that a
sweep is rare."""

_KEPT = 1
"""Bytes after a stream's prefix that arrive with it even if the stream is reset. webtransport-go 0.13 drops a stream
when it learns of the reset along with the last byte of the prefix. `test_early_resets` in
`tests/interop/test_webtransport_go.py` fails without it."""


class WebTransportSession(Connection):
    """One session.

    Made by `WebTransportRequest.accept` on a server and by `open_webtransport` on a client. Its streams are the QUIC
    connection's own streams after their prefix, so that using them costs nothing extra; error codes are mapped into
    HTTP/3's range both ways. When the session ends every stream of it is reset, and its handler called.

    Attributes:
        session_id: The id of the CONNECT stream.
        origin: The `origin` field of the request, where there was one.
    """

    kind: Literal["quic", "webtransport", "memory"] = "webtransport"

    def __init__(self, demux: Demux, exchange: Exchange, request: Headers, limits: Limits) -> None:
        super().__init__(is_client=demux.connection.is_client, limits=limits)
        self._demux = demux
        self._connection = demux.connection
        self._exchange = exchange
        self.session_id = exchange.stream_id
        self.peer = self._connection.peer
        self.client_certificate = self._connection.client_certificate
        self.path = text(request, b":path")
        self.authority = text(request, b":authority")
        self.origin = text(request, b"origin")
        self.established = False
        prefix = varint.encode(self.session_id)
        self._bidi_prefix = varint.encode(BIDI_WEBTRANSPORT) + prefix
        self._uni_prefix = varint.encode(UNI_WEBTRANSPORT) + prefix
        self._datagram_prefix = varint.encode(self.session_id // 4)
        self._capsules = CapsuleReader()
        self._sweep_at = _FIRST_SWEEP
        self._close_acknowledged = trio.Event()
        self._close_received = False
        self._to_cancel: list[AnyStream] = []
        exchange.when_acknowledged = self._on_close_acknowledged
        exchange.delays_goaway = True

    def __repr__(self) -> str:
        state = "closed" if self._closed is not None else "open" if self.established else "requested"
        path = printable_url(self.path or "")
        return f"<WebTransportSession {self.session_id} {path!r} {state} protocol={self.protocol}>"

    # -- from the demux ------------------------------------------------------------------------------------

    def establish(self, protocol: str | None) -> None:
        """Open the session for use; what arrived early is delivered."""
        self.protocol = protocol
        self.established = True
        streams, datagrams = self._demux.early.take(self.session_id)
        for stream in streams:
            self.deliver_stream(stream)
        for datagram in datagrams:
            self.deliver_datagram(datagram)
        if self._demux.http3.goaway_received:
            self.deliver_draining()

    def deliver_stream(self, stream: ReceiveStream) -> None:
        """Called with each stream of the peer, its prefix read, without a handler."""
        self._adopt(stream)
        if isinstance(stream, BidiStream):
            self._announce_bidi(stream)
        else:
            self._announce_uni(stream)

    def deliver_datagram(self, data: bytes) -> None:
        """Called with each datagram, without its quarter stream id."""
        self._deliver_datagram(data)

    def deliver_streams_available(self) -> None:
        """Called when the peer allows more streams."""
        self._deliver_streams_available()

    def deliver_draining(self) -> None:
        """Called when the peer asks this side to leave, by a capsule or by HTTP/3's GOAWAY."""
        self._deliver_draining()

    def deliver_send_room(self) -> None:
        """Called when the connection takes more; see `ConnectionHandler.send_room`."""
        self._deliver_send_room()

    def deliver_lost(self, error: MoqtError) -> None:
        """Called when the connection was lost."""
        self._end(self._of_connection(error))
        self._on_close_acknowledged()

    # -- from the CONNECT stream ---------------------------------------------------------------------------

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        """Never called: the request and its answer came before there was a session."""

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        exchange.consumed(len(data))
        if self._close_received and data:
            exchange.abort(H3Error.MESSAGE_ERROR)
            return
        if self._closed is None:
            try:
                for capsule in self._capsules.receive_untrusted(data):
                    self._take(capsule)
            except Malformed as error:
                self._fail(error)
                return
        if fin:
            if self._closed is None and not self._capsules.between_capsules:
                self._fail(Malformed("the CONNECT stream ended within a capsule", code=H3Error.MESSAGE_ERROR))
            else:
                self._end_by_peer(0, "")

    def _take(self, capsule: CloseSession | DrainSession) -> None:
        if isinstance(capsule, DrainSession):
            self.deliver_draining()
        elif self._closed is None:
            self._close_received = True
            self._end_by_peer(self.session_codes.from_wire(capsule.code), capsule.reason)

    def _fail(self, error: Malformed) -> None:
        self._exchange.abort(error.code)
        self._end(SessionClosed(local_code=error.code, reason=str(error)))
        self._on_close_acknowledged()

    def _end_by_peer(self, code: int | None, reason: str) -> None:
        if self._closed is None:
            if self.established:
                self._exchange.finish()
            else:
                self._exchange.abort(H3Error.REQUEST_CANCELLED)
            self._end(SessionClosed(remote_code=code, reason=reason, by_peer=True))
        self._on_close_acknowledged()

    def headers_too_large(self, exchange: Exchange) -> None:
        self._fail(Malformed("trailers too large", code=H3Error.EXCESSIVE_LOAD))

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        if error is not None:
            self.deliver_lost(error)
        else:
            exchange.abort(H3Error.REQUEST_CANCELLED)
            self._end_by_peer(None, "the CONNECT stream was reset")

    def _end(self, error: MoqtError) -> None:
        if self._closed is not None:
            return
        self._demux.session_ended(self)
        if self._connection.closed is None:
            self._to_cancel = list(self.streams.values())
            for stream in self._to_cancel:
                stream.deliver_session_lost(error)
        self._deliver_lost(error)

    def _on_close_acknowledged(self) -> None:
        # Not before: a reset that overtakes the capsule would look like the failure of one stream.
        self._close_acknowledged.set()
        streams, self._to_cancel = self._to_cancel, []
        if self._connection.closed is None:
            for stream in streams:
                stream.cancel(H3Error.WEBTRANSPORT_SESSION_GONE)

    # -- streams and datagrams -----------------------------------------------------------------------------

    def _adopt(self, stream: AnyStream) -> None:
        stream.codes = HTTP3_CODES
        if len(self.streams) >= self._sweep_at:
            # Streams do not report that they ended; sweeping at twice what was left costs a constant each.
            self.streams = {k: s for k, s in self.streams.items() if not s.ended}
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self.streams))
        self.streams[stream.stream_id] = stream

    @property
    def bidi_left(self) -> int:
        return self._connection.bidi_left

    def _open_bidi(self) -> BidiStream:
        stream = self._connection.open_bidi_nowait()
        self._adopt(stream)
        stream.write(self._bidi_prefix)
        stream.keep_prefix(len(self._bidi_prefix) + _KEPT)
        return stream

    def _open_uni(self) -> SendStream:
        stream = self._connection.open_uni_nowait()
        self._adopt(stream)
        stream.write(self._uni_prefix)
        stream.keep_prefix(len(self._uni_prefix) + _KEPT)
        return stream

    @property
    def send_allowance(self) -> int:
        return self._demux.connection.send_allowance

    @property
    def crowded(self) -> bool:
        return self._demux.connection.crowded

    def flush(self) -> None:
        self._demux.connection.flush()

    @property
    def max_datagram_size(self) -> int:
        return max(0, self._connection.max_datagram_size - len(self._datagram_prefix)) if self._demux.datagrams else 0

    def send_datagram(self, data: bytes) -> None:
        if self._closed is not None:
            raise fresh(self._closed)
        if len(data) > self.max_datagram_size:
            raise ValueError(f"a datagram has at most {self.max_datagram_size} bytes here, not {len(data)}")
        self._connection.send_datagram(self._datagram_prefix + data)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, code: int = 0, reason: str = "") -> None:
        if self._closed is not None:
            return
        if self.established:
            self._exchange.send_data(encode_close(self.session_codes.to_wire(code), reason))
            self._exchange.finish()
        else:
            self._close_acknowledged.set()
            self._exchange.abort(H3Error.REQUEST_REJECTED)
        self._end(SessionClosed(local_code=code, reason=reason))

    def drain(self) -> None:
        """Ask the peer to leave. Nothing else changes; GOAWAY on the connection no longer waits for this session.

        While a browser has the session, GOAWAY waits all the same: Chromium gives a page none of the streams that the
        server opens after GOAWAY, neither with what is on its way nor with a session's own GOAWAY.
        """
        if self.established and self._closed is None:
            self._exchange.send_data(encode_drain())
            self._exchange.delays_goaway = self.origin is not None
            self._demux.send_pending_goaway()

    @property
    def end_acknowledged(self) -> bool:
        """True once the session has ended and nothing is left to wait for."""
        return self._close_acknowledged.is_set()

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Close, and wait until the peer has acknowledged that.

        Limits: close_timeout.
        """
        self.close(code, reason)
        try:
            with trio.move_on_after(self.limits.close_timeout):
                await self._close_acknowledged.wait()
        finally:
            if not self._close_acknowledged.is_set():
                self._exchange.stop(H3Error.NO_ERROR)
                self._on_close_acknowledged()

    def statistics(self) -> TransportStatistics:
        shared = self._connection.statistics()
        return attrs.evolve(shared, datagrams_lost=shared.datagrams_lost + self._datagrams_lost)

    def _of_connection(self, error: MoqtError) -> MoqtError:
        """Return the session's end for the connection's: a peer may put a session code into HTTP/3's range."""
        if not isinstance(error, SessionClosed) or not error.by_peer or error.remote_code is None:
            return error
        code = 0 if error.remote_code in (0, H3Error.NO_ERROR) else stream_code_from_http3(error.remote_code)
        reason = error.reason or f"the connection was closed with code {error.remote_code:#x}"
        if code is not None:
            code = self.session_codes.from_wire(code)
        return SessionClosed(remote_code=code, reason=reason, by_peer=True)
