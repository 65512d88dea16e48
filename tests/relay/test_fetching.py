"""Fetches through a relay: from what it keeps, else from the publisher, once for all who want the group."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import moqt_trio as moqt
from tests.relay.relays import relay
from tests.transport.recorders import eventually

WITH_FETCH = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"]


class Published:
    """A track of a publisher with ten groups, at a relay, and a viewer of the relay.

    Attributes:
        track: The track.
        viewer: The viewer's session.
        asked: The fetches that the publisher has served or serves.
    """

    def __init__(self, track: moqt.Track, publisher: moqt.Session, viewer: moqt.Session) -> None:
        self.track = track
        self.viewer = viewer
        self.publisher = publisher


async def published(stack: AsyncExitStack, found, version: str = "moq-lite-06", up: str = "moq-lite-06") -> Published:
    """Publish a track with ten groups of two frames."""
    publisher = await stack.enter_async_context(found.connect(up))
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", max_age=60)
    for number in range(10):
        async with track.open_group() as group:
            await group.send(b"%d" % number)
            await group.send(b"more")
    await stack.enter_async_context(publisher.publish("live", broadcast))
    await eventually(lambda: len(found.origin._sharing.routes) == 1)
    return Published(track, publisher, await stack.enter_async_context(found.connect(version)))


@pytest.mark.parametrize("up", [*WITH_FETCH, "moqt-18", "moqt-14"])
@pytest.mark.parametrize("version", WITH_FETCH)
async def test_a_group_of_the_past(version, up):
    """A group that the relay never had comes from the publisher, whole."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version, up)
        for number in (3, 9):
            async with at.viewer.fetch("live", "video", number) as group:
                assert await group.read_all() == [b"%d" % number, b"more"]


async def test_a_group_that_is_not_there():
    """Only the publisher knows that, and its answer is passed on."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found)
        with pytest.raises(moqt.NotFound):
            async with at.viewer.fetch("live", "video", 77) as group:
                await group.read_all()
        with pytest.raises(moqt.NotFound):
            async with at.viewer.fetch("live", "audio", 1) as group:
                await group.read_all()


async def test_one_fetch_for_all():
    """Viewers who want the same group at the same time share one fetch, and each gets the frames as they come."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found)
        await stack.enter_async_context(group := at.track.open_group(20))
        await group.send(b"one")
        viewers = [await stack.enter_async_context(found.connect()) for _ in range(10)]
        readers = [await stack.enter_async_context(viewer.fetch("live", "video", 20)) for viewer in viewers]
        for reader in readers:
            assert await reader.receive() == b"one"
        fetches = [front._fetches for front in found.origin._sharing.fronts]
        assert [len(item) for item in fetches] == [1]
        await group.send(b"two")
        group.finish()
        for reader in readers:
            assert await reader.read_all() == [b"two"]
        await eventually(lambda: not fetches[0])


async def test_live_subscribers_get_no_fetched_group():
    """A past group that one viewer fetches is not delivered to those who subscribe."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found)
        subscriber = await stack.enter_async_context(found.connect())
        subscription = await stack.enter_async_context(subscriber.subscribe("live", "video", max_age=0))
        assert (await subscription.receive()).sequence == 9
        async with at.viewer.fetch("live", "video", 2) as group:
            assert await group.read_all() == [b"2", b"more"]
        await at.track.write(b"next")
        assert (await subscription.receive()).sequence == 10


async def test_the_source_is_lost_during_a_fetch():
    """The fetch is reset: what came is not the whole group."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found)
        await stack.enter_async_context(group := at.track.open_group(20))
        await group.send(b"one")
        async with at.viewer.fetch("live", "video", 20) as reader:
            assert await reader.receive() == b"one"
            at.publisher._context.connection.lose()
            with pytest.raises(moqt.StreamReset):
                await reader.receive()
