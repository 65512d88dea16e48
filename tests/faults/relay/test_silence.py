"""Sources that never answer, or not to the end, or refuse by turns: a viewer's request ends, and nothing stays."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import settled
from tests.faults.relayed import check_nothing_left, raw_source
from tests.relay.relays import relay
from tests.transport.recorders import eventually

REPLY = moqt.Limits().reply_timeout
SUBSCRIBE, FETCH, TRACK = 0x02, 0x03, 0x06


@asynccontextmanager
async def raw_and_viewer(origin: moqt.Origin):
    """Run a relay with a hand-written publisher of `live`, and a viewer."""
    async with raw_source(origin) as peer, relay(origin) as found, found.connect() as viewer:
        peer.announce("live", 5)
        await eventually(origin.routes)
        yield peer, viewer


async def refused(viewer: moqt.Session, track: str = "video") -> float:
    """Subscribe until that is refused; return after how many seconds."""
    began = trio.current_time()
    async with viewer.subscribe("live", track) as subscription:
        with pytest.raises((moqt.NotFound, moqt.StreamReset)):
            await subscription.receive()
    return trio.current_time() - began


async def test_a_track_request_that_is_never_answered(autojump_clock):
    """The viewer's subscription ends within `reply_timeout`, and the request to the source, too."""
    origin = moqt.Origin()
    async with raw_and_viewer(origin) as (peer, viewer):
        assert await refused(viewer) <= REPLY + 1
        await eventually(lambda: not origin.statistics().tracks)
        assert [front.pulls for front in origin._sharing.fronts] == [()]
        assert peer.session.closed is None
    await check_nothing_left(origin)


async def test_a_subscription_that_is_never_answered(autojump_clock):
    """A source describes the track, and then nothing: the subscription stays as one to a publisher does, and ends with
    its viewer."""
    origin = moqt.Origin()
    async with raw_and_viewer(origin) as (peer, viewer):
        async with viewer.subscribe("live", "video") as subscription:
            info = await peer.asked(TRACK)
            info.write(peer.wire.track_info(), fin=True)
            stream = await peer.asked(SUBSCRIBE)
            with trio.move_on_after(3 * REPLY), pytest.raises(moqt.StreamReset):
                await subscription.receive()
        with pytest.raises(moqt.StreamReset):
            await stream.receive_some()
        await eventually(lambda: not origin.statistics().subscriptions)
        assert peer.session.closed is None
    await check_nothing_left(origin)


@asynccontextmanager
async def with_track(origin: moqt.Origin):
    """The same with a viewer that reads a track of which group 5 was published."""
    async with raw_and_viewer(origin) as (peer, viewer), viewer.subscribe("live", "video") as subscription:
        await peer.subscribed()
        await peer.group(5, b"five")
        assert await (await subscription.receive()).read_all() == [b"five"]
        yield peer, viewer


async def test_a_fetch_that_is_never_answered(autojump_clock):
    """It ends within `reply_timeout` for all who share it; the subscription goes on."""
    origin = moqt.Origin()
    async with with_track(origin) as (peer, viewer):
        ended = []

        async def fetch() -> None:
            async with viewer.fetch("live", "video", 1) as group:
                with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                    await group.read_all()
            ended.append(trio.current_time())

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetch)
            stream = await peer.asked(FETCH)
        assert len(ended) == 5
        assert ended[-1] - began <= REPLY + 1
        with pytest.raises(moqt.StreamReset):
            await stream.receive_some()
        await eventually(lambda: not origin.statistics().fetches)
        assert origin.statistics().subscriptions == 1
    await check_nothing_left(origin)


async def test_a_fetch_whose_viewers_leave(autojump_clock):
    """A source sends the beginning of a group, and then nothing: once no one waits for it the fetch is cancelled."""
    origin = moqt.Origin()
    async with with_track(origin) as (peer, viewer):
        async with viewer.fetch("live", "video", 1) as group, viewer.fetch("live", "video", 1) as again:
            stream = await peer.asked(FETCH)
            stream.write(bytes.fromhex("00 01") + b"a")
            assert await group.receive() == b"a"
            assert await again.receive() == b"a"
            assert origin.statistics().fetches == 1
        with trio.fail_after(5), pytest.raises(moqt.StreamReset):
            await stream.receive_some()
        assert origin.statistics().fetches == 0
        async with viewer.fetch("live", "video", 1) as group:
            stream = await peer.asked(FETCH)
            stream.write(bytes.fromhex("00 01") + b"a", fin=True)
            assert await group.read_all() == [b"a"]
    await check_nothing_left(origin)


async def test_two_sources_that_refuse_by_turns(autojump_clock):
    """Two sources of one publisher describe a track and reset each subscription to it: each is asked once, and the
    viewer's subscription ends."""
    origin = moqt.Origin()
    asked = []

    async def serve(peer) -> None:
        while True:
            await peer.subscribed_and_reset()
            asked.append(trio.current_time())

    async with (
        raw_source(origin) as one,
        raw_source(origin) as other,
        relay(origin) as found,
        found.connect() as viewer,
    ):
        for peer in (one, other):
            peer.announce("live", 5)
        await eventually(lambda: len(origin.routes()) == 2)
        async with trio.open_nursery() as nursery:
            for peer in (one, other):
                nursery.start_soon(serve, peer)
            async with viewer.subscribe("live", "video") as subscription:
                with trio.move_on_after(2), pytest.raises((moqt.StreamReset, moqt.NotFound)):
                    await subscription.receive()
            await settled()
            nursery.cancel_scope.cancel()
        assert len(asked) == 2
    await check_nothing_left(origin)
