"""Both ends of a session in one process, and groups that go from one to the other while the network has faults."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.transport.quic.connection import QuicConnection

_CERTIFICATE = moqt.development_certificate()

SCHEMES = ["moqt", "https"]
"""Raw QUIC and WebTransport."""
FRAMES, FRAME_BYTES = 2, 300
"""Frames of a group, and bytes of a frame: two groups fill a packet."""


@attrs.frozen
class Ends:
    """One session.

    Attributes:
        listener: The server's listener.
        client: The session at the client.
        server: The session at the server.
        server_ended: Set once the server's handler has left the session.
    """

    listener: moqt.Listener
    client: moqt.Session
    server: moqt.Session
    server_ended: trio.Event


@asynccontextmanager
async def serving(
    handler: Callable[[moqt.Session], Awaitable[object]], limits: moqt.Limits | None = None
) -> AsyncIterator[moqt.Listener]:
    """Run a server whose handler has a session to itself."""

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            await handler(session)

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handle, "127.0.0.1", 0, certificate=_CERTIFICATE, limits=limits or moqt.Limits())
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


def connect(scheme: str, port: int, limits: moqt.Limits | None = None, *, versions: list[str] | None = None):
    """Connect to the server, or to a proxy before it."""
    url = f"{scheme}://127.0.0.1:{port}/"
    fingerprint = _CERTIFICATE.fingerprint
    return moqt.connect(url, fingerprint=fingerprint, limits=limits or moqt.Limits(), versions=versions)


@asynccontextmanager
async def open_ends(
    scheme: str, *, limits: moqt.Limits | None = None, proxy: Callable[[int], object] | None = None
) -> AsyncIterator[Ends]:
    """Run a server and a client of it.

    Args:
        scheme: The transport.
        limits: Those of both sides.
        proxy: Returns a block that runs a proxy before the server's port, as `udp_proxy` does.
    """
    arrived, left = trio.Event(), trio.Event()
    sessions = []

    async def handler(session: moqt.Session) -> None:
        sessions.append(session)
        arrived.set()
        await session.wait_closed()
        left.set()

    async with serving(handler, limits) as listener:
        if proxy is None:
            async with connect(scheme, listener.port, limits) as client:
                await arrived.wait()
                yield Ends(listener, client, sessions[0], left)
            return
        async with proxy(listener.port) as before, connect(scheme, before.port, limits) as client:
            await arrived.wait()
            yield Ends(listener, client, sessions[0], left)


def connection_of(session: moqt.Session) -> QuicConnection:
    """Return the QUIC connection of a session."""
    connection = session._context.connection
    return connection if isinstance(connection, QuicConnection) else connection._connection


def tasks_in(nursery: trio.Nursery) -> int:
    """Return the tasks of a nursery, and of the nurseries inside them."""
    return sum(1 + sum(map(tasks_in, task.child_nurseries)) for task in nursery.child_tasks)


def frames_of(sequence: int) -> list[bytes]:
    """Return what a group has: different bytes for each sequence, and the same ones each time."""
    chance = random.Random(sequence)
    return [chance.randbytes(FRAME_BYTES) for _ in range(FRAMES)]


async def transfer(
    ends: Ends,
    sender: Literal["client", "server"],
    count: int,
    *,
    before: Callable[[int], Awaitable[object]] | None = None,
) -> None:
    """Send groups of a reliable track to the other side, and check that each arrives once and whole.

    Args:
        ends: The session.
        sender: Which side publishes.
        count: How many groups.
        before: Called with a sequence before the group is written.
    """
    publisher, subscriber = (ends.client, ends.server) if sender == "client" else (ends.server, ends.client)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=3600)
    received: dict[int, list[bytes]] = {}

    async def write() -> None:
        await track.wait_subscribed()
        for sequence in range(count):
            if before is not None:
                await before(sequence)
            async with track.open_group(sequence) as group:
                for frame in frames_of(sequence):
                    await group.send(frame)
        track.finish()

    async with publisher.publish(sender, broadcast), trio.open_nursery() as nursery:
        nursery.start_soon(write)
        async with subscriber.subscribe(sender, "t", max_age=3600, start_group=0) as subscription:
            async for group in subscription:
                assert group.sequence not in received
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]
        assert not subscription.dropped
    assert sorted(received) == list(range(count))
    assert all(frames == frames_of(sequence) for sequence, frames in received.items())
