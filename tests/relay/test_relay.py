"""A relay: what one peer publishes is announced to the others, and served to them out of one copy."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import serve_in_memory
from tests.relay.relays import SCHEMES, VERSIONS, linked, relay
from tests.transport.recorders import eventually

each_version = pytest.mark.parametrize("version", VERSIONS)


async def frames_of(subscription: moqt.Subscription, count: int) -> list[tuple[int, list[bytes]]]:
    """Return so many groups, each whole, in the order of their sequences."""
    groups = []
    while len(groups) < count:
        group = await subscription.receive()
        groups.append((group.sequence, list(map(bytes, await group.read_all()))))
    return sorted(groups)


@pytest.mark.parametrize("scheme", SCHEMES)
@each_version
async def test_every_version(version, scheme):
    """A publisher of each version reaches a viewer of the same one, and one of moq-lite-06."""
    async with relay() as found, AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(found.connect(version, scheme=scheme))
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        await stack.enter_async_context(publisher.publish("live/cam", broadcast))
        for name in (version, "moq-lite-06"):
            async with found.connect(name, scheme=scheme) as viewer:
                # Before moq-lite, tracks are announced: a relay knows those that someone has asked for.
                if name not in ("moq-transfork-03", "gomoqt-develop"):
                    assert (await viewer.wait_announced("live/cam")).path == "live/cam"
                else:
                    await eventually(lambda: len(found.origin._sharing.routes) == 1)
                # The second viewer would have the first one's group, too: those are kept.
                async with viewer.subscribe("live/cam", "video", max_age=0) as subscription:
                    await track.wait_subscribed()
                    async with track.open_group() as group:
                        await group.send(b"one")
                        while (received := await subscription.receive()).sequence != group.sequence:
                            received.close()
                        assert await received.receive() == b"one"
                        await group.send(b"two")
                    assert await received.read_all() == [b"two"]
            await track.wait_unsubscribed()


@pytest.mark.parametrize("down", ["moq-lite-06", "moq-lite-03", "moq-transfork-03", "moqt-14", "moqt-20"])
@pytest.mark.parametrize("up", ["moq-lite-06", "moq-lite-03", "moq-transfork-03", "moqt-14", "moqt-20"])
async def test_between_versions(up, down):
    """Groups pass from any version to any other one; each has its number."""
    async with relay() as found, found.connect(up) as publisher, found.connect(down) as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live/cam", broadcast):
            await eventually(lambda: len(found.origin._sharing.routes) == 1)
            async with viewer.subscribe("live/cam", "video") as subscription:
                await track.wait_subscribed()
                for number in range(5):
                    await track.write(b"%d" % number)
                    assert await frames_of(subscription, 1) == [(number, [b"%d" % number])]


@each_version
async def test_nothing_is_missing_at_the_start(version):
    """What is written as soon as there is a subscriber comes whole, though the relay has it before its viewer reads."""
    async with relay() as found, found.connect(version) as publisher, found.connect(version) as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live", broadcast):
            await eventually(lambda: len(found.origin._sharing.routes) == 1)
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                for number in range(3):
                    track.write_nowait(b"%d" % number)
                assert await frames_of(subscription, 3) == [(number, [b"%d" % number]) for number in range(3)]


async def test_one_subscription_upstream():
    """However many read a track, its publisher has one subscription, and none once the last one has left."""
    async with relay() as found, found.connect() as publisher, AsyncExitStack() as stack:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        await stack.enter_async_context(publisher.publish("live", broadcast))
        async with AsyncExitStack() as viewers:
            subscriptions = []
            for _ in range(20):
                viewer = await viewers.enter_async_context(found.connect())
                await viewer.wait_announced("live")
                subscriptions.append(await viewers.enter_async_context(viewer.subscribe("live", "video")))
            await track.wait_subscribed()
            await track.write(b"one")
            for subscription in subscriptions:
                assert await frames_of(subscription, 1) == [(0, [b"one"])]
                assert track.subscribers == 1
        await eventually(lambda: not track.subscribers)
        # The relay asks again as soon as someone wants the track again.
        viewer = await stack.enter_async_context(found.connect())
        async with viewer.subscribe("live", "video") as subscription:
            await track.wait_subscribed()
            assert await frames_of(subscription, 1) == [(0, [b"one"])]


async def test_a_viewer_that_comes_back_in_the_middle_of_a_group():
    """What was received before stays, and the rest of the group follows: nothing is missing, nothing comes twice."""
    async with relay() as found, found.connect() as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live", broadcast), track.open_group() as group:
            await viewer.wait_announced("live")
            await group.send(b"one")
            for _ in range(3):
                async with viewer.subscribe("live", "video") as subscription:
                    received = await subscription.receive()
                    assert await received.receive() == b"one"
                await eventually(lambda: not track.subscribers)
            await group.send(b"two")
            async with viewer.subscribe("live", "video") as subscription:
                received = await subscription.receive()
                assert [await received.receive() for _ in range(2)] == [b"one", b"two"]
                await group.send(b"three")
                assert await received.receive() == b"three"


async def test_the_end_of_a_broadcast():
    """A publisher that ends its track, and leaves: the viewer gets all of it, then the end of both."""
    async with relay() as found, found.connect() as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with viewer.announcements() as announcements:
            async with publisher.publish("live", broadcast):
                assert (await announcements.receive()).active
                async with viewer.subscribe("live", "video") as subscription:
                    await track.wait_subscribed()
                    await track.write(b"one")
                    track.finish()
                    assert await frames_of(subscription, 1) == [(0, [b"one"])]
                    with pytest.raises(trio.EndOfChannel):
                        await subscription.receive()
            assert not (await announcements.receive()).active


async def test_a_publisher_that_is_lost():
    """Its broadcasts end, and so do the subscriptions to their tracks, with GOING_AWAY."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    async with (
        relay() as found,
        found.connect() as viewer,
        viewer.announcements() as announcements,
        found.connect() as publisher,
        publisher.publish("live", broadcast),
    ):
        assert (await announcements.receive()).active
        async with viewer.subscribe("live", "video") as subscription:
            await track.wait_subscribed()
            await track.write(b"one")
            assert await frames_of(subscription, 1) == [(0, [b"one"])]
            publisher._context.connection.lose()
            assert not (await announcements.receive()).active
            with pytest.raises(moqt.StreamReset) as caught:
                await subscription.receive()
            assert caught.value.code == moqt.StreamCode.GOING_AWAY
        await eventually(lambda: not len(found.origin._sharing.routes))
        assert found.origin._sharing.fronts == ()


