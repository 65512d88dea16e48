"""A source that is lost while another one has the same content: the subscribers see no seam."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import moqt_trio as moqt
from tests.relay.relays import VERSIONS, linked, relay
from tests.transport.recorders import eventually

# Where announcements carry no hop ids, a relay cannot know that two publishers have the same content.
NAMED = [name for name in VERSIONS if name in ("moq-lite-06", "moq-lite-05", "moq-lite-04")]
each_named = pytest.mark.parametrize("version", NAMED)
PUBLISHER = 77


def routes_of(found) -> int:
    return len(found.origin._sharing.routes)


class Encoders:
    """Two publishers of one broadcast, over two sessions; `lose` ends the one that the relay reads from."""

    def __init__(self, sessions: list[moqt.Session], track: moqt.Track, lost: list[moqt.Session]) -> None:
        self.sessions = sessions
        self.track = track
        self._lost = lost

    def lose(self) -> None:
        """End the connection of the session that serves the track now."""
        [served] = [session for session in self.sessions if session._publisher.subscriptions]
        self.sessions.remove(served)
        served._context.connection.lose()


async def two_encoders(stack: AsyncExitStack, found, version: str, **options) -> Encoders:
    """Publish one broadcast over two sessions, with one hop id."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", **options)
    sessions = []
    for _ in range(2):
        session = await stack.enter_async_context(found.connect(version, hop_id=PUBLISHER))
        await stack.enter_async_context(session.publish("live", broadcast))
        sessions.append(session)
    await eventually(lambda: routes_of(found) == 2)
    return Encoders(sessions, track, [])


@pytest.mark.parametrize("frames", [0, 1, 3])
@each_named
async def test_a_source_lost_in_mid_group(version, frames):
    """The group goes on in the same stream: each frame comes once, in order, and nothing is reset or announced anew."""
    async with relay() as found, AsyncExitStack() as stack:
        encoders = await two_encoders(stack, found, version)
        track = encoders.track
        viewer = await stack.enter_async_context(found.connect(version))
        announcements = await stack.enter_async_context(viewer.announcements())
        assert (await announcements.receive()).active
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        async with track.open_group() as group:
            for number in range(frames):
                await group.send(b"%d" % number)
            received = await subscription.receive() if frames else None
            for number in range(frames):
                assert await received.receive() == b"%d" % number
            encoders.lose()
            await eventually(lambda: encoders.sessions[0]._publisher.subscriptions)
            for number in range(frames, frames + 3):
                await group.send(b"%d" % number)
            received = received or await subscription.receive()
            for number in range(frames, frames + 3):
                assert await received.receive() == b"%d" % number
        assert await received.read_all() == []
        await track.write(b"next")
        following = await subscription.receive()
        assert (following.sequence, await following.read_all()) == (1, [b"next"])
        assert subscription.dropped == ()
        assert [item.path for item in announcements.active] == ["live"]


@each_named
async def test_what_is_written_during_the_loss(version):
    """Frames and groups that were written between the loss and the takeover come, too."""
    async with relay() as found, AsyncExitStack() as stack:
        encoders = await two_encoders(stack, found, version)
        track = encoders.track
        viewer = await stack.enter_async_context(found.connect(version))
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        async with track.open_group() as group:
            await group.send(b"a")
            received = await subscription.receive()
            assert await received.receive() == b"a"
            encoders.lose()
            await group.send(b"b")
        track.write_nowait(b"c")
        track.write_nowait(b"d")
        assert await received.read_all() == [b"b"]
        rest = [await subscription.receive() for _ in range(2)]
        assert sorted([(item.sequence, *(await item.read_all())) for item in rest]) == [(1, b"c"), (2, b"d")]


