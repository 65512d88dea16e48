"""Serving: one port for raw QUIC and WebTransport, and the routes that sessions take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs
import trio

from .certificates import Certificate, DevelopmentCertificates
from .codes import SessionCode
from .driver import logger
from .errors import LocalProtocolError, SessionClosed, printable
from .limits import Limits
from .nurseries import consists_of, open_bare_nursery
from .session.core import SessionCore
from .session_api import Session, closed_by_block, random_hop_id, run_session, wait_peer_setup
from .transport.abc import Connection
from .transport.quic.config import ServerIdentity, ServerSettings
from .transport.quic.connection import QuicConnection
from .transport.quic.endpoint import QuicListener, serve_quic
from .transport.stream import HTTP3_CODES
from .transport.webtransport.server import WebTransportRequest, serve_http3
from .wire import dialect as dialects
from .wire.dialect import Dialect
from .wire.messages import ProbeLevel, Setup

if TYPE_CHECKING:
    from .transport.webtransport.asgi import AsgiApplication

_NOT_FOUND = 404
_NOT_ACCEPTABLE = 406
_FORBIDDEN = 403
_UNAVAILABLE = 503
_INTERNAL = 500

_CERTIFICATE_CHECK_S = 60.0
"""How long a development certificate is taken as it is before its remaining days are looked at again."""


class SessionRequest:
    """A session that a client asks for, not yet answered. Answer with `accept` or `reject`, once.

    Attributes:
        path: The path without its query; the router's default for versions that carry none over raw QUIC.
        query: The query, without the `?`; often a credential, so never log it.
        authority: Host and port that the client asked for, where the transport says so.
        origin: The page that a browser asks for, as its `Origin` header says; None elsewhere.
        transport: `"webtransport"` or `"quic"`.
        version: The wire version that an accepted session will speak.
        peer: The client's address and port.
    """

    def __init__(
        self,
        *,
        path: str,
        query: str,
        authority: str | None,
        origin: str | None,
        transport: Literal["quic", "webtransport", "memory"],
        version: str,
        peer: tuple[str, int] | None,
        accept: Callable[[], AbstractAsyncContextManager[Session]],
        reject: Callable[[int, str], None],
    ) -> None:
        self.path = path
        self.query = query
        self.authority = authority
        self.origin = origin
        self.transport = transport
        self.version = version
        self.peer = peer
        self._accept = accept
        self._reject = reject
        self._answered = False

    @property
    def answered(self) -> bool:
        """True once the request was accepted or rejected."""
        return self._answered

    def accept(self) -> AbstractAsyncContextManager[Session]:
        """Accepts. Use it as `async with request.accept() as session`; leaving the block closes the session.

        Raises:
            LocalProtocolError: The request was answered before.
        """
        self._answer()
        return self._accept()

    async def reject(self, status: int = _FORBIDDEN, reason: str = "") -> None:
        """Refuses.

        Args:
            status: 400 … 599, as in HTTP; raw QUIC carries the same number as the session's close code.
            reason: A text for the client, where the transport carries one.

        Raises:
            LocalProtocolError: The request was answered before.
            ValueError: Another status.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal's status is 400 … 599, not {status}")
        self._answer()
        self._reject(status, reason)
        await trio.lowlevel.checkpoint()

    def _answer(self) -> None:
        if self._answered:
            raise LocalProtocolError("this session request was answered before")
        self._answered = True

    def __repr__(self) -> str:
        return f"<SessionRequest {printable(self.path)} {self.version} over {self.transport} from {self.peer}>"


Handler: TypeAlias = Callable[[SessionRequest], Awaitable[None]]
"""What serves a session: an async function in a task and cancel scope of its own."""


