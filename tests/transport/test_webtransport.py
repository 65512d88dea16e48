"""WebTransport on loopback: the conformance suite, over real QUIC and over the memory transport."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.transport.webtransport.server import serve_http3
from tests.transport import conformance
from tests.transport.webtransport.serving import serving, session_to

HTTP3_STREAMS = 3
"""Unidirectional streams that HTTP/3 itself keeps open in each direction."""

HTTP3_BYTES = 128
"""Bytes of the connection's window that HTTP/3 has used on QUIC, which sends no credit for so few."""


def with_room(limits, used=0):
    """Return limits that leave to the session what a check expects."""
    return attrs.evolve(
        limits,
        max_streams=limits.max_streams + HTTP3_STREAMS,
        connection_window=limits.connection_window + used,
    )


class Accepted:
    """A handler that accepts one session and hands it to the test."""

    def __init__(self):
        self.session = None
        self.ready = trio.Event()

    async def __call__(self, request):
        self.session = request.accept()
        self.ready.set()
        await self.session.wait_closed()


@asynccontextmanager
async def over_quic(limits):
    """Both ends of one session on a QUIC connection of its own."""
    limits = with_room(limits, HTTP3_BYTES)
    accepted = Accepted()
    async with serving(accepted, limits=limits) as served, session_to(served.port, limits=limits) as client:
        await accepted.ready.wait()
        yield client, accepted.session


@asynccontextmanager
async def over_memory(limits):
    """Both ends of one session, without a network."""
    limits = with_room(limits)
    accepted = Accepted()
    async with open_memory_pair(limits=limits) as (client, server), trio.open_nursery() as nursery:

        async def serve():
            await serve_http3(server, accepted, limits=limits)

        nursery.start_soon(serve)
        async with open_webtransport(client, "localhost", "/", (), limits=limits) as session:
            await accepted.ready.wait()
            yield session, accepted.session
        client.close()


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_webtransport_conforms(check):
    """WebTransport on QUIC keeps the rules of every transport."""
    await conformance.run_check(check, over_quic)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_webtransport_over_memory_conforms(check):
    """WebTransport on the memory transport keeps the rules of every transport."""
    await conformance.run_check(check, over_memory)
