"""The server's side of an HTTP/3 connection: requests for WebTransport sessions, and the ordinary requests beside them.

It owns the tasks of one connection, and leaves the decision about a session, and the answers to ordinary requests, to
its caller.

Spec: RFC 9114; RFC 9220; draft-ietf-webtrans-http3, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from ...codes import SessionCode
from ...errors import MoqtError, SessionClosed, fresh
from ...loggers import Logger
from ...tasks import consists_of
from ...timeouts import Timeout
from ..http3.constants import CONNECT_PROTOCOLS, H3Error
from ..http3.demux import Demux
from ..http3.fields import field
from .session import WebTransportSession
from .subprotocols import PROTOCOL, encode_protocol, offered_protocols_untrusted

if TYPE_CHECKING:
    from ...limits import Limits
    from ..connection import Connection
    from ..http3.exchange import Exchange
    from ..http3.fields import Headers

logger = Logger(__name__)


@attrs.define(eq=False)
class WebTransportRequest:
    """A client's request for a session. Answer it once, with `accept` or `reject`.

    Attributes:
        path: The requested path, without its query.
        query: What stands after `?`; "" when there is nothing.
        authority: The requested host and port.
        origin: The web page's origin; None when the client is no browser.
        headers: All fields, pseudo-fields first.
        protocols: The subprotocols that the client offers, best first.
        peer: The client's address and port.
        client_certificate: The client's verified certificate in DER; None when it showed none.
        answered: True once it was accepted or rejected.
    """

    path: str
    query: str = attrs.field(repr=False)
    authority: str
    origin: str | None
    headers: Headers = attrs.field(repr=False)
    protocols: tuple[str, ...]
    peer: tuple[str, int] | None
    client_certificate: bytes | None = attrs.field(repr=False)
    _session: WebTransportSession = attrs.field(alias="session", repr=False)
    _exchange: Exchange = attrs.field(alias="exchange", repr=False)
    answered: bool = attrs.field(default=False, init=False)

    def accept(self, protocol: str | None = None) -> WebTransportSession:
        """Open the session and return it.

        Args:
            protocol: The subprotocol, one of `protocols`; None answers without one.

        Raises:
            ValueError: The client did not offer this subprotocol.
            RuntimeError: The request was answered before.
            SessionClosed: The client cancelled the request, or the connection was lost.
        """
        if protocol is not None and protocol not in self.protocols:
            raise ValueError(f"the client did not offer {protocol!r}")
        self._answer()
        if self._session.closed is not None:
            raise fresh(self._session.closed)
        headers = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
        if protocol is not None:
            headers.append((PROTOCOL, encode_protocol(protocol)))
        self._exchange.send_headers(headers)
        self._session.establish(protocol)
        return self._session

    def reject(self, status: int, body: bytes = b"") -> None:
        """Refuse the session.

        Args:
            status: An HTTP status of 300 or above: 404 no such path, 403 not allowed, 421 not this host.
            body: A text that explains the status.

        Raises:
            ValueError: The status would mean success.
            RuntimeError: The request was answered before.
        """
        if not 300 <= status <= 599:
            raise ValueError(f"status {status} refuses nothing")
        self._answer()
        self._exchange.respond(status, body)
        self._session.close(reason=f"rejected with status {status}")

    def _answer(self) -> None:
        if self.answered:
            raise RuntimeError("the request was answered before")
        self.answered = True


OnSession: TypeAlias = Callable[[WebTransportRequest], Awaitable[None]]
"""Called for each WebTransport session that a client requests, in a task of its own."""

OnRequest: TypeAlias = "Callable[[Exchange, Headers, bool], Callable[[], Awaitable[None]] | None]"
"""Called for each ordinary request, with its headers and whether it has no body, by the task that reads the socket.