class Router:
    """Which handler serves which path.

    Args:
        routes: Handlers by exact path, such as `{"/echo": echo}`.
        default: The path that stands in when the client's handshake carries none: moq-lite-03 and -04 over raw QUIC.

    Raises:
        ValueError: A path without its leading slash, or a default that is no route.
    """

    def __init__(self, routes: Mapping[str, Handler], *, default: str | None = None) -> None:
        for path in routes:
            if not path.startswith("/") or "?" in path:
                raise ValueError(f"a route is a path that starts with '/', without a query, not {path!r}")
        if default is not None and default not in routes:
            raise ValueError(f"the default {default!r} is not among the routes {sorted(routes)}")
        self._routes = dict(routes)
        self.default = default

    def find(self, path: str) -> Handler | None:
        """Returns the handler of a path, or None."""
        return self._routes.get(path)

    def __repr__(self) -> str:
        return f"Router({sorted(self._routes)}, default={self.default!r})"


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
        port: The UDP port.
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


class _Identity:
    """The certificate to show: a given one, or the development certificate of this machine, renewed in time."""

    def __init__(self, certificate: Certificate | None) -> None:
        self._store = DevelopmentCertificates() if certificate is None else None
        self._certificate = certificate
        self._checked = -_CERTIFICATE_CHECK_S

    def current(self) -> Certificate:
        """Returns the certificate for a connection that begins now."""
        if self._store is not None:
            now = trio.current_time()
            if self._certificate is None or now - self._checked >= _CERTIFICATE_CHECK_S:
                self._certificate = self._store.current()
                self._checked = now
        assert self._certificate is not None
        return self._certificate

    def __call__(self) -> ServerIdentity:
        certificate = self.current()
        return ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)


class _Server:
    """The sessions of one listener."""

    def __init__(
        self,
        router: Router,
        offered: tuple[Dialect, ...],
        limits: Limits,
        identity: _Identity,
        app: AsgiApplication | None,
    ) -> None:
        self.router = router
        self.offered = offered
        self.limits = limits
        self.identity = identity
        self.app = app
        self.hop_id = random_hop_id()
        self.sessions: set[Session] = set()
        self.accepted = 0
        self.rejected = 0
        self.draining = False
        self.finished = trio.Event()
        self.ended = trio.Event()
        self._emptied = trio.Event()

    # -- shutting down -------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Asks every client to leave, waits for at most the grace, then ends the listener; waits for that too."""
        self.draining = True
        try:
            with trio.move_on_after(grace):
                async with open_bare_nursery() as nursery:
                    for session in list(self.sessions):
                        nursery.start_soon(_ask_to_leave, session)
                while self.sessions:
                    await self._emptied.wait()
        finally:
            self.finished.set()
            # Bounded: it may be a handler that asks, and the listener's end waits for the handlers.
            with trio.move_on_after(self.limits.close_timeout, shield=True):
                await self.ended.wait()
        await trio.lowlevel.checkpoint()

    def _leave(self, session: Session) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self._emptied.set()
            self._emptied = trio.Event()

    # -- one connection ------------------------------------------------------------------------------------

    async def handle(self, connection: QuicConnection) -> None:
        """Serves one QUIC connection, whatever it carries."""
        if connection.protocol == "h3":
            await serve_http3(connection, self._webtransport, app=self.app, config=None, limits=self.limits)
        else:
            await self._raw(connection)

    async def _raw(self, connection: QuicConnection) -> None:
        connection.code_mapping = HTTP3_CODES
        dialect = next(item for item in self.offered if connection.protocol in item.alpns)
        setup = self._setup()
        core = SessionCore(
            dialect, is_client=False, limits=self.limits, setup=setup, path_on_wire=True, hop_id=setup.hop_id
        )
        async with run_session(
            connection, dialect, limits=self.limits, setup=setup, path_on_wire=True, core=core, held=True
        ) as session:
            try:
                await wait_peer_setup(session)
            except LocalProtocolError as error:
                session.close(SessionCode.CONTROL_MESSAGE_TIMEOUT, str(error))
                return
            except SessionClosed:
                return
            target = core.peer_setup.path if core.peer_setup is not None else None
            path, query = _split(target or "")

            @asynccontextmanager
            async def accept() -> AsyncIterator[Session]:
                with self._counted(session):
                    async with closed_by_block(session):
                        await session.release()
                        yield session

            await self._dispatch(
                SessionRequest(
                    path=path or self.router.default or "/",
                    query=query,
                    authority=connection.authority,
                    origin=None,
                    transport="quic",
                    version=dialect.name,
                    peer=connection.peer,
                    accept=accept,
                    reject=partial(self._refuse, connection.close),
                )
            )

    async def _webtransport(self, request: WebTransportRequest) -> None:
        names = {name: item for item in self.offered for name in item.webtransport_protocols}
        chosen = next((name for name in names if name in request.protocols), None)
        if chosen is None:
            logger.info("refused a WebTransport client: no version shared with %s", printable(str(request.protocols)))
            self.rejected += 1
            request.reject(_NOT_ACCEPTABLE, b"this server speaks " + ", ".join(names).encode())
            return
        dialect = names[chosen]

        @asynccontextmanager
        async def accept() -> AsyncIterator[Session]:
            carrier = request.accept(chosen)
            async with run_session(
                carrier, dialect, limits=self.limits, setup=self._setup(), path_on_wire=False
            ) as session:
                with self._counted(session):
                    yield session

        await self._dispatch(
            SessionRequest(
                path=request.path,
                query=request.query,
                authority=request.authority,
                origin=request.origin,
                transport="webtransport",
                version=dialect.name,
                peer=request.peer,
                accept=accept,
                reject=partial(self._refuse, lambda status, reason: request.reject(status, reason.encode())),
            )
        )

    def _setup(self) -> Setup:
        return Setup(probe=ProbeLevel.REPORT, hop_id=self.hop_id)

    def _counted(self, session: Session) -> _Counted:
        return _Counted(self, session)

    def _refuse(self, refuse: Callable[[int, str], None], status: int, reason: str) -> None:
        self.rejected += 1
        refuse(status, reason)

    async def _dispatch(self, request: SessionRequest) -> None:
        """Runs the handler of a request. Its failure ends this session and no other."""
        handler = self.router.find(request.path)
        if self.draining or handler is None:
            await request.reject(_UNAVAILABLE if self.draining else _NOT_FOUND, "" if self.draining else "no such path")
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

    def __exit__(self, *error: object) -> None:
        self._server._leave(self._session)


