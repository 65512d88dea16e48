"""serve_in_memory: a server and its clients in one process, without sockets, packets and certificates.

Only the network is replaced. A client's connection is a `MemoryConnection` instead of one of QUIC, and from there on
both sides run what `connect` and `serve` run: HTTP/3 and WebTransport or the handshake of raw QUIC, routing, admission
and the handler's task. So a refusal reaches a client as it does over the network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..arguments import want, want_limits
from ..block import session_block
from ..client.connect import ClientRole, ConnectOptions, client_setup, open_session
from ..codes import SessionCode
from ..errors import HandshakeFailed, SessionClosed
from ..limits import Limits
from ..loggers import Logger
from ..server.acceptor import Acceptor
from ..server.admission import Admission
from ..server.routing import routes_of
from ..session.run import own_setup
from ..tasks import consists_of, defer_interrupts, open_unwrapping_nursery
from ..transport.memory import open_memory_pair
from ..url import SessionUrl, canonical_path
from ..wire import dialect as dialects

if TYPE_CHECKING:
    from ..server.routing import Router, SessionHandler
    from ..session.session import Session
    from ..session.view import OriginView
    from ..transport.connection import Connection
    from ..transport.link import LossyLink
    from ..transport.quic.settings import ClientSettings
    from ..wire.messages import Token

logger = Logger(__name__)

_HOST = "localhost"
_ADDRESS = "127.0.0.1"
_PORT = 443
_FIRST_CLIENT_PORT = 49152
"""The peer of the first client has this port, each further one the next: handlers see clients at different addresses,
as over a network."""


@defer_interrupts
class MemoryServer:
    """A server in this process; `serve_in_memory` yields it."""

    def __init__(self, acceptor: Acceptor, limits: Limits, listed: str) -> None:
        self._acceptor = acceptor
        self._limits = limits
        self._listed = listed
        self._clients = 0
        self._handlers: trio.Nursery
        self._running = 0
        self._idle = trio.Event()
        self._finished = trio.Event()
        self._ended = trio.Event()

    @property
    def urls(self) -> tuple[str, ...]:
        """A WebTransport and a raw QUIC URL for each route."""
        return tuple(
            f"{scheme}://{_HOST}{canonical_path(path)}"
            for path in self._acceptor.router.paths
            for scheme in ("https", "moqt")
        )

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The server's sessions that run now, the oldest first."""
        return tuple(self._acceptor.sessions)

    @session_block('async with server.connect("/path") as session:')
    async def connect(
        self,
        url: str = "/",
        *,
        versions: Sequence[str] | None = None,
        origin: str | None = None,
        limits: Limits | None = None,
        tokens: Collection[Token] = (),
        hop_id: int | None = None,
        cost: int | None = None,
        role: ClientRole = "both",
        view: OriginView | None = None,
        link: LossyLink | None = None,
    ) -> AsyncIterator[Session]:
        """Connect to the server, and run a client's session for as long as the block lasts.

        Args:
            url: `https://host/path?query` for WebTransport, `moqt://host/path?query` for raw QUIC; a path alone is
                WebTransport with the host `localhost`. Every host reaches this server. WebTransport
                requests name it; raw QUIC names none.
            versions: The wire versions to offer, best first; None offers all of them.
            origin: The `Origin` header of a WebTransport request, as a browser sends it.
            limits: The bounds of the client's session.
            tokens, hop_id, cost, role, view: As for `connect`.
            link: What lies between this client and the server; None for a perfect link without delay.

        Yields:
            The session.

        Raises:
            ValueError: An invalid URL or origin, or an unknown version.
            HandshakeFailed: The server has ended.
            VersionUnsupported: The server speaks none of the versions.
            Rejected: The server refused, with the same statuses as over a network.
            SessionClosed: As over a network: raw QUIC in moq-lite-03 and -04 refuses in this way.
        """
        want(url, str, "a URL is a text such as 'moqt://localhost/echo', or a path such as '/echo'")
        where = SessionUrl.parse(f"https://{_HOST}{url}" if url.startswith("/") else url)
        # There is no certificate: nothing is read to verify one.
        setup = client_setup(tokens=tokens, hop_id=hop_id, cost=cost, role=role)
        options = ConnectOptions(versions, None, None, False, origin, limits, setup, view)
        async with open_session(where, options, dial=partial(self._dial, where, link)) as session:
            yield session

    async def aclose(self, grace: float = 5.0) -> None:
        """Shut down as `Listener.aclose` does: refuse new sessions, send GOAWAY, close what remains after the grace.

        Args:
            grace: Seconds that clients and handlers have to end.
        """
        try:
            with trio.move_on_after(grace):
                await self._acceptor.drain()
                while self._running:
                    await self._idle.wait()
        finally:
            self._finished.set()
            # Bounded: the caller may be a handler, and the end of the server waits for the handlers.
            with trio.move_on_after(self._limits.close_timeout, shield=True):
                await self._ended.wait()
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<MemoryServer {', '.join(self.urls)}, {len(self._acceptor.sessions)} sessions>"

    @asynccontextmanager
    async def _dial(
        self, where: SessionUrl, link: LossyLink | None, settings: ClientSettings
    ) -> AsyncIterator[Connection]:
        """Open a connection whose other end has a task of the server; it is closed at the end of the block."""
        await trio.lowlevel.checkpoint()
        if self._finished.is_set():
            raise HandshakeFailed(f"no server at {where.authority}")
        protocol = next((alpn for alpn in self._acceptor.alpns if alpn in settings.alpns), None)
        if protocol is None:
            raise settings.unsupported(where.authority, f"this server speaks {self._listed}")
        pair = open_memory_pair(self._limits, link, client_limits=settings.limits, protocol=protocol)
        async with pair as (client, server):
            client.kind = server.kind = "quic"
            client.peer, server.peer = (_ADDRESS, _PORT), (_ADDRESS, _FIRST_CLIENT_PORT + self._clients)
            self._clients += 1
            self._running += 1
            self._handlers.start_soon(self._handle, server)
            try:
                yield client
            finally:
                await client.aclose()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Own the handlers until the server ends."""
        try:
            async with trio.open_nursery() as self._handlers:
                task_status.started()
                try:
                    await self._finished.wait()
                finally:
                    # The nursery takes no more tasks once its last one has ended.
                    self._finished.set()
                self._handlers.cancel_scope.cancel()
        finally:
            self._ended.set()

    @trio.lowlevel.enable_ki_protection
    async def _handle(self, connection: Connection) -> None:
        code, reason = SessionCode.INTERNAL_ERROR, "the server failed"
        try:
            await self._acceptor.handle(connection)
            code, reason = SessionCode.NO_ERROR, ""
        except Exception as error:
            if not consists_of(error, SessionClosed):
                logger.exception("%r: the handler failed", connection)
        except BaseException:
            code, reason = SessionCode.NO_ERROR, ""
            raise
        finally:
            connection.close(code, reason)
            self._running -= 1
            self._idle.set()
            self._idle = trio.Event()


@session_block("async with serve_in_memory(handler) as server:")
async def serve_in_memory(
    router: Router | SessionHandler,
    *,
    versions: Sequence[str] | None = None,
    origins: Collection[str] | None = None,
    authorities: Collection[str] | None = None,
    limits: Limits | None = None,
    hop_id: int | None = None,
    cost: int | None = None,
    grace: float = 5.0,
) -> AsyncIterator[MemoryServer]:
    """Run a server for as long as the block lasts, without a network: clients reach it by `MemoryServer.connect`.

    Routes, admission, refusals, versions and both transports are those of `serve`. What a handler raises is logged,
    as there. At the end of the block the server shuts down as by `aclose`; when the block fails or is cancelled, it
    cancels its handlers at once. Either way no handler outlives the block.

    Args:
        router: Which handler serves which path; a handler alone serves `/`, and clients without a path.
        versions: The wire versions to accept, best first; None accepts all of them.
        origins: As for `serve`.
        authorities: As for `serve`.
        limits: The bounds of each of the server's sessions. Those of a listener have no effect.
        hop_id, cost: As for `serve`.
        grace: Seconds that handlers and clients have to end after the block, before they are cancelled.

    Yields:
        The server.

    Raises:
        TypeError, ValueError: As for `serve`.
    """
    router = routes_of(router)
    want_limits(limits)
    offered = dialects.resolve(versions)
    limits = limits or Limits()
    setup = own_setup(hop_id, cost)
    acceptor = Acceptor(router, offered, limits, Admission(origins, authorities), setup)
    server = MemoryServer(acceptor, limits, ", ".join(dialect.name for dialect in offered))
    async with open_unwrapping_nursery() as nursery:
        await nursery.start(server._run)
        yield server
        await server.aclose(grace)
        nursery.cancel_scope.cancel()
