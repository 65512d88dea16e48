"""Thousands of requests, lists and announcements of one peer: each has a bound, and the next client is served."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.publisher import rate
from moqt_trio.testing import session_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.raw_peer import code_of_reset, settled
from tests.faults.served import MIB, served
from tests.faults.state_peer import VIOLATED, closing, hostile, still_serves, stopped_with
from tests.faults.state_wire import ALL, DEVELOP, LITE_01, LITE_02, LITE_03, LITE_06, TRANSFORK, Wire
from tests.machine import seconds
from tests.transport.awaiting import accept_bidi

ROOM = 20 * MIB
"""Bytes by which a flood may make the server's process grow."""
each_version = pytest.mark.parametrize("version", ALL)
TRANSPORTS = pytest.mark.parametrize("transport", ["quic", "webtransport"])
KINDS = pytest.mark.parametrize("version", [LITE_06, LITE_03, TRANSFORK, DEVELOP])


def no_capacity(version: str, space: str) -> int:
    """Return the code that the version has for a peer that asks for too much."""
    return dialects.get(version).codes.to_wire(space, moqt.StreamCode.NO_CAPACITY)


# -- subscriptions --------------------------------------------------------------------------------------------


async def flood_subscriptions(peer, wire: Wire, count: int) -> list:
    """Subscribe so many times, or until the peer allows no further stream for half a second; return the streams."""
    streams = []
    for number in range(count):
        with trio.move_on_after(0.5) as waited:
            stream = await peer.open_bidi()
        if waited.cancelled_caught or peer.closed is not None:
            break
        stream.write(wire.subscribe(number))
        streams.append(stream)
    return streams


@TRANSPORTS
@KINDS
async def test_ten_thousand_subscriptions(transport, version):
    """A peer that wants 10,000 has as many as it may open streams; they take at most 20 MiB, and others are served."""
    async with served() as server, server.peer(transport, version) as (peer, wire):
        streams = await flood_subscriptions(peer, wire, 10_000)
        # The session's own streams count, too: that of the handshake, that of WebTransport's CONNECT.
        assert moqt.Limits().max_streams - 3 <= len(streams) <= moqt.Limits().max_streams
        await server.check_next_client("moqt", "https")
        grown = await server.grown()
        print(f"\n{version} over {transport}: {len(streams)} subscriptions, the server grew by {grown / MIB:.1f} MiB")
        assert grown <= ROOM
        assert peer.closed is None


@each_version
async def test_more_subscriptions_than_a_session_may_have(version):
    """Where streams do not run out first, 1,024 are served, the next 1,024 are refused, and one more ends the
    session."""
    bound = moqt.Limits().max_subscriptions
    assert bound == 1024
    limits = moqt.Limits(max_streams=12_000, request_burst=12_000)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile(version, limits=limits) as (peer, session, wire), session.publish("b", broadcast):
        streams = []
        for number in range(2 * bound):
            stream = await peer.open_bidi()
            stream.write(wire.subscribe(number))
            streams.append(stream)
        await settled()
        assert track.subscribers == bound
        assert {stopped_with(stream) for stream in streams[:bound]} == {None}
        assert {stopped_with(stream) for stream in streams[bound:]} == {no_capacity(version, "subscribe")}
        assert session.closed is None
        (await peer.open_bidi()).write(wire.subscribe(10_000))
        assert await closing(peer) == VIOLATED
        await settled()
        assert track.subscribers == 0


# -- the peer's announcements ---------------------------------------------------------------------------------


def long_path(number: int, size: int) -> str:
    """Return a path of so many bytes, with a part for a track at its end."""
    start = f"{number:06}"
    return start + "x" * (size - len(start) - 2) + "/t"


async def flood_announcements(peer, wire: Wire, count: int, size: int):
    """Answer our request for announcements with so many paths of so many bytes; return the stream."""
    with trio.fail_after(5):
        stream = await accept_bidi(peer)
        assert (await stream.receive_some())[:1] == b"\x01"
    if wire.version not in (LITE_01, LITE_02):
        stream.write(wire.first())
    for number in range(count):
        if not number and wire.version in (LITE_01, LITE_02):
            stream.write(wire.first(long_path(0, size)))
            continue
        try:
            with trio.fail_after(5):
                await stream.wait_writable()
            stream.write(wire.active(long_path(number, size)))
        except moqt.StreamReset:
            break
    return stream


@pytest.mark.parametrize(("size", "fit"), [(1024, 1024), (24, 1024)], ids=["1 KiB each", "short"])
@each_version
async def test_ten_thousand_announcements(version, size, fit):
    """The list that has 1,024, or 1 MiB of them, is reset at the next one, and what it announced has ended; the session
    goes on."""
    limits = moqt.Limits()
    assert (limits.max_announcements, limits.max_announcement_bytes) == (1024, MIB)
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        most = 0
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                nonlocal most
                active = 0
                while True:
                    change = await announcements.receive()
                    active += 1 if change.active else -1
                    most = max(most, active)

            async def read_to_the_end() -> None:
                with pytest.raises(moqt.RemoteProtocolError, match="max_announcement"):
                    await read()

            nursery.start_soon(read_to_the_end)
            stream = await flood_announcements(peer, wire, 10_000, size)
        assert most == fit
        assert await code_of_reset(stream) == no_capacity(version, "announce")
        assert announcements.active == ()
        await still_serves(peer, wire)
        assert session.closed is None


