"""Subscriptions to more than the link carries: which goes first, what expires, and what is never dropped."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

import moqt_trio as moqt
from bench.slow_link import slow_link
from moqt_trio.codes import StreamCode
from moqt_trio.testing import LossyLink, session_pair
from tests.api.staged import subscribed

FRAME = 1000
RATE = 20_000.0


@attrs.define(eq=False)
class Log:
    """What one subscription got: frames in the order of arrival, groups that came whole, and codes of the others."""

    frames: list[int] = attrs.field(factory=list)
    complete: list[int] = attrs.field(factory=list)
    codes: dict[int, int] = attrs.field(factory=dict)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def wait_complete(self, sequences: Iterable[int]) -> None:
        """Wait until these groups came whole."""
        while not set(sequences) <= set(self.complete):
            self._changed = trio.Event()
            await self._changed.wait()

    async def read(self, subscription: moqt.Subscription) -> None:
        async with trio.open_nursery() as nursery:
            async for group in subscription:
                nursery.start_soon(self._read, group)

    async def _read(self, group: moqt.GroupReader) -> None:
        try:
            async for _ in group:
                self.frames.append(group.sequence)
            self.complete.append(group.sequence)
            self._changed.set()
        except moqt.StreamReset as error:
            self.codes[group.sequence] = error.code


def congested_pair(version="moq-lite-06"):
    """Two sessions over a link of twenty frames a second."""
    return session_pair(version, link=LossyLink(rate=RATE))


async def publish(track, groups, frames=2, pace=0.1):
    """Write groups at a steady pace."""
    for _ in range(groups):
        async with track.open_group() as group:
            for _ in range(frames):
                await group.send(bytes(FRAME))
                await trio.sleep(pace / frames)


async def test_the_high_priority_gets_what_it_needs(autojump_clock):
    """Two tracks at twice the link's rate: the high one arrives whole, old groups of the low one are dropped."""
    broadcast = moqt.Broadcast()
    tracks = {name: broadcast.track(name) for name in ("high", "low")}
    logs = {name: Log() for name in tracks}
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "high", priority=200, max_age=0.5) as high,
        client.subscribe("b", "low", priority=50, max_age=0.5) as low,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(logs["high"].read, high)
        nursery.start_soon(logs["low"].read, low)
        for track in tracks.values():
            await track.wait_subscribed()
        async with trio.open_nursery() as writers:
            writers.start_soon(publish, tracks["high"], 100, 2, 0.133)
            writers.start_soon(publish, tracks["low"], 100, 3, 0.12)
        await trio.sleep(5)
        assert high.statistics().groups_dropped == 0
        assert sorted(logs["high"].complete) == list(range(100))
        lost = low.statistics().groups_dropped
        assert 20 < lost < 100
        assert low.statistics().groups_expired == lost == server.statistics().groups_dropped
        assert set(logs["low"].codes.values()) <= {StreamCode.OLD}
        assert lost + len(logs["low"].complete) == 100
        assert 99 in logs["low"].complete
        nursery.cancel_scope.cancel()


async def written_at_once(client, server, *, ordered, version="moq-lite-06"):
    """Subscribe twice, fill the link with the first, write four groups to the second; return their order."""
    broadcast = moqt.Broadcast()
    filler, track = broadcast.track("filler"), broadcast.track("t")
    log = Log()
    async with (
        server.publish("b", broadcast),
        client.subscribe("b", "filler", priority=200, max_age=60),
        client.subscribe("b", "t", priority=50, max_age=60, ordered=ordered) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.read, subscription)
        await filler.wait_subscribed()
        await track.wait_subscribed()
        for _ in range(20):
            await filler.write(bytes(FRAME))
        for _ in range(4):
            async with track.open_group() as group:
                for _ in range(2):
                    await group.send(bytes(FRAME))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    return log.complete


async def test_newest_group_first(autojump_clock):
    """Groups that wait for the link go out newest first."""
    async with congested_pair() as (client, server):
        assert await written_at_once(client, server, ordered=False) == [3, 2, 1, 0]


