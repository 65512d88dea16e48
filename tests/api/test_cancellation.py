"""Cancellation at every await of the public API: no leak, no lost item, and the session goes on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.interrupting import Pair, cancel_everywhere

VERSIONS = ["moq-lite-06", "moq-lite-03"]
SMALL = moqt.Limits(
    stream_window=1024,
    connection_window=4096,
    send_high=1024,
    reliable_backlog=1024,
    reliable_backlog_groups=4,
    close_timeout=0.5,
)


@pytest.mark.parametrize("version", VERSIONS)
async def test_publish(version):
    """A publish block that is cancelled as it opens or closes unannounces the broadcast and ends its subscriptions."""

    async def scenario(attempt):
        async with Pair(version) as pair, pair.client.announcements() as announcements:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")

            async def work():
                async with pair.server.publish("b", broadcast):
                    assert (await announcements.receive()).active
                    async with pair.client.subscribe("b", "t") as subscription:
                        await track.wait_subscribed()
                        await track.write(b"x")
                        await subscription.receive()

            await attempt(work)
            await trio.testing.wait_all_tasks_blocked()
            assert announcements.active == ()
            assert track.subscribers == 0

    await cancel_everywhere(scenario, least=10)


async def test_leaving_publish_with_a_subscriber_that_does_not_read(autojump_clock):
    """Cancelled while it waits for a slow subscriber to finish, a publish block resets that subscription."""

    async def scenario(attempt):
        async with Pair(limits=SMALL) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            published = pair.server.publish("b", broadcast)
            await published.__aenter__()
            async with pair.client.subscribe("b", "t"):
                await track.wait_subscribed()
                await track.write(bytes(10_000))
                await trio.testing.wait_all_tasks_blocked()
                await attempt(lambda: published.__aexit__(None, None, None))
                with trio.fail_after(0.1):
                    await track.wait_unsubscribed()

    await cancel_everywhere(scenario)


@pytest.mark.parametrize("version", VERSIONS)
async def test_announcements(version):
    """A cancelled receive loses no announcement; a cancelled block ends its stream on both sides."""

    async def scenario(attempt):
        async with Pair(version) as pair, trio.open_nursery() as nursery:

            async def publish():
                for path in ("a", "b", "c"):
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(hold, path)

            async def hold(path):
                async with pair.server.publish(path, moqt.Broadcast()):
                    await trio.sleep_forever()

            heard = []
            nursery.start_soon(publish)
            async with pair.client.announcements() as announcements:

                async def work():
                    while len(heard) < 3:
                        heard.append(str((await announcements.receive()).path))

                await attempt(work)
                await work()
                assert heard == ["a", "b", "c"]

            async def block():
                async with pair.client.announcements() as again:
                    await again.receive()

            await attempt(block)
            nursery.cancel_scope.cancel()

    await cancel_everywhere(scenario, least=4)


@pytest.mark.parametrize("version", VERSIONS)
async def test_subscribe(version):
    """A subscribe block cancelled anywhere unsubscribes: the publisher's side ends, its group streams are stopped."""

    async def scenario(attempt):
        async with Pair(version) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            async with pair.server.publish("b", broadcast):
                group = track.open_group()
                await group.send(b"first")

                async def work():
                    async with pair.client.subscribe("b", "t") as subscription:
                        await subscription.wait_accepted()
                        await subscription.track_properties()
                        reader = await subscription.receive()
                        await reader.receive()
                        await subscription.update(priority=3)

                await attempt(work)
                with trio.fail_after(1):
                    await track.wait_unsubscribed()
                group.finish()

    await cancel_everywhere(scenario, least=10)


