"""Fetches through a relay: from what it keeps, else from the publisher, once for all who want the group."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from tests.relay.relays import relay
from tests.transport.recorders import eventually

LITE = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"]
IETF = ["moqt-22", "moqt-20", "moqt-18", "moqt-16", "moqt-14"]
WITH_FETCH = [*LITE, *IETF]


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


@pytest.mark.parametrize("up", WITH_FETCH)
@pytest.mark.parametrize("version", WITH_FETCH)
async def test_a_group_of_the_past(version, up):
    """A group that the relay never had comes from the publisher, whole."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version, up)
        for number in (3, 9):
            async with at.viewer.fetch("live", "video", number) as group:
                assert await group.read_all() == [b"%d" % number, b"more"]


@pytest.mark.parametrize("version", ["moq-lite-06", *IETF])
async def test_a_group_that_is_not_there(version):
    """Only the publisher knows that, and its answer is passed on."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version)
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


@pytest.mark.parametrize("version", WITH_FETCH)
@pytest.mark.parametrize("frames", [2, 1500])
async def test_a_fetched_group_is_kept(version, frames):
    """The next one who wants it gets it from the relay, and whom it does not concern gets nothing."""
    async with relay() as found, AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(found.connect())
        broadcast = moqt.Broadcast()
        track = broadcast.track("video", max_age=60)
        for _ in range(10):
            async with track.open_group() as group:
                for number in range(frames):
                    group.send_nowait(b"%d" % number)
        await stack.enter_async_context(publisher.publish("live", broadcast))
        viewers = [await stack.enter_async_context(found.connect(version)) for _ in range(3)]
        await eventually(lambda: found.origin.routes())
        subscription = await stack.enter_async_context(viewers[0].subscribe("live", "video", max_age=0))
        assert (await subscription.receive()).sequence == 9
        begun: list[int] = []
        [front] = found.origin._sharing.fronts
        fetched = front.broadcast._fetch_group

        def fetch_group(name: str, sequence: int) -> moqt.Track | None:
            begun.append(sequence)
            return fetched(name, sequence)

        front.broadcast._fetch_group = fetch_group
        for viewer in viewers:
            for number in (3, 5):
                async with viewer.fetch("live", "video", number) as group:
                    assert await group.read_all() == [b"%d" % number for number in range(frames)]
        assert begun == [3, 5]
        await track.write(b"next")
        assert (await subscription.receive()).sequence == 10


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


@pytest.mark.parametrize("version", ["moq-lite-06", *IETF])
async def test_a_group_whose_beginning_the_relay_lacks(version):
    """A subscriber of a part has left it there; the whole group comes from the publisher."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version)
        first = await stack.enter_async_context(found.connect())
        async with first.subscribe("live", "video", start_group=9, start_frame=1) as subscription:
            assert await (await subscription.receive()).read_all() == [b"more"]
        async with at.viewer.fetch("live", "video", 9) as group:
            assert await group.read_all() == [b"9", b"more"]


@pytest.mark.parametrize("version", IETF)
async def test_a_range_of_frames(version):
    """A part of a group that the relay never had comes from the publisher, and nothing else."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version)
        async with at.viewer.fetch("live", "video", 4, start_frame=1) as group:
            assert await group.read_all() == [b"more"]
        async with at.viewer.fetch("live", "video", 4, end_frame=0) as group:
            assert await group.read_all() == [b"4"]


@pytest.mark.parametrize("version", IETF)
async def test_a_fetch_is_cancelled_while_the_publisher_writes(version):
    """These drafts answer once the group is known to its end; a viewer that leaves before ends its wait alone."""
    async with relay() as found, AsyncExitStack() as stack:
        at = await published(stack, found, version)
        await stack.enter_async_context(group := at.track.open_group(20))
        await group.send(b"one")
        other = await stack.enter_async_context(found.connect(version))
        with trio.move_on_after(0.05):
            async with at.viewer.fetch("live", "video", 20) as reader:
                await reader.receive()
        async with other.fetch("live", "video", 20) as reader, trio.open_nursery() as nursery:
            received: list[bytes] = []

            async def read() -> None:
                received.extend(await reader.read_all())

            nursery.start_soon(read)
            [front] = found.origin._sharing.fronts
            await eventually(lambda: front.fetches == 1)
            await group.send(b"two")
            group.finish()
        assert received == [b"one", b"two"]
        await eventually(lambda: not front.fetches)


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