async def test_in_sequence_where_asked(autojump_clock):
    """Where the version lets a subscriber ask for order, groups that wait for the link go out in sequence."""
    async with congested_pair("moq-lite-04") as (client, server):
        assert await written_at_once(client, server, ordered=True) == [0, 1, 2, 3]


async def test_the_newest_group_never_expires(autojump_clock):
    """A group that stays the newest arrives whole, however much older than max age it is by then."""
    broadcast = moqt.Broadcast()
    filler, track = broadcast.track("filler"), broadcast.track("t")
    log = Log()
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "filler", priority=200, max_age=60),
        client.subscribe("b", "t", priority=50, max_age=0.1) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.read, subscription)
        await filler.wait_subscribed()
        await track.wait_subscribed()
        for _ in range(40):
            await filler.write(bytes(FRAME))
        await track.write(bytes(FRAME), 0)
        async with track.open_group() as group:
            for timestamp in (1000, 1100):
                await group.send(bytes(FRAME), timestamp)
        await trio.sleep(10)
        assert log.complete == [1]
        assert subscription.statistics().groups_expired == 1
        nursery.cancel_scope.cancel()


async def test_the_newest_group_does_not_wait_for_many_old_ones(autojump_clock):
    """Groups that were begun and overtaken do not use up the streams: the oldest is reset for the newest."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    log = Log()
    limits = moqt.Limits(max_open_groups=4)
    async with (
        session_pair(limits=limits, link=LossyLink(rate=RATE)) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", max_age=60) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.read, subscription)
        await track.wait_subscribed()
        await publish(track, 30, frames=8, pace=0.2)
        await trio.sleep(0.5)
        assert 29 in log.complete
        assert log.frames[-1] >= 26
        assert set(log.codes.values()) == {StreamCode.TOO_FAR_BEHIND}
        await trio.sleep(10)
        assert subscription.statistics().groups_dropped == 30 - len(log.complete)
        nursery.cancel_scope.cancel()


async def test_equals_share_the_link(autojump_clock):
    """Two subscriptions of one priority get about the same while the link is the bottleneck."""
    broadcast = moqt.Broadcast()
    tracks = [broadcast.track(name, max_age=60) for name in "ab"]
    logs = [Log(), Log()]
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "a", max_age=60) as first,
        client.subscribe("b", "b", max_age=60) as second,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(logs[0].read, first)
        nursery.start_soon(logs[1].read, second)
        for track in tracks:
            await track.wait_subscribed()
            for _ in range(60):
                await track.write(bytes(FRAME))
        await trio.sleep(3)
        shares = [len(log.frames) for log in logs]
        assert 50 < sum(shares) < 70
        assert abs(shares[0] - shares[1]) < 10
        nursery.cancel_scope.cancel()


async def test_a_fetch_takes_its_turn(autojump_clock):
    """A fetch of high priority overtakes the backlog of a subscription, one of low priority waits for it."""
    broadcast = moqt.Broadcast()
    track, past = broadcast.track("t", max_age=60), broadcast.track("past", max_age=60)
    await past.write(bytes(FRAME))
    log = Log()
    done: dict[str, int] = {}
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", priority=100, max_age=60) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.read, subscription)
        await track.wait_subscribed()
        for _ in range(40):
            await track.write(bytes(FRAME))

        async def fetch(name, priority):
            async with client.fetch("b", "past", 0, priority=priority) as reader:
                assert [len(frame) async for frame in reader] == [FRAME]
            done[name] = len(log.frames)

        nursery.start_soon(fetch, "low", 1)
        nursery.start_soon(fetch, "high", 200)
        await trio.sleep(10)
        assert done["high"] < 10
        assert done["low"] == 40
        nursery.cancel_scope.cancel()


async def test_an_update_of_the_priority_counts_at_once(autojump_clock):
    """A subscription that is given a higher priority overtakes another in the midst of their backlogs."""
    broadcast = moqt.Broadcast()
    tracks = [broadcast.track(name, max_age=60) for name in ("first", "second")]
    logs = [Log(), Log()]
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "first", priority=100, max_age=60) as first,
        client.subscribe("b", "second", priority=1, max_age=60) as second,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(logs[0].read, first)
        nursery.start_soon(logs[1].read, second)
        for track in tracks:
            await track.wait_subscribed()
            for _ in range(40):
                await track.write(bytes(FRAME))
        await trio.sleep(0.5)
        assert len(logs[1].complete) < 5
        await second.update(priority=200)
        await logs[1].wait_complete(range(40))
        assert len(logs[0].complete) < 20
        nursery.cancel_scope.cancel()


async def test_a_cancelled_subscription_makes_way(autojump_clock):
    """A subscription that ends while it waits for the link leaves all of it to the others."""
    broadcast = moqt.Broadcast()
    high, low = broadcast.track("high"), broadcast.track("low")
    log = Log()
    async with (
        congested_pair() as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "low", priority=1, max_age=60) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(log.read, subscription)
        await low.wait_subscribed()
        async with client.subscribe("b", "high", priority=200, max_age=60):
            await high.wait_subscribed()
            for _ in range(60):
                await high.write(bytes(FRAME))
            await low.write(bytes(FRAME))
        await trio.sleep(1)
        assert log.complete == [0]
        nursery.cancel_scope.cancel()


async def test_groups_that_the_peer_does_not_take_expire_as_well(autojump_clock):
    """A group that was written whole but is held up by the peer's credit is reset once it is too old."""
    limits = moqt.Limits(stream_window=500)
    async with subscribed(client_limits=limits, max_age=1) as (_, server, track, subscription):
        for timestamp in (0, 500, 1000, 5000):
            async with track.open_group() as group:
                await group.send(bytes(FRAME), timestamp)
            await trio.testing.wait_all_tasks_blocked()
        assert subscription.statistics().groups_expired == 2
        assert server.statistics().groups_dropped == 2
        outcomes = {}
        for _ in range(4):
            group = await subscription.receive()
            try:
                outcomes[group.sequence] = sum([len(frame) async for frame in group])
            except moqt.StreamReset as error:
                outcomes[group.sequence] = -error.code
        assert outcomes == {0: -StreamCode.OLD, 1: -StreamCode.OLD, 2: FRAME, 3: FRAME}


