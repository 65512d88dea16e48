"""Every async function of the public API is a checkpoint, also when there is nothing to wait for."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

VERSIONS = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03"])


async def checked(function, *arguments, **options):
    """Call an async function, assert that it was a checkpoint, and return what it returned."""
    with trio.testing.assert_checkpoints():
        return await function(*arguments, **options)


async def settled() -> None:
    """Let everything that is on its way arrive."""
    await trio.testing.wait_all_tasks_blocked()


@VERSIONS
async def test_publishing(version):
    """Entering a publish block, opening a group, sending, writing and waiting for subscribers are checkpoints."""
    for delivery in ("live", "reliable"):
        broadcast = moqt.Broadcast()
        track = broadcast.track("t", delivery=delivery)
        async with session_pair(version) as (client, server):
            published = server.publish("b", broadcast)
            await checked(published.__aenter__)
            await checked(track.wait_unsubscribed)
            async with client.subscribe("b", "t"):
                await settled()
                await checked(track.wait_subscribed)
                await checked(track.write, b"x")
                group = track.open_group()
                await checked(group.__aenter__)
                await checked(group.send, b"x")
                group.finish()
            await published.__aexit__(None, None, None)


@VERSIONS
async def test_receiving(version):
    """Receiving what has already arrived is a checkpoint, and so are the ends of groups and tracks."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        subscription = client.subscribe("b", "t")
        await checked(subscription.__aenter__)
        await track.wait_subscribed()
        async with track.open_group() as group:
            for payload in (b"1", b"2", b"3"):
                await group.send(payload)
        await track.write(b"4")
        track.finish()
        await settled()
        await checked(subscription.wait_accepted)
        await checked(subscription.track_properties)
        await checked(subscription.update, priority=4)
        readers = [await checked(subscription.receive), await checked(subscription.__anext__)]
        reader, other = sorted(readers, key=lambda item: item.sequence)
        assert await checked(reader.receive) == b"1"
        assert await checked(reader.__anext__) == b"2"
        assert await checked(reader.read_all) == [b"3"]
        assert await checked(other.read_all) == [b"4"]
        for receive, end in (
            (reader.receive, trio.EndOfChannel),
            (reader.__anext__, StopAsyncIteration),
            (subscription.receive, trio.EndOfChannel),
            (subscription.__anext__, StopAsyncIteration),
        ):
            with pytest.raises(end), trio.testing.assert_checkpoints():
                await receive()
        assert await checked(reader.read_all) == []
        await subscription.__aexit__(None, None, None)


@VERSIONS
async def test_the_end_of_a_group_behind_a_frame(version):
    """It is no checkpoint, as the frame was one: a group of one frame costs one step. Asking again is a checkpoint."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        await track.write(b"x")
        async with track.open_group():
            pass
        await settled()
        readers = sorted([await subscription.receive(), await subscription.receive()], key=lambda item: item.sequence)
        reader, empty = readers
        assert await checked(reader.__anext__) == b"x"
        with pytest.raises(StopAsyncIteration), trio.testing.assert_no_checkpoints():
            await reader.__anext__()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration), trio.testing.assert_checkpoints():
                await reader.__anext__()
        with pytest.raises(StopAsyncIteration), trio.testing.assert_checkpoints():
            await empty.__anext__()


@VERSIONS
async def test_announcements(version):
    """Entering, receiving and waiting for the initial set are checkpoints."""
    async with session_pair(version) as (client, server), server.publish("b", moqt.Broadcast()):
        announcements = client.announcements()
        await checked(announcements.__aenter__)
        await settled()
        await checked(announcements.receive)
        if version == "moq-lite-06":
            await checked(announcements.wait_initial)
        await announcements.__aexit__(None, None, None)


@VERSIONS
async def test_fetching(version):
    """Entering a fetch and reading it are checkpoints."""
    broadcast = moqt.Broadcast()
    await broadcast.track("t").write(b"x")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        reader = client.fetch("b", "t", 0)
        await checked(reader.__aenter__)
        await settled()
        assert await checked(reader.receive) == b"x"
        await reader.__aexit__(None, None, None)


async def test_the_session_itself():
    """GOAWAY, waiting for it, closing, and waiting for the end are checkpoints, also when it has happened already."""
    async with session_pair() as (client, server):
        await checked(server.goaway)
        await settled()
        await checked(client.wait_goaway)
        await checked(client.aclose)
        await checked(client.aclose)
        await checked(client.wait_closed)
        await checked(server.wait_closed)
        await checked(server.aclose)


@pytest.mark.parametrize("scheme", ["https", "moqt"])
@VERSIONS
async def test_connecting_and_serving(scheme, version):
    """Connecting, accepting, rejecting and shutting down are checkpoints."""

    async def handler(request: moqt.SessionRequest) -> None:
        if request.query == "no":
            await checked(request.reject, 403)
            return
        accepted = request.accept()
        with trio.testing.assert_checkpoints():
            session = await accepted.__aenter__()
        await session.wait_closed()
        await accepted.__aexit__(None, None, None)

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, versions=[version]))
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        connecting = moqt.connect(url, fingerprint=listener.fingerprint)
        session = await checked(connecting.__aenter__)
        assert session.version == version
        await connecting.__aexit__(None, None, None)
        if (scheme, version) != ("moqt", "moq-lite-03"):
            with pytest.raises(moqt.Rejected):
                async with moqt.connect(url + "?no", fingerprint=listener.fingerprint):
                    pass
        assert listener.statistics().sessions_accepted == 1
        await checked(listener.aclose)
        await checked(listener.aclose)


async def test_functions_that_fail():
    """Receiving after the end of a session, and sending to an ended group, are checkpoints when they raise."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair() as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "t") as subscription, client.announcements() as announcements:
            await track.wait_subscribed()
            await track.write(b"x")
            reader = await subscription.receive()
            await announcements.receive()
            assert await reader.read_all() == [b"x"]
            server.close(9)
            await settled()
            for receive in (subscription.receive, announcements.receive):
                with pytest.raises(moqt.SessionClosed), trio.testing.assert_checkpoints():
                    await receive()
        async with track.open_group() as group:
            group.finish()
            with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
                await group.send(b"late")
