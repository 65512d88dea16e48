"""Serving: binds the port for raw QUIC, WebTransport and HTTP, and ends what runs on it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from ..arguments import shown, want, want_limits
from ..block import require_trio
from ..limits import Limits
from ..session.run import own_setup
from ..tasks import defer_interrupts, open_unwrapping_nursery
from ..transport.quic.aioquic.packets import AioquicFactory
from ..transport.quic.server import QuicListener, serve_quic
from ..transport.quic.settings import ServerSettings
from ..transport.quic.steering import IdShare
from ..transport.sockets import bind_tcp
from ..url import canonical_path
from ..wire import dialect as dialects
from .acceptor import Acceptor, WebApplication
from .admission import Admission
from .identity import CertificateSource, Identity, stored_reset_key
from .routing import Router, SessionHandler, routes_of
from .worker import Worker

if TYPE_CHECKING:
    import socket

    from ..certificates import Certificate
    from ..http.asgi import AsgiApplication, HttpConfig
    from ..http.server import HttpServer
    from ..session.session import Session

_PORT_TRIES = 16
"""Attempts to find a port that is free on UDP and on TCP. A free TCP port is rarely taken on UDP: this many failures in
a row have another cause."""


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """Numbers of a listener.

    Attributes:
        sessions: Sessions that run now.
        sessions_accepted: Sessions that were accepted so far.
        sessions_rejected: Requests that were refused so far.
        connections: QUIC connections that are open now, incomplete handshakes included; `Limits.max_connections` bounds
            them.
        connections_accepted: QUIC handshakes that were completed so far. A connection may have several sessions over
            WebTransport, or none.
        half_open: QUIC handshakes that are not complete now; many of them mean a flood, or a broken network.
        refused: Clients that were refused so far because `Limits.max_connections` was reached, over QUIC and over TCP.
        displaced: QUIC connections that were ended so far for another client, because they had neither a session nor a
            request when `Limits.max_connections` or `max_half_open` was reached.
        retried: Clients that had to prove their address so far (Retry), because many handshakes were incomplete.
    """

    sessions: int
    sessions_accepted: int
    sessions_rejected: int
    connections: int
    connections_accepted: int
    half_open: int
    refused: int
    displaced: int
    retried: int


@defer_interrupts
class Listener:
    """A server that listens; `serve` hands it to `nursery.start`.

    What only reads may be called from any thread, such as that of an endpoint of a web application; `aclose` may not.

    Attributes:
        host: The host as it was given.
        port: The UDP port; with an application the TCP port, too.
        addresses: The addresses and ports that are bound.
    """

    def __init__(self, server: _Server, host: str | None, quic: QuicListener) -> None:
        self._server = server
        self._quic = quic
        self.host = host or "localhost"
        self.port = quic.port
        self.addresses = tuple(quic.addresses)

    @property
    def urls(self) -> tuple[str, ...]:
        """A WebTransport and a raw QUIC URL for each route."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(
            f"{scheme}://{host}:{self.port}{canonical_path(path)}"
            for path in self._server.acceptor.router.paths
            for scheme in ("https", "moqt")
        )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate that is shown now, in hexadecimal."""
        return self._server.identity.current().fingerprint.hex()

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions that run now, the oldest first: who is connected, by `Session.peer`, and how."""
        return tuple(self._server.acceptor.sessions)

    def statistics(self) -> ListenerStatistics:
        """Return the listener's numbers."""
        acceptor, tcp, quic = self._server.acceptor, self._server.tcp, self._quic.statistics()
        return ListenerStatistics(
            sessions=len(acceptor.sessions),
            sessions_accepted=acceptor.accepted,
            sessions_rejected=acceptor.rejected,
            connections=quic.connections,
            connections_accepted=quic.accepted,
            half_open=quic.half_open,
            refused=quic.refused + (tcp.refused if tcp is not None else 0),
            displaced=quic.displaced,
            retried=quic.retried,
        )

    async def aclose(self, grace: float = 5.0) -> None:
        """Shut down: refuse new sessions, send GOAWAY to the clients, and close the remaining sessions after the grace.

        Handlers that still run after the grace are cancelled, and have `Limits.close_timeout` to end; then the port is
        free. It may be called again, and finishes even when cancelled (without grace then).

        Args:
            grace: Seconds that clients have to end their sessions.
        """
        await self._server.drain(grace)

    def __repr__(self) -> str:
        return f"<Listener {', '.join(self.urls)}, {len(self._server.acceptor.sessions)} sessions>"


