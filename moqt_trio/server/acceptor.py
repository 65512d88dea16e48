"""The acceptor: takes each connection of a listener to its handler, and keeps the sessions that were accepted.

A raw QUIC connection is one session, an HTTP/3 connection carries any number of WebTransport sessions. Either way the
application gets a `SessionRequest`. Raw QUIC has negotiated the version by then, because the path may stand in the
peer's SETUP or handshake; over WebTransport the versions that negotiate within the session do so in `accept`.

Whose failure it is. What a handler raises is the application's failure, and is logged with its traceback, but for four
kinds. `SessionClosed` is the end of its session, and so is `GoingAway`. `StreamReset` and `NotFound` are, if the peer
ends the session within a second: a peer that leaves resets its streams first. `Unauthorized` is the application's
refusal. And by one exception `accept` says that the peer broke, refused or never finished the negotiation; it is
recognized by identity and not by type, because a handler may raise the same types from connections of its own. Each of
them may be wrapped in the groups of the handler's nurseries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..block import session_block
from ..certificates import client_certificate
from ..errors import (
    ConnectTimeout,
    GoingAway,
    RemoteProtocolError,
    SessionClosed,
    Unauthorized,
    VersionUnsupported,
    printable,
)
from ..loggers import Logger
from ..protocol.handshake import candidates, protocols
from ..session.run import (
    DEPARTURES,
    admit,
    close_without_setup,
    closed_by_block,
    drain_session,
    left_by_peer,
    requested_path,
    run_session,
    start_draining,
    waiting_for_departure,
)
from ..tasks import call_application, consists_of, leaves, open_unwrapping_nursery
from ..transport.webtransport.server import serve_http3
from ..url import canonical_path
from .routing import Router, SessionRequest

if TYPE_CHECKING:
    from ..http.asgi import AsgiApplication, HttpConfig
    from ..limits import Limits
    from ..session.session import Session
    from ..session.view import OriginView
    from ..transport.connection import Connection
    from ..transport.webtransport.server import OnRequest, WebTransportRequest
    from ..wire.dialect import Dialect
    from ..wire.messages import Setup
    from .admission import Admission

logger = Logger(__name__)

_ACCEPT = "async with request.accept() as session:"

_NO_SESSION = (VersionUnsupported, ConnectTimeout, RemoteProtocolError, SessionClosed)
"""The exceptions of a negotiation that the peer broke, refused, or did not finish."""


@attrs.frozen
class WebApplication:
    """What answers ordinary HTTP/3 requests.

    Attributes:
        app: The ASGI application.
        config: Hypercorn's settings, as HTTP/3 takes them.
        state: The lifespan state.
    """

    app: AsgiApplication
    config: HttpConfig
    state: dict[str, Any]

    def requests(self, connection: Connection) -> OnRequest:
        """Return what `serve_http3` calls for the requests of one connection."""
        # Hypercorn is loaded for an application only.
        from ..http.asgi import AsgiServer

        return AsgiServer(self.app, self.config, connection.peer, self.state, connection.local).start


class Acceptor:
    """Runs the handlers of a router for the connections of a listener.

    Args:
        router: Which handler serves which path.
        offered: The wire versions, best first.
        limits: The bounds of each session.
        admission: What a request has to fulfil before its handler sees it.
        setup: What the server says of itself.

    Attributes:
        router: As above.
        admission: As above.
        web: Answers ordinary HTTP/3 requests; None answers them with 404.
        sessions: The sessions that run now, in the order in which they were accepted.
        accepted: How many sessions were accepted so far.
        rejected: How many requests were refused so far.
        draining: Set once new sessions are refused.
    """

    def __init__(
        self, router: Router, offered: tuple[Dialect, ...], limits: Limits, admission: Admission, setup: Setup
    ) -> None:
        self.router = router
        self.web: WebApplication | None = None
        self.sessions: dict[Session, None] = {}
        self.accepted = 0
        self.rejected = 0
        self.draining = trio.Event()
        self._offered = offered
        self._limits = limits
        self.admission = admission
        self._setup = setup
        self._http3_connections = 0
        self._drains: set[Callable[[], object]] = set()
        self._ended = trio.Event()

    @property
    def alpns(self) -> tuple[str, ...]:
        """The protocols of connections that `handle` can serve, best first."""
        return (*protocols(self._offered, webtransport=False), "h3")

    # -- shutting down -------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Refuse new sessions, send GOAWAY to every client, and wait until all sessions have ended."""
        self.draining.set()
        for drain in list(self._drains):
            drain()
        async with open_unwrapping_nursery() as nursery:
            for session in self.sessions:
                nursery.start_soon(drain_session, session)
        while self.sessions or self._http3_connections:
            await self._ended.wait()

    def _notify_end(self) -> None:
        self._ended.set()
        self._ended = trio.Event()

    @contextmanager
    def _counted(self, session: Session) -> Iterator[None]:
        """Keep a session among those of the listener for as long as the block lasts."""
        self.accepted += 1
        self.sessions[session] = None
        if self.draining.is_set():
            # It was requested before the drain began, and accepted afterwards: the others were asked already.
            start_draining(session)
        try:
            yield
        finally:
            del self.sessions[session]
            self._notify_end()

    # -- one connection ------------------------------------------------------------------------------------

    async def handle(self, connection: Connection) -> None:
        """Serve one QUIC connection until it ends, or the one session on it."""
        if connection.protocol == "h3":
            await self._serve_http3(connection)
        else:
            await self._serve_quic(connection)

    async def _serve_http3(self, connection: Connection) -> None:
        late = self.draining.is_set()
        web = self.web
        self._http3_connections += not late
        try:
            await serve_http3(
                connection,
                partial(self._serve_webtransport, connection.local),
                on_request=None if web is None else web.requests(connection),
                limits=self._limits,
                # A connection that begins during the drain: its sessions are refused one by one, with a status.
                drains=None if late else self._drains,
            )
        finally:
            self._http3_connections -= not late
            self._notify_end()

    async def _serve_quic(self, connection: Connection) -> None:
        # Until the peer's SETUP or handshake has arrived, where the version has one.
        connection.set_in_use(False)
        session = None
        try:
            async with run_session(
                connection, self._offered, limits=self._limits, setup=self._setup, admitted=False
            ) as session:
                await self._serve_session(connection, session)
        except _NO_SESSION as error:
            if session is not None:
                raise
            _log_no_session(connection, error)

    async def _serve_session(self, connection: Connection, session: Session) -> None:
        """Serve the session of a raw QUIC connection."""
        await close_without_setup(session)
        if session.closed is not None:
            _log_no_session(connection, session.closed)
            return
        connection.set_in_use(True)
        path, _, query = (requested_path(session) or "").partition("?")
        accepted: list[Session] = []

        @session_block(_ACCEPT)
        async def accept(view: OriginView | None) -> AsyncIterator[Session]:
            accepted.append(session)
            with self._counted(session):
                async with closed_by_block(session), waiting_for_departure(session):
                    await admit(session, view)
                    yield session

        await self._dispatch(
            SessionRequest(
                path=canonical_path(path or self.router.default or "/"),
                query=query,
                authority=connection.authority,
                origin=None,
                transport="quic",
                version=session.version,
                peer=connection.peer,
                local=connection.local,
                protocol=connection.protocol,
                accept=accept,
                reject=partial(self._reject, connection.close),
                tokens=session.peer_tokens,
                role=session.peer_role,
                certificate=client_certificate(connection.client_certificate),
            ),
            accepted,
        )

    async def _serve_webtransport(self, local: tuple[str, int] | None, request: WebTransportRequest) -> None:
        names = protocols(self._offered, webtransport=True)
        chosen = next((name for name in names if name in request.protocols), None)
        possible = candidates(self._offered, chosen, webtransport=True)
        if not possible or (chosen is None and request.protocols):
            logger.info("refused a WebTransport client: no version shared with %s", printable(str(request.protocols)))
            self.rejected += 1
            listed = ", ".join(dialect.name for dialect in self._offered)
            request.reject(HTTPStatus.NOT_ACCEPTABLE, b"this server speaks " + listed.encode())
            return
        accepted: list[Session] = []
        failed: list[Exception] = []

        @session_block(_ACCEPT)
        async def accept(view: OriginView | None) -> AsyncIterator[Session]:
            connection = request.accept(chosen)
            session = None
            try:
                async with run_session(
                    connection, self._offered, limits=self._limits, setup=self._setup, view=view
                ) as session:
                    with self._counted(session):
                        accepted.append(session)
                        async with waiting_for_departure(session):
                            yield session
            except _NO_SESSION as error:
                if session is None:
                    _log_no_session(connection, error)
                    failed.append(error)
                raise

        await self._dispatch(
            SessionRequest(
                path=canonical_path(request.path),
                query=request.query,
                authority=request.authority,
                origin=request.origin,
                transport="webtransport",
                # Without a subprotocol, or with one of several versions, the handshake on the session decides.
                version=possible[0].name,
                peer=request.peer,
                local=local,
                protocol=chosen,
                accept=accept,
                reject=partial(self._reject, lambda status, reason: request.reject(status, reason.encode())),
                certificate=client_certificate(request.client_certificate),
            ),
            accepted,
            failed,
        )

    def _reject(self, reject: Callable[[int, str], None], status: int, reason: str) -> None:
        self.rejected += 1
        reject(status, reason)

    # -- one request ---------------------------------------------------------------------------------------

    async def _dispatch(
        self, request: SessionRequest, accepted: list[Session], failed: list[Exception] | None = None
    ) -> None:
        """Run the handler of a request. Its failure ends this session and no other. The end is one line in the log.

        Args:
            request: The request.
            accepted: Where `accept` leaves its session.
            failed: Where `accept` leaves the exception of a negotiation that failed.
        """
        if self.draining.is_set():
            await request.reject(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        status = self.admission.refusal(request.authority, request.origin)
        if status is not None:
            asked, page = printable(str(request.authority)), printable(str(request.origin))
            logger.info("refused %r: it asks for %s, from %s", request, asked, page)
            await request.reject(status)
            return
        handler = self.router.find(request.path)
        if handler is None:
            await request.reject(HTTPStatus.NOT_FOUND, "no such path")
            return
        start = trio.current_time()
        try:
            await call_application(handler, request)
        except Exception as error:
            if _is_departure(error, accepted):
                _log_end(request, start, accepted)
                logger.debug("%r ended: %s", request, error)
            else:
                await _settle(request, error, failed or ())
        except BaseException:
            # The listener shuts down.
            _log_end(request, start, accepted)
            raise
        else:
            _log_end(request, start, accepted)
            if not request.answered:
                logger.warning("the handler of %r neither accepted nor rejected it", request)
                await request.reject(HTTPStatus.INTERNAL_SERVER_ERROR)


def _log_end(request: SessionRequest, start: float, accepted: list[Session]) -> None:
    """Log the end of a session that was accepted: with its failures and refusals, the one line that it gets at INFO."""
    for session in accepted:
        logger.info("%r ended after %.1f s: %s", request, trio.current_time() - start, session.closed or "cancelled")


def _is_departure(error: Exception, accepted: list[Session]) -> bool:
    """Return whether a handler's failure only says that the session has ended, or that the peer has left it."""
    if consists_of(error, (SessionClosed, GoingAway)):
        return True
    return consists_of(error, DEPARTURES) and any(map(left_by_peer, accepted))


async def _settle(request: SessionRequest, error: Exception, failed: list[Exception] | tuple[()]) -> None:
    """Answer a request whose handler raised, if it was not answered, and log the reason."""
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    reasons = [found for found in leaves(error) if found not in failed]
    if all(isinstance(reason, Unauthorized | SessionClosed) for reason in reasons):
        refusals = [reason for reason in reasons if isinstance(reason, Unauthorized)]
        if refusals:
            logger.info("refused %r: %s", request, refusals[0])
            status = refusals[0].status
    else:
        logger.exception("the handler of %r failed", request)
    if not request.answered:
        await request.reject(status)


def _log_no_session(connection: Connection, error: Exception) -> None:
    logger.info("no session with %s: %s", connection.peer, error)
