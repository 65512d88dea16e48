"""A subscriber that allows streams and bytes on the connection, and next to none on any stream."""

from __future__ import annotations

import tracemalloc
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import MIB
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import AnnounceRequest, Message, StreamKind, Subscribe
from tests.faults.quic_hostile import Hostile, hostile_client
from tests.transport.recorders import eventually

DIALECT = dialects.get("moq-lite-06")
SETUP = bytes.fromhex("010100")
GROUPS, GROUP_BYTES = 64, 128 * 1024
MORE_GROUPS = 70
SUBSCRIBERS = 200
SUBSCRIPTION_BYTES = 28 * 1024
"""What a subscription takes in all, its stream on both sides included: both are in this process."""


def withhold(credit: int, hostile: Hostile) -> None:
    """Have a client grant everything, but no more than this many bytes on a stream."""
    quic = hostile.quic
    quic._local_max_stream_data_uni = quic._local_max_stream_data_bidi_local = credit
    quic._local_max_data.value = 1 << 40
    quic._local_max_streams_uni.value = 1 << 20
    quic._write_stream_limits = lambda *_, **__: None


def ask(hostile: Hostile, number: int, kind: StreamKind, request: Message) -> None:
    """Make the client's request of this number, from 0 on."""
    hostile.quic.send_stream_data(4 * number, DIALECT.stream_type(kind) + DIALECT.encode(request))


def everything(subscribe_id: int) -> Subscribe:
    """A subscription to all that is kept."""
    return Subscribe(subscribe_id, "b", "t", priority=0, ordered=False, max_age_ms=3_600_000, start_group=0)


@asynccontextmanager
async def withheld(broadcast: moqt.Broadcast, credit: int, *, copies: int = 1):
    """Yield the hostile client, and our session with it, which publishes the broadcast."""
    sessions: list[moqt.Session] = []

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast), trio.open_nursery() as nursery:
            for number in range(1, copies):
                await nursery.start(publish, session, f"{number:0100}")
            sessions.append(session)
            await session.wait_closed()

    async def publish(session: moqt.Session, path: str, task_status) -> None:
        async with session.publish(path, moqt.Broadcast()):
            task_status.started()
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
        async with hostile_client(listener.port, partial(withhold, credit)) as hostile:
            hostile.quic.send_stream_data(2, SETUP, True)
            hostile.flush()
            await eventually(lambda: bool(sessions))
            yield hostile, sessions[0]
            hostile.quic.close()
            hostile.flush()
        nursery.cancel_scope.cancel()


def held(session: moqt.Session) -> int:
    """The bytes in a session's send buffers."""
    return sum(len(stream.sender._buffer) for stream in dict.values(engine(session)._quic._streams))


def engine(session: moqt.Session):
    """A session's QUIC engine."""
    return session._context.connection._engine


async def at_rest(read) -> int:
    """Wait until a number stays the same; return it."""
    last, same = -1, 0
    while same < 5:
        await trio.sleep(0.1)
        now = read()
        same = same + 1 if now == last else 0
        last = now
    return last


async def publish_groups(track: moqt.Track, count: int) -> None:
    """Publish groups of eight frames, 128 KiB each."""
    for _ in range(count):
        async with track.open_group() as group:
            for _ in range(8):
                await group.send(bytes(GROUP_BYTES // 8))


@pytest.mark.parametrize(("delivery", "credit"), [("live", 0), ("reliable", 0), ("live", 1)])
async def test_streams_without_credit(delivery, credit):
    """What the streams of a session hold stays within `send_buffer`, however many subscriptions have no credit."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery=delivery, max_age=3600)
    await publish_groups(track, GROUPS)
    limit = moqt.Limits().send_buffer
    assert limit == 4 * MIB
    with trio.fail_after(60):
        async with withheld(broadcast, credit) as (hostile, session):
            tracemalloc.start()
            try:
                for number in range(SUBSCRIBERS):
                    ask(hostile, number, StreamKind.SUBSCRIBE, everything(number))
                hostile.flush()
                await eventually(lambda: len(session._publisher.subscriptions) == SUBSCRIBERS)
                streams = await at_rest(lambda: engine(session)._quic.opened)
                grown = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            print(f"\n{delivery}, {credit} B a stream: {streams} streams, {held(session)} B, +{grown / MIB:.1f} MiB")
            assert engine(session).send_held <= limit
            # No byte waits for credit but those of a header.
            assert held(session) <= 32 * streams
            assert grown <= limit + SUBSCRIBERS * SUBSCRIPTION_BYTES


async def test_streams_with_a_little_credit():
    """Nor does it exceed that while some of it is on its way."""
    broadcast = moqt.Broadcast()
    await publish_groups(broadcast.track("t", max_age=3600), GROUPS)
    most = 0
    with trio.fail_after(60):
        async with withheld(broadcast, 5000) as (hostile, session):
            for number in range(SUBSCRIBERS):
                ask(hostile, number, StreamKind.SUBSCRIBE, everything(number))
            hostile.flush()
            for _ in range(300):
                await trio.sleep(0.01)
                most = max(most, engine(session).send_held)
    print(f"\nat most {most} bytes")
    assert MIB < most <= moqt.Limits().send_buffer


async def test_a_live_track_drops_and_a_reliable_one_waits():
    """The writer of a live track goes on, and old groups are dropped; that of a reliable track waits."""
    broadcast = moqt.Broadcast()
    live = broadcast.track("t", max_age=3600)
    reliable = broadcast.track("r", delivery="reliable")
    with trio.fail_after(60):
        async with withheld(broadcast, 100) as (hostile, session):
            ask(hostile, 0, StreamKind.SUBSCRIBE, everything(0))
            ask(hostile, 1, StreamKind.SUBSCRIBE, Subscribe(1, "b", "r", priority=0, ordered=True, max_age_ms=0))
            hostile.flush()
            await live.wait_subscribed()
            await reliable.wait_subscribed()
            await publish_groups(live, MORE_GROUPS)
            with trio.move_on_after(0.5) as waited:
                await publish_groups(reliable, MORE_GROUPS)
            assert waited.cancelled_caught
            await eventually(lambda: session.statistics().groups_dropped > 0)
            assert held(session) <= 8 * 1024


async def test_announcements_without_credit():
    """Lists of announcements that the peer asks for again and again, and takes nothing of, stay within the bound."""
    with trio.fail_after(60):
        async with withheld(moqt.Broadcast(), 1, copies=300) as (hostile, session):
            for number in range(250):
                ask(hostile, number, StreamKind.ANNOUNCE, AnnounceRequest(""))
            hostile.flush()
            await at_rest(lambda: held(session))
            print(f"\n{held(session)} bytes in 250 lists of 300 paths")
            assert held(session) <= moqt.Limits().send_buffer
