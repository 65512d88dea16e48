"""A peer of any version that writes its bytes by hand, with one of our sessions on the other side."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.memory import MemoryConnection, open_memory_pair
from moqt_trio.transport.quic.settings import ClientSettings
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import Setup
from tests.faults.raw_peer import code_of_reset
from tests.faults.state_wire import IN_BAND, PROTOCOL_VIOLATION, TUPLES, WITH_SETUP, Wire, protocol_of
from tests.transport.awaiting import accept_bidi, accept_uni
from tests.transport.quic_pair import connect_quic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from moqt_trio.transport.connection import Connection
    from moqt_trio.transport.link import Link

VIOLATED = (PROTOCOL_VIOLATION, True)
"""What `closing` returns when we closed the session for a violation of the protocol."""


async def read_exactly(stream, size: int) -> bytes:
    """Read so many bytes of a stream."""
    data = b""
    with trio.fail_after(10):
        while len(data) < size:
            piece = await stream.receive_some(size - len(data))
            assert piece, f"the stream ended after {data.hex()}"
            data += piece
    return data


async def greet(peer, wire: Wire, *, setup: bool = True) -> None:
    """Do the client's part in starting a session, without waiting for the server's."""
    if wire.version in IN_BAND:
        stream = await peer.open_bidi()
        stream.write(wire.hello)
    elif wire.version in WITH_SETUP and setup:
        stream = await peer.open_uni()
        stream.write(wire.setup, fin=True)


async def take_setup(peer, wire: Wire) -> None:
    """Take our SETUP, where there is one, so that the next unidirectional stream is a group."""
    if wire.version in WITH_SETUP:
        stream = await accept_uni(peer)
        assert (await stream.receive_some())[:1] == b"\x01"


async def _answer(peer: MemoryConnection, wire: Wire) -> None:
    stream = await accept_bidi(peer)
    assert (await stream.receive_some())[:1] == wire.hello[:1]
    stream.write(wire.welcome)


@asynccontextmanager
async def hostile(
    version: str,
    *,
    limits: moqt.Limits | None = None,
    peer_is_client: bool = True,
    setup: bool = True,
    link: Link | None = None,
) -> AsyncIterator[tuple[MemoryConnection, moqt.Session, Wire]]:
    """Run a session of ours; yield its peer's connection, the session, and the version's bytes.

    Args:
        version: What both speak.
        limits: The bounds of our side.
        peer_is_client: Which side the hand-written peer is.
        setup: False for a peer that sends no SETUP.
        link: What lies between the two; None for a perfect link without delay.
    """
    wire = Wire(version)
    limits, usual = without_track_wait(limits), moqt.Limits()
    sides = (limits, usual) if peer_is_client else (usual, limits)
    protocol = protocol_of(version)
    async with open_memory_pair(limits=sides[0], client_limits=sides[1], link=link, protocol=protocol) as pair:
        peer, ours = pair if peer_is_client else reversed(pair)
        dialect = dialects.get(version)
        peer.code_mapping = wire.mapping
        async with trio.open_nursery() as nursery:
            if version in IN_BAND and not peer_is_client:
                nursery.start_soon(_answer, peer, wire)
            else:
                await greet(peer, wire, setup=setup)
            async with run_session(ours, [dialect], limits=limits, path="/a", setup=Setup(hop_id=11)) as session:
                await take_setup(peer, wire)
                yield peer, session, wire


def without_track_wait(limits: moqt.Limits | None) -> moqt.Limits:
    """Return limits with which a missing track is refused at once, also in the versions that would wait for it."""
    return attrs.evolve(limits or moqt.Limits(), track_wait_timeout=0.01)


@asynccontextmanager
async def hostile_over(
    transport: str, version: str, *, limits: moqt.Limits | None = None
) -> AsyncIterator[tuple[Connection, moqt.Session, Wire]]:
    """Do what `hostile` does, for a client on loopback too: `transport` is `memory`, `quic` or `webtransport`."""
    if transport == "memory":
        async with hostile(version, limits=limits) as triple:
            yield triple
        return
    limits = without_track_wait(limits)
    accepted: list[moqt.Session] = []
    arrived = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            accepted.append(session)
            arrived.set()
            await session.wait_closed()

    router = moqt.Router({"/a": handler}, default="/a")
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, router, "localhost", 0, versions=[version], limits=limits)
        listener = await nursery.start(serve)
        async with open_peer(transport, version, listener.port) as (peer, wire):
            with trio.fail_after(10):
                await arrived.wait()
            await take_setup(peer, wire)
            yield peer, accepted[0], wire
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_peer(transport: str, version: str, port: int) -> AsyncIterator[tuple[Connection, Wire]]:
    """Open a connection without a session to a server on loopback, over `quic` or `webtransport`, and greet it."""
    wire, web, name = Wire(version), transport == "webtransport", protocol_of(version)
    settings = ClientSettings(
        alpns=("h3",) if web else (name,), server_name="localhost", limits=moqt.Limits(), verify=False
    )
    async with AsyncExitStack() as stack:
        peer: Connection = await stack.enter_async_context(connect_quic("localhost", port, settings))
        if web:
            names = () if version in TUPLES else (name,)
            session = open_webtransport(peer, f"localhost:{port}", "/a", names, limits=moqt.Limits())
            peer = await stack.enter_async_context(session)
        peer.code_mapping = HTTP3_CODES if web else wire.mapping
        await greet(peer, wire)
        yield peer, wire
        await peer.aclose()


async def still_serves(peer, wire: Wire, subscribe_id: int = 60) -> None:
    """Subscribe to a track that does not exist: only a running session refuses it."""
    stream = await peer.open_bidi()
    stream.write(wire.subscribe(subscribe_id, "absent", "absent"))
    assert await code_of_reset(stream) == wire.no_track


async def answer_subscription(peer, wire: Wire, *, accept: bool = True):
    """Take our request for a track of `b`, and first for its properties; return the subscription's stream."""
    if wire.version in WITH_SETUP:
        info = await accept_bidi(peer)
        assert (await info.receive_some())[:1] == b"\x06"
        info.write(wire.track_info(), fin=True)
    stream = await accept_bidi(peer)
    assert (await stream.receive_some())[:1] == b"\x02"
    if accept:
        stream.write(wire.accepted())
    return stream


def stopped_with(stream) -> int | None:
    """Return the code that a stream was stopped with; None while it is not stopped."""
    try:
        stream.write(b"")
    except moqt.StreamReset as error:
        return error.code
    return None


async def closing(peer) -> tuple[int | None, bool]:
    """Wait until our session has closed; return its code, and whether we closed it."""
    with trio.fail_after(10):
        error = await peer.wait_closed()
    assert isinstance(error, moqt.SessionClosed)
    return error.remote_code, error.by_peer
