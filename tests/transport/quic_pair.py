"""A QUIC client and server on loopback, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.limits import Limits
from moqt_trio.transport.quic import client, server
from moqt_trio.transport.quic.aioquic.packets import AioquicFactory
from moqt_trio.transport.quic.connection import QuicConnection
from moqt_trio.transport.quic.settings import ClientSettings, ServerIdentity, ServerSettings

if TYPE_CHECKING:
    from moqt_trio.transport.quic.server import QuicListener

ALPN = "moq-lite-06"
CERTIFICATE = development_certificate()
IDENTITY = ServerIdentity(CERTIFICATE.certificate, CERTIFICATE.chain, CERTIFICATE.private_key)

Handler = Callable[[QuicConnection], Awaitable[object]]

connect_quic = partial(client.connect_quic, engine=AioquicFactory())
"""`connect_quic` with the default engine."""


async def serve_quic(*arguments: object, **options: object) -> None:
    """`serve_quic` with a default engine of its own, whose keys no other listener has."""
    await server.serve_quic(*arguments, **{"engine": AioquicFactory(), **options})


def client_settings(limits: Limits | None = None, **changes: object) -> ClientSettings:
    """Settings of a client that trusts the tests' server."""
    settings = {"alpns": (ALPN,), "server_name": "localhost", "fingerprints": (CERTIFICATE.fingerprint,), **changes}
    return ClientSettings(limits=limits or Limits(), **settings)


def server_settings(limits: Limits | None = None, **changes: object) -> ServerSettings:
    """Settings of the tests' server."""
    settings = {"alpns": (ALPN,), "identity": lambda: IDENTITY, **changes}
    return ServerSettings(limits=limits or Limits(), **settings)


async def until_closed(connection: QuicConnection) -> None:
    """A handler that does nothing."""
    await connection.wait_closed()


@asynccontextmanager
async def serving(
    handler: Handler = until_closed, limits: Limits | None = None, host: str | None = "127.0.0.1", **changes: object
) -> AsyncIterator[QuicListener]:
    """Run a server, and close it at the end of the block."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(serve_quic, handler, host, 0, server_settings(limits, **changes)))
        yield listener
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def quic_pair(
    limits: Limits | None = None, *, client_limits: Limits | None = None
) -> AsyncIterator[tuple[QuicConnection, QuicConnection]]:
    """Yield both ends of one connection."""
    accepted: list[QuicConnection] = []
    arrival = trio.Event()

    async def accept(connection: QuicConnection) -> None:
        accepted.append(connection)
        arrival.set()
        await connection.wait_closed()

    async with (
        serving(accept, limits) as listener,
        connect_quic("127.0.0.1", listener.port, client_settings(client_limits or limits)) as client,
    ):
        await arrival.wait()
        yield client, accepted[0]