@each_version
async def test_a_track_that_is_not_there(version):
    """The publisher says so, and the relay passes that on; the next request asks the publisher again."""
    async with relay() as found, found.connect() as publisher, found.connect(version) as viewer:
        broadcast = moqt.Broadcast()
        async with publisher.publish("live", broadcast):
            await eventually(lambda: len(found.origin._sharing.routes) == 1)
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                async with viewer.subscribe("live", "video") as subscription:
                    await subscription.receive()
            track = broadcast.track("video")
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                await track.write(b"one")
                assert await frames_of(subscription, 1) == [(0, [b"one"])]


async def test_a_path_that_is_not_there():
    """What no one publishes is refused at once, and asks no one."""
    async with relay() as found, found.connect() as viewer:
        with pytest.raises(moqt.NotFound):
            async with viewer.subscribe("elsewhere", "video") as subscription:
                await subscription.receive()


async def test_a_publisher_on_the_origin_itself():
    """What the program publishes on the origin is announced to the peers of all sessions."""
    origin = moqt.Origin()
    broadcast = moqt.Broadcast()
    track = broadcast.track("time")
    async with relay(origin) as found, found.connect() as viewer, viewer.announcements() as announcements:
        async with origin.publish("clock", broadcast, cost=7):
            change = await announcements.receive()
            assert (change.path, change.active, change.hops) == ("clock", True, (origin.hop_id,))
            assert (change.cost, change.publisher) == (7, origin.hop_id)
            async with viewer.subscribe("clock", "time") as subscription:
                await track.wait_subscribed()
                await track.write(b"one")
                assert await frames_of(subscription, 1) == [(0, [b"one"])]
        assert not (await announcements.receive()).active


