"""Requests that are made and given up at once: each peer is held to a rate, and breaks nothing."""

from __future__ import annotations

import itertools

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.publisher import publisher, rate
from moqt_trio.session.publisher.request import RequestStream
from moqt_trio.testing import session_pair
from tests.faults.state_peer import hostile, hostile_over

CANCELLED = 0x1


@pytest.fixture
def begun(monkeypatch) -> list[float]:
    """When each request of a peer was begun."""
    times = []

    class Counted(RequestStream):
        def __init__(self, *arguments) -> None:
            times.append(trio.current_time())
            super().__init__(*arguments)

    monkeypatch.setattr(publisher, "RequestStream", Counted)
    return times


async def subscribe_and_cancel(peer, wire, count: int | None = None) -> None:
    """Subscribe and reset the stream at once, so many times or until cancelled."""
    for number in itertools.count() if count is None else range(count):
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(number))
        if peer.kind == "webtransport":
            # A reset that overtakes the stream's first bytes says nothing of the session.
            await trio.sleep(0.001)
        stream.reset(CANCELLED)
        stream.stop(CANCELLED)
        await trio.lowlevel.checkpoint()


def most_in(times: list[float], seconds: float) -> int:
    """Return the most of the times that lie in any span of so many seconds."""
    first = most = 0
    for number, time in enumerate(times):
        while times[first] < time - seconds:
            first += 1
        most = max(most, number - first + 1)
    return most


@pytest.mark.parametrize("count", [20_000])
async def test_subscribe_and_cancel(count, begun, autojump_clock):
    """Of 20,000 subscriptions that are cancelled at once no more begin than the bucket allows; the session goes on."""
    limits = moqt.Limits()
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with hostile("moq-lite-06", limits=limits) as (peer, session, wire), session.publish("b", broadcast):
        start = trio.current_time()
        await subscribe_and_cancel(peer, wire, count)
        # What the peer could open before it had to wait: the bucket, its streams, and what was earned meanwhile.
        elapsed = trio.current_time() - start
        assert elapsed >= (count - limits.request_burst - limits.max_streams) / limits.request_rate - 0.1
        await trio.sleep(limits.max_streams / limits.request_rate + 1)
        assert len(begun) == count
        assert session.closed is None
        for seconds in (0.1, 1, 10):
            allowed = limits.request_burst + limits.request_rate * (seconds + rate._STEP) + 1
            assert most_in(begun, seconds) <= allowed
        # After the burst no second has more than the rate.
        assert most_in(begun[limits.request_burst :], 1) <= limits.request_rate * (1 + 2 * rate._STEP) + 1


@pytest.mark.parametrize("transport", ["memory", "quic", "webtransport"])
async def test_a_peer_that_goes_on_comes_to_the_end_of_its_streams(transport, begun):
    """What is not begun keeps its stream, reset or not, so that the peer may open no more."""
    limits = moqt.Limits(request_burst=50, request_rate=100, max_streams=64)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    hostile_session = hostile_over(transport, "moq-lite-06", limits=limits)
    async with hostile_session as (peer, session, wire), session.publish("b", broadcast):
        start = trio.current_time()
        with trio.move_on_after(1):
            await subscribe_and_cancel(peer, wire)
        elapsed = trio.current_time() - start
        assert 50 <= len(begun) <= 50 + 100 * (elapsed + rate._STEP) + 1
        assert session.closed is None
        # One that the peer wants to keep is served in its turn.
        await track.write(b"x")
        last = await peer.open_bidi()
        last.write(wire.subscribe(1 << 20))
        with trio.fail_after(3):
            assert await last.receive_some()


async def test_requests_that_wait_are_served_in_order(autojump_clock):
    """A client that wants more at once than the bucket holds has all of it, a little later."""
    limits = moqt.Limits(request_burst=10, request_rate=20)
    broadcast = moqt.Broadcast()
    tracks = [broadcast.track(str(number)) for number in range(40)]
    for track in tracks:
        await track.write(track.name.encode())
    arrived: list[str] = []

    async def read(track: moqt.Track) -> None:
        async with client.subscribe("b", track.name) as subscription:
            group = await anext(subscription)
            assert await group.read_all() == [track.name.encode()]
            arrived.append(track.name)

    async with session_pair(limits=limits) as (client, server), server.publish("b", broadcast):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for track in tracks:
                nursery.start_soon(read, track)
                await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - start == pytest.approx(1.5, abs=0.1)
    assert arrived == [track.name for track in tracks]


@pytest.mark.parametrize("kind", ["fetch", "range", "track that has ended"])
async def test_requests_that_are_answered_do_not_count(kind, autojump_clock):
    """A client that reads one group after the other, each to its end, is not slowed down."""
    limits = moqt.Limits(request_burst=3, request_rate=1)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    await track.write(b"x")
    if kind == "track that has ended":
        track.finish()
    async with session_pair(limits=limits) as (client, server), server.publish("b", broadcast):
        start = trio.current_time()
        for _ in range(100):
            if kind == "fetch":
                async with client.fetch("b", "t", 0) as group:
                    assert await group.receive() == b"x"
                    with pytest.raises(trio.EndOfChannel):
                        await group.receive()
                continue
            end = {"start_group": 0, "end_group": 0} if kind == "range" else {}
            async with client.subscribe("b", "t", **end) as subscription:
                assert [await group.read_all() async for group in subscription] == [[b"x"]]
        assert trio.current_time() - start < 5


async def test_the_bucket(autojump_clock):
    """Tokens come at the rate, fill the bucket at most, and none of the time is lost."""

    class Context:
        limits = moqt.Limits(request_burst=4, request_rate=2)
        nursery: trio.Nursery

        def start(self, function, *arguments) -> None:
            self.nursery.start_soon(function, *arguments)

    served: list[object] = []
    async with trio.open_nursery() as Context.nursery:
        bucket = rate.RequestRate(Context())
        bucket.tokens = 0
        bucket.hold(1, served.append)
        bucket.hold(2, served.append)
        assert served == []
        await trio.sleep(0.6)
        assert served == [1]
        await trio.sleep(0.5)
        assert served == [1, 2]
    assert bucket.tokens == 0
    await trio.sleep(100)
    bucket.hold(3, served.append)
    assert served == [1, 2, 3]
    assert bucket.tokens == 3
