"""The client's side: opens a WebTransport session on an HTTP/3 connection.

Spec: RFC 9220; draft-ietf-webtrans-http3, sections 3.1 to 3.3.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ...errors import HandshakeFailed, MoqtError, Rejected, SessionClosed, VersionUnsupported, printable
from ..http3.constants import CONNECT_PROTOCOLS, NEWEST_WEBTRANSPORT_SETTING, WEBTRANSPORT_SETTINGS, H3Error
from ..http3.demux import Demux
from ..http3.exchange import Exchange
from ..http3.fields import field
from .session import WebTransportSession
from .subprotocols import AVAILABLE_PROTOCOLS, chosen_protocol_untrusted, encode_protocols

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ...limits import Limits
    from ..connection import Connection
    from ..http3.fields import Headers
    from ..stream import BidiStream

_MAX_EXPLANATION = 256
"""Bytes of a refusal's body that are read for `Rejected`: a line of text, which is all that a log has room for."""


@asynccontextmanager
async def open_webtransport(
    connection: Connection,
    authority: str,
    path: str,
    protocols: Sequence[str],
    *,
    origin: str | None = None,
    limits: Limits,
) -> AsyncIterator[WebTransportSession]:
    """Open a session and yield it; on exit the session closes, and the connection stays open.

    Several sessions may share a connection, together or one after another.

    Args:
        connection: A connection whose handshake is complete. It has no handler, or that of an earlier session.
        authority: The host, and the port where it is not 443.
        path: The path and query, beginning with `/`.
        protocols: The subprotocols to offer, best first. May be empty.
        origin: The `origin` field, for servers that check it.
        limits: The bounds.

    Raises:
        HandshakeFailed: The server speaks no WebTransport, or the connection was lost.
        Rejected: The server answered with another status than 200.
        VersionUnsupported: The server chose a subprotocol that was not offered.

    Limits: max_header_bytes, max_early_streams, max_early_bytes, close_timeout.
    """
    session = await _request_session(connection, authority, path, protocols, origin, limits)
    try:
        yield session
    finally:
        # A cancellation of this wait would take the place of the exception that is on its way, and leave that one and
        # its frames to the garbage collector. A session that ran here has waited for its end itself.
        if not session.end_acknowledged:
            await session.aclose()


async def _request_session(
    connection: Connection, authority: str, path: str, protocols: Sequence[str], origin: str | None, limits: Limits
) -> WebTransportSession:
    try:
        demux = _demux(connection, limits)
    except trio.WouldBlock as error:
        raise HandshakeFailed("the server allows too few streams for HTTP/3") from error
    try:
        settings = await demux.wait_settings()
        if not any(settings.get(setting) for setting in WEBTRANSPORT_SETTINGS):
            raise HandshakeFailed("the server speaks HTTP/3, but no WebTransport")
        if demux.http3.goaway_received:
            raise HandshakeFailed("the server takes no more sessions on this connection")
        if demux.sessions and not demux.shared:
            raise HandshakeFailed("the server allows one session on a connection, and there is one")
        stream = await connection.open_bidi()
    except SessionClosed as error:
        raise HandshakeFailed(f"the connection was lost: {error}") from error
    old = any(settings.get(setting) for setting in WEBTRANSPORT_SETTINGS if setting != NEWEST_WEBTRANSPORT_SETTING)
    request: Headers = [
        (b":method", b"CONNECT"),
        (b":scheme", b"https"),
        (b":authority", authority.encode("ascii")),
        (b":path", path.encode("ascii")),
        (b":protocol", CONNECT_PROTOCOLS[not old].encode("ascii")),
        (b"sec-webtransport-http3-draft02", b"1"),
    ]
    if origin is not None:
        request.append((b"origin", origin.encode("ascii")))
    if protocols:
        request.append((AVAILABLE_PROTOCOLS, encode_protocols(protocols)))
    return await _SessionRequest(demux, stream, request, tuple(protocols), limits).wait()


def _demux(connection: Connection, limits: Limits) -> Demux:
    """Return the demultiplexer of a connection, which all its sessions share."""
    if isinstance(connection.handler, Demux):
        return connection.handler
    demux = Demux(connection, limits, None)
    demux.attach()
    return demux


class _SessionRequest:
    """Owns the CONNECT exchange until it is answered."""

    def __init__(
        self, demux: Demux, stream: BidiStream, request: Headers, protocols: tuple[str, ...], limits: Limits
    ) -> None:
        self._demux = demux
        self._request = request
        self._protocols = protocols
        self._limits = limits
        self._answered = trio.Event()
        self._outcome: WebTransportSession | MoqtError | None = None
        self._status = 0
        self._explanation = b""
        self._explained = trio.Event()
        self._exchange = Exchange(demux.http3, stream, self)
        self._exchange.send_headers(request)

    async def wait(self) -> WebTransportSession:
        """Wait for the answer. A cancellation cancels the request, too."""
        try:
            await self._answered.wait()
            if self._status:
                # The body may explain the status: it is waited for, and may be missing.
                with trio.move_on_after(self._limits.close_timeout):
                    await self._explained.wait()
        except trio.Cancelled:
            if isinstance(self._outcome, WebTransportSession):
                self._outcome.close()
            else:
                self._exchange.abort(H3Error.REQUEST_CANCELLED)
                self._demux.no_session(self._exchange.stream_id)
            raise
        if isinstance(self._outcome, WebTransportSession):
            return self._outcome
        if self._status:
            self._exchange.abort(H3Error.REQUEST_CANCELLED)
            raise Rejected(self._status, self._explanation.decode("utf-8", "backslashreplace"))
        assert self._outcome is not None
        raise self._outcome

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        status = int(field(headers, b":status") or 0)
        if status < 200:
            return
        if status >= 300:
            self._status = status
            self._demux.no_session(exchange.stream_id)
            self._answer(Rejected(status))
            if fin:
                self._explained.set()
            return
        chosen = chosen_protocol_untrusted(headers)
        if chosen is not None and chosen not in self._protocols:
            message = f"the server chose {printable(chosen)!r}, which was not offered"
            self._fail(VersionUnsupported(message, offered=self._protocols), H3Error.WEBTRANSPORT_ALPN_ERROR)
            return
        session = WebTransportSession(self._demux, exchange, self._request, self._limits)
        exchange.owner = session
        self._demux.sessions[session.session_id] = session
        session.establish(chosen)
        self._answer(session)
        if fin:
            session.body_received(exchange, b"", True)

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        exchange.consumed(len(data))
        self._explanation += data[: _MAX_EXPLANATION - len(self._explanation)]
        if fin or len(self._explanation) >= _MAX_EXPLANATION:
            self._explained.set()

    def headers_too_large(self, exchange: Exchange) -> None:
        self._fail(HandshakeFailed("the server's answer is too large"))

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        reason = "the server reset the request" if error is None else f"the connection was lost: {error}"
        self._fail(HandshakeFailed(reason))

    def _fail(self, error: MoqtError, code: int = H3Error.REQUEST_CANCELLED) -> None:
        self._explained.set()
        self._answer(error)
        self._exchange.abort(code)
        self._demux.no_session(self._exchange.stream_id)

    def _answer(self, outcome: WebTransportSession | MoqtError) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._answered.set()
