"""On live sessions: between a client and a server of each version every byte travels alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES, PLAIN_CODES
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import StreamKind
from tests.faults.dialects import NAMES
from tests.protocol.harness import has_streams
from tests.transport.awaiting import accept_bidi, accept_uni

if TYPE_CHECKING:
    from moqt_trio.transport.memory import MemoryConnection
    from moqt_trio.transport.stream import BidiStream

PAYLOADS = (b"", b"x" * 63, b"y" * 64, b"z" * 500)


async def pump(source: BidiStream, target: BidiStream, size: int) -> None:
    """Carry one half of a stream over, in pieces."""
    try:
        while data := await source.receive_some():
            for at in range(0, len(data), size):
                target.write(data[at : at + size])
        target.finish()
    except moqt.StreamReset as error:
        target.reset(error.code)
    except (moqt.SessionClosed, trio.ClosedResourceError):
        pass


async def relay(source: MemoryConnection, target: MemoryConnection, size: int, nursery: trio.Nursery) -> None:
    """Open on one connection each stream that the peer opens on the other, and forward its bytes."""

    async def bidirectional() -> None:
        while True:
            stream = await accept_bidi(source)
            other = await target.open_bidi()
            nursery.start_soon(pump, stream, other, size)
            nursery.start_soon(pump, other, stream, size)

    async def unidirectional() -> None:
        while True:
            stream = await accept_uni(source)
            nursery.start_soon(pump, stream, await target.open_uni(), size)

    try:
        async with trio.open_nursery() as both:
            both.start_soon(bidirectional)
            both.start_soon(unidirectional)
    except* moqt.SessionClosed:
        pass


@asynccontextmanager
async def run(connection: MemoryConnection, name: str) -> AsyncIterator[moqt.Session]:
    """Run a session, with the handshake where the version has one."""
    async with run_session(connection, [dialects.get(name)], limits=moqt.Limits()) as session:
        yield session


async def conversation(name: str, size: int) -> list[object]:
    """Return what a client reads from a server when no piece on the way has more bytes than this."""
    heard: list[object] = []
    finished = trio.Event()

    async def serve(connection: MemoryConnection) -> None:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video", delivery="reliable")
        async with run(connection, name) as session, session.publish("live/cam", broadcast):
            await track.wait_subscribed()
            for _ in range(3):
                async with track.open_group() as group:
                    for payload in PAYLOADS:
                        await group.send(payload, timestamp=70_000)
            await finished.wait()

    async def subscribe(connection: MemoryConnection) -> None:
        async with run(connection, name) as session:
            async with session.announcements("live") as announcements:
                change = await announcements.receive()
                heard.append((str(change.path), change.active))
            async with session.subscribe("live/cam", "video", priority=200, ordered=True) as subscription:
                groups = {}
                for _ in range(3):
                    group = await subscription.receive()
                    groups[group.sequence] = [(bytes(frame), frame.timestamp) for frame in await group.read_all()]
                heard.append(sorted(groups.items()))
                await subscription.update(priority=3)
                heard.append(await subscription.track_properties())
                if has_streams(name, StreamKind.FETCH):
                    async with session.fetch("live/cam", "video", 1) as reader:
                        heard.append(await reader.read_all())
            async with session.subscribe("live/cam", "nothing") as subscription:
                with pytest.raises(moqt.NotFound):
                    await subscription.receive()
            heard.append(session.closed)
            finished.set()

    with trio.fail_after(60):
        dialect = dialects.get(name)
        protocol = None if dialect.in_band else name
        async with (
            open_memory_pair(protocol=protocol) as (client, between),
            open_memory_pair(protocol=protocol) as (beyond, server),
        ):
            for side in (between, beyond):
                side.code_mapping = PLAIN_CODES if dialect.quirks.plain_codes else HTTP3_CODES
            async with trio.open_nursery() as carrying:
                carrying.start_soon(relay, between, beyond, size, carrying)
                carrying.start_soon(relay, beyond, between, size, carrying)
                async with trio.open_nursery() as sides:
                    sides.start_soon(serve, server)
                    sides.start_soon(subscribe, client)
                carrying.cancel_scope.cancel()
    return heard


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_is_the_same_one_byte_at_a_time(name, autojump_clock):
    """Announcements, groups, properties, a fetch and a refusal come out alike when every byte travels alone."""
    heard = await conversation(name, 1 << 20)
    groups = heard[1]
    first = groups[0][0]
    assert [number for number, _ in groups] == [first, first + 1, first + 2]
    assert all([payload for payload, _ in frames] == list(PAYLOADS) for _, frames in groups)
    assert await conversation(name, 1) == heard