async def test_a_root():
    """The path of a session's URL is its root: it sees what is below, and announces below it."""
    async with (
        relay() as found,
        found.connect(path="a") as inside,
        found.connect(path="b") as elsewhere,
        found.connect() as above,
    ):
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with inside.publish("cam", broadcast), above.announcements() as announcements:
            assert (await announcements.receive()).path == "a/cam"
            async with found.connect(path="a") as beside:
                assert (await beside.wait_announced("cam")).path == "cam"
                async with beside.subscribe("cam", "video") as subscription:
                    await track.wait_subscribed()
                    await track.write(b"one")
                    assert await frames_of(subscription, 1) == [(0, [b"one"])]
            async with elsewhere.announcements() as others:
                await others.wait_initial()
                assert others.active == ()


async def test_a_peer_is_not_told_of_its_own():
    """A publisher that asks for announcements gets those of others only."""
    async with relay() as found, found.connect() as one, found.connect() as other:
        broadcast = moqt.Broadcast()
        async with (
            one.publish("one", broadcast),
            other.publish("other", broadcast),
            one.announcements() as announcements,
        ):
            assert (await announcements.receive()).path == "other"
            await trio.testing.wait_all_tasks_blocked()
            assert [item.path for item in announcements.active] == ["other"]


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moq-lite-01", "moqt-18"])
async def test_a_chain(version):
    """Two relays, one linked to the other: groups pass both, in either direction."""
    async with relay() as upstream, relay() as downstream, linked(upstream, downstream, version):
        for first, last in ((upstream, downstream), (downstream, upstream)):
            async with first.connect() as publisher, last.connect() as viewer:
                broadcast = moqt.Broadcast()
                track = broadcast.track("video")
                async with publisher.publish("live", broadcast):
                    await viewer.wait_announced("live")
                    async with viewer.subscribe("live", "video") as subscription:
                        await track.wait_subscribed()
                        for number in range(3):
                            await track.write(b"%d" % number)
                            assert await frames_of(subscription, 1) == [(number, [b"%d" % number])]
            await eventually(lambda: not len(upstream.origin._sharing.routes))
            await eventually(lambda: not len(downstream.origin._sharing.routes))


async def test_costs_add_up():
    """Each link adds its price, and an announcement has the hop ids of all that it passed."""
    async with relay(cost=3) as one, relay() as two, relay() as three, linked(one, two), linked(two, three, cost=10):
        async with (
            one.connect(hop_id=77, cost=5) as publisher,
            three.connect() as viewer,
            publisher.publish("live", moqt.Broadcast(), cost=100),
        ):
            change = await viewer.wait_announced("live")
        assert change.hops == (77, one.origin.hop_id, two.origin.hop_id, three.origin.hop_id)
        assert change.publisher == 77
        # The server's own price counts before the client's, 3; then 3 of the link's server, then 10 of the client.
        assert change.cost == 100 + 3 + 3 + 10


async def test_a_ring_settles():
    """Five relays in a ring: each knows a broadcast once it is announced, and none once it has ended."""
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay()) for _ in range(5)]
        for one, other in zip(relays, relays[1:] + relays[:1], strict=True):
            await stack.enter_async_context(linked(one, other))
        for _ in range(3):
            async with relays[0].connect() as publisher, publisher.publish("live", moqt.Broadcast()):
                await eventually(lambda: all(len(item.origin._sharing.routes) for item in relays))
            await eventually(lambda: not any(len(item.origin._sharing.routes) for item in relays))


async def test_a_view_belongs_to_an_origin():
    """Something else is refused, before anything is connected or answered."""
    with pytest.raises(TypeError, match=r"Origin\.view"):
        async with moqt.connect("moqt://localhost/", view="live"):
            pass

    async def handle(request: moqt.SessionRequest) -> None:
        with pytest.raises(TypeError, match=r"Origin\.view"):
            request.accept(view=moqt.Origin())
        assert not request.answered
        await request.reject(404)

    async with serve_in_memory(handle) as server:
        with pytest.raises(moqt.Rejected, match="404"):
            async with server.connect():
                pass
