"""The server's side of an HTTP/3 connection: who asks for a session, and who is answered by the application.

Owns the tasks of one connection. Knows nothing of MoQ, and leaves the decision about a session to its caller.

Spec: RFC 9114; RFC 9220; draft-ietf-webtrans-http3, section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from ...codes import SessionCode
from ...errors import MoqtError, SessionClosed
from ...http.asgi import AsgiServer
from ..http3.constants import CONNECT_PROTOCOLS, H3Error
from ..http3.demux import Demux
from ..http3.fields import field
from .request import WebTransportRequest
from .session import WebTransportSession
from .subprotocols import offered_protocols_untrusted

if TYPE_CHECKING:
    from ...http.asgi import AsgiApplication, HttpConfig
    from ...limits import Limits
    from ..connection import Connection
    from ..http3.exchange import Exchange
    from ..http3.fields import Headers

__all__ = ["OnSession", "WebTransportRequest", "serve_http3"]

OnSession = Callable[[WebTransportRequest], Awaitable[None]]

_logger = logging.getLogger(__name__)


async def serve_http3(
    connection: Connection,
    on_session: OnSession,
    *,
    app: AsgiApplication | None,
    config: HttpConfig | None,
    limits: Limits,
    state: Mapping[str, Any] | None = None,
    draining: trio.Event | None = None,
) -> None:
    """Drives the server's side of one HTTP/3 connection until it closes.

    Every session and every request is a task of this call, and what fails in one ends that one. When the connection
    is over they hear of it and have `Limits.close_timeout` to end; then they are cancelled. Cancelling this call
    closes the connection.

    Args:
        connection: A connection whose handshake is complete, without a handler.
        on_session: Called for each WebTransport session that a client asks for, in a task of its own. When it
            returns, the session closes. An exception closes it with INTERNAL_ERROR and is logged.
        app: The ASGI application for ordinary requests; None answers each with 404.
        config: Hypercorn's settings for these; None takes the defaults.
        limits: The bounds.
        state: The lifespan state that each request's scope gets a copy of.
        draining: Once set, the client is told to send no more requests (GOAWAY), and the connection closes when those
            that it has sent are answered and its sessions are over.

    Limits: max_sessions, max_header_bytes, max_early_streams, max_early_bytes, setup_timeout, close_timeout.
    """
    try:
        async with trio.open_nursery() as nursery:
            asgi = None if app is None else AsgiServer(app, config, nursery, connection.peer, state)
            requests = _Requests(on_session, asgi, nursery, limits)
            try:
                demux = Demux(connection, limits, requests)
            except trio.WouldBlock:
                connection.close(H3Error.GENERAL_PROTOCOL_ERROR, "HTTP/3 needs three unidirectional streams")
                return
            requests.demux = demux
            demux.attach()
            async with trio.open_nursery() as watch:
                watch.start_soon(demux.expire_forever)
                if draining is not None:
                    watch.start_soon(_drain, demux, draining)
                await connection.wait_closed()
                watch.cancel_scope.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + limits.close_timeout
    finally:
        connection.close(H3Error.NO_ERROR)


async def _drain(demux: Demux, draining: trio.Event) -> None:
    await draining.wait()
    demux.go_away()
    await demux.wait_settled()
    demux.connection.close(H3Error.NO_ERROR)


class _Requests:
    """Takes each request of a connection to whom it is for; owns every exchange until then."""

    demux: Demux

    def __init__(self, on_session: OnSession, asgi: AsgiServer | None, nursery: trio.Nursery, limits: Limits) -> None:
        self._on_session = on_session
        self._asgi = asgi
        self._nursery = nursery
        self._limits = limits

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        method, protocol = field(headers, b":method"), field(headers, b":protocol")
        if _two_hosts(headers):
            self.demux.no_session(exchange.stream_id)
            exchange.respond(421)
            return
        if method == b"CONNECT" and protocol is not None and protocol.decode("ascii", "replace") in CONNECT_PROTOCOLS:
            self._ask(exchange, headers, fin)
            return
        # The id may be that of a session which a client believes to have: nobody will ever accept it.
        self.demux.no_session(exchange.stream_id)
        if method == b"CONNECT" and protocol == b"websocket" and self._asgi is not None:
            self._asgi.start(exchange, headers, fin, websocket=True)
        elif method == b"CONNECT":
            exchange.respond(501)
        elif protocol is not None:
            exchange.respond(400)
        elif self._asgi is None:
            exchange.respond(404)
        else:
            self._asgi.start(exchange, headers, fin)

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        """The body of a request that was answered from its headers."""
        exchange.consumed(len(data))

    def headers_too_large(self, exchange: Exchange) -> None:
        exchange.respond(431)

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        if error is None:
            exchange.abort(H3Error.REQUEST_CANCELLED)

    def _ask(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        target, scheme = field(headers, b":path"), field(headers, b":scheme")
        if fin or scheme != b"https" or target is None or not target.startswith(b"/") or not target.isascii():
            self.demux.no_session(exchange.stream_id)
            exchange.respond(400)
            return
        if len(self.demux.sessions) >= self._limits.max_sessions:
            self.demux.no_session(exchange.stream_id)
            exchange.respond(429)
            return
        session = WebTransportSession(self.demux, exchange, headers, self._limits)
        exchange.owner = session
        self.demux.sessions[session.session_id] = session
        path, _, query = target.decode("ascii").partition("?")
        request = WebTransportRequest(
            path=path,
            query=query,
            authority=session.authority or "",
            origin=session.origin,
            headers=headers,
            protocols=offered_protocols_untrusted(headers),
            peer=session.peer,
            session=session,
            exchange=exchange,
        )
        self._nursery.start_soon(self._serve_session, request, session)

    async def _serve_session(self, request: WebTransportRequest, session: WebTransportSession) -> None:
        if not await self._may_ask(session):
            session.close()
            return
        try:
            await self._on_session(request)
        except Exception as error:
            if not _only_closed(error):
                _logger.exception("the handler of %r failed", session)
            if not request.answered:
                request.reject(500)
            session.close(SessionCode.INTERNAL_ERROR)
        else:
            if not request.answered:
                _logger.warning("nobody answered %r", session)
                request.reject(500)
            session.close()

    async def _may_ask(self, session: WebTransportSession) -> bool:
        """Waits for the client's SETTINGS, without which no session is looked at, and says whether it may have one."""
        with trio.move_on_after(self._limits.setup_timeout) as waiting:
            try:
                await self.demux.wait_settings()
            except MoqtError:
                return False
        earlier = any(session_id < session.session_id for session_id in self.demux.sessions)
        return not waiting.cancelled_caught and (self.demux.shared or not earlier)


def _two_hosts(headers: Headers) -> bool:
    """Whether a request names different hosts: one of them would pass the policy, and the other be served."""
    named = {value.lower() for name, value in headers if name in (b":authority", b"host")}
    return len(named) > 1


def _only_closed(error: BaseException) -> bool:
    """Whether a handler failed of nothing but the end of its session."""
    if isinstance(error, BaseExceptionGroup):
        return all(_only_closed(inner) for inner in error.exceptions)
    return isinstance(error, SessionClosed)