@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
@TRANSPORTS
async def test_the_memory_of_announcements(transport, reads):
    """The most that a peer may have announced takes at most 20 MiB, read or not, and others are served."""
    async with served(reads=reads) as server, server.peer(transport, LITE_06) as (peer, wire):
        await flood_announcements(peer, wire, 1024, 1024)
        with trio.fail_after(10):
            while (found := await server.figures()).announced < 1024:
                await trio.lowlevel.checkpoint()
        grown = found.resident - server.before.resident
        print(f"\nover {transport}: 1,024 announcements of 1 KiB, the server grew by {grown / MIB:.1f} MiB")
        assert grown <= ROOM
        await server.check_next_client("moqt", "https")
        assert peer.closed is None


# -- our announcements ----------------------------------------------------------------------------------------


async def flood_lists(peer, wire: Wire, count: int, within: float) -> list:
    """Ask for everything that is published, so many times or for so many seconds; return the streams."""
    streams = []
    with trio.move_on_after(within):
        for _ in range(count):
            stream = await peer.open_bidi()
            stream.write(wire.ask(""))
            streams.append(stream)
            await trio.lowlevel.checkpoint()
    return streams


@pytest.mark.parametrize("burst", [moqt.Limits().request_burst, 1_000_000], ids=["by default", "at any rate"])
@TRANSPORTS
async def test_a_list_that_is_asked_for_ten_thousand_times(transport, burst):
    """A thousand broadcasts that all match the empty prefix: the lists take at most 20 MiB, whatever the rate allows,
    and others are served."""
    async with served(paths=1000, request_burst=burst) as server, server.peer(transport, LITE_06) as (peer, wire):
        # The peer's own session has its publications.
        session = (await server.at_rest()).resident
        streams = await flood_lists(peer, wire, 10_000, seconds(2))
        await server.check_next_client("moqt", "https")
        grown = (await server.at_rest()).resident - session
        print(f"\nover {transport}: {len(streams)} lists, the server grew by {grown / MIB:.1f} MiB")
        refused = sum(stopped_with(stream) is not None for stream in streams)
        assert refused > 0 if burst > 1000 else not refused
        assert grown <= ROOM
        assert peer.closed is None


async def test_a_long_list_costs_more_than_a_short_one(autojump_clock):
    """Each list takes a token for its request and one for so many announcements; no list takes more than half a
    burst."""
    limits = moqt.Limits(request_burst=100, request_rate=10)
    async with hostile(LITE_06, limits=limits) as (peer, session, wire), AsyncExitStack() as published:
        bucket = session._publisher._rate
        for number in range(160):
            await published.enter_async_context(session.publish(f"many/{number}", moqt.Broadcast()))
        await published.enter_async_context(session.publish("one", moqt.Broadcast()))
        before = bucket.tokens
        for prefix, cost in (("one", 1), ("many", 1 + 160 // rate.ANNOUNCEMENTS_PER_TOKEN)):
            (await peer.open_bidi()).write(wire.ask(prefix))
            await settled()
            assert before - bucket.tokens == cost
            before = bucket.tokens
        for number in range(1000):
            await published.enter_async_context(session.publish(f"many/more/{number}", moqt.Broadcast()))
        (await peer.open_bidi()).write(wire.ask("many"))
        await settled()
        assert before - bucket.tokens == 1 + limits.request_burst // 2
        # A request that comes now waits until the list is paid for.
        bucket.tokens = -50
        start = trio.current_time()
        await still_serves(peer, wire)
        assert trio.current_time() - start == pytest.approx(51 / limits.request_rate, abs=0.1)


@each_version
async def test_lists_that_are_too_long_together(version):
    """One list may have any length; further ones are refused while all of them exceed the bound, and then served."""
    prefix = "many"
    limits = moqt.Limits(max_listed_announcements=100)
    async with hostile(version, limits=limits) as (peer, session, wire), AsyncExitStack() as published:
        broadcast = moqt.Broadcast()
        broadcast.track("t")
        for number in range(120):
            await published.enter_async_context(session.publish(f"{prefix}/{number}", broadcast))
        first = await peer.open_bidi()
        first.write(wire.ask(prefix))
        await settled()
        assert stopped_with(first) is None
        second = await peer.open_bidi()
        second.write(wire.ask(prefix))
        assert await code_of_reset(second) == no_capacity(version, "announce")
        first.reset(wire.cancelled)
        await settled()
        third = await peer.open_bidi()
        third.write(wire.ask(prefix))
        await settled()
        assert stopped_with(third) is None
        assert session.closed is None


async def test_lists_that_grow():
    """Lists that were short when they were asked for are bounded as they grow; one of them stays."""
    limits = moqt.Limits(max_listed_announcements=100)
    async with session_pair(limits=limits) as (client, server), AsyncExitStack() as stack:
        lists = [await stack.enter_async_context(client.announcements()) for _ in range(10)]
        async with AsyncExitStack() as published:
            for number in range(150):
                await published.enter_async_context(server.publish(f"many/{number}", moqt.Broadcast()))
                await trio.testing.wait_all_tasks_blocked()
                assert server._publisher._serving.listed <= max(limits.max_listed_announcements, number + 1)
            assert sorted(len(announcements.active) for announcements in lists) == [0] * 9 + [150]
        await trio.testing.wait_all_tasks_blocked()
        assert (server._publisher._serving.lists, server._publisher._serving.listed) == (1, 0)
