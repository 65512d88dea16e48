"""A subscriber that takes nothing, a peer that allows no streams, and one that allows no bytes."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.faults.raw_peer import group, raw_peer, settled, subscribe
from tests.transport.awaiting import accept_bidi, accept_uni

SMALL = moqt.Limits(
    stream_window=8 * 1024,
    connection_window=32 * 1024,
    send_high=8 * 1024,
    live_backlog=64 * 1024,
    live_backlog_groups=8,
    cache_bytes=128 * 1024,
)
PAYLOAD = bytes(2048)


async def test_one_stalled_subscriber_among_ten(autojump_clock):
    """Nine live subscribers get everything, the publisher never waits, and the tenth costs its bound."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", max_age=60)
    received: dict[int, list[int]] = {number: [] for number in range(9)}
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(session_pair(limits=SMALL)) for _ in range(10)]
        for _, server in pairs:
            await stack.enter_async_context(server.publish("b", broadcast))
        subscriptions = [await stack.enter_async_context(client.subscribe("b", "t", max_age=60)) for client, _ in pairs]
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def read(number: int) -> None:
            async for item in subscriptions[number]:
                assert len(await item.read_all()) == 1
                received[number].append(item.sequence)

        for number in range(9):
            nursery.start_soon(read, number)
        await settled()
        assert track.subscribers == 10
        began = trio.current_time()
        for _ in range(200):
            await track.write(PAYLOAD)
            await trio.sleep(0.001)
        assert trio.current_time() - began == pytest.approx(0.2)
        await trio.sleep(1)
        stalled_client, stalled_server = pairs[9]
        on_the_wire = stalled_client.statistics().transport.bytes_received
        dropped = stalled_server.statistics().groups_dropped
        nursery.cancel_scope.cancel()
    print(f"\nstalled: {on_the_wire} B of {200 * len(PAYLOAD)} B on the wire, {dropped} groups dropped")
    assert list(received.values()) == [list(range(200))] * 9
    assert on_the_wire <= SMALL.connection_window + 4096
    kept = 2 * SMALL.connection_window // len(PAYLOAD) + SMALL.live_backlog_groups
    assert dropped >= 200 - kept - 2
    assert all(server.statistics().groups_dropped == 0 for _, server in pairs[:9])


async def test_a_peer_that_allows_few_group_streams(autojump_clock):
    """Groups without a stream wait within the track's bound and are reported as dropped; closing is not delayed."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", max_age=60)
    async with raw_peer(limits=SMALL, peer_limits=moqt.Limits(max_streams=4)) as (peer, session):
        async with session.publish("b", broadcast):
            await accept_uni(peer)  # its SETUP, which is not read either
            request = await peer.open_bidi()
            request.write(subscribe(0))
            await track.wait_subscribed()
            with trio.fail_after(1):
                for number in range(50):
                    await track.write(b"%d" % number, timestamp=0)
            await settled()
            streams = [await accept_uni(peer) for _ in range(3)]
            with trio.move_on_after(1) as none_left:
                await accept_uni(peer)
            assert none_left.cancelled_caught
            assert session.statistics().groups_dropped >= 50 - 3 - SMALL.live_backlog_groups - 1
            assert (await streams[0].receive_some()).startswith(group(0, 0)[:3])
            assert await streams[0].receive_some() == b""
            # A stream is free again: the newest group comes next, and it was not dropped.
            assert await (await accept_uni(peer)).receive_some() == group(0, 49, b"49")
            began = trio.current_time()
        assert trio.current_time() - began <= SMALL.close_timeout
        assert session.closed is None


async def test_a_peer_that_allows_no_requests(autojump_clock):
    """Our requests wait for a stream, can be cancelled without a trace, and go on when one is free."""
    async with raw_peer("moq-lite-03", peer_limits=moqt.Limits(max_streams=1)) as (peer, session):
        async with session.announcements("first"):
            for block in (
                session.announcements("second"),
                session.subscribe("b", "t"),
                session.fetch("b", "t", 0),
            ):
                with trio.move_on_after(1) as waiting:
                    async with block:
                        raise AssertionError("there was a stream")
                assert waiting.cancelled_caught
            assert session.statistics().subscriptions == 0
            first = await accept_bidi(peer)
            assert await first.receive_some() == b"\x01\x06\x05first"
        with pytest.raises(moqt.StreamReset):
            await first.receive_some()
        first.reset(0)
        with trio.fail_after(1):
            async with session.announcements("third"):
                third = await accept_bidi(peer)
                assert await third.receive_some() == b"\x01\x06\x05third"


@pytest.mark.parametrize("delivery", ["live", "reliable"])
async def test_a_peer_that_allows_no_bytes_while_we_close(delivery, autojump_clock):
    """Closing is forced after `Limits.close_timeout`, however much waits for a peer that takes nothing."""
    stalled = moqt.Limits(stream_window=64, connection_window=256)
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", delivery=delivery)
    async with raw_peer(limits=SMALL, peer_limits=stalled) as (peer, session), session.publish("b", broadcast):
        request = await peer.open_bidi()
        request.write(subscribe(0))
        await track.wait_subscribed()
        await track.write(bytes(4096))
        async with trio.open_nursery() as nursery:

            async def write_more() -> None:
                for _ in range(100):
                    await track.write(bytes(4096))

            nursery.start_soon(write_more)
            await settled()
            began = trio.current_time()
            await session.aclose()
            assert trio.current_time() - began <= SMALL.close_timeout + 0.1
        # The writer that waited for this subscriber has continued.
        assert track.subscribers == 0
        assert isinstance(peer.closed, moqt.SessionClosed)
        assert peer.closed.remote_code == 0
