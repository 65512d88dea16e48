"""Serving: one port for raw QUIC and WebTransport, and the routes that sessions take."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..codes import SessionCode
from ..errors import (
    ConnectTimeout,
    LocalProtocolError,
    RemoteProtocolError,
    SessionClosed,
    VersionUnsupported,
    printable,
)
from ..http.lifespan import open_lifespan
from ..http.server import HttpServer
from ..http.settings import base_settings, http3_settings, tcp_settings
from ..http.sockets import bind_tcp
from ..limits import Limits
from ..protocol.negotiation import candidates, protocols
from ..session.context import logger
from ..session.run import admit, closed_by_block, random_hop_id, requested_path, run_session, wait_peer_setup
from ..tasks import consists_of, open_bare_nursery
from ..transport.quic.server import QuicListener, serve_quic
from ..transport.quic.settings import ServerSettings
from ..transport.webtransport.server import WebTransportRequest, serve_http3
from ..wire import dialect as dialects
from .admission import Admission
from .identity import CertificateSource, Identity
from .routing import Router, SessionHandler, SessionRequest

if TYPE_CHECKING:
    import socket

    from ..certificates import Certificate
    from ..http.asgi import AsgiApplication, HttpConfig
    from ..session.session import Session
    from ..transport.quic.connection import QuicConnection
    from ..wire.dialect import Dialect

_NOT_FOUND = 404
_NOT_ACCEPTABLE = 406
_UNAVAILABLE = 503
_INTERNAL = 500

_PORT_TRIES = 16
"""Port numbers that are tried before the search for one that is free on UDP and on TCP is given up."""


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """Numbers of a listener.

    Attributes:
        sessions: Sessions that run now.
        sessions_accepted: Sessions that were accepted so far.
        sessions_rejected: Requests that were refused so far.
    """

    sessions: int
    sessions_accepted: int
    sessions_rejected: int


class Listener:
    """A server that listens; `serve` hands it to `nursery.start`.

    Attributes:
        host: The host as it was given.
        port: The UDP port; with an application the TCP port, too.
        addresses: The addresses and ports that are bound.
    """

    def __init__(self, server: _Server, host: str | None, quic: QuicListener) -> None:
        self._server = server
        self.host = host or "localhost"
        self.port = quic.port
        self.addresses = tuple(quic.addresses)

    @property
    def urls(self) -> tuple[str, ...]:
        """A WebTransport and a raw QUIC URL for each route."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(
            f"{scheme}://{host}:{self.port}{path}"
            for path in self._server.router._routes
            for scheme in ("https", "moqt")
        )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate that is shown now, in hexadecimal."""
        return self._server.identity.current().fingerprint.hex()

    def statistics(self) -> ListenerStatistics:
        """Returns the listener's numbers."""
        server = self._server
        return ListenerStatistics(
            sessions=len(server.sessions), sessions_accepted=server.accepted, sessions_rejected=server.rejected
        )

    async def aclose(self, grace: float = 5.0) -> None:
        """Shuts down: refuses new sessions, asks the clients to leave, and after the grace closes what is left.

        Handlers that still run after the grace are cancelled, and have `Limits.close_timeout` to end; then the port is
        free. It may be called again, and finishes even when cancelled (without grace then).

        Args:
            grace: Seconds that clients have to leave by themselves.
        """
        await self._server.drain(grace)

    def __repr__(self) -> str:
        return f"<Listener {', '.join(self.urls)}, {len(self._server.sessions)} sessions>"


@attrs.frozen
class _Web:
    """What ordinary HTTP requests need.

    Attributes:
        app: The ASGI application.
        config: Hypercorn's settings, before they are made out for TCP or for HTTP/3.
        state: The lifespan state.
    """

    app: AsgiApplication
    config: HttpConfig
    state: dict[str, Any]


