"""Viewers that stall, come back, come in numbers, and leave as their publisher does."""

from __future__ import annotations

import contextlib
import random
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import LossyLink
from tests.faults.raw_peer import settled
from tests.faults.relayed import check_nothing_left
from tests.relay.relays import VERSIONS, linked, relay
from tests.transport.recorders import eventually

KIB, MIB = 1 << 10, 1 << 20
ANNOUNCED = [name for name in VERSIONS if name not in ("moq-transfork-03", "gomoqt-develop")]


async def publish(stack: AsyncExitStack, found, version: str = "moq-lite-06", *, path: str = "live", **options):
    """Publish a broadcast with one track; return the session and the track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", **options)
    session = await stack.enter_async_context(found.connect(version))
    await stack.enter_async_context(session.publish(path, broadcast))
    return session, track


async def test_one_hundred_viewers_and_a_reload(autojump_clock):
    """One subscription upstream, none within 50 ms of the last one's leaving, one again on return."""
    async with relay() as found, AsyncExitStack() as stack:
        session, track = await publish(stack, found)
        sessions = [await stack.enter_async_context(found.connect()) for _ in range(100)]
        for number in range(3):
            async with AsyncExitStack() as last, AsyncExitStack() as others:
                stacks = [last, *[others] * 99]
                subscriptions = [
                    await each.enter_async_context(viewer.subscribe("live", "video", max_age=0))
                    for each, viewer in zip(stacks, sessions, strict=True)
                ]
                await track.wait_subscribed()
                await track.write(b"%d" % number)
                for subscription in subscriptions:
                    while (group := await subscription.receive()).sequence != number:
                        group.close()
                    assert await group.read_all() == [b"%d" % number]
                assert track.subscribers == 1
                assert len(session._publisher.subscriptions) == 1
                statistics = found.origin.statistics()
                assert (statistics.subscriptions, statistics.subscribers) == (1, 100)
                await others.aclose()
                await trio.sleep(1)
                # Any one of them keeps it.
                assert track.subscribers == 1
            left = trio.current_time()
            await eventually(lambda: not track.subscribers)
            assert trio.current_time() - left <= 0.05
            assert found.origin.statistics().subscriptions == 0
            # Within `cache_age` or long after it.
            await trio.sleep(16 * number)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_reload_beside_others(version, autojump_clock):
    """Who reloads the page has the latest group at once, and those who stay notice nothing."""
    async with relay() as found, AsyncExitStack() as stack:
        _, track = await publish(stack, found, version)
        steady = await stack.enter_async_context(found.connect(version))
        await eventually(found.origin.routes)
        watching = await stack.enter_async_context(steady.subscribe("live", "video"))
        await track.wait_subscribed()
        for number in range(10):
            await track.write(b"%d" % number)
            async with found.connect(version) as reloading:
                if version in ANNOUNCED:
                    await reloading.wait_announced("live")
                async with reloading.subscribe("live", "video", max_age=0) as again:
                    group = await again.receive()
                    assert (group.sequence, await group.read_all()) == (number, [b"%d" % number])
            assert track.subscribers == 1
            assert await (await watching.receive()).read_all() == [b"%d" % number]
        assert watching.dropped == ()


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moqt-18"])
async def test_a_reload_while_the_only_source_drains(version, autojump_clock):
    """A source that has sent GOAWAY takes no new subscription: the one that there is stays for who comes back."""
    async with relay() as found, AsyncExitStack() as stack:
        session, track = await publish(stack, found, version)
        await eventually(found.origin.routes)
        viewer = await stack.enter_async_context(found.connect(version))
        async with viewer.subscribe("live", "video") as subscription:
            await track.wait_subscribed()
            await track.write(b"one")
            assert await (await subscription.receive()).read_all() == [b"one"]
            await session.goaway()
            await trio.sleep(1)
        await trio.sleep(1)
        async with viewer.subscribe("live", "video", max_age=0) as again:
            assert await (await again.receive()).read_all() == [b"one"]
            await track.write(b"two")
            assert await (await again.receive()).read_all() == [b"two"]
        await trio.sleep(1)
        session.close()
        await eventually(lambda: not found.origin.statistics().subscriptions)