It becomes the exchange's owner at once, and returns what answers the request, to be run as a task; None when it has
answered.
"""


async def serve_http3(
    connection: Connection,
    on_session: OnSession,
    *,
    on_request: OnRequest | None = None,
    limits: Limits,
    drains: set[Callable[[], object]] | None = None,
) -> None:
    """Drive the server's side of one HTTP/3 connection until it closes.

    Every session and every request is a task of this call, and what fails in one ends that one. When the connection
    is over they are informed, and have `Limits.close_timeout` to end; then they are cancelled. Cancelling this call
    closes the connection.

    Args:
        connection: A connection whose handshake is complete, without a handler.
        on_session: Called for each WebTransport session that a client requests, in a task of its own. When it
            returns, the session closes. An exception closes it with INTERNAL_ERROR and is logged.
        on_request: Called for each ordinary request and each WebSocket; None answers requests with 404, WebSockets
            with 501.
        limits: The bounds.
        drains: Has, while the connection lasts, what drains it: the client's new requests are refused, and the
            connection closes when those before are answered and the sessions have ended. GOAWAY is sent once each
            session was drained or has ended, which the caller has to see to, and once no browser has one.

    Limits: max_sessions, max_header_bytes, max_early_streams, max_early_bytes, setup_timeout, unused_timeout,
        close_timeout.
    """
    try:
        async with trio.open_nursery() as nursery:
            requests = _Requests(on_session, on_request, nursery, limits)
            try:
                demux = Demux(connection, limits, requests)
            except trio.WouldBlock:
                connection.close(H3Error.GENERAL_PROTOCOL_ERROR, "HTTP/3 needs three unidirectional streams")
                return
            requests.demux = demux
            demux.attach(nursery.start_soon)

            def drain() -> None:
                nursery.start_soon(_drain, demux)

            if drains is not None:
                drains.add(drain)
            try:
                await _wait_closed_or_unused(demux, limits.unused_timeout)
            finally:
                # The nursery takes no more tasks once its last one has ended, which may be before this task goes on.
                requests.ended = True
                demux.detach()
                if drains is not None:
                    drains.discard(drain)
            nursery.cancel_scope.deadline = trio.current_time() + limits.close_timeout
    finally:
        connection.close(H3Error.NO_ERROR)


@trio.lowlevel.enable_ki_protection
async def _wait_closed_or_unused(demux: Demux, seconds: float) -> None:
    """Wait until the connection has ended, and end it when it has had no session and no request for so long."""
    connection = demux.connection
    unused = trio.CancelScope()
    timeout: Timeout | None = None

    def note(used: bool) -> None:
        nonlocal timeout
        connection.set_in_use(used)
        timeout = None if used else Timeout(seconds)
        unused.deadline = math.inf if timeout is None else timeout.deadline

    demux.when_used = note
    note(demux.in_use)
    while connection.closed is None:
        with unused:
            await connection.wait_closed()
        # A request that came while the time ran out is answered.
        if unused.cancelled_caught and timeout is not None and not timeout.renew():
            connection.close(H3Error.NO_ERROR, "neither a session nor a request")
        unused = trio.CancelScope(deadline=math.inf if timeout is None else timeout.deadline)


async def _drain(demux: Demux) -> None:
    demux.go_away()
    await demux.wait_settled()
    demux.connection.close(H3Error.NO_ERROR)


class _Requests:
    """Passes each request of a connection to its handler, and owns every exchange until then.

    Attributes:
        demux: The connection's.
        ended: True once requests are refused.
    """

    demux: Demux

    def __init__(
        self, on_session: OnSession, on_request: OnRequest | None, nursery: trio.Nursery, limits: Limits
    ) -> None:
        self._on_session = on_session
        self._on_request = on_request
        self._nursery = nursery
        self._limits = limits
        self.ended = False

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        if self.ended:
            exchange.abort(H3Error.REQUEST_REJECTED)
            return
        self.demux.requested(exchange)
        method, protocol = field(headers, b":method"), field(headers, b":protocol")
        if _two_hosts(headers):
            self.demux.no_session(exchange.stream_id)
            exchange.respond(421)
            return
        if method == b"CONNECT" and protocol is not None and protocol.decode("ascii", "replace") in CONNECT_PROTOCOLS:
            self._request_session(exchange, headers, fin)
            return
        # Streams of a session with this id may have arrived, or may follow: there will be no such session.
        self.demux.no_session(exchange.stream_id)
        if method == b"CONNECT" and protocol == b"websocket" and self._on_request is not None:
            self._start(self._on_request, exchange, headers, fin)
        elif method == b"CONNECT":
            exchange.respond(501)
        elif protocol is not None:
            exchange.respond(400)
        elif self._on_request is None:
            exchange.respond(404)
        else:
            self._start(self._on_request, exchange, headers, fin)

    def _start(self, on_request: OnRequest, exchange: Exchange, headers: Headers, fin: bool) -> None:
        answer = on_request(exchange, headers, fin)
        if answer is not None:
            self._nursery.start_soon(answer)

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        """Called with the body of a request that was answered from its headers."""
        exchange.consumed(len(data))

    def headers_too_large(self, exchange: Exchange) -> None:
        exchange.respond(431)

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        if error is None:
            exchange.abort(H3Error.REQUEST_CANCELLED)

    def _request_session(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
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
            client_certificate=session.client_certificate,
            session=session,
            exchange=exchange,
        )
        self._nursery.start_soon(self._serve_session, request, session)

    @trio.lowlevel.enable_ki_protection
    async def _serve_session(self, request: WebTransportRequest, session: WebTransportSession) -> None:
        if not await self._may_open(session):
            session.close()
            return
        try:
            await self._on_session(request)
        except Exception as error:
            if not consists_of(error, SessionClosed):
                logger.exception("the handler of %r failed", session)
            if not request.answered:
                request.reject(500)
            session.close(SessionCode.INTERNAL_ERROR)
        else:
            if not request.answered:
                logger.warning("the handler did not answer %r", session)
                request.reject(500)
            session.close()

    async def _may_open(self, session: WebTransportSession) -> bool:
        """Wait for the client's SETTINGS, without which no session is considered; return whether it may have one."""
        try:
            in_time = await Timeout(self._limits.setup_timeout).wait(self.demux.wait_settings)
        except MoqtError:
            return False
        earlier = any(session_id < session.session_id for session_id in self.demux.sessions)
        return in_time and (self.demux.shared or not earlier)


def _two_hosts(headers: Headers) -> bool:
    """Return whether a request names different hosts: one could pass the check, and the other be served."""
    named = {value.lower() for name, value in headers if name in (b":authority", b"host")}
    return len(named) > 1
