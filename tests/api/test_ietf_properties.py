"""The properties of tracks and frames: how they come, which end a subscription, how many there may be."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.objects import APPLICATION, BLOB, DRAFTS, EACH_DRAFT, STAMP, published, relayed


@EACH_DRAFT
async def test_the_properties_of_a_track(version):
    """They come with the acceptance, before the first group."""
    async with published(version, priority=9, max_age=2.0, timescale=90_000, properties=((BLOB, b"x"),)) as (
        _,
        received,
    ):
        properties = await received.track_properties()
    assert properties == moqt.TrackProperties(priority=9, max_age=2.0, timescale=90_000, properties=((BLOB, b"x"),))


@EACH_DRAFT
async def test_the_properties_of_a_track_that_is_not_there(version):
    """There are none, and the reader learns why."""
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", moqt.Broadcast()),
            client.subscribe("b", "t") as subscription,
        ):
            assert await subscription.track_properties() is None
            with pytest.raises(moqt.NotFound):
                await anext(subscription)


async def test_a_property_that_has_to_be_known():
    """The subscription is cancelled; the session goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", properties=((0x4000, 1),))
    with trio.fail_after(10):
        async with session_pair("moqt-18") as (client, server), server.publish("b", broadcast):
            async with client.subscribe("b", "t") as subscription:
                with pytest.raises(moqt.RemoteProtocolError, match="0x4000"):
                    await anext(subscription)
                await track.wait_unsubscribed()
            assert client.closed is None


@EACH_DRAFT
async def test_timescales_through_a_relay(version):
    """Timestamps are converted, also the one among the properties."""
    async with relayed(version, version, timescale=90_000) as (source, subscription):
        async with source.open_group() as group:
            await group.send(b"x", 90_000, properties=((APPLICATION, 1),))
            await group.send(b"y", 180_000)
        frames = await (await anext(subscription)).read_all()
    assert [frame.timestamp for frame in frames] == [1000, 2000]
    assert frames[0].properties == ((STAMP, 1000), (APPLICATION, 1))


@pytest.mark.parametrize("properties", [((3, 1),), ((2, b""),), (("x", 1),)])
def test_properties_of_a_wrong_type(properties):
    with pytest.raises(TypeError, match="property"):
        moqt.Broadcast().track("t", properties=properties)


@EACH_DRAFT
async def test_frames_with_long_properties(version):
    """They are written one at a time: what is beside the payloads does not fill the send buffer."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            async with track.open_group() as group:
                for number in range(40):
                    group.send_nowait(b"x", number, properties=((BLOB, bytes(60_000)),))
            await trio.testing.wait_all_tasks_blocked()
            [served] = server._publisher.subscriptions
            assert sum(sent.stream.buffered for sent in served._groups) < 2 * moqt.Limits().send_high
            assert served.undelivered > 30 * 60_000
            frames = await (await anext(subscription)).read_all()
    assert [len(dict(frame.properties)[BLOB]) for frame in frames] == [60_000] * 40


@pytest.mark.parametrize("version", ["moqt-14", "moqt-16", *DRAFTS])
async def test_as_many_properties_of_a_track_as_there_may_be(version):
    """What the API takes arrives in every draft that has a place for it; what the drafts can't carry, it refuses."""
    most = tuple((2 * number, (1 << 62) - 1) for number in range(0x40, 0x40 + 60))
    most += ((0x4001 << 1 | 1, bytes(30_000)),)
    async with published(version, properties=most) as (track, subscription):
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]
        found = await subscription.track_properties()
    assert found.properties in (most, ())
    for bad in ((*most, (2, 1)), ((2, 1 << 62),), ((1 << 62, 1),), ((3, bytes(33_000)),)):
        with pytest.raises(ValueError, match="propert"):
            moqt.Broadcast().track("t", properties=bad)


async def test_a_track_that_cannot_be_described(caplog):
    """Only its subscription is refused, with a line in the log: it has no reader then, and the session goes on."""
    broadcast = moqt.Broadcast()
    bad, good = broadcast.track("bad"), broadcast.track("good")
    bad.properties = ((2, 1 << 63),)
    with trio.fail_after(20):
        async with session_pair("moqt-16") as (client, server), server.publish("b", broadcast):
            with pytest.raises(moqt.StreamReset):
                async with client.subscribe("b", "bad") as subscription:
                    await anext(subscription)
            assert "cannot be described" in caplog.text
            assert bad.subscribers == 0
            async with client.subscribe("b", "good") as subscription:
                await good.wait_subscribed()
                await good.write(b"x")
                assert await (await anext(subscription)).read_all() == [b"x"]