async def _ask_to_leave(session: Session) -> None:
    try:
        await session.goaway()
    except LocalProtocolError:
        # A version without GOAWAY: what is published is delivered, then the session ends.
        await session.aclose()
    except SessionClosed:
        pass


def _split(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query


async def serve(
    router: Router | Handler,
    host: str | None = "localhost",
    port: int = 4443,
    *,
    certificate: Certificate | None = None,
    versions: Sequence[str] | None = None,
    app: AsgiApplication | None = None,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listens on one UDP port for raw QUIC and WebTransport until cancelled or closed.

    Start it as `listener = await nursery.start(serve, router, "localhost", 4443)`: it is bound when `start` returns.

    Args:
        router: Which handler serves which path; a handler alone serves `/`, and clients without a path.
        host: A name or an address; `"localhost"` binds ::1 and 127.0.0.1, None binds every address.
        port: The UDP port; 0 picks a free one.
        certificate: The certificate to show; None makes a development certificate for localhost, kept in the user's
            state directory and renewed before it expires.
        versions: The wire versions to accept, best first; None accepts all of them.
        app: An ASGI application for ordinary HTTP/3 requests; without one they are answered with 404.
        limits: The bounds of the listener and of each session.

    Raises:
        OSError: The address cannot be bound.
        ValueError: An unknown version.
    """
    if not isinstance(router, Router):
        router = Router({"/": router}, default="/")
    offered = dialects.resolve(versions)
    limits = limits or Limits()
    server = _Server(router, offered, limits, _Identity(certificate), app)
    settings = ServerSettings(
        alpns=(*(alpn for dialect in offered for alpn in dialect.alpns), "h3"), identity=server.identity, limits=limits
    )
    try:
        async with open_bare_nursery() as nursery:
            quic: QuicListener = await nursery.start(serve_quic, server.handle, host, port, settings)
            task_status.started(Listener(server, host, quic))
            await server.finished.wait()
            nursery.cancel_scope.cancel()
    finally:
        server.ended.set()


__all__ = ["Connection", "Handler", "Listener", "ListenerStatistics", "Router", "SessionRequest", "serve"]