@pytest.mark.parametrize("version", VERSIONS)
async def test_receiving_groups_and_frames(version, autojump_clock):
    """Whatever await is cancelled while groups and frames are received, all of them come, once and in order."""
    expected = [(number, [b"%d.%d" % (number, part) for part in range(2)]) for number in range(3)]

    async def scenario(attempt):
        async with Pair(version) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t", delivery="reliable")

            async def write():
                await track.wait_subscribed()
                for number in range(3):
                    async with track.open_group() as group:
                        for part in range(2):
                            await trio.testing.wait_all_tasks_blocked()
                            await group.send(b"%d.%d" % (number, part))
                track.finish()

            async with (
                pair.server.publish("b", broadcast),
                pair.client.subscribe("b", "t") as subscription,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(write)
                received = []
                readers = []

                async def work():
                    while True:
                        if not readers or readers[-1] is None:
                            try:
                                readers.append(await subscription.receive())
                            except trio.EndOfChannel:
                                return
                            received.append((readers[-1].sequence, []))
                        async for frame in readers[-1]:
                            received[-1][1].append(frame)
                        readers.append(None)

                await attempt(work)
                await work()
                assert received == expected

    await cancel_everywhere(scenario, least=12)


async def test_waiting_for_demand():
    """A cancelled wait for subscribers leaves no state, and the next one returns as it should."""

    async def scenario(attempt):
        async with Pair() as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            async with pair.server.publish("b", broadcast), trio.open_nursery() as nursery:
                began, wanted = trio.Event(), trio.Event()

                async def subscribe():
                    await began.wait()
                    await trio.testing.wait_all_tasks_blocked()
                    async with pair.client.subscribe("b", "t"):
                        await wanted.wait()

                async def work():
                    began.set()
                    try:
                        await track.wait_subscribed()
                    finally:
                        wanted.set()
                    await track.wait_unsubscribed()

                nursery.start_soon(subscribe)
                await attempt(work)
            assert track.subscribers == 0

    await cancel_everywhere(scenario, least=3)


@pytest.mark.parametrize("version", VERSIONS)
async def test_fetching(version):
    """A cancelled fetch ends its stream on both sides; cancelled reads of one lose no frame."""

    async def scenario(attempt):
        async with Pair(version) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            async with pair.server.publish("b", broadcast):
                group = track.open_group()
                await group.send(b"one")
                got = []

                async def block():
                    async with pair.client.fetch("b", "t", 0) as reader:
                        assert await reader.receive() == b"one"

                await attempt(block)
                async with pair.client.fetch("b", "t", 0) as reader, trio.open_nursery() as nursery:

                    async def write():
                        await trio.testing.wait_all_tasks_blocked()
                        await group.send(b"two")
                        group.finish()

                    async def work():
                        async for frame in reader:
                            got.append(frame)

                    nursery.start_soon(write)
                    await attempt(work)
                    await work()
                assert got == [b"one", b"two"]

    await cancel_everywhere(scenario, least=3)


async def test_goaway():
    """A cancelled GOAWAY was sent or was not: then it can be sent again."""

    async def scenario(attempt):
        async with Pair() as pair:
            await attempt(pair.server.goaway)
            await trio.testing.wait_all_tasks_blocked()
            if not pair.client._context.going_away.is_set():
                await pair.server.goaway()
            with trio.fail_after(1):
                assert await pair.client.wait_goaway() == ""
            with pytest.raises(moqt.LocalProtocolError, match="once"):
                await pair.server.goaway()
            pair.client.close()

    await cancel_everywhere(scenario)


async def test_aclose(autojump_clock):
    """However early aclose is cancelled, the session is closed when it returns, on both sides."""

    async def scenario(attempt):
        async with Pair(limits=SMALL) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            async with pair.server.publish("b", broadcast), pair.client.subscribe("b", "t"):
                await track.wait_subscribed()
                await track.write(bytes(10_000))
                await attempt(pair.server.aclose)
                assert isinstance(pair.server.closed, moqt.SessionClosed)
                with trio.fail_after(1):
                    error = await pair.client.wait_closed()
                assert isinstance(error, moqt.SessionClosed)
                assert error.by_peer
                assert error.remote_code == 0

    await cancel_everywhere(scenario, least=2)