class _Server:
    """The sessions of one listener, and the requests beside them."""

    def __init__(
        self,
        router: Router,
        offered: tuple[Dialect, ...],
        limits: Limits,
        identity: Identity,
        admission: Admission,
    ) -> None:
        self.router = router
        self.offered = offered
        self.limits = limits
        self.identity = identity
        self.admission = admission
        self.web: _Web | None = None
        self.tcp: HttpServer | None = None
        self.hop_id = random_hop_id()
        self.sessions: set[Session] = set()
        self.accepted = 0
        self.rejected = 0
        self.draining = trio.Event()
        self.finished = trio.Event()
        self.ended = trio.Event()
        self._http3_connections = 0
        self._left = trio.Event()

    # -- shutting down -------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Asks every client to leave, waits for at most the grace, then ends the listener; waits for that too."""
        self.draining.set()
        try:
            with trio.move_on_after(grace):
                async with open_bare_nursery() as nursery:
                    for session in list(self.sessions):
                        nursery.start_soon(_ask_to_leave, session)
                    if self.tcp is not None:
                        nursery.start_soon(self.tcp.drain)
                while self.sessions or self._http3_connections:
                    await self._left.wait()
        finally:
            self.finished.set()
            # Bounded: it may be a handler that asks, and the listener's end waits for the handlers.
            with trio.move_on_after(self.limits.close_timeout, shield=True):
                await self.ended.wait()
        await trio.lowlevel.checkpoint()

    def _one_left(self) -> None:
        self._left.set()
        self._left = trio.Event()

    def _leave(self, session: Session) -> None:
        self.sessions.discard(session)
        self._one_left()

    # -- one connection ------------------------------------------------------------------------------------

    async def handle(self, connection: QuicConnection) -> None:
        """Serves one QUIC connection, whatever it carries."""
        if connection.protocol == "h3":
            await self._http3(connection)
        else:
            await self._raw(connection)

    async def _http3(self, connection: QuicConnection) -> None:
        late = self.draining.is_set()
        web = self.web
        self._http3_connections += not late
        try:
            await serve_http3(
                connection,
                self._webtransport,
                app=None if web is None else web.app,
                config=None if web is None else http3_settings(web.config),
                limits=self.limits,
                state=None if web is None else web.state,
                # Sessions of who comes when the server leaves are refused one by one, by a status that says why.
                draining=None if late else self.draining,
            )
        finally:
            self._http3_connections -= not late
            self._one_left()

    async def _raw(self, connection: QuicConnection) -> None:
        async with AsyncExitStack() as stack:
            running = run_session(connection, self.offered, limits=self.limits, hop_id=self.hop_id, admitted=False)
            try:
                session = await stack.enter_async_context(running)
            except (VersionUnsupported, ConnectTimeout, RemoteProtocolError, SessionClosed) as error:
                logger.info("no session with %s: %s", connection.peer, error)
                return
            try:
                await wait_peer_setup(session)
            except LocalProtocolError as error:
                session.close(SessionCode.CONTROL_MESSAGE_TIMEOUT, str(error))
                return
            except SessionClosed:
                return
            path, query = _split(requested_path(session) or "")

            @asynccontextmanager
            async def accept() -> AsyncIterator[Session]:
                with self._counted(session):
                    async with closed_by_block(session):
                        await admit(session)
                        yield session

            await self._dispatch(
                SessionRequest(
                    path=path or self.router.default or "/",
                    query=query,
                    authority=connection.authority,
                    origin=None,
                    transport="quic",
                    version=session.version,
                    peer=connection.peer,
                    accept=accept,
                    reject=partial(self._refuse, connection.close),
                )
            )

    async def _webtransport(self, request: WebTransportRequest) -> None:
        names = protocols(self.offered, webtransport=True)
        chosen = next((name for name in names if name in request.protocols), None)
        possible = candidates(self.offered, chosen, webtransport=True)
        if not possible or (chosen is None and request.protocols):
            logger.info("refused a WebTransport client: no version shared with %s", printable(str(request.protocols)))
            self.rejected += 1
            request.reject(_NOT_ACCEPTABLE, b"this server speaks " + ", ".join(names).encode())
            return

        @asynccontextmanager
        async def accept() -> AsyncIterator[Session]:
            carrier = request.accept(chosen)
            async with run_session(carrier, self.offered, limits=self.limits, hop_id=self.hop_id) as session:
                with self._counted(session):
                    yield session

        await self._dispatch(
            SessionRequest(
                path=request.path,
                query=request.query,
                authority=request.authority,
                origin=request.origin,
                transport="webtransport",
                # Without a subprotocol, or with one of several versions, the handshake on the session decides.
                version=possible[0].name,
                peer=request.peer,
                accept=accept,
                reject=partial(self._refuse, lambda status, reason: request.reject(status, reason.encode())),
            )
        )

    def _counted(self, session: Session) -> _Counted:
        return _Counted(self, session)

    def _refuse(self, refuse: Callable[[int, str], None], status: int, reason: str) -> None:
        self.rejected += 1
        refuse(status, reason)

    async def _dispatch(self, request: SessionRequest) -> None:
        """Runs the handler of a request. Its failure ends this session and no other."""
        handler = self.router.find(request.path)
        if self.draining.is_set():
            await request.reject(_UNAVAILABLE)
            return
        status = self.admission.refusal(request.authority, request.origin)
        if status is not None:
            logger.info("refused %r: it asks for %r, from %r", request, request.authority, request.origin)
            await request.reject(status)
            return
        if handler is None:
            await request.reject(_NOT_FOUND, "no such path")
            return
        try:
            await handler(request)
        except Exception as error:
            if consists_of(error, SessionClosed):
                logger.debug("%r ended: %s", request, error)
                return
            logger.exception("the handler of %r failed", request)
            if not request.answered:
                await request.reject(_INTERNAL)
        else:
            if not request.answered:
                logger.warning("the handler of %r neither accepted nor rejected it", request)
                await request.reject(_INTERNAL)


