"""Routes that change while content is read: a better one, a source that drains, and what is told when."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from tests.relay.relays import VERSIONS, linked, relay
from tests.transport.recorders import eventually

NAMED = [name for name in VERSIONS if name in ("moq-lite-06", "moq-lite-05", "moq-lite-04")]
each_named = pytest.mark.parametrize("version", NAMED)
PUBLISHER = 77


async def publisher(stack: AsyncExitStack, found, broadcast, version: str = "moq-lite-06", **options) -> moqt.Session:
    """Publish a broadcast over a session of its own, always with one hop id."""
    session = await stack.enter_async_context(found.connect(version, hop_id=PUBLISHER))
    await stack.enter_async_context(session.publish("live", broadcast, **options))
    return session


async def viewer(stack: AsyncExitStack, found, version: str = "moq-lite-06") -> moqt.Subscription:
    """Subscribe to what is published."""
    session = await stack.enter_async_context(found.connect(version))
    await session.wait_announced("live")
    return await stack.enter_async_context(session.subscribe("live", "video"))


@pytest.mark.parametrize("groups", [0, 2])
async def test_a_better_source_continues_with_the_next_group(groups, autojump_clock):
    """The one that is left gives the whole of its last group; nothing comes twice, is reset or is missing."""
    async with relay() as found, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        dear = await publisher(stack, found, broadcast, cost=100)
        subscription = await viewer(stack, found)
        await track.wait_subscribed()
        received = []
        for number in range(groups):
            await track.write(b"%d" % number)
            received += await (await subscription.receive()).read_all()
        async with track.open_group() as group:
            await group.send(b"a")
            half = await subscription.receive()
            assert await half.receive() == b"a"
            cheap = await publisher(stack, found, broadcast)
            # Longer than the route is held: the group is still the first source's.
            await trio.sleep(1)
            assert dear._publisher.subscriptions
            await group.send(b"b")
            assert await half.receive() == b"b"
        assert await half.read_all() == []
        for number in range(groups, groups + 3):
            await track.write(b"%d" % number)
            received += await (await subscription.receive()).read_all()
        assert received == [b"%d" % number for number in range(groups + 3)]
        assert subscription.dropped == ()
        await eventually(lambda: not dear._publisher.subscriptions)
        assert cheap._publisher.subscriptions


@each_named
async def test_a_source_that_drains(version, autojump_clock):
    """GOAWAY: what is read goes over to the other source with the next group, and the session may then close."""
    async with relay() as found, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        first = await publisher(stack, found, broadcast, version)
        subscription = await viewer(stack, found, version)
        await track.wait_subscribed()
        second = await publisher(stack, found, broadcast, version)
        await track.write(b"one")
        assert await (await subscription.receive()).read_all() == [b"one"]
        await first.goaway()
        await eventually(lambda: second._publisher.subscriptions and not first._publisher.subscriptions)
        first.close()
        await track.write(b"two")
        assert await (await subscription.receive()).read_all() == [b"two"]
        assert subscription.dropped == ()


async def test_a_source_that_drains_and_is_the_only_one(autojump_clock):
    """It serves to its end, and new subscribers too."""
    async with relay() as found, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        only = await publisher(stack, found, broadcast)
        subscription = await viewer(stack, found)
        await track.wait_subscribed()
        await only.goaway()
        await eventually(lambda: found.origin.routes()[0].cost == 2**62 - 1)
        assert [route.best for route in found.origin.routes()] == [True]
        late = await viewer(stack, found)
        await track.write(b"still")
        for each in (subscription, late):
            assert await (await each.receive()).read_all() == [b"still"]


async def test_a_route_that_comes_back_is_never_told(autojump_clock):
    """A hundred changes in a second are one for a peer, or none."""
    async with relay() as found, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        session = await stack.enter_async_context(found.connect(hop_id=PUBLISHER))
        publication = await stack.enter_async_context(session.publish("live", broadcast, cost=5))
        watching = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(watching.announcements())
        first = await news.receive()
        assert (first.cost, first.active) == (6, True)
        for number in range(100):
            publication.update(cost=number % 2 * 50)
            await trio.sleep(0.01)
        publication.update(cost=5)
        with trio.move_on_after(5) as quiet:
            changes = [await news.receive() for _ in range(100)]
            raise AssertionError(changes)
        assert quiet.cancelled_caught


async def test_a_route_is_told_once_it_has_held(autojump_clock):
    """After `route_hold`, and not before; as an update."""
    async with relay() as found, AsyncExitStack() as stack:
        session = await stack.enter_async_context(found.connect(hop_id=PUBLISHER))
        publication = await stack.enter_async_context(session.publish("live", moqt.Broadcast(), cost=5))
        watching = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(watching.announcements())
        await news.receive()
        start = trio.current_time()
        publication.update(cost=9)
        change = await news.receive()
        assert (change.cost, change.active) == (10, True)
        assert 0.3 <= trio.current_time() - start < 0.4


async def test_a_worse_route_after_a_withdrawal_waits_longer(autojump_clock):
    """It may be on its way out as well; what goes over to it goes over at once."""
    async with relay() as found, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        near = await publisher(stack, found, broadcast)
        await publisher(stack, found, broadcast, cost=50)
        subscription = await viewer(stack, found)
        watching = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(watching.announcements())
        assert (await news.receive()).cost == 1
        await eventually(lambda: len(found.origin.routes()) == 2)
        await track.wait_subscribed()
        await track.write(b"one")
        await subscription.receive()
        start = trio.current_time()
        near.close()
        await eventually(lambda: len(found.origin.routes()) == 1)
        await track.write(b"two")
        assert await (await subscription.receive()).read_all() == [b"two"]
        assert trio.current_time() - start < 1
        change = await news.receive()
        assert (change.cost, change.active) == (51, True)
        assert 2 <= trio.current_time() - start < 2.5


GRAPHS = {
    "line": [(0, 1), (1, 2), (2, 3), (3, 4)],
    "ring": [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)],
    "diamond": [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)],
    "mesh": [(one, other) for one in range(5) for other in range(one + 1, 5)],
}


@pytest.mark.parametrize("graph", GRAPHS)
async def test_the_end_of_a_broadcast_is_told_at_once(graph, autojump_clock):
    """No relay goes on to announce what has ended, by longer and longer ways; and none is told of its own."""
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay()) for _ in range(5)]
        for one, other in GRAPHS[graph]:
            await stack.enter_async_context(linked(relays[one], relays[other]))
        session = await stack.enter_async_context(relays[0].connect(hop_id=PUBLISHER))
        news = []
        for found in relays:
            watching = await stack.enter_async_context(found.connect())
            news.append(await stack.enter_async_context(watching.announcements()))
        async with session.publish("live", moqt.Broadcast()):
            for each in news:
                assert (await each.receive()).active
            # As long as any route may be held.
            await trio.sleep(5)
            for found in relays:
                for route in found.origin.routes():
                    assert found.origin.hop_id not in route.hops
                    assert len(set(route.hops)) == len(route.hops)
            start = trio.current_time()
        for each in news:
            while (await each.receive()).active:
                pass
        assert trio.current_time() - start < 0.3
        await trio.sleep(5)
        assert [found.origin.routes() for found in relays] == [()] * 5
        assert [each.active for each in news] == [()] * 5


async def test_a_link_that_is_cut_in_a_ring(autojump_clock):
    """What came over it comes the other way round: the viewer's subscription goes on, and the broadcast stays."""
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay()) for _ in range(4)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        cut = trio.CancelScope()

        async def link() -> None:
            with cut:
                async with linked(relays[0], relays[1]):
                    await trio.sleep_forever()

        nursery.start_soon(link)
        for one, other in [(1, 2), (2, 3), (3, 0)]:
            await stack.enter_async_context(linked(relays[one], relays[other]))
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        await publisher(stack, relays[0], broadcast)
        await eventually(lambda: all(found.origin.routes() for found in relays))
        await trio.sleep(5)
        session = await stack.enter_async_context(relays[1].connect())
        news = await stack.enter_async_context(session.announcements())
        assert (await news.receive()).active
        subscription = await stack.enter_async_context(session.subscribe("live", "video"))
        await track.wait_subscribed()
        await track.write(b"one")
        assert await (await subscription.receive()).read_all() == [b"one"]
        cut.cancel()
        await track.write(b"two")
        assert await (await subscription.receive()).read_all() == [b"two"]
        await trio.sleep(5)
        assert [item.path for item in news.active] == ["live"]
        await track.write(b"three")
        assert await (await subscription.receive()).read_all() == [b"three"]
        assert subscription.dropped == ()