async def test_the_last_viewer_reloads_while_a_group_is_written(autojump_clock):
    """Again and again in the middle of a group: each time it has all of the group so far, and then the rest."""
    async with relay() as found, AsyncExitStack() as stack:
        _, track = await publish(stack, found)
        await eventually(found.origin.routes)
        async with track.open_group() as group:
            for number in range(30):
                async with found.connect() as viewer, viewer.subscribe("live", "video") as subscription:
                    await track.wait_subscribed()
                    await group.send(b"%d" % number)
                    received = await subscription.receive()
                    for earlier in range(number + 1):
                        assert await received.receive() == b"%d" % earlier
                if number % 2:
                    await eventually(lambda: not track.subscribers)


async def test_a_viewer_that_stalls(autojump_clock):
    """It loses old groups of its own, within its backlog; the publisher and nine others lose nothing."""
    limits = attrs.evolve(moqt.Limits(), stream_window=64 * KIB, connection_window=256 * KIB)
    async with relay(moqt.Origin(cache_bytes=8 * MIB)) as found, AsyncExitStack() as stack:
        session, track = await publish(stack, found)
        await eventually(found.origin.routes)
        live = [await stack.enter_async_context(found.connect()) for _ in range(9)]
        stalled = await stack.enter_async_context(found.connect(limits=limits))
        subscriptions = [await stack.enter_async_context(each.subscribe("live", "video")) for each in live]
        stopped = await stack.enter_async_context(stalled.subscribe("live", "video", max_age=3600))
        await track.wait_subscribed()
        await eventually(lambda: found.origin.statistics().subscribers == 10)
        size, count, held = 256 * KIB, 200, 0
        for number in range(count):
            began = trio.current_time()
            await track.write(number.to_bytes(4, "big") * (size // 4))
            for subscription in subscriptions:
                group = await subscription.receive()
                assert group.sequence == number
                assert len((await group.read_all())[0]) == size
            assert trio.current_time() - began < 0.1
            held = max(held, found.origin.statistics().cached_bytes)
            waits = [each for other in found.server.sessions for each in other._publisher.subscriptions]
            assert max(each.undelivered for each in waits) <= limits.live_backlog + limits.send_buffer
        assert held <= 8 * MIB + 2 * size
        assert track.subscribers == 1
        assert not session._publisher.subscriptions[0].undelivered
        # In the end it goes on with the newest ones.
        with trio.fail_after(10):
            while (await stopped.receive()).sequence < count - 1:
                pass
        assert sum(each.statistics().groups_dropped for each in found.server.sessions) > 100
        assert all(subscription.dropped == () for subscription in subscriptions)


@pytest.mark.parametrize("publisher_first", [True, False])
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moqt-18"])
async def test_a_viewer_and_a_publisher_that_leave_together(version, publisher_first, autojump_clock):
    """In whatever order, at each turn of the loop, and abruptly or not: nothing is left in the relay."""
    origin = moqt.Origin()
    async with relay(origin) as found:
        for turns in range(8):
            for abrupt in (False, True):
                await leave_together(found, version, publisher_first, turns, abrupt)
        await check_nothing_left(origin)


async def leave_together(found, version: str, publisher_first: bool, turns: int, abrupt: bool) -> None:
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    read = trio.Event()
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def publish() -> None:
        with scopes[0]:
            async with found.connect(version) as session, session.publish("live", broadcast):
                connections.append(session._context.connection)
                await session.wait_closed()

    async def view() -> None:
        with scopes[1]:
            async with found.connect(version) as session:
                connections.append(session._context.connection)
                async with session.subscribe("live", "video") as subscription:
                    await subscription.receive()
                    read.set()
                    try:
                        async for group in subscription:
                            await group.read_all()
                    except moqt.MoqtError:
                        pass

    connections: list = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await eventually(found.origin.routes)
        nursery.start_soon(view)
        await track.wait_subscribed()
        async with track.open_group() as group:
            await group.send(b"open")
            await read.wait()
            order = [0, 1] if publisher_first else [1, 0]
            for each in order:
                if abrupt:
                    connections[each].lose()
                else:
                    scopes[each].cancel()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            for scope in scopes:
                scope.cancel()
    await eventually(lambda: not found.origin.sessions())


async def test_a_thousand_broadcasts_that_end_at_once(autojump_clock):
    """Each listener is told each end, those who read get theirs, and nothing of them is left."""
    origin = moqt.Origin()
    count, read = 1000, 20
    async with relay(origin) as found, relay() as beyond, AsyncExitStack() as stack:
        await stack.enter_async_context(linked(found, beyond))
        tracks = []
        viewers = [await stack.enter_async_context(each.connect()) for each in (found, beyond)]
        news = [await stack.enter_async_context(viewer.announcements()) for viewer in viewers]
        async with AsyncExitStack() as publishing:
            session = await publishing.enter_async_context(found.connect())
            for number in range(count):
                broadcast = moqt.Broadcast()
                tracks.append(broadcast.track("video"))
                await publishing.enter_async_context(session.publish(f"live/{number}", broadcast))
            for each in news:
                for _ in range(count):
                    assert (await each.receive()).active
            subscriptions = []
            for number in range(read):
                viewer = viewers[number % 2]
                subscription = await publishing.enter_async_context(viewer.subscribe(f"live/{number}", "video"))
                await tracks[number].wait_subscribed()
                await tracks[number].write(b"%d" % number)
                assert await (await subscription.receive()).read_all() == [b"%d" % number]
                subscriptions.append(subscription)
            session._context.connection.lose()
            began = trio.current_time()
            for each in news:
                ended = {str((await each.receive()).path) for _ in range(count)}
                assert len(ended) == count
                assert each.active == ()
            assert trio.current_time() - began < 1
            for subscription in subscriptions:
                with pytest.raises(moqt.StreamReset):
                    await subscription.receive()
        await settled()
        for each in (found, beyond):
            statistics = each.origin.statistics()
            assert (statistics.broadcasts, statistics.routes, statistics.tracks) == (0, 0, 0)
            assert each.origin._sharing.fronts == ()


async def test_sessions_that_end_as_they_begin(autojump_clock):
    """Cancelled at any turn while they are attached, announce and subscribe: no session, route or front is left."""
    origin = moqt.Origin()
    broadcast = moqt.Broadcast()
    broadcast.track("video").write_nowait(b"one")
    async with relay(origin) as found:
        async with origin.publish("own", broadcast):
            for turns in range(0, 120, 2):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def use() -> None:
                            async with found.connect() as session, session.publish("live", broadcast):
                                async with session.subscribe("own", "video") as subscription:
                                    await subscription.receive()
                                await session.wait_announced("own")
                                await trio.sleep_forever()

                        nursery.start_soon(use)
                        for _ in range(turns):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                await eventually(lambda: not origin.sessions())
                assert len(origin.routes()) == 1
        await check_nothing_left(origin)


@pytest.mark.parametrize("seed", range(4))
async def test_viewers_that_come_and_go_over_a_bad_network(seed, autojump_clock):
    """With delay and loss between, each viewer gets whole frames, once each and in order within a group."""
    chance = random.Random(seed)
    origin = moqt.Origin()
    link = lambda: LossyLink(delay=0.03, jitter=0.02, loss=0.05, seed=chance.randrange(1000))  # noqa: E731
    async with relay(origin) as found:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video", max_age=60)
        done = trio.Event()

        async def view() -> None:
            while not done.is_set():
                async with found.connect(link=link()) as session:
                    with trio.move_on_after(chance.uniform(0.5, 3)):
                        await session.wait_announced("live")
                        try:
                            async with session.subscribe("live", "video") as subscription:
                                async for group in subscription:
                                    await read(group)
                        except (moqt.NotFound, moqt.StreamReset):
                            # The publisher has left.
                            assert done.is_set()

        async def read(group: moqt.GroupReader) -> None:
            expected = 0
            with contextlib.suppress(moqt.StreamReset):
                async for frame in group:
                    assert frame == b"%d.%d" % (group.sequence, expected)
                    expected += 1
                assert expected == 5

        async with (
            trio.open_nursery() as nursery,
            found.connect(link=link()) as publisher,
            publisher.publish("live", broadcast),
        ):
            for _ in range(5):
                nursery.start_soon(view)
            for number in range(150):
                async with track.open_group() as group:
                    for frame in range(5):
                        await group.send(b"%d.%d" % (number, frame))
                        await trio.sleep(0.02)
            done.set()
        await check_nothing_left(origin)