class _Counted:
    """Counts a session among those of its listener while it runs."""

    def __init__(self, server: _Server, session: Session) -> None:
        self._server = server
        self._session = session

    def __enter__(self) -> None:
        self._server.accepted += 1
        self._server.sessions.add(self._session)
        if self._server.draining.is_set():
            # Its handler took its time: the others were asked before.
            self._session._context.start(_ask_to_leave, self._session)

    def __exit__(self, *error: object) -> None:
        self._server._leave(self._session)


async def _ask_to_leave(session: Session) -> None:
    if not session._context.core.dialect.features.goaway:
        # What is published is delivered, then the session ends.
        await session.aclose()
        return
    # Its handler may have asked before.
    with suppress(LocalProtocolError, SessionClosed):
        await session.goaway()


def _split(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query


async def serve(
    router: Router | SessionHandler,
    host: str | None = "localhost",
    port: int = 4443,
    *,
    certificate: Certificate | CertificateSource | None = None,
    versions: Sequence[str] | None = None,
    origins: Collection[str] | None = None,
    authorities: Collection[str] | None = None,
    app: AsgiApplication | None = None,
    config: HttpConfig | None = None,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listens on one UDP port for raw QUIC and WebTransport until cancelled or closed.

    Start it as `listener = await nursery.start(serve, router, "localhost", 4443)`: it is bound when `start` returns.

    With an ASGI application the same number serves HTTP too: HTTP/3 on the UDP port, and HTTP/1.1 and HTTP/2 on the
    TCP port, whose answers point at HTTP/3 (Alt-Svc). Unencrypted HTTP on the TCP port gets `/certificate.sha256`, the
    certificate's fingerprint in hexadecimal, and nothing else. Without an application there is no TCP port. An
    application of asyncio goes through `asyncio_app`.

    Args:
        router: Which handler serves which path; a handler alone serves `/`, and clients without a path.
        host: A name or an address; `"localhost"` binds ::1 and 127.0.0.1, None binds every address.
        port: The port; 0 picks one that is free.
        certificate: The certificate to show; None makes a development certificate for localhost, kept in the user's
            state directory and renewed before it expires. A function, such as `CertificateFiles`, is called for each
            connection: what it returns is shown from then on, and when it raises, what it returned before.
        versions: The wire versions to accept, best first; None accepts all of them.
        origins: The web pages that may ask for sessions, such as `"https://example.org"`; others are refused with 403.
            None lets all of them. Clients that are no browsers name no origin, and are never refused for it.
        authorities: The hosts that sessions may be asked for, with a port or for all ports; others are refused with
            421. None accepts any; raw QUIC names none. For ordinary requests there is `config.server_names`.
        app: An ASGI application for ordinary requests and for WebSockets; without one HTTP/3 requests get 404.
        config: Hypercorn's settings for them: access log, answer headers, timeouts. What says where to listen, which
            certificate to show and how many workers there are is passed over.
        limits: The bounds of the listener and of each session.

    Raises:
        OSError: The address cannot be bound.
        ValueError: An unknown version, or something that is no origin or no authority.
        CertificateUnusable: There is no certificate to begin with.
        RuntimeError: The application refused to start.
    """
    if not isinstance(router, Router):
        router = Router({"/": router}, default="/")
    offered = dialects.resolve(versions)
    limits = limits or Limits()
    server = _Server(router, offered, limits, Identity(certificate), Admission(origins, authorities))
    settings = ServerSettings(
        alpns=(*protocols(offered, webtransport=False), "h3"), identity=server.identity, limits=limits
    )
    try:
        async with open_bare_nursery() as outer, AsyncExitStack() as stack:
            if app is not None:
                base = base_settings(config)
                state = await stack.enter_async_context(open_lifespan(outer, app, base, limits.close_timeout))
                server.web = _Web(app, base, state)
            nursery = await stack.enter_async_context(open_bare_nursery())
            quic, sockets = await _listen(nursery, server, host, port, settings)
            if server.web is not None:
                server.tcp = HttpServer(
                    server.web.app,
                    sockets,
                    config=tcp_settings(server.web.config, quic.port, limits),
                    state=server.web.state,
                    certificate=server.identity.current,
                    limits=limits,
                )
                await nursery.start(server.tcp.run)
            task_status.started(Listener(server, host, quic))
            await server.finished.wait()
            nursery.cancel_scope.cancel()
    finally:
        server.ended.set()


async def _listen(
    nursery: trio.Nursery, server: _Server, host: str | None, port: int, settings: ServerSettings
) -> tuple[QuicListener, list[socket.socket]]:
    """Starts the UDP side, and binds TCP sockets on the same number where there is an application."""
    for attempt in range(_PORT_TRIES):
        sockets = [] if server.web is None else await bind_tcp(host, port)
        number = sockets[0].getsockname()[1] if sockets else port
        try:
            return await nursery.start(serve_quic, server.handle, host, number, settings), sockets
        except BaseException as error:
            for sock in sockets:
                sock.close()
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            # The number that is free on TCP is taken on UDP: another may do.
            if port or not sockets or not taken or attempt == _PORT_TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


__all__ = ["Listener", "ListenerStatistics", "Router", "SessionHandler", "SessionRequest", "serve"]