class _Server:
    """One listener: its sessions, its TCP side, and its end."""

    def __init__(self, acceptor: Acceptor, identity: Identity, limits: Limits) -> None:
        self.acceptor = acceptor
        self.identity = identity
        self.tcp: HttpServer | None = None
        self.finished = trio.Event()
        self.ended = trio.Event()
        self._limits = limits

    async def drain(self, grace: float) -> None:
        """Send GOAWAY to every client, wait for at most the grace, then end the listener, and wait for its end too."""
        self.acceptor.draining.set()
        try:
            with trio.move_on_after(grace):
                async with open_unwrapping_nursery() as nursery:
                    nursery.start_soon(self.acceptor.drain)
                    if self.tcp is not None:
                        nursery.start_soon(self.tcp.drain)
        finally:
            self.finished.set()
            # Bounded: the caller may be a handler, and the end of the listener waits for the handlers.
            with trio.move_on_after(self._limits.close_timeout, shield=True):
                await self.ended.wait()
        await trio.lowlevel.checkpoint()


@trio.lowlevel.enable_ki_protection
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
    reset_key: bytes | None = None,
    hop_id: int | None = None,
    cost: int | None = None,
    worker: Worker | None = None,
    task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on one UDP port for raw QUIC and WebTransport until cancelled or closed.

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
        origins: The web pages that may request sessions beside those of this server's own host and port, such as
            `"https://example.org"`, or `"*"` for any page; others are refused with 403. None adds no page, and an
            empty list keeps out those of this server, too. Clients other than browsers send no origin, and are never
            refused for it.
        authorities: The hosts that clients may name, with a port or for all ports; others are refused with 421. None
            allows any; raw QUIC names none. For ordinary requests there is `config.server_names`.
        app: An ASGI application for ordinary requests and for WebSockets; without one HTTP/3 requests get 404.
        config: Hypercorn's settings for them: access log, answer headers, timeouts. Its settings for addresses,
            certificates and workers are ignored.
        limits: The bounds of the listener and of each session.
        reset_key: A secret of at least 32 bytes, the same after a restart: clients of sessions that the server had
            before are told at their next packet that these have ended. None takes one that is kept in the user's state
            directory. Servers at different addresses may share it.
        hop_id, cost: As for `connect`: who publishes here, and what subscribing from here costs.
        worker: What `run_workers` hands to each of several processes that serve one port. Host and port are those of
            `run_workers`, and are left out here. Worker 0 alone serves TCP.

    Raises:
        OSError: The address cannot be bound.
        TypeError: An argument is of a wrong type, such as a port that is no number, a handler that is not async, or the
            name of a file for a certificate.
        ValueError: An unknown version, something that is no port, no origin or no authority, a reset key that is too
            short, a hop id or a cost out of range, or another host or port than the worker's.
        BusyResourceError: This worker serves already.
        CertificateUnusable: There is no certificate to begin with.
        RuntimeError: The application refused to start.
    """
    require_trio()
    router = routes_of(router)
    if host is not None:
        want(host, str, "a host is a name or an address, and the port comes after it: serve(router, 'localhost', 4443)")
    want(port, int, "a port is a number")
    want_limits(limits)
    if app is not None and not callable(app):
        raise TypeError(f"app is an ASGI application, which can be called, not {shown(app)}")
    if worker is not None:
        want(worker, Worker, "worker is what run_workers hands to each process")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")
    if worker is not None:
        host, port = worker._checked_address(host, port)
        reset_key = worker._reset_key if reset_key is None else reset_key
    offered = dialects.resolve(versions)
    limits = limits or Limits()
    acceptor = Acceptor(router, offered, limits, Admission(origins, authorities), own_setup(hop_id, cost))
    server = _Server(acceptor, Identity(certificate), limits)
    settings = ServerSettings(
        alpns=acceptor.alpns,
        identity=server.identity,
        limits=limits,
        reset_key=stored_reset_key() if reset_key is None else reset_key,
        offered=tuple(dialect.name for dialect in offered),
        ids=IdShare() if worker is None else worker._ids,
    )
    try:
        async with open_unwrapping_nursery() as outer, AsyncExitStack() as stack:
            base = None
            if app is not None:
                # Only an application needs the web server.
                from ..http.settings import base_settings

                base = base_settings(config)
                acceptor.web = await stack.enter_async_context(_open_application(outer, app, base, limits))
            nursery = await stack.enter_async_context(open_unwrapping_nursery())
            quic, sockets = await _listen(nursery, acceptor, host, port, settings, worker)
            if sockets and base is not None:
                server.tcp = await _serve_tcp(nursery, acceptor, base, server.identity, sockets, quic.port, limits)
            listener = Listener(server, host, quic)
            if worker is not None:
                stack.enter_context(worker._serving(listener.aclose))
            task_status.started(listener)
            await server.finished.wait()
            nursery.cancel_scope.cancel()
    finally:
        server.ended.set()


async def _listen(
    nursery: trio.Nursery,
    acceptor: Acceptor,
    host: str | None,
    port: int,
    settings: ServerSettings,
    worker: Worker | None,
) -> tuple[QuicListener, list[socket.socket]]:
    """Start the UDP side, and bind TCP sockets on the same number when there is an application."""
    over_tcp = acceptor.web is not None and (worker is None or worker.index == 0)
    for attempt in range(_PORT_TRIES):
        sockets = await bind_tcp(host, port) if over_tcp else []
        number = sockets[0].getsockname()[1] if sockets else port
        start = partial(serve_quic, sockets=None if worker is None else worker._open_sockets())
        engine = AioquicFactory(settings.ids)
        try:
            return await nursery.start(start, acceptor.handle, host, number, settings, engine), sockets
        except BaseException as error:
            for sock in sockets:
                sock.close()
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            # The number that is free on TCP is taken on UDP: try another one.
            if port or not sockets or not taken or attempt == _PORT_TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


@asynccontextmanager
async def _open_application(
    nursery: trio.Nursery, app: AsgiApplication, base: HttpConfig, limits: Limits
) -> AsyncIterator[WebApplication]:
    """Run an application's lifespan around the block."""
    from ..http.lifespan import open_lifespan
    from ..http.settings import http3_settings

    async with open_lifespan(nursery, app, base, limits.close_timeout) as state:
        yield WebApplication(app, http3_settings(base), state)


async def _serve_tcp(
    nursery: trio.Nursery,
    acceptor: Acceptor,
    base: HttpConfig,
    identity: Identity,
    sockets: list[socket.socket],
    port: int,
    limits: Limits,
) -> HttpServer:
    """Start HTTP/1.1 and HTTP/2 on sockets that are bound."""
    from ..http.server import HttpServer
    from ..http.settings import alt_svc, tcp_settings

    web = acceptor.web
    assert web is not None
    server = HttpServer(
        web.app,
        sockets,
        config=tcp_settings(base, limits),
        alt_svc=alt_svc(base, port),
        state=web.state,
        certificate=identity.current,
        allows_page=acceptor.admission.allows_page,
        limits=limits,
    )
    await nursery.start(server.run)
    return server
