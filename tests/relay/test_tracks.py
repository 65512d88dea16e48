"""Tracks of moq-transport through a relay: below the path that is announced, and offered before anyone asks."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.model.track import state_of
from tests.relay.relays import relay
from tests.transport.recorders import eventually

DRAFTS = ["moqt-14", "moqt-16", "moqt-18", "moqt-20", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)


@EACH_DRAFT
async def test_below_the_path(version):
    """A namespace is a prefix: each viewer gets what the publisher makes below it, by one subscription upstream."""
    made: list[moqt.Track] = []
    below = moqt.Broadcast()

    def make(path: moqt.BroadcastPath, name: str) -> moqt.Track | None:
        if path != "b/c" or name != "video":
            return None
        # It is asked again for what was read before.
        if not made:
            made.append(below.track(name))
        return made[-1]

    async with (
        relay() as found,
        found.connect(version) as peer,
        peer.publish("a", moqt.Broadcast(on_request=make)),
        found.connect(version) as one,
        found.connect(version) as other,
    ):
        await one.wait_announced("a")
        with pytest.raises(moqt.NotFound):
            async with one.subscribe("a/x", "video") as subscription:
                await subscription.receive()
        for _ in range(2):
            async with one.subscribe("a/b/c", "video") as first, other.subscribe("a/b/c", "video") as second:
                await first.wait_accepted()
                await second.wait_accepted()
                track = made[-1]
                await track.wait_subscribed()
                await track.write(b"below")
                for subscription in (first, second):
                    received = await subscription.receive()
                    assert await received.read_all() == [b"below"]
                assert track.subscribers == 1
            await track.wait_unsubscribed()
        assert len(made) == 1
        track.finish()
    assert (found.origin.routes(), found.origin.statistics().tracks) == ((), 0)


@EACH_DRAFT
async def test_offered_tracks(version):
    """They are offered on, and read when a viewer wants them; what is offered no longer is so downstream."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    async with (
        relay() as found,
        found.connect(version) as peer,
        found.connect(version) as viewer,
        viewer.announcements() as news,
    ):
        await news.wait_initial()
        async with viewer.offered_tracks() as tracks:
            async with peer.publish("live", broadcast, offer_tracks=True):
                offered = await tracks.receive()
                assert (offered.path, offered.track, offered.active) == ("live", "video", True)
                await trio.testing.wait_all_tasks_blocked()
                assert track.subscribers == 0
                async with viewer.subscribe("live", "video") as subscription:
                    await track.wait_subscribed()
                    await track.write(b"offered")
                    assert await (await subscription.receive()).read_all() == [b"offered"]
                await track.wait_unsubscribed()
            ended = await tracks.receive()
            assert (ended.path, ended.track, ended.active) == ("live", "video", False)
        await eventually(lambda: not found.origin.routes())


async def test_a_publisher_that_offers_and_leaves():
    """A viewer that reads an offered track gets its end, and the path is gone."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    async with relay() as found, found.connect("moqt-20") as peer, found.connect() as viewer:
        async with peer.publish("live", broadcast, offer_tracks=True):
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                await track.write(b"last")
                assert await (await subscription.receive()).read_all() == [b"last"]
                peer.close()
                with pytest.raises((moqt.StreamReset, trio.EndOfChannel)):
                    await subscription.receive()
        await eventually(lambda: not found.origin.routes())


@pytest.mark.parametrize("down", ["moq-lite-06", "moq-lite-03", "moqt-14", "moqt-20", "moqt-22"])
@pytest.mark.parametrize("up", ["moq-lite-06", "moqt-18", "moqt-22"])
async def test_datagrams(up, down):
    """They are passed on with their numbers, as datagrams where the viewer's version has them, and are not kept."""
    async with relay() as found, found.connect(up) as peer, found.connect(down) as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with peer.publish("live", broadcast):
            await eventually(lambda: found.origin.routes())
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                for number in range(3):
                    assert track.send_datagram(b"%d" % number) == number
                    group = await subscription.receive()
                    assert (group.sequence, await group.read_all()) == (number, [b"%d" % number])
                    assert group.datagram is (down != "moq-lite-03")
                await track.write(b"kept")
                assert await (await subscription.receive()).read_all() == [b"kept"]
            [front] = found.origin._sharing.fronts
            assert state_of(front.broadcast.tracks["video"]).kept(0, 10) == [3]