async def test_between_groups():
    """With no group open the new source is asked for the one after the latest, and nothing comes twice."""
    async with relay() as found, AsyncExitStack() as stack:
        encoders = await two_encoders(stack, found, "moq-lite-06")
        track = encoders.track
        viewer = await stack.enter_async_context(found.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        await track.write(b"one")
        assert await (await subscription.receive()).read_all() == [b"one"]
        encoders.lose()
        track.write_nowait(b"two")
        following = await subscription.receive()
        assert (following.sequence, await following.read_all()) == (1, [b"two"])
        assert subscription.statistics().groups_received == 2


async def test_a_group_that_is_not_continued():
    """A group that the new source does not have is reset after `takeover_timeout`, and later ones come."""
    limits = moqt.Limits(takeover_timeout=0.2)
    async with relay(limits=limits) as found, AsyncExitStack() as stack:
        tracks = []
        sessions = []
        for cost in (0, 10):
            broadcast = moqt.Broadcast()
            tracks.append(broadcast.track("video"))
            session = await stack.enter_async_context(found.connect(hop_id=PUBLISHER))
            await stack.enter_async_context(session.publish("live", broadcast, cost=cost))
            sessions.append(session)
        await eventually(lambda: routes_of(found) == 2)
        viewer = await stack.enter_async_context(found.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await tracks[0].wait_subscribed()
        await stack.enter_async_context(group := tracks[0].open_group(0))
        await group.send(b"one")
        received = await subscription.receive()
        assert await received.receive() == b"one"
        sessions[0]._context.connection.lose()
        await tracks[1].wait_subscribed()
        async with tracks[1].open_group(5) as later:
            await later.send(b"two")
        following = await subscription.receive()
        assert (following.sequence, await following.read_all()) == (5, [b"two"])
        with pytest.raises(moqt.StreamReset):
            await received.receive()


async def test_a_broadcast_that_is_withdrawn_by_one_of_two():
    """The subscription moves to the other one, at once."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    async with (
        relay() as found,
        found.connect(hop_id=PUBLISHER) as standby,
        standby.publish("live", broadcast, cost=10),
        found.connect() as viewer,
        found.connect(hop_id=PUBLISHER) as first,
        AsyncExitStack() as stack,
    ):
        async with first.publish("live", broadcast):
            await eventually(lambda: routes_of(found) == 2)
            await viewer.wait_announced("live")
            subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
            await track.wait_subscribed()
            assert first._publisher.subscriptions
            await track.write(b"one")
            assert await (await subscription.receive()).read_all() == [b"one"]
        await eventually(lambda: standby._publisher.subscriptions)
        await track.write(b"two")
        assert await (await subscription.receive()).read_all() == [b"two"]


async def test_two_publishers_with_the_same_path():
    """Their contents differ: a subscription stays with its publisher, and ends with it; the next one has the other."""
    async with relay() as found, AsyncExitStack() as stack:
        tracks = []
        sessions = []
        for cost in (0, 10):
            broadcast = moqt.Broadcast()
            tracks.append(broadcast.track("video"))
            session = await stack.enter_async_context(found.connect())
            await stack.enter_async_context(session.publish("live", broadcast, cost=cost))
            sessions.append(session)
        await eventually(lambda: routes_of(found) == 2)
        viewer = await stack.enter_async_context(found.connect())
        announcements = await stack.enter_async_context(viewer.announcements())
        first = await announcements.receive()
        assert first.publisher == sessions[0].hop_id
        async with viewer.subscribe("live", "video") as subscription:
            await tracks[0].wait_subscribed()
            await tracks[0].write(b"one")
            assert await (await subscription.receive()).read_all() == [b"one"]
            sessions[0]._context.connection.lose()
            with pytest.raises(moqt.StreamReset):
                await subscription.receive()
        changes = [await announcements.receive() for _ in range(2)]
        assert [change.active for change in changes] == [False, True]
        assert changes[1].publisher == sessions[1].hop_id
        async with viewer.subscribe("live", "video") as subscription:
            await tracks[1].wait_subscribed()
            await tracks[1].write(b"other")
            assert await (await subscription.receive()).read_all() == [b"other"]


async def test_a_link_that_is_lost():
    """Two relays between publisher and viewer, by two ways: one link is cut in the middle of a group."""
    async with relay() as first, relay() as last, AsyncExitStack() as stack:
        await stack.enter_async_context(linked(first, last, cost=5))
        origin = last.origin
        near = await stack.enter_async_context(first.connect(view=origin.view(), hop_id=origin.hop_id, cost=1))
        publisher = await stack.enter_async_context(first.connect(hop_id=PUBLISHER))
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        await stack.enter_async_context(publisher.publish("live", broadcast))
        await eventually(lambda: routes_of(last) == 2)
        viewer = await stack.enter_async_context(last.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        await stack.enter_async_context(group := track.open_group())
        for number in range(5):
            await group.send(b"%d" % number)
        received = await subscription.receive()
        assert [await received.receive() for _ in range(5)] == [b"%d" % number for number in range(5)]
        near._context.connection.lose()
        for number in range(5, 10):
            await group.send(b"%d" % number)
        assert [await received.receive() for _ in range(5)] == [b"%d" % number for number in range(5, 10)]
        # The relay at the publisher read it once, all the time.
        assert track.subscribers == 1
