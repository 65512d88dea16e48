"""What peers of a relay do wrong, or too often: each costs what is bounded, and the others go on."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.relay.relays import relay
from tests.transport.recorders import eventually


def pulls_of(found) -> int:
    return sum(len(front.pulls) for front in found.origin._sharing.fronts)


async def test_names_that_do_not_exist():
    """Thousands of tracks that no one has: each is refused, and nothing of them stays."""
    async with relay() as found, found.connect() as publisher, found.connect() as viewer:
        async with publisher.publish("live", moqt.Broadcast()):
            await viewer.wait_announced("live")
            for number in range(1000):
                with pytest.raises(moqt.NotFound):
                    async with viewer.subscribe("live", f"track {number}") as subscription:
                        await subscription.receive()
        assert pulls_of(found) == 0


async def test_more_tracks_than_a_broadcast_may_have():
    """Beyond `max_relayed_tracks` a track is refused, and those that are read go on."""
    origin = moqt.Origin(limits=moqt.Limits(max_relayed_tracks=3))
    async with relay(origin) as found, AsyncExitStack() as stack:
        publisher, viewer = [await stack.enter_async_context(found.connect()) for _ in range(2)]
        broadcast = moqt.Broadcast()
        tracks = [broadcast.track(f"{number}") for number in range(4)]
        await stack.enter_async_context(publisher.publish("live", broadcast))
        await viewer.wait_announced("live")
        subscriptions = []
        for track in tracks[:3]:
            subscriptions.append(await stack.enter_async_context(viewer.subscribe("live", track.name)))
            await track.wait_subscribed()
        with pytest.raises(moqt.NotFound):
            async with viewer.subscribe("live", "3") as subscription:
                await subscription.receive()
        for track, subscription in zip(tracks, subscriptions, strict=False):
            await track.write(b"one")
            assert await (await subscription.receive()).read_all() == [b"one"]


async def test_a_source_that_never_answers():
    """The viewer's request ends when its time is up, and nothing of it stays; another track of the source is served."""
    limits = moqt.Limits(reply_timeout=0.3)
    async with relay(limits=limits) as found, found.connect() as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("there")
        async with publisher.publish("live", broadcast), broadcast.requests() as requests:
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "never") as subscription:
                request = await requests.receive()
                with pytest.raises((moqt.StreamReset, moqt.NotFound)):
                    await subscription.receive()
            await eventually(lambda: not request.wanted)
            await eventually(lambda: not pulls_of(found))
            async with viewer.subscribe("live", "there") as subscription:
                await track.wait_subscribed()
                await track.write(b"one")
                assert await (await subscription.receive()).read_all() == [b"one"]


async def test_a_route_that_flaps():
    """A broadcast that comes and goes a hundred times: at the end every viewer knows what there is."""
    async with relay() as found, found.connect() as publisher, found.connect() as viewer:
        async with viewer.announcements() as announcements:
            for _ in range(100):
                async with publisher.publish("live", moqt.Broadcast()):
                    await trio.lowlevel.checkpoint()
            async with publisher.publish("last", moqt.Broadcast()):
                await eventually(lambda: [item.path for item in announcements.active] == ["last"])
                assert len(found.origin._sharing.routes) == 1
        await eventually(lambda: not len(found.origin._sharing.routes))
        assert found.origin._sharing.fronts == ()


async def test_a_peer_that_announces_what_has_passed_the_relay():
    """A broadcast with the relay's own hop id among its hops came from here: it is no route."""
    async with relay() as found, found.connect() as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        own = found.origin.hop_id
        async with publisher.publish("loop", broadcast, hops=[5, own]), publisher.publish("live", broadcast):
            await viewer.wait_announced("live")
            assert [str(path) for path in found.origin._sharing.routes] == ["live"]


async def test_one_viewer_that_does_not_read():
    """It loses groups of its own; the others get everything, and the publisher has one subscription."""
    async with relay() as found, found.connect() as publisher, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        await stack.enter_async_context(publisher.publish("live", broadcast))
        viewers = [await stack.enter_async_context(found.connect()) for _ in range(3)]
        subscriptions = []
        for viewer in viewers:
            await viewer.wait_announced("live")
            subscriptions.append(await stack.enter_async_context(viewer.subscribe("live", "video")))
        await track.wait_subscribed()
        for number in range(50):
            await track.write(bytes(100_000))
            for subscription in subscriptions[1:]:
                group = await subscription.receive()
                assert (group.sequence, len(await group.read_all())) == (number, 1)
        assert track.subscribers == 1


async def test_more_routes_than_an_origin_may_have():
    """Beyond `max_routes` a broadcast is not taken; when another one ends, a new one is."""
    origin = moqt.Origin(limits=moqt.Limits(max_routes=3))
    async with relay(origin) as found, found.connect() as publisher, AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(publisher.publish(f"{number}", moqt.Broadcast()))
        await eventually(lambda: len(origin._sharing.routes) == 3)
        await trio.testing.wait_all_tasks_blocked()
        assert len(origin._sharing.routes) == 3
        assert "3 routes" in repr(origin)
        await stack.aclose()
        async with found.connect() as other, other.publish("new", moqt.Broadcast()):
            await eventually(lambda: [str(path) for path in origin._sharing.routes] == ["new"])