@asynccontextmanager
async def slow_session(broadcast, rate):
    """A client's session over real QUIC and a slow link; the server publishes a broadcast at `b`."""

    async def serve_session(request):
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/": serve_session}), "127.0.0.1", 0)
        url = next(url for url in listener.urls if url.startswith("moqt:"))
        async with (
            slow_link(int(url.split(":")[2].partition("/")[0]), rate=rate) as link,
            moqt.connect(f"moqt://127.0.0.1:{link.port}/", fingerprint=listener.fingerprint) as session,
        ):
            async with session.announcements("b") as announcements:
                await anext(announcements)
            yield session
        nursery.cancel_scope.cancel()


async def test_real_quic_over_a_slow_link():
    """Over QUIC on a slow link the high track arrives whole, while groups of the low one, as large, expire."""
    broadcast = moqt.Broadcast()
    tracks = {name: broadcast.track(name) for name in ("high", "low")}
    logs = {name: Log() for name in tracks}
    with trio.fail_after(30):
        async with (
            slow_session(broadcast, 100_000) as session,
            session.subscribe("b", "high", priority=200, max_age=10) as high,
            session.subscribe("b", "low", priority=50, max_age=0.3) as low,
            trio.open_nursery() as readers,
        ):
            readers.start_soon(logs["high"].read, high)
            readers.start_soon(logs["low"].read, low)
            for track in tracks.values():
                await track.wait_subscribed()
            # 80 kB of each over a second, on a link that carries 100 kB in that time.
            for _ in range(20):
                for track in tracks.values():
                    async with track.open_group() as group:
                        for _ in range(4):
                            await group.send(bytes(FRAME))
                await trio.sleep(0.05)
            await logs["high"].wait_complete(range(20))
            await logs["low"].wait_complete([19])
            assert high.statistics().groups_dropped == 0
            assert low.statistics().groups_expired == low.statistics().groups_dropped > 0
            assert set(logs["low"].codes.values()) <= {StreamCode.OLD}
            readers.cancel_scope.cancel()
