"""The stack under test on loopback: QUIC, HTTP/3, and what a test serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from moqt_trio.errors import SessionClosed
from moqt_trio.http.asgi import AsgiServer
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.settings import ClientSettings, ServerSettings
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.transport.webtransport.server import serve_http3
from tests.transport.awaiting import accept_uni, receive_datagram, send_all
from tests.transport.quic_pair import IDENTITY, connect_quic, serve_quic

if TYPE_CHECKING:
    from moqt_trio.transport.quic.connection import QuicConnection
    from moqt_trio.transport.quic.server import QuicListener
    from moqt_trio.transport.webtransport.server import WebTransportRequest
    from moqt_trio.transport.webtransport.session import WebTransportSession


@attrs.define(eq=False)
class Served:
    """A running server.

    Attributes:
        port: Its UDP port.
        listener: Its QUIC side.
        connections: The connections that were accepted so far.
        ended: The connections whose `serve_http3` has returned.
        failures: What handlers raised, but for SessionClosed.
    """

    port: int
    listener: QuicListener = attrs.field(init=False)
    connections: list[QuicConnection] = attrs.field(factory=list)
    ended: list[QuicConnection] = attrs.field(factory=list)
    failures: list[BaseException] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    async def wait_ended(self, count: int = 1) -> None:
        """Wait until so many connections have ended."""
        while len(self.ended) < count:
            self.changed = trio.Event()
            await self.changed.wait()


async def refuse_all(request: WebTransportRequest) -> None:
    """Answer every session with 404."""
    request.reject(404)


def only_closed(error: BaseException) -> bool:
    """Return whether a handler failed of nothing but the end of its session."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_closed, error.exceptions))
    return isinstance(error, SessionClosed)


@asynccontextmanager
async def serving(
    on_session: Any = refuse_all,
    *,
    app: Any = None,
    config: Any = None,
    limits: Limits | None = None,
    failing: bool = False,
) -> AsyncIterator[Served]:
    """Run a server, and stop it at the end of the block; then no handler may have failed, unless it should."""
    limits = limits or Limits()
    served = Served(0)

    async def watched(request: WebTransportRequest) -> None:
        try:
            await on_session(request)
        except Exception as error:
            if not only_closed(error):
                served.failures.append(error)
            raise

    async def handle(connection: QuicConnection) -> None:
        served.connections.append(connection)
        try:
            requests = None if app is None else AsgiServer(app, config, connection.peer).start
            await serve_http3(connection, watched, on_request=requests, limits=limits)
        finally:
            served.ended.append(connection)
            served.changed.set()

    settings = ServerSettings(alpns=("h3",), identity=lambda: IDENTITY, limits=limits)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(serve_quic, handle, "127.0.0.1", 0, settings))
        served.port, served.listener = listener.port, listener
        try:
            yield served
        finally:
            nursery.cancel_scope.cancel()
    if served.failures and not failing:
        raise served.failures[0]


@asynccontextmanager
async def connected(port: int, limits: Limits | None = None) -> AsyncIterator[QuicConnection]:
    """Connect our own client, without asking for a session."""
    settings = ClientSettings(alpns=("h3",), server_name="localhost", limits=limits or Limits(), verify=False)
    async with connect_quic("127.0.0.1", port, settings) as connection:
        yield connection


@asynccontextmanager
async def session_to(
    port: int,
    path: str = "/",
    protocols: tuple[str, ...] = (),
    *,
    origin: str | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[WebTransportSession]:
    """Connect our own client and open a session."""
    limits = limits or Limits()
    async with (
        connected(port, limits) as connection,
        open_webtransport(connection, f"localhost:{port}", path, protocols, origin=origin, limits=limits) as session,
    ):
        yield session


async def read_all(stream: Any) -> bytes:
    """Read a stream to its end."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data


async def check_echoes(session: WebTransportSession, data: bytes) -> None:
    """Check that the peer echoes a bidirectional and a unidirectional stream, and a datagram."""
    stream = await session.open_bidi()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await send_all(stream, data)
            stream.finish()

        nursery.start_soon(send)
        assert await read_all(stream) == data
    outgoing = await session.open_uni()
    await send_all(outgoing, b"one way")
    outgoing.finish()
    assert await read_all(await accept_uni(session)) == b"one way"
    session.send_datagram(b"datagram")
    assert await receive_datagram(session) == b"datagram"


async def send_forever(stream: Any) -> None:
    """Send until that fails."""
    while True:
        await send_all(stream, b"x")


class Accepting:
    """A handler that accepts, chooses the first subprotocol, and hands the sessions to the test."""

    def __init__(self):
        self._send, self._receive = trio.open_memory_channel(16)

    async def __call__(self, request):
        session = request.accept(request.protocols[0] if request.protocols else None)
        await self._send.send(session)
        await session.wait_closed()

    async def session(self):
        return await self._receive.receive()
